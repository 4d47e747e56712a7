"""Watch leases: recorded in time, renewed during a subscription, and removed after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.errors import DatabaseUnreachable
from db.notifications import Channel, listening
from db.public_ids import decode
from graph.live.watch_leases import WatchLeases
from policy.waiting import UNATTENDED_DETAIL

World = Any  # the fixtures of conftest.py
Api = Any
Serve = Any
Statements = Any

LEASE = timedelta(seconds=30)
PATIENCE_SECONDS = 60
CURVE = "subscription ($id: ID!) { convergence(simulationId: $id) { state reason } }"
CREATE = """
mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { userErrors { message field } } }
"""
LOGS = "subscription ($id: ID!) { logs(simulationId: $id) { text } }"


async def leases(world: World, simulation_id: str) -> int:
    """The number of processes that watch it now, by the database."""
    number = decode(simulation_id)[1]
    statement = "SELECT count(*) FROM watchers WHERE simulation_id = :id AND watched_until > now()"
    [[count]] = await world.select(statement, id=number)
    return int(count)


async def until_watched_by(world: World, simulation_id: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await leases(world, simulation_id) != count:
            await asyncio.sleep(0.01)


@pytest.fixture
async def hints(database_url: str) -> AsyncIterator[set[int]]:
    """The simulations that a scheduler was notified of since the last look."""
    heard, listens = set[int](), asyncio.Event()

    def hear(_channel: Channel, ids: frozenset[int] | None) -> None:
        listens.set()
        heard.update(ids or ())

    async with listening(database_url, (Channel.SIMULATIONS,), hear):
        await listens.wait()
        yield heard


# --- through the API -------------------------------------------------------------------------------------------


async def test_a_subscription_is_known_to_the_database_while_it_lasts(world: World) -> None:
    simulation = await world.simulation(attended=True)
    assert await leases(world, simulation) == 0
    async with world.api.subscribe(CURVE, {"id": simulation}) as events:
        assert (await events.next())["state"] == "QUEUED"
        await until_watched_by(world, simulation, 1)
        async with world.api.subscribe(CURVE, {"id": simulation}) as others:
            await others.next()
        assert await leases(world, simulation) == 1, "one of them has left, not both"
    await until_watched_by(world, simulation, 0)


async def test_the_planner_hears_of_the_first_subscriber_at_once(
    world: World, hints: set[int], wait_until: Callable[..., Any]
) -> None:
    attended, plain = await world.simulation(attended=True), await world.simulation()
    number = decode(attended)[1]
    await wait_until(lambda: len(hints) == 2, "it hears that they were created")
    hints.clear()
    async with (
        world.api.subscribe(CURVE, {"id": plain}) as first,
        world.api.subscribe(CURVE, {"id": attended}) as events,
    ):
        await first.next()
        await events.next()
        await wait_until(lambda: number in hints, "a hint of the first subscriber arrives")
        hints.clear()
        async with world.api.subscribe(CURVE, {"id": attended}) as others:
            await others.next()
    await until_watched_by(world, attended, 0)
    assert hints == set()


async def test_two_processes_have_a_lease_each(world: World, serve: Serve) -> None:
    simulation = await world.simulation(attended=True)
    other: Api = await serve()
    async with world.api.subscribe(CURVE, {"id": simulation}) as events:
        await events.next()
        async with other.subscribe(CURVE, {"id": simulation}) as others:
            await others.next()
            await until_watched_by(world, simulation, 2)
        await until_watched_by(world, simulation, 1)


async def test_a_subscriber_of_the_log_alone_does_not_count_as_a_watcher(world: World) -> None:
    supervisor = await world.running(attended=True)
    await supervisor.send(logs=[{"stream": "STDOUT", "text": "hello"}])
    async with world.api.subscribe(LOGS, {"id": supervisor.simulation_id}) as chunks:
        assert (await chunks.next())["text"] == "hello"
        async with world.api.subscribe(CURVE, {"id": await world.simulation(attended=True)}) as events:
            await events.next()  # what came later is known by now
        assert await leases(world, supervisor.simulation_id) == 0


async def test_a_process_that_ends_takes_its_leases_with_it(world: World, serve: Serve) -> None:
    simulation = await world.simulation(attended=True)
    other: Api = await serve()
    async with other.subscribe(CURVE, {"id": simulation}) as events:
        await events.next()
        await until_watched_by(world, simulation, 1)
        other.server.ended.set()
        await until_watched_by(world, simulation, 0)


async def test_an_attended_simulation_says_so_and_says_what_it_waits_for(world: World) -> None:
    query = "query ($id: ID!) { simulation(id: $id) { attended attendedGraceSeconds waiting { reason detail } } }"
    plain, attended = await world.simulation(), await world.simulation(attended=True)
    patient = await world.simulation(attended=True, attendedGraceSeconds=3600)
    waiting = {"reason": "UNATTENDED", "detail": UNATTENDED_DETAIL}
    told = [await world.api.data(query, {"id": each}) for each in (plain, attended, patient)]
    assert [(each["attended"], each["attendedGraceSeconds"]) for each in told] == [
        (False, None),
        (True, 60),
        (True, 3600),
    ]
    assert [each["waiting"] for each in told] == [None, waiting, waiting]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"attended": True, "attendedGraceSeconds": 0}, "greater than or equal to 1"),
        ({"attended": True, "attendedGraceSeconds": 86_401}, "less than or equal to 86400"),
        ({"attendedGraceSeconds": 60}, "only with attended: true"),
    ],
)
async def test_a_grace_that_makes_no_sense_is_refused(world: World, given: dict[str, Any], sentence: str) -> None:
    create = (
        "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { userErrors { message field } } }"
    )
    payload = await world.api.data(create, {"input": {"entrypoint": ["true"], **given}})
    [error] = payload["userErrors"]
    assert error["field"] == ["attendedGraceSeconds"]
    assert sentence in error["message"]


async def test_a_supervisor_is_told_to_stop_and_its_simulation_has_finished(world: World) -> None:
    supervisor = await world.running(attended=True)
    await world.select(
        "UPDATE attempts SET stop_wanted_at = now(), stop_wanted_by = 'scheduler', stop_reason = 'UNWATCHED'"
    )
    answer = await supervisor.report()
    assert (answer["verdict"], answer["stopReason"]) == ("STOP", "UNWATCHED")
    await supervisor.send(exit={"signal": 15, "reason": "UNWATCHED"})
    shown = await world.show(supervisor.simulation_id)
    assert (shown["state"], shown["reason"]) == ("FINISHED", "UNWATCHED")


# --- by itself -------------------------------------------------------------------------------------------------


class Flaky:
    """A session factory whose database is away for as long as a test likes; `asked` counts the tries."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        self.is_away = False
        self.asked = 0

    def __call__(self) -> AsyncSession:
        self.asked += 1
        if self.is_away:
            raise DatabaseUnreachable("the database is away")
        return self._sessions()


