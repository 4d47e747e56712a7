"""Cancelling: at once in the queue, an intent on a machine, refused after another end."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from rows import assign_one
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import events
from db.errors import NotFound, WrongState
from db.events import Actor
from db.states import Reason
from transitions.assign import Assignment
from transitions.cancel import cancel as cancel_simulation
from transitions.settle import Ending, end

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]
USER = Actor("user", "192.0.2.1")
OTHER = Actor("other")


async def kinds(rows: Rows, simulation_id: int) -> list[str]:
    async with rows.sessions() as session:
        return [each.kind for each in await events.list_of(session, "Simulation", simulation_id)]


async def cancel(rows: Rows, simulation_id: int) -> str:
    async with rows.sessions.begin() as session:
        return (await cancel_simulation(session, simulation_id, OTHER)).state.value


async def test_what_waits_is_cancelled_at_once(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    assert await cancel(rows, simulation_id) == "CANCELLED"
    assert await cancel(rows, simulation_id) == "CANCELLED"  # asking again changes nothing
    assert await kinds(rows, simulation_id) == ["QUEUED", "CANCELLED"]
    simulation = await rows.get(simulation_id)
    assert simulation.reason is Reason.CANCELLED
    assert (await rows.snapshot(simulation_id))["events"][-1]["actor"] == "other"
    assert await rows.stop_of(simulation_id) is None, "there was nothing on a machine to be stopped"
    assert simulation.finished_at is not None


async def test_what_is_on_a_machine_is_asked_to_stop_once(rows: Rows) -> None:
    assigned = await rows.simulation()
    await rows.assign(assigned)
    running = (await rows.start()).simulation_id
    for simulation_id, state in ((assigned, "STARTING"), (running, "RUNNING")):
        assert await cancel(rows, simulation_id) == state
        wanted = await rows.stop_of(simulation_id)
        assert await cancel(rows, simulation_id) == state
        assert await rows.stop_of(simulation_id) == wanted
        assert (wanted.reason, wanted.by) == (Reason.CANCELLED, "other")
        assert (await kinds(rows, simulation_id)).count("STOP_WANTED") == 1


@pytest.mark.parametrize(("reason", "said"), [(Reason.COMPLETED, "FINISHED, COMPLETED"), (Reason.EXIT_CODE, "FAILED")])
async def test_what_has_ended_otherwise_can_not_be_cancelled(reason: Reason, said: str, rows: Rows) -> None:
    started = await rows.start()
    await rows.end(started.simulation_id, 1, reason)
    before = await rows.snapshot(started.simulation_id)
    with pytest.raises(WrongState, match=said):
        await cancel(rows, started.simulation_id)
    assert await rows.snapshot(started.simulation_id) == before


async def test_a_cancel_that_meets_an_assignment_is_one_or_the_other(rows: Rows, other_sessions: Sessions) -> None:
    machine_id = await rows.machine()
    assignment = Assignment(machine_id, "m", None, (), Decimal(0), Decimal(1), "USD", 1.0, 0.0, 0)

    async def try_to_assign(simulation_id: int) -> int | None:
        async with other_sessions.begin() as session:
            return await assign_one(session, simulation_id, 0, assignment, USER)

    for _ in range(10):
        simulation_id = await rows.simulation()
        state, attempt_id = await asyncio.gather(cancel(rows, simulation_id), try_to_assign(simulation_id))
        simulation = await rows.get(simulation_id)
        assert (state == "CANCELLED") == (attempt_id is None)
        assert simulation.state == state
        if attempt_id is not None:  # no cancellation is lost
            assert (await rows.stop_of(simulation_id)).reason is Reason.CANCELLED


async def test_what_was_lost_while_unwanted_ends_cancelled(rows: Rows) -> None:
    started = await rows.start()
    await cancel(rows, started.simulation_id)
    async with rows.sessions.begin() as session:
        assert await end(session, started.simulation_id, 1, Ending(Reason.CANCELLED, "Lost."), OTHER)
    assert await cancel(rows, started.simulation_id) == "CANCELLED"


async def test_a_simulation_of_another_project_or_none_can_not_be_cancelled(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    for asked, scope in ((999, None), (simulation_id, frozenset({999}))):
        async with rows.sessions.begin() as session:
            with pytest.raises(NotFound):
                await cancel_simulation(session, asked, OTHER, scope=scope)
    assert await rows.state(simulation_id) == "QUEUED"
