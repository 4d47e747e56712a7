"""The API on a real socket in the test's own event loop, and a world of rows to ask it about.

`api` is one graph process on the test's database; `serve` starts more of them, on the same database if not told
otherwise. `world` puts machines, attempts and supervisors into place, through the functions that the scheduler calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from graph_schema import SCHEMA
from live import within
from rows import assign_one, claim_launch, note_launch
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from websockets.asyncio.client import ClientConnection, connect

from db import machines, public_ids
from db.connection import Sessions, driver_of
from db.events import PLANNER, Actor
from db.models import Base
from db.states import Reason
from graph.context import Context
from graph.http.dashboard_files import DashboardFiles
from graph.http.shutdown import Shutdown
from graph.live.hub import Hub
from graph.live.process import Live
from graph.server import Server, build_config
from settings import Settings
from transitions.assign import Assignment, Placed, assign
from transitions.settle import Ending, end

PATIENCE_SECONDS = 120  # a bound for what takes milliseconds: the machine may be busy
HOST = "host-1"

CREATE = """
mutation Create($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { id } userErrors { code message field } }
}
"""
SHOW = """
query Show($id: ID!) {
  simulation(id: $id) {
    id name state reason reasonDetail startedAt finishedAt stopWanted { reason by } machine { name }
    attempts { id number startedAt endedAt reason reasonDetail exitCode signal }
    events { kind actor detail }
  }
}
"""
HELLO = """
mutation Hello($input: HelloAttemptInput!) {
  helloAttempt(input: $input) {
    attempt { id }
    verdict
    order {
      entrypoint environment workingDirectory maxRuntimeSeconds stopGraceSeconds heartbeatSeconds gpuIndices
      tensorboard systemMetricsSeconds
    }
    userErrors { code message field }
  }
}
"""
REPORT = """
mutation Report($input: ReportAttemptInput!) {
  reportAttempt(input: $input) {
    attempt { id } verdict stopReason expectedBatch userErrors { code message field }
  }
}
"""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is given up after 30 seconds: on a busy machine three long answers took longer."""
    monkeypatch.setattr("graph.http.endpoint.REQUEST_SECONDS", PATIENCE_SECONDS)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        await asyncio.sleep(0.005)


class Refused(Exception):
    """What a subscription ended with instead of an event."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


class Subscription:
    """The events of one subscription over graphql-transport-ws; iteration ends with the server's `complete`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """The data of the next event. Raises `Refused`; fails the test if nothing comes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = json.loads(await self._socket.recv())
        match message["type"]:
            case "complete":
                raise StopAsyncIteration
            case "next" if not message["payload"].get("errors"):
                return dict(message["payload"]["data"])
            case "next":
                raise Refused(message["payload"]["errors"])
            case "error":
                raise Refused(message["payload"])
        raise AssertionError(message)

    async def next(self) -> Any:
        """The next event of the one field that was subscribed to."""
        (value,) = (await anext(self)).values()
        return value

    async def all(self) -> list[Any]:
        """Every event until the server's `complete`."""
        return [next(iter(data.values())) async for data in self]


