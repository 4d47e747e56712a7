"""The state machine: every verb on a row in every situation, the fence, the one current attempt, events and hints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from rows import assign_one, assignment_to
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import lifecycle
from db.connection import connect_raw
from db.errors import NotFound, WrongState
from db.events import Actor
from db.lifecycle import TRANSITIONS
from db.models import Attempt
from db.states import FINAL_STATES, Reason, SimulationState
from transitions.begin import begin
from transitions.cancel import cancel
from transitions.settle import FINAL_STATE_OF, Ending, end
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
S = SimulationState
USER = Actor("user", "192.0.2.1")
OTHER = Actor("other")

# The drawing of the state machine, once more and by hand: what is not here must not happen.
DRAWN = {
    ("QUEUED", "assign"): "STARTING",
    ("QUEUED", "cancel"): "CANCELLED",
    ("STARTING", "begin"): "RUNNING",
} | {
    (source, verb): target
    for source in ("STARTING", "RUNNING")
    for verb, target in {
        "end COMPLETED": "FINISHED",
        "end CANCELLED": "CANCELLED",
        "end EXIT_CODE": "FAILED",
        "end LAUNCH_ERROR": "FAILED",
        "end MACHINE_LOST": "FAILED",
        "end MAX_RUNTIME": "FAILED",
        "end MAX_COST": "FAILED",
        "end STOPPING_THRESHOLD": "FINISHED",
        "end PATIENCE_EXHAUSTED": "FINISHED",
        "end PRUNED": "FINISHED",
        "end DIVERGENCE_THRESHOLD": "FAILED",
        "end NON_FINITE_METRIC": "FAILED",
        "end BUDGET_EXHAUSTED": "FAILED",
        "end UNWATCHED": "FINISHED",
        "end COMPLETED and retry": "QUEUED",
        "end CANCELLED and retry": "QUEUED",
        "end EXIT_CODE and retry": "QUEUED",
        "end LAUNCH_ERROR and retry": "QUEUED",
        "end MACHINE_LOST and retry": "QUEUED",
        "end MAX_RUNTIME and retry": "QUEUED",
        "end MAX_COST and retry": "QUEUED",
        "end STOPPING_THRESHOLD and retry": "QUEUED",
        "end PATIENCE_EXHAUSTED and retry": "QUEUED",
        "end PRUNED and retry": "QUEUED",
        "end DIVERGENCE_THRESHOLD and retry": "QUEUED",
        "end NON_FINITE_METRIC and retry": "QUEUED",
        "end BUDGET_EXHAUSTED and retry": "QUEUED",
        "end UNWATCHED and retry": "QUEUED",
        "end PREEMPTED and retry": "QUEUED",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Now:
    """A simulation as a verb finds it, and the machine that it could go to."""

    simulation_id: int
    number: int  # the newest attempt's
    attempt: Attempt
    machine_id: int


Verb = Callable[[AsyncSession, Now], Awaitable[object]]


async def assign_next(session: AsyncSession, now: Now) -> object:
    return await assign_one(session, now.simulation_id, now.number, assignment_to(now.machine_id), OTHER)


async def begin_it(session: AsyncSession, now: Now) -> object:
    return await begin(session, now.simulation_id, now.attempt.id, now.attempt.number, OTHER)


def end_with(reason: Reason, retry_after: timedelta | None) -> Verb:
    async def verb(session: AsyncSession, now: Now) -> object:
        ending = Ending(reason, "A sentence.", 3, 9)
        await lifecycle.lock(session, now.simulation_id)
        return await end(session, now.simulation_id, now.number, ending, OTHER, retry_after=retry_after)

    return verb


async def cancel_it(session: AsyncSession, now: Now) -> object:
    """Whether that changed anything."""
    before = await wish_of(session, now.simulation_id)
    try:
        await cancel(session, now.simulation_id, OTHER)
    except (NotFound, WrongState):
        return False
    return await wish_of(session, now.simulation_id) != before


async def wish_of(session: AsyncSession, simulation_id: int) -> object:
    found = await session.execute(
        text(
            "SELECT s.state, a.stop_wanted_at, a.stop_reason FROM simulations s "
            "LEFT JOIN attempts a ON a.simulation_id = s.id AND a.number = s.attempt WHERE s.id = :id"
        ),
        {"id": simulation_id},
    )
    return found.one_or_none()


async def stop_it(session: AsyncSession, now: Now) -> object:
    return await stop(session, now.simulation_id, Reason.MAX_RUNTIME, OTHER)


VERBS: dict[str, Verb] = {
    "assign": assign_next,
    "begin": begin_it,
    "cancel": cancel_it,
    "stop": stop_it,
    **{f"end {reason}": end_with(reason, None) for reason in FINAL_STATE_OF},
    **{
        f"end {reason} and retry": end_with(reason, timedelta(minutes=1))
        for reason in [*FINAL_STATE_OF, Reason.PREEMPTED]
    },
}


async def queued(rows: Rows) -> int:
    return int(await rows.simulation())


async def starting(rows: Rows) -> int:
    simulation_id = await queued(rows)
    await rows.assign(simulation_id)
    return simulation_id


async def running(rows: Rows) -> int:
    return int((await rows.start()).simulation_id)


def ended(before: Callable[[Rows], Awaitable[int]], reason: Reason, retry_after: timedelta | None = None) -> Any:
    async def situation(rows: Rows) -> int:
        simulation_id = await before(rows)
        assert await rows.end(simulation_id, 1, reason, retry_after=retry_after)
        return simulation_id

    return situation


def unwanted(before: Callable[[Rows], Awaitable[int]]) -> Any:
    async def situation(rows: Rows) -> int:
        simulation_id = await before(rows)
        async with rows.sessions.begin() as session:
            assert await stop(session, simulation_id, Reason.CANCELLED, USER)
        return simulation_id

    return situation


async def cancelled_in_the_queue(rows: Rows) -> int:
    simulation_id = await queued(rows)
    async with rows.sessions.begin() as session:
        await cancel(session, simulation_id, USER)
    return simulation_id


# Every state, and the different pasts that a row in it can have.
SITUATIONS: dict[str, tuple[SimulationState, Callable[[Rows], Awaitable[int]]]] = {
    "queued": (S.QUEUED, queued),
    "queued again": (S.QUEUED, ended(running, Reason.MACHINE_LOST, timedelta(0))),
    "queued again, unwanted": (S.QUEUED, ended(unwanted(running), Reason.MACHINE_LOST, timedelta(0))),
    "starting": (S.STARTING, starting),
    "starting, unwanted": (S.STARTING, unwanted(starting)),
    "running": (S.RUNNING, running),
    "running, unwanted": (S.RUNNING, unwanted(running)),
    "finished": (S.FINISHED, ended(running, Reason.COMPLETED)),
    "failed": (S.FAILED, ended(running, Reason.EXIT_CODE)),
    "failed before it began": (S.FAILED, ended(starting, Reason.LAUNCH_ERROR)),
    "cancelled": (S.CANCELLED, ended(running, Reason.CANCELLED)),
    "cancelled in the queue": (S.CANCELLED, cancelled_in_the_queue),
}


async def now(rows: Rows, simulation_id: int, machine_id: int) -> Now:
    simulation = await rows.get(simulation_id)
    async with rows.sessions() as session:
        attempt = await session.get(
            Attempt,
            await rows.value("SELECT max(id) AS id FROM attempts WHERE simulation_id = :id", id=simulation_id) or 0,
        )
    # Before the first attempt there is no row to begin: one that claims to be it.
    attempt = attempt or Attempt(id=0, simulation_id=simulation_id, number=simulation.attempt)
    return Now(simulation_id, simulation.attempt, attempt, machine_id)


def test_the_transitions_are_those_of_the_drawing() -> None:
    drawn = {(source, target) for (source, _verb), target in DRAWN.items()}
    assert {(str(source), str(target)) for source in TRANSITIONS for target in TRANSITIONS[source]} == drawn
    assert set(TRANSITIONS) == set(S)


def test_every_reason_has_a_final_state() -> None:
    assert set(FINAL_STATE_OF) == set(Reason) - {
        Reason.PREEMPTED,  # of attempts only
        Reason.DEPENDENCY_FAILED,  # of what had no attempt
    }
    assert set(FINAL_STATE_OF.values()) == FINAL_STATES
    assert {state for state, _ in SITUATIONS.values()} == set(S)


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_of_all_verbs_exactly_the_drawn_ones_move_a_simulation_that_is(situation: str, rows: Rows) -> None:
    state, put_into = SITUATIONS[situation]
    machine_id = await rows.machine("another")
    is_moved = True
    for name, verb in VERBS.items():
        if is_moved:  # else it is as it was, for the next verb
            simulation_id = await put_into(rows)
            subject = await now(rows, simulation_id, machine_id)
            before = await rows.snapshot(simulation_id)
            assert before["simulation"][0]["state"] == state, (situation, name)

        async with rows.sessions.begin() as session:
            answer = await verb(session, subject)

        after = await rows.snapshot(simulation_id)
        is_moved = after != before
        target = DRAWN.get((state.value, name))
        if target is not None:
            assert answer, (situation, name)
            check_move(name, before, after, target)
        elif name in ("stop", "cancel") and situation in ("starting", "running"):
            assert answer is True
            check_wish(before, after, "MAX_RUNTIME" if name == "stop" else "CANCELLED")
        else:
            assert answer in (False, None), (situation, name)
            assert after == before, (situation, name)


def check_move(verb: str, before: Any, after: Any, target: str) -> None:
    [old], [new] = before["simulation"], after["simulation"]
    assert new["state"] == target, verb
    assert after["events"][:-1] == before["events"], verb
    [event] = after["events"][len(before["events"]) :]  # one event per transition
    assert (event["kind"], event["actor"], event["project_id"]) == (target, "other", old["project_id"])

    open_attempts = [each for each in after["attempts"] if each["ended_at"] is None]
    assert len(open_attempts) == (target in ("STARTING", "RUNNING")), verb
    assert all(each["number"] == new["attempt"] for each in open_attempts)
    assert (new["finished_at"] is not None) == (target in ("FINISHED", "FAILED", "CANCELLED"))
    assert (new["reason"] is not None) == (target in ("FINISHED", "FAILED", "CANCELLED"))

    if verb == "assign":
        assert new["attempt"] == old["attempt"] + 1
        assert [each["number"] for each in after["attempts"]] == list(range(1, new["attempt"] + 1))
        [attempt] = open_attempts
        member = after["members"][-1]
        assert (member["attempt_id"], member["rank"], member["ended_at"]) == (attempt["id"], 0, None)
        assert (member["cpus"], member["memory_gib"], member["gpus"]) == (1.0, 0.0, 0)
        billed = (member["price_per_hour"], member["share"], member["currency"])
        assert billed == (Decimal("2.5"), Decimal("0.5"), "USD")
        assert event["detail"] == {"attempt": new["attempt"], "machine": "m"}
    else:
        assert new["attempt"] == old["attempt"]
        assert len(after["attempts"]) == len(before["attempts"])
    if verb == "begin":
        assert new["started_at"] == open_attempts[0]["started_at"] is not None
    if verb.startswith("end"):
        attempt = after["attempts"][-1]
        assert attempt["reason"] == verb.split()[1]
        member = after["members"][-1]
        assert (member["ended_at"], member["exit_code"]) == (attempt["ended_at"], attempt["exit_code"]), "the fence"
        told = (attempt["reason_detail"], attempt["exit_code"], attempt["signal"])
        assert told == ("A sentence.", 3, 9)
        assert event["detail"] == {
            "attempt": attempt["number"], "reason": attempt["reason"], "detail": "A sentence.",
            "exitCode": 3, "signal": 9,
        }  # fmt: skip
        if target == "QUEUED":
            assert new["queued_at"] - attempt["ended_at"] == timedelta(minutes=1)
        else:
            assert (new["reason"], new["reason_detail"]) == (attempt["reason"], "A sentence.")
            assert new["finished_at"] == attempt["ended_at"]


def check_wish(before: Any, after: Any, reason: str) -> None:
    [old], [new] = before["attempts"], after["attempts"]
    intent = {"stop_wanted_at": new["stop_wanted_at"], "stop_wanted_by": "other", "stop_reason": reason}
    assert new["stop_wanted_at"] is not None
    assert new == {**old, **intent}
    assert (after["simulation"], after["members"]) == (before["simulation"], before["members"])
    [event] = after["events"][len(before["events"]) :]
    assert (event["kind"], event["actor"], event["detail"]) == ("STOP_WANTED", "other", {"reason": reason})


async def test_a_simulation_that_is_not_there_is_moved_by_nothing(rows: Rows) -> None:
    unknown = Now(999, 0, Attempt(id=999, simulation_id=999, number=0), await rows.machine())
    for name, verb in VERBS.items():
        async with rows.sessions.begin() as session:
            assert not await verb(session, unknown), name
    assert await rows.value("SELECT count(*) FROM attempts") == 0


# --- the fence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("successor", ["starting", "running"])
async def test_a_transition_with_an_old_number_changes_nothing(successor: str, rows: Rows) -> None:
    first = await rows.start()
    await rows.end(first.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    if successor == "running":
        await rows.start(first.simulation_id)
    else:
        await rows.assign(first.simulation_id)
    async with rows.sessions() as session:
        old = await session.get(Attempt, first.attempt_id)
    assert old is not None
    stale = Now(first.simulation_id, 1, old, await rows.machine())
    before = await rows.snapshot(first.simulation_id)

    for name, verb in VERBS.items():
        if name not in ("cancel", "stop"):  # they are about the simulation, whichever attempt it is at
            async with rows.sessions.begin() as session:
                assert not await verb(session, stale), name
    assert await rows.snapshot(first.simulation_id) == before


async def test_the_database_itself_refuses_a_second_current_attempt(rows: Rows) -> None:
    started = await rows.start()
    with pytest.raises(IntegrityError, match="uq_attempts_current"):
        await rows.query(
            "INSERT INTO attempts (simulation_id, number, machine_name, price_per_hour, share, currency) "
            "VALUES (:id, 2, 'm', 0, 1, 'USD')",
            id=started.simulation_id,
        )


async def test_the_database_itself_refuses_a_state_that_is_none(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    with pytest.raises(IntegrityError, match="ck_simulations_simulationstate"):
        await rows.query("UPDATE simulations SET state = 'PAUSED' WHERE id = :id", id=simulation_id)


# --- one transaction -------------------------------------------------------------------------------------------


async def test_requeueing_and_the_end_of_the_attempt_are_one_transaction(
    rows: Rows, other_sessions: async_sessionmaker[AsyncSession]
) -> None:
    started = await rows.start()
    seen = (
        "SELECT s.state, a.ended_at IS NULL AS current FROM simulations s JOIN attempts a ON a.simulation_id = s.id "
        "WHERE s.id = :id"
    )
    async with other_sessions.begin() as session:
        ending = Ending(Reason.MACHINE_LOST)
        assert await end(session, started.simulation_id, 1, ending, OTHER, retry_after=timedelta(0))
        assert await rows.query(seen, id=started.simulation_id) == [{"state": "RUNNING", "current": True}]
    assert await rows.query(seen, id=started.simulation_id) == [{"state": "QUEUED", "current": False}]


async def test_a_transition_that_is_rolled_back_leaves_no_event(rows: Rows) -> None:
    started = await rows.start()
    before = await rows.snapshot(started.simulation_id)
    async with rows.sessions() as session:
        assert await end(session, started.simulation_id, 1, Ending(Reason.COMPLETED), OTHER)
        await session.rollback()
    assert await rows.snapshot(started.simulation_id) == before


async def test_a_retry_keeps_when_it_first_began_and_forgets_why_it_was_lost(rows: Rows) -> None:
    first = await rows.start()
    began = (await rows.get(first.simulation_id)).started_at
    await rows.end(first.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    await rows.start(first.simulation_id)
    simulation = await rows.get(first.simulation_id)
    assert (simulation.started_at, simulation.reason, simulation.attempt) == (began, None, 2)


# --- hints -----------------------------------------------------------------------------------------------------


class Ear:
    """Hears the channel of simulations on a connection of its own."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    def hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._heard.put_nowait(str(payload))

    async def so_far(self) -> list[str]:
        """Everything that was said until now: up to a word of our own, for hints arrive in the order of commits."""
        await self._rows.query("SELECT pg_notify('simulations', 'now')")
        heard: list[str] = []
        async with asyncio.timeout(60):
            while (payload := await self._heard.get()) != "now":
                heard.append(payload)
        return heard