@pytest.fixture
def flaky(sessions: async_sessionmaker[AsyncSession]) -> Flaky:
    return Flaky(sessions)


async def test_all_leases_are_renewed_in_one_statement_and_new_ones_taken_without_the_others(
    world: World, sessions: async_sessionmaker[AsyncSession], engine: AsyncEngine, statements: Statements
) -> None:
    watch_leases = WatchLeases(sessions, LEASE)
    first, second = [await world.simulation(attended=True) for _ in range(2)]
    plain, late = await world.simulation(), await world.simulation(attended=True)
    with ExitStack() as stack:
        for each in (first, second, plain):
            stack.enter_context(watch_leases.watched(decode(each)[1]))
        await watch_leases.run_once(renew=False)
        assert [await leases(world, each) for each in (first, second, plain, late)] == [1, 1, 0, 0]
        await world.select("UPDATE watchers SET watched_until = now() - interval '1 hour'")

        stack.enter_context(watch_leases.watched(decode(late)[1]))
        with statements.of(engine):
            await watch_leases.run_once(renew=False)
        assert len(statements.matching("INSERT INTO watchers")) == 1
        assert [await leases(world, each) for each in (first, second, late)] == [0, 0, 1]

        statements.clear()
        with statements.of(engine):
            await watch_leases.run_once(renew=True)
        assert len(statements) == 1
        assert [await leases(world, each) for each in (first, second, plain, late)] == [1, 1, 0, 1]
    await watch_leases.run_once(renew=False)
    assert [await leases(world, each) for each in (first, second, late)] == [0, 0, 0]


