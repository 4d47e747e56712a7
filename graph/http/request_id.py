"""Middleware: request ids (`X-Request-ID`, and in each log line of the request) and durations.

An id that a client or a proxy sends is taken if it could do no harm in a log, so that one request is found again in the
logs of all it went through; otherwise one is made. A WebSocket's is its id for as long as it is open, `socket_id` in
the log, because all of its operations are one request to HTTP.
"""

from __future__ import annotations

import re
import secrets
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from graph.metrics import Metrics

HEADER = b"x-request-id"
ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
PATHS = frozenset({"/", "/graphql", "/session", "/healthz", "/readyz", "/metrics"})
OTHER = "other"  # a label has few values
STREAM = b"text/event-stream"


class RequestId:
    """The outermost ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._request(scope, receive, send)
            case "websocket":
                await self._socket(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _id_of(scope)
        status, is_stream = 0, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                status = message["status"]
                is_stream = any(name == b"content-type" and value.startswith(STREAM) for name, value in headers)
                message["headers"] = [*headers, (HEADER, request_id)]
            await send(message)

        began = perf_counter()
        with bound_contextvars(request_id=request_id.decode()):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                if status and not is_stream:  # without one: the client had left
                    path = scope["path"] if scope["path"] in PATHS else OTHER
                    self._metrics.answered(path, status, perf_counter() - began)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket_id = _id_of(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "websocket.accept":
                message["headers"] = [*message.get("headers", ()), (HEADER, socket_id)]
            await send(message)

        self._metrics.sockets.inc()
        with bound_contextvars(socket_id=socket_id.decode()):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                self._metrics.sockets.dec()


def _id_of(scope: Scope) -> bytes:
    given = next((value for name, value in scope["headers"] if name == HEADER), None)
    return given if given is not None and ID.fullmatch(given) else secrets.token_hex(8).encode()
