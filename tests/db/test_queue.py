"""The queue by classes of equal requirements: what has arrived, who is first, why they wait, who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import machines, queue, simulations, watch_leases
from db.events import Actor
from db.notifications import Channel, listening
from db.states import Reason
from policy.matching import Requirements
from transitions.cancel import cancel

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]
OTHER = Actor("another")


async def look(rows: Rows, since: queue.Bookmark | None = None) -> queue.Look:
    async with rows.sessions() as session:
        return await queue.look(session, since)


async def queued(rows: Rows) -> list[int]:
    """All that could be placed, by priority and age."""
    async with rows.sessions() as session:
        found = (await queue.look(session, None)).arrived
        assert {each.id for each in found} == await queue.ids(session)
    return [each.id for each in sorted(found, key=lambda each: (-each.priority, each.created_at, each.id))]


async def class_of(rows: Rows, simulation_id: int) -> UUID:
    found: UUID = await rows.value("SELECT queue_class FROM simulations WHERE id = :id", id=simulation_id)
    return found


async def note(rows: Rows, *reasons: tuple[UUID, str, str], new: bool = False) -> None:
    async with rows.sessions.begin() as session:
        await queue.note_reasons(session, reasons, new={each for each, _, _ in reasons} if new else ())


async def wait_of(rows: Rows, simulation_id: int) -> queue.Waiting:
    async with rows.sessions() as session:
        return (await queue.waiting_of(session, [simulation_id]))[simulation_id]


# --- who is first ----------------------------------------------------------------------------------------------


async def test_the_queue_is_read_with_what_its_order_depends_on(rows: Rows) -> None:
    a, b, c, d = [await rows.simulation(priority=priority) for priority in (0, 5, 0, -1)]
    running = (await rows.start()).simulation_id
    assert await queued(rows) == [b, a, c, d]
    await rows.end(running, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    assert await queued(rows) == [b, a, c, running, d]  # back where its age puts it


async def test_a_retry_is_not_in_the_queue_before_its_time(rows: Rows) -> None:
    started = await rows.start()
    await rows.end(started.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(minutes=1))
    assert await rows.state(started.simulation_id) == "QUEUED"
    assert await queued(rows) == []
    before = (await look(rows)).bookmark
    await rows.query("UPDATE simulations SET queued_at = now()")
    assert await queued(rows) == [started.simulation_id]
    found = await look(rows, before)
    assert (len(found.arrived), list(found.due)) == (1, [started.simulation_id])


async def test_those_that_require_the_same_in_one_project_are_one_class(rows: Rows) -> None:
    same = [await rows.simulation(name=name, priority=priority) for name, priority in (("a", 0), ("b", 5))]
    asks: list[dict[str, Any]] = [
        {"cpus": 2.0}, {"memory_gib": 1.0}, {"gpus": 1}, {"gpu_model": "A100"}, {"gpu_model": ""},
        {"labels": {"a": "b"}}, {"machine_name": "m"}, {"max_price_per_hour": 1},
    ]  # fmt: skip
    others = [await rows.simulation(**asked) for asked in asks]
    assert len({await class_of(rows, each) for each in same}) == 1
    assert len({await class_of(rows, each) for each in [*same, *others]}) == 1 + len(others)
    assert await queued(rows) == [same[1], same[0], *others]


async def test_only_watched_attended_simulations_are_candidates(rows: Rows) -> None:
    attended = await rows.simulation(attended=True)
    assert await queued(rows) == []
    async with rows.sessions.begin() as session:
        assert await queue.watched(session) == []
        assert (await queue.waiting_of(session, [attended]))[attended].unattended
        await watch_leases.keep(session, "a process", [attended], timedelta(minutes=1))
        assert [each.id for each in await queue.watched(session)] == [attended]
        assert not (await queue.waiting_of(session, [attended]))[attended].unattended


# --- what has arrived ------------------------------------------------------------------------------------------


async def test_what_arrives_is_found_once(rows: Rows) -> None:
    empty = await look(rows)
    assert (empty.is_empty, empty.arrived) == (True, ())
    simulation_id = await rows.simulation()
    found = await look(rows, empty.bookmark)
    assert [(each.id, each.queue_class) for each in found.arrived] == [
        (simulation_id, await class_of(rows, simulation_id))
    ]
    after = await look(rows, found.bookmark)
    assert (after.is_empty, after.arrived) == (False, ())


async def test_what_is_committed_late_is_not_missed(rows: Rows) -> None:
    """Its transaction began before a look, and before what that look found, and ended after it."""
    async with rows.sessions.begin() as session:
        late = (await simulations.create(session, await rows.wanted(cpus=7.0), OTHER)).id
        early = await rows.simulation()
        found = await look(rows)
        assert [each.id for each in found.arrived] == [early]
    found = await look(rows, found.bookmark)
    assert late in {each.id for each in found.arrived}
    assert (await look(rows, found.bookmark)).arrived == ()


async def test_what_comes_back_and_what_lost_its_machine_have_arrived(rows: Rows) -> None:
    machine_id = await rows.machine()
    named = await rows.simulation(machine_id=machine_id, machine_name="m")
    before, bookmark = await class_of(rows, named), (await look(rows)).bookmark
    async with rows.sessions.begin() as session:
        await machines.delete_idle(session, machine_id, OTHER)
    found = await look(rows, bookmark)
    assert {each.queue_class for each in found.arrived} == {await class_of(rows, named)} != {before}
    started = await rows.start()
    bookmark = (await look(rows)).bookmark
    await rows.end(started.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    assert [each.id for each in (await look(rows, bookmark)).arrived] == [started.simulation_id]


async def test_two_that_differ_in_a_requirement_have_different_classes(rows: Rows) -> None:
    """Each field of `policy.matching.Requirements`: a new one has to be a part of `queue_class`, and stand here."""
    machine_id = await rows.machine()
    others: dict[str, Any] = {
        "cpus": 2.0, "memory_gib": 1.0, "gpus": 1, "gpu_model": "A100", "labels": {"zone": "a"},
        "machine_id": machine_id, "machine_name": "m", "max_price_per_hour": Decimal(1),
    }  # fmt: skip
    assert set(others) == {each.name for each in fields(Requirements)}
    classes = [await class_of(rows, await rows.simulation())]
    assert await class_of(rows, await rows.simulation()) == classes[0]
    for name, value in {**others, "machines": 2}.items():
        classes.append(await class_of(rows, await rows.simulation(**{name: value})))
    assert len(set(classes)) == len(classes)


# --- why they wait ---------------------------------------------------------------------------------------------


async def test_why_a_class_waits_is_told_of_each_of_it_and_no_longer_when_it_moves(rows: Rows) -> None:
    waiting, another = await rows.simulation(), await rows.simulation(cpus=9.0)
    await note(rows, (await class_of(rows, waiting), "MACHINES_BUSY", "All busy."))
    async with rows.sessions.begin() as session:
        await queue.note_reasons(session, [])
    told, other = await wait_of(rows, waiting), await wait_of(rows, another)
    assert (told.class_reason, told.class_detail) == ("MACHINES_BUSY", "All busy.")
    assert other.class_reason is None
    newcomer = await rows.simulation()
    assert (await wait_of(rows, newcomer)).class_reason == "MACHINES_BUSY"
    await rows.assign(waiting)
    async with rows.sessions() as session:
        assert waiting not in await queue.waiting_of(session, [waiting, 999])
    async with rows.sessions.begin() as session:
        await queue.forget(session, await queue.noted(session))
    assert (await wait_of(rows, newcomer)).class_reason is None


async def test_a_retry_that_waits_says_how_it_ended_and_until_when(rows: Rows) -> None:
    started = await rows.start()
    await rows.end(started.simulation_id, 1, Reason.EXIT_CODE, retry_after=timedelta(seconds=14))
    wait = await wait_of(rows, started.simulation_id)
    assert (wait.ended, wait.attempts_made, wait.max_retries) == ("EXIT_CODE", 1, 3)
    assert wait.until is not None
    assert 0 < wait.seconds_left <= 14
    await rows.query("UPDATE simulations SET queued_at = now()")
    assert (await wait_of(rows, started.simulation_id)).until is None


async def test_a_note_that_says_nothing_new_writes_nothing(rows: Rows) -> None:
    queue_class = await class_of(rows, await rows.simulation())
    versions = []
    for detail in ("All busy.", "All busy.", "All busy still."):
        await note(rows, (queue_class, "MACHINES_BUSY", detail))
        versions.append(await rows.value("SELECT xmin::text FROM queue_classes"))
    assert versions[0] == versions[1] != versions[2]


async def test_notes_about_the_whole_queue_and_cancels_of_it_never_deadlock(
    rows: Rows, other_sessions: Sessions
) -> None:
    ids = [await rows.simulation(cpus=1.0 + number) for number in range(30)]
    classes = [await class_of(rows, each) for each in ids]

    async def note_all(order: list[UUID]) -> None:
        await note(rows, *((each, "MACHINES_BUSY", f"{order[0]}") for each in order), new=True)

    async def cancel_all() -> None:
        for each in ids:
            async with other_sessions.begin() as session:
                await cancel(session, each, OTHER)

    await asyncio.gather(note_all(classes), note_all(classes[::-1]), cancel_all(), note_all(classes[5:] + classes[:5]))
    assert {await rows.state(each) for each in ids} == {"CANCELLED"}
    async with rows.sessions() as session:
        assert await queue.waiting_of(session, ids) == {}


@pytest.fixture
async def told(database_url: str) -> Any:
    """Run something, and return the hints about simulations that it gave."""
    hints: list[frozenset[int] | None] = []
    came = asyncio.Event()

    def hear(_channel: Channel, ids: frozenset[int] | None) -> None:
        hints.append(ids)
        came.set()

    async with listening(database_url, [Channel.SIMULATIONS], hear):
        await came.wait()  # "look at all", once it listens

        async def run(work: Callable[[], Awaitable[object]]) -> frozenset[int] | None:
            hints.clear()
            came.clear()
            await work()
            async with asyncio.timeout(60):
                await came.wait()
            return hints[0]

        yield run


async def test_all_are_told_of_a_new_reason_and_some_of_a_new_sentence(rows: Rows, told: Any) -> None:
    await rows.query(
        "INSERT INTO simulations (project_id, name, entrypoint, created_by) "
        "SELECT 1, 's', '{true}', 'user' FROM generate_series(1, 150)"
    )
    queue_class = await rows.value("SELECT DISTINCT queue_class FROM simulations")
    every = frozenset(range(1, 151))
    assert await told(lambda: note(rows, (queue_class, "MACHINES_BUSY", "1 is free."), new=True)) == every
    some = await told(lambda: note(rows, (queue_class, "MACHINES_BUSY", "2 are free.")))
    assert some < every
    assert len(some) == queue.MOST_TOLD


async def test_of_a_new_reason_of_very_many_it_is_told_to_look_at_all(rows: Rows, told: Any) -> None:
    await rows.query(
        "INSERT INTO simulations (project_id, name, entrypoint, created_by) "
        "SELECT 1, 's', '{true}', 'user' FROM generate_series(1, 1100)"
    )
    queue_class = await rows.value("SELECT DISTINCT queue_class FROM simulations")
    assert await told(lambda: note(rows, (queue_class, "MACHINES_BUSY", "1 is free."), new=True)) is None
    some = await told(lambda: note(rows, (queue_class, "MACHINES_BUSY", "2 are free.")))
    assert len(some) == queue.MOST_TOLD
