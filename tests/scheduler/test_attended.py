"""Attended simulations in the leader's round: who waits to be watched, who is placed, and who is stopped."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from db import watch_leases
from db.events import Actor
from db.states import Reason
from scheduler import planner as planner_module
from scheduler.planner import Planner
from transitions.settle import Ending, end

World = Any  # the fixture of conftest.py
LEASE = timedelta(seconds=10)
GRACE = timedelta(minutes=5)
USER = Actor("user")


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


async def attended(world: World, **given: Any) -> int:
    return int(await world.simulation(attended=True, attended_grace=GRACE, **given))


async def watch(world: World, *ids: int) -> None:
    async with world.sessions.begin() as session:
        assert await watch_leases.keep(session, "a graph process", ids, LEASE) == set(ids)


async def leave(world: World) -> None:
    await world.execute("UPDATE watchers SET watched_until = now()")


async def long_ago(world: World) -> None:
    """All that has happened so far was two graces ago, and graph processes have beaten all the while."""
    ago = "- interval '10 minutes'"
    await world.execute(f"UPDATE watchers SET watched_until = watched_until {ago}")
    await world.execute(f"UPDATE attempts SET assigned_at = assigned_at {ago}, started_at = started_at {ago}")
    await world.cover(leases=100)


async def test_an_attended_simulation_waits_for_a_subscriber(world: World, planner: Planner) -> None:
    await world.machine()
    simulation_id = await attended(world)

    assert (await planner.tick()).assigned == 0

    waits = await world.wait_of(simulation_id)
    assert (await world.state(simulation_id), waits.reason) == ("QUEUED", "UNATTENDED")
    assert waits.detail == "No client watches it: it starts when a client subscribes to its convergence."
    await watch(world, simulation_id)
    assert (await planner.plan()).assigned == 1
    assert (await world.state(simulation_id), await world.waiting(simulation_id)) == ("STARTING", None)


async def test_once_watched_it_waits_for_a_machine_like_any_other(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    await world.simulation()
    simulation_id = await attended(world)
    await planner.tick()
    assert await world.waiting(simulation_id) == "UNATTENDED"
    await watch(world, simulation_id)
    await planner.tick()
    assert await world.waiting(simulation_id) == "MACHINES_BUSY"
    await leave(world)
    await planner.tick()
    assert await world.waiting(simulation_id) == "UNATTENDED"


async def test_others_are_placed_past_an_unwatched_one(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    await attended(world, priority=9)
    other = await world.simulation()
    assert (await planner.tick()).assigned == 1
    assert await world.state(other) == "STARTING"


async def test_a_watcher_who_leaves_during_planning_prevents_the_assignment(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.machine()
    simulation_id = await attended(world)
    await watch(world, simulation_id)
    judged, loop = planner_module.plan, asyncio.get_running_loop()

    def plan(*arguments: Any, **named: Any) -> Any:
        answers = judged(*arguments, **named)
        asyncio.run_coroutine_threadsafe(leave(world), loop).result()
        return answers

    monkeypatch.setattr(planner_module, "plan", plan)
    summary = await planner.plan()
    assert (summary.assigned, summary.refused) == (0, 1)
    assert await world.state(simulation_id) == "QUEUED"


async def running(world: World, planner: Planner, **given: Any) -> int:
    """A running attended simulation with a watcher."""
    await world.machine()
    simulation_id = await attended(world, **given)
    await watch(world, simulation_id)
    await planner.tick()
    await world.hello(simulation_id)
    assert await world.state(simulation_id) == "RUNNING"
    return simulation_id


async def test_a_simulation_unwatched_for_its_grace_is_stopped_and_has_finished(world: World, planner: Planner) -> None:
    simulation_id = await running(world, planner)
    await leave(world)
    await planner.tick()
    assert await world.stop_of(simulation_id) is None
    await long_ago(world)

    await planner.tick()

    simulation = await world.get(simulation_id)
    stop = await world.stop_of(simulation_id)
    assert (simulation.state, stop.reason, stop.by) == ("RUNNING", "UNWATCHED", "scheduler")
    assert (await world.events_of(simulation_id))[-1].detail == {"reason": "UNWATCHED"}
    await world.silence(simulation_id, leases=3)
    assert (await planner.tick()).ended == 1, "its machine was lost, and it was to stop anyway"
    simulation = await world.get(simulation_id)
    assert (simulation.state, simulation.reason) == ("FINISHED", "UNWATCHED")


async def test_what_was_never_launched_is_over_at_once(world: World, planner: Planner) -> None:
    await world.machine()
    simulation_id = await attended(world)
    await watch(world, simulation_id)
    await planner.tick()
    await leave(world)
    await long_ago(world)
    await planner.tick()
    await planner.tick()
    simulation = await world.get(simulation_id)
    assert (simulation.state, simulation.reason) == ("FINISHED", "UNWATCHED")


async def test_a_watcher_who_returns_within_the_grace_has_missed_nothing(world: World, planner: Planner) -> None:
    simulation_id = await running(world, planner)
    await leave(world)
    await long_ago(world)
    await watch(world, simulation_id)
    await planner.tick()
    assert await world.stop_of(simulation_id) is None


async def test_while_no_graph_process_lives_nothing_is_stopped(world: World, planner: Planner) -> None:
    simulation_id = await running(world, planner)
    await long_ago(world)
    await world.execute("UPDATE coverage SET beat_at = now() - interval '10 minutes' WHERE role = 'graph'")
    await planner.tick()
    assert await world.stop_of(simulation_id) is None


async def test_what_runs_unattended_is_never_stopped_for_that(world: World, planner: Planner) -> None:
    await world.machine()
    simulation_id = await world.simulation()
    await planner.tick()
    await world.hello(simulation_id)
    await long_ago(world)
    await planner.tick()
    assert await world.stop_of(simulation_id) is None


async def test_a_retried_attempt_waits_for_a_subscriber_too(world: World, planner: Planner) -> None:
    simulation_id = await running(world, planner, max_retries=3)
    await leave(world)
    async with world.sessions.begin() as session:
        ending = Ending(Reason.MACHINE_LOST)
        assert await end(session, simulation_id, 1, ending, USER, retry_after=timedelta(0))
    await planner.tick()
    assert (await world.state(simulation_id), await world.waiting(simulation_id)) == ("QUEUED", "UNATTENDED")
    await watch(world, simulation_id)
    await planner.tick()
    assert (await world.attempt_of(simulation_id)).number == 2


async def test_leases_of_what_has_ended_are_forgotten(world: World, planner: Planner) -> None:
    simulation_id = await attended(world)
    await watch(world, simulation_id)
    await world.cancel(simulation_id)
    await planner.tick()
    async with world.sessions() as session:
        assert await watch_leases.watched_of(session, [simulation_id]) == frozenset()
