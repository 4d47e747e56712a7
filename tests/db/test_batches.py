"""Batches: which one is taken, that it is stored once, and that nothing of an old attempt gets in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from rows import assign_one
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import attempts, convergence, lifecycle, logs
from db.attempts import Receipt, Standing
from db.connection import driver_of
from db.convergence import Column
from db.events import PLANNER
from db.logs import Chunk
from db.states import LogStream, Reason
from transitions.assign import Assignment
from transitions.begin import hello
from transitions.settle import Ending, end
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
Started = Any  # what it gives for a running simulation
Sessions = async_sessionmaker[AsyncSession]

POINT = {"loss": Column([1], [0.5], [0.1])}


async def put(session: AsyncSession, started: Started, batch: int) -> Receipt:
    """Accept and store one batch, as a report does, in the caller's transaction."""
    receipt = await attempts.accept(session, started.claim, batch)
    if receipt.stored:
        await convergence.store(session, receipt.simulation_id, receipt.number, batch, POINT)
        await logs.store(session, receipt.simulation_id, receipt.number, batch, [Chunk(LogStream.STDOUT, "line\n")])
    return receipt


async def take_in(
    sessions: Sessions, started: Started, batch: int, points: Mapping[str, Column] = POINT
) -> Receipt | None:
    """The same for a report that brings points only: in one statement, which commits itself."""
    async with driver_of(sessions) as driver:
        return await convergence.take_in(driver, started.claim, batch, points)


class Interrupted:
    """A session during whose report something else happens: before its second statement."""

    def __init__(self, session: AsyncSession, between: Callable[[], Awaitable[object]]) -> None:
        self._session, self._between, self._sent = session, between, 0

    async def connection(self) -> Interrupted:
        return self

    async def exec_driver_sql(self, statement: str, parameters: Any) -> Any:
        self._sent += 1
        if self._sent == 2:
            await self._between()
        return await (await self._session.connection()).exec_driver_sql(statement, parameters)


async def cursors(rows: Rows) -> list[tuple[int, int, str]]:
    """Which (attempt, batch, metric) are there; the summary counts as many points."""
    counted = await rows.value("SELECT coalesce(sum(count), 0) FROM metrics")
    assert counted == await rows.value("SELECT coalesce(sum(cardinality(steps)), 0) FROM convergence")
    found = await rows.query("SELECT attempt, batch, metric FROM convergence ORDER BY attempt, batch, metric")
    return [(each["attempt"], each["batch"], each["metric"]) for each in found]


async def lose(session: AsyncSession, started: Started) -> bool:
    ending = Ending(Reason.MACHINE_LOST)
    await lifecycle.lock(session, started.simulation_id)
    return await end(session, started.simulation_id, started.number, ending, PLANNER, retry_after=timedelta(0))


async def stored(rows: Rows) -> list[tuple[int, int]]:
    """Which (attempt, batch) are there, of points and of logs alike."""
    points = await rows.query("SELECT attempt, batch FROM convergence ORDER BY attempt, batch")
    chunks = await rows.query("SELECT attempt, batch FROM log_chunks ORDER BY attempt, batch")
    assert points == chunks
    return [(each["attempt"], each["batch"]) for each in points]


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
        await stop(session, started.simulation_id, Reason.MAX_RUNTIME, PLANNER)
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
            receipt = await (put(session, started, batch) if batch else attempts.accept(session, started.claim, None))
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
        await rows.until_blocked(pid)  # by the attempt's row: while a batch is open, the attempt can't be ended
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
        assignment = Assignment(machine_id, "m", None, (), Decimal(0), Decimal(1), "USD", 1.0, 0.0, 0)
        assert await assign_one(planner, started.simulation_id, 1, assignment, PLANNER)
        pid = await rows.pid(report)
        reporting = asyncio.create_task(put(report, started, 1))
        await rows.until_blocked(pid)
        await planner.commit()
        assert (await reporting).standing is Standing.OVER
    assert await stored(rows) == []
    assert (await rows.get(started.simulation_id)).attempt == 2


async def test_an_exit_and_a_loss_at_once_end_the_attempt_once_and_never_deadlock(
    rows: Rows, other_sessions: Sessions
) -> None:
    async def leave(started: Started) -> bool:
        async with rows.sessions.begin() as session:
            await lifecycle.lock(session, started.simulation_id)
            if not (await put(session, started, 1)).stored:
                return False
            return await end(session, started.simulation_id, 1, Ending(Reason.COMPLETED), PLANNER)

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


# --- points alone: one statement -------------------------------------------------------------------------------


