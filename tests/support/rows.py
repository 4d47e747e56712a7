"""Rows for the tests of `db` and `transitions`: made by their own verbs, read back whole, their times moved."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db import attempts, lifecycle, machines, simulations
from db.attempts import Claim
from db.connection import create_engine, driver_of, session_factory
from db.events import Actor
from db.models import Member, Project, Simulation
from db.simulations import Wanted
from db.states import Reason
from transitions.assign import Assignment, Placed, assign
from transitions.begin import greet
from transitions.cancel import cancel
from transitions.settle import Ending, end

USER = Actor("user", "192.0.2.1")
PATIENCE_SECONDS = 60.0


def assignment_to(machine_id: int) -> Assignment:
    """A grant of one CPU on a machine."""
    return Assignment(machine_id, "m", None, (), Decimal("2.5"), Decimal("0.5"), "USD", 1.0, 0.0, 0)


async def assign_one(
    session: AsyncSession, simulation_id: int, fence: int, assignment: Assignment, actor: Actor
) -> int | None:
    """The id of the attempt that was made; None if the simulation's row has changed."""
    return (await assign(session, [Placed(simulation_id, fence, (assignment,))], actor)).get(simulation_id)


async def claim_launch(session: AsyncSession, attempt_id: int, digest: bytes, rank: int = 0) -> bool:
    """Claim the launch of an attempt's member, as its host does."""
    of_rank = select(Member.id).where(Member.attempt_id == attempt_id, Member.rank == rank)
    member_id = await session.scalar(of_rank)
    return member_id is not None and bool(await attempts.claim_launches(session, {member_id: digest}))


