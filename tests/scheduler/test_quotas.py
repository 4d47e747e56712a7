"""Quotas in the planner: what waits for one, what passes it, and two planners at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from db import projects
from db.events import Actor
from db.states import Reason
from scheduler.planner import Planner
from transitions.settle import Ending, settle

World = Any  # the fixture of conftest.py
USER = Actor("user")


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


async def project(world: World, name: str, quota: int | None = None) -> int:
    async with world.sessions.begin() as session:
        project_id = (await projects.named(session, name, USER)).id
        await projects.change(session, project_id, {"gpu_quota": quota}, USER)
        return project_id


async def end(world: World, simulation_id: int) -> None:
    attempt = await world.attempt_of(simulation_id)
    async with world.sessions.begin() as session:
        ending = Ending(Reason.COMPLETED)
        assert await settle(session, simulation_id, attempt.number, ending, USER, backoff=timedelta(0))


async def used(world: World, project_id: int) -> int:
    async with world.sessions() as session:
        return (await projects.uses(session))[project_id].used


async def test_what_a_quota_does_not_admit_waits_with_a_sentence_and_others_take_the_room(
    world: World, planner: Planner
) -> None:
    await world.machine(gpus=8, cpus=64.0)
    vision, other = await project(world, "vision", 4), await project(world, "other")
    wants = [await world.simulation(gpus=2, priority=9, project_id=vision) for _ in range(3)]
    huge = await world.simulation(gpus=6, priority=9, project_id=vision)
    no_gpu = await world.simulation(project_id=vision)
    rest = [await world.simulation(gpus=2, project_id=other) for _ in range(2)]

    summary = await planner.plan()

    assert (summary.assigned, summary.refused) == (5, 0)
    states = [await world.state(each) for each in (*wants, huge, no_gpu, *rest)]
    assert states == ["STARTING", "STARTING", "QUEUED", "QUEUED", "STARTING", "STARTING", "STARTING"]
    waits, never = await world.wait_of(wants[2]), await world.wait_of(huge)
    assert (waits.reason, never.reason) == ("QUOTA", "QUOTA")
    assert waits.detail == "The project vision uses 4 of its quota of 4 GPUs, and this needs 2."
    assert never.detail == "It needs 6 GPUs: the quota of the project vision is 4 GPUs at once."


async def test_what_fits_the_rest_of_a_quota_passes_what_does_not(world: World, planner: Planner) -> None:
    await world.machine(gpus=8, cpus=64.0)
    vision = await project(world, "vision", 3)
    first, second, small = [
        await world.simulation(gpus=gpus, priority=priority, project_id=vision)
        for gpus, priority in ((2, 9), (2, 8), (1, 0))
    ]
    await planner.plan()
    assert [await world.state(each) for each in (first, second, small)] == ["STARTING", "QUEUED", "STARTING"]


async def test_what_fits_no_machine_keeps_no_quota_from_others(world: World, planner: Planner) -> None:
    await world.machine(gpus=2, cpus=64.0)
    vision = await project(world, "vision", 4)
    busy = await world.simulation(gpus=4, priority=9, project_id=vision)
    small = await world.simulation(gpus=2, project_id=vision)
    await planner.plan()
    assert [await world.state(each) for each in (busy, small)] == ["QUEUED", "STARTING"]


@pytest.mark.parametrize("how", ["ended", "raised", "removed", "moved"])
async def test_it_starts_when_gpus_are_freed_or_the_quota_is_raised_or_removed(
    world: World, planner: Planner, how: str
) -> None:
    await world.machine(gpus=8, cpus=64.0)
    vision = await project(world, "vision", 2)
    first, second = [await world.simulation(gpus=2, project_id=vision) for _ in range(2)]
    await planner.plan()
    assert (await planner.plan()).assigned == 0
    assert await world.waiting(second) == "QUOTA"

    if how == "ended":
        await end(world, first)
    elif how == "raised":
        await project(world, "vision", 4)
    elif how == "removed":
        await project(world, "vision", None)
    else:  # the same free GPUs: another project's took what the end freed
        await end(world, first)
        other = await world.simulation(gpus=2, priority=9)
        assert (await Planner(world.sessions, world.settings).plan()).assigned == 2
        assert await world.state(other) == "STARTING"

    assert (await planner.plan()).assigned == (0 if how == "moved" else 1)
    assert await world.state(second) == "STARTING"


async def test_a_lowered_quota_stops_nothing_and_starts_nothing(world: World, planner: Planner) -> None:
    await world.machine(gpus=8, cpus=64.0)
    vision = await project(world, "vision")
    ids = [await world.simulation(gpus=1, project_id=vision) for _ in range(4)]
    await planner.plan()
    await project(world, "vision", 2)
    late = await world.simulation(gpus=1, project_id=vision)
    await planner.plan()
    assert [await world.state(each) for each in ids] == ["STARTING"] * 4
    assert (await world.wait_of(late)).detail.startswith("The project vision uses 4 of its quota of 2 GPUs")
    await end(world, ids[0])
    await end(world, ids[1])
    assert (await planner.plan()).assigned == 0
    await end(world, ids[2])
    assert (await planner.plan()).assigned == 1


async def test_two_planners_at_once_never_exceed_a_quota(world: World) -> None:
    """On machines of different hosts, so that only the project's row makes the starts see each other."""
    for number in range(8):
        await world.machine(f"m{number}", host=f"host-{number}", gpus=1, cpus=64.0)
    vision = await project(world, "vision", 3)
    ids = [await world.simulation(gpus=1, project_id=vision) for _ in range(12)]
    planners = [Planner(world.sessions, world.settings) for _ in range(2)]

    for _ in range(8):
        await asyncio.gather(*(planner.plan() for planner in planners))
        assert await used(world, vision) <= 3
        running = [each for each in ids if await world.state(each) == "STARTING"]
        for each in running:
            await end(world, each)
    await asyncio.gather(*(planner.plan() for planner in planners))
    assert [await world.state(each) for each in ids].count("QUEUED") == 0


async def test_a_placement_that_the_quota_no_longer_admits_drops_out_alone(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quota is lowered after the judgement: it is checked again after the machines' locks, before the budgets'."""
    await world.machine(gpus=4, cpus=64.0)
    vision, other = await project(world, "vision", 4), await project(world, "other")
    first, second = [await world.simulation(gpus=1, priority=9, project_id=vision) for _ in range(2)]
    third = await world.simulation(gpus=1, project_id=other)
    assign = planner._execution.carry_out
    locked: list[str] = []

    async def lowered(*given: Any) -> Any:
        await project(world, "vision", 1)
        event.listen(engine, "before_cursor_execute", note)
        try:
            return await assign(*given)
        finally:
            event.remove(engine, "before_cursor_execute", note)

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if " FOR NO KEY UPDATE" in statement:
            locked.extend(
                each for each in ("simulations", "machines", "projects", "budgets") if f"FROM {each}" in statement
            )

    engine = world.sessions.kw["bind"].sync_engine
    monkeypatch.setattr(planner._execution, "carry_out", lowered)
    summary = await planner.plan()
    assert (summary.assigned, summary.refused) == (2, 1)
    assert locked == ["simulations", "machines", "projects", "budgets"]
    assert [await world.state(each) for each in (first, second, third)] == ["STARTING", "QUEUED", "STARTING"]
