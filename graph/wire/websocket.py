"""WebSocket connections as bytes: uvicorn's protocol, with timeouts for peers that don't read, and limits on floods.

uvicorn makes the sending task wait while more than its high-water mark (64 KiB) waits for the kernel, so that a
reader that stalls costs one message, not a backlog. But it waits for ever, and it closes a connection only once that
backlog has been taken. Here a peer that has taken nothing for `stall_seconds` is closed with 1013 (its client may
resume by its cursor), and whatever the reason for an end, a connection that can't be closed in peace is cut off. Also
here: what would let a stranger grow this process' memory or fill its log below GraphQL.

What arrives is parsed in pieces, at most some `FRAMES_PER_TURN` frames in a turn of the event loop and no further than
a message that waits for the application: a read of 256 KiB holds 40,000 empty frames, or 12,000 pongs of the
subprotocol, each of which is a visit of some layers. Frames of all kinds, fragments and control frames too, are counted
(`FrameBudget`): few until the application admits the peer, which an extension is for, then so many a second. One too
many closes the connection with 1008, and nothing of what follows is parsed.

A broadcast bypasses the layers in between, each of which would encode and copy the event anew for every subscriber:
`write` takes it as bytes, if they can be sent now. An application finds `write` among its ASGI extensions.

Not here: what the messages mean (http/websocket.py). Nothing of this is on the way of a message that can be sent
at once.
"""

from __future__ import annotations

import asyncio
import codecs
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import structlog
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame
from websockets.protocol import State

from graph.wire.unix_user import Peer

log = structlog.get_logger()

WRITE = "simulations.write"  # the extension: (*parts: bytes) -> whether they were sent, as one text message
ADMIT = "simulations.admit"  # the extension: () -> None; the peer is known: from now on it may send more frames
FRAMES_BEFORE = 32  # until then; a client needs the handshake, connection_init and, at most, a ping
FRAMES_PER_SECOND = 1_000  # of an admitted peer: a frame that says nothing takes 6 us, a message 30 and more
FRAMES_AT_ONCE = 2_000  # saved up in quiet times: a message of a megabyte in pieces of a kilobyte, 100 operations
FRAMES_PER_TURN = 64
PIECE_BYTES = 1_024  # parsed at once: at most 170 frames more
FAREWELL_SECONDS = 5.0  # for the rest of what was sent, and the peer's own close frame, before it is cut off
FINAL_TEXT = 0x81
UNREADABLE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
LAST_FAREWELL_SECONDS = 1.0  # the same when the process ends


def wires(stall_seconds: float) -> Callable[..., asyncio.Protocol]:
    """The factory of a `Wire` for each connection, for `uvicorn.Config(ws=...)`."""
    return partial(Wire, stall_seconds=stall_seconds)


