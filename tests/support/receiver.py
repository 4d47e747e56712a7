"""A receiver of webhooks on the loopback address: keeps what arrives, and answers as the test has set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook


@dataclass(frozen=True)
class Received:
    """One request, whatever was answered."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The message, as the library of a receiver verifies and reads it."""
        return Webhook(secret).verify(self.body, dict(self.headers))


@dataclass
class Receiver:
    """status: of the answers. hold: if set, requests wait for this event before they are answered."""

    url: str
    port: int
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    received: list[Received] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.received]

    def is_reached(self, times: int = 1) -> Callable[[], bool]:
        return lambda: len(self.received) >= times


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """Receive on this port while the block runs; 0: any free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body))
            if receiver.hold is not None:
                receiver.hold.wait()
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that was killed

    with Server(("127.0.0.1", port), Handler) as server:
        found = server.server_address[1]
        receiver = Receiver(f"http://127.0.0.1:{found}/hook", found)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            if receiver.hold is not None:
                receiver.hold.set()
            server.shutdown()
            thread.join()
