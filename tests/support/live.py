"""A whole service as a user starts it, `simulations up`, in real processes, on a database of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import memory
import psutil
import warm
from failures import keep_logs
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.websockets import WebsocketsTransport

from db.connection import connect_raw
from db.embedded.cluster import find_postmaster
from db.embedded.server import find_url
from db.outage import Driver
from db.public_ids import decode
from runner.supervisor import assignment

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "tests" / "client"
# A bound for what should take a second or two: the machine may be busy, and each job of Ray starts Python processes.
PATIENCE_SECONDS = 240 if os.environ.get("REQUIRE_RAY") else 120
PROGRAM_SECONDS = max(PATIENCE_SECONDS, 180)  # simulations are nice, and get what is left on a busy machine
LATER = 0.15  # seconds, after each of which `eventually` pauses once more between two looks
MOST_PAUSES = 10

# What takes seconds takes tenths of them. A lease is as long as by default: what is killed is found dead by its process
# id, and a short lease may run out on a busy machine, between an assignment and the hello.
BRISK = {
    "SIMULATIONS_LEASE_SECONDS": "30",
    "SIMULATIONS_HEARTBEAT_SECONDS": "0.3",
    "SIMULATIONS_TICK_SECONDS": "0.3",
    "SIMULATIONS_RETRY_BACKOFF_SECONDS": "0.1",
    "SIMULATIONS_STOP_GRACE_SECONDS": "10",
}
UP = ("-m", "cli", "up")

CREATED = "{ simulation { id } userErrors { message field } }"
CREATE = f"mutation Create($input: CreateSimulationInput!) {{ createSimulation(input: $input) {CREATED} }}"
FIRST_PORT = 20_000
WORKER = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
MOST_WORKERS = 16  # of xdist; each has ports of its own
IN_ONE = 20  # mutations in a request: as many root fields as it may have
CANCEL = "mutation Cancel($id: ID!) { cancelSimulation(input: {id: $id}) { userErrors { message } } }"
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
IN_NO_TRANSACTION = """
SELECT NOT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = $1 AND state <> 'idle'
)
"""
ROUND = "SELECT beat_at FROM coverage WHERE role = 'scheduler'"
LOG = """
SELECT attempt, unnest(steps) AS step, unnest("values") AS value FROM convergence
WHERE simulation_id = $1 AND metric = $2 ORDER BY attempt, batch, step
"""


_given: deque[int] = deque(maxlen=50)  # the newest ports of `free_port`


def http(**options: Any) -> httpx.AsyncClient:
    """A client of a service; nothing is encrypted here, and reading all certificates takes longer than a request."""
    return httpx.AsyncClient(**{"timeout": PATIENCE_SECONDS, "verify": False, **options})


def free_port() -> int:
    """Find a port that nothing else takes before it is listened on, nor while its service is down.

    It is not one of those that clients are given, nor of another worker of xdist, nor one that was given out before.
    """
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        # Not by `random`: pytest-randomly seeds that, and every process of the tests would begin with the same ports.
        number = secrets.randbelow(max(first_of_clients - FIRST_PORT, 1_000) // MOST_WORKERS)
        port = FIRST_PORT + number * MOST_WORKERS + WORKER % MOST_WORKERS
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Fail with what was waited for when the block takes longer."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        assert not limit.expired(), f"not within {seconds:g} s: {what}"
        raise


async def output_of(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """What a program prints and complains of until its end; one that does not end in time is killed."""
    try:
        async with within(PATIENCE_SECONDS, "the program ends"):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return (output or b"").decode(), (errors or b"").decode()


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for something that nothing announces. It is looked for less often the longer it takes: a look costs CPU.

    Each look has as many seconds of its own.
    """
    began = time.monotonic()
    while True:
        async with within(seconds, what):
            if await answer if isinstance(answer := condition(), Awaitable) else answer:
                return
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:g} s: {what}"
        for _ in range(1 + min(int(waited / LATER), MOST_PAUSES)):
            await asyncio.sleep(0.02)


@contextmanager
def held(*processes: psutil.Process) -> Iterator[None]:
    """Stop processes as SIGSTOP does while the block runs; a process killed meanwhile stays dead."""
    try:
        for process in processes:
            suspend(process)
        yield
    finally:
        for process in processes:
            resume(process)


def suspend(process: psutil.Process) -> None:
    """Stop a process as SIGSTOP does, and wait until it has stopped: the signal takes effect a moment later."""
    with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
        process.suspend()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (status := process.status()) not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            assert time.monotonic() < deadline, f"not stopped within {PATIENCE_SECONDS} s: {process} is {status}"
            time.sleep(0.001)


