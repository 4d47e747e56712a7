"""Attempts: who may speak for one, which batch is taken, what an old one can still do, and when silence is a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import attempts, convergence, lifecycle, logs
from db.attempts import Receipt, Standing
from db.convergence import Column
from db.events import PLANNER
from db.lifecycle import Ending
from db.logs import Chunk
from db.states import LogStream, Reason

Rows = Any  # the fixture of conftest.py
Started = Any  # what it gives for a running simulation
Sessions = async_sessionmaker[AsyncSession]

LEASE = timedelta(seconds=30)
GAP = attempts.coverage_gap(LEASE)
POINT = {"loss": Column([1], [0.5], [0.1])}


async def put(session: AsyncSession, started: Started, batch: int) -> Receipt:
    """Accept and store one batch, as a report does, in the caller's transaction."""
    receipt = await attempts.accept(session, started.attempt_id, started.token, started.nonce, batch)
    if receipt.stored:
        await convergence.store(session, receipt.simulation_id, receipt.number, batch, POINT)
        await logs.store(session, receipt.simulation_id, receipt.number, batch, [Chunk(LogStream.STDOUT, "line\n")])
    return receipt


async def lose(session: AsyncSession, started: Started) -> bool:
    ending = Ending(Reason.MACHINE_LOST)
    return await lifecycle.end(
        session, started.simulation_id, started.number, ending, PLANNER, retry_after=timedelta(0)
    )


async def stored(rows: Rows) -> list[tuple[int, int]]:
    """Which (attempt, batch) are there, of points and of logs alike."""
    points = await rows.query("SELECT attempt, batch FROM convergence ORDER BY attempt, batch")
    chunks = await rows.query("SELECT attempt, batch FROM log_chunks ORDER BY attempt, batch")
    assert points == chunks
    return [(each["attempt"], each["batch"]) for each in points]


# --- launching -------------------------------------------------------------------------------------------------


async def test_a_launch_is_claimed_anew_with_another_token_until_somebody_says_hello(rows: Rows) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    async with rows.sessions.begin() as session:
        assert await attempts.claim_launch(session, attempt_id, b"first")
        assert await attempts.claim_launch(session, attempt_id, b"second")
        assert (await attempts.hello(session, attempt_id, b"first", "n")).standing is Standing.UNKNOWN
        assert (await attempts.hello(session, attempt_id, b"second", "n")).standing is Standing.CURRENT
    async with rows.sessions.begin() as session:
        assert not await attempts.claim_launch(session, attempt_id, b"third")
        assert (await attempts.accept(session, attempt_id, b"second", "n", 1)).stored