async def note_launch(session: AsyncSession, attempt_id: int, rank: int = 0) -> None:
    """Note that its supervisor was started."""
    of_rank = select(Member.id).where(Member.attempt_id == attempt_id, Member.rank == rank)
    await attempts.note_launched(session, (await session.scalars(of_rank)).all())


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt whose supervisor said hello, with all that it needs to report."""

    simulation_id: int
    attempt_id: int
    number: int
    token: bytes
    nonce: str = "nonce"

    @property
    def claim(self) -> Claim:
        return Claim(self.attempt_id, self.token, self.nonce)


class Rows:
    """Makes and reads the rows of one database."""

    user = USER

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.sessions = sessions
        self._numbers = itertools.count(1)

    # --- making ------------------------------------------------------------------------------------------------

    async def wanted(self, **given: Any) -> Wanted:
        async with self.sessions() as session:
            project_id = (await session.scalars(select(Project.id).where(Project.name == "default"))).one()
        values: dict[str, Any] = {
            "project_id": project_id, "name": "a simulation", "entrypoint": ("python", "train.py"), "parameters": {},
            "environment": {}, "working_directory": None, "tags": (), "cpus": 1.0, "memory_gib": 0.0, "gpus": 0,
            "gpu_model": None, "labels": {}, "machine_id": None, "machine_name": None, "max_price_per_hour": None,
            "priority": 0, "max_runtime": None, "max_retries": 3, "retry_on": ("MACHINE_LOST",),
        }  # fmt: skip
        return Wanted(**{**values, **given})

    async def simulation(self, *, client_key: str | None = None, **given: Any) -> int:
        wanted = await self.wanted(**given)
        async with self.sessions.begin() as session:
            return (await simulations.create(session, wanted, USER, client_key=client_key)).id

    async def machine(self, name: str | None = None, *, host: str | None = None, **given: Any) -> int:
        """A machine of four cpus that its engine found; on a host, if one is named."""
        name = name or f"machine-{next(self._numbers)}"
        values: dict[str, Any] = {
            "engine": "local", "engine_key": f"key-of-{name}", "cpus": 4.0, "memory_gib": 16.0, "gpus": 0,
            "gpu_model": None, "labels": {}, "price_per_hour": Decimal(0),
        }  # fmt: skip
        if host is not None:
            async with driver_of(self.sessions) as driver:
                await machines.beat_host(driver, host, name=host, gpus=given.get("gpus", 0))
        async with self.sessions.begin() as session:
            return await machines.join(session, name=name, host=host, **{**values, **given})

    async def assign(
        self, simulation_id: int, machine_id: int | None = None, *, host: str | None = None, gpus: tuple[int, ...] = ()
    ) -> int:
        """The next attempt of a queued simulation; its id."""
        machine_id = machine_id or await self.machine()
        async with self.sessions.begin() as session:
            simulation = await simulations.get(session, simulation_id)
            machine = await machines.get(session, machine_id)
            grant = (simulation.cpus, simulation.memory_gib, simulation.gpus)
            price = (Decimal("1.5"), Decimal("0.25"), "USD")
            assignment = Assignment(machine_id, machine.name, host, gpus, *price, *grant)
            attempt_id = await assign_one(session, simulation_id, simulation.attempt, assignment, USER)
        assert attempt_id is not None
        return attempt_id

    async def launch(self, attempt_id: int, rank: int = 0) -> bytes:
        """Claim the launch of a member; the digest of its token."""
        token = f"token {next(self._numbers)} of attempt {attempt_id}".encode()
        async with self.sessions.begin() as session:
            assert await claim_launch(session, attempt_id, token, rank)
            await note_launch(session, attempt_id, rank)
        return token

    async def start(self, simulation_id: int | None = None, **given: Any) -> Started:
        """A running simulation (a new one, if none is given), by way of assignment, launch and hello."""
        simulation_id = simulation_id or await self.simulation()
        attempt_id = await self.assign(simulation_id, **given)
        token = await self.launch(attempt_id)
        claim = Claim(attempt_id, token, "nonce")
        greeting = await greet(self.sessions, claim, stop_grace=timedelta(0), lease=timedelta(seconds=30))
        assert greeting.standing is attempts.Standing.CURRENT
        assert greeting.work is not None
        return Started(simulation_id, attempt_id, greeting.work.number, token)

    async def end(self, simulation_id: int, number: int, reason: Reason = Reason.COMPLETED, **given: Any) -> bool:
        async with self.sessions.begin() as session:
            await lifecycle.lock(session, simulation_id)
            return await end(session, simulation_id, number, Ending(reason), USER, **given)

    async def cancel(self, simulation_id: int) -> None:
        async with self.sessions.begin() as session:
            await cancel(session, simulation_id, USER)

    async def report(self, started: Started, batch: int | None, **given: Any) -> attempts.Receipt:
        """What a report is answered with; nothing is stored with it."""
        async with self.sessions.begin() as session:
            claim = Claim(started.attempt_id, given.get("token", started.token), given.get("nonce", started.nonce))
            return await attempts.accept(session, claim, batch)

    async def stop_of(self, simulation_id: int) -> attempts.StopIntent | None:
        async with self.sessions() as session:
            return (await attempts.stops_of(session, [simulation_id])).get(simulation_id)

    # --- reading -----------------------------------------------------------------------------------------------

    async def get(self, simulation_id: int) -> Simulation:
        async with self.sessions() as session:
            return await simulations.get(session, simulation_id)

    async def state(self, simulation_id: int) -> str:
        return (await self.get(simulation_id)).state.value

    async def query(self, statement: str, **values: Any) -> list[Mapping[str, Any]]:
        """The rows of a statement, as mappings; what it writes is committed."""
        async with self.sessions.begin() as session:
            found = await session.execute(text(statement), values)
            return [dict(row) for row in found.mappings()] if found.returns_rows else []

    async def value(self, statement: str, **values: Any) -> Any:
        """The only value of the only row."""
        [row] = await self.query(statement, **values)
        [value] = row.values()
        return value

    async def snapshot(self, simulation_id: int) -> Mapping[str, list[Mapping[str, Any]]]:
        """Everything there is of a simulation but its curve."""
        return {
            "simulation": await self.query("SELECT * FROM simulations WHERE id = :id", id=simulation_id),
            "attempts": await self.query(
                "SELECT * FROM attempts WHERE simulation_id = :id ORDER BY number", id=simulation_id
            ),
            "members": await self.query(
                "SELECT m.* FROM members m JOIN attempts a ON a.id = m.attempt_id "
                "WHERE a.simulation_id = :id ORDER BY a.number, m.rank",
                id=simulation_id,
            ),
            "events": await self.query(
                "SELECT * FROM events WHERE object_type = 'Simulation' AND object_id = :id ORDER BY id",
                id=simulation_id,
            ),
        }

    # --- two transactions at once ------------------------------------------------------------------------------

    async def pid(self, session: AsyncSession) -> int:
        return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())

    async def until_blocked(self, pid: int) -> None:
        """Wait until this backend waits for a lock: there is no event for it, only a look at the server."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.value("SELECT cardinality(pg_blocking_pids(:pid)) > 0", pid=pid):
                await asyncio.sleep(0.005)

    async def until_one_is_blocked(self) -> None:
        """The same for any backend of this database."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.value(
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() "
                "AND cardinality(pg_blocking_pids(pid)) > 0"
            ):
                await asyncio.sleep(0.005)


@pytest.fixture
def rows(sessions: async_sessionmaker[AsyncSession]) -> Rows:
    return Rows(sessions)


@pytest.fixture
async def other_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A second pool, as another process has one."""
    engine = create_engine(database_url, application="other")
    yield engine
    await engine.dispose()


@pytest.fixture
def other_sessions(other_engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return session_factory(other_engine)