@pytest.fixture
async def ear(rows: Rows, database_url: str) -> AsyncIterator[Ear]:
    connection = await connect_raw(database_url)
    ear = Ear(rows)
    await connection.add_listener("simulations", ear.hear)
    yield ear
    await connection.close()


@asynccontextmanager
async def uncommitted(sessions: async_sessionmaker[AsyncSession], simulation_id: int) -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        assert await end(session, simulation_id, 1, Ending(Reason.COMPLETED), OTHER)
        yield session


async def test_a_hint_is_sent_when_the_transition_commits_and_not_before(
    rows: Rows, other_sessions: async_sessionmaker[AsyncSession], ear: Ear
) -> None:
    started = await rows.start()
    await ear.so_far()
    async with uncommitted(other_sessions, started.simulation_id) as session:
        assert await ear.so_far() == []
        await session.commit()
    assert await ear.so_far() == [str(started.simulation_id)]


async def test_a_transition_that_is_rolled_back_sends_no_hint(
    rows: Rows, other_sessions: async_sessionmaker[AsyncSession], ear: Ear
) -> None:
    started = await rows.start()
    await ear.so_far()
    async with uncommitted(other_sessions, started.simulation_id) as session:
        await session.rollback()
    assert await ear.so_far() == []


async def test_every_verb_that_changes_something_sends_a_hint_and_no_other_does(rows: Rows, ear: Ear) -> None:
    machine_id = await rows.machine()
    for name, source in (("assign", queued), ("begin", starting), ("end EXIT_CODE", running), ("stop", running)):
        simulation_id = await source(rows)
        subject = await now(rows, simulation_id, machine_id)
        for expected in ([str(simulation_id)], []):  # the second time it is too late
            await ear.so_far()
            async with rows.sessions.begin() as session:
                assert bool(await VERBS[name](session, subject)) == bool(expected)
            assert await ear.so_far() == expected, name
