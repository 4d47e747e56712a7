"""The convergence log: what goes in comes out, by cursor and exactly once; and the plans of the hot statements."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import attempts, convergence, simulations
from db.convergence import START, Batch, Column, Head, Series
from db.states import Reason, SimulationState

Rows = Any  # the fixture of conftest.py

LEASE = timedelta(seconds=30)


def column(*points: tuple[int, float], elapsed: float = 0.5) -> Column:
    return Column([step for step, _ in points], [value for _, value in points], [elapsed] * len(points))


async def store(rows: Rows, simulation_id: int, attempt: int, batch: int, **columns: Column) -> None:
    async with rows.sessions.begin() as session:
        await convergence.store(session, simulation_id, attempt, batch, columns)


async def read(rows: Rows, simulation_id: int, after: tuple[int, int] = START, *, limit: int = 100) -> list[Batch]:
    async with rows.sessions() as session:
        return list(await convergence.read(session, simulation_id, after, limit=limit))


async def supersessions(rows: Rows, simulation_id: int) -> list[tuple[tuple[int, int], str, int]]:
    """Where something is superseded: (cursor, metric, first step)."""
    return [
        (batch.cursor, series.metric, series.supersedes_from)
        for batch in await read(rows, simulation_id)
        for series in batch.series
        if series.supersedes_from is not None
    ]


async def test_a_batch_comes_back_as_it_was_stored(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(
        rows, simulation_id, 1, 1,
        loss=Column([1, 2, 5], [0.5, 0.25, 1e-300], [0.0, 0.1, 12.75]), accuracy=Column([2], [0.1 + 0.2], [0.1]),
    )  # fmt: skip
    assert await read(rows, simulation_id) == [
        Batch(
            1,
            1,
            (
                Series("accuracy", [2], [0.1 + 0.2], [0.1], None),
                Series("loss", [1, 2, 5], [0.5, 0.25, 1e-300], [0.0, 0.1, 12.75], None),
            ),
        )
    ]


async def test_values_that_are_not_finite_come_back_as_they_are(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, math.nan), (2, math.inf), (3, -math.inf), (4, -0.0)))
    [batch] = await read(rows, simulation_id)
    nan, infinity, negative, zero = batch.series[0].values
    assert math.isnan(nan)
    assert (infinity, negative) == (math.inf, -math.inf)
    assert math.copysign(1, zero) == -1


async def test_steps_far_beyond_32_bits_come_back_exactly(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    steps = [0, 2**31 - 1, 2**31, 2**32 + 1, 2**53 - 1, 2**53]
    await store(rows, simulation_id, 1, 1, loss=column(*[(step, 1.0) for step in steps]))
    [batch] = await read(rows, simulation_id)
    assert list(batch.series[0].steps) == steps


async def test_a_batch_without_points_leaves_nothing_and_its_number_may_be_missing(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, 1.0)))
    await store(rows, simulation_id, 1, 2)  # it carried only a log
    await store(rows, simulation_id, 1, 3, loss=column((2, 1.0)))
    assert [batch.cursor for batch in await read(rows, simulation_id)] == [(1, 1), (1, 3)]


async def test_a_hundred_metrics_and_ten_thousand_points_in_a_batch_come_back_in_the_order_of_names(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    columns = {f"metric {n:03}": column(*[(step, n / 7) for step in range(100)]) for n in range(100)}
    await store(rows, simulation_id, 1, 1, **columns)
    [batch] = await read(rows, simulation_id)
    assert [series.metric for series in batch.series] == sorted(columns)
    assert sum(len(series.values) for series in batch.series) == 10_000


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_by_cursor_bring_every_batch_once_and_in_order(limit: int, rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    written = [(1, 1), (1, 2), (1, 10), (2, 1), (2, 2), (10, 1)]
    for attempt, batch in written:
        await store(rows, simulation_id, attempt, batch, loss=column((1, 1.0)), accuracy=column((1, 1.0)))
        await store(rows, other, attempt, batch, loss=column((9, 9.0)))
    seen: list[Batch] = []
    after = START
    while page := await read(rows, simulation_id, after, limit=limit):
        assert len(page) <= limit
        seen += page
        after = page[-1].cursor
    assert [batch.cursor for batch in seen] == written
    assert {len(batch.series) for batch in seen} == {2}
    assert {step for batch in seen for series in batch.series for step in series.steps} == {1}


async def test_a_cursor_shows_what_is_behind_it_and_nothing_else(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    for cursor in ((1, 1), (1, 2), (2, 1)):
        await store(rows, simulation_id, *cursor, loss=column((1, 1.0)))
    for after, expected in {
        (0, 0): [(1, 1), (1, 2), (2, 1)],
        (1, 1): [(1, 2), (2, 1)],
        (1, 99): [(2, 1)],
        (2, 1): [],
        (9, 0): [],
    }.items():
        assert [batch.cursor for batch in await read(rows, simulation_id, after)] == expected, after


async def test_the_end_is_the_cursor_of_the_newest_batch(rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    ends = []
    for cursor in (None, (1, 9), (1, 10), (2, 1)):
        if cursor:
            await store(rows, simulation_id, *cursor, loss=column((1, 1.0)))
        async with rows.sessions() as session:
            ends.append(await convergence.find_end(session, simulation_id))
            assert await convergence.find_end(session, other) == START
    assert ends == [START, (1, 9), (1, 10), (2, 1)]


async def test_the_head_says_where_the_simulation_stands(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions() as session:
        assert await convergence.find_head(session, 999) is None
        assert await convergence.find_head(session, started.simulation_id) == Head(1, SimulationState.RUNNING, None)
    await rows.end(started.simulation_id, 1, Reason.COMPLETED)
    async with rows.sessions() as session:
        head = await convergence.find_head(session, started.simulation_id)
    assert head == Head(1, SimulationState.FINISHED, Reason.COMPLETED)


# --- after a retry ---------------------------------------------------------------------------------------------


async def test_the_first_attempt_supersedes_nothing(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, 1.0)))
    await store(rows, simulation_id, 1, 2, loss=column((2, 1.0)), accuracy=column((2, 1.0)))
    assert await supersessions(rows, simulation_id) == []


async def test_each_later_attempt_supersedes_from_the_first_step_of_each_metric(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, 1.0), (2, 1.0), (3, 1.0)), accuracy=column((1, 1.0)))
    await store(rows, simulation_id, 2, 1, loss=column((2, 1.0), (3, 1.0)))
    await store(rows, simulation_id, 2, 2, loss=column((4, 1.0)), accuracy=column((3, 1.0)))
    await store(rows, simulation_id, 2, 3, loss=column((5, 1.0)), accuracy=column((4, 1.0)))
    await store(rows, simulation_id, 3, 1, loss=column((1, 1.0)), norm=column((7, 1.0)))
    assert await supersessions(rows, simulation_id) == [
        ((2, 1), "loss", 2),
        ((2, 2), "accuracy", 3),
        ((3, 1), "loss", 1),
        ((3, 1), "norm", 7),
    ]


async def test_what_supersedes_does_not_depend_on_where_a_page_begins(rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    await store(rows, other, 2, 1, loss=column((1, 1.0)))  # another simulation's first batch is nobody else's
    for batch in (1, 2, 3):
        await store(rows, simulation_id, 2, batch, loss=column((batch, 1.0)))
    assert [
        series.supersedes_from
        for after in (START, (2, 1), (2, 2))
        for batch in await read(rows, simulation_id, after, limit=1)
        for series in batch.series
    ] == [1, None, None]


# --- plans of the hot statements -------------------------------------------------------------------------------
# The statements are taken off the wire while the verbs run, and explained with the very arguments they were sent
# with. The tables are filled as a service of some weeks fills them: most of what was run has ended, a thousand wait.

FILL = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, priority, attempt)
    SELECT 1, 's' || n, '{true}', 'somebody',
           CASE WHEN n % 5 = 0 THEN 'QUEUED' WHEN n % 100 = 1 THEN 'RUNNING' ELSE 'FINISHED' END, n % 3, 1
    FROM generate_series(1, 5000) AS n;
    INSERT INTO attempts (simulation_id, number, machine_name, price_per_hour, share, currency, token_digest, nonce,
                          host, started_at, ended_at, heartbeat_at)
    SELECT id, 1, 'm', 0, 1, 'USD', sha256(id::text::bytea), 'nonce', 'h', now(),
           CASE WHEN state <> 'RUNNING' THEN now() END, now() - interval '1 h'
    FROM simulations;
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT 1 + s, 1 + b / 40, 1 + b % 40, metric, '{1}', '{1}', '{1}'
    FROM generate_series(0, 99) AS s, generate_series(0, 79) AS b, unnest('{loss,accuracy}'::text[]) AS metric;
    INSERT INTO coverage (role, covered_since, beat_at)
    SELECT role, now() - interval '1 day', now() + interval '1 h' FROM unnest('{graph,scheduler}'::text[]) AS role;
    ANALYZE
"""
HOT = ("simulations", "attempts", "convergence")


