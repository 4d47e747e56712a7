"""The HTTP connection to the service: forms of replies, and what is none."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.supervisor.wire import MAX_HEAD_BYTES, MAX_REPLY_BYTES, Connection

Answer = Callable[[socket.socket, bytes], None]
OK = b"HTTP/1.1 200 OK\r\n"


class Peer:
    """A service that gives each request of each connection to a function, and keeps the requests."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection:
                    self._requests(connection)
            except OSError:
                continue

    def _requests(self, connection: socket.socket) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                chunk = connection.recv(65_536)
                if not chunk:
                    return
                buffer += chunk
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            length = int(head.rpartition(b"Content-Length: ")[2])
            while len(buffer) < length:
                buffer += connection.recv(65_536)
            self.requests.append(head + b"\r\n\r\n" + buffer[:length])
            buffer = buffer[length:]
            self._answer(connection, self.requests[-1])
            if connection.fileno() < 0:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(answer: Answer, context: ssl.SSLContext | None = None) -> Peer:
        made.append(Peer(answer, context))
        return made[-1]

    yield make
    for each in made:
        each.close()


def replies(*parts: bytes, closes: bool = False) -> Answer:
    def answer(connection: socket.socket, _: bytes) -> None:
        for part in parts:
            connection.sendall(part)
        if closes:
            connection.close()

    return answer


def to(peer: Peer, path: str = "/graphql") -> Connection:
    return Connection(f"http://127.0.0.1:{peer.port}{path}", "secret")


LONG = b"x" * 300_000


@pytest.mark.parametrize(
    ("parts", "closes", "body"),
    [
        pytest.param([OK + b"Content-Length: 2\r\n\r\n{}"], False, b"{}", id="a length"),
        pytest.param([OK + b"content-length: 2", b"\r\n", b"\r", b"\n{", b"}"], False, b"{}", id="in pieces"),
        pytest.param([OK + b"Content-Length: 300000\r\n\r\n", LONG], False, LONG, id="long"),
        pytest.param([OK + b"Content-Length: 0\r\n\r\n"], False, b"", id="empty"),
        pytest.param(
            [OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n1;ext=1\r", b"\n}\r\n0\r\nTrailer: 1\r\n\r\n"],
            False, b"{}", id="chunks",
        ),
        pytest.param([OK + b"\r\n{", b"}"], True, b"{}", id="to the end of the connection"),
        pytest.param(
            [b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}"], False, b"{}", id="after 100"
        ),
        pytest.param([b"HTTP/1.0 200\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"], True, b"{}", id="HTTP/1.0"),
    ],
)  # fmt: skip
def test_the_body_of_a_reply(peers: Callable[..., Peer], parts: list[bytes], closes: bool, body: bytes) -> None:
    connection = to(peers(replies(*parts, closes=closes)))
    assert connection.post(b"question") == body
    assert connection.post(b"again") == body, "on the same connection or another"
    connection.close()


def test_a_request_is_one_post_and_the_connection_is_kept(peers: Callable[..., Peer]) -> None:
    peer = peers(replies(OK + b"Content-Length: 2\r\n\r\n{}"))
    connection = to(peer, "/a/graphql?x=1")
    assert not connection.is_open
    for _ in range(3):
        connection.post(b'{"a":1}')
    assert connection.is_open
    connection.close()
    assert peer.connections == 1
    assert peer.requests == 3 * [
        f"POST /a/graphql?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{peer.port}\r\nAccept: application/json\r\n"
        "Accept-Encoding: identity\r\nContent-Type: application/json\r\nAuthorization: Bearer secret\r\n"
        'Content-Length: 7\r\n\r\n{"a":1}'.encode()
    ]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}", id="another status"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="another protocol"),
        pytest.param(OK + b"Content-Length: 5\r\n\r\n{}", id="cut off"),
        pytest.param(OK + b"Content-Length: x\r\n\r\n{}", id="no length"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\n{}", id="a negative length"),
        pytest.param(OK + b"Content-Length: %d\r\n\r\n" % (MAX_REPLY_BYTES + 1), id="too long"),
        pytest.param(OK + b"X: " + b"x" * (2 * MAX_HEAD_BYTES), id="a head without an end"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nz\r\n", id="no chunk"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", id="a chunk that is longer"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{", id="a chunk that is cut off"),
        pytest.param(OK + b"Content-L", id="half a head"),
    ],
)
def test_anything_else_is_no_reply_and_closes_the_connection(peers: Callable[..., Peer], reply: bytes) -> None:
    connection = to(peers(replies(reply, closes=True)))
    with pytest.raises((ValueError, OSError)):
        connection.post(b"{}")
    assert not connection.is_open


def test_a_connection_that_the_service_had_closed_is_an_error_of_its_own(peers: Callable[..., Peer]) -> None:
    connection = to(peers(replies(closes=True)))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.post(b"{}")


@pytest.mark.parametrize("address", ["", "ftp://a", "http://", "http://a:x/", "no address at all", "http://a/b c"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError):
        Connection(address, "secret").post(b"")


@pytest.mark.parametrize("token", ["a\r\nX: 1", "ä"])
def test_a_token_adds_no_header(token: str) -> None:
    with pytest.raises(ValueError):
        Connection("http://127.0.0.1:1/", token)


def test_a_certificate_is_checked(peers: Callable[..., Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    peer = peers(replies(OK + b"Content-Length: 2\r\n\r\n{}"), context)
    with pytest.raises(ssl.SSLError):
        Connection(f"https://localhost:{peer.port}/", "secret").post(b"{}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    trusting = Connection(f"https://localhost:{peer.port}/", "secret")
    assert trusting.post(b"{}") == b"{}"
    trusting.close()
