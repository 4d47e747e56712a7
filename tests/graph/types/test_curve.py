"""Curves: downsampled and whole, with gaps, over retries; the past of a subscription; metrics and cost."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from decimal import Decimal
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import convergence
from db import curve as columns
from db.convergence import Column
from db.public_ids import decode, encode
from graph.live import hub
from graph.types import curve
from graph.types.curve import choose

World = Any  # the fixtures of conftest.py
Api = Any
Statements = Any
Serve = Any
WaitUntil = Any

CURVE = """
query Curve($id: ID!, $metric: String! = "loss", $from: Step, $to: Step, $most: Int! = 1000) {
  simulation(id: $id) {
    convergence(metric: $metric, fromStep: $from, toStep: $to, maxPoints: $most) {
      metric steps values elapsed attempts
    }
  }
}
"""
CURVES = """
query Curves($ids: [ID!]!, $metric: String! = "loss", $from: Step, $to: Step, $most: Int! = 1000) {
  curves(ids: $ids, metric: $metric, fromStep: $from, toStep: $to, maxPoints: $most) {
    simulationId cursor curve { metric steps values elapsed attempts }
  }
}
"""
METRICS = """
query Metrics($id: ID!) {
  simulation(id: $id) {
    metrics { name mode direction count lastStep lastValue minStep minValue maxStep maxValue bestStep bestValue }
  }
}
"""
FOLLOW = """
subscription Follow($id: ID!, $after: String, $most: Int, $metrics: [String!]) {
  convergence(simulationId: $id, after: $after, maxPoints: $most, metrics: $metrics) {
    cursor attempt live state cost series { metric steps values elapsed supersedesFrom }
  }
}
"""
COST = "query Cost($id: ID!) { simulation(id: $id) { cost { amount currency perHour } } }"


async def fill(world: World, simulation_id: str, attempt: int, batch: int, metric: str, values: list[float]) -> None:
    """One batch whose steps are 0, 1, 2..."""
    steps = list(range(len(values)))
    columns = {metric: Column(steps, values, [step / 10 for step in steps])}
    async with world.sessions.begin() as session:
        await convergence.store(session, decode(simulation_id)[1], attempt, batch, columns)


async def read(api: Api, simulation_id: str, **given: Any) -> Any:
    return (await api.data(CURVE, {"id": simulation_id, **given}))["convergence"]


# --- choosing points -------------------------------------------------------------------------------------------


def chosen(values: list[float], most: int) -> list[int]:
    return [int(place) for place in choose(np.arange(len(values)) * 3, np.array(values, float), most)]


def stretches(values: list[float]) -> list[range]:
    """Where values are not finite: consecutive ones together."""
    found = []
    for finite, places in groupby(range(len(values)), key=lambda place: math.isfinite(values[place])):
        if not finite:
            inside = list(places)
            found.append(range(inside[0], inside[-1] + 1))
    return found


def test_what_is_short_enough_is_left_alone() -> None:
    assert chosen([1.0, math.nan, 3.0], 3) == [0, 1, 2]
    assert chosen([], 1) == []


def test_a_spike_survives_a_hundredfold_thinning() -> None:
    values = [math.sin(place / 5000) for place in range(100_000)]
    values[70_001], values[31_234] = 9.0, -9.0
    found = chosen(values, 1000)
    assert {0, 31_234, 70_001, 99_999} <= set(found)
    assert 990 <= len(found) <= 1000


def test_the_fewer_there_may_be_the_more_the_ends_count() -> None:
    values = [5.0, 1.0, 9.0, 3.0, 4.0]
    assert [chosen(values, most) for most in (1, 2, 3, 4)] == [[4], [0, 4], [0, 1, 4], [0, 1, 2, 4]]


def test_each_gap_is_shown_where_it_begins() -> None:
    values = [1.0] * 1000
    for begin, length in ((100, 1), (500, 300), (990, 5)):
        values[begin : begin + length] = [math.nan] * length
    found = chosen(values, 50)
    assert [place for place in found if math.isnan(values[place])] == [100, 500, 990]
    assert len(found) > 40


def test_a_curve_of_nothing_but_gaps_is_shown() -> None:
    assert chosen([math.nan] * 100, 10) == [0, 99]
    found = chosen([math.nan, 1.0] * 1000, 100)
    assert len(found) == 100
    assert 40 <= sum(place % 2 == 0 for place in found) <= 60


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, -2.5, 1e308, math.nan, math.inf, -math.inf]), st.integers(1, 30)),
        max_size=20,
    ),
    st.integers(1, 60),
)
def test_ends_extremes_and_gaps_are_kept_within_the_limit(runs: list[tuple[float, int]], most: int) -> None:
    values = [value for value, length in runs for _ in range(length)]
    found = chosen(values, most)
    assert found == sorted(set(found))
    assert len(found) <= most
    if not values:
        return
    assert len(values) - 1 in found
    kept = [values[place] for place in found]
    finite = [value for value in values if math.isfinite(value)]
    if most >= 4:
        assert 0 in found
        if finite:
            assert {min(finite), max(finite)} <= set(kept)
    if most >= 4 + 2 * len(stretches(values)):
        assert all(set(stretch) & set(found) for stretch in stretches(values))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, -2.5, 1e308, math.nan, math.inf]), st.integers(1, 30)), max_size=20),
    st.integers(4, 40),
    st.integers(0, 60),
)
def test_of_what_was_chosen_already_ends_and_extremes_are_kept(
    runs: list[tuple[float, int]], most: int, more: int
) -> None:
    """A level is chosen of a curve that is longer, and of the level what is shown."""
    values = np.array([value for value, length in runs for _ in range(length)], float)
    assume(len(values) > most + more)
    level = choose(np.arange(len(values)), values, most + more)
    found = level[choose(level, values[level], most, again=True)]
    assert found.tolist() == sorted(set(found.tolist()))
    assert len(found) <= most
    assert {0, len(values) - 1} <= set(found.tolist())
    finite = values[np.isfinite(values)]
    if len(finite):
        assert {finite.min(), finite.max()} <= set(values[found].tolist())
    gaps = stretches(values.tolist())
    if most >= 4 + 2 * len(gaps):
        assert all(set(gap) & set(found.tolist()) for gap in gaps)


def test_steps_that_do_not_rise_are_passed_over() -> None:
    steps = np.array([1, 5, 3, 5, 6])
    points = curve.Points(steps, steps * 1.0, steps * 1.0, np.ones(5, np.int32))
    assert curve._thin([points], 10).steps.tolist() == [1, 5, 6]


# --- over GraphQL ----------------------------------------------------------------------------------------------


async def test_a_curve_is_read_back_whole_and_in_order(api: Api, world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(0, 1, 2)
    await supervisor.loss(5, 9)
    assert await read(api, supervisor.simulation_id) == {
        "metric": "loss",
        "steps": [0, 1, 2, 5, 9],
        "values": [1.0, 1 / 2, 1 / 3, 1 / 6, 1 / 10],
        "elapsed": [0.0, 0.1, 0.2, 0.5, 0.9],
        "attempts": [1] * 5,
    }
    some = await read(api, supervisor.simulation_id, **{"from": 1, "to": 5})
    assert some["steps"] == [1, 2, 5]


async def test_a_metric_that_was_not_reported_is_empty(api: Api, world: World) -> None:
    simulation_id = await world.simulation()
    assert await read(api, simulation_id, metric="loss") == {
        "metric": "loss", "steps": [], "values": [], "elapsed": [], "attempts": [],
    }  # fmt: skip


async def test_a_long_curve_is_thinned_and_its_gaps_are_null(api: Api, world: World) -> None:
    simulation_id = await world.simulation()
    values = [math.cos(step / 300) for step in range(10_000)]
    values[4000:4100] = [math.nan] * 100
    values[7000] = math.inf
    values[8000] = -3.0
    await fill(world, simulation_id, 1, 1, "loss", values)
    found = await read(api, simulation_id, most=200)
    assert 150 < len(found["steps"]) <= 200
    assert (found["steps"][0], found["steps"][-1]) == (0, 9999)
    assert [step for step, value in zip(found["steps"], found["values"], strict=True) if value is None] == [4000, 7000]
    assert min(value for value in found["values"] if value is not None) == -3.0
    assert all(values[step] == value for step, value in zip(found["steps"], found["values"], strict=True) if value)


async def test_after_a_retry_only_what_stands_is_read(api: Api, world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(0, 1, 2, 3, 4)
    await world.lose(supervisor)
    again = await world.running(supervisor.simulation_id)
    await again.loss(3, 6)
    found = await read(api, supervisor.simulation_id)
    assert (found["steps"], found["attempts"]) == ([0, 1, 2, 3, 6], [1, 1, 1, 2, 2])


async def test_a_curve_longer_than_what_may_be_held_is_thinned_on_the_way(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "MOST_HELD", 100)
    simulation_id = await world.simulation()
    values = [float(step) for step in range(1000)]
    values[333] = -1.0
    await fill(world, simulation_id, 1, 1, "loss", values)
    found = await read(api, simulation_id, most=500)
    assert len(found["steps"]) <= 100
    assert {0, 333, 999} <= set(found["steps"])


@pytest.mark.parametrize(
    "given", [{"most": 0}, {"most": 100_001}, {"most": -1}, {"metric": ""}, {"metric": "a\0"}, {"metric": "a" * 257}]
)
async def test_what_makes_no_sense_is_refused_in_a_sentence(api: Api, world: World, given: dict[str, Any]) -> None:
    error = await api.error(CURVE, {"id": await world.simulation(), **given})
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


# --- of many simulations ---------------------------------------------------------------------------------------


async def test_the_curves_of_many_are_those_of_each(api: Api, world: World) -> None:
    plain, empty, retried = await world.running(), await world.simulation(), await world.running()
    await plain.loss(0, 1, 2)
    await plain.loss(5, 9)
    await retried.loss(0, 1, 2, 3, 4)
    await world.lose(retried)
    again = await world.running(retried.simulation_id)
    await again.loss(3, 6)
    long = await world.simulation()
    await fill(world, long, 1, 1, "loss", [math.nan if step == 7 else math.cos(step / 300) for step in range(5000)])
    missing = encode("Simulation", 999_999)
    ids = [long, plain.simulation_id, missing, empty, retried.simulation_id, long]
    found = await api.data(CURVES, {"ids": ids, "most": 200})
    assert [each["simulationId"] for each in found] == [long, plain.simulation_id, empty, retried.simulation_id]
    for each in found:
        assert each["curve"] == await read(api, each["simulationId"], most=200)
    assert [each["cursor"] for each in found] == ["1-1", "1-2", None, "2-1"]


@pytest.mark.parametrize(("low", "high"), [(2, 4), (100, 900), (None, 3), (4_000, None), (1_000_000, 2_000_000)])
async def test_a_part_of_the_curves_of_many_is_that_of_each(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch, low: int | None, high: int | None
) -> None:
    monkeypatch.setattr(curve, "PAGE_POINTS", 1_000)  # short ones together, the long one by itself
    short, retried = await world.running(), await world.running()
    await short.loss(0, 1, 2)
    await short.loss(3, 150)
    await retried.loss(0, 1, 2, 3, 4)
    await world.lose(retried)
    again = await world.running(retried.simulation_id)
    await again.loss(3, 6)
    long = await world.simulation()
    await fill(world, long, 1, 1, "loss", [math.cos(step / 300) for step in range(5000)])
    ids = [short.simulation_id, retried.simulation_id, long]
    found = await api.data(CURVES, {"ids": ids, "from": low, "to": high, "most": 200})
    assert [each["simulationId"] for each in found] == ids
    for each in found:
        assert each["curve"] == await read(api, each["simulationId"], **{"from": low, "to": high}, most=200)
        assert each["cursor"] is None, "going on live behind it would miss what lies between"


async def test_a_part_is_finer_than_the_whole(api: Api, world: World) -> None:
    long = await world.simulation()
    await fill(world, long, 1, 1, "loss", [math.sin(step / 3) for step in range(5000)])
    [found] = await api.data(CURVES, {"ids": [long], "from": 1_000, "to": 1_099, "most": 100})
    assert found["curve"]["steps"] == list(range(1_000, 1_100))


async def test_curves_of_names_numbers_and_beginnings(api: Api, world: World) -> None:
    named, other = await world.simulation(name="resnet, 10 layers"), await world.simulation(name="108")
    for each in (named, other):
        await fill(world, each, 1, 1, "loss", [1.0, 2.0])
    number = decode(other)[1]
    found = await api.data(CURVES, {"ids": ["resnet, 10 layers", f"#{number}", "resnet", named, other]})
    assert [each["simulationId"] for each in found] == [named, other], "each once"
    error = await api.error(CURVES, {"ids": [named, "no such name"]})
    assert "'no such name' is not the id, number or name of a simulation." in error["message"]


async def test_each_curve_goes_on_live_behind_its_cursor(api: Api, world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(0, 1, 2)
    [found] = await api.data(CURVES, {"ids": [supervisor.simulation_id]})
    await supervisor.send({"other": {"steps": [0, 1], "values": [1, 2], "elapsed": [0, 1]}})
    await supervisor.loss(3)
    given = {"id": supervisor.simulation_id, "after": found["cursor"], "metrics": ["loss"]}
    async with api.subscribe(FOLLOW, given) as events:
        event = await events.next()
        assert [each["steps"] for each in event["series"]] == [[3]]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many simulations shared each statement that read several."""
    found: list[int] = []
    whole = columns.whole

    async def counted(session: AsyncSession, parts: Mapping[int, Any], metric: str, **steps: int) -> Any:
        found.append(len(parts))
        return await whole(session, parts, metric, **steps)

    monkeypatch.setattr(columns, "whole", counted)
    return found


