"""Load generator of fanout, ingest and memory: open attempts without a machine, and their reporting supervisors."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from secrets import token_urlsafe

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.wire import Wire
from db import attempts, machines, projects, public_ids, simulations
from db.connection import create_engine, session_factory
from db.events import Actor
from db.models import Project
from transitions.assign import Assignment, Placed, assign

HELLO = "mutation($input: HelloAttemptInput!) { helloAttempt(input: $input) { verdict } }"
REPORT = (
    "mutation($input: ReportAttemptInput!) { reportAttempt(input: $input) { expectedBatch userErrors { message } } }"
)
ACTOR = Actor("benchmark")

Columns = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Opened:
    """An attempt in the database that waits for its supervisor's hello."""

    simulation_id: int
    attempt_id: int
    token: str


def points_of(metrics: int, points: int, first_step: int = 0) -> Columns:
    """Made-up points as a report carries them: so many of each metric."""
    steps = range(first_step, first_step + points)
    return {
        f"metric{number}": {
            "steps": list(steps),
            "values": [random.random() for _ in steps],
            "elapsed": [round(step * 0.01, 3) for step in steps],
        }
        for number in range(metrics)
    }


class Supervisor:
    """Reports batches of made-up points, one after the other."""

    def __init__(self, wire: Wire, opened: Opened) -> None:
        self.simulation_number = opened.simulation_id
        self.attempt_number = opened.attempt_id
        self.simulation_id = public_ids.encode("Simulation", opened.simulation_id)
        self._wire = wire
        self._attempt = {"attemptId": public_ids.encode("Attempt", opened.attempt_id), "nonce": "benchmark"}
        self._begin = _open_end({"query": REPORT, "variables": {"input": self._attempt}})
        self._step = 0
        self.batch = 0  # the newest; the next report has the number after it

    async def hello(self) -> None:
        answer = await self._wire.post(
            "/graphql", orjson.dumps({"query": HELLO, "variables": {"input": self._attempt}})
        )
        if orjson.loads(answer)["data"]["helloAttempt"]["verdict"] != "CONTINUE":
            raise RuntimeError(answer.decode())

    async def report(self, points: int, metrics: int = 1) -> None:
        """Send the next batch and wait until it is acknowledged."""
        columns = points_of(metrics, points, self._step)
        self._step += points
        await self.send(orjson.dumps(columns))

    async def send(self, columns: bytes) -> None:
        """Send a batch of pre-encoded columns, at no cost for the client."""
        self.batch += 1
        answer = await self._wire.post("/graphql", self._begin, b',"batch":%d,"points":' % self.batch, columns, b"}}}")
        said = orjson.loads(answer).get("data")
        if said != {"reportAttempt": {"expectedBatch": self.batch + 1, "userErrors": []}}:
            raise RuntimeError(answer.decode())

    def frame(self, points: int) -> str:
        """The text that a subscriber gets for such a batch."""
        event = {
            "cursor": f"1-{self.batch}",
            "attempt": 1,
            "live": True,
            "state": "RUNNING",
            "reason": None,
            "series": [{"metric": "metric0", **points_of(1, points, self._step)["metric0"]}],
        }
        return orjson.dumps({"id": "1", "type": "next", "payload": {"data": {"convergence": event}}}).decode()


@asynccontextmanager
async def open_attempt(url: str, port: int) -> AsyncIterator[Supervisor]:
    """Assign a simulation to a machine that does not exist, and report as its supervisor to the graph process."""
    async with open_attempts(url, port, 1) as supervisors:
        yield supervisors[0]


@asynccontextmanager
async def open_attempts(url: str, port: int, count: int) -> AsyncIterator[list[Supervisor]]:
    """Open many attempts, each with its own connection."""
    engine = create_engine(url, pool_size=1, application="benchmark")
    try:
        async with session_factory(engine).begin() as session:
            opened = [await _open(session) for _ in range(count)]
    finally:
        await engine.dispose()
    wires = [Wire(port, each.token) for each in opened]
    try:
        supervisors = [Supervisor(wire, each) for wire, each in zip(wires, opened, strict=True)]
        for supervisor in supervisors:
            await supervisor.hello()
        yield supervisors
    finally:
        for wire in wires:
            await wire.close()


async def _open(session: AsyncSession) -> Opened:
    token = token_urlsafe(32)
    project_id = await session.scalar(select(Project.id).where(Project.name == projects.DEFAULT))
    assert project_id is not None
    wanted = simulations.Wanted(
        project_id=project_id, name="benchmark", entrypoint=("true",), parameters={}, environment={},
        working_directory=None, tags=(), cpus=0.0, memory_gib=0.0, gpus=0, gpu_model=None, labels={},
        machine_id=None, machine_name=None, max_price_per_hour=None, priority=0, max_runtime=None,
        max_retries=0, retry_on=(),
    )  # fmt: skip
    simulation = await simulations.create(session, wanted, ACTOR)
    machine_id = await machines.join(
        session, engine="benchmark", engine_key="nowhere", name="nowhere", host=None, cpus=1, memory_gib=1,
        gpus=0, gpu_model=None, labels={}, price_per_hour=Decimal(1),
    )  # fmt: skip
    assignment = Assignment(machine_id, "nowhere", None, (), Decimal(1), Decimal(1), "USD", 1.0, 0.0, 0)
    made = await assign(session, [Placed(simulation.id, 0, (assignment,))], ACTOR)
    attempt_id = made[simulation.id]
    [member] = await attempts.members_of(session, [attempt_id])
    await attempts.claim_launches(session, {member.id: sha256(token.encode()).digest()})
    return Opened(simulation.id, attempt_id, token)


def _open_end(request: object) -> bytes:
    """The JSON of a request up to where its innermost object would close, to go on with another field."""
    return orjson.dumps(request).removesuffix(b"}}}")
