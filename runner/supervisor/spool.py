"""What waits to be reported, in order, in numbered batches: in memory, and in files once memory is used up.

A sealed batch stays the same, under the same number, until it is acknowledged. With the disk and the memory set aside
both full the spool is full: the reader stops, and the simulation waits in its `print`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.supervisor.complaints import complain

MAX_BATCH_POINTS = 10_000
MAX_BATCH_BYTES = 750_000  # the line that fills it up comes on top: below the megabyte that is promised
MAX_BATCH_LOGS = 1_000
MAX_LOG_STRETCH = 64 << 10  # characters of one entry of a report's log
DISK_RESERVE_BYTES = 256 << 20  # left free: the service's own database may live on the same disk


@dataclass(frozen=True)
class Exit:
    """How it ended. `reason` is None where the child ended by itself."""

    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    message: str | None = None


class Batch:
    """A report in the making. `size_bytes` is never less than what it will be encoded."""

    # A step has up to 16 characters, a double up to 24, seconds up to 14; three commas.
    POINT_BYTES = 57

    def __init__(self) -> None:
        self.points: dict[str, tuple[list[int], list[float | str], list[float]]] = {}
        self.logs: list[tuple[str, list[str]]] = []
        self.exit: Exit | None = None
        self.count = 0
        self.size_bytes = 0
        self._stretch_characters = 0

    @property
    def is_empty(self) -> bool:
        return not self.count and not self.logs and self.exit is None

    @property
    def is_full(self) -> bool:
        full_of_logs = len(self.logs) >= MAX_BATCH_LOGS
        return self.count >= MAX_BATCH_POINTS or self.size_bytes >= MAX_BATCH_BYTES or full_of_logs

    def add_point(self, metric: str, step: int, value: float | str, elapsed: float) -> None:
        column = self.points.get(metric)
        if column is None:
            column = self.points[metric] = ([], [], [])
            self.size_bytes += len(json.dumps(metric)) + 48
        column[0].append(step)
        column[1].append(value)
        column[2].append(elapsed)
        self.count += 1
        self.size_bytes += self.POINT_BYTES

    def add_log(self, stream: str, text: str) -> None:
        """Add a line; lines of one stream in a row become one entry, joined by newlines."""
        if self.logs and self.logs[-1][0] == stream and self._stretch_characters + len(text) < MAX_LOG_STRETCH:
            self.logs[-1][1].append(text)
            self._stretch_characters += len(text) + 1
        else:
            self.logs.append((stream, [text]))
            self._stretch_characters = len(text)
            self.size_bytes += 48
        self.size_bytes += len(json.dumps(text)) + 2

    def encode(self) -> bytes:
        """The fields of the report's input that carry a payload, each with a comma before it."""
        fields: dict[str, object] = {}
        if self.points:
            fields["points"] = {
                metric: {"steps": steps, "values": values, "elapsed": elapsed}
                for metric, (steps, values, elapsed) in self.points.items()
            }
        if self.logs:
            fields["logs"] = [{"stream": stream, "text": "\n".join(texts)} for stream, texts in self.logs]
        if self.exit is not None:
            fields["exit"] = {
                "exitCode": self.exit.exit_code,
                "signal": self.exit.signal,
                "reason": self.exit.reason,
                "message": self.exit.message,
            }
        return b"".join(b',"%s":%s' % (name.encode(), encode(value)) for name, value in fields.items())


class Spool:
    """All that waits to be reported, in order: sealed batches in memory and in files, then the one still open.

    Both threads use it; `changed` is its lock. A batch is sealed when it is full or when the reporter asks for it, and
    then stays the same, under the same number, until it is acknowledged.
    """

    def __init__(self, directory: Path, memory_bytes: int, limit_bytes: int) -> None:
        self.changed = threading.Condition()
        self.number = 1  # of the first batch that is not acknowledged
        self._directory = directory
        self._memory_limit_bytes = memory_bytes
        self._limit_bytes = limit_bytes
        self._sealed: deque[bytes | Path] = deque()
        self._memory_bytes = 0
        self._files = 0
        self._open = Batch()
        self._exit: Exit | None = None
        self._is_closed = False

    def add_points(self, step: int, elapsed: float, points: Sequence[tuple[str, float | str]]) -> None:
        with self.changed:
            was_empty = self.is_empty
            for metric, value in points:
                self._open.add_point(metric, step, value, elapsed)
                if self._open.is_full:
                    self._seal()
            if was_empty:
                self.changed.notify()

    def add_log(self, stream: str, text: str) -> None:
        with self.changed:
            was_empty = self.is_empty
            self._open.add_log(stream, text)
            if self._open.is_full:
                self._seal()
            if was_empty:
                self.changed.notify()

    def close(self, end: Exit | None) -> None:
        """Put the end, if it can be told, behind everything else; nothing follows it."""
        with self.changed:
            self._exit = self._open.exit = end
            self._is_closed = True
            if not self._open.is_empty:
                self._seal()
            self.changed.notify()

    @property
    def is_empty(self) -> bool:
        return not self._sealed and self._open.is_empty

    @property
    def is_delivered(self) -> bool:
        """Whether all there will ever be was acknowledged."""
        return self._is_closed and self.is_empty

    @property
    def is_full(self) -> bool:
        """Whether the reader has to wait: the disk takes no more, and neither does memory."""
        return self._memory_bytes >= self._limit_bytes

    def head(self) -> bytes:
        """The payload of the first batch that waits; there must be one."""
        with self.changed:
            if not self._sealed:
                self._seal()
            first = self._sealed[0]
        if isinstance(first, bytes):
            return first
        try:
            return first.read_bytes()
        except OSError as error:
            lost = f"batch {self.number} was lost with the disk it waited on ({error.strerror})"
            complain(lost)
            return self.replace_head(lost)

    def replace_head(self, sentence: str | None) -> bytes:
        """Put a sentence for the log in the place of the first batch's content. How it ended is kept."""
        with self.changed:
            batch = Batch()
            if sentence is not None:
                batch.add_log("SUPERVISOR", sentence)
            if len(self._sealed) == 1 and self._open.is_empty:
                batch.exit = self._exit
            self._discard_head()
            payload = batch.encode()
            self._sealed.appendleft(payload)
            self._memory_bytes += len(payload)
            return payload

    def acknowledge(self) -> None:
        """The first batch is stored: forget it."""
        with self.changed:
            self._discard_head()
            self.number += 1

    def clear(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _discard_head(self) -> None:
        first = self._sealed.popleft()
        if isinstance(first, bytes):
            self._memory_bytes -= len(first)
        else:
            with contextlib.suppress(OSError):
                first.unlink()

    def _seal(self) -> None:
        payload = self._open.encode()
        self._open = Batch()
        if self._memory_bytes + len(payload) > self._memory_limit_bytes and (path := self._write(payload)) is not None:
            self._sealed.append(path)
        else:
            self._sealed.append(payload)
            self._memory_bytes += len(payload)

    def _write(self, payload: bytes) -> Path | None:
        path = self._directory / f"{self._files:09d}.json"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            if shutil.disk_usage(self._directory).free < DISK_RESERVE_BYTES:
                return None
            path.write_bytes(payload)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        self._files += 1
        return path


def encode(value: object) -> bytes:
    """Compact JSON. Raises ValueError for what JSON has no number for."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