async def test_a_hundred_short_curves_share_a_statement(
    api: Api, world: World, statements: Statements, engine: AsyncEngine, shared: list[int]
) -> None:
    ids = [await world.simulation() for _ in range(100)]
    for number, simulation_id in enumerate(ids):
        await fill(world, simulation_id, 1, 1, "loss", [float(number), 2.0, 3.0])
    with statements.of(engine):
        found = await api.data(CURVES, {"ids": ids})
    assert [each["curve"]["values"][0] for each in found] == list(range(100))
    assert len(statements) < 10
    assert shared == [100]


@pytest.mark.parametrize("timed", [True, False])
async def test_elapsed_seconds_are_read_only_if_they_are_selected(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch, timed: bool
) -> None:
    """PostgreSQL writes each number by itself: a third of what a comparison's curves cost it."""
    sent: list[bool] = []
    whole = columns.whole

    async def seen(*given: Any, **options: Any) -> Any:
        pages = await whole(*given, **options)
        sent.extend(row[2] is not None for each in pages.values() for page in each for row in page.rows)
        return pages

    monkeypatch.setattr(columns, "whole", seen)
    ids = [await world.simulation() for _ in range(3)]
    for simulation_id in ids:
        await fill(world, simulation_id, 1, 1, "loss", [1.0 / (1 + step) for step in range(50)])
    expected = await api.data(CURVES, {"ids": ids, "most": 20})
    sent.clear()
    document = CURVES if timed else CURVES.replace(" elapsed", "")
    found = await api.data(document, {"ids": ids, "most": 20})
    assert sent == [timed] * 3
    for each, before in zip(found, expected, strict=True):
        assert each["curve"] == {name: column for name, column in before["curve"].items() if timed or name != "elapsed"}


