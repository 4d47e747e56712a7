"""simulationChanged and machineChanged: the newest state of what changes, from now on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from db import machines, queue
from db.events import Actor
from db.notifications import Channel
from db.public_ids import encode

World = Any  # the fixtures of conftest.py
Api = Any
Serve = Any
WaitUntil = Any

SIMULATIONS = """
subscription Changed($id: ID, $project: ID) {
  simulationChanged(id: $id, project: $project) {
    id name state stopWanted { reason } machine { name } waiting { reason }
  }
}
"""
MACHINES = "subscription Changed($id: ID) { machineChanged(id: $id) { id name state labels free { cpus } } }"
ADA = Actor("ada")


@pytest.fixture
def watch(world: World, wait_until: WaitUntil) -> Any:
    """Subscribe, and go on when the server watches: from now on is from then on."""

    async def listens(api: Api) -> None:
        # A process that begins to listen looks at everything once: not in the midst of a test.
        with api.hub.changes(Channel.SIMULATIONS) as heard:
            while not heard.stirred.is_set():
                await world.select("SELECT pg_notify('simulations', '0')")

    @asynccontextmanager
    async def watching(api: Api, query: str, variables: Any = None) -> Any:
        if api.settings.notifications:
            async with asyncio.timeout(60):
                await listens(api)
        watchers = api.hub._watchers[Channel.SIMULATIONS if query is SIMULATIONS else Channel.MACHINES]
        already = len(watchers)
        async with api.subscribe(query, variables) as changes:
            await wait_until(lambda: len(watchers) > already, "the server watches")
            yield changes
        await wait_until(lambda: len(watchers) == already, "the server forgets who has left")

    return watching


async def test_a_simulation_is_shown_at_each_change_of_its_state(only_hints: None, world: World, watch: Any) -> None:
    async with watch(world.api, SIMULATIONS) as changes:
        simulation = await world.simulation(name="a name")
        shown = await changes.next()
        assert (shown["id"], shown["name"], shown["state"]) == (simulation, "a name", "QUEUED")
        supervisor = await world.attempt(simulation)
        shown = await changes.next()
        assert (shown["state"], shown["machine"]) == ("STARTING", {"name": "own-1"})
        await supervisor.hello()
        assert (await changes.next())["state"] == "RUNNING"
        await world.cancel(simulation)
        assert (await changes.next())["stopWanted"] == {"reason": "CANCELLED"}
        await supervisor.loss(1)  # not a change
        await supervisor.exit()
        assert (await changes.next())["state"] == "FINISHED"


async def test_one_simulation_or_one_project_is_watched(only_hints: None, world: World, watch: Any) -> None:
    await world.simulation(name="first", project="vision")
    listed = await world.api.data("{ projects { nodes { id name } } }")
    projects = {node["name"]: node["id"] for node in listed["nodes"]}
    mine = await world.simulation(name="mine")
    async with (
        watch(world.api, SIMULATIONS, {"id": mine}) as by_id,
        watch(world.api, SIMULATIONS, {"project": projects["vision"]}) as by_project,
    ):
        await world.simulation(name="elsewhere")
        await world.simulation(name="second", project="vision")
        await world.cancel(mine)
        shown = await by_id.next()
        assert (shown["name"], shown["state"]) == ("mine", "CANCELLED")
        assert (await by_project.next())["name"] == "second"


async def test_a_hint_without_a_change_shows_nothing(only_hints: None, world: World, watch: Any) -> None:
    simulation = await world.simulation()
    async with watch(world.api, SIMULATIONS) as changes:
        for _ in range(3):
            await world.select("SELECT pg_notify('simulations', '1')")
        assert (await changes.next())["state"] == "QUEUED"
        await world.select("SELECT pg_notify('simulations', '*')")
        await world.select("SELECT pg_notify('simulations', 'nonsense')")
        await world.cancel(simulation)
        assert (await changes.next())["state"] == "CANCELLED"


async def test_a_waiting_reason_is_a_change(only_hints: None, world: World, watch: Any) -> None:
    await world.simulation()
    async with watch(world.api, SIMULATIONS) as changes:
        async with world.sessions.begin() as session:
            [queue_class] = {each.queue_class for each in (await queue.look(session, None)).arrived}
            await queue.note_reasons(session, [(queue_class, "MACHINES_BUSY", "All is held.")], new=[queue_class])
        assert (await changes.next())["waiting"] == {"reason": "MACHINES_BUSY"}


async def test_a_backoff_is_one_change_however_often_it_is_looked_at(
    only_hints: None, world: World, watch: Any
) -> None:
    simulation = await world.simulation(limits={"maxRetries": 1, "retryOn": ["EXIT_CODE"]})
    supervisor = await world.attempt(simulation)
    await supervisor.hello()
    async with watch(world.api, SIMULATIONS) as changes:
        await supervisor.exit(3)
        shown = await changes.next()
        assert (shown["state"], shown["waiting"]) == ("QUEUED", {"reason": "BACKOFF"})
        for _ in range(3):
            await world.select("SELECT pg_notify('simulations', '1')")
        await world.cancel(simulation)
        assert (await changes.next())["state"] == "CANCELLED"


async def test_a_machine_is_shown_when_it_changes(only_hints: None, world: World, watch: Any) -> None:
    first = await world.machine("m1")
    await world.host()
    async with (
        watch(world.api, MACHINES) as every,
        watch(world.api, MACHINES, {"id": encode("Machine", first)}) as one,
    ):
        second = await world.machine("m2")
        assert (await every.next())["name"] == "m2"
        async with world.sessions.begin() as session:
            await machines.drain(session, second, ADA)
        assert (await every.next())["state"] == "DRAINING"
        async with world.sessions.begin() as session:
            await machines.drain(session, first, ADA)
        for changes in (every, one):
            shown = await changes.next()
            assert (shown["id"], shown["name"], shown["state"]) == (encode("Machine", first), "m1", "DRAINING")
        part = machines.Declared("part", None, 1.0, 1.0, 0, None, {}, Decimal(0))
        async with world.sessions.begin() as session:
            declared = (await machines.declare(session, part, ADA)).id
        assert (await every.next())["labels"] == {}
        async with world.sessions.begin() as session:
            await machines.change(session, declared, {"labels": {"zone": "a"}}, ADA)
        assert (await every.next())["labels"] == {"zone": "a"}


async def test_what_changed_through_another_process_is_shown_too(
    only_hints: None, world: World, serve: Serve, watch: Any
) -> None:
    other = await serve()
    simulation = await world.simulation()
    async with watch(other, SIMULATIONS) as changes:
        await world.cancel(simulation)
        assert (await changes.next())["state"] == "CANCELLED"


async def test_without_notifications_changes_are_found_by_timer(
    world: World, serve: Serve, watch: Any, only_timers: None
) -> None:
    api = await serve(notifications=False)
    async with watch(api, SIMULATIONS) as changes, watch(api, MACHINES) as machines_changed:
        simulation = await world.simulation()
        assert (await changes.next())["state"] == "QUEUED"
        await world.attempt(simulation)
        assert (await changes.next())["state"] == "STARTING"
        assert (await machines_changed.next())["name"] == "own-1"


async def test_ids_of_another_type_are_refused(world: World, subtests: pytest.Subtests) -> None:
    for query, given in (
        (SIMULATIONS, {"id": encode("Machine", 1)}),
        (SIMULATIONS, {"project": encode("Simulation", 1)}),
        (SIMULATIONS, {"id": "nonsense"}),
        (MACHINES, {"id": encode("Simulation", 1)}),
    ):
        with subtests.test(str(given)), pytest.raises(Exception, match="BAD_USER_INPUT"):
            await anext(world.api.subscribe_directly(query, given))
