"""A head of Ray that keeps jobs, records what it is asked, and misbehaves as it is told; over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GIB = 2**30
Answer = tuple[int, object]


class Head:
    """A head that keeps jobs and answers as it is told."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = [node("n1"), node("n2", "10.0.0.2")]
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.submitted: list[dict[str, Any]] = []
        self.packages: dict[str, bytes] = {}
        self.answer: Callable[[str, str], Answer | None] = lambda *_: None  # in place of its own
        self.is_old = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked_for(self, method: str, begin: str) -> int:
        return sum(1 for one, path in self.asked if one == method and path.startswith(begin))

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        if (told := self.answer(method, path)) is not None:
            return told
        if path.startswith("/api/v0/nodes"):
            return 200, {"result": True, "data": {"result": {"result": self.nodes}}}
        if path == "/api/version":
            return 200, {"version": "4", "ray_version": "2.60.0"}
        if path.startswith("/api/packages/gcs/"):
            self.packages[path.rpartition("/")[2]] = body
            return 200, ""
        if path == "/api/jobs/" and method == "GET":
            return 200, list(self.jobs.values())
        if path == "/api/jobs/":
            return self._submit(json.loads(body))
        name = path.split("/")[3]
        if method == "POST":
            self.jobs[name]["status"] = "STOPPED"
            return 200, {"stopped": True}
        return (200, {"deleted": True}) if self.jobs.pop(name, None) else (404, "does not exist")

    def _submit(self, wanted: dict[str, Any]) -> Answer:
        if self.is_old and "entrypoint_label_selector" in wanted:
            return 400, "TypeError: unexpected keyword argument 'entrypoint_label_selector'"
        if wanted["submission_id"] in self.jobs:
            return 500, "Traceback ...\nValueError: Job with submission_id already exists"
        self.submitted.append(wanted)
        pending = job(wanted["submission_id"], "PENDING", **wanted.get("metadata", {}))
        self.jobs[wanted["submission_id"]] = {**pending, "runtime_env": wanted.get("runtime_env")}
        return 200, {"submission_id": wanted["submission_id"]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        head = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                head.asked.append((self.command, self.path))
                head.tokens.add(self.headers.get("Authorization"))
                status, told = head.handle(self.command, self.path, body)
                reply = told.encode() if isinstance(told, str) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            do_GET = do_POST = do_PUT = do_DELETE = _do  # names of the standard library

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        return Handler


def node(node_id: str, address: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    resources = {"CPU": 4.0, "memory": 8.0 * GIB, f"node:{address}": 1.0}
    return {
        "node_id": node_id, "node_ip": address, "node_name": address, "state": "ALIVE", "resources_total": resources,
        "labels": {"ray.io/node-id": node_id}, **more,
    }  # fmt: skip


def job(name: str, status: str, code: int | None = None, **metadata: str) -> dict[str, Any]:
    return {"submission_id": name, "status": status, "driver_exit_code": code, "metadata": metadata}


@contextmanager
def serving() -> Iterator[Head]:
    """A head while the block runs."""
    head = Head()
    try:
        yield head
    finally:
        head.close()
