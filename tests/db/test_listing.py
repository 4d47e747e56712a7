"""Lists: each filter, each order both ways, pages that follow one another, and nothing of other projects."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db import convergence, listing, projects
from db.convergence import Column
from db.errors import InvalidCursor, Refusal
from db.events import Actor
from db.listing import Comparison, Condition, Filter, Sort, SortOrder
from db.public_ids import encode
from db.states import Reason, SimulationState

Rows = Any  # the fixture of conftest.py
USER = Actor("user", "192.0.2.1")
EVERYTHING = Filter()


async def listed(rows: Rows, wanted: Filter = EVERYTHING, **order: Any) -> list[int]:
    order = {"descending": False, **order}
    async with rows.sessions() as session:
        shown = (await listing.page_matching(session, wanted, SortOrder(**order), first=100, after=None)).rows
        assert await listing.count_matching(session, wanted) == len(shown)
    return [each.id for each in shown]


async def walked(rows: Rows, wanted: Filter, order: SortOrder, first: int = 2) -> list[int]:
    """Everything, page by page."""
    seen: list[int] = []
    after = None
    while True:
        async with rows.sessions() as session:
            shown = await listing.page_matching(session, wanted, order, first=first, after=after)
        seen += [each.id for each in shown.rows]
        if not shown.has_next:
            return seen
        after = shown.cursors[-1]


async def test_each_filter_shows_what_matches_and_together_they_narrow(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        other = (await projects.named(session, "other", USER)).id
    plain = await rows.simulation(name="Plain")
    tagged = await rows.simulation(name="tagged 100%", tags=("vision", "v2"))
    elsewhere = await rows.simulation(name="elsewhere_plain", project_id=other)
    machine_id = await rows.machine()
    running = (await rows.start(machine_id=machine_id)).simulation_id
    moved = (await rows.start(machine_id=machine_id)).simulation_id
    await rows.end(moved, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    await rows.start(moved)  # on another machine by now

    assert await listed(rows) == [plain, tagged, elsewhere, running, moved]
    assert await listed(rows, Filter(states=(SimulationState.RUNNING,))) == [running, moved]
    assert await listed(rows, Filter(states=(SimulationState.QUEUED, SimulationState.FAILED))) == [
        plain, tagged, elsewhere,
    ]  # fmt: skip
    assert await listed(rows, Filter(states=())) == []
    assert await listed(rows, Filter(project_id=other)) == [elsewhere]
    assert await listed(rows, Filter(machine_id=machine_id)) == [running]
    assert await listed(rows, Filter(name_contains="PLAIN")) == [plain, elsewhere]
    assert await listed(rows, Filter(name_contains="%")) == [tagged]
    assert await listed(rows, Filter(name_contains="_")) == [elsewhere]
    assert await listed(rows, Filter(tag="vision")) == [tagged]
    assert await listed(rows, Filter(tag="visio")) == []
    assert await listed(rows, Filter(name_contains="plain", project_id=other)) == [elsewhere]


async def test_each_order_goes_both_ways_and_breaks_ties_by_id(rows: Rows) -> None:
    a = await rows.simulation(name="b", priority=1)
    b = await rows.simulation(name="a", priority=1)
    c = await rows.simulation(name="b", priority=0)
    for sort, expected in {Sort.CREATED_AT: [a, b, c], Sort.NAME: [b, a, c], Sort.PRIORITY: [c, a, b]}.items():
        assert await listed(rows, sort=sort) == expected
        assert await listed(rows, sort=sort, descending=True) == expected[::-1]


async def test_pages_of_a_filtered_list_follow_one_another(rows: Rows) -> None:
    ids = [await rows.simulation(tags=("t",) if number % 2 else ()) for number in range(10)]
    assert await walked(rows, Filter(tag="t"), SortOrder(Sort.NAME)) == ids[1::2][::-1]


# --- ranked ----------------------------------------------------------------------------------------------------


async def reported(rows: Rows, *attempts: Sequence[tuple[int, float]], ends: bool = True, **given: Any) -> int:
    """A simulation whose attempts reported these points of `loss`."""
    simulation_id = await rows.simulation(**given)
    for number, points in enumerate(attempts, start=1):
        await rows.start(simulation_id)
        if points:
            column = Column([step for step, _ in points], [value for _, value in points], [0.5] * len(points))
            async with rows.sessions.begin() as session:
                await convergence.store(session, simulation_id, number, 1, {"loss": column})
        if number < len(attempts):
            await rows.end(simulation_id, number, Reason.MACHINE_LOST, retry_after=timedelta(0))
        elif ends:
            await rows.end(simulation_id, number)
    return simulation_id


BEST = SortOrder(Sort.BEST, descending=False, name="loss")
LAST = SortOrder(Sort.LAST, descending=False, name="loss")


async def test_metrics_rank_ended_and_running_simulations_alike_and_what_has_none_comes_last(rows: Rows) -> None:
    none = await rows.simulation(name="queued")
    worst = await reported(rows, [(1, 0.5), (2, 0.9)])
    best = await reported(rows, [(1, 0.1), (2, 0.8)])
    running = await reported(rows, [(1, 0.3), (2, 0.4)], ends=False)
    diverged = await reported(rows, [(1, math.inf), (2, math.nan)])
    silent = await reported(rows, [])

    rest = [silent, diverged, none]
    for first in (1, 2, 5, 50):
        assert await walked(rows, EVERYTHING, BEST, first) == [best, running, worst, *rest]
        assert await walked(rows, EVERYTHING, LAST, first) == [running, best, worst, *rest]
        up = SortOrder(Sort.BEST, descending=True, name="loss", is_max=True)
        assert await walked(rows, EVERYTHING, up, first) == [worst, best, running, *rest]
    assert await walked(rows, Filter(states=(SimulationState.FINISHED,)), BEST) == [best, worst, silent, diverged]


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "running"])
async def test_points_that_a_later_attempt_superseded_do_not_count(rows: Rows, ends: bool) -> None:
    cut = await reported(rows, [(1, 0.7), (2, 0.6), (3, 0.1)], [(2, 0.65)], ends=ends)
    other = await reported(rows, [(1, 0.5)], ends=ends)
    whole = await reported(rows, [(1, 0.2)], [(2, 0.9)], ends=ends)
    begun_anew = await reported(rows, [(1, 0.01)], [(1, 0.66)], ends=ends)
    assert await walked(rows, EVERYTHING, BEST) == [whole, other, cut, begun_anew]
    assert await walked(rows, EVERYTHING, LAST) == [other, cut, begun_anew, whole]


async def test_pages_of_results_neither_miss_nor_repeat_while_others_end_and_are_deleted(rows: Rows) -> None:
    ids = [await reported(rows, [(1, value)]) for value in (0.1, 0.2, 0.2, 0.3, 0.4)]
    async with rows.sessions() as session:
        page = await listing.page_matching(session, EVERYTHING, BEST, first=2, after=None)
    assert [each.id for each in page.rows] == ids[:2]
    await reported(rows, [(1, 0.05)])  # before the cursor
    behind = await reported(rows, [(1, 0.35)])
    await rows.query("DELETE FROM simulations WHERE id = :id", id=ids[1])  # the very row that the cursor stands on
    async with rows.sessions() as session:
        page = await listing.page_matching(session, EVERYTHING, BEST, first=10, after=page.cursors[-1])
    assert [each.id for each in page.rows] == [ids[2], ids[3], behind, ids[4]]


async def test_parameters_rank_as_the_numbers_they_are_then_as_words(rows: Rows) -> None:
    big = await rows.simulation(parameters={"lr": 2**60 + 1})
    bigger = await rows.simulation(parameters={"lr": 2**60 + 2})  # the same float
    small = await rows.simulation(parameters={"lr": 1e-300})
    nested = await rows.simulation(parameters={"optimizer": {"lr": 0.5, "name": "adam"}})
    word = await rows.simulation(parameters={"lr": "auto"})
    odd = await rows.simulation(parameters={"lr": [1], "x": None, "long": "x" * 5000})
    await rows.query("UPDATE simulations SET recorded_parameters = '{\"huge\": 1e5000}' WHERE id = :id", id=odd)

    by_rate = SortOrder(Sort.PARAMETER, descending=False, name="lr")
    assert await walked(rows, EVERYTHING, by_rate) == [small, big, bigger, word, odd, nested]
    assert await walked(rows, EVERYTHING, SortOrder(Sort.PARAMETER, name="lr")) == [
        bigger,
        big,
        small,
        word,
        odd,
        nested,
    ]

    def where(name: str, comparison: Comparison, value: Decimal | str) -> Filter:
        return Filter(parameters=(Condition(name, comparison, value),))

    assert await listed(rows, where("lr", Comparison.LT, Decimal("1e-3"))) == [small]
    assert await listed(rows, where("lr", Comparison.GE, Decimal(2**60 + 2))) == [bigger]
    assert await listed(rows, where("lr", Comparison.EQ, Decimal(2**60 + 1))) == [big]
    assert await listed(rows, where("lr", Comparison.NE, Decimal(2**60 + 1))) == [bigger, small]
    assert await listed(rows, where("lr", Comparison.EQ, "auto")) == [word]
    assert await listed(rows, where("optimizer.name", Comparison.EQ, "adam")) == [nested]
    both = (Condition("optimizer.lr", Comparison.GT, Decimal("0.4")), Condition("optimizer.name", Comparison.NE, "sgd"))
    assert await listed(rows, Filter(parameters=both)) == [nested]


async def test_parameters_that_its_program_records_are_found_and_what_they_replace_is_not(rows: Rows) -> None:
    simulation_id = await rows.simulation(parameters={"lr": 1})
    await rows.query(
        "UPDATE simulations SET recorded_parameters = CAST(:given AS jsonb) WHERE id = :id",
        given='{"lr": 2, "seed": 7}', id=simulation_id,
    )  # fmt: skip
    found = await rows.query("SELECT name, number, word FROM parameter_values ORDER BY name")
    assert found == [
        {"name": "lr", "number": Decimal(1), "word": None}, {"name": "seed", "number": Decimal(7), "word": None},
    ]  # fmt: skip
    await rows.query("DELETE FROM simulations")
    assert await rows.query("SELECT name FROM parameter_values") == []


async def test_costs_rank_what_has_ended_what_runs_and_what_never_ran(rows: Rows) -> None:
    never = await rows.simulation()
    cheap, dear, running = await rows.start(), await rows.start(), await rows.start()
    for started, hours in ((cheap, 1), (dear, 3), (running, 2)):
        await rows.query(
            "UPDATE members SET assigned_at = assigned_at - :h * interval '1 h' WHERE attempt_id = :id",
            h=hours, id=started.attempt_id,
        )  # fmt: skip
    for each in (cheap, dear):
        await rows.end(each.simulation_id, 1)
    gone = await rows.simulation()
    await rows.cancel(gone)
    ids = [each.simulation_id for each in (dear, running, cheap)]
    assert await walked(rows, EVERYTHING, SortOrder(Sort.COST)) == [*ids, gone, never]
    assert await walked(rows, EVERYTHING, SortOrder(Sort.COST, descending=False)) == [gone, *ids[::-1], never]


async def test_times_rank_and_what_has_none_comes_last(rows: Rows) -> None:
    never = await rows.simulation()
    first, second = await rows.start(), await rows.start()
    await rows.end(first.simulation_id, 1)
    ids = [first.simulation_id, second.simulation_id]
    assert await walked(rows, EVERYTHING, SortOrder(Sort.STARTED_AT), 1) == [*ids[::-1], never]
    assert await walked(rows, EVERYTHING, SortOrder(Sort.FINISHED_AT), 1) == [*ids, never]


async def test_filters_by_text_name_tags_user_and_time(rows: Rows) -> None:
    vit = await rows.simulation(
        name="vit-b_16", entrypoint=("python", "train.py", "--data", "ImageNet"), tags=("a", "b")
    )
    other = await rows.simulation(name="resnet 100%", tags=("b", "c"))
    plain = await rows.simulation(name="VIT", tags=())
    await rows.query("UPDATE simulations SET created_by = 'ada (unverified)' WHERE id = :id", id=vit)
    await rows.query("UPDATE simulations SET created_at = now() - interval '8 days' WHERE id = :id", id=other)
    week = datetime.now(UTC) - timedelta(days=7)

    assert await listed(rows, Filter(text="VIT")) == [vit, plain]
    assert await listed(rows, Filter(text="imagenet")) == [vit]
    assert await listed(rows, Filter(text="warm")) == []
    await rows.query("UPDATE simulations SET notes = 'A **Warm** start of yesterday''s' WHERE id = :id", id=other)
    assert await listed(rows, Filter(text="warm")) == [other]
    assert await listed(rows, Filter(text="y'")) == [other]  # too short for the index
    assert await listed(rows, Filter(text=encode("Simulation", vit))) == [vit]
    assert await listed(rows, Filter(text=encode("Machine", vit))) == []
    assert await listed(rows, Filter(text="0%")) == [other]
    assert await listed(rows, Filter(text=f"#{plain}")) == [plain]
    assert set(await listed(rows, Filter(text=str(vit)))) >= {vit}
    assert await listed(rows, Filter(name_like="vit%")) == [vit]
    assert await listed(rows, Filter(tags=("a", "b"))) == [vit]
    assert await listed(rows, Filter(tag="b", tags=("c",))) == [other]
    assert await listed(rows, Filter(any_tags=("a", "c"))) == [vit, other]
    assert await listed(rows, Filter(created_by="ada")) == [vit]
    assert await listed(rows, Filter(created_from=week)) == [vit, plain]
    assert await listed(rows, Filter(created_to=week)) == [other]


async def test_a_name_that_none_in_the_scope_has_is_refused(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        other = (await projects.named(session, "other", USER)).id
    await reported(rows, [(1, 0.5)], parameters={"lr": 1}, project_id=other)
    await reported(rows, [(1, math.nan)], project_id=other, ends=False)
    mine = await rows.simulation()
    default = (await rows.get(mine)).project_id
    by_rate = Filter(parameters=(Condition("lr", Comparison.GT, Decimal(0)),), scope=frozenset({default}))
    for wanted, order in (
        (Filter(scope=frozenset({default})), BEST),
        (Filter(scope=frozenset({default})), LAST),
        (Filter(scope=frozenset({default})), SortOrder(Sort.PARAMETER, name="lr")),
        (by_rate, SortOrder()),
        (EVERYTHING, SortOrder(Sort.BEST, name="los")),
    ):
        with pytest.raises(Refusal, match=r"^No simulation has (a parameter|reported a metric) '"):
            await walked(rows, wanted, order)
    assert len(await walked(rows, EVERYTHING, BEST)) == 3


async def test_nothing_of_other_projects_is_listed_or_counted(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        other = (await projects.named(session, "other", USER)).id
    mine = await reported(rows, [(1, 0.5)], parameters={"lr": 1})
    hidden = [
        await reported(rows, [(1, value)], parameters={"lr": value}, project_id=other, ends=ends)
        for value, ends in ((0.1, True), (0.9, False))
    ]
    scope = frozenset({(await rows.get(mine)).project_id})
    for order in (
        BEST, LAST, SortOrder(Sort.PARAMETER, name="lr"), SortOrder(Sort.COST), SortOrder(Sort.STARTED_AT),
        SortOrder(Sort.FINISHED_AT), SortOrder(Sort.NAME),
    ):  # fmt: skip
        assert await walked(rows, Filter(scope=scope), order, 1) == [mine]
        assert set(await walked(rows, EVERYTHING, order, 1)) == {mine, *hidden}
    async with rows.sessions() as session:
        assert await listing.count_matching(session, Filter(scope=scope)) == 1


def cursor_of(*key: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


@pytest.mark.parametrize(
    ("order", "cursor"),
    [
        (BEST, ""),
        (BEST, cursor_of(0, "0.5", 1)),
        (BEST, cursor_of(0, None, 1)),
        (BEST, cursor_of(0, True, 1)),
        (BEST, cursor_of(0, 0.5)),
        (BEST, cursor_of(0, 0.5, -1)),
        (BEST, cursor_of(0, 0.5, 2**63)),
        (BEST, cursor_of(2, 0.5, 1)),
        (BEST, cursor_of(-1, 0.5, 1)),
        (BEST, cursor_of(1, 0.5, 1)),
        (BEST, cursor_of(1, 2**63)),
        (SortOrder(Sort.PARAMETER, name="lr"), cursor_of(0, "NaN", 1)),
        (SortOrder(Sort.PARAMETER, name="lr"), cursor_of(0, "x", 1)),
        (SortOrder(Sort.PARAMETER, name="lr"), cursor_of(0, "9" * 501, 1)),
        (SortOrder(Sort.PARAMETER, name="lr"), cursor_of(1, "a\0b", 1)),
        (SortOrder(Sort.COST), cursor_of(0, 1.5, 1)),
        (SortOrder(Sort.STARTED_AT), cursor_of(0, "2026-01-01", 1)),
        (SortOrder(Sort.STARTED_AT), cursor_of(0, "now()", 1)),
    ],
)
async def test_a_cursor_that_this_list_never_gave_out_is_refused(order: SortOrder, cursor: str, rows: Rows) -> None:
    async with rows.sessions() as session:
        with pytest.raises(InvalidCursor, match="endCursor"):
            await listing.page_matching(session, EVERYTHING, order, first=2, after=cursor)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
@settings(deadline=None)
def test_no_key_of_a_cursor_does_worse_than_being_refused(key: object) -> None:
    cursor = base64.urlsafe_b64encode(orjson.dumps([0, key, 1])).decode() if _is_json(key) else "?"
    for order in (BEST, SortOrder(Sort.PARAMETER, name="lr"), SortOrder(Sort.COST), SortOrder(Sort.STARTED_AT)):
        phases, _ = listing._phases(order)
        try:
            assert listing._decode(cursor, phases)[2] == 1
        except InvalidCursor:
            continue


def _is_json(key: object) -> bool:
    try:
        orjson.dumps(key)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True


async def test_the_plan_of_a_filtered_or_ranked_page_is_never_compiled(rows: Rows) -> None:
    await rows.simulation(tags=("a",))
    for wanted, order in ((Filter(tags=("a",)), SortOrder()), (EVERYTHING, SortOrder(Sort.COST))):
        async with rows.sessions() as session:
            await session.execute(text("SET LOCAL jit = on"))
            await listing.page_matching(session, wanted, order, first=10, after=None)
            assert await session.scalar(text("SHOW jit")) == "off"
        async with rows.sessions() as session:
            await session.execute(text("SET LOCAL jit = on"))
            await session.rollback()
            assert await session.scalar(text("SHOW plan_cache_mode")) == "auto", "of that transaction only"
