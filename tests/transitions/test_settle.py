"""The end of an attempt: the verdict of policy, carried out once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import lifecycle
from db.events import Actor
from db.states import Reason
from transitions.settle import Ending, settle
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
OTHER = Actor("other")
BACKOFF = timedelta(seconds=5)


async def settled(rows: Rows, simulation_id: int, ending: Ending, number: int = 1) -> bool:
    async with rows.sessions.begin() as session:
        simulation = await lifecycle.lock(session, simulation_id)
        assert simulation is not None
        return await settle(session, simulation.id, number, ending, OTHER, backoff=BACKOFF)


async def waits(rows: Rows) -> timedelta:
    pause: timedelta = await rows.value("SELECT queued_at - (SELECT max(ended_at) FROM attempts) FROM simulations")
    return pause


@pytest.mark.parametrize(
    ("reason", "state"), [(Reason.COMPLETED, "FINISHED"), (Reason.EXIT_CODE, "FAILED"), (Reason.MAX_RUNTIME, "FAILED")]
)
async def test_what_is_not_retried_is_final(reason: Reason, state: str, rows: Rows) -> None:
    started = await rows.start()
    assert await settled(rows, started.simulation_id, Ending(reason, "A sentence.", 3))
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason, simulation.reason_detail) == (state, reason, "A sentence.")


async def test_the_first_retry_after_a_lost_machine_may_begin_at_once_and_the_second_waits(rows: Rows) -> None:
    started = await rows.start()
    assert await settled(rows, started.simulation_id, Ending(Reason.MACHINE_LOST))
    assert await rows.state(started.simulation_id) == "QUEUED"
    assert await waits(rows) == timedelta(0)
    await rows.start(started.simulation_id)
    assert await settled(rows, started.simulation_id, Ending(Reason.MACHINE_LOST), 2)
    assert await waits(rows) == 2 * BACKOFF


async def test_a_failure_that_is_retried_waits_and_the_last_one_is_final(rows: Rows) -> None:
    simulation_id = await rows.simulation(max_retries=1, retry_on=("EXIT_CODE",))
    await rows.start(simulation_id)
    assert await settled(rows, simulation_id, Ending(Reason.EXIT_CODE, exit_code=3))
    assert await waits(rows) == BACKOFF
    await rows.start(simulation_id)
    assert await settled(rows, simulation_id, Ending(Reason.EXIT_CODE, exit_code=3), 2)
    assert await rows.state(simulation_id) == "FAILED"


async def test_what_is_lost_while_a_stop_is_wanted_ends_for_the_reason_of_the_stop(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        assert await stop(session, started.simulation_id, Reason.CANCELLED, OTHER)
    assert await settled(rows, started.simulation_id, Ending(Reason.MACHINE_LOST, "Lost."))
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason, simulation.reason_detail) == ("CANCELLED", "CANCELLED", "Lost.")


async def test_an_attempt_that_is_not_current_is_settled_by_nothing(rows: Rows) -> None:
    started = await rows.start()
    assert await settled(rows, started.simulation_id, Ending(Reason.COMPLETED))
    before = await rows.snapshot(started.simulation_id)
    for number in (0, 1, 2):
        assert not await settled(rows, started.simulation_id, Ending(Reason.EXIT_CODE), number)
    assert await rows.snapshot(started.simulation_id) == before


async def test_of_two_ends_at_once_one_counts(rows: Rows, other_sessions: async_sessionmaker[AsyncSession]) -> None:
    started = await rows.start()

    async def try_to(sessions: async_sessionmaker[AsyncSession], reason: Reason) -> bool:
        async with sessions.begin() as session:
            simulation = await lifecycle.lock(session, started.simulation_id)
            assert simulation is not None
            return await settle(session, simulation.id, 1, Ending(reason), OTHER, backoff=BACKOFF)

    ended = await asyncio.gather(
        try_to(rows.sessions, Reason.COMPLETED), try_to(other_sessions, Reason.EXIT_CODE)
    )  # fmt: skip
    assert sorted(ended) == [False, True]
    assert await rows.state(started.simulation_id) == ("FINISHED" if ended[0] else "FAILED")
    assert await rows.value("SELECT count(*) FROM events WHERE kind IN ('FINISHED', 'FAILED')") == 1
