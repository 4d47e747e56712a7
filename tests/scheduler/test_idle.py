"""The work of rounds in which nothing has changed, counted in statements, and what a start loads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from statements import sent_by

from db import machines
from scheduler.host import HostLoop
from scheduler.planner import Planner

World = Any  # the fixtures of conftest.py
ScriptedEngine = Any


@pytest.fixture
def host(world: World, scripted: ScriptedEngine) -> HostLoop:
    return HostLoop(world.sessions, world.settings, scripted, world.host_id)


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


async def _sent(world: World, work: Any) -> list[str]:
    async with sent_by(world.sessions) as sent:
        await work()
    return sent


async def test_a_planners_round_without_anything_due_is_its_heartbeat_alone(world: World, planner: Planner) -> None:
    await world.machine()
    await planner.tick()  # a planner before it may have written a plan, which the first round clears
    [beat] = await _sent(world, planner.tick)
    assert "INSERT INTO coverage" in beat


async def test_a_running_attempt_that_reports_costs_the_planner_nothing(
    world: World, planner: Planner, host: HostLoop
) -> None:
    await host.run_once()
    simulation_id = await world.simulation()
    await planner.tick()
    await host.run_once()
    await world.hello(simulation_id)
    await planner.tick()  # the queue is empty now, which the planner's memory has to learn

    [beat] = await _sent(world, planner.tick)
    assert "INSERT INTO coverage" in beat


async def test_a_round_adds_up_the_numbers_of_simulations_when_many_have_changed(
    world: World, planner: Planner
) -> None:
    async def changes() -> int:
        async with world.sessions() as session:
            return int(await session.scalar(text("SELECT count(*) FROM simulation_counts")) or 0)

    for _ in range(51):  # created and ended: 102 changes, and there is one project
        await world.cancel(await world.simulation())
    assert await changes() == 102
    await planner.tick()
    assert await changes() == 0
    await world.simulation()
    await planner.tick()
    assert await changes() == 1, "a few are left as they are"


async def test_a_hosts_round_without_attempts_is_its_heartbeat_alone(world: World, host: HostLoop) -> None:
    await host.run_once()
    [beat] = await _sent(world, host.run_once)
    assert "INSERT INTO hosts" in beat


async def test_a_machine_that_changed_is_written_once(world: World, host: HostLoop, scripted: ScriptedEngine) -> None:
    await host.run_once()
    scripted.machine = replace(scripted.machine, cpus=8.0, labels={"zone": "a"})
    first, second = await _sent(world, host.run_once), await _sent(world, host.run_once)
    assert [each for each in first if "UPDATE machines" in each and "locked" not in each]
    assert len(second) == 1
    async with world.sessions() as session:
        [machine] = await machines.every(session)
    assert (machine.cpus, machine.labels) == (8.0, {"zone": "a"})


def test_the_start_loads_nothing_that_scheduling_does_not_need() -> None:
    """Imports are most of the time from kill -9 until it schedules again."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import scheduler.__main__, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert {"scheduler", "runner", "sqlalchemy", "asyncpg"} <= roots
    unwanted = {"numpy", "apprise", "alembic", "mako", "cli", "client", "graph", "graphql", "strawberry", "yaml"}
    assert not roots & unwanted
