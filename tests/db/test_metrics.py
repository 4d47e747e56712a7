"""Summaries of metrics: kept as batches are stored, merged over attempts, equal to what the log itself says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import convergence, metrics
from db.connection import connect_raw, create_engine
from db.convergence import Column
from db.metrics import Summary, standing, summarise
from db.schema import upgrade

Rows = Any  # the fixture of conftest.py
Points = Sequence[tuple[int, float]]
Log = Sequence[Sequence[Mapping[str, Points]]]  # attempts, batches, metrics


def column(points: Points) -> Column:
    return Column([step for step, _ in points], [value for _, value in points], [0.5] * len(points))


async def store(rows: Rows, simulation_id: int, attempt: int, batch: int, **points: Points) -> None:
    async with rows.sessions.begin() as session:
        columns = {metric: column(each) for metric, each in points.items()}
        await convergence.store(session, simulation_id, attempt, batch, columns)


async def summaries(rows: Rows, simulation_id: int) -> dict[str, Summary]:
    async with rows.sessions() as session:
        found = await metrics.of_simulations(session, [simulation_id])
    return {each.metric: each for each in found.get(simulation_id, ())}


def by_hand(metric: str, points: Points) -> Summary:
    """What a reader with paper and pencil would find."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    least = min(finite, key=lambda point: (point[1], point[0]), default=(None, None))
    greatest = min(finite, key=lambda point: (-point[1], point[0]), default=(None, None))
    return Summary(metric, len(points), points[0][0], *points[-1], *least, *greatest)


def what_stands(log: Log, metric: str) -> Points:
    """The points of a metric that no later attempt supersedes."""
    kept: list[tuple[int, float]] = []
    for batches in log:
        said = [point for batch in batches for point in batch.get(metric, ())]
        if said:
            kept = [point for point in kept if point[0] < said[0][0]] + said
    return kept


def same(found: Summary | None, expected: Summary) -> None:
    assert found is not None
    assert repr(found) == repr(expected)  # NaN is not equal to itself, but it looks the same


# --- one column ------------------------------------------------------------------------------------------------


def test_a_column_is_summed_up() -> None:
    assert summarise("loss", [3, 4, 9], [0.5, 0.25, 2.0]) == Summary("loss", 3, 3, 9, 2.0, 4, 0.25, 9, 2.0)


def test_an_extreme_is_the_first_of_its_value() -> None:
    assert summarise("loss", [1, 2, 3, 4], [1.0, 0.0, 0.0, 1.0]) == Summary("loss", 4, 1, 4, 1.0, 2, 0.0, 1, 1.0)


def test_what_is_not_finite_is_counted_and_is_no_extreme() -> None:
    found = summarise("loss", [1, 2, 3, 4, 5], [math.nan, 2.0, math.inf, 3.0, -math.inf])
    assert found == Summary("loss", 5, 1, 5, -math.inf, 2, 2.0, 4, 3.0)
    same(summarise("loss", [7], [math.nan]), Summary("loss", 1, 7, 7, math.nan, None, None, None, None))


def test_values_whose_sum_is_not_finite_are_finite_all_the_same() -> None:
    assert summarise("loss", [1, 2], [1.7e308, 1.6e308]) == Summary("loss", 2, 1, 2, 1.6e308, 2, 1.6e308, 1, 1.7e308)


