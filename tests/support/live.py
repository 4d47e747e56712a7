"""A whole service as a user starts it, `simulations up`, in real processes, on a database of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import psutil
import witness
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.websockets import WebsocketsTransport

from db.cluster import find_postmaster
from db.connection import connect_raw
from db.embedded import find_url
from db.public_ids import decode

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "tests" / "client"
PATIENCE_SECONDS = 60  # a bound for what should take a second or two: the machine may be busy

CREATE = """
mutation Create($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { id } userErrors { message field } }
}
"""
CURVE = """
subscription Curve($id: ID!, $after: String) {
  convergence(simulationId: $id, after: $after) {
    cursor attempt live state reason series { metric steps values elapsed supersedesFrom }
  }
}
"""
SHOW = """
query Show($id: ID!) {
  simulation(id: $id) {
    id state reason reasonDetail waiting { reason detail } machine { name }
    attempts { id number startedAt endedAt reason reasonDetail exitCode signal }
    events { kind detail }
    logs(first: 500) { nodes { stream text } }
  }
}
"""
MACHINES = """
query Machines {
  machines(first: 100) { nodes { id name state resources { cpus memoryGib gpus } free { cpus memoryGib gpus } } }
}
"""
LOG = """
SELECT attempt, unnest(steps) AS step, unnest("values") AS value FROM convergence
WHERE simulation_id = $1 AND metric = $2 ORDER BY attempt, batch, step
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


@contextmanager
def held(*processes: psutil.Process) -> Iterator[None]:
    """Stop processes as SIGSTOP does while the block runs; whoever is killed meanwhile stays dead."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def kill(*processes: psutil.Process) -> None:
    """kill -9, all at once."""
    for process in processes:
        process.kill()


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended; a zombie has."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@dataclass
class Service:
    """`simulations up`, started and ended as often as a test likes, on one data directory and one database."""

    data_directory: Path
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None)
    starts: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.data_directory.glob("up-*.log")))

    def start(self) -> None:
        """Start it, not waiting."""
        self.starts += 1
        with (self.data_directory / f"up-{self.starts}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up"],
                env={**self.environment, "PORT": str(self.port)},
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.data_directory,
            )

    async def ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        async with httpx.AsyncClient() as client:
            while True:
                assert self.process is not None
                assert self.process.poll() is None, f"up ended with {self.process.returncode}:\n{self.log}"
                with suppress(httpx.TransportError):
                    if (await client.get(f"{self.address}/readyz")).status_code == 200:
                        return
                assert time.monotonic() < deadline, f"not ready:\n{self.log}"
                await asyncio.sleep(0.05)

    async def up(self) -> None:
        self.start()
        await self.ready()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS)

    def child(self, name: str) -> psutil.Process:
        """The process of `graph` or `scheduler`."""
        assert self.process is not None
        for process in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                if process.cmdline()[-2:] == ["-m", name]:
                    return process
        raise LookupError(name)

    async def execute(self, query: str, **variables: Any) -> Any:
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(f"{self.address}/graphql", json={"query": query, "variables": variables})
        body = response.json()
        assert "errors" not in body, body["errors"]
        return body["data"]

    async def submit(self, *entrypoint: str, **given: Any) -> str:
        """Queue a simulation; its id."""
        given.setdefault("resources", {"cpus": 0.1})
        data = await self.execute(CREATE, input={"entrypoint": list(entrypoint), **given})
        assert not data["createSimulation"]["userErrors"], data
        return str(data["createSimulation"]["simulation"]["id"])

    async def show(self, simulation_id: str) -> Any:
        return (await self.execute(SHOW, id=simulation_id))["simulation"]

    async def cancel(self, simulation_id: str) -> None:
        await self.execute(
            "mutation Cancel($id: ID!) { cancelSimulation(input: {id: $id}) { userErrors { message } } }",
            id=simulation_id,
        )

    async def curve(self, simulation_id: str, after: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """The events of its convergence, through Python's gql, resumed by cursor while the service is away."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                transport = WebsocketsTransport(f"ws://127.0.0.1:{self.port}/graphql")
                async with Client(transport=transport) as session:
                    async for result in session.subscribe(
                        GraphQLRequest(CURVE, variable_values={"id": simulation_id, "after": after})
                    ):
                        event = result["convergence"]
                        after = event["cursor"]
                        yield event
                return
            except (TransportError, OSError):
                assert time.monotonic() < deadline, f"the service did not come back:\n{self.log}"
                await asyncio.sleep(0.05)

    async def until(self, simulation_id: str, *states: str) -> dict[str, Any]:
        """Wait until it is in one of these states; the event that said so."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for event in self.curve(simulation_id):
                if event["state"] in states:
                    return event
        raise AssertionError(f"it ended without reaching {states}: {await self.show(simulation_id)}")

    async def finished(self, simulation_id: str) -> dict[str, Any]:
        """Wait for its end; what there is to see of it."""
        await self.until(simulation_id, "FINISHED", "FAILED", "CANCELLED")
        return dict(await self.show(simulation_id))

    async def machines(self) -> list[dict[str, Any]]:
        return list((await self.execute(MACHINES))["machines"]["nodes"])

    # --- what is behind it ---------------------------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        url = self.environment.get("DATABASE_URL") or find_url(self.data_directory)
        assert url is not None, "no database runs"
        return url

    @property
    def postmaster(self) -> psutil.Process:
        """The first process of the embedded server."""
        found = find_postmaster(self.data_directory / "postgres")
        assert found is not None, "no server runs"
        return found.process

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database itself."""
        connection = await connect_raw(self.database_url, application="test")
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def log_of(self, simulation_id: str, metric: str) -> list[tuple[int, int, float]]:
        """What the database holds of a metric: attempt, step and value, in the order in which it was stored."""
        rows = await self.fetch(LOG, number_of(simulation_id), metric)
        return [(row["attempt"], row["step"], row["value"]) for row in rows]

    def recorded(self, attempt_id: str, who: str = "supervisor") -> psutil.Process | None:
        """The supervisor or the child of an attempt, as it is written down in the attempt's directory."""
        path = self.data_directory / "attempts" / quote(attempt_id, safe="") / f"{who}.json"
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            return psutil.Process(json.loads(path.read_bytes())["pid"])
        return None

    def processes_of(self, attempt_id: str | None = None) -> list[psutil.Process]:
        """Every living process that carries the mark of this attempt; of any attempt, if none is named."""
        under = f"{self.data_directory}/attempts/{quote(attempt_id, safe='') if attempt_id else ''}"
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("SIMULATION_ATTEMPT_DIRECTORY", "").startswith(under) and is_alive(process):
                    found.append(process)
        return found

    def everything(self) -> list[psutil.Process]:
        """Every living process that has to do with the data directory, by its command, environment or whereabouts."""
        directory = str(self.data_directory)
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                told = [*process.cmdline(), *process.environ().values(), process.cwd()]
                if any(directory in text for text in told) and is_alive(process):
                    found.append(process)
        return found


