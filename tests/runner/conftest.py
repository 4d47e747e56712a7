"""A service to report to, over a real socket, that misbehaves on demand; and supervisors as real processes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner import archive, processes
from runner.supervisor.child import MARK_VARIABLE, mark

DEADLINE_SECONDS = 180.0  # far more than anything takes, libraries that train included: only a hang gets there
ATTEMPT = "QXR0ZW1wdDo3Lw=="
TOKEN = "token-of-this-attempt"
ORDER: dict[str, object] = {
    "entrypoint": ["true"],
    "environment": {},
    "workingDirectory": None,
    "maxRuntimeSeconds": None,
    "stopGraceSeconds": 20.0,
    "heartbeatSeconds": 0.1,
    "gpuIndices": [],
}


class Service:
    """The API as a supervisor sees it. `misbehave(name, input)` may answer in its place with (status, body).

    A body of None cuts the connection; with `stores_first` the batch is stored all the same.
    """

    def __init__(self) -> None:
        self.order = dict(ORDER)
        self.hello_verdict = "CONTINUE"
        self.verdict = "CONTINUE"
        self.stop_reason: str | None = None
        self.order_change: dict[str, object] | None = None
        self.misbehave: Callable[[str, Mapping[str, Any]], tuple[int, bytes | None] | None] = lambda *_: None
        self.refuses: Callable[[Mapping[str, Any]], str | None] = lambda _: None
        self.stores_first = False
        self.stored: list[Mapping[str, Any]] = []
        self.bodies: list[tuple[int | None, bytes]] = []
        self.arrivals: list[float] = []
        self.nonces: set[str] = set()
        self.heartbeats = 0
        self.changed = threading.Condition()
        self._servers: list[ThreadingHTTPServer] = []
        self.url = self.open()

    def open(self) -> str:
        """Listen on a port of its own."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._servers.append(server)
        self.url = f"http://127.0.0.1:{server.server_port}/graphql"
        return self.url

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()

    def wait(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE_SECONDS), (self.logs[-2000:], self.stored[-1:])

    # --- what was stored ---

    def points(self, metric: str) -> list[tuple[int, float | str]]:
        columns = [batch["points"][metric] for batch in self.stored if metric in batch.get("points", {})]
        return [pair for column in columns for pair in zip(column["steps"], column["values"], strict=True)]

    def log(self, stream: str) -> str:
        chunks = [chunk for batch in self.stored for chunk in batch.get("logs", ())]
        return "\n".join(chunk["text"] for chunk in chunks if chunk["stream"] == stream)

    @property
    def notices(self) -> Mapping[str, Any]:
        """The newest of each kind."""
        return {each["kind"]: each for batch in self.stored for each in batch.get("facts", {}).get("notices", ())}

    @property
    def logs(self) -> str:
        return "\n".join(self.log(stream) for stream in ("STDOUT", "STDERR", "SUPERVISOR"))

    @property
    def exit(self) -> Mapping[str, Any] | None:
        return next((batch["exit"] for batch in self.stored if "exit" in batch), None)

    # --- answering ---

    def answer(self, name: str, given: Mapping[str, Any], body: bytes, token: str) -> tuple[int, bytes | None]:
        with self.changed:
            self.nonces.add(given["nonce"])
            if name == "reportAttempt":
                self.bodies.append((given.get("batch"), body))
                self.arrivals.append(time.monotonic())
            odd = self.misbehave(name, given)
            reply: tuple[int, bytes | None]
            if token != f"Bearer {TOKEN}":
                reply = (401, b"who are you?")
            elif odd is not None:
                if self.stores_first:
                    self._settle(name, given)
                reply = odd
            else:
                reply = (200, json.dumps({"data": {name: self._settle(name, given)}}).encode())
            self.changed.notify_all()
        return reply

    def _settle(self, name: str, given: Mapping[str, Any]) -> Mapping[str, object]:
        answer: dict[str, object] = {"attempt": {"id": ATTEMPT}, "userErrors": []}
        if name == "helloAttempt":
            over = self.hello_verdict == "OVER"
            return answer | {"verdict": self.hello_verdict, "order": None if over else self.order}
        refusal = None
        if given.get("batch") is None:
            self.heartbeats += 1
        elif given["batch"] == len(self.stored) + 1:
            refusal = self.refuses(given)
            if refusal is None:
                self.stored.append(given)
        errors = [{"code": "BATCH_REFUSED", "message": refusal, "field": ["points"]}] if refusal else []
        return answer | {
            "verdict": self.verdict,
            "stopReason": self.stop_reason,
            "orderChange": self.order_change,
            "expectedBatch": len(self.stored) + 1,
            "userErrors": errors,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = json.loads(body)
                name = "helloAttempt" if "helloAttempt(" in request["query"] else "reportAttempt"
                token = self.headers["Authorization"]
                status, reply = service.answer(name, request["variables"]["input"], body, token)
                if reply is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the supervisor was killed

        return Handler


class Started:
    """A supervisor as a process."""

    def __init__(self, directory: Path, environment: Mapping[str, str], program: Path) -> None:
        self.directory = directory
        with open(directory / "supervisor.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(program), str(directory)],
                env={**environment, MARK_VARIABLE: mark(directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> int:
        """Its exit status, once it ends."""
        return self.process.wait(DEADLINE_SECONDS)

    @property
    def complaints(self) -> str:
        return (self.directory / "supervisor.log").read_text()

    def kill(self) -> None:
        assert processes.end_all(f"{MARK_VARIABLE}={mark(self.directory)}", None, None)
        self.process.wait(DEADLINE_SECONDS)


Supervise = Callable[..., Started]


def until(condition: Callable[[], object]) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def exists(pid: int) -> bool:
    identity = processes.identify(pid)
    return identity is not None and processes.is_alive(identity)


@pytest.fixture(name="until")
def _until() -> Callable[[Callable[[], object]], None]:
    return until


@pytest.fixture(name="exists")
def _exists() -> Callable[[int], bool]:
    return exists


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture(scope="session")
def program_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive."""
    return archive.install(tmp_path_factory.mktemp("supervisors"))


@pytest.fixture
def supervise(service: Service, tmp_path: Path, program_of_all: Path) -> Iterator[Supervise]:
    """Start a supervisor: `supervise("code of the child", order fields)`, or with `entrypoint=`; `config=` for more."""
    started: list[Started] = []

    def start(
        code: str | None = None,
        *,
        config: Mapping[str, object] | None = None,
        program: Path | None = None,
        **order: object,
    ) -> Started:
        if code is not None:
            service.order["entrypoint"] = [sys.executable, "-c", code]
        service.order.update(order)
        directory = tmp_path / "attempt"
        directory.mkdir(exist_ok=True)
        (tmp_path / "address").write_text(service.url)
        settings: dict[str, object] = {
            "token": TOKEN,
            "attempt_id": ATTEMPT,
            "address_file": str(tmp_path / "address"),
            "checkpoint_directory": str(tmp_path / "checkpoints"),
            "output_directory": str(tmp_path / "outputs"),
            "work_directory": str(directory / "work"),
            "allowed_roots": [],
            "give_up_seconds": 60,
        }
        (directory / "config.json").write_text(json.dumps({**settings, **(config or {})}))
        started.append(
            Started(
                directory,
                {**os.environ, "SECRET_OF_THE_SERVICE": "hunter2"},
                program or program_of_all,
            )
        )
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def in_turns(tmp_path: Path) -> Callable[..., tuple[str, Callable[[], None]]]:
    """The code of a child that prints each line only when told to, and how to tell it. The first comes by itself."""

    def make(*lines: str) -> tuple[str, Callable[[], None]]:
        code = f"""
import os, time
for number, line in enumerate({lines!r}):
    while number and not os.path.exists(f"{tmp_path}/turn{{number}}"): time.sleep(0.01)
    print(line)
"""
        turns = itertools.count(1)
        return code, lambda: (tmp_path / f"turn{next(turns)}").touch()

    return make
