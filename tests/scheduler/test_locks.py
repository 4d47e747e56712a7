"""The order of locks: what the scheduler and others do at the same moment never ends in a deadlock."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import lifecycle, machines, queue
from db.events import Actor

World = Any  # the fixture of conftest.py
USER = Actor("user")


async def _blocked(session: AsyncSession) -> None:
    """Wait until another session waits for a lock of this one."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))")
    async with asyncio.timeout(60):
        while not await session.scalar(waiting):
            await asyncio.sleep(0.01)


async def test_a_hosts_heartbeat_locks_its_machines_in_the_order_that_planners_do(world: World) -> None:
    first, second = await world.machine("m1"), await world.machine("m2")
    # Now it lies behind the other, for an index scan too: a column with an index has changed.
    await world.execute("UPDATE machines SET name = 'renamed' WHERE id = :id", id=first)

    async with world.sessions.begin() as planner:
        lock = text("SELECT id FROM machines WHERE id = :id FOR NO KEY UPDATE NOWAIT")
        await planner.execute(lock, {"id": first})
        beat = asyncio.create_task(world.host())
        await _blocked(planner)
        await planner.execute(lock, {"id": second})  # raises if the heartbeat holds it
    await beat


async def test_deleting_a_machine_locks_who_wants_it_before_it_locks_the_machine(world: World) -> None:
    machine_id = await world.machine("m1")
    simulation_id = await world.simulation(machine_id=machine_id, machine_name="m1")

    async def delete() -> None:
        async with world.sessions.begin() as session:
            await machines.delete_idle(session, machine_id, USER)

    async with world.sessions.begin() as planner:
        assert await lifecycle.lock(planner, simulation_id) is not None
        deletion = asyncio.create_task(delete())
        await _blocked(planner)
        assert await machines.lock_with_neighbours(planner, [machine_id])
    await deletion
    assert (await world.get(simulation_id)).machine_id is None


async def test_two_planners_write_down_the_same_reasons_at_once(world: World) -> None:
    ids = [await world.simulation(cpus=1 + number) for number in range(200)]
    async with world.sessions() as session:
        classes = sorted({each.queue_class for each in (await queue.look(session, None)).arrived})
    assert len(classes) == 200

    async def note(order: list[UUID], sentence: str) -> None:
        async with world.sessions.begin() as session:
            await queue.note_reasons(session, [(each, "MACHINES_BUSY", sentence) for each in order])

    for round_number in range(5):
        await asyncio.gather(note(classes, f"a{round_number}"), note(classes[::-1], f"b{round_number}"))
    assert {await world.waiting(each) for each in ids[:3]} == {"MACHINES_BUSY"}