async def test_points_alone_are_let_in_and_stored_by_one_statement(rows: Rows) -> None:
    started = await rows.start()
    before = await rows.value("SELECT heartbeat_at FROM members WHERE attempt_id = :id", id=started.attempt_id)
    for batch in (1, 2):
        receipt = await take_in(
            rows.sessions, started, batch, {**POINT, "accuracy": Column([7, 9], [1.0, math.nan], [0, 0])}
        )
        assert receipt == Receipt(Standing.CURRENT, True, started.simulation_id, 1, batch + 1)
    assert await cursors(rows) == [(1, 1, "accuracy"), (1, 1, "loss"), (1, 2, "accuracy"), (1, 2, "loss")]
    assert await rows.value("SELECT heartbeat_at FROM members WHERE attempt_id = :id", id=started.attempt_id) > before


async def test_a_batch_without_points_is_let_in_too(rows: Rows) -> None:
    started = await rows.start()
    receipt = await take_in(rows.sessions, started, 1, {})
    assert receipt == Receipt(Standing.CURRENT, True, started.simulation_id, 1, 2)
    assert await cursors(rows) == []


@pytest.mark.parametrize("batch", [1, 3, 2**63 - 1])
async def test_points_alone_that_are_not_the_next_batch_are_not_let_in(batch: int, rows: Rows) -> None:
    started = await rows.start()
    await take_in(rows.sessions, started, 1)
    before = await rows.snapshot(started.simulation_id)
    assert await take_in(rows.sessions, started, batch) is None
    assert await cursors(rows) == [(1, 1, "loss")]
    assert await rows.snapshot(started.simulation_id) == before


async def test_points_alone_of_an_old_attempt_or_with_another_token_are_not_let_in(rows: Rows) -> None:
    started = await rows.start()
    assert await take_in(rows.sessions, replace(started, token=b"another"), 1) is None
    assert await take_in(rows.sessions, replace(started, nonce="another"), 1) is None
    await rows.end(started.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    assert await take_in(rows.sessions, started, 1) is None
    assert await cursors(rows) == []


async def test_points_alone_are_told_that_they_are_to_stop_and_why(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        await stop(session, started.simulation_id, Reason.MAX_RUNTIME, PLANNER)
    receipt = await take_in(rows.sessions, started, 1)
    assert receipt is not None
    assert receipt.stop_reason is Reason.MAX_RUNTIME


async def test_points_alone_that_can_not_be_stored_leave_nothing_of_their_statement(rows: Rows) -> None:
    started = await rows.start()
    await rows.query(
        "INSERT INTO convergence VALUES (:id, 1, 1, 'loss', '{1}', '{1}', '{1}')", id=started.simulation_id
    )
    with pytest.raises(asyncpg.UniqueViolationError):
        await take_in(rows.sessions, started, 1, {"accuracy": POINT["loss"], **POINT})
    assert await rows.value("SELECT next_batch FROM members WHERE attempt_id = :id", id=started.attempt_id) == 1
    assert await rows.value("SELECT count(*) FROM metrics") == 0
    assert await rows.value("SELECT count(*) FROM convergence") == 1


async def test_the_same_points_from_two_connections_at_once_are_stored_once(
    rows: Rows, other_sessions: Sessions
) -> None:
    started = await rows.start()
    for batch in range(1, 11):
        receipts = await asyncio.gather(take_in(rows.sessions, started, batch), take_in(other_sessions, started, batch))
        assert sorted(receipt is not None for receipt in receipts) == [False, True]
    assert await cursors(rows) == [(1, batch, "loss") for batch in range(1, 11)]


@pytest.mark.parametrize("is_lost", [True, False])
async def test_points_alone_wait_for_the_end_of_their_attempt(
    is_lost: bool, rows: Rows, other_sessions: Sessions
) -> None:
    started = await rows.start()
    async with driver_of(rows.sessions) as driver, other_sessions() as loss:
        assert await lose(loss, started)
        reporting = asyncio.create_task(convergence.take_in(driver, started.claim, 1, POINT))
        await rows.until_blocked(driver.get_server_pid())
        await (loss.commit() if is_lost else loss.rollback())
        assert (await reporting is None) == is_lost
    assert await cursors(rows) == ([] if is_lost else [(1, 1, "loss")])


async def test_a_hello_in_the_midst_of_its_own_first_report_came_before_it(
    rows: Rows, other_sessions: Sessions
) -> None:
    """Neither is there an answer that no order of the two explains: current, the next one, and yet not stored."""
    started = await rows.start()
    await rows.query("UPDATE members SET nonce = NULL WHERE attempt_id = :id", id=started.attempt_id)

    async def greet() -> None:
        async with other_sessions.begin() as session:
            await hello(session, started.claim)

    async with rows.sessions.begin() as session:
        interrupted: Any = Interrupted(session, greet)
        receipt = await attempts.accept(interrupted, started.claim, 1)
    assert (receipt.standing, receipt.stored, receipt.expected_batch) == (Standing.CURRENT, True, 2)