async def test_groups_are_thinned_while_the_next_one_is_read(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch, shared: list[int]
) -> None:
    monkeypatch.setattr(curve, "PAGE_POINTS", 100)
    ids = [await world.simulation() for _ in range(6)]
    for number, simulation_id in enumerate(ids):
        await fill(world, simulation_id, 1, 1, "loss", [math.cos(number + step / 9) for step in range(40)])
    found = await api.data(CURVES, {"ids": ids, "most": 10})
    assert shared == [2, 2, 2]
    assert [each["curve"] for each in found] == [await read(api, each, most=10) for each in ids]


async def test_long_curves_do_not_share_a_statement(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch, shared: list[int]
) -> None:
    """What is held at once is bounded: short ones are read together as far as that goes, a long one page by page."""
    monkeypatch.setattr(curve, "PAGE_POINTS", 10)
    sizes = [4, 4, 30, 4, 2]
    ids = [await world.simulation() for _ in sizes]
    for simulation_id, size in zip(ids, sizes, strict=True):
        await fill(world, simulation_id, 1, 1, "loss", [1.0 / (1 + step) for step in range(size)])
    found = await api.data(CURVES, {"ids": ids})
    assert [len(each["curve"]["steps"]) for each in found] == sizes
    assert [each["cursor"] for each in found] == ["1-1"] * 5
    assert shared == [2, 2]


