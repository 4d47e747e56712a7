"""An open attempt without a machine, and the supervisor that reports on it: the load of fanout and ingest."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import sha256
from secrets import token_urlsafe

import httpx
import orjson

from db import attempts, lifecycle, machines, projects, public_ids, simulations
from db.connection import create_engine, session_factory
from db.events import Actor
from db.lifecycle import Assignment

HELLO = "mutation($input: HelloAttemptInput!) { helloAttempt(input: $input) { verdict } }"
REPORT = (
    "mutation($input: ReportAttemptInput!) { reportAttempt(input: $input) { expectedBatch userErrors { message } } }"
)
ACTOR = Actor("benchmark")


class Supervisor:
    """Reports batches of made-up points, one after the other."""

    def __init__(self, client: httpx.AsyncClient, simulation_id: int, attempt_id: int) -> None:
        self.simulation_id = public_ids.encode("Simulation", simulation_id)
        self._client = client
        self._attempt = {"attemptId": public_ids.encode("Attempt", attempt_id), "nonce": "benchmark"}
        self._batch = 0
        self._step = 0

    async def hello(self) -> None:
        await self._post(HELLO, self._attempt)

    async def report(self, points: int, metrics: int = 1) -> None:
        """Send the next batch and wait until it is acknowledged."""
        self._batch += 1
        columns = {f"metric{number}": self._columns(points) for number in range(metrics)}
        self._step += points
        answer = await self._post(REPORT, {**self._attempt, "batch": self._batch, "points": columns})
        if answer["reportAttempt"]["expectedBatch"] != self._batch + 1:
            raise RuntimeError(str(answer))

    def frame(self, points: int) -> str:
        """The text that a subscriber gets for such a batch."""
        event = {
            "cursor": f"1-{self._batch}",
            "attempt": 1,
            "live": True,
            "state": "RUNNING",
            "reason": None,
            "series": [{"metric": "metric0", **self._columns(points)}],
        }
        return orjson.dumps({"id": "1", "type": "next", "payload": {"data": {"convergence": event}}}).decode()

    def _columns(self, points: int) -> dict[str, list[float]]:
        return {
            "steps": list(range(self._step, self._step + points)),
            "values": [random.random() for _ in range(points)],
            "elapsed": [round(number * 0.01, 3) for number in range(points)],
        }

    async def _post(self, query: str, given: dict[str, object]) -> dict[str, dict[str, object]]:
        content = orjson.dumps({"query": query, "variables": {"input": given}})
        response = await self._client.post("/graphql", content=content, headers={"content-type": "application/json"})
        body = response.json()
        if body.get("errors"):
            raise RuntimeError(str(body["errors"]))
        return dict(body["data"])


@asynccontextmanager
async def open_attempt(url: str, port: int) -> AsyncIterator[Supervisor]:
    """Put a simulation onto a machine that does not exist, and speak for it."""
    token = token_urlsafe(32)
    engine = create_engine(url, pool_size=2, application="benchmark")
    try:
        async with session_factory(engine).begin() as session:
            project = await projects.named(session, projects.DEFAULT)
            wanted = simulations.Wanted(
                project_id=project.id, name="benchmark", entrypoint=("true",), parameters={}, environment={},
                working_directory=None, tags=(), cpus=0.0, memory_gib=0.0, gpus=0, gpu_model=None, labels={},
                machine_id=None, machine_name=None, max_price_per_hour=None, priority=0, max_runtime=None,
                max_retries=0, retry_on=(),
            )  # fmt: skip
            simulation = await simulations.create(session, wanted, ACTOR)
            machine_id = await machines.join(
                session, engine="benchmark", engine_key="nowhere", name="nowhere", host=None, cpus=1, memory_gib=1,
                gpus=0, gpu_model=None, labels={}, price_per_hour=Decimal(1),
            )  # fmt: skip
            assignment = Assignment(machine_id, "nowhere", None, (), Decimal(1), Decimal(1), "USD")
            attempt_id = await lifecycle.assign(session, simulation.id, 0, assignment, ACTOR)
            assert attempt_id is not None
            await attempts.claim_launch(session, attempt_id, sha256(token.encode()).digest())
    finally:
        await engine.dispose()
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        supervisor = Supervisor(client, simulation.id, attempt_id)
        await supervisor.hello()
        yield supervisor
