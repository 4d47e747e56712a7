"""Output of the child: cut pipes into lines, separate points from log lines, and limit the log.

Points are never lost. Log lines above a rate and a total are dropped and counted.

An unterminated line is logged after a second, and a line that is redrawn (a progress bar) in its present state, at
growing intervals. What replaces it, the next state or the whole line, begins with a carriage return in the log: it
replaces the line of its stream before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import termios
import time
from typing import Callable

from runner.supervisor import terminal
from runner.supervisor.notices import LINE_TOO_LONG, LOG_LIMIT, LOG_RATE, Notices
from runner.supervisor.readers.stream import Stream
from runner.supervisor.spool import Spool

MAX_PARSED_LINE = 1 << 20
MAX_LOGGED_LINE = 32 << 10
LOG_BURST_BYTES = 256 << 10
LOG_RATE_BYTES = 64 << 10  # a second
LOG_TOTAL_BYTES = 64 << 20  # an attempt
READ_BYTES = 256 << 10
PIPE_BYTES = 1 << 20
SHOW_SECONDS = 1.0  # until an unended line is shown
SHOW_LONGEST_SECONDS = 30.0  # between two states of it: doubled with each
MAX_SHOWN = 2 << 10  # bytes of it
F_SETPIPE_SZ = 1031  # fcntl(2); in the standard library since Python 3.10


class Lines:
    """Splits chunks of a pipe into whole lines. A line over the limit is cut, and ends with a mark."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._cut_bytes = 0  # of the line under way, once it is over the limit

    def feed(self, chunk: bytes) -> bytes:
        """Add a chunk; return the lines that it completes, each with its newline."""
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._hold(chunk)
            return b""
        if not self._partial:
            block = chunk[:end]
        else:
            first = chunk.index(b"\n")
            self._hold(chunk[:first])
            block = self._release() + chunk[first:end]
        self._hold(chunk[end:])
        return block

    def rest(self) -> bytes:
        """Return the text after the last newline."""
        return self._release()

    @property
    def pending(self) -> bytes:
        """The text after the last newline, which may go on."""
        return bytes(self._partial[: MAX_LOGGED_LINE + 1])

    def squeeze(self) -> None:
        """Drop what the pending line was before it was last redrawn: a bar has no end, and no size."""
        if b"\r" in self._partial and not self._cut_bytes:
            del self._partial[: max(self._partial.rstrip(b"\r\b ").rfind(b"\r"), 0)]

    def _hold(self, part: bytes) -> None:
        if self._cut_bytes:
            self._cut_bytes += len(part)
            return
        self._partial += part
        if len(self._partial) > MAX_PARSED_LINE:
            self._cut_bytes = len(self._partial)
            del self._partial[MAX_LOGGED_LINE:]

    def _release(self) -> bytes:
        line = bytes(self._partial)
        if self._cut_bytes:  # the mark also makes it invalid JSON
            line += _cut_mark(self._cut_bytes - MAX_LOGGED_LINE)
        self._partial.clear()
        self._cut_bytes = 0
        return line


CUT_MARK = " … [cut: ".encode()


def _cut_mark(cut_bytes: int) -> bytes:
    return CUT_MARK + f"{cut_bytes} bytes more]".encode()


class Log:
    """Rate limiter of log lines: 256 KiB in a burst, then 64 KiB a second, and 64 MiB an attempt.

    Once the allowance is used up, every line is dropped until a second's worth is back, so a flood costs one mark a
    second instead of one for every other line.
    """

    def __init__(self, spool: Spool, notices: Notices) -> None:
        self._spool = spool
        self._notices = notices
        self._allowance = float(LOG_BURST_BYTES)
        self._refilled_at = time.monotonic()
        self._total_left = LOG_TOTAL_BYTES
        self._is_shut = False
        self._dropped_bytes = 0

    def write(self, stream: str, block: bytes) -> None:
        """Log whole lines. block: lines joined by newlines, the last one may have its own."""
        self.tick()
        if block.endswith(b"\n"):
            block = block[:-1]
        if self._is_shut:
            self._dropped_bytes += len(block) + 1
            return
        position = 0
        for line in block.split(b"\n"):
            cost = min(len(line), MAX_LOGGED_LINE) + 1
            if cost > min(self._allowance, self._total_left):
                self._is_shut = True
                self._dropped_bytes += len(block) + 1 - position
                if self._is_used_up:
                    self._spool.add_log(
                        "SUPERVISOR", "the log is full: from here on output is dropped, points are kept"
                    )
                return
            self._allowance -= cost
            self._total_left -= cost
            position += len(line) + 1
            if len(line) > MAX_LOGGED_LINE + 64:  # room for the mark of a line that was cut before
                line = terminal.cut(line, MAX_LOGGED_LINE) + _cut_mark(len(line) - MAX_LOGGED_LINE)
            self._spool.add_log(stream, line.decode("utf-8", "replace").replace("\0", "\ufffd"))

    @property
    def _is_used_up(self) -> bool:
        return self._total_left <= MAX_LOGGED_LINE  # then a line may not fit

    def tick(self) -> None:
        """Refill the allowance by the time passed; log the count of dropped bytes as soon as there is room."""
        now = time.monotonic()
        self._allowance = min(self._allowance + (now - self._refilled_at) * LOG_RATE_BYTES, LOG_BURST_BYTES)
        self._refilled_at = now
        if self._is_shut and self._allowance >= LOG_RATE_BYTES and not self._is_used_up:
            self._is_shut = False
            self.say_dropped()

    def say_dropped(self) -> None:
        """Log the count of bytes dropped here, if any."""
        if self._dropped_bytes:
            kind = LOG_LIMIT if self._is_used_up else LOG_RATE
            self._notices.count(kind, "", by=self._dropped_bytes)
            limit = f"the log of an attempt ends at {LOG_TOTAL_BYTES >> 20} MiB"
            if not self._is_used_up:
                limit = f"more than {LOG_RATE_BYTES >> 10} KiB a second"
            self._spool.add_log("SUPERVISOR", f"dropped {self._dropped_bytes} bytes of output: {limit}")
            self._dropped_bytes = 0