async def test_so_many_curves_share_the_points_of_an_answer(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "MOST_PAST_POINTS", 40)
    ids = [await world.simulation() for _ in range(4)]
    for simulation_id in ids:
        await fill(world, simulation_id, 1, 1, "loss", [float(step) for step in range(100)])
    found = await api.data(CURVES, {"ids": ids})
    assert all(5 < len(each["curve"]["steps"]) <= 10 for each in found)


@pytest.mark.parametrize(
    "given",
    [
        {"most": 0},
        {"metric": ""},
        {"metric": "a\0"},
        {"ids": ["nonsense"]},
        {"ids": [encode("Machine", 1)]},
        {"ids": [encode("Simulation", number) for number in range(501)], "most": 1},
    ],
)
async def test_curves_that_make_no_sense_are_refused_in_a_sentence(api: Api, given: dict[str, Any]) -> None:
    error = await api.error(CURVES, {"ids": [encode("Simulation", 1)], **given})
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_read_that_fails_leaves_no_thread_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, shared: list[int]
) -> None:
    """The group before is thinned meanwhile: a thread can't be interrupted, so it is waited for."""
    monkeypatch.setattr(curve, "PAGE_POINTS", 100)
    ids = [decode(await world.simulation())[1] for _ in range(4)]
    for simulation_id in ids:
        await fill(world, encode("Simulation", simulation_id), 1, 1, "loss", [float(step) for step in range(40)])
    failed, ended = threading.Event(), threading.Event()
    whole, thin = columns.whole, curve._thin_each

    async def failing(*given: Any, **options: Any) -> Any:
        if len(shared) == 1:
            asyncio.get_running_loop().call_soon(failed.set)
            raise ConnectionError("away")
        return await whole(*given, **options)

    def thinned(*given: Any) -> Any:
        assert failed.wait(60)
        found = thin(*given)
        ended.set()
        return found

    monkeypatch.setattr(columns, "whole", failing)
    monkeypatch.setattr(curve, "_thin_each", thinned)
    with pytest.raises(ConnectionError, match="away"):
        await curve.of_many(world.sessions, ids, "loss", 10)
    assert ended.is_set()


