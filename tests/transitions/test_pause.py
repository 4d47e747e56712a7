"""Pausing what waits: no candidate until it is resumed; what runs or has ended is refused with advice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from db.errors import NotFound, WrongState
from db.events import Actor
from db.states import Reason
from transitions.pause import pause, resume

Rows = Any  # the fixture of conftest.py
USER = Actor("user", "192.0.2.1")


async def do(rows: Rows, verb: Any, simulation_id: int, **given: Any) -> Any:
    async with rows.sessions.begin() as session:
        return await verb(session, simulation_id, USER, **given)


async def kinds(rows: Rows, simulation_id: int) -> list[str]:
    return [each["kind"] for each in (await rows.snapshot(simulation_id))["events"]]


async def test_it_is_paused_and_resumed_once_however_often_it_is_asked(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    before = await rows.get(simulation_id)
    await asyncio.gather(*(do(rows, pause, simulation_id) for _ in range(4)))
    paused = await rows.get(simulation_id)
    assert (paused.paused, paused.held, paused.state.value) == (True, True, "QUEUED")
    await asyncio.gather(*(do(rows, resume, simulation_id) for _ in range(4)))
    resumed = await rows.get(simulation_id)
    assert (resumed.paused, resumed.held) == (False, False)
    assert resumed.queued_xid > before.queued_xid, "the planner finds it as an arrival"
    assert resumed.queued_at > before.queued_at
    assert await kinds(rows, simulation_id) == ["QUEUED", "PAUSED", "RESUMED"]


async def test_what_is_left_of_a_backoff_is_still_waited_for(rows: Rows) -> None:
    started = await rows.start()
    await rows.end(started.simulation_id, started.number, Reason.MACHINE_LOST, retry_after=timedelta(hours=1))
    before = await rows.get(started.simulation_id)
    await do(rows, pause, started.simulation_id)
    assert (await do(rows, resume, started.simulation_id)).queued_at == before.queued_at


async def test_what_runs_or_has_ended_is_refused_with_advice(rows: Rows) -> None:
    started = await rows.start()
    with pytest.raises(WrongState, match=r"It is RUNNING: only what waits in the queue can be paused. .*drain"):
        await do(rows, pause, started.simulation_id)
    assert not (await do(rows, resume, started.simulation_id)).paused, "there is no pause to end"
    await rows.end(started.simulation_id, started.number)
    for verb in (pause, resume):
        with pytest.raises(WrongState, match="It has ended"):
            await do(rows, verb, started.simulation_id)
        with pytest.raises(NotFound):
            await do(rows, verb, 10**9)
        with pytest.raises(NotFound):
            await do(rows, verb, started.simulation_id, scope=frozenset({10**9}))
    assert "PAUSED" not in await kinds(rows, started.simulation_id)


async def test_a_paused_one_can_be_cancelled_and_its_repetition_is_not_paused(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await do(rows, pause, simulation_id)
    await rows.cancel(simulation_id)
    assert (await rows.get(simulation_id)).state.value == "CANCELLED"