class FrameBudget:
    """Limit on the frames of a peer: a fixed number until it is admitted, then a token bucket."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left: float = FRAMES_BEFORE
        self._filled_at: float | None = None  # None: not admitted

    def admit(self) -> None:
        """Begin to count by the second; again changes nothing."""
        if self._filled_at is None:
            self._left, self._filled_at = FRAMES_AT_ONCE, self._clock()

    def spend(self, frames: int) -> bool:
        """Count them; False if they are too many."""
        if self._filled_at is not None:
            now = self._clock()
            self._left = min(FRAMES_AT_ONCE, self._left + (now - self._filled_at) * FRAMES_PER_SECOND)
            self._filled_at = now
        self._left -= frames
        return self._left >= 0


class Wire(WebSocketsSansIOProtocol):
    """One connection. A peer stalls if it takes no byte for `stall_seconds` while the write buffer is full."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        stall_seconds: float,
    ) -> None:
        self._unparsed = bytearray()  # before uvicorn's: it sets `read_paused`
        self._next_turn: asyncio.Handle | None = None  # in which the rest is parsed
        super().__init__(config, server_state, app_state, _loop)
        self.close_timeout = FAREWELL_SECONDS
        self.writable = _Writable()
        self.writable.set()
        self._stall_seconds = stall_seconds
        self._unsent_bytes = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self._farewell_timer: asyncio.TimerHandle | None = None
        self._budget = FrameBudget(self.loop.time)
        self._frames_in_turn = 0
        self._is_flooded = False

    # --- a message that is encoded already ------------------------------------------------------------------------

    def write(self, *parts: bytes) -> bool:
        """Send UTF-8 as one text message; False, and nothing is sent, if that would have to wait, or can't be."""
        if not self.writable.is_set() or self.conn.state is not State.OPEN or self.transport.is_closing():
            return False
        text = b"".join(parts)
        self.transport.write(head_of(len(text)) + text)
        return True

    # --- a peer that does not read -----------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwatch()

    def _watch(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(self._stall_seconds, self._judge)

    def _unwatch(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _judge(self) -> None:
        self._stall_timer = None
        if self.transport.get_write_buffer_size() < self._unsent_bytes:
            self._watch()  # it reads, if slowly: nothing is added meanwhile
        else:
            self._give_up()

    def _give_up(self) -> None:
        log.info("socket_stalled", client=self.client, unsent_bytes=self._unsent_bytes)
        if self.conn.state is State.OPEN:
            self.conn.send_close(
                CloseCode.TRY_AGAIN_LATER, f"Nothing was read for {self._stall_seconds:g} s. Resume by the cursor."
            )
        self._dismiss(CloseCode.TRY_AGAIN_LATER)

    def _dismiss(self, code: CloseCode) -> None:
        """Send what the library has to say last, and end the connection for the application."""
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.disconnected = True  # a sender that waits is woken, and finds it closed
        self.writable.set()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        if self.read_paused:  # for the peer's close frame
            self.read_paused = False
            self.transport.resume_reading()
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(FAREWELL_SECONDS, self.transport.abort)

    # --- the end -----------------------------------------------------------------------------------------------

    async def run_asgi(self) -> None:
        self.scope["state"]["peer"] = Peer(self.client, self.server)
        self.scope["extensions"][WRITE] = self.write  # type: ignore[assignment]  # ASGI allows own ones
        self.scope["extensions"][ADMIT] = self._budget.admit  # type: ignore[assignment]  # as above
        await super().run_asgi()
        self._part(FAREWELL_SECONDS)

    def shutdown(self) -> None:
        """Close with 1012 at once: the process ends, and the client may come back."""
        self._part(LAST_FAREWELL_SECONDS)
        if self.conn.state is State.OPEN or not self.handshake_complete or self.close_sent:
            super().shutdown()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        if self._farewell_timer is not None:
            self._farewell_timer.cancel()
        if self._next_turn is not None:
            self._next_turn.cancel()
        super().connection_lost(exc)

    def _part(self, seconds: float) -> None:
        """Cut the connection off unless it has ended by then, or is to be cut off before."""
        if self not in self.connections:
            return
        when = self.loop.time() + seconds
        if self._farewell_timer is None or when < self._farewell_timer.when():
            if self._farewell_timer is not None:
                self._farewell_timer.cancel()
            self._farewell_timer = self.loop.call_at(when, self.transport.abort)

    # --- what a stranger may send ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what arrived, and parse as much of it as may be in this turn of the event loop."""
        if self._is_flooded:
            return
        self._unparsed += data
        if self._next_turn is None and not self.read_paused:
            self._parse()
        elif not self.transport.is_closing():
            self.transport.pause_reading()

    @property
    def read_paused(self) -> bool:
        """True if a message waits for the application: nothing behind it is parsed until then."""
        return self._is_read_paused

    @read_paused.setter
    def read_paused(self, is_paused: bool) -> None:
        self._is_read_paused = is_paused
        if not is_paused and self._unparsed and self._next_turn is None:
            self._next_turn = self.loop.call_soon(self._parse)

    def _parse(self) -> None:
        self._next_turn = None
        self._frames_in_turn = 0
        while self._may_parse():
            piece = bytes(self._unparsed[:PIECE_BYTES])
            del self._unparsed[:PIECE_BYTES]
            self._take(piece)
        if self.transport.is_closing():
            self._unparsed.clear()
        elif self.read_paused:
            self.transport.pause_reading()
        elif self._unparsed:
            self.transport.pause_reading()
            self._next_turn = self.loop.call_soon(self._parse)
        else:
            self.transport.resume_reading()

    def _may_parse(self) -> bool:
        is_open = not self.read_paused and not self.transport.is_closing()
        return is_open and bool(self._unparsed) and self._frames_in_turn < FRAMES_PER_TURN

    def _take(self, piece: bytes) -> None:
        """Parse a piece; a handshake that the library can't read ends here: no later event would report it."""
        super().data_received(piece)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(UNREADABLE)
            self.transport.close()

    def handle_events(self) -> None:
        frames = len(self.conn.events)
        self._frames_in_turn += frames
        if self._budget.spend(frames):
            super().handle_events()
        else:
            self._refuse_flood()

    def _refuse_flood(self) -> None:
        log.info("socket_flooded", client=self.client)
        self._is_flooded = True
        self._unparsed.clear()
        self.conn.events_received()
        self.conn.data_to_send()  # pongs
        if self.conn.state is not State.OPEN:
            self.transport.abort()
            return
        self.conn.fail(CloseCode.POLICY_VIOLATION, "Too many frames.")
        self._dismiss(CloseCode.POLICY_VIOLATION)
        self.transport.write_eof()  # else the peer, whose close frame is not parsed either, would wait for our end

    def handle_ping(self) -> None:
        """Answer, unless earlier answers are not being read (RFC 6455, 5.5.3, allows to skip some)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_text(self, event: Frame) -> None:
        super().handle_text(event)
        event.data = b""  # the library keeps the last frame until the next one comes

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment; an empty one counts only as the end, or they would pile up without reaching any limit."""
        if event.data or event.fin:
            super().handle_cont(event)
            event.data = b""

    def send_receive_event_to_app(self) -> None:
        """Hand a message on; one that is not UTF-8 ends the connection, and is nothing to log with a traceback."""
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self.frames = []
            if self.conn.state is State.OPEN:
                self.conn.send_close(CloseCode.INVALID_DATA)
                self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()


def head_of(length: int) -> bytes:
    """The header of an unmasked frame with so many bytes of text (RFC 6455, 5.2)."""
    if length < 126:
        return struct.pack("!BB", FINAL_TEXT, length)
    if length < 65_536:
        return struct.pack("!BBH", FINAL_TEXT, 126, length)
    return struct.pack("!BBQ", FINAL_TEXT, 127, length)


class _Writable(asyncio.Event):
    """Lets those who wait write one after the other: the first to write may have filled the buffer again."""

    async def wait(self) -> Literal[True]:
        while not self.is_set():
            await super().wait()
        return True


def _is_utf8(frames: list[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for frame in frames:
            decoder.decode(frame)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