def resume(process: psutil.Process) -> None:
    """Let a process go on that was stopped; it may have been killed meanwhile."""
    with suppress(psutil.NoSuchProcess):
        process.resume()


def kill(*processes: psutil.Process) -> None:
    """kill -9, all at once, and wait until all are dead; the end of one may have been that of another."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, "killed, and alive"
        time.sleep(0.001)


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
    command: tuple[str, ...] = UP  # what Python runs
    cold: bool = False  # whether it imports its modules at each start (warm.py)
    process: subprocess.Popen[bytes] | warm.Process | None = field(default=None)
    starts: int = 0
    spent: bool = False  # not to be lent to another test
    parts: dict[str, psutil.Process] = field(default_factory=dict)  # as they were found the last time
    attempts: Sequence[Path] = ()  # where supervisors have their directories, if not in the data directory

    def __post_init__(self) -> None:
        self.attempts = self.attempts or [self.data_directory / "attempts"]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.data_directory.glob("up-*.log")))

    @property
    def log_of_start(self) -> str:
        """What it has said since it was started the last time."""
        return (self.data_directory / f"up-{self.starts}.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, not waiting."""
        self.starts += 1
        environment = {**self.environment, "PORT": str(self.port)}
        with (self.data_directory / f"up-{self.starts}.log").open("w") as log:
            if not self.cold:
                self.process = warm.start(
                    self.command, environment=environment, directory=self.data_directory, stdout=log
                )
                return
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.data_directory,
                preexec_fn=warm.end_with_parent,
            )

    async def ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        async with http() as client:
            while True:
                assert self.process is not None
                assert self.process.poll() is None, f"up ended with {self.process.returncode}:\n{self.log}"
                with suppress(httpx.TransportError):
                    if (await client.get(f"{self.address}/readyz")).status_code == 200:
                        return
                assert time.monotonic() < deadline, f"not ready:\n{self.log}"
                await asyncio.sleep(0.05)

    async def up(self) -> None:
        """Start it, and wait until it answers and all of it runs: a scheduler may begin later than graph answers."""
        self.start()
        await (self.whole() if self.command == UP else self.ready())

    async def whole(self) -> None:
        """Wait until all of it runs and answers, after something of it was killed."""
        await self.ready()
        for name in ("graph", "scheduler"):
            await eventually(partial(self.has, name), f"{name} runs")

    def has(self, name: str) -> bool:
        """Whether `graph` or `scheduler` runs."""
        with suppress(LookupError, psutil.Error):
            return is_alive(self.child(name))
        return False

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait until it ends by itself; its exit status."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS)

    def child(self, name: str) -> psutil.Process:
        """The process of `graph` or `scheduler`."""
        assert self.process is not None
        with suppress(KeyError, psutil.NoSuchProcess):  # a look at all processes takes long: the same as the last time
            if is_alive(found := self.parts[name]) and found.ppid() == self.process.pid:
                return found
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children():
                with suppress(psutil.Error):
                    if process.cmdline()[-2:] == ["-m", name]:
                        self.parts[name] = process
                        return process
        raise LookupError(name)

    async def execute(self, query: str, **variables: Any) -> Any:
        async with http() as client:
            response = await client.post(f"{self.address}/graphql", json={"query": query, "variables": variables})
        body = response.json()
        assert "errors" not in body, f"{body['errors']}\n{self.log[-4000:]}"
        return body["data"]

    async def submit(self, *entrypoint: str, **given: Any) -> str:
        """Queue a simulation; its id."""
        given.setdefault("resources", {"cpus": 0.1})
        data = await self.execute(CREATE, input={"entrypoint": list(entrypoint), **given})
        assert not data["createSimulation"]["userErrors"], data
        return str(data["createSimulation"]["simulation"]["id"])

    async def submit_many(self, given: Sequence[Mapping[str, Any]]) -> list[str]:
        """Queue many at once, `IN_ONE` in a request; their ids."""
        ids: list[str] = []
        for begin in range(0, len(given), IN_ONE):
            inputs = {
                f"i{number}": {"resources": {"cpus": 0.1}, **each}
                for number, each in enumerate(given[begin : begin + IN_ONE])
            }
            declared = ", ".join(f"${name}: CreateSimulationInput!" for name in inputs)
            fields = " ".join(f"{name}: createSimulation(input: ${name}) {CREATED}" for name in inputs)
            data = await self.execute(f"mutation Create({declared}) {{ {fields} }}", **inputs)
            assert not [each for each in data.values() if each["userErrors"]], data
            ids += [str(data[name]["simulation"]["id"]) for name in inputs]
        return ids

    async def cli(self, *words: str) -> tuple[str, str]:
        """Run a command of the command line, which must succeed; its output, and what it said beside it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", *words, cwd=ROOT, env={**os.environ, "SIMULATIONS_URL": self.address},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, said = await output_of(process)
        assert process.returncode == 0, said
        return out.strip(), said

    async def show(self, simulation_id: str) -> Any:
        return (await self.execute(SHOW, id=simulation_id))["simulation"]

    async def cancel(self, simulation_id: str) -> None:
        await self.execute(CANCEL, id=simulation_id)

    async def curve(self, simulation_id: str, after: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """The events of its convergence, through Python's gql, resumed by cursor while the service is away."""
        away = None  # since when; an outage begins anew after a connection that held
        while True:
            connected = None
            try:
                transport = WebsocketsTransport(f"ws://127.0.0.1:{self.port}/graphql")
                async with Client(transport=transport) as session:
                    connected = time.monotonic()
                    async for result in session.subscribe(
                        GraphQLRequest(CURVE, variable_values={"id": simulation_id, "after": after})
                    ):
                        event = result["convergence"]
                        after = event["cursor"]
                        yield event
                return
            except (TransportError, OSError):
                now = time.monotonic()
                if away is None or (connected is not None and now - connected > 1):
                    away = now
                assert now - away < PATIENCE_SECONDS, f"the service did not come back:\n{self.log}"
                await asyncio.sleep(0.05)

    async def events(self, simulation_id: str, after: str | None = None) -> list[dict[str, Any]]:
        """All events of its convergence, once it has ended."""
        async with within(PROGRAM_SECONDS, f"the convergence of {simulation_id} completes"):
            return [event async for event in self.curve(simulation_id, after)]

    async def until(self, simulation_id: str, *states: str, seconds: float = PROGRAM_SECONDS) -> dict[str, Any]:
        """Wait until it is in one of these states; the event that said so."""
        async with within(seconds, f"{simulation_id} is in one of {states}"):
            async for event in self.curve(simulation_id):
                if event["state"] in states:
                    return event
        raise AssertionError(f"it ended without reaching {states}: {await self.show(simulation_id)}")

    async def finished(self, simulation_id: str, seconds: float = PROGRAM_SECONDS) -> dict[str, Any]:
        """Wait for its end; what there is to see of it."""
        await self.until(simulation_id, "FINISHED", "FAILED", "CANCELLED", seconds=seconds)
        return dict(await self.show(simulation_id))

    async def machines(self) -> list[dict[str, Any]]:
        return list((await self.execute(MACHINES))["machines"]["nodes"])

    async def is_free(self) -> bool:
        """Whether all machines are there and all that they have is free."""
        machines = await self.machines()
        return bool(machines) and all(
            each["state"] == "ONLINE" and each["free"] == each["resources"] for each in machines
        )

    async def pause(self, name: str) -> psutil.Process:
        """Stop a part as SIGSTOP does, while it is in no transaction: it must hold no locks that others wait for."""
        process = self.child(name)
        await eventually(partial(self._is_paused, name, process), f"{name} is stopped while it is in no transaction")
        return process

    async def _is_paused(self, name: str, process: psutil.Process) -> bool:
        """Stop a part; if it is in a transaction, or can't be asked about, let it go on."""
        is_idle = False
        try:
            suspend(process)
            assert is_alive(process), f"{name} has ended:\n{self.log[-4000:]}"
            # Twice: a statement that was sent just before may not have begun when the first look comes.
            is_idle = await self._is_idle(name) and await self._is_idle(name)
        finally:
            if not is_idle:
                resume(process)
        return is_idle

    async def _is_idle(self, name: str) -> bool:
        return await self.says(IN_NO_TRANSACTION, f"simulations-{name}")

    @asynccontextmanager
    async def paused(self, name: str) -> AsyncIterator[None]:
        """Pause a part while the block runs."""
        with held(await self.pause(name)):
            yield

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

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Driver]:
        """A connection to the database, for several statements: to open one takes more CPU than most of them."""
        connection = await connect_raw(self.database_url, application="test")
        try:
            yield connection
        finally:
            await connection.close()

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database itself."""
        async with self.connected() as database:
            return list(await database.fetch(statement, *arguments))

    async def says(self, question: str, *arguments: object) -> bool:
        """Ask the database a question that it answers with yes or no."""
        [[answer]] = await self.fetch(question, *arguments)
        return bool(answer)

    async def in_time_says(self, what: str, question: str, *arguments: object) -> None:
        """Wait until the database, which runs, answers a question with yes."""
        async with self.connected() as database:
            await eventually(partial(database.fetchval, question, *arguments), what)

    async def rounds(self, count: int) -> None:
        """Wait until the scheduler has looked at everything so many times more."""
        async with self.connected() as database:
            for _ in range(count):
                beat = await database.fetchval(ROUND)
                has_beaten = partial(database.fetchval, f"SELECT ({ROUND}) IS DISTINCT FROM $1", beat)
                await eventually(has_beaten, "the scheduler looks at everything")

    async def alter(self, statements: str) -> None:
        """Change what the database holds, all at once."""
        async with self.connected() as database:
            await database.execute(statements)

    async def log_of(self, simulation_id: str, metric: str) -> list[tuple[int, int, float]]:
        """What the database holds of a metric: attempt, step and value, in the order in which it was stored."""
        rows = await self.fetch(LOG, number_of(simulation_id), metric)
        return [(row["attempt"], row["step"], row["value"]) for row in rows]

    def launchers(self) -> list[psutil.Process]:
        """The living launchers of this host, by their sockets."""
        found = []
        for path in (self.data_directory / "launchers").glob("*.*"):
            with suppress(ValueError, psutil.NoSuchProcess):  # launcher.log
                found.append(psutil.Process(int(path.suffix[1:])))
        return [process for process in found if is_alive(process)]

    def recorded(self, who: str, attempt: str = "*") -> list[psutil.Process]:
        """The `supervisor` or `child` of every attempt on this host, as they are written down, oldest first."""
        file = "supervisor.json" if who == "supervisor" else "config.json"
        found = []
        for path in chain.from_iterable(each.glob(f"{attempt}/{file}") for each in self.attempts):
            # The scheduler may remove an attempt's directory at any time; the child is recorded once it runs.
            with suppress(FileNotFoundError, KeyError, psutil.NoSuchProcess):
                record = json.loads(path.read_bytes()) if who == "supervisor" else assignment.read(path.parent)["child"]
                found.append((path.stat().st_mtime, psutil.Process(record["pid"])))
        return [process for _, process in sorted(found, key=lambda each: each[0])]

    def processes_of(self, attempt_id: str | None = None) -> list[psutil.Process]:
        """Every living process of this attempt, by its mark or as recorded; of any attempt, if none is named."""
        name = quote(attempt_id, safe="") if attempt_id else "*"
        end = name.removesuffix("*")
        marks = [f"\0SIMULATION_ATTEMPT_DIRECTORY={each}/{end}".encode() for each in self.attempts]
        supervisors = {process.pid for process in self.recorded("supervisor", name)}  # forked: without an own environ
        return [
            process
            for pid, environment in _environments()
            if pid in supervisors or any(mark in b"\0" + environment for mark in marks)
            for process in _living(pid)
        ]

    def itself(self) -> list[psutil.Process]:
        """`up` and what it started, its database included; the simulations are not its own."""
        assert self.process is not None
        postmaster = self.postmaster
        found = [psutil.Process(self.process.pid), self.child("graph"), self.child("scheduler"), postmaster]
        return [*found, *postmaster.children()]

    def everything(self) -> list[psutil.Process]:
        """Every living process that has to do with the data directory, by its command, environment or whereabouts."""
        directory = os.fsencode(self.data_directory)
        return [
            process
            for pid, environment in _environments()
            if directory in environment or _shows(pid, directory)
            for process in _living(pid)
        ]


# psutil reads more files of each process for the same answers, and they are asked again and again.


def _environments() -> Iterator[tuple[int, bytes]]:
    """The id of every process that may be looked at, and what it was given as its environment."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError):
                yield int(entry), Path(f"/proc/{entry}/environ").read_bytes()