class Api:
    """One graph process, as its clients know it."""

    def __init__(self, settings: Settings, server: uvicorn.Server, port: int, client: httpx.AsyncClient) -> None:
        self.settings = settings
        self.server = server
        self.address = f"http://127.0.0.1:{port}"
        self.socket_address = f"ws://127.0.0.1:{port}/graphql"
        self.client = client

    @property
    def live(self) -> Live:
        live = self.server.lifespan.state["live"]
        assert isinstance(live, Live)
        return live

    @property
    def hub(self) -> Hub:
        return self.live.hub

    async def execute(
        self, query: str, variables: Any = None, *, token: str | None = None, status: int = 200
    ) -> dict[str, Any]:
        """The decoded body of the answer, whatever is in it."""
        headers = {"authorization": f"Bearer {token}".strip()} if token is not None else {}
        body = {"query": query, "variables": variables}
        response = await self.client.post("/graphql", json=body, headers=headers)
        assert response.status_code == status, response.text
        return dict(response.json())

    async def data(self, query: str, variables: Any = None, *, token: str | None = None) -> Any:
        """The data of an answer without errors; of its one root field, if there is only one."""
        body = await self.execute(query, variables, token=token)
        assert "errors" not in body, body["errors"]
        return next(iter(body["data"].values())) if len(body["data"]) == 1 else body["data"]

    async def error(self, query: str, variables: Any = None, *, token: str | None = None) -> dict[str, Any]:
        """The one error of an answer."""
        (error,) = (await self.execute(query, variables, token=token))["errors"]
        return dict(error)

    @asynccontextmanager
    async def subscribe(self, query: str, variables: Any = None) -> AsyncIterator[Subscription]:
        """Subscribe on a socket of its own, which is closed with the block."""
        async with connect(
            self.socket_address, subprotocols=["graphql-transport-ws"], compression=None, max_size=None, proxy=None
        ) as connection:  # type: ignore[list-item]  # a plain string is a subprotocol
            await connection.send('{"type": "connection_init"}')
            assert json.loads(await connection.recv())["type"] == "connection_ack"
            payload = {"query": query, "variables": variables}
            await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            yield Subscription(connection)

    def subscribe_directly(self, query: str, variables: Any = None) -> AsyncIterator[Any]:
        """The same without a socket: what `schema.subscribe()` yields."""
        state = self.server.lifespan.state
        context = Context(state["sessions"], self.settings, self.live, Actor("ada"))
        return self._directly(query, variables, context)

    async def _directly(self, query: str, variables: Any, context: Context) -> AsyncIterator[Any]:
        results = await SCHEMA.subscribe(query, variable_values=variables, context_value=context)
        async with contextlib.aclosing(results):
            while (result := await self._next_of(results)) is not None:
                if result.errors:
                    raise Refused([error.formatted for error in result.errors])
                yield next(iter(result.data.values()))

    async def _next_of(self, results: AsyncIterator[Any]) -> Any:
        async with within(PATIENCE_SECONDS, "the next event"):
            return await anext(results, None)


