"""The loop of a cluster: its nodes as machines, outages of its engine, and which scheduler looks after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from live import eventually
from structlog.testing import capture_logs

from db import budgets, machines, public_ids
from db.events import Actor
from db.leader import LEADER_LOCK, lock_of_engine
from db.states import Reason
from policy.budget import Period
from runner.base import DiscoveredMachine, EngineUnavailable, Liveness, MachineGone, StartingEngine
from scheduler import host
from scheduler.cluster import END_AGAIN_SECONDS, STARTING, SUCCESSION_SECONDS, ClusterLoop
from scheduler.leader import leadership
from scheduler.planner import Planner
from transitions.settle import Ending
from transitions.settle import end as settle_end

World = Any  # the fixtures of conftest.py
Scripted = Any
USER = Actor("user")
BIG = DiscoveredMachine("big", "gpu-big", None, 16.0, 64.0, 0, None, {"zone": "b"}, Decimal(8), most=4)
NODE = DiscoveredMachine("node-1", "gpu-one", None, 4.0, 16.0, 0, None, {"zone": "a"}, Decimal(3))


@pytest.fixture
def cluster(scripted: Scripted) -> Scripted:
    """An engine of a cluster with one node: `nodes` is what it discovers, or the outage that it raises."""
    scripted.name = "ray:gpu"
    scripted.nodes = [NODE]

    async def discover() -> Sequence[DiscoveredMachine]:
        if isinstance(scripted.nodes, Exception):
            raise scripted.nodes
        return list(scripted.nodes)

    scripted.discover = discover
    return scripted


@pytest.fixture
def loop(world: World, cluster: Scripted) -> ClusterLoop:
    engine: StartingEngine = cluster
    return ClusterLoop(world.sessions, world.settings, engine)


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


async def _running(world: World, loop: ClusterLoop, planner: Planner, **given: Any) -> int:
    await loop.run_once()
    simulation_id: int = await world.simulation(**given)
    await planner.plan()
    await loop.launch_assigned()
    await world.hello(simulation_id)
    return simulation_id


async def _member(world: World, simulation_id: int) -> str:
    return public_ids.encode("Attempt", (await world.attempt_of(simulation_id)).id)


# --- nodes -----------------------------------------------------------------------------------------------------------


async def test_every_node_is_a_machine_without_a_host_and_with_its_own_price(world: World, loop: ClusterLoop) -> None:
    await loop.run_once()
    await loop.run_once()
    async with world.sessions() as session:
        [machine] = await machines.every(session)
    assert (machine.engine, machine.engine_key, machine.name, machine.host) == ("ray:gpu", "node-1", "gpu-one", None)
    assert (machine.cpus, machine.labels, machine.price_per_hour) == (4.0, {"zone": "a"}, Decimal(3))
    assert await world.machine_states() == {"gpu-one": "ONLINE"}


async def test_a_node_that_changed_is_changed(world: World, loop: ClusterLoop, cluster: Scripted) -> None:
    await loop.run_once()
    cluster.nodes = [replace(NODE, cpus=8.0, price_per_hour=Decimal(5))]
    await loop.run_once()
    async with world.sessions() as session:
        [machine] = await machines.every(session)
    assert (machine.cpus, machine.price_per_hour) == (8.0, Decimal(5))


async def test_a_vanished_node_is_offline_at_once_and_others_are_not_touched(
    world: World, loop: ClusterLoop, cluster: Scripted
) -> None:
    await world.machine("local")
    cluster.nodes = [NODE, replace(NODE, key="node-2", name="gpu-two")]
    await loop.run_once()
    cluster.nodes = cluster.nodes[1:]
    await loop.run_once()
    assert await world.machine_states() == {"gpu-one": "OFFLINE", "gpu-two": "ONLINE", "local": "ONLINE"}


async def test_a_node_of_the_same_name_is_the_same_machine_once_nothing_is_left_on_the_one_before(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    simulation_id = await _running(world, loop, planner)
    cluster.nodes = [replace(NODE, key="node-2")]
    await loop.run_once()
    assert await world.machine_states() == {"gpu-one": "OFFLINE"}  # what ran on the one before may still run

    await world.cover(3)
    await world.silence(simulation_id)
    await planner.tick()
    await loop.run_once()
    assert await world.machine_states() == {"gpu-one": "ONLINE"}
    async with world.sessions() as session:
        [machine] = await machines.every(session)
    assert machine.engine_key == "node-2"


async def test_a_node_that_joins_before_the_one_before_it_is_found_dead_is_the_same_machine(
    world: World, loop: ClusterLoop, cluster: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("scheduler.cluster.monotonic", lambda: now[0])
    await loop.run_once()
    restarted = replace(NODE, key="node-2222222")
    cluster.nodes = [NODE, restarted]
    for _ in range(3):
        await loop.run_once()
        now[0] += SUCCESSION_SECONDS / 4
    assert await world.machine_states() == {"gpu-one": "ONLINE"}
    cluster.nodes = [restarted]
    await loop.run_once()
    await loop.run_once()
    assert await world.machine_states() == {"gpu-one": "ONLINE"}
    async with world.sessions() as session:
        [machine] = await machines.every(session)
    assert machine.engine_key == "node-2222222"


async def test_two_living_nodes_of_one_name_are_two_machines(
    world: World, loop: ClusterLoop, cluster: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("scheduler.cluster.monotonic", lambda: now[0])
    cluster.nodes = [NODE, replace(NODE, key="node-2222222")]
    await loop.run_once()
    now[0] += SUCCESSION_SECONDS
    await loop.run_once()
    assert await world.machine_states() == {"gpu-one": "ONLINE", "gpu-one-node-222": "ONLINE"}


# --- launching -------------------------------------------------------------------------------------------------------


async def test_a_launch_names_the_node_and_carries_the_grant(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    await _running(world, loop, planner, cpus=1.5, memory_gib=2.0)
    [launch] = cluster.launches
    assert (launch.machine_key, launch.cpus, launch.memory_gib, launch.gpus) == ("node-1", 1.5, 2.0, 0)


async def test_members_of_other_engines_are_left_alone(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    await world.machine("local")
    simulation_id = await world.simulation()
    await planner.plan()
    await loop.run_once()
    assert (await world.attempt_of(simulation_id)).machine_name == "local"
    assert cluster.launches == []


async def test_a_node_that_left_before_the_launch_is_a_lost_machine(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    await loop.run_once()
    simulation_id = await world.simulation(max_retries=1)
    await planner.plan()
    cluster.failure = MachineGone("The node has left the cluster gpu.")
    await loop.launch_assigned()
    attempt = await world.attempt_of(simulation_id)
    assert (attempt.reason, attempt.reason_detail) == ("MACHINE_LOST", "The node has left the cluster gpu.")
    assert await world.state(simulation_id) == "QUEUED"


async def test_a_job_that_waits_for_its_node_is_not_silent_for_a_minute(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    await world.cover(10)
    await loop.run_once()
    simulation_id = await world.simulation()
    await planner.plan()
    await loop.launch_assigned()
    await world.silence(simulation_id)
    await loop.run_once()
    assert cluster.ended == []
    assert (await planner.tick()).ended == 0

    await world.execute("UPDATE members SET launched_at = now() - CAST(:ago AS interval)", ago=STARTING)
    await world.silence(simulation_id)
    await loop.run_once()
    assert cluster.ended == [await _member(world, simulation_id)]


async def test_a_job_that_waits_for_packages_or_behind_others_is_not_silent_for_as_long_as_that_takes(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    await world.cover(10)
    await loop.run_once()
    simulation_id = await world.simulation()
    await planner.plan()
    await loop.launch_assigned()
    member = await _member(world, simulation_id)
    cluster.starting.add(member)
    await world.execute("UPDATE members SET launched_at = now() - CAST(:ago AS interval)", ago=5 * STARTING)
    await world.silence(simulation_id)
    await loop.run_once()
    assert cluster.ended == []
    assert (await planner.tick()).ended == 0

    cluster.starting.clear()
    await world.silence(simulation_id)
    await loop.run_once()
    assert cluster.ended == [member]


async def test_a_slow_cluster_gets_the_rest_in_the_next_rounds_and_none_of_them_is_silent_until_then(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.cover(2.2)
    await loop.run_once()
    waiting = [await world.simulation(cpus=0.1) for _ in range(20)]
    await planner.plan()
    for each in waiting:
        await world.silence(each, 2.1)
    monkeypatch.setattr(host, "monotonic", count(0.0, 10.0).__next__)  # ten seconds between two looks at the clock
    for launched in (8, 8, 4):
        assert (await loop.run_once()).launched == launched
        assert (await planner.tick()).ended == 0
    assert cluster.groups == [8, 8, 4]


async def test_packages_that_can_not_be_installed_end_the_attempt_with_the_reason(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    await loop.run_once()
    simulation_id = await world.simulation(max_retries=1)
    await planner.plan()
    await loop.launch_assigned()
    member = await _member(world, simulation_id)
    cluster.liveness[member] = Liveness.DEAD
    cluster.not_built[member] = "Ray could not build its runtime environment: No matching distribution found."
    await loop.run_once()
    attempt = await world.attempt_of(simulation_id)
    assert (attempt.reason, attempt.reason_detail) == ("LAUNCH_ERROR", cluster.not_built[member])
    assert await world.state(simulation_id) == "FAILED"


async def test_a_job_that_can_not_be_ended_is_asked_once_in_a_while(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("scheduler.cluster.monotonic", lambda: now[0])
    asked: list[str] = []

    async def end(member_id: str) -> None:
        asked.append(member_id)
        raise TimeoutError("is still PENDING")

    cluster.end = end
    simulation_id = await _running(world, loop, planner)
    async with world.sessions.begin() as session:
        assert await settle_end(session, simulation_id, 1, Ending(Reason.MACHINE_LOST), USER)
    for _ in range(3):
        await loop.run_once()
    assert len(asked) == 1
    now[0] += END_AGAIN_SECONDS
    await loop.run_once()
    assert len(asked) == 2


# --- machines that are started ---------------------------------------------------------------------------------------


async def test_what_fits_only_a_machine_that_can_be_started_makes_the_engine_start_it(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    cluster.nodes = [NODE, BIG]
    await loop.run_once()
    assert await world.machine_states() == {"gpu-one": "ONLINE", "gpu-big": "OFFLINE"}
    small, *large = [await world.simulation(cpus=cpus) for cpus in (1.0, 8.0, 8.0, 16.0)]
    await planner.plan()
    assert await world.state(small) == "STARTING"
    wait = await world.wait_of(large[0])
    assert (wait.reason, wait.detail) == (
        "MACHINE_STARTING",
        "No machine that runs meets its requirements: the cluster starts one like gpu-big, for 8.00 USD an hour.",
    )
    await loop.run_once()
    assert cluster.wanted[-1] == {"big": 2}, "two share one"

    # Once there is one, it takes what fits, and no more are started than what still waits needs.
    cluster.nodes = [NODE, BIG, replace(BIG, key="node-2", name="gpu-two", most=0)]
    await loop.run_once()
    await planner.plan()
    assert [await world.state(each) for each in large] == ["STARTING", "STARTING", "QUEUED"]
    assert await world.waiting(large[2]) == "MACHINES_BUSY"
    await loop.run_once()
    assert cluster.wanted[-1] == {}


async def test_no_machine_is_started_that_a_budget_or_a_limit_does_not_pay_for(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    cluster.nodes = [BIG]
    await loop.run_once()
    limited = await world.simulation(cpus=16.0, max_price_per_hour=Decimal(7))
    await planner.plan()
    wait = await world.wait_of(limited)
    assert (wait.reason, "costs 8.00 USD an hour" in wait.detail) == ("NO_MACHINE_FITS", True), wait

    unpaid = await world.simulation(cpus=16.0)
    async with world.sessions.begin() as session:
        wanted = budgets.Wanted(None, Period.MONTH, Decimal("0.000001"), world.settings.currency)
        await budgets.create(session, wanted, USER)
    await planner.tick()
    assert await world.waiting(unpaid) == "BUDGET_EXHAUSTED"
    await loop.run_once()
    assert cluster.wanted[-1] == {}


async def test_no_machine_is_started_for_what_is_drained_paused_cancelled_or_not_offered_any_more(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    cluster.nodes = [BIG]
    await loop.run_once()
    simulation_id = await world.simulation(cpus=16.0)
    await planner.plan()
    await loop.run_once()
    assert cluster.wanted[-1] == {"big": 1}
    async with world.sessions.begin() as session:
        [row] = await machines.every(session)
        await machines.drain(session, row.id, USER)
    await loop.run_once()
    await planner.tick()
    assert cluster.wanted[-1] == {}
    assert await world.waiting(simulation_id) == "NO_MACHINE_FITS"
    async with world.sessions.begin() as session:
        await machines.resume(session, row.id, USER)
    await planner.tick()
    await loop.run_once()
    assert cluster.wanted[-1] == {"big": 1}
    await world.cancel(simulation_id)
    await loop.run_once()
    assert cluster.wanted[-1] == {}

    cluster.nodes = []
    await loop.run_once()
    assert await world.machine_states() == {}


async def test_a_gang_starts_as_many_machines_as_it_has_members(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    cluster.nodes = [BIG, replace(BIG, key="node-2", name="gpu-two", most=0)]
    await loop.run_once()
    simulation_id = await world.simulation(cpus=8.0, machines=3)
    await planner.plan()
    assert await world.waiting(simulation_id) == "MACHINE_STARTING"
    await loop.run_once()
    assert cluster.wanted[-1] == {"big": 3}, "that there is one already, the engine takes into account"


# --- losses ----------------------------------------------------------------------------------------------------------


async def test_a_silent_member_has_two_leases_on_a_living_node_and_one_on_a_vanished_one(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    simulation_id = await _running(world, loop, planner)
    cluster.liveness[await _member(world, simulation_id)] = Liveness.UNKNOWN
    await world.cover(3)
    await world.silence(simulation_id, 1.1)
    assert (await planner.tick()).ended == 0
    cluster.nodes = []
    await loop.run_once()
    await world.silence(simulation_id, 1.1)
    assert (await planner.tick()).ended == 1


async def test_an_unknown_member_that_reports_is_left_alone(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    simulation_id = await _running(world, loop, planner)
    cluster.liveness[await _member(world, simulation_id)] = Liveness.UNKNOWN
    await world.cover(10)
    await loop.run_once()
    assert (await planner.tick()).ended == 0
    assert (await world.state(simulation_id), cluster.ended) == ("RUNNING", [])


async def test_an_outage_ends_no_member_and_is_logged_once(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    simulation_id = await _running(world, loop, planner)
    cluster.nodes = EngineUnavailable("The Ray cluster gpu can't be reached.")
    with capture_logs() as logs:
        for _ in range(3):
            await loop.run_once()
        cluster.nodes = [NODE]
        await loop.run_once()
    told = [each["event"] for each in logs if each["event"].startswith("engine_")]
    assert told == ["engine_away", "engine_answers_again"]
    assert await world.state(simulation_id) == "RUNNING"


async def test_a_launch_into_an_outage_is_tried_again(
    world: World, loop: ClusterLoop, cluster: Scripted, planner: Planner
) -> None:
    await loop.run_once()
    simulation_id = await world.simulation()
    await planner.plan()
    cluster.failure = EngineUnavailable("The Ray cluster gpu can't be reached.")
    await loop.launch_assigned()
    assert (await world.state(simulation_id), len(cluster.launches)) == ("STARTING", 1)
    cluster.failure = None
    assert (await loop.run_once()).launched == 1
    first, second = cluster.launches
    assert first.member_id == second.member_id
    assert first.token != second.token
    await world.hello(simulation_id)
    assert await world.state(simulation_id) == "RUNNING"


# --- who looks after it ----------------------------------------------------------------------------------------------


async def test_one_scheduler_looks_after_a_cluster_and_another_takes_over(database_url: str) -> None:
    async with leadership(database_url, engine="ray:gpu") as second:
        async with leadership(database_url, engine="ray:gpu") as first:
            assert (await first.hold(), await second.hold()) == (True, False)
        await eventually(second.hold, "the other one takes over")  # once PostgreSQL has noticed


async def test_each_cluster_has_a_lock_of_its_own_beside_the_leaders(database_url: str) -> None:
    async with (
        leadership(database_url) as leader,
        leadership(database_url, engine="ray:gpu") as one,
        leadership(database_url, engine="ray:cpu") as other,
    ):
        assert [await each.hold() for each in (leader, one, other)] == [True, True, True]
    assert len({LEADER_LOCK, lock_of_engine("ray:gpu"), lock_of_engine("ray:cpu")}) == 3