class _Drawn:
    """Lines with colours, found by where they stand in the same block without."""

    def __init__(self, clean: bytes, drawn: bytes) -> None:
        self._drawn = drawn
        self._places: dict[int, int] | None = None
        if len(clean) != len(drawn):
            self._places = dict(zip(_starts(clean), _starts(drawn)))

    def lines(self, begin: int, end: int) -> bytes:
        """Return whole lines; begin, end: their place in the clean block."""
        places = self._places
        return self._drawn[begin:end] if places is None else self._drawn[places[begin] : places[end]]


def _starts(block: bytes) -> list[int]:
    """Where lines start, and the end of the block."""
    starts, at = [0], 0
    while at < len(block):
        at = block.find(b"\n", at) + 1 or len(block)
        starts.append(at)
    return starts


class Output:
    """One pipe of the child: reads it, separates points from log lines, and adds both to the spool."""

    def __init__(
        self, descriptor: int, stream: str, readers: Callable[[str], Stream], log: Log, spool: Spool, notices: Notices
    ) -> None:
        """readers: makes those of a stream, once it has output."""
        self.descriptor = descriptor
        self.last_line = ""  # with a letter in it, of the whole lines of standard error
        self._stream = stream
        self._make_readers = readers
        self._made: Stream | None = None
        self._log = log
        self._spool = spool
        self._notices = notices
        self._lines = Lines()
        self._shown: bytes | None = None  # of the pending line
        self._look_at = 0.0  # when a pending line is looked at next
        self._show_at = 0.0
        self._spacing_seconds = SHOW_SECONDS
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # beyond the user's allowance of pipe memory: the default size works, too
            fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)

    def read(self, elapsed: float) -> bool:
        """Read available output; False at the end of the pipe. elapsed: seconds since the child's start."""
        try:
            chunk = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return True
        if not chunk:
            self._take(self._lines.rest(), elapsed)
            return False
        was_pending = bool(self._lines.pending) and b"\n" not in chunk
        self._take(self._lines.feed(chunk), elapsed)
        if not was_pending:
            self._look_at = self._show_at = time.monotonic() + SHOW_SECONDS
            self._spacing_seconds = SHOW_SECONDS
        self._lines.squeeze()
        self._spool.write_out()
        return True

    def tick(self, elapsed: float) -> None:
        """Show and read a line that has not ended for a second."""
        if self._made is not None:
            self._made.tick(elapsed)
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + SHOW_SECONDS
        pending = self._lines.pending
        if not pending.strip() or len(pending) > MAX_LOGGED_LINE or pending.lstrip().startswith(b"{"):
            return
        state = terminal.drawn(pending)
        is_bar = state.startswith(b"\r")
        text = terminal.cut(terminal.plain(state), MAX_SHOWN)
        if not terminal.clean(text).strip() or text == self._shown:
            return
        if is_bar:
            self._readers.redrawn(terminal.clean(state), elapsed)
        if now >= self._show_at:
            self._write(text)
            self._shown = text
            self._show_at = now + self._spacing_seconds
            self._spacing_seconds = min(2 * self._spacing_seconds, SHOW_LONGEST_SECONDS)
        self._spool.write_out()

    def drain(self, elapsed: float) -> None:
        """Read what the pipe holds, however long that takes, and close it: its writers are dead.

        A process that can't be killed may hold it open and still write: what is written from here on is not read.
        """
        held = bytearray(4)
        fcntl.ioctl(self.descriptor, termios.FIONREAD, held)
        for _ in range(-(-int.from_bytes(held, sys.byteorder) // READ_BYTES)):
            self.read(elapsed)
        self.close(elapsed)

    def close(self, elapsed: float) -> None:
        self._take(self._lines.rest(), elapsed)
        if self._made is not None:
            self._made.tick(elapsed, is_last=True)
        os.close(self.descriptor)

    @property
    def _readers(self) -> Stream:
        if self._made is None:
            self._made = self._make_readers(self._stream)
        return self._made

    def _take(self, block: bytes, elapsed: float) -> None:
        """Read the points of whole lines, and log the lines that hold anything else."""
        if not block:
            return
        if len(block) > MAX_LOGGED_LINE and CUT_MARK in block:
            self._notices.count(LINE_TOO_LONG, terminal.clean(terminal.drawn(block[:200])).decode("utf-8", "replace"))
        drawn = terminal.drawn(block)
        block = terminal.clean(drawn)
        logged = _Drawn(block, drawn)
        position = at = 0
        while not self._readers.is_deaf:
            line = self._readers.next_line(block, at)
            if line is None:
                break
            begin, at = line
            if self._readers.read(block[begin:at], elapsed):
                if begin > position:
                    self._write(terminal.plain(logged.lines(position, begin)))
                position = at
        if position < len(block):
            self._write(terminal.plain(logged.lines(position, len(block))))
        if self._stream == "STDERR":
            self._keep_last_line(block)
        self._shown = None

    def _write(self, block: bytes) -> None:
        if self._shown is not None:
            block, self._shown = b"\r" + block, None
        self._log.write(self._stream, block)

    def _keep_last_line(self, block: bytes) -> None:
        for line in reversed(block[-MAX_SHOWN:].split(b"\n")):
            if not line.startswith(b"\r") and any(65 <= byte <= 122 for byte in line):
                self.last_line = line.decode("utf-8", "replace").strip()
                return
