"""Output of the child: cut pipes into lines, separate points from log lines, and limit the log.

Points are never lost. Log lines above a rate and a total are dropped and counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time

from runner.supervisor.curve import Curve
from runner.supervisor.spool import Spool

MAX_PARSED_LINE = 1 << 20
MAX_LOGGED_LINE = 32 << 10
LOG_BURST_BYTES = 256 << 10
LOG_RATE_BYTES = 64 << 10  # a second
LOG_TOTAL_BYTES = 64 << 20  # an attempt
READ_BYTES = 256 << 10
PIPE_BYTES = 1 << 20
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


def _cut_mark(cut_bytes: int) -> bytes:
    return f" … [cut: {cut_bytes} bytes more]".encode()


class Log:
    """Rate limiter of log lines: 256 KiB in a burst, then 64 KiB a second, and 64 MiB an attempt.

    Once the allowance is used up, every line is dropped until a second's worth is back, so a flood costs one mark a
    second instead of one for every other line.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
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
                line = line[:MAX_LOGGED_LINE] + _cut_mark(len(line) - MAX_LOGGED_LINE)
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
            limit = f"the log of an attempt ends at {LOG_TOTAL_BYTES >> 20} MiB"
            if not self._is_used_up:
                limit = f"more than {LOG_RATE_BYTES >> 10} KiB a second"
            self._spool.add_log("SUPERVISOR", f"dropped {self._dropped_bytes} bytes of output: {limit}")
            self._dropped_bytes = 0


class Output:
    """One pipe of the child: reads it, separates points from log lines, and adds both to the spool."""

    # Only lines that begin and end like an object are parsed one by one; all others are logged in bulk.
    _OBJECT = re.compile(rb'^[ \t\r]*\{[ \t\r]*"[^\n]*\}[ \t\r]*(?:\n|\Z)', re.MULTILINE)

    def __init__(self, descriptor: int, stream: str, curve: Curve | None, log: Log, spool: Spool) -> None:
        self.descriptor = descriptor
        self._stream = stream
        self._curve = curve
        self._log = log
        self._spool = spool
        self._lines = Lines()
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
        if self._curve is None:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # progress bars return without a new line
        self._take(self._lines.feed(chunk), elapsed)
        self._spool.write_out()
        return True

    def close(self, elapsed: float) -> None:
        self._take(self._lines.rest(), elapsed)
        os.close(self.descriptor)

    def _take(self, block: bytes, elapsed: float) -> None:
        if self._curve is None or b"{" not in block:
            if block:
                self._log.write(self._stream, block)
            return
        position = 0
        for match in self._OBJECT.finditer(block):
            if match.start() > position:
                self._log.write(self._stream, block[position : match.start()])
            position = match.end()
            step, points, is_used_up = self._curve.read(match.group())
            if points:
                self._spool.add_points(step, elapsed, points)
            if not is_used_up:
                self._log.write(self._stream, match.group())
        if position < len(block):
            self._log.write(self._stream, block[position:])
