"""Loopback HTTP server: MLflow's and W&B's clients in the child send to it instead of to a service of their own.

It listens on 127.0.0.1, on a port that the kernel chooses, from before the child's start until its end. The main loop
accepts; each connection has a thread, at most 32 at a time: for another one, the connection that has been idle longest,
or whose request does not arrive, is closed. A request needs the attempt's secret (Bearer, or the password of Basic) and
the Host 127.0.0.1, which a page in a browser can't send by a name of its own.

A reply goes out in one write: two would cost 40 ms by Nagle's algorithm and delayed acknowledgements.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import itertools
import json
import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runner.supervisor.complaints import complain
from runner.supervisor.sources import mlflow
from runner.supervisor.sources.mlflow import Mlflow, NoSuchEndpoint
from runner.supervisor.sources.wandb import Wandb

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
else:
    BaseHTTPRequestHandler = object  # `_handler` adds it

TELEMETRY = "/sdk/otel/"  # of W&B's client
HOST = "127.0.0.1"
MAX_CONNECTIONS = 32
MAX_BODY_BYTES = 16 << 20  # 1,000 metrics are 100 KiB
REQUEST_SECONDS = 30.0
IDLE_SECONDS = 1.0  # without a request, after which a connection gives way to another one
LINGER_SECONDS = 0.5  # W&B's process sends its last values after the child's end
CLOSE_SECONDS = 5.0  # for requests in progress


class Server:
    """The listening socket and the connections of one attempt. Raises OSError if it can't listen."""

    def __init__(self, secret: str, mlflow: Mlflow, wandb: Wandb) -> None:
        self.secret = secret
        self.mlflow = mlflow
        self.wandb = wandb
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.descriptor = self._listener.fileno()
        self._changed = threading.Condition()
        self._connections: dict[int, socket.socket] = {}
        self._give_way_at: dict[int, float] = {}  # for connections that wait for their client; monotonic seconds
        self._numbers = itertools.count(1)

    @property
    def has_room(self) -> bool:
        """Whether another connection may be accepted; until then it waits in the kernel."""
        return len(self._connections) < MAX_CONNECTIONS or self._expendable() is not None

    def accept(self) -> None:
        """Accept the waiting connections; each is served by a thread of its own."""
        while self.has_room:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # none is left, or it was aborted
                return
            number = next(self._numbers)
            if len(self._connections) >= MAX_CONNECTIONS:
                self._shut(self._expendable())
            with self._changed:
                self._connections[number] = connection
            try:
                threading.Thread(target=self._serve, args=(connection, number), name="source", daemon=True).start()
            except RuntimeError as error:  # no more threads
                complain(f"sources: {error}")
                self._end(connection, number)

    def waits(self, number: int, seconds: float) -> None:
        """Note that a connection waits for its client, and gives way to others after some seconds."""
        with self._changed:
            self._give_way_at[number] = time.monotonic() + seconds

    def has_request(self, number: int) -> None:
        """Note that a connection has a whole request to answer: it gives way to none."""
        with self._changed:
            self._give_way_at.pop(number, None)

    def _expendable(self) -> int | None:
        with self._changed:
            number = min(self._give_way_at, key=self._give_way_at.__getitem__, default=None)
            return number if number is not None and self._give_way_at[number] <= time.monotonic() else None

    def _shut(self, number: int | None) -> None:
        """End a connection at its next read; its thread closes it."""
        with self._changed:
            connection = self._connections.get(number) if number is not None else None
            if number is not None and self._give_way_at.pop(number, None) is not None and connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def linger(self) -> None:
        """Go on for half a second after the child's end, while a connection is open."""
        deadline = time.monotonic() + LINGER_SECONDS
        self.accept()
        while self._connections and time.monotonic() < deadline:
            ready, _, _ = select.select([self._listener], [], [], 0.01)
            if ready:
                self.accept()

    def close(self) -> None:
        """Close the listener, and the connections once their requests in progress are answered."""
        self._listener.close()
        with self._changed:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # what has arrived is still read
            if not self._changed.wait_for(lambda: not self._connections, CLOSE_SECONDS):
                complain(f"sources: {len(self._connections)} connections did not end")

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            _handler()(connection, number, self)
        except OSError:  # the client is gone
            pass
        except Exception as error:  # noqa: BLE001  # a defect here must not end a simulation
            complain(f"sources: {type(error).__name__}: {error}")
        finally:
            self.mlflow.forget(number)
            self._end(connection, number)

    def _end(self, connection: socket.socket, number: int) -> None:
        connection.close()
        with self._changed:
            self._connections.pop(number, None)
            self._give_way_at.pop(number, None)
            self._changed.notify_all()


