"""WebSocket handler: pings, stalled readers, shutdown, limits, violations of the protocol."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import warm
from live import free_port, within
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from graph.http.shutdown import Shutdown
from graph.server import Server, build_server
from graph.wire.websocket import Wire, head_of
from settings import Settings

World = Any  # the fixtures of conftest.py

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 60  # a bound for what takes milliseconds: the machine may be busy
FOR_EVER_SECONDS = 3600

INIT = '{"type": "connection_init"}'
VIEWER = "{ viewer { name } }"
BIG = "{ __schema { types { name description fields { name description args { name description } } } } }"
WATCH = "subscription { machineChanged { id } }"
CURVE = """
subscription ($id: ID!, $after: String) {
  convergence(simulationId: $id, after: $after) { cursor state series { metric steps values elapsed } }
}
"""


def subscribe(operation_id: str, query: str, **variables: Any) -> str:
    return json.dumps({"id": operation_id, "type": "subscribe", "payload": {"query": query, "variables": variables}})


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that nothing announces."""
    async with within(PATIENCE_SECONDS, what):
        while not condition():
            await asyncio.sleep(0.005)


# --- servers and clients ---------------------------------------------------------------------------------------


class Here:
    """A graph process' server in the test's own event loop."""

    def __init__(self, server: Server, task: asyncio.Task[None]) -> None:
        self.server = server
        self.task = task
        self.port = server.servers[0].sockets[0].getsockname()[1]

    @property
    def wires(self) -> list[Wire]:
        return [each for each in self.server.server_state.connections if isinstance(each, Wire)]

    async def end(self) -> None:
        self.server.should_exit = True
        await asyncio.wait_for(self.task, PATIENCE_SECONDS)


Start = Callable[..., Awaitable[Here]]


@pytest.fixture
async def start(database_url: str) -> AsyncIterator[Start]:
    """Serve in this loop as `python -m graph` does: `await start(**settings)`."""
    async with AsyncExitStack() as stack:

        async def begin(**given: Any) -> Here:
            settings = Settings(database_url=database_url, database_pool_size=5, port=0, **given)
            server = build_server(settings)
            task = asyncio.create_task(server.serve(), name="serve")
            await until(lambda: server.started or task.done(), "it serves")
            here = Here(server, task)
            stack.push_async_callback(here.end)
            return here

        yield begin


@asynccontextmanager
async def plain(port: int, *, small: bool = False, **given: Any) -> AsyncIterator[ClientConnection]:
    """A socket with nothing said on it.

    small: what it has not read stays at the server, as far as a system allows.
    """
    raw = socket.socket()
    if small:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    given = {"max_size": None, "compression": None, "ping_interval": None, "close_timeout": 5, **given}
    async with connect(
        f"ws://127.0.0.1:{port}/graphql", sock=raw, subprotocols=["graphql-transport-ws"], proxy=None, **given
    ) as connection:  # type: ignore[list-item]  # a plain string is a subprotocol
        yield connection


@asynccontextmanager
async def opened(port: int, **given: Any) -> AsyncIterator[ClientConnection]:
    """A socket on which operations may be sent."""
    async with plain(port, **given) as connection:
        await connection.send(INIT)
        assert await receive(connection) == {"type": "connection_ack"}
        yield connection