@dataclass(frozen=True)
class Witness:
    """A simulation that keeps a diary (witness.py), seen from outside."""

    directory: Path

    @classmethod
    def on(cls, service: Service, name: str = "witness") -> Witness:
        directory = service.data_directory / name
        directory.mkdir()
        return cls(directory)

    @property
    def command(self) -> tuple[str, ...]:
        return ("python", witness.__file__, str(self.directory))

    def permit(self, name: str) -> None:
        """Let it `speak`, `finish`, or `let-go` once it was told to stop."""
        (self.directory / name).touch()

    def notes(self, word: str, attempt: int | None = None) -> list[int]:
        """The numbers behind this word in its diary; of all attempts, if none is given."""
        with suppress(FileNotFoundError):
            lines = [line.split() for line in (self.directory / "diary").read_text().splitlines()]
            return [int((*line, 0)[2]) for line in lines if line[1] == word and attempt in (None, int(line[0]))]
        return []

    @property
    def said(self) -> int:
        """How many points it has printed, at least."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.directory / "said").read_text())
        return 0

    async def has_noted(self, word: str, attempt: int = 1) -> None:
        await eventually(lambda: bool(self.notes(word, attempt)), f"attempt {attempt} noted {word!r}")

    async def has_said(self, more: int) -> None:
        """Wait until it has printed so many more points."""
        begin = self.said
        await eventually(lambda: self.said >= begin + more, f"{more} more points")


@dataclass
class Watch:
    """A subscriber who collects what it is told of a convergence, and resumes by cursor when it is cut off."""

    service: Service
    simulation_id: str
    events: list[dict[str, Any]] = field(default_factory=list)

    async def follow(self) -> None:
        async for event in self.service.curve(self.simulation_id):
            self.events.append(event)

    def received(self, metric: str) -> list[tuple[int, int, float | None]]:
        """Attempt, step and value of every point, in the order of arrival."""
        return [
            (event["attempt"], step, value)
            for event in self.events
            for series in event["series"]
            if series["metric"] == metric
            for step, value in zip(series["steps"], series["values"], strict=True)
        ]

    async def has_received(self, count: int, metric: str = "loss") -> None:
        await eventually(lambda: len(self.received(metric)) >= count, f"{count} points arrive")


def number_of(public_id: str) -> int:
    """The number of a row behind a Relay id."""
    return decode(public_id)[1]


def points(events: list[dict[str, Any]], metric: str) -> list[tuple[int, float | None]]:
    """What a client's curve of one metric looks like after these events."""
    curve: list[tuple[int, float | None]] = []
    for event in events:
        for series in event["series"]:
            if series["metric"] == metric:
                if series["supersedesFrom"] is not None:
                    curve = [point for point in curve if point[0] < series["supersedesFrom"]]
                curve.extend(zip(series["steps"], series["values"], strict=True))
    return curve


@contextmanager
def service_on(database_url: str | None, **settings: str) -> Iterator[Service]:
    """A service that is not started yet; whatever it leaves behind is ended with the test."""
    directory = Path(tempfile.mkdtemp(prefix="sim-", dir="/tmp"))
    directory.chmod(0o711)
    environment = {
        **os.environ,
        "HOST": "127.0.0.1",
        "SIMULATIONS_DATA_DIR": str(directory),
        "SIMULATIONS_HEARTBEAT_SECONDS": "0.5",
        **settings,
    }
    if database_url is not None:
        environment["DATABASE_URL"] = database_url
    service = Service(directory, free_port(), environment)
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                service.process.wait(15)
            if service.process.poll() is None:
                service.process.kill()
                service.process.wait()
        for process in service.everything():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(directory, ignore_errors=True)