class Refusal(Exception):
    """The request is refused: a status and a sentence for the user."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Requests(BaseHTTPRequestHandler):
    """The requests of one connection; its constructor serves them all."""

    protocol_version = "HTTP/1.1"
    server_version = "simulations"
    sys_version = ""
    wbufsize = -1  # buffered: head and body leave in one write
    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, number: int, owner: Server) -> None:
        self._owner = owner
        self._number = number
        super().__init__(connection, (HOST, 0), owner)  # type: ignore[arg-type]  # only kept, as `server`

    def handle_one_request(self) -> None:
        self._owner.waits(self._number, IDLE_SECONDS)
        self.connection.settimeout(None)  # between requests: minutes may pass between two values
        if not self.rfile.peek(1):  # type: ignore[attr-defined]  # a BufferedReader
            self.close_connection = True
            return
        self._owner.waits(self._number, REQUEST_SECONDS)
        self.connection.settimeout(REQUEST_SECONDS)
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        document: Mapping[str, object]
        try:
            body = self._body()
            self._owner.has_request(self._number)
            if self.path.startswith(TELEMETRY):  # ignored; it comes without the secret
                status, document = 200, {}
            else:
                self._check()
                status, document = 200, self._reply(body)
        except Refusal as refusal:
            status, document = refusal.status, {"error_code": "BAD_REQUEST", "message": str(refusal)}
        except NoSuchEndpoint as error:
            status, document = 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": str(error)}
        except (ValueError, RecursionError) as error:
            status, document = 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": str(error)[:300]}
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _reply(self, body: bytes) -> Mapping[str, object]:
        parts = urlsplit(self.path)
        if parts.path.startswith(mlflow.PATH):
            return self._owner.mlflow.answer(self.command, parts.path, parts.query, body, self._number)
        reply = self._owner.wandb.answer(parts.path, body) if self.command == "POST" else None
        if reply is None:
            raise NoSuchEndpoint(f"{self.command} {parts.path[:300]} is not offered inside a simulation")
        return reply

    def _check(self) -> None:
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname != HOST:
            raise Refusal(403, f"The Host must be {HOST}")
        import hmac  # here, as `http.server` is: see `runner.supervisor.launcher`

        if not hmac.compare_digest(_secret_of(self.headers.get("Authorization", "")), self._owner.secret.encode()):
            raise Refusal(401, "The secret of this attempt is missing: it is in the simulation's environment")

    def _body(self) -> bytes:
        """Read the body, also of a request that is refused: the next one of the connection begins behind it."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = self._chunks()
        else:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                raise Refusal(413, f"A request has at most {MAX_BODY_BYTES} bytes")
            body = self.rfile.read(int(length))
        if self.headers.get("Content-Encoding", "").lower() == "gzip":
            body = _unzip(body)
        return body

    def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            size = int(self.rfile.readline(1_000).split(b";")[0], 16)
            if size < 0 or len(body) + size > MAX_BODY_BYTES:
                self.close_connection = True
                raise Refusal(413, f"A request has at most {MAX_BODY_BYTES} bytes")
            if not size:
                break
            body += self.rfile.read(size)
            self.rfile.readline(1_000)
        while self.rfile.readline(1_000).strip():  # trailers
            pass
        return bytes(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: requests are many."""


@functools.cache
def _handler() -> type[Requests]:
    """Requests on top of the standard library's handler, imported with the first connection (`launcher`)."""
    from http.server import BaseHTTPRequestHandler

    return type("Handler", (Requests, BaseHTTPRequestHandler), {})


def _secret_of(authorization: str) -> bytes:
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credential.strip().encode()
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(credential, validate=True).partition(b":")[2]
    return b""


def _unzip(body: bytes) -> bytes:
    import gzip

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            content = file.read(MAX_BODY_BYTES + 1)
    except (OSError, EOFError) as error:
        raise Refusal(400, f"The body is no gzip: {error}") from None
    if len(content) > MAX_BODY_BYTES:
        raise Refusal(413, f"A request has at most {MAX_BODY_BYTES} bytes")
    return content
