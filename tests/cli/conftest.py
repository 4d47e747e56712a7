"""Fake GraphQL server on real sockets with answers set by the test, and a runner of commands."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn
from graphql import OperationDefinitionNode, parse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from typer.testing import CliRunner, Result

from cli.app import app

Variables = dict[str, Any]


class Cut(Exception):
    """Raised by a stream to drop the whole connection."""


class Refuse(Exception):
    """Raised by an answer or a stream: a GraphQL error with this code."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.error = {"message": message, **({"extensions": {"code": code}} if code else {})}


class FakeServer:
    """GraphQL server with answers and streams set by the test, by the operation's name in `cli.documents`."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Variables], Any]] = {}
        self.streams: dict[str, Callable[[Variables], AsyncIterator[Any]]] = {}
        self.asked: list[tuple[str, Variables]] = []
        self.headers: list[dict[str, str]] = []
        self.init_payloads: list[dict[str, Any]] = []
        self.sockets = 0
        self.url = ""
        self.files: dict[str, Path] = {}  # by their address
        self.packages: dict[tuple[str, str | None], bytes] = {}  # by digest and project
        self.package_refusals: list[tuple[int, dict[str, str]]] = []  # of the next uploads: status and headers
        self.package_requests: list[str] = []
        self.most_package_bytes = 1 << 20
        self.app = Starlette(
            routes=[
                Route("/graphql", self._post, methods=["POST"]),
                WebSocketRoute("/graphql", self._socket),
                Route("/files/{path:path}", self._file),
                Route("/packages", self._limit),
                Route("/packages/{digest}", self._package, methods=["HEAD", "PUT"]),
            ]
        )

    def variables(self, name: str) -> list[Variables]:
        return [variables for asked, variables in self.asked if asked == name]

    def _answer(self, name: str, variables: Variables) -> dict[str, Any]:
        self.asked.append((name, variables))
        try:
            return {"data": self.answers[name](variables)}
        except Refuse as refused:
            return {"data": None, "errors": [refused.error]}

    async def _post(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        body = await request.json()
        return JSONResponse(self._answer(_name(body["query"]), body.get("variables") or {}))

    async def _file(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        path = self.files[request.url.path]
        return FileResponse(path, headers={"ETag": f'"{sha256(path.read_bytes()).hexdigest()}"'})

    async def _limit(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        return JSONResponse({"mostBytes": self.most_package_bytes})

    async def _package(self, request: Request) -> Response:
        self.package_requests.append(request.method)
        self.headers.append(dict(request.headers))
        key = (request.path_params["digest"], request.query_params.get("project"))
        if request.method == "HEAD":
            return Response(status_code=200 if key in self.packages else 404)
        content = await request.body()
        if self.package_refusals:
            status, headers = self.package_refusals.pop(0)
            return JSONResponse({"errors": [{"message": "Not now."}]}, status_code=status, headers=headers)
        assert sha256(content).hexdigest() == key[0]
        self.packages[key] = content
        return JSONResponse({}, status_code=201)

    async def _socket(self, socket: WebSocket) -> None:
        self.sockets += 1
        self.headers.append(dict(socket.headers))
        await socket.accept(subprotocol="graphql-transport-ws")
        running: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                message = json.loads(await socket.receive_text())
                match message["type"]:
                    case "connection_init":
                        self.init_payloads.append(message.get("payload") or {})
                        await socket.send_json({"type": "connection_ack"})
                    case "subscribe":
                        running[message["id"]] = asyncio.create_task(self._serve(socket, message))
                    case "complete":
                        if message["id"] in running:
                            running[message["id"]].cancel()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            for task in running.values():
                task.cancel()

    async def _serve(self, socket: WebSocket, message: dict[str, Any]) -> None:
        number, variables = message["id"], message["payload"].get("variables") or {}
        name = _name(message["payload"]["query"])
        try:
            if name in self.answers:
                await socket.send_json({"id": number, "type": "next", "payload": self._answer(name, variables)})
            else:
                self.asked.append((name, variables))
                async for event in self.streams[name](variables):
                    await socket.send_json({"id": number, "type": "next", "payload": {"data": event}})
            await socket.send_json({"id": number, "type": "complete"})
        except Cut:
            await socket.close(1001)
        except Refuse as refused:
            await socket.send_json({"id": number, "type": "error", "payload": [refused.error]})
        except (WebSocketDisconnect, RuntimeError):
            pass


def _name(query: str) -> str:
    definitions = parse(query).definitions
    return next(each.name.value for each in definitions if isinstance(each, OperationDefinitionNode) and each.name)


@pytest.fixture(scope="session", autouse=True)
def one_tree() -> Iterator[None]:
    """The tree of all commands, made once: `CliRunner` makes it anew for each command, in a tenth of a second."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a port of its own, in a thread."""
    fake = FakeServer()
    config = uvicorn.Config(
        fake.app, host="127.0.0.1", port=0, log_config=None, ws="websockets-sansio", timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started:
        assert time.monotonic() < deadline, "the fake server did not start"
        time.sleep(0.005)
    fake.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    yield fake
    running.should_exit = True
    thread.join(60)


@pytest.fixture
def run(server: FakeServer) -> Callable[..., Result]:
    """Run a command against the server."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"SIMULATIONS_URL": server.url, **(env or {})})

    return run


@pytest.fixture
def simulation() -> Callable[..., dict[str, Any]]:
    """Make a simulation as in the API's answers."""

    def simulation(**changes: Any) -> dict[str, Any]:
        return {
            "id": "U2ltdWxhdGlvbjox", "number": 1, "name": "train", "state": "RUNNING",
            "reason": None, "reasonDetail": None, "objective": None,
            "createdAt": "2026-01-01T12:00:00Z", "startedAt": "2026-01-01T12:00:01Z", "finishedAt": None,
            "waiting": None, "stopWanted": None, "project": {"id": "UHJvamVjdDox", "name": "default"},
            "machine": {"id": "TWFjaGluZTox", "name": "big"}, **changes,
        }  # fmt: skip

    return simulation


@pytest.fixture
def details(simulation: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make the details of a simulation as in the API's answers."""

    def details(**changes: Any) -> dict[str, Any]:
        resources = {
            "cpus": 1, "memoryGib": 0, "gpus": 0, "gpuModel": None, "labels": {}, "machine": None,
            "maxPricePerHour": None,
        }  # fmt: skip
        limits = {"maxRuntimeSeconds": None, "maxCost": None, "maxSteps": None, "maxRetries": 3, "retryOn": []}
        return simulation(
            entrypoint=["x"], parameters={}, environment={}, workingDirectory=None, tags=[], resources=resources,
            priority=0, limits=limits, attempts=[], events=[], createdBy="me", retryOf=None, **changes,
        )  # fmt: skip

    return details


@pytest.fixture
def machine() -> Callable[..., dict[str, Any]]:
    """Make a machine as in the API's answers."""

    def machine(**changes: Any) -> dict[str, Any]:
        return {
            "id": "TWFjaGluZTox", "name": "big", "engine": "local", "host": "h1", "declared": True, "labels": {},
            "pricePerHour": "2.5", "currency": "EUR", "draining": False, "heartbeatAt": "2026-01-01T12:00:00Z",
            "createdAt": "2026-01-01T12:00:00Z", "state": "ONLINE",
            "resources": {"cpus": 8.0, "memoryGib": 32.0, "gpus": 2, "gpuModel": "A100"},
            "free": {"cpus": 6.0, "memoryGib": 16.0, "gpus": 1}, **changes,
        }  # fmt: skip

    return machine


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """Make an event of a curve: `points` is {metric: {step: value}}."""

    def event(
        cursor: str,
        points: dict[str, dict[int, float | None]] | None = None,
        *,
        state: str = "RUNNING",
        reason: str | None = None,
        attempt: int = 1,
        supersedes_from: int | None = None,
    ) -> dict[str, Any]:
        series = [
            {
                "metric": metric, "steps": list(values), "values": list(values.values()),
                "elapsed": [0.5 * step for step in values], "supersedesFrom": supersedes_from,
            }
            for metric, values in (points or {}).items()
        ]  # fmt: skip
        return {
            "convergence": {
                "cursor": cursor, "attempt": attempt, "live": True, "state": state, "reason": reason, "series": series,
            }
        }  # fmt: skip

    return event


@pytest.fixture
def cut() -> type[Exception]:
    """What a stream raises to drop the connection."""
    return Cut


@pytest.fixture
def refuse() -> type[Exception]:
    """What an answer or a stream raises to be a GraphQL error."""
    return Refuse


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition holds; fails after `seconds`, naming `what`."""

    def eventually(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
            time.sleep(0.01)

    return eventually