class _Server(Server):
    """The service's server, which leaves the signals to pytest, and ends at once on request."""

    def __init__(self, settings: Settings, sessions: Sessions | None, dashboard: DashboardFiles) -> None:
        self.streams = Shutdown()
        config = build_config(settings, self.streams, sessions=sessions, dashboard=dashboard, schema=SCHEMA)
        super().__init__(config, self.streams)
        self.ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As in earnest, without the tenth of a second that it always pauses there."""
        self.streams.begin()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.001)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serving(settings: Settings, sessions: Sessions | None, dashboard: DashboardFiles) -> AsyncIterator[Api]:
    """Serve as `python -m graph` does, on a free port."""
    # asyncio sets TCP_NODELAY only on sockets that name their protocol, which those of `socket.create_server` do not:
    # without it the second part of each answer waits for the client to acknowledge the first, 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = _Server(settings, sessions, dashboard)
    task = asyncio.create_task(server.serve(sockets=[listening]), name="serve")
    try:
        while not server.started:
            assert not task.done(), "the server ended before it began"
            await asyncio.sleep(0.001)
        address = f"http://127.0.0.1:{port}"
        # verify: nothing is encrypted here, and reading all certificates takes longer than most tests.
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_SECONDS, verify=False) as client:
            yield Api(settings, server, port, client)
    finally:
        server.ended.set()
        await task
        listening.close()


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Tracebacks as text: structlog's default draws them with all locals, which takes longer than most tests."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(["event"]),
        ],
        cache_logger_on_first_use=False,
    )
    yield
    structlog.reset_defaults()


Serve = Callable[..., Awaitable[Api]]


@pytest.fixture(scope="session")
def pages_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like web/: with a small build of it in `dist`. A dozen files, made once."""
    assets = tmp_path_factory.mktemp("pages") / "web" / "dist" / "assets"
    assets.mkdir(parents=True)
    for name in ("index", "graphiql"):
        page = f'<!doctype html><title>{name}</title><script type="module" src="/assets/{name}-AbCd1234.js"></script>'
        (assets.parent / f"{name}.html").write_text(page)
        (assets / f"{name}-AbCd1234.js").write_text(f"document.title = '{name}'" + " " * 500)
        for ending in ("br", "gz"):
            (assets / f"{name}-AbCd1234.js.{ending}").write_text(f"{name}, made smaller by {ending}")
    (assets / "icons-AbCd1234.ttf").write_bytes(b"letters")
    (assets.parent / "favicon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return assets.parents[1]


@pytest.fixture
def pages(pages_of_all: Path) -> Path:
    """What is served, and may not be changed; tests that change it have a copy."""
    return pages_of_all


@pytest.fixture
async def serve(database_url: str, engine: AsyncEngine, pages: Path) -> AsyncIterator[Serve]:
    """Start a graph process: `await serve(sessions=None, **settings)`. It ends with the test, and before its engine."""
    async with AsyncExitStack() as stack:

        async def start(sessions: Sessions | None = None, **given: Any) -> Api:
            given.setdefault("database_url", database_url)
            given.setdefault("database_pool_size", 5)
            dashboard = DashboardFiles((pages / "dist",))
            return await stack.enter_async_context(serving(Settings(**given), sessions, dashboard))

        yield start


@pytest.fixture
async def api(serve: Serve) -> Api:
    """One graph process on the test's database."""
    return await serve()


# --- rows ------------------------------------------------------------------------------------------------------


class Supervisor:
    """Speaks for one attempt, as the real one does; `batch` is the number of its next report."""

    def __init__(self, api: Api, number: int, simulation_id: str, token: str) -> None:
        self.api = api
        self.number = number  # the row's id
        self.attempt_id = public_ids.encode("Attempt", number)
        self.simulation_id = simulation_id
        self.token = token
        self.nonce = f"nonce of {number}"
        self.batch = 1

    async def hello_body(self, **given: Any) -> dict[str, Any]:
        token, status = given.pop("token", self.token), given.pop("status", 200)
        given = {"attemptId": self.attempt_id, "nonce": self.nonce, **given}
        return await self.api.execute(HELLO, {"input": given}, token=token, status=status)

    async def hello(self, **given: Any) -> Any:
        """The payload of a hello."""
        body = await self.hello_body(**given)
        assert "errors" not in body, body
        return body["data"]["helloAttempt"]

    async def report_body(self, **given: Any) -> dict[str, Any]:
        token, status = given.pop("token", self.token), given.pop("status", 200)
        given = {"attemptId": self.attempt_id, "nonce": self.nonce, **given}
        return await self.api.execute(REPORT, {"input": given}, token=token, status=status)

    async def report(self, **given: Any) -> Any:
        """The payload of a report, sent as it is given."""
        body = await self.report_body(**given)
        assert "errors" not in body, body
        return body["data"]["reportAttempt"]

    async def send(self, points: Any = None, **given: Any) -> Any:
        """Send the next batch, which must be taken."""
        answer = await self.report(batch=self.batch, points=points, **given)
        assert (answer["userErrors"], answer["expectedBatch"]) == ([], self.batch + 1), answer
        assert answer["attempt"]["id"] == self.attempt_id
        self.batch += 1
        return answer

    async def loss(self, *steps: int) -> None:
        """Send one batch of a metric `loss`; the value at a step is 1/(step + 1)."""
        await self.send(points("loss", *steps))

    async def exit(self, code: int = 0, **given: Any) -> Any:
        """Send the last batch."""
        return await self.send(exit={"exitCode": code}, **given)


def points(metric: str, *steps: int) -> dict[str, Any]:
    values = [1 / (step + 1) for step in steps]
    return {metric: {"steps": list(steps), "values": values, "elapsed": [step / 10 for step in steps]}}


class World:
    """The rows of a test."""

    def __init__(self, api: Api, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.api = api
        self.sessions = sessions
        self._machines = itertools.count(1)

    async def host(self, host_id: str = HOST, *, gpus: int = 0) -> None:
        async with driver_of(self.sessions) as driver:
            await machines.beat_host(driver, host_id, name=f"name of {host_id}", gpus=gpus)

    async def machine(self, name: str = "m1", *, host: str = HOST, **given: Any) -> int:
        """A machine that its engine has found, of 16 cpus and 64 GiB; its number."""
        await self.host(host)
        wanted = {
            "cpus": 16.0, "memory_gib": 64.0, "gpus": 0, "gpu_model": None, "labels": {}, "price_per_hour": Decimal(0),
        }  # fmt: skip
        async with self.sessions.begin() as session:
            return await machines.join(
                session, engine="local", engine_key=f"key-{name}", name=name, host=host, **{**wanted, **given}
            )

    async def simulation(self, **given: Any) -> str:
        """Queue a simulation through the API; its id."""
        payload = await self.api.data(CREATE, {"input": {"entrypoint": ["true"], **given}})
        assert payload["userErrors"] == [], payload
        return str(payload["simulation"]["id"])

    async def fill(self, rows: int) -> None:
        """Queue so many simulations by one statement: copies of one that went through the API."""
        await self.simulation()
        ((names,),) = await self.select(
            "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns "
            "WHERE table_name = 'simulations' AND is_generated = 'NEVER' AND column_name NOT IN ('id', 'client_key')"
        )
        copies = f"SELECT {names} FROM simulations, generate_series(2, :rows)"
        await self.select(f"INSERT INTO simulations ({names}) {copies}", rows=rows)

    async def gang(self, size: int, *hosts: str) -> list[Supervisor]:
        """A simulation on several machines, which was launched: its supervisors by rank, before their hellos."""
        simulation_id = await self.simulation(machines=size)
        number, assignments = number_of(simulation_id), []
        for rank in range(size):
            machine_id = await self.machine(f"own-{next(self._machines)}")
            host = hosts[rank] if hosts else HOST
            price = (Decimal(0), Decimal(1), "USD", 1.0, 0.0, 0)
            assignments.append(Assignment(machine_id, f"machine-{machine_id}", host, (), *price))
        supervisors = []
        async with self.sessions.begin() as session:
            made = await assign(session, [Placed(number, 0, tuple(assignments))], PLANNER)
            for rank in range(size):
                token = secrets.token_urlsafe()
                assert await claim_launch(session, made[number], sha256(token.encode()).digest(), rank)
                await note_launch(session, made[number], rank)
                supervisors.append(Supervisor(self.api, made[number], simulation_id, token))
        return supervisors

    async def attempt(self, simulation_id: str, machine_id: int | None = None, *, host: str = HOST) -> Supervisor:
        """Assign a queued simulation to a machine, and return its supervisor, before its hello."""
        if machine_id is None:
            machine_id = await self.machine(f"own-{next(self._machines)}")
        number, token = number_of(simulation_id), secrets.token_urlsafe()
        async with self.sessions.begin() as session:
            asked = text("SELECT attempt, cpus, memory_gib, gpus FROM simulations WHERE id = :id")
            fence, *grant = (await session.execute(asked, {"id": number})).one()
            price = (Decimal(0), Decimal(1), "USD")
            assignment = Assignment(machine_id, f"machine-{machine_id}", host, (), *price, *grant)
            attempt_id = await assign_one(session, number, fence, assignment, PLANNER)
            assert attempt_id is not None
            assert await claim_launch(session, attempt_id, sha256(token.encode()).digest())
            await note_launch(session, attempt_id)
        return Supervisor(self.api, attempt_id, simulation_id, token)

    async def running(self, simulation_id: str | None = None, **given: Any) -> Supervisor:
        """A supervisor that has said hello."""
        supervisor = await self.attempt(simulation_id or await self.simulation(**given))
        assert (await supervisor.hello())["verdict"] == "CONTINUE"
        return supervisor

    async def in_state(self, state: str) -> str:
        """A simulation in any state of the machine; its id."""
        simulation_id = await self.simulation()
        if state == "CANCELLED":
            await self.cancel(simulation_id)
        elif state != "QUEUED":
            supervisor = await self.attempt(simulation_id)
            if state != "STARTING":
                await supervisor.hello()
            if state in ("FINISHED", "FAILED"):
                await supervisor.exit(0 if state == "FINISHED" else 1)
        assert (await self.show(simulation_id))["state"] == state
        return simulation_id

    async def lose(self, supervisor: Supervisor, *, attempt: int = 1) -> None:
        """Its machine is lost: the simulation goes back to the queue, to be planned at once."""
        async with self.sessions.begin() as session:
            ending, again = Ending(Reason.MACHINE_LOST), timedelta(0)
            number = number_of(supervisor.simulation_id)
            assert await end(session, number, attempt, ending, PLANNER, retry_after=again)

    async def cancel(self, simulation_id: str) -> Any:
        return await self.api.data(
            "mutation ($id: ID!) { cancelSimulation(input: {id: $id}) "
            "{ simulation { id state stopWanted { reason by } } userErrors { code message field } } }",
            {"id": simulation_id},
        )

    async def show(self, simulation_id: str) -> Any:
        return await self.api.data(SHOW, {"id": simulation_id})

    async def select(self, statement: str, **values: Any) -> Any:
        """All rows of a statement, as tuples; changes are committed."""
        async with self.sessions.begin() as session:
            result = await session.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    async def counts(self) -> dict[str, int]:
        """How many rows each table has; `coverage` is the beating process's own."""
        tables = sorted(Base.metadata.tables.keys() - {"coverage"})
        union = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in tables)
        return dict(await self.select(union))


def number_of(public_id: str) -> int:
    return public_ids.decode(public_id)[1]


@pytest.fixture
def world(api: Api, sessions: async_sessionmaker[AsyncSession]) -> World:
    return World(api, sessions)


class Statements(list[str]):
    """The statements that an engine sends, while the block runs."""

    @contextmanager
    def of(self, engine: AsyncEngine, *, bare: bool = False) -> Iterator[Statements]:
        """Bare: also those that `driver_of` sends past SQLAlchemy."""
        drivers: set[Any] = set()

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            self.append(statement)

        def logged(record: Any) -> None:
            self.append(record.query)

        def borrowed(connection: Any, *_: Any) -> None:
            drivers.add(connection.driver_connection)
            connection.driver_connection.add_query_logger(logged)  # the same one again is none

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        if bare:
            event.listen(engine.sync_engine, "checkout", borrowed)
        try:
            yield self
        finally:
            event.remove(engine.sync_engine, "before_cursor_execute", note)
            if bare:
                event.remove(engine.sync_engine, "checkout", borrowed)
            for each in drivers:
                each.remove_query_logger(logged)

    def matching(self, *words: str) -> list[str]:
        return [statement for statement in self if all(word in statement for word in words)]


@pytest.fixture
def statements() -> Statements:
    return Statements()


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], str], Awaitable[None]]:
    return eventually


@pytest.fixture
def only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the timer of the tails: what arrives was announced."""
    monkeypatch.setattr("graph.live.hub.LOOK_AGAIN_SECONDS", 3_600)


@pytest.fixture
def only_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where notifications are off, the timer ticks faster than in earnest."""
    monkeypatch.setattr("graph.live.hub.POLL_SECONDS", 0.05)