def _shows(pid: int, directory: bytes) -> bool:
    """Whether a process has to do with a directory by its command or whereabouts."""
    with suppress(OSError):
        return directory in Path(f"/proc/{pid}/cmdline").read_bytes() or directory in os.readlink(b"/proc/%d/cwd" % pid)
    return False


def _living(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if is_alive(process):
            yield process


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


def service_on(database_url: str | None, *, cold: bool = False, **settings: str) -> AbstractContextManager[Service]:
    """A service that is not started yet; whatever it leaves behind is ended with the test."""
    return part_on(database_url, UP, settings, cold=cold)


@contextmanager
def part_on(
    database_url: str | None, command: tuple[str, ...], settings: Mapping[str, str], *, cold: bool = False
) -> Iterator[Service]:
    """Not the whole service but what `python COMMAND` is: a second scheduler, say, on a data directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="sim-", dir=memory.PLACE))
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
    service = Service(directory, free_port(), environment, command, cold)
    try:
        yield service
    except BaseException:
        keep_logs(directory)
        raise
    finally:
        if service.process is not None and service.process.poll() is None:
            service.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                service.process.wait(15)
            if service.process.poll() is None:
                service.process.kill()
                service.process.wait(PATIENCE_SECONDS)
        for process in service.everything():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(directory, ignore_errors=True)