@settings(deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_a_summary_is_what_one_finds_by_hand(values: list[float]) -> None:
    values = [value + 0.0 for value in values]  # no -0.0: it is equal to 0.0, and either may be the extreme
    same(summarise("loss", range(len(values)), values), by_hand("loss", list(enumerate(values))))


def test_an_attempt_ends_before_the_first_step_of_any_later_one() -> None:
    def stretch(first: int, last: int) -> Summary:
        return Summary("loss", 0, first, last, 0.0, None, None, None, None)

    first, second, third, fourth = stretch(0, 9), stretch(5, 7), stretch(12, 20), stretch(6, 30)
    assert list(standing([first, second, third, fourth])) == [(first, 5), (second, 6), (fourth, None)]
    assert list(standing([third, stretch(0, 3)])) == [(stretch(0, 3), None)]


# --- kept with the log -----------------------------------------------------------------------------------------


async def test_a_simulation_that_said_nothing_has_no_metrics(rows: Rows) -> None:
    assert await summaries(rows, await rows.simulation()) == {}


async def test_batches_add_up(rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    await store(rows, other, 1, 1, loss=[(1, -100.0)])
    await store(rows, simulation_id, 1, 1, loss=[(1, 5.0), (2, 4.0)])
    await store(rows, simulation_id, 1, 2, loss=[(3, 4.0)], accuracy=[(3, 0.5)])
    await store(rows, simulation_id, 1, 3, loss=[(4, 3.0), (5, 6.0)])
    assert await summaries(rows, simulation_id) == {
        "loss": Summary("loss", 5, 1, 5, 6.0, 4, 3.0, 5, 6.0),
        "accuracy": Summary("accuracy", 1, 3, 3, 0.5, 3, 0.5, 3, 0.5),
    }


async def test_a_batch_that_is_rolled_back_leaves_no_trace(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=[(1, 1.0)])
    async with rows.sessions() as session:
        await convergence.store(session, simulation_id, 1, 2, {"loss": column([(2, 0.0)])})
        await session.rollback()
    assert (await summaries(rows, simulation_id))["loss"].count == 1


async def test_what_a_retry_says_anew_counts_once(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=[(1, 9.0), (2, 3.0), (3, 0.1)], norm=[(1, 7.0)])
    await store(rows, simulation_id, 2, 1, loss=[(3, 2.0)])
    await store(rows, simulation_id, 2, 2, loss=[(4, 1.0)])
    assert await summaries(rows, simulation_id) == {
        "loss": Summary("loss", 4, 1, 4, 1.0, 4, 1.0, 1, 9.0),
        "norm": Summary("norm", 1, 1, 1, 7.0, 1, 7.0, 1, 7.0),
    }
    await store(rows, simulation_id, 3, 1, loss=[(0, 5.0)])
    assert (await summaries(rows, simulation_id))["loss"] == Summary("loss", 1, 0, 0, 5.0, 0, 5.0, 0, 5.0)


async def test_a_deleted_simulation_takes_its_summaries_along(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=[(1, 1.0)])
    await rows.query("DELETE FROM simulations WHERE id = :id", id=simulation_id)
    assert await rows.value("SELECT count(*) FROM metrics") == 0


async def test_fifty_simulations_cost_one_statement_and_cut_ones_a_second(rows: Rows, engine: AsyncEngine) -> None:
    ids = [await rows.simulation() for _ in range(50)]
    for number, simulation_id in enumerate(ids):
        await store(rows, simulation_id, 1, 1, loss=[(1, 1.0), (2, 2.0)], accuracy=[(1, 1.0)])
        if number % 2:
            await store(rows, simulation_id, 2, 1, loss=[(2, 3.0)])
    sent: list[str] = []

    def hear(_c: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", hear)
    async with rows.sessions() as session:
        found = await metrics.of_simulations(session, ids)
    assert len(sent) == 2
    assert [len(found[each]) for each in ids] == [2] * 50
    assert {each.count for each in found[ids[1]] if each.metric == "loss"} == {2}
    assert {each.max_value for each in found[ids[1]] if each.metric == "loss"} == {3.0}


async def test_names_are_those_of_all_attempts(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=[(1, 1.0)], b=[(1, 1.0)])
    await store(rows, simulation_id, 2, 1, loss=[(1, 1.0)], a=[(1, 1.0)])
    async with rows.sessions() as session:
        assert list(await metrics.names(session, simulation_id)) == ["a", "b", "loss"]


async def test_what_was_stored_before_there_were_summaries_is_summed_up(empty_database_url: str) -> None:
    await upgrade(empty_database_url, "0001")
    connection = await connect_raw(empty_database_url, application="test")
    simulation_id = await connection.fetchval(
        "INSERT INTO simulations (project_id, name, entrypoint, created_by) "
        "SELECT id, 's', '{true}', 'user' FROM projects RETURNING id"
    )
    await connection.executemany(
        'INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed) '
        "VALUES ($1, $2, $3, $4, $5, $6, $6)",
        [
            (simulation_id, 1, 1, "loss", [0, 1, 2], [2.0, 1.0, math.nan]),
            (simulation_id, 1, 2, "loss", [3, 4, 2**53], [1.0, 2.0, math.inf]),
            (simulation_id, 2, 1, "loss", [7], [math.nan]),
        ],
    )
    await connection.close()
    await upgrade(empty_database_url)
    engine = create_engine(empty_database_url)
    async with engine.connect() as migrated:
        kept = (await migrated.execute(text("SELECT * FROM metrics ORDER BY attempt"))).all()
    await engine.dispose()
    assert [tuple(row)[1:] for row in kept[:1]] == [(1, "loss", 6, 0, 2**53, math.inf, 1, 1.0, 0, 2.0)]
    same(Summary(*kept[1][2:]), Summary("loss", 1, 7, 7, math.nan, None, None, None, None))


# --- anything --------------------------------------------------------------------------------------------------

VALUES = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e300, -1e300, 1e-300, math.nan, math.inf, -math.inf])


@st.composite
def attempts_of(draw: st.DrawFn) -> Sequence[Mapping[str, Points]]:
    """The batches of one attempt: steps rise per metric, over its batches."""
    next_step = {metric: draw(st.integers(0, 8)) for metric in ("loss", "accuracy")}
    batches = []
    for _ in range(draw(st.integers(0, 3))):
        batch: dict[str, Points] = {}
        for metric in draw(st.sets(st.sampled_from(sorted(next_step)))):
            points = []
            for gap, value in draw(st.lists(st.tuples(st.integers(1, 3), VALUES), min_size=1, max_size=4)):
                points.append((next_step[metric], value))
                next_step[metric] += gap
            batch[metric] = points
        batches.append(batch)
    return batches


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=st.lists(attempts_of(), max_size=4))
async def test_after_any_batches_and_retries_a_summary_is_what_one_finds_by_hand(rows: Rows, log: Log) -> None:
    simulation_id = await rows.simulation()
    for attempt, batches in enumerate(log, 1):
        for number, batch in enumerate(batches, 1):
            await store(rows, simulation_id, attempt, number, **batch)
    found = await summaries(rows, simulation_id)
    for metric in ("loss", "accuracy"):
        points = what_stands(log, metric)
        if points:
            same(found.pop(metric), by_hand(metric, points))
    assert found == {}
