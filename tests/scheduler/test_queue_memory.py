"""A long queue in the leader's round: what can run is found wherever it stands, and what has not changed costs nothing.

Work is counted, not timed: requests that a plan judges, rows of `simulations` that statements read, rows written.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from effort import QUEUE_LENGTH as MANY
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from db import lifecycle, newest_plan, queue, watch_leases
from db.connection import driver_of, session_factory
from db.events import Actor
from db.newest_plan import Place
from db.states import Reason
from scheduler import planner as planner_module
from scheduler import queue_memory
from scheduler.planner import Planner
from transitions import settle
from transitions.pause import pause, resume
from transitions.settle import Ending
from transitions.update import update

World = Any  # the fixture of conftest.py
USER = Actor("user")
BLOCKED = {
    "alike": "SELECT 1, 'blocked', '{true}', 'mallory', 1000, false FROM generate_series(1, :many)",
    "all-different": "SELECT 1, 'blocked', '{true}', 'mallory', 1000 + n, false FROM generate_series(1, :many) AS n",
    "unwatched": "SELECT 1, 'blocked', '{true}', 'mallory', 0.01, true FROM generate_series(1, :many)",
}


LEASE_SECONDS = 3600.0  # a busy machine may take longer for a test than a lease


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings.model_copy(update={"lease_seconds": LEASE_SECONDS}))


async def block(world: World, how: str, many: int = MANY) -> None:
    """Orders of one user that can't run, before all others."""
    await world.execute(
        f"INSERT INTO simulations (project_id, name, entrypoint, created_by, cpus, attended) {BLOCKED[how]}", many=many
    )
    await world.execute("ANALYZE")  # as autovacuum does within a minute