@dataclass(frozen=True, slots=True)
class Filled:
    """A full database, and what is sent to it."""

    rows: Rows
    engine: AsyncEngine
    running: int  # a running simulation
    attempt: int  # its attempt
    token: bytes

    async def plans_of(self, verb: Callable[[AsyncSession], Awaitable[object]]) -> list[Any]:
        """Run a verb, and explain each statement that it sent."""
        sent: list[tuple[str, Any]] = []

        def hear(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool) -> None:
            sent.append((statement, parameters[0] if many else parameters))

        event.listen(self.engine.sync_engine, "before_cursor_execute", hear)
        try:
            async with self.rows.sessions.begin() as session:
                await verb(session)
        finally:
            event.remove(self.engine.sync_engine, "before_cursor_execute", hear)
        plans = []
        async with self.engine.connect() as connection:
            for statement, parameters in sent:
                explained = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
                plan = explained.scalar_one()
                plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        assert plans
        return plans


@pytest.fixture
async def filled(rows: Rows, engine: AsyncEngine) -> Filled:
    for statement in FILL.split(";"):
        await rows.query(statement)
    [row] = await rows.query(
        "SELECT a.id, a.simulation_id, a.token_digest FROM attempts a WHERE a.ended_at IS NULL ORDER BY id LIMIT 1"
    )
    return Filled(rows, engine, row["simulation_id"], row["id"], row["token_digest"])


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def assert_by_index(plans: list[Any], *expected: str) -> None:
    """No hot table is read from end to end, and these indexes are what is used."""
    found = [node for plan in plans for node in nodes(plan)]
    assert not [node for node in found if node["Node Type"] == "Seq Scan" and node["Relation Name"] in HOT], plans
    used = {node["Index Name"] for node in found if "Index Name" in node}
    assert used >= set(expected), (used, plans)


