"""The loopback server: who is let in, what a request may be, and its end."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor.sources import server
from runner.supervisor.sources.mlflow import PATH, Mlflow
from runner.supervisor.sources.server import Server
from runner.supervisor.sources.wandb import Wandb

SECRET = "5" * 40
OWN = "0" * 32
BEARER = {"Authorization": f"Bearer {SECRET}"}
METRIC = json.dumps({"run_id": OWN, "key": "loss", "value": 0.5, "timestamp": 1, "step": 3}).encode()
LOG = f"{PATH}runs/log-metric"


class Accepting:
    """A server, and a thread that accepts as the main loop does."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            if self.server.has_room and select.select([self.server.descriptor], [], [], 0.01)[0]:
                self.server.accept()

    def stop(self) -> None:
        self._is_over = True
        self._thread.join()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = BEARER
    ) -> tuple[int, Any]:
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture
def loopback(taken: Any, tmp_path: Path) -> Iterator[Accepting]:
    api = Mlflow(taken.intake, OWN, "name", tmp_path)
    accepting = Accepting(Server(SECRET, api, Wandb(taken.intake)))
    yield accepting
    accepting.stop()
    accepting.server.close()


def test_a_metric_is_on_disk_when_it_is_answered(taken: Any, loopback: Accepting) -> None:
    assert loopback.ask("POST", LOG, METRIC) == (200, {})
    assert taken.points("loss") == [(3, 0.5)]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {SECRET}5"},
        {"Authorization": f"Basic {base64.b64encode(b'api:wrong').decode()}"},
        {"Authorization": "Basic no base64!"},
        {"Authorization": "Bearer \xe9"},
        {"Authorization": f"Digest {SECRET}"},
    ],
)
def test_without_the_secret_nothing_is_taken(headers: dict[str, str], taken: Any, loopback: Accepting) -> None:
    assert loopback.ask("POST", LOG, METRIC, headers)[0] == 401
    assert loopback.ask("POST", "/graphql", b"{}", headers)[0] == 401
    assert taken.metrics == set()


def test_the_secret_may_be_the_password_of_basic(loopback: Accepting) -> None:
    headers = {"Authorization": f"Basic {base64.b64encode(f'api:{SECRET}'.encode()).decode()}"}
    assert loopback.ask("POST", "/graphql", b'{"query": "query Viewer { viewer { id } }"}', headers)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil:1", "", "[::1]"])
def test_another_host_is_refused(host: str, taken: Any, loopback: Accepting) -> None:
    assert loopback.ask("POST", LOG, METRIC, {**BEARER, "Host": host})[0] == 403
    assert taken.metrics == set()


def test_it_listens_on_the_loopback_address_only(loopback: Accepting) -> None:
    assert loopback.server._listener.getsockname()[0] == "127.0.0.1"
    assert not loopback.server._listener.get_inheritable()


def test_bodies_may_be_chunked_or_compressed(taken: Any, loopback: Accepting) -> None:
    connection = loopback.connect()
    connection.request("POST", LOG, iter([METRIC[:5], METRIC[5:]]), BEARER, encode_chunked=True)
    assert connection.getresponse().read() == b"{}"
    second = METRIC.replace(b'"step": 3', b'"step": 4')
    connection.request("POST", LOG, gzip.compress(second), {**BEARER, "Content-Encoding": "gzip"})
    assert connection.getresponse().read() == b"{}"
    connection.close()
    assert [step for step, _ in taken.points("loss")] == [3, 4]


def test_a_reply_is_one_write(loopback: Accepting, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_connection(("127.0.0.1", loopback.server.port)) as client:
        client.sendall(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        client.settimeout(60)
        assert b'"message"' in client.recv(1 << 16), "head and body come together"
    assert server.Requests.disable_nagle_algorithm


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"no JSON", {}, 400),
        (b"[1]", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"x", {"Content-Encoding": "gzip"}, 400),
        (b"", {"Content-Length": str(server.MAX_BODY_BYTES + 1)}, 413),
        (b"", {"Content-Length": "-1"}, 413),
        (b"xyz\r\n", {"Transfer-Encoding": "chunked"}, 400),
        (b"%x\r\n" % (server.MAX_BODY_BYTES + 1), {"Transfer-Encoding": "chunked"}, 413),
        (gzip.compress(b"\0" * (server.MAX_BODY_BYTES + 1)), {"Content-Encoding": "gzip"}, 413),
    ],
)
def test_a_bad_request_is_refused_and_the_next_connection_served(
    body: bytes, headers: dict[str, str], status: int, loopback: Accepting
) -> None:
    assert loopback.ask("POST", LOG, body, {**BEARER, **headers})[0] == status
    assert loopback.ask("POST", LOG, METRIC)[0] == 200


def test_an_unknown_path_is_named(loopback: Accepting) -> None:
    status, answer = loopback.ask("GET", "/api/2.0/mlflow/runs/search")
    assert (status, answer["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert "runs/search is not offered" in answer["message"]
    assert loopback.ask("DELETE", "/graphql")[0] == 404
    assert loopback.ask("POST", "/sdk/otel/v1/metrics", b"\x0a\x00", {}) == (200, {})


def test_connections_beyond_the_limit_wait_and_are_served_then(
    loopback: Accepting, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 3_600.0)
    held = [socket.create_connection(("127.0.0.1", loopback.server.port)) for _ in range(server.MAX_CONNECTIONS)]
    until(lambda: not loopback.server.has_room)
    more = loopback.connect()
    more.request("POST", LOG, METRIC, BEARER)
    held[0].close()
    assert more.getresponse().status == 200
    for each in (*held, more):
        each.close()
    until(lambda: not loopback.server._connections)


@pytest.mark.parametrize("sent", [b"", f"POST {LOG} HTTP/1.1\r\nContent-".encode()])
def test_connections_that_wait_for_their_client_give_way_to_others(
    sent: bytes, taken: Any, loopback: Accepting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Server.waits
    monkeypatch.setattr(Server, "waits", lambda self, number, _: waits(self, number, 0.0))
    held = [socket.create_connection(("127.0.0.1", loopback.server.port)) for _ in range(server.MAX_CONNECTIONS)]
    for each in held:
        each.sendall(sent)
    assert loopback.ask("POST", LOG, METRIC)[0] == 200
    assert taken.points("loss") == [(3, 0.5)]
    for each in held:
        each.close()


def test_a_request_in_progress_is_answered_at_the_end(taken: Any, loopback: Accepting, until: Any) -> None:
    connection = loopback.connect()
    connection.request("POST", LOG, METRIC, BEARER)
    until(lambda: taken.points("loss"))
    idle = socket.create_connection(("127.0.0.1", loopback.server.port))
    until(lambda: len(loopback.server._connections) == 2)
    loopback.stop()
    loopback.server.close()
    assert connection.getresponse().status == 200
    assert idle.recv(1) == b"", "an idle connection is closed"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", loopback.server.port))
    idle.close()
    connection.close()


def test_after_the_end_a_metric_is_not_acknowledged(taken: Any, loopback: Accepting) -> None:
    taken.intake.close()
    with pytest.raises(http.client.RemoteDisconnected):
        loopback.ask("POST", LOG, METRIC)