async def receive(connection: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        text = await connection.recv()
    assert isinstance(text, str)
    return json.loads(text)


async def close_code(connection: ClientConnection) -> int:
    """Read to the end, and return the code that the server closed with."""
    reason = await closing(connection)
    assert reason.rcvd is not None, "cut off"
    return int(reason.rcvd.code)


async def closing(connection: ClientConnection) -> ConnectionClosed:
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed as closed:
            return closed


async def is_alive(connection: ClientConnection) -> bool:
    await connection.send('{"type": "ping"}')
    while (message := await receive(connection))["type"] != "pong":
        assert message["type"] in ("next", "complete", "ping"), message
    return True


Told = Callable[[], str]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Told:
    """Everything that was logged so far."""
    printed: list[str] = []

    def all_of_it() -> str:
        printed.extend(capsys.readouterr())
        return "\n".join([*printed, caplog.text])

    return all_of_it


@pytest.fixture
def nothing_is_a_defect(told: Told) -> Iterator[None]:
    """Nothing that a client does is logged as a mistake of the service."""
    yield
    assert "Traceback" not in told()
    assert "exception" not in told().lower()


class Process:
    """`python -m graph` in earnest."""

    def __init__(self, process: warm.Process, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None, "the process ends")
        assert self.process.returncode is not None
        return self.process.returncode


Spawn = Callable[..., Awaitable[Process]]


@pytest.fixture
async def spawn(database_url: str, tmp_path: Path) -> AsyncIterator[Spawn]:
    """Start `python -m graph`: `await spawn(SIMULATIONS_SOCKET_PING_SECONDS=1)`. Nothing it logs may be a traceback."""
    begun: list[Process] = []

    async def begin(**environment: object) -> Process:
        port = free_port()
        log = tmp_path / f"graph-{len(begun)}.log"
        with log.open("wb") as stderr:
            process = warm.start(
                ("-m", "graph"),
                environment={
                    **os.environ,
                    "DATABASE_URL": database_url,
                    "PORT": str(port),
                    "SIMULATIONS_DATABASE_POOL_SIZE": "2",
                    **{name: str(value) for name, value in environment.items()},
                },
                directory=ROOT,
                stdout=stderr,
            )
        begun.append(found := Process(process, port, log))
        async with httpx.AsyncClient(verify=False, timeout=PATIENCE_SECONDS) as client, asyncio.timeout(60):
            while True:
                with suppress(httpx.TransportError):
                    if (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200:
                        return found
                assert process.poll() is None, found.log
                await asyncio.sleep(0.02)

    yield begin
    for each in begun:
        each.process.terminate()
        await each.ended()
        assert "Traceback" not in each.log


# --- pings -----------------------------------------------------------------------------------------------------


async def test_a_client_that_answers_pings_stays(start: Start) -> None:
    here = await start(socket_ping_seconds=0.05)
    async with opened(here.port) as connection:
        for _ in range(10):
            assert await receive(connection) == {"type": "ping"}
            await connection.send('{"type": "pong"}')
        assert await is_alive(connection)


async def test_a_client_that_is_silent_for_three_pings_is_closed(start: Start, nothing_is_a_defect: None) -> None:
    here = await start(socket_ping_seconds=0.05)
    async with opened(here.port) as connection:
        for _ in range(3):
            assert await receive(connection) == {"type": "ping"}
        closed = await closing(connection)
    assert closed.rcvd is not None
    assert closed.rcvd.code == 4408, "clients may come back after it"
    assert "pong" in closed.rcvd.reason


async def test_the_graphql_ws_client_answers_pings_and_is_told_of_a_restart(
    world: World, spawn: Spawn, tmp_path: Path
) -> None:
    """Silent clients are closed after four pings; this one has answered more, and is there when the process ends."""
    node = shutil.which("node", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    assert node is not None, "node is missing: make test installs it"
    graph = await spawn(SIMULATIONS_SOCKET_PING_SECONDS=0.5)
    supervisor = await world.running()
    url = f"ws://127.0.0.1:{graph.port}/graphql"
    client = await asyncio.create_subprocess_exec(
        node, ROOT / "tests" / "client" / "pings.mjs", url, supervisor.simulation_id,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert client.stdout is not None
    seen: list[str] = []
    async with asyncio.timeout(60):
        while seen.count("pong") < 6:
            seen.append(json.loads(await client.stdout.readline())["saw"])
        await supervisor.loss(1)
        while seen.count("next") < 2:
            seen.append(json.loads(await client.stdout.readline())["saw"])
        graph.process.terminate()
        while "closed" not in (line := json.loads(await client.stdout.readline())):
            assert line["saw"] in ("ping", "pong", "next")
        await client.wait()
    assert line == {"closed": 1012, "fatal": False}


# --- readers that stall ----------------------------------------------------------------------------------------


def wide(number: int) -> Any:
    """A batch whose event is some 400 kB."""
    steps = list(range(number * 10_000, (number + 1) * 10_000))
    return {"loss": {"steps": steps, "values": [1.23456789] * 10_000, "elapsed": [0.123456789] * 10_000}}


async def fill(supervisor: Any, is_full: Callable[[], bool]) -> int:
    """Send wide batches until nothing more fits into the buffers on the way to a reader; how many were sent."""
    for number in range(60):
        if is_full():
            return number
        await supervisor.send(wide(number))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):  # it is delivered by now, or not
                await until(is_full, "full")
    raise AssertionError("the buffers have no end")


async def test_a_stalled_reader_is_closed_with_1013_and_resumes_by_its_cursor(
    world: World, start: Start, nothing_is_a_defect: None
) -> None:
    here = await start(socket_stall_seconds=0.5)
    supervisor = await world.running()
    got: list[Any] = []
    async with opened(here.port, small=True) as connection:
        await connection.send(subscribe("1", CURVE, id=supervisor.simulation_id))
        got.append(await receive(connection))
        connection.transport.pause_reading()
        (wire,) = here.wires
        sent = await fill(supervisor, lambda: not wire.writable.is_set() or wire.close_sent)
        await until(lambda: wire.close_sent, "it is given up")
        connection.transport.resume_reading()
        with suppress(ConnectionClosed):
            while True:
                got.append(await receive(connection))
    assert connection.close_code == 1013
    assert connection.close_reason is not None
    assert "0.5 s" in connection.close_reason

    await supervisor.exit()
    after = got[-1]["payload"]["data"]["convergence"]["cursor"]
    async with opened(here.port) as connection:
        await connection.send(subscribe("1", CURVE, id=supervisor.simulation_id, after=after))
        while (message := await receive(connection))["type"] == "next":
            got.append(message)
    series = [each for message in got for each in message["payload"]["data"]["convergence"]["series"]]
    assert [step for each in series for step in each["steps"]] == list(range(sent * 10_000))


async def test_a_reader_that_never_reads_costs_one_event_and_is_cut_off(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch, nothing_is_a_defect: None
) -> None:
    monkeypatch.setattr("graph.wire.websocket.FAREWELL_SECONDS", 0.2)
    here = await start(socket_stall_seconds=FOR_EVER_SECONDS)
    supervisor = await world.running()
    async with opened(here.port, small=True) as connection:
        await connection.send(subscribe("1", CURVE, id=supervisor.simulation_id))
        await receive(connection)
        connection.transport.pause_reading()
        (wire,) = here.wires
        sent = await fill(supervisor, lambda: not wire.writable.is_set())
        for number in range(sent, sent + 10):
            await supervisor.send(wide(number))
        await connection.send('{"type": "ping"}')
        assert wire.transport.get_write_buffer_size() < 2**20, "an event, not ten"
        assert wire._stall_timer is not None
        wire._judge()
        await until(lambda: here.wires == [], "nothing of it is left")
        hub = here.server.lifespan.state["live"].hub
        await until(lambda: hub._tails == {}, "nor of what it was told")
        connection.transport.abort()


async def test_a_slow_reader_is_not_a_stalled_one(world: World, start: Start) -> None:
    here = await start(socket_stall_seconds=FOR_EVER_SECONDS)
    supervisor = await world.running()
    async with opened(here.port, small=True) as connection:
        await connection.send(subscribe("1", CURVE, id=supervisor.simulation_id))
        await receive(connection)
        connection.transport.pause_reading()
        (wire,) = here.wires
        await fill(supervisor, lambda: not wire.writable.is_set())
        before = wire.transport.get_write_buffer_size()
        connection.transport.resume_reading()
        await until(lambda: wire.transport.get_write_buffer_size() < before, "it has taken something")
        if not wire.writable.is_set():
            wire._judge()
            assert not wire.close_sent
        async with within(PATIENCE_SECONDS, "points arrive"):
            while (await receive(connection))["payload"]["data"]["convergence"]["series"] == []:
                pass
        assert await is_alive(connection)


async def test_many_answers_that_are_not_read_cost_the_process_little(spawn: Spawn) -> None:
    """On uvloop, as in earnest."""
    graph = await spawn(SIMULATIONS_SOCKET_STALL_SECONDS=1)
    process = psutil.Process(graph.process.pid)
    async with opened(graph.port) as polite:
        await polite.send(subscribe("warm", BIG))
        assert len(json.dumps(await receive(polite))) > 20_000
        before = process.memory_info().rss
        async with opened(graph.port, small=True) as connection:
            connection.transport.pause_reading()
            for number in range(200):
                try:
                    with suppress(TimeoutError):  # the server stops reading, too; or it is slow, then more goes out
                        async with asyncio.timeout(0.2):
                            await connection.send(subscribe(str(number), BIG))
                except ConnectionClosed:
                    break
            await until(lambda: "socket_stalled" in graph.log, "it is given up")
            assert process.memory_info().rss - before < 60 * 2**20
            await until(lambda: len(open_connections(process, graph.port)) == 1, "only the other one is left")
            connection.transport.abort()
        assert await is_alive(polite)


def open_connections(process: psutil.Process, port: int) -> list[Any]:
    return [
        each
        for each in process.net_connections("tcp")
        if each.laddr.port == port and each.raddr and each.status == psutil.CONN_ESTABLISHED
    ]


async def test_pongs_that_a_client_does_not_read_do_not_pile_up(start: Start) -> None:
    here = await start(socket_stall_seconds=FOR_EVER_SECONDS)
    async with opened(here.port, small=True) as connection:
        connection.transport.pause_reading()
        (wire,) = here.wires
        flood = frame(0x9, b"x" * 125) * 1000
        loop, writer = asyncio.get_running_loop(), connection.transport
        deadline = loop.time() + PATIENCE_SECONDS
        for _ in range(200):  # 26 MB of them
            writer.write(flood)
            while writer.get_write_buffer_size() > 2**20 and loop.time() < deadline:
                await asyncio.sleep(0)
        await until(lambda: writer.get_write_buffer_size() == 0, "the server reads them")
        assert wire.transport.get_write_buffer_size() < 2**18
        connection.transport.abort()


async def test_empty_fragments_pile_up_nowhere(start: Start) -> None:
    here = await start()
    async with opened(here.port) as connection:
        (wire,) = here.wires
        connection.transport.write(frame(0x1, b'{"type"', last=False) + frame(0x0, b"", last=False) * 1_000)
        connection.transport.write(frame(0x0, b':"pi', last=False))
        await until(lambda: sum(map(len, wire.frames)) == len('{"type":"pi'), "they have arrived")
        assert len(wire.frames) == 2
        connection.transport.write(frame(0x0, b'ng"}'))
        assert await receive(connection) == {"type": "pong"}


def frame(opcode: int, payload: bytes, *, last: bool = True, mask: bool = True) -> bytes:
    """A WebSocket frame (RFC 6455, 5.2); the mask is zeros."""
    head = bytes([opcode | (0x80 if last else 0)])
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        size = bytes([len(payload) | masked])
    elif len(payload) < 2**16:
        size = bytes([126 | masked]) + struct.pack("!H", len(payload))
    else:
        size = bytes([127 | masked]) + struct.pack("!Q", len(payload))
    return head + size + (bytes(4) if mask else b"") + payload


# --- the end of the process ------------------------------------------------------------------------------------


async def test_before_shutdown_it_serves_on_and_is_not_ready(spawn: Spawn) -> None:
    here = await spawn(SIMULATIONS_DRAIN_SECONDS=600)
    address = f"http://127.0.0.1:{here.port}"
    async with httpx.AsyncClient(verify=False, timeout=PATIENCE_SECONDS) as client, opened(here.port) as connection:
        here.process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (ready := await client.get(f"{address}/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
        assert ready.json() == {"status": "not ready", "reason": "It is about to end."}
        assert await is_alive(connection)
        async with httpx.AsyncClient(verify=False, timeout=PATIENCE_SECONDS) as newcomer:
            answer = await newcomer.post(f"{address}/graphql", json={"query": "{ viewer { role } }"})
        assert answer.json()["data"] == {"viewer": {"role": "ADMIN"}}
        here.process.send_signal(signal.SIGINT)
        closed = await closing(connection)
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1012
    await here.ended()


async def test_it_ends_by_itself_when_it_has_served_on_for_long_enough(spawn: Spawn) -> None:
    here = await spawn(SIMULATIONS_DRAIN_SECONDS=0.3)
    here.process.terminate()
    assert await here.ended() in (0, -signal.SIGTERM)


async def test_sigterm_closes_every_socket_with_1012_and_ends_the_process(world: World, spawn: Spawn) -> None:
    graph = await spawn()
    supervisor = await world.running()
    async with (
        plain(graph.port) as fresh,
        opened(graph.port) as idle,
        opened(graph.port) as watching,
        opened(graph.port, small=True) as stalled,
        httpx.AsyncClient(verify=False, timeout=PATIENCE_SECONDS) as keeps_alive,
    ):
        await keeps_alive.get(f"http://127.0.0.1:{graph.port}/healthz")
        await watching.send(subscribe("1", CURVE, id=supervisor.simulation_id))
        await receive(watching)
        stalled.transport.pause_reading()
        for number in range(30):
            await stalled.send(subscribe(str(number), BIG))
        assert await is_alive(idle)
        graph.process.send_signal(signal.SIGTERM)
        for connection in (fresh, idle, watching):
            assert await close_code(connection) == 1012
        async with asyncio.timeout(60):
            assert await graph.ended() == -signal.SIGTERM
        stalled.transport.abort()
    assert "Cancel" not in graph.log, "nothing had to be cancelled by force"


async def test_streams_hear_of_the_end_before_the_server_waits_for_them(start: Start) -> None:
    here = await start()
    told: Shutdown = here.server.lifespan.state["shutdown"]
    assert not told.begun
    async with opened(here.port) as connection:
        waiting = asyncio.create_task(told.wait())
        here.server.should_exit = True
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)
        assert told.begun
        assert not here.task.done()
        assert await close_code(connection) == 1012
    await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)


# --- limits ----------------------------------------------------------------------------------------------------


async def test_a_socket_without_connection_init_is_closed(
    start: Start, monkeypatch: pytest.MonkeyPatch, nothing_is_a_defect: None
) -> None:
    monkeypatch.setattr("graph.http.websocket.INIT_SECONDS", 0.05)
    here = await start()
    async with plain(here.port) as connection:
        await connection.send('{"type": "ping"}')
        assert await close_code(connection) == 4408
    async with opened(here.port) as connection:
        assert await is_alive(connection)


async def test_one_operation_too_many_is_refused_and_the_others_go_on(start: Start, nothing_is_a_defect: None) -> None:
    here = await start()
    async with opened(here.port) as connection:
        for number in range(100):
            await connection.send(subscribe(str(number), WATCH))
        await connection.send(subscribe("one too many", WATCH))
        message = await receive(connection)
        assert (message["id"], message["type"]) == ("one too many", "error")
        assert message["payload"][0]["extensions"]["code"] == "TOO_MANY_OPERATIONS"
        assert await is_alive(connection)
        await connection.send('{"type": "complete", "id": "7"}')
        await connection.send(subscribe("again", VIEWER))
        assert (await receive(connection))["payload"]["data"] == {"viewer": {"name": "anonymous"}}


async def test_what_runs_on_a_socket_is_kept_within_bounds(start: Start, nothing_is_a_defect: None) -> None:
    here = await start()
    ballast = "x" * 100_000
    async with opened(here.port) as connection:
        for number in range(3):
            await connection.send(subscribe(str(number), WATCH, ballast=ballast))
        message = await receive(connection)
        assert (message["id"], message["type"]) == ("2", "error")
        assert message["payload"][0]["extensions"]["code"] == "TOO_MANY_OPERATIONS"
        await connection.send('{"type": "complete", "id": "1"}')
        await connection.send(subscribe("again", VIEWER, ballast=ballast))
        assert (await receive(connection))["type"] == "next"
    async with opened(here.port) as connection:
        await connection.send(subscribe("large and alone", VIEWER, ballast=ballast * 9))
        assert (await receive(connection))["type"] == "next"


async def test_what_a_message_brought_beside_its_operation_is_not_kept(start: Start, nothing_is_a_defect: None) -> None:
    here = await start()
    for kind in ("connection_init", "ping"):
        async with plain(here.port) as connection:
            if kind == "ping":
                await connection.send(INIT)
                await receive(connection)
            await connection.send(json.dumps({"type": kind, "payload": {"ballast": "1"}}))
            await receive(connection)
            for each in gc.get_objects():
                assert not (type(each) is dict and "ballast" in each)
                assert not (type(each) is Frame and b"ballast" in each.data)
            assert await is_alive(connection)


async def test_a_token_has_an_end(start: Start, nothing_is_a_defect: None) -> None:
    here = await start()
    async with plain(here.port) as connection:
        await connection.send(json.dumps({"type": "connection_init", "payload": {"token": "x" * 1_001}}))
        assert await close_code(connection) == 4403


async def test_a_client_has_so_many_sockets_and_no_more(start: Start, nothing_is_a_defect: None) -> None:
    here = await start(sockets_per_client=2)
    async with opened(here.port) as first:
        async with opened(here.port):
            with pytest.raises(InvalidStatus) as refused:
                async with plain(here.port):
                    pass
            assert refused.value.response.status_code == 503
            assert b"2 WebSockets" in refused.value.response.body
        await until(lambda: len(here.wires) == 1, "one has left")
        async with opened(here.port) as another:
            assert await is_alive(another)
        assert await is_alive(first)


# --- violations of the protocol --------------------------------------------------------------------------------

SUBSCRIBE = subscribe("1", VIEWER)

AFTER_INIT: dict[str, tuple[list[str | bytes], int]] = {
    "no JSON": (["{"], 4400),
    "an empty frame": ([""], 4400),
    "NaN": (['{"type": "ping", "payload": {"a": NaN}}'], 4400),
    "half a surrogate": (['{"type": "\\ud800"}'], 4400),
    "nested too deeply": (["[" * 100_000], 4400),
    "a binary frame": ([b'{"type": "ping"}'], 4400),
    "a list": (["[1]"], 4400),
    "null": (["null"], 4400),
    "no type": (["{}"], 4400),
    "a type that is a list": (['{"type": []}'], 4400),
    "an unknown type": (['{"type": "nonsense"}'], 4400),
    "a very long unknown type": (['{"type": "' + "ü" * 10_000 + '"}'], 4400),
    "a message that servers send": (['{"type": "next", "id": "1", "payload": {}}'], 4400),
    "a ping with a number": (['{"type": "ping", "payload": 1}'], 4400),
    "a pong with a list": (['{"type": "pong", "payload": []}'], 4400),
    "no id": (['{"type": "subscribe", "payload": {"query": "{ viewer { name } }"}}'], 4400),
    "an empty id": ([subscribe("", VIEWER)], 4400),
    "a very long id": ([subscribe("x" * 257, VIEWER)], 4400),
    "an id that is a list": (['{"type": "subscribe", "id": [1], "payload": {"query": "{ viewer { name } }"}}'], 4400),
    "no payload": (['{"type": "subscribe", "id": "1"}'], 4400),
    "a payload that is null": (['{"type": "subscribe", "id": "1", "payload": null}'], 4400),
    "no query": (['{"type": "subscribe", "id": "1", "payload": {}}'], 4400),
    "a query that is a number": (['{"type": "subscribe", "id": "1", "payload": {"query": 1}}'], 4400),
    "variables that are a list": (
        ['{"type": "subscribe", "id": "1", "payload": {"query": "{ viewer { name } }", "variables": []}}'],
        4400,
    ),
    "an operation name that is an object": (
        ['{"type": "subscribe", "id": "1", "payload": {"query": "{ viewer { name } }", "operationName": {}}}'],
        4400,
    ),
    "extensions that are a string": (
        ['{"type": "subscribe", "id": "1", "payload": {"query": "{ viewer { name } }", "extensions": "x"}}'],
        4400,
    ),
    "a completion without an id": (['{"type": "complete"}'], 4400),
    "an id that is in use": ([subscribe("1", WATCH), subscribe("1", VIEWER)], 4409),
    "a long id that is in use": ([subscribe("ü" * 256, WATCH), subscribe("ü" * 256, VIEWER)], 4409),
    "a second connection_init": ([INIT], 4429),
    "two mistakes at once": (["[1]", "[2]", "{", INIT], 4400),
    "a mistake amid running operations": ([*(subscribe(str(number), BIG) for number in range(20)), "{"], 4400),
}

BEFORE_INIT: dict[str, tuple[list[str | bytes], int]] = {
    "an operation before connection_init": ([SUBSCRIBE], 4401),
    "an empty operation before connection_init": ([subscribe("1", "")], 4401),
    "a connection_init with a list": (['{"type": "connection_init", "payload": []}'], 4400),
    "two of connection_init": ([INIT, INIT], 4429),
}


async def test_violations_of_the_protocol_close_their_own_socket_with_a_code(
    start: Start, subtests: pytest.Subtests, nothing_is_a_defect: None
) -> None:
    here = await start()
    async with opened(here.port) as other:
        for enter, cases in ((plain, BEFORE_INIT), (opened, AFTER_INIT)):
            for case, (frames, code) in cases.items():
                with subtests.test(case):
                    async with enter(here.port) as connection:
                        for each in frames:
                            with suppress(ConnectionClosed):
                                await connection.send(each)
                        closed = await closing(connection)
                    assert closed.rcvd is not None
                    assert closed.rcvd.code == code
                    assert closed.rcvd.reason, "says why"
        assert await is_alive(other)
    await until(lambda: here.wires == [], "nothing of them is left")


async def test_frames_that_are_no_websocket_frames_end_their_own_socket(
    start: Start, subtests: pytest.Subtests, nothing_is_a_defect: None
) -> None:
    here = await start()
    async with opened(here.port) as other:
        for case, sent, code in (
            ("not masked", frame(0x1, b"{}", mask=False), 1002),
            ("an unknown opcode", frame(0x3, b""), 1002),
            ("a continuation of nothing", frame(0x0, b"x"), 1002),
            ("a control frame in pieces", frame(0x9, b"", last=False), 1002),
            ("not UTF-8", frame(0x1, b'{"type": "\xff"}'), 1007),
            ("not UTF-8, in pieces", frame(0x1, b"\xc3", last=False) + frame(0x0, b"\x28"), 1007),
            ("half a character", frame(0x1, b"\xc3"), 1007),
            ("longer than allowed", frame(0x1, b"x" * (2**20 + 1)), 1009),
            ("longer than allowed, in pieces", frame(0x1, b"x" * 2**19, last=False) + frame(0x0, b"x" * 2**20), 1009),
        ):
            with subtests.test(case):
                async with opened(here.port) as connection:
                    connection.transport.write(sent)
                    assert await close_code(connection) == code
        async with opened(here.port) as connection:
            connection.transport.write(frame(0x1, b'{"type": "ping", "payload": {"a": "\xc3', last=False))
            connection.transport.write(frame(0x0, b'\xbc"}}'))
            assert await receive(connection) == {"type": "pong"}, "a character may be cut by fragments"
        assert await is_alive(other)


WRONG_OPERATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a syntax error": ({"query": "{ viewer"}, "Syntax Error"),
    "an empty query": ({"query": ""}, "empty"),
    "blanks": ({"query": " \n"}, "empty"),
    "only a comment": ({"query": "# nothing"}, "Syntax Error"),
    "an unknown field": ({"query": "{ nonsense }"}, "nonsense"),
    "an unknown subscription": ({"query": "subscription { nonsense }"}, "nonsense"),
    "a variable that is missing": ({"query": CURVE}, "$id"),
    "a variable of another type": ({"query": CURVE, "variables": {"id": {}}}, "$id"),
}


async def test_what_is_wrong_with_one_operation_is_its_own_error_and_the_socket_lives(
    start: Start, subtests: pytest.Subtests, nothing_is_a_defect: None
) -> None:
    here = await start()
    async with opened(here.port) as connection:
        for case, (payload, words) in WRONG_OPERATIONS.items():
            with subtests.test(case):
                await connection.send(json.dumps({"id": case, "type": "subscribe", "payload": payload}))
                message = await receive(connection)
                assert (message["id"], message["type"]) == (case, "error")
                assert words in message["payload"][0]["message"]
        await connection.send(subscribe("a syntax error", VIEWER))  # the id is free again
        assert (await receive(connection))["type"] == "next"


@pytest.mark.parametrize(
    "payload",
    [
        {"query": "fragment F on Query { viewer { name } }"},
        {"query": "query A { viewer { name } }", "operationName": "B"},
    ],
)
async def test_an_operation_that_is_not_there_is_an_error_too(start: Start, payload: dict[str, str]) -> None:
    here = await start()
    async with opened(here.port) as connection:
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        message = await receive(connection)
        assert (message["id"], message["type"], len(message["payload"])) == ("1", "error", 1)
        assert await is_alive(connection)


async def test_a_null_payload_is_none(start: Start) -> None:
    here = await start()
    async with plain(here.port) as connection:
        await connection.send('{"type": "connection_init", "payload": null}')
        assert await receive(connection) == {"type": "connection_ack"}
        payload = {"query": VIEWER, "variables": None, "operationName": None, "extensions": None}
        await connection.send(json.dumps({"id": "x" * 256, "type": "subscribe", "payload": payload}))
        assert (await receive(connection))["type"] == "next"


async def test_clients_that_break_off_are_no_error(world: World, start: Start, nothing_is_a_defect: None) -> None:
    here = await start()
    supervisor = await world.running()
    for _ in range(3):
        async with opened(here.port) as connection:
            for number in range(10):
                await connection.send(subscribe(str(number), BIG))
            await connection.send(subscribe("curve", CURVE, id=supervisor.simulation_id))
            connection.transport.abort()
        async with opened(here.port) as connection:
            await connection.send(subscribe("curve", CURVE, id=supervisor.simulation_id))
            async with within(PATIENCE_SECONDS, "the first event"):
                while (await receive(connection))["type"] != "next":
                    pass
            sending = asyncio.create_task(supervisor.loss(supervisor.batch))
            await connection.send("{")  # while something is being delivered
            assert await close_code(connection) == 4400
            await sending
    await until(lambda: here.wires == [], "nothing of them is left")


# --- what is encoded once and written to many --------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000])
def test_a_frame_that_is_written_directly_is_the_librarys_own(length: int) -> None:
    frame = Frame(Opcode.TEXT, b"x" * length).serialize(mask=False)
    assert head_of(length) == frame[: len(frame) - length]


async def test_operations_of_any_id_are_told_together_and_each_by_its_own(world: World, start: Start) -> None:
    """Short and long frames, with letters of several bytes, to sockets that one loop sends to."""
    here = await start()
    supervisor = await world.running()
    ids = ["1", "é🙂", 'a"b\\', "x" * 256]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(opened(here.port)) for _ in range(3)]
        for connection in connections:
            for operation_id in ids:
                await connection.send(subscribe(operation_id, CURVE, id=supervisor.simulation_id))
                async with within(PATIENCE_SECONDS, f"the first event of {operation_id[:10]}"):
                    while (await receive(connection))["id"] != operation_id:
                        pass
        hub = here.server.lifespan.state["live"].hub
        (tail,) = hub._tails.values()
        await until(lambda: sum(map(len, tail.broadcast._groups.values())) == 12, "all are told together")
        for number, size in enumerate((1, 3, 2_000), 1):
            steps = list(range(number * 10_000, number * 10_000 + size))
            await supervisor.send({"Verlust 🙂": {"steps": steps, "values": [0.5] * size, "elapsed": [1.5] * size}})
            for connection in connections:
                got = [await receive(connection) for _ in ids]
                assert {message["id"] for message in got} == set(ids)
                for message in got:
                    (series,) = message["payload"]["data"]["convergence"]["series"]
                    assert (series["metric"], series["steps"]) == ("Verlust 🙂", steps)
        for connection in connections:
            assert await is_alive(connection)


async def test_a_client_that_leaves_during_a_broadcast_disturbs_no_other(
    world: World, start: Start, nothing_is_a_defect: None
) -> None:
    here = await start()
    supervisor = await world.running()
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(opened(here.port)) for _ in range(9)]
        for connection in connections:
            await connection.send(subscribe("1", CURVE, id=supervisor.simulation_id))
            await receive(connection)
        (tail,) = here.server.lifespan.state["live"].hub._tails.values()
        await until(lambda: sum(map(len, tail.broadcast._groups.values())) == 9, "all are told together")
        wires = here.wires
        for wire in wires[:3]:
            wire.transport.abort()
        await connections[0].send('{"id": "1", "type": "complete"}')
        await supervisor.loss(1)
        await supervisor.loss(2)
        told = 0
        for connection in connections[1:]:
            with suppress(ConnectionClosed):
                steps: list[int] = []
                while len(steps) < 2:
                    message = await receive(connection)
                    steps += [
                        step for each in message["payload"]["data"]["convergence"]["series"] for step in each["steps"]
                    ]
                assert steps == [1, 2]
                told += 1
        assert told >= 5
        for connection in connections:
            connection.transport.abort()
