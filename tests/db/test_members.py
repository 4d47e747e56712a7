"""Members: the fence of reports against the end of their attempt, and what is granted to them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from rows import assign_one
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import convergence, lifecycle, machines
from db.connection import driver_of
from db.convergence import Column
from db.events import PLANNER
from db.states import Reason
from transitions.assign import Assignment
from transitions.settle import Ending, settle
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]
POINT = {"loss": Column([1], [0.5], [0.1])}


async def settle_and_assign(session: AsyncSession, simulation_id: int, machine_id: int) -> None:
    """The end of the attempt and the begin of its successor, in one transaction."""
    simulation = await lifecycle.lock(session, simulation_id)
    assert simulation is not None
    assert await settle(session, simulation.id, 1, Ending(Reason.MACHINE_LOST), PLANNER, backoff=timedelta(0))
    assignment = Assignment(machine_id, "m", None, (), Decimal(0), Decimal(1), "USD", 1.0, 0.0, 0)
    assert await assign_one(session, simulation_id, 1, assignment, PLANNER)


@pytest.mark.parametrize("committed", [True, False])
async def test_a_report_that_races_the_end_and_the_next_assignment_is_stored_before_both_or_not_at_all(
    committed: bool, rows: Rows, other_sessions: Sessions
) -> None:
    started, machine_id = await rows.start(), await rows.machine()
    async with driver_of(rows.sessions) as driver, other_sessions() as planner:
        await settle_and_assign(planner, started.simulation_id, machine_id)
        reporting = asyncio.create_task(convergence.take_in(driver, started.claim, 1, POINT))
        await rows.until_blocked(driver.get_server_pid())  # by the member's row
        await (planner.commit() if committed else planner.rollback())
        assert (await reporting is None) == committed
    assert await rows.value("SELECT count(*) FROM convergence") == (0 if committed else 1)


async def test_reports_at_once_with_the_end_are_all_acknowledged_and_stored_or_refused(
    rows: Rows, other_sessions: Sessions
) -> None:
    async def report(started: Any) -> int:
        """How many batches were acknowledged until the first was refused."""
        async with driver_of(rows.sessions) as driver:
            for batch in range(1, 50):
                if await convergence.take_in(driver, started.claim, batch, POINT) is None:
                    return batch - 1
        return 49

    async def lose(started: Any, machine_id: int) -> None:
        async with other_sessions.begin() as session:
            await settle_and_assign(session, started.simulation_id, machine_id)

    for _ in range(5):
        started, machine_id = await rows.start(), await rows.machine()
        acknowledged, _ = await asyncio.gather(report(started), lose(started, machine_id))
        stored = "SELECT count(*) FROM convergence WHERE simulation_id = :id AND attempt = 1"
        assert await rows.value(stored, id=started.simulation_id) == acknowledged
        assert await rows.state(started.simulation_id) == "STARTING"


async def test_a_report_waits_for_the_members_row_and_for_no_other(rows: Rows, other_sessions: Sessions) -> None:
    started = await rows.start()
    async with other_sessions() as session:
        assert await stop(session, started.simulation_id, Reason.CANCELLED, PLANNER)  # locks simulation and attempt
        async with driver_of(rows.sessions) as driver:
            receipt = await convergence.take_in(driver, started.claim, 1, POINT)
        assert receipt is not None
        assert receipt.stop_reason is None, "it is not committed"
        await session.rollback()


async def test_usage_is_what_was_granted_whatever_the_simulation_asks_for_now(rows: Rows) -> None:
    machine_id = await rows.machine()
    simulation_id = await rows.simulation(cpus=2.0, memory_gib=4.0)
    started = await rows.start(simulation_id, machine_id=machine_id)
    await rows.query("UPDATE simulations SET cpus = 4, memory_gib = 16")
    async with rows.sessions() as session:
        held = (await machines.usage(session, [machine_id]))[machine_id]
    assert (held.cpus, held.memory_gib, held.gpus, held.simulation_ids) == (2.0, 4.0, 0, (simulation_id,))
    await rows.end(started.simulation_id, 1)
    async with rows.sessions() as session:
        assert await machines.usage(session, [machine_id]) == {}


async def test_members_end_in_the_transaction_that_ends_their_attempt(rows: Rows) -> None:
    started = await rows.start()
    await rows.query(
        "INSERT INTO members (attempt_id, rank, machine_name, cpus, memory_gib, gpus, price_per_hour, share, currency) "
        "VALUES (:id, 1, 'other', 1, 0, 0, 1, 1, 'USD')",
        id=started.attempt_id,
    )
    await rows.end(started.simulation_id, 1, Reason.EXIT_CODE)
    members = (await rows.snapshot(started.simulation_id))["members"]
    [ended_at] = {each["ended_at"] for each in members}
    assert ended_at == await rows.value("SELECT ended_at FROM attempts") is not None
    assert [each["rank"] for each in members] == [0, 1]