async def test_where_nothing_is_watched_nothing_is_asked(flaky: Flaky) -> None:
    watch_leases = WatchLeases(flaky, LEASE)  # type: ignore[arg-type]  # it makes sessions
    await watch_leases.run_once(renew=True)
    with watch_leases.watched(1):
        pass
    await watch_leases.run_once(renew=True)
    assert flaky.asked == 0


async def test_what_needs_no_lease_is_asked_about_once(world: World, flaky: Flaky) -> None:
    watch_leases = WatchLeases(flaky, LEASE)  # type: ignore[arg-type]  # it makes sessions
    plain, ended = await world.simulation(), await world.in_state("CANCELLED")
    with watch_leases.watched(decode(plain)[1]), watch_leases.watched(decode(ended)[1]):
        for renew in (False, True, True):
            await watch_leases.run_once(renew=renew)
    await watch_leases.run_once(renew=True)
    assert flaky.asked == 1


async def test_a_lease_outlives_no_end_of_its_simulation(world: World, flaky: Flaky) -> None:
    watch_leases = WatchLeases(flaky, LEASE)  # type: ignore[arg-type]  # it makes sessions
    simulation = await world.simulation(attended=True)
    with watch_leases.watched(decode(simulation)[1]):
        await watch_leases.run_once(renew=True)
        await world.cancel(simulation)
        await watch_leases.run_once(renew=True)
        await watch_leases.run_once(renew=True)
        assert flaky.asked == 2


async def test_who_comes_back_before_it_was_told_never_left(world: World, flaky: Flaky) -> None:
    watch_leases = WatchLeases(flaky, LEASE)  # type: ignore[arg-type]  # it makes sessions
    simulation = await world.simulation(attended=True)
    with watch_leases.watched(decode(simulation)[1]):
        await watch_leases.run_once(renew=False)
    with watch_leases.watched(decode(simulation)[1]):
        await watch_leases.run_once(renew=False)
        assert (flaky.asked, await leases(world, simulation)) == (1, 1)


async def test_the_database_is_told_when_it_is_back(world: World, flaky: Flaky) -> None:
    watch_leases = WatchLeases(flaky, timedelta(seconds=1))  # type: ignore[arg-type]  # it makes sessions
    came, left = await world.simulation(attended=True), await world.simulation(attended=True)
    async with watch_leases.running():
        with watch_leases.watched(decode(came)[1]):
            with watch_leases.watched(decode(left)[1]):
                await until_watched_by(world, left, 1)
                await until_watched_by(world, came, 1)
                flaky.is_away, tries = True, flaky.asked
            async with asyncio.timeout(PATIENCE_SECONDS):
                while flaky.asked < tries + 3:
                    await asyncio.sleep(0.01)
            await world.select("UPDATE watchers SET watched_until = now() + interval '1 hour'")
            flaky.is_away = False
            await until_watched_by(world, left, 0)
            await until_watched_by(world, came, 1)
    assert await leases(world, came) == 0


async def test_what_may_have_been_stored_before_the_connection_broke_is_ended_too(
    world: World, sessions: async_sessionmaker[AsyncSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_leases = WatchLeases(sessions, LEASE)
    simulation = await world.simulation(attended=True)

    async def broken(session: AsyncSession, _ids: object) -> None:
        await session.commit()
        raise OSError("the answer to the commit was lost")

    with watch_leases.watched(decode(simulation)[1]):
        with monkeypatch.context() as patched:
            patched.setattr("graph.live.watch_leases.watch_leases.announce", broken)
            with pytest.raises(OSError, match="lost"):
                await watch_leases.run_once(renew=False)
        assert await leases(world, simulation) == 1
    await watch_leases.run_once(renew=False)
    assert await leases(world, simulation) == 0
