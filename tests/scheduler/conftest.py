"""Rows to schedule, and an engine that follows a script instead of starting processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from rows import claim_launch, note_launch
from sqlalchemy import inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import attempts, events, machines, queue, simulations
from db.attempts import Claim
from db.connection import driver_of
from db.events import Actor
from db.models import Attempt, Event, Member, Project, Simulation
from db.simulations import Wanted
from policy.waiting import Wait, why
from runner.base import DiscoveredMachine, Launch, Liveness, Undelivered
from settings import Settings
from transitions.begin import hello
from transitions.cancel import cancel as cancel_simulation

USER = Actor("user")
HOST = "host-1"


def columns_of(row: Attempt | Member) -> dict[str, Any]:
    """What is read of a row: not the columns that only an older version reads."""
    mapped = inspect(type(row)).column_attrs
    return {each.key: getattr(row, each.key) for each in mapped if not each.deferred}


class World:
    """The rows of a test: makes them, reads them, moves their times."""

    host_id = HOST

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.sessions = sessions
        self.settings = Settings()

    async def host(self, host_id: str = HOST, *, gpus: int = 0) -> None:
        async with driver_of(self.sessions) as driver:
            await machines.beat_host(driver, host_id, name=host_id, gpus=gpus)

    async def machine(self, name: str = "m1", *, host: str = HOST, **given: Any) -> int:
        """A machine of 4 cpus and 16 GiB on a host."""
        await self.host(host, gpus=given.get("gpus", 0))
        wanted = {
            "cpus": 4.0, "memory_gib": 16.0, "gpus": 0, "gpu_model": None, "labels": {}, "price_per_hour": Decimal(0),
        }  # fmt: skip
        async with self.sessions.begin() as session:
            return await machines.join(
                session, engine="local", engine_key=f"key-{name}", name=name, host=host, **{**wanted, **given}
            )

    async def simulation(self, name: str = "s", **given: Any) -> int:
        """A queued simulation that asks for one cpu."""
        async with self.sessions.begin() as session:
            default = (await session.scalars(select(Project.id).where(Project.name == "default"))).one()
            wanted: dict[str, Any] = {
                "project_id": default, "name": name, "entrypoint": ("true",),
                "parameters": {}, "environment": {}, "working_directory": None, "tags": (), "cpus": 1.0,
                "memory_gib": 0.0, "gpus": 0, "gpu_model": None, "labels": {}, "machine_id": None,
                "machine_name": None, "max_price_per_hour": None, "priority": 0, "max_runtime": None,
                "max_retries": 0, "retry_on": ("MACHINE_LOST",),
            }  # fmt: skip
            return (await simulations.create(session, Wanted(**{**wanted, **given}), USER)).id

    async def cancel(self, simulation_id: int) -> None:
        async with self.sessions.begin() as session:
            await cancel_simulation(session, simulation_id, USER)

    async def get(self, simulation_id: int) -> Simulation:
        async with self.sessions() as session:
            return await simulations.get(session, simulation_id)

    async def state(self, simulation_id: int) -> str:
        return (await self.get(simulation_id)).state.value

    async def wait_of(self, simulation_id: int) -> Wait | None:
        """Why it waits, as clients are told."""
        async with self.sessions() as session:
            found = await queue.waiting_of(session, [simulation_id])
        return why(found[simulation_id]) if simulation_id in found else None

    async def waiting(self, simulation_id: int) -> str | None:
        """The reason alone."""
        wait = await self.wait_of(simulation_id)
        return wait.reason.value if wait is not None else None

    async def attempts_of(self, simulation_id: int) -> Sequence[Any]:
        """First to last, each with the columns of its leading member beside its own."""
        async with self.sessions() as session:
            found = await attempts.of_simulation(session, simulation_id)
        return [SimpleNamespace(**{**columns_of(each.lead), **columns_of(each.attempt)}) for each in found]

    async def attempt_of(self, simulation_id: int) -> Any:
        """The newest."""
        return (await self.attempts_of(simulation_id))[-1]

    async def stop_of(self, simulation_id: int) -> attempts.StopIntent | None:
        async with self.sessions() as session:
            return (await attempts.stops_of(session, [simulation_id])).get(simulation_id)

    async def events_of(self, simulation_id: int) -> Sequence[Event]:
        async with self.sessions() as session:
            return await events.list_of(session, "Simulation", simulation_id)

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.sessions.begin() as session:
            await session.execute(text(statement), values)

    async def hello(self, simulation_id: int, *, token_digest: bytes | None = None) -> None:
        """The supervisor of the newest attempt says hello; without a launch, with a token made up for it."""
        attempt = await self.attempt_of(simulation_id)
        async with self.sessions.begin() as session:
            if token_digest is None and attempt.token_digest is None:
                assert await claim_launch(session, attempt.id, b"made up for %d" % attempt.id)
                await note_launch(session, attempt.id)
                token_digest = b"made up for %d" % attempt.id
            digest = token_digest or attempt.token_digest
            assert digest is not None
            greeting = await hello(session, Claim(attempt.id, digest, "nonce"))
            assert greeting.standing is attempts.Standing.CURRENT

    async def silence(self, simulation_id: int, leases: float = 1.1) -> None:
        """Nothing was heard of its attempt for so long."""
        await self.execute(
            "UPDATE members SET heartbeat_at = now() - CAST(:ago AS interval) "
            "WHERE attempt_id IN (SELECT id FROM attempts WHERE simulation_id = :id)",
            ago=timedelta(seconds=leases * self.settings.lease_seconds), id=simulation_id,
        )  # fmt: skip

    async def cover(self, leases: float = 1.1, roles: Sequence[str] = ("graph", "scheduler")) -> None:
        """These roles have been listening for so long."""
        await self.execute(
            "INSERT INTO coverage (role, covered_since, beat_at) "
            "SELECT unnest(CAST(:roles AS text[])), now() - CAST(:ago AS interval), now() "
            "ON CONFLICT (role) DO UPDATE SET covered_since = excluded.covered_since, beat_at = now()",
            ago=timedelta(seconds=leases * self.settings.lease_seconds), roles=list(roles),
        )  # fmt: skip

    async def machine_states(self) -> dict[str, str]:
        """By name."""
        async with self.sessions() as session:
            rows = await machines.every(session)
            states = await machines.states_of(session, [row.id for row in rows], self.lease)
        return {row.name: states[row.id].value for row in rows}

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.settings.lease_seconds)

    async def host_dies(self, host_id: str = HOST) -> None:
        """Its scheduler has not been heard of for long."""
        await self.execute("UPDATE hosts SET heartbeat_at = now() - interval '1 day' WHERE id = :id", id=host_id)


@pytest.fixture
def world(sessions: async_sessionmaker[AsyncSession]) -> World:
    return World(sessions)


class ScriptedEngine:
    """An engine that starts nothing: it notes what it is asked, and answers what the test has set."""

    name = "local"

    def __init__(self) -> None:
        self.liveness: dict[str, Liveness] = {}  # of what it holds, by public id
        self.launches: list[Launch] = []
        self.ended: list[str] = []
        self.forgotten: list[str] = []
        self.kept: list[str] = []  # simulations that have files
        self.held: set[str] = set()  # simulations and members whose files can't be removed
        self.left: dict[str, list[Undelivered] | Exception] = {}  # batches of dead attempts, by public id
        self.failure: Exception | None = None  # of the next launches
        self.groups: list[int] = []  # how many launches it was given together
        self.wanted: list[dict[str, int]] = []  # machines that it was asked to start
        self.starting: set[str] = set()  # members that wait behind others, or whose packages are installed
        self.not_built: dict[str, str] = {}  # members for which that failed, with the reason
        self.machine = DiscoveredMachine("own", "here", HOST, 4.0, 16.0, 0, None, {})

    async def discover(self) -> Sequence[DiscoveredMachine]:
        return [self.machine]

    async def want(self, counts: Mapping[str, int]) -> None:
        self.wanted.append(dict(counts))

    def is_starting(self, member_id: str) -> bool:
        return member_id in self.starting

    def never_started(self, member_id: str) -> str | None:
        return self.not_built.get(member_id)

    async def launch(self, launches: Sequence[Launch]) -> Sequence[Exception | None]:
        self.launches += launches
        self.groups.append(len(launches))
        failures = [self.refuses(each) for each in launches]
        started = (each for each, failure in zip(launches, failures, strict=True) if failure is None)
        self.liveness.update((each.member_id, Liveness.ALIVE) for each in started)
        return failures

    def refuses(self, _launch: Launch) -> Exception | None:
        return self.failure

    async def probe(self, member_id: str) -> Liveness:
        return self.liveness.get(member_id, Liveness.DEAD)

    async def running(self, member_ids: Collection[str]) -> Set[str]:
        return {each for each in member_ids if self.liveness.get(each) is Liveness.ALIVE}

    async def end(self, member_id: str) -> None:
        self.ended.append(member_id)
        self.liveness[member_id] = Liveness.DEAD

    async def members(self) -> Sequence[str]:
        return list(self.liveness)

    async def undelivered(self, member_id: str, after: int) -> Undelivered | None:
        left = self.left.get(member_id, [])
        if isinstance(left, Exception):
            raise left
        return next((each for each in left if each.number > after), None)

    async def forget(self, member_id: str) -> bool:
        if self.liveness.get(member_id, Liveness.DEAD) is not Liveness.DEAD:
            return False
        if member_id in self.held:
            raise PermissionError(f"{member_id} can't be removed")
        self.liveness.pop(member_id, None)
        self.forgotten.append(member_id)
        return True

    async def simulations(self) -> Sequence[str]:
        return list(self.kept)

    async def discard(self, simulation_id: str) -> None:
        if simulation_id in self.held:
            raise PermissionError(f"{simulation_id} can't be removed")
        self.kept.remove(simulation_id)


@pytest.fixture
def scripted() -> ScriptedEngine:
    return ScriptedEngine()