async def test_the_launch_of_an_ended_or_unknown_attempt_is_not_claimed(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    await rows.end(simulation_id, 1, Reason.CANCELLED)
    async with rows.sessions.begin() as session:
        assert not await attempts.claim_launch(session, attempt_id, b"token")
        assert not await attempts.claim_launch(session, attempt_id + 1, b"token")


async def test_a_claim_starts_the_lease_anew(rows: Rows) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    await rows.query("UPDATE attempts SET heartbeat_at = now() - interval '1 day'")
    await rows.launch(attempt_id)
    assert await heard_just_now(rows, attempt_id)


async def test_a_host_is_told_its_open_attempts_oldest_first(rows: Rows) -> None:
    machine_id = await rows.machine(host="here")
    launched, waiting, over = [await rows.simulation(name=name) for name in ("launched", "waiting", "over")]
    ids = [await rows.assign(each, machine_id, host="here") for each in (launched, waiting, over)]
    await rows.assign(await rows.simulation(), machine_id, host="elsewhere")
    await rows.launch(ids[0])
    await rows.end(over, 1, Reason.CANCELLED)
    async with rows.sessions() as session:
        found = await attempts.open_on_host(session, "here")
        assert [(attempt.id, simulation.name) for attempt, simulation in found] == [
            (ids[0], "launched"), (ids[1], "waiting"),
        ]  # fmt: skip
        found = await attempts.open_on_host(session, "here", not_launched=True)
        assert [attempt.id for attempt, _ in found] == [ids[1]]


async def test_what_is_unwanted_before_its_launch_is_found_until_the_launch_is_claimed(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    await rows.assign(await rows.simulation())  # nobody minds this one
    async with rows.sessions.begin() as session:
        assert await attempts.find_unwanted(session) == []
        await lifecycle.want_stop(session, simulation_id, Reason.CANCELLED, PLANNER)
        assert [each.id for each in await attempts.find_unwanted(session)] == [attempt_id]
        assert await attempts.is_still_unclaimed(session, attempt_id)
    await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        assert await attempts.find_unwanted(session) == []
        assert not await attempts.is_still_unclaimed(session, attempt_id)


# --- hello -----------------------------------------------------------------------------------------------------


async def test_the_first_nonce_binds_the_attempt_and_starts_the_simulation(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    token = await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        greeting = await attempts.hello(session, attempt_id, token, "mine")
    assert greeting.standing is Standing.CURRENT
    assert greeting.attempt is not None
    assert greeting.simulation is not None
    assert (greeting.attempt.id, greeting.attempt.nonce, greeting.simulation.id) == (attempt_id, "mine", simulation_id)
    assert await rows.state(simulation_id) == "RUNNING"


async def test_the_same_nonce_gets_the_same_answer_and_starts_nothing_twice(rows: Rows) -> None:
    started = await rows.start()
    before = await rows.snapshot(started.simulation_id)
    async with rows.sessions.begin() as session:
        greeting = await attempts.hello(session, started.attempt_id, started.token, started.nonce)
    assert greeting.standing is Standing.CURRENT
    assert greeting.attempt is not None
    assert greeting.simulation is not None
    after = await rows.snapshot(started.simulation_id)
    assert (after["simulation"], after["events"]) == (before["simulation"], before["events"])
    assert after["attempts"][0]["started_at"] == before["attempts"][0]["started_at"]


async def test_another_nonce_is_told_that_it_is_over_and_takes_nothing_from_the_first(rows: Rows) -> None:
    started = await rows.start()
    before = await rows.snapshot(started.simulation_id)
    async with rows.sessions.begin() as session:
        greeting = await attempts.hello(session, started.attempt_id, started.token, "another")
        assert greeting == attempts.Greeting(Standing.OVER)
        receipt = await attempts.accept(session, started.attempt_id, started.token, "another", 1)
        assert (receipt.standing, receipt.stored) == (Standing.OVER, False)
    assert await rows.snapshot(started.simulation_id) == before
    assert (await rows.report(started, 1)).stored


async def test_of_two_first_nonces_at_once_one_binds(rows: Rows, other_sessions: Sessions) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    token = await rows.launch(attempt_id)

    async def greet(sessions: Sessions, nonce: str) -> Standing:
        async with sessions.begin() as session:
            return (await attempts.hello(session, attempt_id, token, nonce)).standing

    answers = dict(
        zip(("a", "b"), await asyncio.gather(greet(rows.sessions, "a"), greet(other_sessions, "b")), strict=True)
    )
    assert sorted(answers.values()) == [Standing.CURRENT, Standing.OVER]
    bound = await rows.value("SELECT nonce FROM attempts WHERE id = :id", id=attempt_id)
    assert answers[bound] is Standing.CURRENT
    assert await rows.value("SELECT count(*) FROM events WHERE kind = 'RUNNING'") == 1


async def test_a_wrong_token_is_unknown_whatever_it_says(rows: Rows) -> None:
    started, other = await rows.start(), await rows.start()
    before = await rows.snapshot(started.simulation_id)
    for token in (b"wrong", b"", other.token):
        async with rows.sessions.begin() as session:
            greeting = await attempts.hello(session, started.attempt_id, token, started.nonce)
            assert greeting == attempts.Greeting(Standing.UNKNOWN)
            for batch in (None, 1, 2):
                receipt = await attempts.accept(session, started.attempt_id, token, started.nonce, batch)
                assert receipt == Receipt(Standing.UNKNOWN)
    assert await rows.snapshot(started.simulation_id) == before


async def test_an_attempt_that_is_not_there_is_unknown(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        assert (await attempts.hello(session, 999, b"token", "nonce")).standing is Standing.UNKNOWN
        assert (await attempts.accept(session, 999, b"token", "nonce", 1)).standing is Standing.UNKNOWN
        assert await attempts.simulation_of(session, 999) is None


async def test_hello_after_the_end_is_over(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    token = await rows.launch(attempt_id)
    await rows.end(simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    before = await rows.snapshot(simulation_id)
    async with rows.sessions.begin() as session:
        assert await attempts.hello(session, attempt_id, token, "n") == attempts.Greeting(Standing.OVER)
    assert await rows.snapshot(simulation_id) == before


async def test_what_is_unwanted_is_greeted_and_does_not_begin(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    token = await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        await lifecycle.want_stop(session, simulation_id, Reason.CANCELLED, PLANNER)
    async with rows.sessions.begin() as session:
        greeting = await attempts.hello(session, attempt_id, token, "n")
        assert greeting.standing is Standing.CURRENT
        assert greeting.simulation is not None
        assert greeting.simulation.stop_reason is Reason.CANCELLED
    assert await rows.state(simulation_id) == "STARTING"
    async with rows.sessions.begin() as session:  # its report of the end is taken all the same
        assert (await attempts.accept(session, attempt_id, token, "n", 1)).stored


async def test_a_greeting_can_be_read_after_its_transaction(rows: Rows) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    token = await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        greeting = await attempts.hello(session, attempt_id, token, "n")
    for row in (greeting.attempt, greeting.simulation):
        for column in row.__table__.columns:
            getattr(row, column.key)
    assert greeting.attempt.started_at is not None
    assert greeting.simulation.state.value == "RUNNING"


# --- batches ---------------------------------------------------------------------------------------------------


async def test_batches_are_stored_in_their_order(rows: Rows) -> None:
    started = await rows.start()
    for batch in (1, 2, 3):
        async with rows.sessions.begin() as session:
            receipt = await put(session, started, batch)
        assert receipt == Receipt(Standing.CURRENT, True, started.simulation_id, 1, batch + 1)
    assert await stored(rows) == [(1, 1), (1, 2), (1, 3)]


async def test_a_duplicate_batch_is_acknowledged_and_not_stored(rows: Rows) -> None:
    started = await rows.start()
    for batch in (1, 2, 1, 2):
        async with rows.sessions.begin() as session:
            receipt = await put(session, started, batch)
    assert receipt == Receipt(Standing.CURRENT, False, started.simulation_id, 1, 3)
    assert await stored(rows) == [(1, 1), (1, 2)]


@pytest.mark.parametrize("batch", [2, 3, 2**40, 2**63 - 1])
async def test_a_gap_is_answered_with_the_number_expected(batch: int, rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        receipt = await put(session, started, batch)
    assert receipt == Receipt(Standing.CURRENT, False, started.simulation_id, 1, 1)
    assert await stored(rows) == []


async def test_a_batch_that_is_rolled_back_can_be_sent_again(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions() as session:
        assert (await put(session, started, 1)).stored
        await session.rollback()
    async with rows.sessions.begin() as session:
        assert (await put(session, started, 1)).stored
    assert await stored(rows) == [(1, 1)]


async def test_a_report_is_told_that_it_is_to_stop_and_why(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        await lifecycle.want_stop(session, started.simulation_id, Reason.MAX_RUNTIME, PLANNER)
    for batch in (None, 1, 1, 5):
        assert (await rows.report(started, batch)).stop_reason is Reason.MAX_RUNTIME


async def test_the_same_batch_from_two_connections_at_once_is_stored_once(rows: Rows, other_sessions: Sessions) -> None:
    started = await rows.start()

    async def send(sessions: Sessions, batch: int) -> Receipt:
        async with sessions.begin() as session:
            return await put(session, started, batch)

    for batch in range(1, 11):
        receipts = await asyncio.gather(send(rows.sessions, batch), send(other_sessions, batch))
        assert sorted(each.stored for each in receipts) == [False, True]
        assert [each.expected_batch for each in receipts] == [batch + 1] * 2
    assert await stored(rows) == [(1, batch) for batch in range(1, 11)]


async def test_a_duplicate_is_not_acknowledged_before_the_first_is_committed(
    rows: Rows, other_sessions: Sessions
) -> None:
    started = await rows.start()
    async with rows.sessions() as first:
        assert (await put(first, started, 1)).stored
        async with other_sessions.begin() as second:
            pid = await rows.pid(second)
            duplicate = asyncio.create_task(put(second, started, 1))
            await rows.until_blocked(pid)
            await first.rollback()  # nothing of it is there: the duplicate is the one to be stored
            assert (await duplicate).stored
    assert await stored(rows) == [(1, 1)]


# --- old attempts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("successor", ["queued", "starting", "running"])
async def test_an_old_attempt_is_over_and_nothing_of_it_is_stored(successor: str, rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        await put(session, started, 1)
        await lose(session, started)
    if successor == "starting":
        await rows.assign(started.simulation_id)
    elif successor == "running":
        await rows.start(started.simulation_id)
    before = await rows.snapshot(started.simulation_id)

    for batch in (None, 1, 2, 3):
        async with rows.sessions.begin() as session:
            receipt = await put(session, started, batch) if batch else await attempts.accept(
                session, started.attempt_id, started.token, started.nonce, None
            )  # fmt: skip
        assert receipt == Receipt(Standing.OVER, expected_batch=2)
    assert await stored(rows) == [(1, 1)]
    assert await rows.snapshot(started.simulation_id) == before  # not even a heartbeat


async def test_the_token_of_an_old_attempt_opens_nothing_of_its_successor(rows: Rows) -> None:
    first = await rows.start()
    await rows.end(first.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    second = await rows.start(first.simulation_id)
    assert second.number == 2
    receipt = await rows.report(second, 1, token=first.token)
    assert receipt.standing is Standing.UNKNOWN
    assert (await rows.report(second, 1)).stored


async def test_a_batch_whose_transaction_is_open_is_stored_before_the_attempt_ends(
    rows: Rows, other_sessions: Sessions
) -> None:
    started = await rows.start()
    async with rows.sessions() as report, other_sessions.begin() as loss:
        assert (await put(report, started, 1)).stored
        pid = await rows.pid(loss)
        losing = asyncio.create_task(lose(loss, started))
        await rows.until_blocked(pid)  # by the attempt's row: while a batch is open, nobody can say it is over
        await report.commit()
        assert await losing
    assert await stored(rows) == [(1, 1)]
    assert await rows.state(started.simulation_id) == "QUEUED"


async def test_a_batch_that_waited_for_the_end_of_its_attempt_is_not_stored(
    rows: Rows, other_sessions: Sessions
) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as report, other_sessions() as loss:
        assert await lose(loss, started)
        pid = await rows.pid(report)
        reporting = asyncio.create_task(put(report, started, 1))
        await rows.until_blocked(pid)
        await loss.commit()
        assert await reporting == Receipt(Standing.OVER, expected_batch=1)
    assert await stored(rows) == []


async def test_a_batch_that_waited_for_an_end_that_was_rolled_back_is_stored(
    rows: Rows, other_sessions: Sessions
) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as report, other_sessions() as loss:
        assert await lose(loss, started)
        pid = await rows.pid(report)
        reporting = asyncio.create_task(put(report, started, 1))
        await rows.until_blocked(pid)
        await loss.rollback()
        assert (await reporting).stored
    assert await stored(rows) == [(1, 1)]


async def test_a_batch_can_not_slip_in_while_the_successor_begins(rows: Rows, other_sessions: Sessions) -> None:
    started = await rows.start()
    machine_id = await rows.machine()
    async with rows.sessions.begin() as report, other_sessions() as planner:
        assert await lose(planner, started)
        assignment = lifecycle.Assignment(machine_id, "m", None, (), *[await price(planner)] * 2, "USD")
        assert await lifecycle.assign(planner, started.simulation_id, 1, assignment, PLANNER)
        pid = await rows.pid(report)
        reporting = asyncio.create_task(put(report, started, 1))
        await rows.until_blocked(pid)
        await planner.commit()
        assert (await reporting).standing is Standing.OVER
    assert await stored(rows) == []
    assert (await rows.get(started.simulation_id)).attempt == 2


async def price(session: AsyncSession) -> Any:
    return (await session.execute(text("SELECT 1::numeric"))).scalar_one()


async def test_an_exit_and_a_loss_at_once_end_the_attempt_once_and_never_deadlock(
    rows: Rows, other_sessions: Sessions
) -> None:
    async def leave(started: Started) -> bool:
        async with rows.sessions.begin() as session:
            await lifecycle.lock(session, started.simulation_id)
            if not (await put(session, started, 1)).stored:
                return False
            return await lifecycle.end(session, started.simulation_id, 1, Ending(Reason.COMPLETED), PLANNER)

    async def give_up(started: Started) -> bool:
        async with other_sessions.begin() as session:
            return await lose(session, started)

    for _ in range(10):
        started = await rows.start()
        left, lost = await asyncio.gather(leave(started), give_up(started))
        assert left != lost
        assert await rows.state(started.simulation_id) == ("FINISHED" if left else "QUEUED")
        points = await rows.value(
            "SELECT count(*) FROM convergence WHERE simulation_id = :id", id=started.simulation_id
        )
        assert points == left


# --- heartbeats ------------------------------------------------------------------------------------------------


async def heard_just_now(rows: Rows, attempt_id: int) -> bool:
    return bool(
        await rows.value("SELECT heartbeat_at > now() - interval '10 s' FROM attempts WHERE id = :id", id=attempt_id)
    )


@pytest.mark.parametrize("batch", [None, 1, 2, 7], ids=["empty", "duplicate", "next", "gap"])
async def test_every_report_of_the_current_attempt_is_a_heartbeat(batch: int | None, rows: Rows) -> None:
    started = await rows.start()
    await rows.report(started, 1)
    await rows.query("UPDATE attempts SET heartbeat_at = now() - interval '1 day'")
    assert not await heard_just_now(rows, started.attempt_id)
    assert (await rows.report(started, batch)).standing is Standing.CURRENT
    assert await heard_just_now(rows, started.attempt_id)


async def test_a_hello_is_a_heartbeat_too(rows: Rows) -> None:
    started = await rows.start()
    await rows.query("UPDATE attempts SET heartbeat_at = now() - interval '1 day'")
    async with rows.sessions.begin() as session:
        await attempts.hello(session, started.attempt_id, started.token, started.nonce)
    assert await heard_just_now(rows, started.attempt_id)


# --- silence ---------------------------------------------------------------------------------------------------


async def beat(rows: Rows, *roles: str) -> None:
    async with rows.sessions.begin() as session:
        for role in roles or ("graph", "scheduler"):
            await attempts.beat(session, role, GAP)


async def pass_time(rows: Rows, period: timedelta) -> None:
    """So much later, by every clock: all that was written lies further back."""
    await rows.query(
        "UPDATE coverage SET covered_since = covered_since - CAST(:p AS interval), "
        "beat_at = beat_at - CAST(:p AS interval)",
        p=period,
    )
    await rows.query("UPDATE attempts SET heartbeat_at = heartbeat_at - CAST(:p AS interval)", p=period)


async def listen_for(rows: Rows, period: timedelta, *, roles: Sequence[str] = ("graph", "scheduler")) -> None:
    """Time passes while these roles beat as often as they have to."""
    pause = GAP * 0.9
    while period > timedelta(0):
        await pass_time(rows, min(pause, period))
        await beat(rows, *roles)
        period -= pause


async def silent(rows: Rows) -> list[int]:
    async with rows.sessions() as session:
        return [each.id for each in await attempts.find_silent(session, LEASE, GAP)]


async def test_an_attempt_that_nobody_heard_for_a_whole_lease_is_silent(rows: Rows) -> None:
    started, talkative = await rows.start(), await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 0.9)
    assert await silent(rows) == []
    await rows.report(talkative, None)
    await listen_for(rows, LEASE * 0.2)
    assert await silent(rows) == [started.attempt_id]
    async with rows.sessions.begin() as session:
        assert await attempts.is_still_silent(session, started.attempt_id, LEASE)
        assert not await attempts.is_still_silent(session, talkative.attempt_id, LEASE)


async def test_one_that_was_heard_meanwhile_is_no_longer_silent(rows: Rows) -> None:
    started = await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 1.1)
    assert await silent(rows) == [started.attempt_id]
    await rows.report(started, None)
    async with rows.sessions.begin() as session:
        assert not await attempts.is_still_silent(session, started.attempt_id, LEASE)


async def test_an_ended_attempt_is_never_silent(rows: Rows) -> None:
    started = await rows.start()
    await rows.end(started.simulation_id, 1)
    await beat(rows)
    await listen_for(rows, LEASE * 2)
    assert await silent(rows) == []
    async with rows.sessions.begin() as session:
        assert not await attempts.is_still_silent(session, started.attempt_id, LEASE)


@pytest.mark.parametrize("there", ["", "graph", "scheduler"])
async def test_nobody_is_silent_where_a_role_was_missing_all_along(there: str, rows: Rows) -> None:
    await rows.start()
    if there:
        await beat(rows, there)
        await listen_for(rows, LEASE * 2, roles=[there])
    else:
        await pass_time(rows, LEASE * 2)
    assert await silent(rows) == []


@pytest.mark.parametrize("absent", ["graph", "scheduler"])
async def test_nobody_is_silent_for_a_lease_after_a_role_was_away(absent: str, rows: Rows) -> None:
    started = await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE)
    present = "scheduler" if absent == "graph" else "graph"
    await listen_for(rows, GAP * 1.5, roles=[present])
    assert await silent(rows) == []  # it is still away
    await beat(rows)
    assert await silent(rows) == []  # it is back, and has heard nobody yet
    await listen_for(rows, LEASE * 0.9)
    assert await silent(rows) == []
    await listen_for(rows, LEASE * 0.2)
    assert await silent(rows) == [started.attempt_id]


async def test_a_night_switched_off_makes_nobody_silent(rows: Rows) -> None:
    await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 1.1)
    await pass_time(rows, timedelta(hours=8))
    assert await silent(rows) == []
    await beat(rows)
    assert await silent(rows) == []


async def test_a_beat_in_time_goes_on_covering_and_a_late_one_begins_anew(rows: Rows) -> None:
    since = "SELECT covered_since FROM coverage WHERE role = 'graph'"
    await beat(rows, "graph")
    await pass_time(rows, GAP * 0.9)
    before = await rows.value(since)
    await beat(rows, "graph")
    assert await rows.value(since) == before
    await pass_time(rows, GAP * 1.1)
    await beat(rows, "graph")
    assert await rows.value("SELECT beat_at - covered_since < interval '1 s' FROM coverage WHERE role = 'graph'")


async def test_a_clock_that_was_set_back_begins_anew(rows: Rows) -> None:
    started = await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 1.1)
    # The clock goes back by an hour: everything that was written lies in the future now.
    await pass_time(rows, -timedelta(hours=1))
    assert await silent(rows) == []
    await beat(rows)
    assert await silent(rows) == []
    async with rows.sessions.begin() as session:
        await attempts.forgive_clock(session)
    assert await heard_just_now(rows, started.attempt_id)
    await listen_for(rows, LEASE * 1.1)
    assert await silent(rows) == [started.attempt_id]  # and not only in an hour


async def test_a_clock_that_was_set_back_touches_neither_the_past_nor_what_has_ended(rows: Rows) -> None:
    past, over = await rows.start(), await rows.start()
    await rows.end(over.simulation_id, 1)
    await rows.query("UPDATE attempts SET heartbeat_at = now() - interval '5 s' WHERE id = :id", id=past.attempt_id)
    await rows.query("UPDATE attempts SET heartbeat_at = now() + interval '1 h' WHERE id = :id", id=over.attempt_id)
    before = await rows.query("SELECT id, heartbeat_at FROM attempts ORDER BY id")
    async with rows.sessions.begin() as session:
        await attempts.forgive_clock(session)
    assert await rows.query("SELECT id, heartbeat_at FROM attempts ORDER BY id") == before


async def test_beats_of_several_processes_that_overtake_one_another_leave_no_gap(
    rows: Rows, other_sessions: Sessions
) -> None:
    await beat(rows, "graph")
    await pass_time(rows, GAP * 0.5)
    since = await rows.value("SELECT covered_since FROM coverage")
    async with other_sessions.begin() as slow:
        await rows.pid(slow)  # its transaction has begun, and with it its now() stands still
        await beat(rows, "graph")
        await attempts.beat(slow, "graph", GAP)
    assert await rows.value("SELECT covered_since FROM coverage") == since


async def test_first_beats_of_two_processes_at_once_are_one_row(rows: Rows, other_sessions: Sessions) -> None:
    async with rows.sessions() as first, other_sessions.begin() as second:
        await attempts.beat(first, "graph", GAP)
        pid = await rows.pid(second)
        other = asyncio.create_task(attempts.beat(second, "graph", GAP))
        await rows.until_blocked(pid)
        await first.commit()
        await other
    assert await rows.value("SELECT count(*) FROM coverage") == 1


# --- limits and reading ----------------------------------------------------------------------------------------


async def test_what_runs_beyond_its_limit_and_the_margin_is_overdue_until_it_is_asked_to_stop(rows: Rows) -> None:
    limited = await rows.start(await rows.simulation(max_runtime=timedelta(seconds=100)))
    await rows.start()  # has no limit
    waiting = await rows.simulation(max_runtime=timedelta(seconds=1))
    await rows.assign(waiting)  # has not begun: its time does not count yet

    async def overdue_after(seconds: int) -> list[int]:
        await rows.query(
            "UPDATE attempts SET started_at = now() - CAST(:p AS interval) WHERE nonce IS NOT NULL",
            p=timedelta(seconds=seconds),
        )
        async with rows.sessions() as session:
            return list(await attempts.find_overdue(session, timedelta(seconds=15)))

    assert await overdue_after(110) == []
    assert await overdue_after(120) == [limited.simulation_id]
    async with rows.sessions.begin() as session:
        await lifecycle.want_stop(session, limited.simulation_id, Reason.MAX_RUNTIME, PLANNER)
    assert await overdue_after(120) == []


async def test_the_highest_id_ever_minted_is_known_though_its_row_is_gone(rows: Rows) -> None:
    async with rows.sessions() as session:
        assert await attempts.newest_minted(session) == 0
    attempt_id = await rows.assign(await rows.simulation())
    await rows.query("DELETE FROM attempts")
    async with rows.sessions() as session:
        assert await attempts.newest_minted(session) == attempt_id


async def test_attempts_are_listed_first_to_last_and_the_current_ones_told_apart(rows: Rows) -> None:
    first = await rows.start()
    await rows.end(first.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    second = await rows.start(first.simulation_id)
    ids = [first.attempt_id, second.attempt_id]
    async with rows.sessions() as session:
        assert [each.number for each in await attempts.of_simulation(session, first.simulation_id)] == [1, 2]
        assert await attempts.current_ids(session, [*ids, 999]) == {second.attempt_id}
        assert {each.id for each in await attempts.by_ids(session, [*ids, 999])} == set(ids)
        assert await attempts.simulation_of(session, second.attempt_id) == first.simulation_id
        assert abs(await attempts.clock(session) - await rows.value("SELECT now()")) < timedelta(minutes=1)