async def explain_all(planner: Planner) -> None:
    """Tick until all are explained."""
    for _ in range(MANY // planner_module.EXPLAINED_AT_ONCE + 2):
        await planner.tick()


async def end(world: World, simulation_id: int, reason: Reason = Reason.COMPLETED, **given: Any) -> None:
    number = (await world.attempt_of(simulation_id)).number
    async with world.sessions.begin() as session:
        await lifecycle.lock(session, simulation_id)
        assert await settle.end(session, simulation_id, number, Ending(reason, exit_code=3), USER, **given)


@dataclass
class Judged:
    """Plans that the planner asked policy for: the length of the queue of each."""

    plans: list[int] = field(default_factory=list)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    counted = Judged()
    plan = planner_module.plan

    def counting_plan(queue: Any, *arguments: Any, **named: Any) -> Any:
        counted.plans.append(len(queue))
        return plan(queue, *arguments, **named)

    monkeypatch.setattr(planner_module, "plan", counting_plan)
    return counted


@contextmanager
def sent_to(engine: AsyncEngine) -> Iterator[list[tuple[str, Any]]]:
    sent: list[tuple[str, Any]] = []

    def hear(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool) -> None:
        sent.append((statement, parameters[0] if many else parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", hear)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", hear)


async def rows_read(engine: AsyncEngine, work: Callable[[], Awaitable[object]]) -> int:
    """How many rows of `simulations` the statements of some work read, those that a filter removes too."""
    looks: list[tuple[str, Any]] = []
    async with driver_of(session_factory(engine)) as driver:  # the connection that is used next, by the planner's look
        driver.add_query_logger(lambda record: looks.append((record.query, record.args)))
    with sent_to(engine) as sent:
        await work()
    sent += [(statement.lstrip(), parameters) for statement, parameters in looks if "WITH beat" in statement]
    assert looks
    read = 0
    async with engine.connect() as connection:
        for statement, parameters in sent:
            if statement.startswith("SET LOCAL"):
                await connection.exec_driver_sql(statement)
            if not statement.lstrip().startswith(("SELECT", "WITH", "UPDATE simulations")):
                continue
            explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            plan = explained.scalar_one()
            read += _read((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        await connection.rollback()
    return read


def _read(node: Mapping[str, Any]) -> int:
    read = sum(_read(child) for child in node.get("Plans", []))
    if node.get("Relation Name") == "simulations" or node.get("Index Name", "").startswith("ix_simulations"):
        removed = sum(int(value) for key, value in node.items() if key.startswith("Rows Removed"))
        read += int(node["Actual Rows"] * node["Actual Loops"]) + removed * int(node["Actual Loops"])
    return read


# --- no simulation blocks another -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", BLOCKED)
async def test_what_can_run_is_placed_behind_any_number_that_can_not(
    world: World, planner: Planner, judged: Judged, engine: AsyncEngine, how: str
) -> None:
    await world.machine(cpus=4.0)
    await block(world, how)
    small = await world.simulation(cpus=0.01)

    await planner.tick()

    assert await world.state(small) == "STARTING"
    await explain_all(planner)
    judged.plans.clear()
    another = await world.simulation(cpus=0.02)
    assert await rows_read(engine, planner.plan) < 40, "those behind it were read already"
    assert await world.state(another) == "STARTING"
    assert len(judged.plans) == 1


@pytest.mark.parametrize("how", BLOCKED)
async def test_a_tick_in_which_nothing_changed_judges_nothing_and_reads_no_more_of_a_longer_queue(
    world: World, planner: Planner, judged: Judged, engine: AsyncEngine, how: str
) -> None:
    await world.machine(cpus=4.0)
    read = []
    for many in (100, MANY):
        await block(world, how, many)
        await explain_all(planner)
        judged.plans.clear()
        read.append(await rows_read(engine, planner.tick))
        assert judged.plans == []
    # A few hundred rows are read by no index; more are.
    assert read[1] < 10, read


async def test_as_many_rounds_place_short_ones_behind_a_long_queue_as_in_an_empty_one(
    world: World, planner: Planner, judged: Judged, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end as soon as they have begun; two have room. Each round costs the same, too."""
    monkeypatch.setattr(queue_memory, "WHOLE_LOOK_EVERY", timedelta(days=1))  # which reads the whole queue
    await world.machine(cpus=2.0)

    async def rounds() -> tuple[int, int, int]:
        judged.plans.clear()
        wants, count, read = [await world.simulation() for _ in range(20)], 0, 0
        while waiting := [each for each in wants if await world.state(each) != "FINISHED"]:
            read += await rows_read(engine, planner.plan)
            count += 1
            for each in waiting:
                if await world.state(each) == "STARTING":
                    await end(world, each)
        return count, max(judged.plans), read

    empty = await rounds()
    many = max(MANY, 10_000)  # so many that no statement reads the whole table rather than an index
    await block(world, "alike", many)
    await explain_all(planner)
    full = await rounds()
    assert full[0] == empty[0]
    assert full[1] == empty[1] + many, "they are planned with the others"
    assert full[2] <= 4 * empty[2]


# --- everybody is told -----------------------------------------------------------------------------------------


async def test_every_one_of_a_long_queue_has_a_reason_and_a_place_and_few_rows_are_written(
    world: World, planner: Planner, engine: AsyncEngine
) -> None:
    await world.machine(cpus=4.0)
    await block(world, "alike")
    last = await world.simulation(cpus=1000.0)

    with sent_to(engine) as sent:
        await planner.tick()

    wait = await world.wait_of(last)
    assert (wait.reason, wait.detail) == ("NO_MACHINE_FITS", "No machine has 1000 cpus: the most is 4 (on m1).")
    async with world.sessions() as session:
        assert (await newest_plan.places_of(session, [last]))[last].place == MANY + 1
        assert len(await queue.noted(session)) == 1
    written = [statement for statement, _ in sent if "UPDATE simulations" in statement]
    assert written == [], "not even for the clock, where nothing lies in the future"


async def test_very_many_kinds_of_requirements_are_explained_some_in_each_round(
    world: World, planner: Planner, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_module, "EXPLAINED_AT_ONCE", 100)
    await world.machine(cpus=4.0)
    await block(world, "all-different", 250)
    for explained in (100, 200, 250):
        await planner.tick()
        async with world.sessions() as session:
            assert len(await queue.noted(session)) == explained
    await planner.tick()
    assert len(judged.plans) == 3, "not once more where all are explained"


async def test_a_sentence_follows_what_is_free(world: World, planner: Planner) -> None:
    await world.machine(cpus=4.0)
    big = await world.simulation(cpus=4.0)
    await planner.tick()
    waits = await world.simulation(cpus=4.0)
    await planner.tick()
    assert "0 of 4 cpus are free now" in (await world.wait_of(waits)).detail
    await world.execute(
        "UPDATE members SET cpus = 3 WHERE attempt_id IN (SELECT id FROM attempts WHERE simulation_id = :id)", id=big
    )
    await planner.tick()
    assert "1 of 4 cpus are free now" in (await world.wait_of(waits)).detail
    small = await world.simulation(cpus=0.5)
    await planner.tick()
    assert await world.state(small) == "STARTING"
    assert "0.5 of 4 cpus are free now" in (await world.wait_of(waits)).detail
    await end(world, big)
    await end(world, small)
    assert (await planner.tick()).assigned == 1


async def test_a_retry_waits_for_its_backoff_and_is_planned_when_that_has_passed(
    world: World, planner: Planner, told: Callable[[], Awaitable[frozenset[int]]]
) -> None:
    await world.machine(cpus=4.0)
    retried = await world.simulation(cpus=4.0, max_retries=5)
    await planner.tick()
    await end(world, retried, Reason.EXIT_CODE, retry_after=timedelta(minutes=1))
    other = await world.simulation(cpus=4.0)
    await planner.tick()
    wait = await world.wait_of(retried)
    assert wait.reason == "BACKOFF"
    assert wait.detail.startswith("It ended with exit code 3; attempt 2 of 6 begins in ")
    assert wait.until == (await world.get(retried)).queued_at

    await world.execute("UPDATE simulations SET queued_at = now() WHERE id = :id", id=retried)
    await told()
    await planner.tick()
    assert retried in await told(), "it waits for something else now"
    assert await world.waiting(retried) == "MACHINES_BUSY"
    await end(world, other)
    await planner.tick()
    assert (await world.attempt_of(retried)).number == 2


async def test_the_loss_of_the_last_watcher_is_notified(
    world: World, planner: Planner, told: Callable[[], Awaitable[frozenset[int]]]
) -> None:
    await world.machine(cpus=1.0)
    await world.simulation()
    attended = await world.simulation(attended=True)
    async with world.sessions.begin() as session:
        await watch_leases.keep(session, "a process", [attended], timedelta(seconds=LEASE_SECONDS))
    await planner.tick()
    assert await world.waiting(attended) == "MACHINES_BUSY"
    await world.execute("UPDATE watchers SET watched_until = now()")
    await told()
    await planner.tick()
    assert await told() == {attended}
    assert await world.waiting(attended) == "UNATTENDED"


@pytest.fixture
async def told(database_url: str) -> AsyncIterator[Callable[[], Awaitable[frozenset[int]]]]:
    """The simulations that were notified of since the last call."""
    from asyncio import Event, timeout  # this fixture's own

    from db.connection import connect_raw  # this fixture's own

    connection = await connect_raw(database_url, application="test")
    heard: set[int] = set()
    came = Event()

    def hear(_connection: object, _pid: int, channel: str, payload: object) -> None:
        if channel == "mark":
            came.set()
        else:
            heard.update(int(part) for part in str(payload).split(","))

    for channel in ("simulations", "mark"):
        await connection.add_listener(channel, hear)

    async def since() -> frozenset[int]:
        came.clear()
        await connection.execute("NOTIFY mark")  # notifications come in the order of commits
        async with timeout(60):
            await came.wait()
        found = frozenset(heard)
        heard.clear()
        return found

    yield since
    await connection.close()


# --- the memory ------------------------------------------------------------------------------------------------


async def test_a_round_that_failed_is_made_good_by_the_next(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.machine(cpus=1.0)
    simulation_id = await world.simulation(cpus=2.0)

    async def fail(*_: object, **__: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(queue, "note_reasons", fail)
        with pytest.raises(ConnectionError):
            await planner.tick()
    await planner.tick()
    assert await world.waiting(simulation_id) == "NO_MACHINE_FITS"


async def test_classes_of_which_all_were_cancelled_are_dropped(
    world: World, planner: Planner, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.machine(cpus=1.0)
    kept, *cancelled = [await world.simulation(cpus=2.0 + number) for number in range(5)]
    await planner.tick()
    for each in cancelled:
        await world.cancel(each)
    monkeypatch.setattr(queue_memory, "WHOLE_LOOK_EVERY", timedelta(0))
    newcomer = await world.simulation(cpus=9.0)
    assert (await planner.tick()).waiting == 2
    async with world.sessions() as session:
        assert len(await queue.noted(session)) == 2
    for each in (kept, newcomer):
        await world.cancel(each)
    assert (await planner.tick()).waiting == 0
    async with world.sessions() as session:
        assert await queue.noted(session) == frozenset()


@pytest.mark.parametrize("leaves", ["paused", "cancelled"])
async def test_what_was_paused_or_cancelled_is_gone_with_the_next_tick_and_its_reservation_too(
    world: World, planner: Planner, judged: Judged, leaves: str
) -> None:
    await world.machine(cpus=2.0)
    await world.simulation("runs", max_runtime=timedelta(hours=1))
    await planner.tick()
    wide = await world.simulation("wide", cpus=2.0, max_runtime=timedelta(hours=1), priority=1)
    gap = await world.simulation("gap")
    await planner.tick()
    assert await world.waiting(gap) == "RESERVED"
    if leaves == "cancelled":
        await world.cancel(wide)
    else:
        async with world.sessions.begin() as session:
            await pause(session, wide, USER)
    assert (await planner.tick()).assigned == 1
    async with world.sessions() as session:
        assert await newest_plan.reservations(session) == []
        assert await newest_plan.places_of(session, [wide]) == {}
    plans = len(judged.plans)
    await planner.tick()
    assert len(judged.plans) == plans, "it has left once"
    if leaves == "paused":
        async with world.sessions.begin() as session:
            await resume(session, wide, USER)
        await planner.tick()
        assert await world.waiting(wide) == "MACHINES_BUSY"


async def test_a_changed_limit_of_what_waits_changes_its_place(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    await world.simulation("runs")
    await planner.tick()
    long, other = [await world.simulation(cpus=1.0, max_runtime=timedelta(hours=hours)) for hours in (5, 2)]
    await planner.tick()
    async with world.sessions.begin() as session:
        assert [each.place for each in (await newest_plan.places_of(session, [long, other])).values()] == [2, 1]
        row = await lifecycle.lock(session, long)
        assert row is not None
        await update(session, row, {"max_runtime": timedelta(minutes=5)}, USER, stop_grace=timedelta(0))
    await planner.tick()
    async with world.sessions() as session:
        places = await newest_plan.places_of(session, [long, other])
    assert places == {long: Place(1, None, " "), other: Place(2, long, "L")}


async def test_a_planner_that_leads_again_does_not_trust_what_it_remembers(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    simulation_id = await world.simulation(cpus=2.0)
    await planner.tick()
    await world.execute("DELETE FROM queue_classes")  # as another leader may have left it
    planner.forget()
    await planner.tick()
    assert await world.waiting(simulation_id) == "NO_MACHINE_FITS"
