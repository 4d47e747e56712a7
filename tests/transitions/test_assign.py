"""Assignments: one at a time, and none by another number than the newest attempt's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from rows import assign_one, assignment_to
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.events import Actor
from db.states import Reason

Rows = Any  # the fixture of conftest.py
OTHER = Actor("other")


@pytest.mark.parametrize("fence", [0, 2, 7])
async def test_an_assignment_with_another_number_than_the_newest_does_nothing(fence: int, rows: Rows) -> None:
    first = await rows.start()
    await rows.end(first.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    machine_id = await rows.machine()
    before = await rows.snapshot(first.simulation_id)
    async with rows.sessions.begin() as session:
        assert await assign_one(session, first.simulation_id, fence, assignment_to(machine_id), OTHER) is None
    assert await rows.snapshot(first.simulation_id) == before


async def test_of_two_assignments_at_once_one_is_made(
    rows: Rows, other_sessions: async_sessionmaker[AsyncSession]
) -> None:
    simulation_id = await rows.simulation()
    machine_id = await rows.machine()

    async def try_to(sessions: async_sessionmaker[AsyncSession]) -> int | None:
        async with sessions.begin() as session:
            return await assign_one(session, simulation_id, 0, assignment_to(machine_id), OTHER)

    made = await asyncio.gather(try_to(rows.sessions), try_to(other_sessions))
    assert sorted(each is None for each in made) == [False, True]
    snapshot = await rows.snapshot(simulation_id)
    assert [each["number"] for each in snapshot["attempts"]] == [1]
    assert [each["kind"] for each in snapshot["events"]] == ["QUEUED", "STARTING"]