async def test_a_read_that_is_cancelled_leaves_no_thread_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [decode(await world.simulation())[1] for _ in range(2)]
    for simulation_id in ids:
        await fill(world, encode("Simulation", simulation_id), 1, 1, "loss", [float(step) for step in range(40)])
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    go_on, ended = threading.Event(), threading.Event()

    def thinned(*given: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(60)
        ended.set()
        return {}

    monkeypatch.setattr(curve, "_thin_each", thinned)
    reading = asyncio.create_task(curve.of_many(world.sessions, ids, "loss", 10))
    await begun.wait()
    reading.cancel()
    loop.call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert ended.is_set()


# --- levels of long curves ---------------------------------------------------------------------------------------


@pytest.fixture
def small_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels of 40 points, of curves from 160 points on."""
    monkeypatch.setattr(curve, "LEVEL_POINTS", 40)
    monkeypatch.setattr(curve, "LONG_POINTS", 160)


def wave(length: int) -> list[float]:
    values = [math.cos(step / 9) for step in range(length)]
    values[50], values[60:70], values[80] = -7.0, [math.nan] * 10, math.inf
    return values


def points(metric: str, *steps: int) -> dict[str, Any]:
    return {metric: {"steps": steps, "values": [step / 10 for step in steps], "elapsed": [step / 10 for step in steps]}}


async def levels_of(world: World) -> list[tuple[int, int]]:
    return [tuple(row) for row in await world.select("SELECT simulation_id, points FROM curve_levels ORDER BY 1")]


@pytest.mark.usefixtures("small_levels")
async def test_a_second_look_at_ended_curves_reads_no_points_and_finds_the_same(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch, shared: list[int]
) -> None:
    monkeypatch.setattr(curve, "PAGE_POINTS", 900)  # the last one is longer: it is read by itself
    sizes = [200, 300, 1_000]
    ids = [await world.in_state("FINISHED") for _ in sizes]
    for simulation_id, size in zip(ids, sizes, strict=True):
        await fill(world, simulation_id, 1, 1, "loss", wave(size))
    first = await api.data(CURVES, {"ids": ids, "most": 20})
    assert await levels_of(world) == [(decode(each)[1], size) for each, size in zip(ids, sizes, strict=True)]
    assert shared == [2]
    with monkeypatch.context() as patch:
        patch.setattr(columns, "pages", None)
        assert await api.data(CURVES, {"ids": ids, "most": 20}) == first
    assert shared == [2]
    for each, size in zip(first, sizes, strict=True):
        steps, values = each["curve"]["steps"], each["curve"]["values"]
        assert (steps[0], steps[-1], each["cursor"]) == (0, size - 1, "1-1")
        assert len(steps) <= 20
        assert [step for step, value in zip(steps, values, strict=True) if value is None] == [60, 80]
        assert -7.0 in values
        assert each["curve"]["elapsed"] == [step / 10 for step in steps]
        assert each["curve"]["attempts"] == [1] * len(steps)
    whole = await api.data(CURVES, {"ids": ids[:2], "most": 40})
    assert [each["curve"] for each in whole] == [await read(api, each, most=40) for each in ids[:2]], (
        "as it was thinned"
    )


@pytest.mark.usefixtures("small_levels")
async def test_points_that_come_after_the_end_are_in_the_next_answer(api: Api, world: World) -> None:
    simulation_id = await world.in_state("FINISHED")
    await fill(world, simulation_id, 1, 1, "loss", wave(200))
    await api.data(CURVES, {"ids": [simulation_id], "most": 20})
    late = {"loss": Column([200, 201], [9.0, 1.0], [20.0, 20.1])}
    async with world.sessions.begin() as session:
        await convergence.store(session, decode(simulation_id)[1], 1, 2, late)
    for _ in range(2):
        [found] = await api.data(CURVES, {"ids": [simulation_id], "most": 20})
        assert found["cursor"] == "1-2"
        assert found["curve"]["steps"][-1] == 201
        assert 9.0 in found["curve"]["values"]
    assert await levels_of(world) == [(decode(simulation_id)[1], 202)]


@pytest.mark.usefixtures("small_levels")
async def test_points_that_come_amid_a_read_are_in_the_next_answer(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation_id, other = await world.in_state("FINISHED"), await world.simulation()
    for each in (simulation_id, other):
        await fill(world, each, 1, 1, "loss", wave(200))
    whole = columns.whole

    async def late(*given: Any, **options: Any) -> Any:
        monkeypatch.setattr(columns, "whole", whole)
        async with world.sessions.begin() as session:
            points = {"loss": Column([200], [9.0], [20.0])}
            await convergence.store(session, decode(simulation_id)[1], 1, 2, points)
        return await whole(*given, **options)

    monkeypatch.setattr(columns, "whole", late)
    [found, _] = await api.data(CURVES, {"ids": [simulation_id, other], "most": 20})
    assert (found["curve"]["steps"][-1], found["cursor"]) == (199, "1-1"), "of one moment, and goes on behind it"
    [found, _] = await api.data(CURVES, {"ids": [simulation_id, other], "most": 20})
    assert (found["curve"]["steps"][-1], found["cursor"]) == (200, "1-2")


@pytest.mark.usefixtures("small_levels")
async def test_a_level_has_what_stands_of_each_attempt(api: Api, world: World) -> None:
    supervisor = await world.running()
    await fill(world, supervisor.simulation_id, 1, 7, "loss", wave(150))
    await world.lose(supervisor)
    again = await world.running(supervisor.simulation_id)
    again_values = {"loss": Column(list(range(90, 190)), [2.0] * 100, [1.0] * 100)}
    async with world.sessions.begin() as session:
        await convergence.store(session, decode(again.simulation_id)[1], 2, 9, again_values)
    await again.exit(0)
    for _ in range(2):
        [found] = await api.data(CURVES, {"ids": [again.simulation_id], "most": 20})
        by_step = dict(zip(found["curve"]["steps"], found["curve"]["attempts"], strict=True))
        assert {attempt for step, attempt in by_step.items() if step < 90} == {1}
        assert {attempt for step, attempt in by_step.items() if step >= 90} == {2}
        assert found["cursor"] == "2-9"
    assert await levels_of(world) == [(decode(again.simulation_id)[1], 250)], "all that were reported"


@pytest.mark.usefixtures("small_levels")
async def test_a_level_without_times_is_made_anew_with_them(api: Api, world: World) -> None:
    simulation_id = await world.in_state("FINISHED")
    await fill(world, simulation_id, 1, 1, "loss", wave(200))
    [without] = await api.data(CURVES.replace(" elapsed", ""), {"ids": [simulation_id], "most": 20})
    for _ in range(2):
        [found] = await api.data(CURVES, {"ids": [simulation_id], "most": 20})
        assert found["curve"].pop("elapsed") == [step / 10 for step in found["curve"]["steps"]]
        assert found == without
    assert await api.data(CURVES.replace(" elapsed", ""), {"ids": [simulation_id], "most": 20}) == [without]


@pytest.mark.usefixtures("small_levels")
async def test_no_level_is_kept_of_what_runs_is_short_or_is_asked_for_in_part_or_finer(api: Api, world: World) -> None:
    running, ended, short = await world.running(), await world.in_state("FAILED"), await world.in_state("FINISHED")
    await fill(world, running.simulation_id, 1, 1, "loss", wave(200))
    await fill(world, ended, 1, 1, "loss", wave(200))
    await fill(world, short, 1, 1, "loss", wave(159))
    await api.data(CURVES, {"ids": [running.simulation_id, short], "most": 20})
    await api.data(CURVES, {"ids": [ended], "most": 41})
    await api.data(CURVES, {"ids": [ended], "from": 1, "most": 20})
    await api.data(CURVES, {"ids": [ended], "to": 198, "most": 20})
    assert await levels_of(world) == []
    await api.data(CURVES, {"ids": [ended], "metric": "other", "most": 20})
    assert await levels_of(world) == []


@pytest.mark.usefixtures("small_levels")
async def test_looks_at_the_same_time_keep_one_level(api: Api, world: World) -> None:
    ids = [await world.in_state("FINISHED") for _ in range(3)]
    for simulation_id in ids:
        await fill(world, simulation_id, 1, 1, "loss", wave(200))
    asked = [{"ids": order, "most": 20} for order in (ids, ids[::-1], ids[1:], ids)]
    found = await asyncio.gather(*(api.data(CURVES, each) for each in asked))
    assert found[0] == found[1][::-1] == found[3]
    assert await levels_of(world) == [(decode(each)[1], 200) for each in ids]


@pytest.mark.usefixtures("small_levels")
async def test_the_end_of_a_simulation_makes_its_levels_before_anyone_looks(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "MOST_LEVELS", 2)
    supervisor = await world.running()
    names = ("accuracy", "loss", "more", "system/cpu")
    await supervisor.send({name: points(name, *range(100))[name] for name in (*names, "brief")})
    await supervisor.send({name: points(name, *range(100, 160))[name] for name in names})
    await supervisor.exit(0)
    await api.live.background._waiting.join()
    kept = await world.select("SELECT metric, points, elapsed IS NOT NULL FROM curve_levels ORDER BY metric")
    assert list(map(tuple, kept)) == [("accuracy", 160, True), ("loss", 160, True)]
    with monkeypatch.context() as patch:
        patch.setattr(columns, "pages", None)
        patch.setattr(columns, "whole", None)
        [found] = await api.data(CURVES, {"ids": [supervisor.simulation_id], "most": 20})
    assert (found["curve"]["steps"][0], found["curve"]["steps"][-1], found["cursor"]) == (0, 159, "1-2")


@pytest.mark.usefixtures("small_levels")
async def test_an_attempt_that_is_tried_again_or_was_short_makes_no_level(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[object] = []
    monkeypatch.setattr(api.live.background, "add", added.append)
    await (await world.running()).send(points("loss", *range(10)), exit={"exitCode": 0})
    assert added == [], "no statement for the many that are short"
    monkeypatch.undo()
    monkeypatch.setattr(curve, "LONG_POINTS", 160)
    again = await world.running(limits={"maxRetries": 1, "retryOn": ["EXIT_CODE"]})
    await again.send(points("loss", *range(160)))
    await again.exit(1)
    await api.live.background._waiting.join()
    assert await levels_of(world) == []


# --- the past of a subscription --------------------------------------------------------------------------------


async def test_the_past_comes_thinned_and_what_is_new_in_full(api: Api, world: World) -> None:
    supervisor = await world.running()
    for begin in range(0, 100, 10):
        await supervisor.loss(*range(begin, begin + 10))
    async with api.subscribe(FOLLOW, {"id": supervisor.simulation_id, "most": 10}) as events:
        past = await events.next()
        [series] = past["series"]
        assert (past["attempt"], past["live"], past["state"]) == (1, False, "RUNNING")
        assert (series["steps"][0], series["steps"][-1], series["supersedesFrom"]) == (0, 99, None)
        assert 4 < len(series["steps"]) <= 10
        now = await events.next()
        assert (now["cursor"], now["live"], now["series"]) == (past["cursor"], True, [])
        await supervisor.loss(*range(100, 150))
        new = await events.next()
        assert new["series"][0]["steps"] == list(range(100, 150))
        await supervisor.exit()
        rest = await events.all()
    assert rest[-1]["state"] == "FINISHED"
    async with api.subscribe(FOLLOW, {"id": supervisor.simulation_id, "after": past["cursor"], "most": 10}) as events:
        resumed = await events.all()
    assert [step for event in resumed for series in event["series"] for step in series["steps"]] == [*range(100, 150)]


async def test_the_past_has_an_event_per_attempt_and_no_superseded_points(api: Api, world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(0, 1, 2, 3, 4)
    await supervisor.send({"norm": {"steps": [0], "values": ["NaN"], "elapsed": [0]}})
    await world.lose(supervisor)
    again = await world.running(supervisor.simulation_id)
    await again.loss(3, 6)
    await again.loss(7)
    await again.exit()
    async with api.subscribe(FOLLOW, {"id": supervisor.simulation_id, "most": 100}) as events:
        first, second, last = await events.all()
    assert [(each["metric"], each["steps"], each["supersedesFrom"]) for each in first["series"]] == [
        ("loss", [0, 1, 2], None),
        ("norm", [0], None),
    ]
    assert first["series"][1]["values"] == [None]
    assert [(each["metric"], each["steps"], each["supersedesFrom"]) for each in second["series"]] == [
        ("loss", [3, 6, 7], 3)
    ]
    assert (first["attempt"], second["attempt"], last["state"], last["series"]) == (1, 2, "FINISHED", [])
    # Behind the first of them is all of the second attempt, in full.
    async with api.subscribe(FOLLOW, {"id": supervisor.simulation_id, "after": first["cursor"]}) as events:
        resumed = await events.all()
    assert [(e["attempt"], s["steps"]) for e in resumed for s in e["series"]] == [(2, [3, 6, 7])]


async def test_the_past_of_other_metrics_is_not_sent_and_passed_over(api: Api, world: World) -> None:
    supervisor = await world.running()
    await supervisor.loss(0, 1)
    await supervisor.send({"norm": {"steps": [5], "values": [1], "elapsed": [0]}})
    await supervisor.exit()
    given = {"id": supervisor.simulation_id, "most": 5, "metrics": ["norm"]}
    async with api.subscribe(FOLLOW, given) as events:
        found = await events.all()
    assert [[series["steps"] for series in event["series"]] for event in found] == [[[5]], []]


@pytest.mark.parametrize("most", [0, 100_001])
async def test_a_past_of_no_points_or_too_many_is_refused(api: Api, world: World, most: int) -> None:
    given = {"id": await world.simulation(), "most": most}
    async with api.subscribe(FOLLOW, given) as events:
        with pytest.raises(Exception, match="maxPoints is from 1 to 100000"):
            await events.next()


# --- metrics ---------------------------------------------------------------------------------------------------


async def test_metrics_say_what_they_came_to_and_which_way_is_best(api: Api, world: World) -> None:
    supervisor = await world.running(metrics=[{"name": "accuracy", "mode": "MAX"}, {"name": "later", "mode": "MIN"}])
    await supervisor.send({
        "loss": {"steps": [1, 2, 3], "values": [2.0, 1.0, "NaN"], "elapsed": [0, 0, 0]},
        "accuracy": {"steps": [1, 2], "values": [0.9, 0.8], "elapsed": [0, 0]},
        "lr": {"steps": [1, 2], "values": [0.0, 0.1], "elapsed": [0, 0]},
        "norm": {"steps": [1], "values": ["Infinity"], "elapsed": [0]},
    })  # fmt: skip
    found = (await api.data(METRICS, {"id": supervisor.simulation_id}))["metrics"]
    assert found == [
        {
            "name": "accuracy", "mode": "MAX", "direction": "MAX", "count": 2, "lastStep": 2, "lastValue": 0.8,
            "minStep": 2, "minValue": 0.8, "maxStep": 1, "maxValue": 0.9, "bestStep": 1, "bestValue": 0.9,
        },
        {
            "name": "loss", "mode": "MIN", "direction": "MIN", "count": 3, "lastStep": 3, "lastValue": None,
            "minStep": 2, "minValue": 1.0, "maxStep": 1, "maxValue": 2.0, "bestStep": 2, "bestValue": 1.0,
        },
        {
            "name": "lr", "mode": "MIN", "direction": None, "count": 2, "lastStep": 2, "lastValue": 0.1, "minStep": 1,
            "minValue": 0.0, "maxStep": 2, "maxValue": 0.1, "bestStep": None, "bestValue": None,
        },
        {
            "name": "norm", "mode": "MIN", "direction": None, "count": 1, "lastStep": 1, "lastValue": None,
            "minStep": None, "minValue": None, "maxStep": None, "maxValue": None, "bestStep": None, "bestValue": None,
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ([{"name": "", "mode": "MIN"}], ["metrics", "0", "name"]),
        ([{"name": "a\0", "mode": "MIN"}], ["metrics", "0", "name"]),
        ([{"name": "a" * 257, "mode": "MIN"}], ["metrics", "0", "name"]),
        ([{"name": "a", "mode": "MIN"}, {"name": "a", "mode": "MAX"}], ["metrics"]),
        ([{"name": str(number), "mode": "MIN"} for number in range(101)], ["metrics"]),
    ],
)
async def test_metrics_that_make_no_sense_are_told_by_field(
    api: Api, world: World, asked: list[dict[str, str]], field: list[str]
) -> None:
    mutation = "mutation ($i: CreateSimulationInput!) { createSimulation(input: $i) { userErrors { code field } } }"
    payload = await api.data(mutation, {"i": {"entrypoint": ["true"], "metrics": asked}})
    assert payload["userErrors"] == [{"code": "INVALID", "field": field}]
    assert (await world.counts())["simulations"] == 0


async def test_a_repeated_simulation_keeps_its_modes_and_a_client_key_tells_them_apart(api: Api, world: World) -> None:
    up, down = ([{"name": "a", "mode": mode}] for mode in ("MAX", "MIN"))
    first = await world.simulation(clientKey="k", metrics=up)
    assert await world.simulation(clientKey="k", metrics=up) == first
    mutation = "mutation ($i: CreateSimulationInput!) { createSimulation(input: $i) { userErrors { code } } }"
    payload = await api.data(mutation, {"i": {"entrypoint": ["true"], "clientKey": "k", "metrics": down}})
    assert payload["userErrors"] == [{"code": "TAKEN"}]
    await world.cancel(first)
    await api.data("mutation ($id: ID!) { retrySimulation(input: {id: $id}) { userErrors { code } } }", {"id": first})
    kept = await world.select("SELECT metric_modes FROM simulations ORDER BY id")
    assert [modes for (modes,) in kept] == [{"a": "MAX"}] * 2


async def test_a_list_with_metrics_and_costs_costs_a_statement_for_each(
    api: Api, world: World, statements: Statements
) -> None:
    for _ in range(3):
        supervisor = await world.running()
        await supervisor.loss(1, 2)
    engine = api.hub._sessions.kw["bind"]
    assert isinstance(engine, AsyncEngine)
    query = "{ simulations(first: 50) { nodes { metrics { name bestValue } cost { amount } } } }"
    with statements.of(engine):
        nodes = (await api.data(query))["nodes"]
    assert len(nodes) == 3
    assert all(node["metrics"] == [{"name": "loss", "bestValue": 1 / 3}] for node in nodes)
    assert len(statements.matching("FROM metrics")) == 1
    assert len(statements.matching("FROM attempts AS a")) == 1


# --- money -----------------------------------------------------------------------------------------------------


async def price(world: World, supervisor: Any, price_per_hour: str, share: str, ago_seconds: int) -> None:
    """Change what an attempt is billed by, and since when."""
    await world.select(
        "UPDATE members SET price_per_hour = :price, share = :share, assigned_at = now() - make_interval(secs => :ago)"
        " WHERE id = :id",
        id=supervisor.number, price=Decimal(price_per_hour), share=Decimal(share), ago=ago_seconds,
    )  # fmt: skip


async def test_nothing_was_spent_before_there_was_a_machine(api: Api, world: World) -> None:
    found = await api.data(COST, {"id": await world.simulation()})
    assert found == {"cost": {"amount": "0", "currency": "USD", "perHour": "0"}}


async def test_money_is_counted_over_all_attempts_and_stops_with_the_last(api: Api, world: World) -> None:
    supervisor = await world.running()
    await price(world, supervisor, "40", "0.5", 1800)
    await world.lose(supervisor)
    lost = (await api.data(COST, {"id": supervisor.simulation_id}))["cost"]
    assert (10 <= Decimal(lost["amount"]) < 11, lost["perHour"]) == (True, "0")
    again = await world.running(supervisor.simulation_id)
    await price(world, again, "8", "0.25", 3600)
    running = (await api.data(COST, {"id": supervisor.simulation_id}))["cost"]
    assert (12 <= Decimal(running["amount"]) < 13, running["perHour"]) == (True, "2")
    await again.exit()
    ended = (await api.data(COST, {"id": supervisor.simulation_id}))["cost"]
    assert Decimal(ended["amount"]) >= Decimal(running["amount"])
    assert ended["perHour"] == "0"
    assert (await api.data(COST, {"id": supervisor.simulation_id}))["cost"] == ended
    async with api.subscribe(FOLLOW, {"id": supervisor.simulation_id}) as events:
        [last] = await events.all()
    assert (last["state"], last["cost"]) == ("FINISHED", ended["amount"])


async def test_subscribers_share_an_event_and_the_cost_in_it(api: Api, world: World) -> None:
    supervisor = await world.running()
    await price(world, supervisor, "3600", "1", 3600)
    given = {"id": supervisor.simulation_id}
    async with api.subscribe(FOLLOW, given) as one, api.subscribe(FOLLOW, given) as other:
        assert await one.next() == await other.next()
        await supervisor.loss(1)
        told = await asyncio.gather(one.next(), other.next())
    assert told[0] == told[1]
    assert 3600 <= Decimal(told[0]["cost"]) < 3700


async def test_a_cost_that_is_shown_is_never_much_older_than_ten_seconds(
    serve: Serve, world: World, statements: Statements, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    assert convergence.MONEY_SECONDS == hub.LOOK_AGAIN_SECONDS == 10
    seconds = 0.0
    monkeypatch.setattr("graph.live.tail.monotonic", lambda: seconds)
    monkeypatch.setattr("graph.live.hub.LOOK_AGAIN_SECONDS", 0.02)
    api = await serve()
    supervisor = await world.running()
    await price(world, supervisor, "3600", "1", 0)

    def looks() -> int:
        return len(statements.matching("SELECT s.attempt, s.state"))

    engine = api.hub._sessions.kw["bind"]
    async with api.subscribe(FOLLOW, {"id": supervisor.simulation_id}) as one:
        await one.next()
        await supervisor.loss(1)
        before = await one.next()
        tail = api.hub._tails[decode(supervisor.simulation_id)[1]]
        old = tail.head
        with statements.of(engine):
            # For the database a hundred seconds pass at once. The process looks again and again, but by its clock the
            # amount is new.
            await price(world, supervisor, "3600", "1", 100)
            await wait_until(lambda: looks() >= 4, "the tail has looked some times")
            assert tail.head is old
            await supervisor.loss(2)
            still = await one.next()
            seconds += convergence.MONEY_SECONDS / 2
            await wait_until(lambda: tail.head is not old, "the tail has taken what it found")
        await supervisor.loss(3)
        after = await one.next()
    assert Decimal(still["cost"]) - Decimal(before["cost"]) < 50
    assert Decimal(after["cost"]) - Decimal(before["cost"]) > 50
