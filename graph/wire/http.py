"""HTTP connections: uvicorn's protocol, with timeouts and limits for clients that never finish a request.

uvicorn alone has no time limit and no size limit for the head of a request, and waits forever for a client that does
not read its response. This module adds:

- Head timeout: `HEAD_SECONDS` from the first byte of a head; for the first request, from the connection.
- Head size: head, chunk sizes and trailers of a request have at most `MAX_HEAD_BYTES` together, a head at most
  `MOST_HEADERS`. Input is parsed in pieces, so that the limit is noticed early: to parse 256 KiB of one-byte chunks
  takes a tenth of a second.
- Upgrades: a request for an upgrade to a protocol other than WebSocket, or with a body, gets an ordinary response (RFC
  9110, 7.8). uvicorn would read its body, or the bytes that follow, as another request.
- New connections: at most `MOST_NEWCOMERS` that have not sent a request; beyond that the oldest of them is closed, so
  that half-open connections can't keep out clients that send requests.
- Pipelining: at most `MOST_PIPELINED` requests wait for the responses to earlier ones; meanwhile nothing is read.
- Write timeout: a client that reads nothing of a response for a while is disconnected; event streams have a shorter
  limit of their own (http/sse.py).
- Connections: beyond the maximum of a process, a new one is closed at once.

http/protocol.py reads and limits bodies. It can receive a body of megabytes without the parser and ASGI's messages
(`state.collect`), which take about ten times as long as the bytes themselves: the kernel copies the body into a buffer
of the application. WebSocket connections are passed to wire/websocket.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
import structlog
from starlette.requests import ClientDisconnect
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from graph.wire.unix_user import Peer

log = structlog.get_logger()

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 65_536  # a query by GET is in it
MOST_HEADERS = 256  # browsers and proxies send some dozens; each is looked at by some layers
PIECE_BYTES = 16_384  # parsed between two looks at the sums
RECEIVED_BYTES = 1 << 20  # of a body that is collected, at once
DROPPED_BYTES = 1 << 16
LINE_BYTES = 4  # ": " and the end of the line
MOST_NEWCOMERS = 512  # of a process; an ordinary client sends a head within milliseconds
MOST_PIPELINED = 64  # requests of a connection that wait for one before them; browsers send none so
STALLS = 2  # times `stall_seconds`, so that a stream, which has more to say about it, is first
LOG_AGAIN_SECONDS = 60.0


def http_wires(stall_seconds: float, most_connections: int) -> Callable[..., asyncio.Protocol]:
    """The factory of an `HttpWire` for each connection, for `uvicorn.Config(http=...)`."""
    return partial(HttpWire, lobby=Lobby(most_connections), stall_seconds=stall_seconds)


class Lobby:
    """The connections of a process that have not sent a request yet, oldest first."""

    def __init__(self, most_connections: int) -> None:
        self._most_connections = most_connections
        self._newcomers: dict[HttpWire, None] = {}
        self._logged_at: float | None = None

    def takes(self, connections: int, now: float) -> bool:
        """Whether another connection is allowed beside these; a refusal is logged, at a limited rate."""
        if connections <= self._most_connections:
            return True
        if self._logged_at is None or now - self._logged_at >= LOG_AGAIN_SECONDS:
            self._logged_at = now
            log.warning("connections_exhausted", connections=self._most_connections)
        return False

    def enter(self, newcomer: HttpWire) -> None:
        if len(self._newcomers) >= MOST_NEWCOMERS:
            longest = next(iter(self._newcomers))
            self.leave(longest)
            longest.transport.abort()
        self._newcomers[newcomer] = None

    def leave(self, newcomer: HttpWire) -> None:
        self._newcomers.pop(newcomer, None)


class Intake(asyncio.BufferedProtocol):
    """The rest of a body: received where it belongs while the request waits for it, dropped if it no longer does.

    It is the connection's protocol meanwhile, and takes no byte of what follows.
    """

    def __init__(
        self, wire: HttpWire, begin: bytearray, left: int, buffer: memoryview, grow: Callable[[int], None]
    ) -> None:
        self.collected: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._content = buffer[: len(begin) + left]
        self._content[: len(begin)] = begin
        self._left = left
        self._grow = grow
        grow(len(begin))

    def get_buffer(self, _size: int) -> memoryview:
        if self.collected.done():
            self._content = memoryview(bytearray(min(self._left, DROPPED_BYTES)))
            return self._content
        begin = len(self._content) - self._left
        return self._content[begin : begin + RECEIVED_BYTES]

    def buffer_updated(self, size: int) -> None:
        self._left -= size
        if not self.collected.done():
            self._grow(size)
            if not self._left:
                self.collected.set_result(self._content)
        if not self._left:
            self._wire.end_intake()

    def eof_received(self) -> None:
        self._wire.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.collected.done():
            self.collected.set_exception(ClientDisconnect())
        self._wire.connection_lost(exc)

    def pause_writing(self) -> None:
        self._wire.pause_writing()

    def resume_writing(self) -> None:
        self._wire.resume_writing()


class HttpWire(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        lobby: Lobby,
        stall_seconds: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lobby = lobby
        self._stall_seconds = stall_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0
        self._overhead_bytes = 0  # of this request, without its body: as it arrives
        self._head_bytes = 0  # and as it is understood, for it may arrive in one piece
        self._is_upgraded = False
        self._is_again = False  # the head that is read now asks for a protocol that it won't get
        self._is_between = False  # the last piece ended with the end of a request
        self._body_left: int | None = None  # of this request's body, which the parser has not seen; None: in chunks
        self._peer: Peer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if not self._lobby.takes(len(self.connections), self.loop.time()):
            transport.abort()
            return
        self._lobby.enter(self)
        self._peer = Peer(self.client, self.server)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lobby.leave(self)
        self._head_came()
        self._unwatch()
        super().connection_lost(exc)

    # --- a request that is never finished ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        for begin in range(0, len(data), PIECE_BYTES):
            self._take(data[begin : begin + PIECE_BYTES])
            if self._is_upgraded or self.transport.is_closing():
                return
        if self._is_idle and self._is_between:  # the rest of a body that was answered before it came
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._is_idle and self._head_timer is None:  # no whole head yet, or more of an unread body
            self._expect_head()

    def _take(self, piece: bytes) -> None:
        self._is_between = False
        self._overhead_bytes += len(piece)
        try:
            self._feed(piece)
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if self._is_too_large else HTTPStatus.BAD_REQUEST)
            return
        if self._overhead_bytes > MAX_HEAD_BYTES and not self._is_upgraded:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    @property
    def _is_too_large(self) -> bool:
        return self._head_bytes > MAX_HEAD_BYTES or len(self.headers or ()) > MOST_HEADERS

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as asked:
            if self._should_upgrade():
                self._is_upgraded = True
                self.handle_websocket_upgrade()
            else:
                (end_of_head,) = asked.args
                head = self._head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
                self._feed(head + data[end_of_head:])

    def _should_upgrade(self) -> bool:
        """True for a handshake: a GET without a body (RFC 6455, 4.1)."""
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        return self.parser.get_method() == b"GET" and not has_body and bool(super()._should_upgrade())

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join((b"%b %b HTTP/%b" % (method, self.url, version), *lines, b"", b""))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["peer"] = self._peer
        self._is_between = False
        self._overhead_bytes = self._head_bytes = 0
        self._body_left = None

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + LINE_BYTES)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._is_too_large:
            raise ValueError("a head that is too large")  # to the parser, which ends for it

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/"):
            raise ValueError("a request to a proxy")  # its target would be another Host than the one that is checked
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests at once")
        self._is_again = self.parser.should_upgrade() and not self._should_upgrade()
        if self._is_again:
            return
        fields = dict(self.headers)
        if b"transfer-encoding" not in fields:
            self._body_left = int(fields.get(b"content-length", b"0"))
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            self.scope["state"]["collect"] = partial(self._collect, self.cycle)
        self._lobby.leave(self)
        self._head_came()

    def on_message_complete(self) -> None:
        if self._is_again:
            return
        super().on_message_complete()
        self._is_between = True
        self._head_came()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:  # uvicorn goes on reading after each answer, and so they would pile up
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._overhead_bytes -= len(body)
        if self._body_left is not None:
            self._body_left -= len(body)

    # --- a body of megabytes ---------------------------------------------------------------------------------------

    def _collect(
        self, cycle: RequestResponseCycle, buffer: memoryview, grow: Callable[[int], None]
    ) -> asyncio.Future[memoryview] | None:
        """Collect a body, which the buffer has room for, past the parser; None if it comes by ASGI's messages.

        grow: called with each part's size. The future has the part of the buffer that the body fills, and raises
        ClientDisconnect; once cancelled, what comes is dropped, and the buffer left alone.
        """
        if cycle is not self.cycle or not self._body_left or self.transport.is_closing():
            return None
        intake = Intake(self, cycle.body, self._body_left, buffer, grow)
        cycle.body = bytearray()
        if cycle.waiting_for_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        self._read_by(intake)
        return intake.collected

    def end_intake(self) -> None:
        """Go on behind a body that was collected, with a parser that begins anew."""
        if self.transport.is_closing():
            return
        self._read_by(self)
        self._body_left = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.on_message_complete()
        self.data_received(b"")

    def _read_by(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass further input to another protocol. uvloop checks the protocol's type when reading begins."""
        self.flow.pause_reading()
        self.transport.set_protocol(protocol)
        self.flow.resume_reading()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Say it, if nothing else is being said, and close."""
        if not self._is_idle:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    # --- an answer that is not read --------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwatch()

    def _watch(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(STALLS * self._stall_seconds, self._judge)

    def _unwatch(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _judge(self) -> None:
        self._stall_timer = None
        if self.transport.get_write_buffer_size() < self._unsent_bytes:
            self._watch()
        else:
            log.info("answer_not_read", client=self.client, unsent_bytes=self._unsent_bytes)
            self.transport.abort()