async def test_accepting_a_batch_looks_up_two_rows(filled: Filled) -> None:
    async def accept(session: AsyncSession) -> None:
        assert (await attempts.accept(session, filled.attempt, filled.token, "nonce", 1)).stored

    plans = await filled.plans_of(accept)
    assert len(plans) == 1  # one statement: fence, order, idempotency and heartbeat
    assert_by_index(plans, "pk_simulations")
    assert {node.get("Index Name") for node in nodes(plans[0])} & {"pk_attempts", "uq_attempts_token_digest"}


async def test_a_heartbeat_looks_up_two_rows(filled: Filled) -> None:
    async def heartbeat(session: AsyncSession) -> None:
        receipt = await attempts.accept(session, filled.attempt, filled.token, "nonce", None)
        assert receipt.standing is attempts.Standing.CURRENT

    plans = await filled.plans_of(heartbeat)
    assert len(plans) == 1
    assert_by_index(plans, "pk_simulations")


async def test_an_old_attempt_is_turned_away_by_index(filled: Filled) -> None:
    ended = filled.attempt + 1

    async def knock(session: AsyncSession) -> None:
        [row] = await filled.rows.query("SELECT token_digest FROM attempts WHERE id = :id", id=ended)
        receipt = await attempts.accept(session, ended, row["token_digest"], "nonce", 1)
        assert receipt.standing is attempts.Standing.OVER

    assert_by_index(await filled.plans_of(knock))


async def test_a_hello_looks_up_its_rows(filled: Filled) -> None:
    async def hello(session: AsyncSession) -> None:
        greeting = await attempts.hello(session, filled.attempt, filled.token, "nonce")
        assert greeting.standing is attempts.Standing.CURRENT

    assert_by_index(await filled.plans_of(hello), "pk_simulations")


async def test_storing_a_batch_reads_no_table(filled: Filled) -> None:
    async def put(session: AsyncSession) -> None:
        await convergence.store(session, filled.running, 1, 99, {"loss": column((1, 1.0)), "b": column((1, 1.0))})

    [plan] = await filled.plans_of(put)
    assert plan["Node Type"] == "ModifyTable"
    assert {node["Node Type"] for node in nodes(plan)} == {"ModifyTable", "Result"}


@pytest.mark.parametrize("after", [START, (1, 20), (2, 39)], ids=["all", "half", "tail"])
async def test_reading_behind_a_cursor_goes_by_the_primary_key_alone(after: tuple[int, int], filled: Filled) -> None:
    async def get(session: AsyncSession) -> None:
        assert await convergence.read(session, 50, after, limit=64)

    plans = await filled.plans_of(get)
    assert_by_index(plans, "pk_convergence")
    # The cursor is part of what the index seeks: the past is not walked through.
    assert any("ROW(attempt, batch)" in node.get("Index Cond", "") for plan in plans for node in nodes(plan))


async def test_the_end_of_a_log_is_one_seek_from_behind(filled: Filled) -> None:
    async def find(session: AsyncSession) -> None:
        assert await convergence.find_end(session, 50) == (2, 40)

    [plan] = await filled.plans_of(find)
    assert_by_index([plan], "pk_convergence")
    assert [node["Scan Direction"] for node in nodes(plan) if "Scan Direction" in node] == ["Backward"]


async def test_the_silent_are_found_among_the_open_ones_only(filled: Filled) -> None:
    async def find(session: AsyncSession) -> None:
        found = await attempts.find_silent(session, LEASE, attempts.coverage_gap(LEASE))
        assert len(found) == 50

    plans = await filled.plans_of(find)
    assert_by_index(plans)
    used = {node["Index Name"] for plan in plans for node in nodes(plan) if "Index Name" in node}
    assert used & {"uq_attempts_current", "ix_attempts_open"}  # the partial ones


async def test_the_queue_is_read_in_its_order_without_a_sort(filled: Filled) -> None:
    async def queue(session: AsyncSession) -> None:
        assert len(await simulations.queue(session, limit=20)) == 20

    [plan] = await filled.plans_of(queue)
    assert_by_index([plan], "ix_simulations_queue")
    assert "Sort" not in {node["Node Type"] for node in nodes(plan)}
