"""Machines and hosts: joined, declared, changed, drained, deleted; what is free on them, and whether they are there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from rows import assign_one
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import events, lifecycle, machines
from db.connection import driver_of
from db.errors import NotFound, Refusal, Taken, WrongState
from db.events import Actor
from db.machines import Declared, Described, Filter, HostState, Usage
from db.models import Machine
from db.states import MachineState, Reason
from transitions.assign import Assignment

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]
OWNER = Actor("owner", "192.0.2.7")
LEASE = timedelta(seconds=30)
EVERYTHING = Filter()
PART = Declared("part", None, 2.0, 8.0, 1, "H100", {"zone": "a"}, Decimal("1.25"))


async def host(rows: Rows, host_id: str = "here", *, gpus: int = 0, name: str | None = None) -> None:
    async with driver_of(rows.sessions) as driver:
        await machines.beat_host(driver, host_id, name=name or host_id, gpus=gpus)


async def declare(rows: Rows, wanted: Declared = PART, **changed: Any) -> Machine:
    async with rows.sessions.begin() as session:
        return await machines.declare(session, replace(wanted, **changed), OWNER)


async def change(rows: Rows, machine_id: int, **values: Any) -> Machine:
    async with rows.sessions.begin() as session:
        return await machines.change(session, machine_id, values, OWNER)


async def get(rows: Rows, machine_id: int) -> Machine:
    async with rows.sessions() as session:
        return await machines.get(session, machine_id)


async def kinds(rows: Rows, machine_id: int) -> list[str]:
    async with rows.sessions() as session:
        return [each.kind for each in await events.list_of(session, "Machine", machine_id)]


async def states(rows: Rows) -> dict[str, MachineState]:
    async with rows.sessions() as session:
        everyone = await machines.every(session)
        found = await machines.states_of(session, [each.id for each in everyone], LEASE)
        return {each.name: found[each.id] for each in everyone}


# --- joined ----------------------------------------------------------------------------------------------------


async def test_a_machine_joins_once_and_is_refreshed_from_then_on(rows: Rows) -> None:
    machine_id = await rows.machine("node", cpus=4.0)
    assert await rows.machine("node", cpus=8.0, labels={"zone": "b"}, price_per_hour=Decimal("3.5")) == machine_id
    machine = await get(rows, machine_id)
    assert (machine.cpus, machine.labels, machine.price_per_hour) == (8.0, {"zone": "b"}, Decimal("3.5"))
    assert not machine.declared
    assert await kinds(rows, machine_id) == ["JOINED"]


async def test_a_machine_that_joins_under_a_name_in_use_gets_its_key_behind_it(rows: Rows) -> None:
    first = await rows.machine("node", engine_key="0123456789abcdef")
    second = await rows.machine("node", engine_key="fedcba9876543210")
    assert first != second
    assert (await get(rows, second)).name == "node-fedcba98"
    assert await rows.machine("node", engine_key="fedcba9876543210") == second
    assert (await get(rows, second)).name == "node-fedcba98"


async def test_a_machine_is_online_for_a_lease_drains_and_goes_offline(rows: Rows) -> None:
    online, draining, silent, left = [await rows.machine(name) for name in ("online", "draining", "silent", "left")]
    async with rows.sessions.begin() as session:
        await machines.drain(session, draining, OWNER)
    await rows.query("UPDATE machines SET heartbeat_at = NULL WHERE id = :id", id=left)
    await rows.query("UPDATE machines SET heartbeat_at = now() - interval '31 s' WHERE id = :id", id=silent)
    await rows.query("UPDATE machines SET heartbeat_at = now() - interval '29 s' WHERE id = :id", id=online)
    assert await states(rows) == {
        "online": MachineState.ONLINE, "draining": MachineState.DRAINING, "silent": MachineState.OFFLINE,
        "left": MachineState.OFFLINE,
    }  # fmt: skip
    await rows.query("UPDATE machines SET heartbeat_at = NULL WHERE id = :id", id=draining)
    assert (await states(rows))["draining"] is MachineState.OFFLINE  # what is not there drains nothing
    await rows.machine("left")
    assert (await states(rows))["left"] is MachineState.ONLINE  # it came back
    async with rows.sessions() as session:
        assert await machines.states_of(session, [left + 100], LEASE) == {}


async def test_a_host_that_beats_keeps_its_machines_online(rows: Rows) -> None:
    await host(rows, "here")
    await host(rows, "there")
    await rows.machine("found", host="here")
    await declare(rows, host="here")
    await declare(rows, name="far", host="there")
    await rows.query("UPDATE machines SET heartbeat_at = now() - interval '1 day'")
    await rows.query("UPDATE hosts SET heartbeat_at = now() - interval '1 day'")
    async with rows.sessions() as session:
        assert await machines.live_hosts(session, LEASE) == set()
    await host(rows, "here")
    assert await states(rows) == {
        "found": MachineState.ONLINE, "part": MachineState.ONLINE, "far": MachineState.OFFLINE,
    }  # fmt: skip
    async with rows.sessions() as session:
        assert await machines.live_hosts(session, LEASE) == {"here"}


async def test_a_beat_withdraws_what_the_engine_no_longer_offers_and_returns_what_the_rows_hold(rows: Rows) -> None:
    found = await rows.machine("found", host="here", labels={"zone": "b"}, price_per_hour=Decimal("3.5"))
    await declare(rows, host="here")
    await rows.machine("far", host="there")
    simulation_id = await rows.simulation()

    async def beat(*withdrawn: str) -> HostState:
        async with driver_of(rows.sessions) as driver:
            return await machines.beat_host(driver, "here", name="here", gpus=0, withdrawn=withdrawn)

    described = {
        "key-of-found": Described(4.0, 16.0, 0, None, {"zone": "b"}, Decimal("3.5")),
        "declared:part": Described(2.0, 8.0, 1, "H100", {"zone": "a"}, Decimal("1.25")),
    }
    assert await beat() == HostState(described, has_members=False, has_launches=False)
    attempt_id = await rows.assign(simulation_id, found, host="here")
    assert await beat("key-of-found") == HostState(described, has_members=True, has_launches=True)
    assert (await states(rows))["found"] is MachineState.OFFLINE
    assert (await states(rows))["part"] is MachineState.ONLINE
    await rows.launch(attempt_id)
    assert await beat() == HostState(described, has_members=True, has_launches=False)
    assert (await states(rows))["found"] is MachineState.ONLINE
    await rows.end(simulation_id, 1)
    assert await beat() == HostState(described, has_members=False, has_launches=False)


# --- declared --------------------------------------------------------------------------------------------------


async def test_a_part_of_the_only_host_becomes_a_machine(rows: Rows) -> None:
    await host(rows)
    machine = await get(rows, (await declare(rows)).id)
    assert (machine.name, machine.host, machine.engine, machine.declared) == ("part", "here", "local", True)
    assert (machine.cpus, machine.memory_gib, machine.gpus, machine.gpu_model) == (2.0, 8.0, 1, "H100")
    assert (machine.labels, machine.price_per_hour) == ({"zone": "a"}, Decimal("1.25"))
    assert await states(rows) == {"part": MachineState.ONLINE}
    assert await kinds(rows, machine.id) == ["CREATED"]


async def test_without_a_host_there_is_nothing_to_make_a_machine_of(rows: Rows) -> None:
    with pytest.raises(Refusal, match="No scheduler has started") as caught:
        await declare(rows)
    assert caught.value.field == "host"


async def test_of_several_hosts_one_has_to_be_named(rows: Rows) -> None:
    await host(rows, "id-1", name="one")
    await host(rows, "id-2", name="two")
    with pytest.raises(Refusal, match=r"several hosts.*one") as caught:
        await declare(rows)
    assert caught.value.field == "host"
    with pytest.raises(NotFound, match="'three'"):
        await declare(rows, host="three")
    assert (await declare(rows, host="two")).host == "id-2"
    assert (await declare(rows, name="by id", host="id-1")).host == "id-1"


async def test_a_name_in_use_is_refused_and_the_rest_of_the_transaction_lives(rows: Rows) -> None:
    await host(rows)
    await declare(rows)
    async with rows.sessions.begin() as session:
        with pytest.raises(Taken, match="'part'") as caught:
            await machines.declare(session, PART, OWNER)
        assert caught.value.field == "name"
        await machines.declare(session, replace(PART, name="another"), OWNER)
    assert set(await states(rows)) == {"part", "another"}


# --- changed ---------------------------------------------------------------------------------------------------


async def test_a_declared_machine_is_changed_and_told_of_once(rows: Rows) -> None:
    await host(rows)
    machine_id = (await declare(rows)).id
    machine = await change(rows, machine_id, cpus=16.0, price_per_hour=Decimal("9.5"), name="renamed")
    assert (machine.cpus, machine.price_per_hour, machine.name) == (16.0, Decimal("9.5"), "renamed")
    await change(rows, machine_id, cpus=16.0)  # nothing new
    assert await kinds(rows, machine_id) == ["CREATED", "UPDATED"]
    assert (await get(rows, machine_id)).gpus == 1
    assert (await declare(rows)).id != machine_id  # the old name is free again, and so is its key


async def test_what_an_engine_found_is_the_engines_to_say_but_its_name_is_not(rows: Rows) -> None:
    machine_id = await rows.machine("node")
    for value in ({"cpus": 1.0}, {"price_per_hour": Decimal(1)}, {"labels": {}}, {"gpus": 1}):
        with pytest.raises(WrongState, match="found by the engine local"):
            await change(rows, machine_id, **value)
    assert (await change(rows, machine_id, name="Fridolin")).name == "Fridolin"
    assert await rows.machine("node") == machine_id  # found again by its key
    assert (await get(rows, machine_id)).name == "Fridolin"


async def test_a_change_to_a_name_in_use_is_refused_and_changes_nothing(rows: Rows) -> None:
    await host(rows)
    first, second = await declare(rows), await declare(rows, name="second")
    with pytest.raises(Taken) as caught:
        await change(rows, second.id, name=first.name, cpus=99.0)
    assert caught.value.field == "name"
    unchanged = await get(rows, second.id)
    assert (unchanged.name, unchanged.cpus) == ("second", 2.0)


async def test_drain_and_resume_are_told_of_when_they_change_something(rows: Rows) -> None:
    machine_id = await rows.machine()
    for verb in (machines.drain, machines.drain, machines.resume, machines.resume):
        async with rows.sessions.begin() as session:
            machine = await verb(session, machine_id, OWNER)
        assert machine.draining == (verb is machines.drain)
    assert await kinds(rows, machine_id) == ["JOINED", "DRAINED", "RESUMED"]


async def test_what_is_not_there_can_be_neither_changed_nor_deleted(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        for verb in (machines.drain, machines.resume, machines.delete_idle):
            with pytest.raises(NotFound):
                await verb(session, 999, OWNER)
        with pytest.raises(NotFound):
            await machines.change(session, 999, {"name": "x"}, OWNER)


async def test_an_attempt_is_billed_by_what_its_machine_was_at_assignment(rows: Rows) -> None:
    await host(rows)
    machine = await declare(rows, price_per_hour=Decimal("1.5"))
    started = await rows.start(machine_id=machine.id)
    await change(rows, machine.id, price_per_hour=Decimal(99), name="dearer")
    [member] = (await rows.snapshot(started.simulation_id))["members"]
    assert (member["price_per_hour"], member["machine_name"]) == (Decimal("1.5"), "part")


# --- deleted ---------------------------------------------------------------------------------------------------


async def delete(sessions: Sessions, machine_id: int) -> None:
    async with sessions.begin() as session:
        await machines.delete_idle(session, machine_id, OWNER)


async def test_a_machine_with_work_on_it_is_not_deleted(rows: Rows) -> None:
    machine_id = await rows.machine("busy")
    started = await rows.start(machine_id=machine_id)
    with pytest.raises(WrongState, match=r"1 simulation\(s\) are on busy"):
        await delete(rows.sessions, machine_id)
    await rows.end(started.simulation_id, 1)
    await delete(rows.sessions, machine_id)
    assert await states(rows) == {}
    assert await kinds(rows, machine_id) == ["JOINED", "DELETED"]


async def test_what_ran_on_a_deleted_machine_keeps_its_name(rows: Rows) -> None:
    machine_id = await rows.machine("gone")
    started = await rows.start(machine_id=machine_id)
    await rows.end(started.simulation_id, 1)
    waiting = await rows.simulation(machine_id=machine_id, machine_name="gone")
    await delete(rows.sessions, machine_id)
    [member] = (await rows.snapshot(started.simulation_id))["members"]
    assert (member["machine_id"], member["machine_name"]) == (None, "gone")
    simulation = await rows.get(waiting)
    assert (simulation.machine_id, simulation.machine_name) == (None, "gone")


async def test_a_machine_that_is_deleted_while_work_is_assigned_to_it_never_gets_it(
    rows: Rows, other_sessions: Sessions
) -> None:
    async def try_to_assign(simulation_id: int, machine_id: int) -> bool:
        """As the planner does: the simulation's lock, the machine's, and a look."""
        async with other_sessions.begin() as session:
            await lifecycle.lock(session, simulation_id)
            locked = await machines.lock_with_neighbours(session, [machine_id])
            if not locked:
                return False
            [machine] = locked
            assignment = Assignment(machine.id, machine.name, None, (), Decimal(0), Decimal(1), "USD", 1.0, 0.0, 0)
            return await assign_one(session, simulation_id, 0, assignment, OWNER) is not None

    async def try_to_delete(machine_id: int) -> bool:
        try:
            await delete(rows.sessions, machine_id)
        except WrongState:
            return False
        return True

    for _ in range(10):
        machine_id = await rows.machine()
        simulation_id = await rows.simulation(machine_id=machine_id)  # it asks for this very machine
        assigned, deleted = await asyncio.gather(try_to_assign(simulation_id, machine_id), try_to_delete(machine_id))
        assert assigned != deleted


async def test_a_machine_with_waiting_simulations_is_deleted_without_a_deadlock(
    rows: Rows, other_sessions: Sessions
) -> None:
    machine_id = await rows.machine()
    simulation_id = await rows.simulation(machine_id=machine_id)
    async with other_sessions.begin() as planner, rows.sessions() as deletion:
        await lifecycle.lock(planner, simulation_id)
        pid = await rows.pid(deletion)
        deleting = asyncio.create_task(machines.delete_idle(deletion, machine_id, OWNER))
        await rows.until_blocked(pid)  # by the simulation, whose column it is about to clear
        assert await machines.lock_with_neighbours(planner, [machine_id])
        await planner.commit()
        await deleting
        await deletion.commit()
    assert (await rows.get(simulation_id)).machine_id is None


# --- reading ---------------------------------------------------------------------------------------------------


async def listed(rows: Rows, wanted: Filter = EVERYTHING, *, descending: bool = False) -> list[str]:
    async with rows.sessions() as session:
        shown = await machines.page_matching(session, wanted, LEASE, descending=descending, first=10, after=None)
        return [each.name for each in shown.rows]


async def test_machines_are_listed_by_name_and_by_every_filter(rows: Rows) -> None:
    await rows.machine("b-online")
    await rows.machine("a-offline")
    draining = await rows.machine("c_draining", engine="ray")
    await rows.query("UPDATE machines SET heartbeat_at = NULL WHERE name = 'a-offline'")
    async with rows.sessions.begin() as session:
        await machines.drain(session, draining, OWNER)
    assert await listed(rows) == ["a-offline", "b-online", "c_draining"]
    assert await listed(rows, descending=True) == ["c_draining", "b-online", "a-offline"]
    assert await listed(rows, Filter(states=(MachineState.ONLINE,))) == ["b-online"]
    assert await listed(rows, Filter(states=(MachineState.OFFLINE, MachineState.DRAINING))) == [
        "a-offline", "c_draining",
    ]  # fmt: skip
    assert await listed(rows, Filter(states=())) == []
    assert await listed(rows, Filter(engine="ray")) == ["c_draining"]
    assert await listed(rows, Filter(name_contains="LINE")) == ["a-offline", "b-online"]
    assert await listed(rows, Filter(name_contains="_")) == ["c_draining"]


async def test_what_is_held_on_a_machine_is_what_its_open_attempts_asked_for(rows: Rows) -> None:
    machine_id, idle = await rows.machine(), await rows.machine()
    first = await rows.simulation(cpus=1.5, memory_gib=4.0, gpus=1)
    second = await rows.simulation(cpus=0.5, memory_gib=2.0)
    over = await rows.simulation(cpus=100.0)
    for each in (first, second, over):
        await rows.assign(each, machine_id)
    await rows.end(over, 1)
    async with rows.sessions() as session:
        assert await machines.usage(session, [machine_id, idle]) == {machine_id: Usage(2.0, 6.0, 1, (first, second))}
        assert await machines.usage(session, []) == {}


async def test_gpu_indices_are_free_until_an_open_attempt_of_the_host_holds_them(rows: Rows) -> None:
    await host(rows, "here", gpus=4)
    await host(rows, "there", gpus=1)
    machine_id = await rows.machine(host="here", gpus=4)
    part = await declare(rows, host="here", gpus=2)
    holders = [await rows.simulation() for _ in range(3)]
    await rows.assign(holders[0], machine_id, host="here", gpus=(0, 2))
    await rows.assign(holders[1], part.id, host="here", gpus=(3,))
    await rows.assign(holders[2], machine_id, host="here", gpus=(1,))
    await rows.end(holders[2], 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    async with rows.sessions() as session:
        free = await machines.free_gpu_indices(session, ["here", "there", "nowhere"])
    assert free == {"here": (1,), "there": (0,)}


async def test_declared_gpus_are_believed_where_the_host_found_fewer(rows: Rows) -> None:
    await host(rows, gpus=0)
    await declare(rows, gpus=2)
    await declare(rows, name="another", gpus=1)
    async with rows.sessions() as session:
        assert await machines.free_gpu_indices(session, ["here"]) == {"here": (0, 1, 2)}


async def test_a_simulation_is_on_the_machine_of_its_newest_attempt(rows: Rows) -> None:
    first, second = await rows.machine(), await rows.machine()
    started = await rows.start(machine_id=first)
    never = await rows.simulation()
    async with rows.sessions() as session:
        ids = [started.simulation_id, never]
        assert await machines.of_simulations(session, ids) == {started.simulation_id: first}
    await rows.end(started.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    await rows.start(started.simulation_id, machine_id=second)
    async with rows.sessions() as session:
        assert await machines.of_simulations(session, ids) == {started.simulation_id: second}


async def test_neighbours_are_locked_together_so_that_two_who_want_them_never_deadlock(
    rows: Rows, other_sessions: Sessions
) -> None:
    await host(rows, gpus=2)
    ids = [(await declare(rows, name=f"part {number}")).id for number in range(4)]
    alone = await rows.machine("alone")

    async def take(sessions: Sessions, machine_id: int) -> int | None:
        async with sessions.begin() as session:
            locked = await machines.lock_with_neighbours(session, [machine_id])
            return locked[0].id if locked else None

    wanted = [*ids, *ids[::-1]]
    got = await asyncio.gather(*[
        take(sessions, each) for each in wanted for sessions in (rows.sessions, other_sessions)
    ])  # fmt: skip
    assert got == [each for each in wanted for _ in range(2)]
    assert await take(rows.sessions, alone) == alone
    assert await take(rows.sessions, 999) is None

    async with rows.sessions.begin() as session:
        await machines.lock_with_neighbours(session, [ids[0]])
        async with other_sessions.begin() as other:
            pid = await rows.pid(other)
            waiting = asyncio.create_task(machines.lock_with_neighbours(other, [ids[-1]]))
            await rows.until_blocked(pid)
            await session.rollback()
            assert await waiting
