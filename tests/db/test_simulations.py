"""Simulations: asked for once or under a key, found, cancelled, repeated, deleted, queued."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm.exc import DetachedInstanceError

from db import convergence, events, listing, logs, machines, projects, simulations
from db.convergence import Column
from db.errors import NotFound, Taken, WrongState
from db.events import Actor
from db.listing import Filter, SortOrder
from db.logs import Chunk
from db.simulations import Command
from db.states import LogStream, Reason, SimulationState
from transitions.cancel import cancel as cancel_simulation
from transitions.submit import repeat

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]
USER = Actor("user", "192.0.2.1")
OTHER = Actor("other")


async def kinds(rows: Rows, simulation_id: int) -> list[str]:
    async with rows.sessions() as session:
        return [each.kind for each in await events.list_of(session, "Simulation", simulation_id)]


# --- asked for -------------------------------------------------------------------------------------------------


async def test_what_is_asked_for_is_what_is_stored(rows: Rows) -> None:
    machine_id = await rows.machine("big")
    wanted = await rows.wanted(
        name="ResNet 日本",
        entrypoint=("python", "train.py", "--lr", "0.1"), parameters={"lr": 0.1, "deep": {"a": [1]}},
        environment={"A": "b"}, working_directory="/srv/work", tags=("one", "two"), cpus=2.5, memory_gib=0.5, gpus=2,
        gpu_model="H100", labels={"zone": "a"}, machine_id=machine_id, machine_name="big",
        max_price_per_hour=Decimal("12.345678"), priority=-7, max_runtime=timedelta(hours=30, microseconds=1),
        max_retries=2, retry_on=("EXIT_CODE", "MACHINE_LOST"),
    )  # fmt: skip
    async with rows.sessions.begin() as session:
        created = await simulations.create(session, wanted, USER)
    stored = await rows.get(created.id)
    for name in wanted.__dataclass_fields__:
        expected = getattr(wanted, name)
        assert getattr(stored, name) == (list(expected) if isinstance(expected, tuple) else expected), name
    assert (stored.state, stored.attempt, stored.created_by) == (SimulationState.QUEUED, 0, "user")
    [event] = (await rows.snapshot(created.id))["events"]
    told = (event["kind"], event["actor"], event["origin"], event["project_id"], event["detail"])
    assert told == ("QUEUED", "user", "192.0.2.1", wanted.project_id, {"name": "ResNet 日本"})


async def test_the_same_key_with_the_same_content_is_the_same_simulation(rows: Rows) -> None:
    first = await rows.simulation(client_key="key", parameters={"a": 1, "b": 2})
    assert await rows.simulation(client_key="key", parameters={"b": 2, "a": 1}) == first
    assert await kinds(rows, first) == ["QUEUED"]
    await rows.start(first)
    assert await rows.simulation(client_key="key", parameters={"a": 1, "b": 2}) == first  # in whatever state


@pytest.mark.parametrize(
    "other",
    [{"name": "other"}, {"parameters": {"a": 2}}, {"cpus": 2.0}, {"max_runtime": timedelta(1)}, {"tags": ("t",)}],
)
async def test_the_same_key_with_other_content_is_refused(other: dict[str, Any], rows: Rows) -> None:
    await rows.simulation(client_key="key", parameters={"a": 1})
    with pytest.raises(Taken, match="client key 'key'") as caught:
        await rows.simulation(client_key="key", **{"parameters": {"a": 1}, **other})
    assert caught.value.field == "clientKey"
    assert await rows.value("SELECT count(*) FROM simulations") == 1


async def test_without_a_key_the_same_content_is_another_simulation(rows: Rows) -> None:
    assert await rows.simulation() != await rows.simulation()


async def test_a_key_belongs_to_its_project(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        other = (await projects.named(session, "other", USER)).id
    assert await rows.simulation(client_key="key") != await rows.simulation(client_key="key", project_id=other)


async def test_the_same_key_from_two_connections_at_once_makes_one_simulation(
    rows: Rows, other_sessions: Sessions
) -> None:
    wanted = await rows.wanted()
    async with rows.sessions() as first, other_sessions.begin() as second:
        created = await simulations.create(first, wanted, USER, client_key="key")
        pid = await rows.pid(second)
        again = asyncio.create_task(simulations.create(second, wanted, OTHER, client_key="key"))
        await rows.until_blocked(pid)
        await first.commit()
        assert (await again).id == created.id
    assert await kinds(rows, created.id) == ["QUEUED"]


async def test_a_machine_that_is_deleted_while_a_simulation_names_it_is_not_found(
    rows: Rows, other_sessions: Sessions
) -> None:
    wanted = await rows.wanted(machine_id=await rows.machine())
    async with rows.sessions() as deletion, other_sessions() as session:
        await machines.delete_idle(deletion, wanted.machine_id, USER)
        pid = await rows.pid(session)
        creating = asyncio.create_task(simulations.create(session, wanted, USER))
        await rows.until_blocked(pid)
        await deletion.commit()
        with pytest.raises(NotFound, match="no such machine") as refused:
            await creating
        assert refused.value.field == "resources.machine"
    assert await rows.value("SELECT count(*) FROM simulations") == 0


async def test_a_machine_that_a_new_simulation_names_is_deleted_after_it(rows: Rows, other_sessions: Sessions) -> None:
    wanted = await rows.wanted(machine_id=await rows.machine("m"), machine_name="m")
    async with rows.sessions() as session, other_sessions() as deletion:
        simulation_id = (await simulations.create(session, wanted, USER)).id
        pid = await rows.pid(deletion)
        deleting = asyncio.create_task(machines.delete_idle(deletion, wanted.machine_id, USER))
        await rows.until_blocked(pid)
        await session.commit()
        await deleting
        await deletion.commit()
    stored = await rows.get(simulation_id)
    assert (stored.machine_id, stored.machine_name) == (None, "m")


async def test_a_project_is_made_when_it_is_first_named(rows: Rows, other_sessions: Sessions) -> None:
    async def name(sessions: Sessions) -> int:
        async with sessions.begin() as session:
            return (await projects.named(session, "vision", USER)).id

    first, second = await asyncio.gather(name(rows.sessions), name(other_sessions))
    assert first == second == await name(rows.sessions)
    async with rows.sessions() as session:
        assert (await projects.get(session, first)).name == "vision"
        assert await projects.find(session, 999) is None
        shown = await projects.page_all(session, first=10, after=None)
        assert [each.name for each in shown.rows] == ["default", "vision"]
        with pytest.raises(NotFound):
            await projects.get(session, 999)


# --- listed ----------------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_found_as_nothing_and_got_as_an_error(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    async with rows.sessions() as session:
        assert await simulations.find(session, 999) is None
        with pytest.raises(NotFound):
            await simulations.get(session, 999)
        assert [each.id for each in await simulations.by_ids(session, [simulation_id, 999])] == [simulation_id]


async def test_recent_is_what_has_not_ended_and_what_ended_lately(rows: Rows) -> None:
    waiting = await rows.simulation()
    old, fresh = await rows.start(), await rows.start()
    for each in (old, fresh):
        await rows.end(each.simulation_id, 1)
    await rows.query("UPDATE simulations SET finished_at = now() - interval '2 h' WHERE id = :id", id=old.simulation_id)
    async with rows.sessions() as session:
        found = await simulations.recent(session, timedelta(hours=1))
        assert [each.id for each in found] == [fresh.simulation_id, waiting]
        assert len(await simulations.recent(session, timedelta(hours=1), limit=1)) == 1


async def test_lists_leave_in_the_database_what_may_be_long(rows: Rows) -> None:
    given = {"entrypoint": ("run",), "parameters": {"a": 1}, "environment": {"KEY": "a secret"}}
    first, second = await rows.simulation(**given), await rows.simulation()
    async with rows.sessions() as session:
        listed = [
            *(await listing.page_matching(session, Filter(), SortOrder(), first=10, after=None)).rows,
            *await simulations.by_ids(session, [first, second]),
            *await simulations.recent(session, timedelta(minutes=1)),
        ]
        session.expunge_all()
    assert len(listed) == 6
    for row in listed:
        for name in ("entrypoint", "parameters", "environment"):
            with pytest.raises((InvalidRequestError, DetachedInstanceError)):
                getattr(row, name)
    async with rows.sessions() as session:
        found = await simulations.commands(session, [first, second, 999])
    assert found.keys() == {first, second}
    assert found[first] == Command(["run"], {"a": 1}, ["KEY"])


# --- cancelled, repeated, deleted ------------------------------------------------------------------------------


async def test_what_is_not_there_can_be_neither_cancelled_nor_repeated_nor_deleted(rows: Rows) -> None:
    for verb in (cancel_simulation, repeat, simulations.delete_ended):
        async with rows.sessions.begin() as session:
            with pytest.raises(NotFound):
                await verb(session, 999, OTHER)


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.CANCELLED, Reason.EXIT_CODE])
async def test_what_has_ended_is_repeated_as_a_new_simulation(reason: Reason, rows: Rows) -> None:
    simulation_id = await rows.simulation(
        client_key="key", parameters={"a": 1}, tags=("t",), cpus=2.0, max_runtime=timedelta(hours=1), priority=3
    )
    await rows.start(simulation_id)
    await rows.end(simulation_id, 1, reason)
    before = await rows.snapshot(simulation_id)
    async with rows.sessions.begin() as session:
        again = await repeat(session, simulation_id, OTHER)
    old, new = await rows.get(simulation_id), await rows.get(again.id)
    assert await rows.snapshot(simulation_id) == before  # final is final
    for name in simulations.Wanted.__dataclass_fields__:
        assert getattr(new, name) == (simulation_id if name == "retry_of" else getattr(old, name)), name
    assert (new.state, new.attempt, new.client_key, new.created_by) == (SimulationState.QUEUED, 0, None, "other")


@pytest.mark.parametrize("state", ["QUEUED", "STARTING", "RUNNING"])
async def test_what_has_not_ended_can_be_neither_repeated_nor_deleted(state: str, rows: Rows) -> None:
    simulation_id = await rows.simulation()
    if state == "STARTING":
        await rows.assign(simulation_id)
    elif state == "RUNNING":
        await rows.start(simulation_id)
    before = await rows.snapshot(simulation_id)
    for verb in (repeat, simulations.delete_ended):
        async with rows.sessions.begin() as session:
            with pytest.raises(WrongState, match=state):
                await verb(session, simulation_id, OTHER)
    assert await rows.snapshot(simulation_id) == before
    assert await rows.value("SELECT count(*) FROM simulations") == 1


async def test_what_is_deleted_while_it_is_repeated_is_gone_or_stays_until_it_is_repeated(
    rows: Rows, other_sessions: Sessions
) -> None:
    async def repeated_too(simulation_id: int) -> bool:
        async with rows.sessions.begin() as session:
            try:
                await repeat(session, simulation_id, OTHER)
            except NotFound:
                return False
        return True

    async def delete(simulation_id: int) -> None:
        async with other_sessions.begin() as session:
            await simulations.delete_ended(session, simulation_id, OTHER)

    for _ in range(10):
        simulation_id = await rows.simulation()
        await rows.cancel(simulation_id)
        repeated, _ = await asyncio.gather(repeated_too(simulation_id), delete(simulation_id))
        assert await rows.value("SELECT count(*) FROM simulations WHERE state = 'QUEUED'") == repeated
        await rows.query("DELETE FROM simulations")


async def test_a_deleted_simulation_takes_everything_with_it_but_its_events(rows: Rows) -> None:
    kept, started = await rows.start(), await rows.start()
    for each in (kept, started):
        async with rows.sessions.begin() as session:
            await convergence.store(session, each.simulation_id, 1, 1, {"loss": Column([1], [1.0], [1.0])})
            await logs.store(session, each.simulation_id, 1, 1, [Chunk(LogStream.STDERR, "x")])
        await rows.end(each.simulation_id, 1)
    async with rows.sessions.begin() as session:
        again = (await repeat(session, started.simulation_id, OTHER)).id
    async with rows.sessions.begin() as session:
        await simulations.delete_ended(session, started.simulation_id, OTHER)
    for table in ("attempts", "convergence", "log_chunks"):
        left = await rows.query(f"SELECT simulation_id FROM {table}")
        assert left == [{"simulation_id": kept.simulation_id}], table
    assert await kinds(rows, started.simulation_id) == ["QUEUED", "STARTING", "RUNNING", "FINISHED", "DELETED"]
    assert (await rows.get(again)).retry_of is None


async def test_a_log_is_read_in_its_order_behind_a_cursor(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        await logs.store(session, started.simulation_id, 1, 2, [Chunk(LogStream.STDOUT, "c")])
        await logs.store(session, started.simulation_id, 2, 1, [Chunk(LogStream.SUPERVISOR, "d")])
        await logs.store(
            session, started.simulation_id, 1, 1, [Chunk(LogStream.STDOUT, "a"), Chunk(LogStream.STDERR, "b")]
        )
        await logs.store(session, started.simulation_id, 1, 3, [])
    async with rows.sessions() as session:
        found = await logs.read(session, started.simulation_id, (0, 0, 0), limit=10)
        assert [(each.text, each.stream.value) for each in found] == [
            ("a", "STDOUT"), ("b", "STDERR"), ("c", "STDOUT"), ("d", "SUPERVISOR"),
        ]  # fmt: skip
        found = await logs.read(session, started.simulation_id, (1, 1, 0), limit=2)
        assert [each.text for each in found] == ["b", "c"]
