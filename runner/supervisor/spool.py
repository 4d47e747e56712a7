"""Spool of undelivered output: numbered batches, each in a file of its own and, if it fits, in memory.

A sealed batch keeps its content and number until it is acknowledged. Its file is complete before the batch is first
sent, and output read meanwhile goes to the file of the next batch. So the spool outlives its supervisor: after a
kill -9, `first_above` reads the spool and the host's loop stores its batches. There is no fsync: a crash of the machine
may lose the newest lines.

A file `000000007.jsonl` holds the entries of batch 7 in order, one JSON array per line and group. A last line without
its newline was torn and does not count. With the disk full, batches stay in memory; with the memory full as well, the
spool is full: the reader stops, and the simulation blocks in its `print`.

A last batch that holds the exit alone is appended to the assignment instead, with its number: for a run that prints
nothing a file would cost more than the report (`runner.supervisor.assignment`).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.supervisor import assignment
from runner.supervisor.complaints import complain

MAX_BATCH_POINTS = 10_000
MAX_BATCH_BYTES = 750_000  # the line that fills a batch comes on top: below the promised megabyte
MAX_BATCH_LOGS = 1_000
MAX_BATCH_PARAMETERS = 500
MAX_BATCH_TAGS = 50
MAX_LOG_STRETCH = 64 << 10  # characters of one entry of a report's log
LAST = "last"  # a fact of the assignment: number and exit of a batch
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
DISK_RESERVE_BYTES = 256 << 20  # left free: the service's own database may live on the same disk


@dataclass(frozen=True)
class Exit:
    """Exit of a simulation. `reason` is None if the child ended by itself."""

    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    message: str | None = None


class Batch:
    """A report under construction. `size_bytes` is an upper bound of its encoded size."""

    # A step has up to 16 characters, a double up to 24, seconds up to 14; three commas.
    POINT_BYTES = 57

    def __init__(self) -> None:
        self.points: dict[str, tuple[list[int], list[float | str], list[float]]] = {}
        self.logs: list[tuple[str, list[str]]] = []
        self.notices: dict[str, tuple[int, str, str]] = {}  # by kind: count so far, example, advice
        self.parameters: dict[str, object] = {}
        self.tags: dict[str, None] = {}  # in order
        self.source: Mapping[str, object] | None = None
        self.checkpoint_at: float | None = None  # of the newest one, in seconds since 1970
        self.exit: Exit | None = None
        self.count = 0
        self.size_bytes = 0
        self._stretch_characters = 0

    @property
    def is_empty(self) -> bool:
        has_facts = self.notices or self.parameters or self.tags or self.source is not None
        has_more = has_facts or self.checkpoint_at is not None or self.exit is not None
        return not self.count and not self.logs and not has_more

    @property
    def is_full(self) -> bool:
        full_of_logs = len(self.logs) >= MAX_BATCH_LOGS
        full_of_facts = len(self.parameters) >= MAX_BATCH_PARAMETERS or len(self.tags) >= MAX_BATCH_TAGS
        is_big = self.size_bytes >= MAX_BATCH_BYTES
        return self.count >= MAX_BATCH_POINTS or is_big or full_of_logs or full_of_facts

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

    def add_notice(self, kind: str, count: int, example: str, advice: str) -> None:
        """Add a notice; its count is a total, and a later one of its kind replaces it."""
        if kind not in self.notices:
            self.size_bytes += len(json.dumps([kind, example, advice])) + 80
        self.notices[kind] = (count, example, advice)

    def add_parameter(self, name: str, value: str | float | bool | None) -> None:
        """Add a parameter that the program recorded; a later value replaces it."""
        self.parameters[name] = value
        self.size_bytes += len(json.dumps([name, value])) + 2

    def add_tag(self, tag: str) -> None:
        """Add a tag that the program recorded."""
        self.tags[tag] = None
        self.size_bytes += len(json.dumps(tag)) + 2

    def add_source(self, source: Mapping[str, object]) -> None:
        """Add the source of the attempt, which is recorded once."""
        self.source = source
        self.size_bytes += len(json.dumps(source)) + 12

    def add_checkpoint(self, at: float) -> None:
        """Add the time of the newest checkpoint; a later one replaces it."""
        if self.checkpoint_at is None:
            self.size_bytes += 48
        self.checkpoint_at = at

    def encode(self) -> bytes:
        """Encode the payload fields of the report's input, each with a comma before it."""
        fields: dict[str, object] = {}
        if self.points:
            fields["points"] = {
                metric: {"steps": steps, "values": values, "elapsed": elapsed}
                for metric, (steps, values, elapsed) in self.points.items()
            }
        if self.logs:
            fields["logs"] = [{"stream": stream, "text": "\n".join(texts)} for stream, texts in self.logs]
        facts: dict[str, object] = {}
        if self.notices:
            facts["notices"] = [
                {"kind": kind, "count": count, "example": example, "advice": advice}
                for kind, (count, example, advice) in self.notices.items()
            ]
        if self.parameters:
            facts["parameters"] = self.parameters
        if self.tags:
            facts["tags"] = list(self.tags)
        if self.source is not None:
            facts["source"] = self.source
        if self.checkpoint_at is not None:
            facts["checkpointAt"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.checkpoint_at))
        if facts:
            fields["facts"] = facts
        if self.exit is not None:
            fields["exit"] = {
                "exitCode": self.exit.exit_code,
                "signal": self.exit.signal,
                "reason": self.exit.reason,
                "message": self.exit.message,
            }
        return b"".join(b',"%s":%s' % (name.encode(), encode(value)) for name, value in fields.items())


class Sealed:
    """An immutable batch: its bytes, unless the memory is used up and its file holds them."""

    def __init__(self, payload: bytes | None, file: Path | None) -> None:
        self.payload = payload
        self.file = file

    @property
    def memory_bytes(self) -> int:
        return len(self.payload) if self.payload is not None else 0

    def read(self) -> bytes:
        """Return the payload. Raises OSError if its file can't be read."""
        if self.payload is not None:
            return self.payload
        assert self.file is not None
        return read_batch(self.file).encode()


class BatchFile:
    """File of the open batch: created with its first entries, appended to, and then never changed.

    After a failed write no more is written: later entries would hide the gap.
    """

    def __init__(self, directory: Path, number: int) -> None:
        self.path = directory / f"{number:09d}.jsonl"
        self.is_whole = True
        self._directory = directory
        self._descriptor: int | None = None

    @property
    def is_unused(self) -> bool:
        return self._descriptor is None and self.is_whole

    def append(self, entries: Sequence[Sequence[object]]) -> None:
        if not self.is_whole:
            return
        try:
            if self._descriptor is None:
                self._descriptor = self._create()
            line = encode(entries) + b"\n"
            self.is_whole = os.write(self._descriptor, line) == len(line)
        except OSError:
            self.is_whole = False

    def _create(self) -> int:
        disk = os.statvfs(self._directory)
        if disk.f_bavail * disk.f_frsize < DISK_RESERVE_BYTES:
            raise OSError("the disk is full but for its reserve")
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Spool:
    """Undelivered output in order: sealed batches, then the open one.

    Both threads use the spool; `changed` is its lock. A batch is sealed when it is full or requested by the reporter.
    """

    def __init__(self, directory: Path, memory_bytes: int, limit_bytes: int) -> None:
        self.changed = threading.Condition()
        self.number = 1  # of the first batch that is not acknowledged
        self._directory = directory
        self._memory_limit_bytes = memory_bytes
        self._limit_bytes = limit_bytes
        self._sealed: deque[Sealed] = deque()
        self._memory_bytes = 0
        self._open = Batch()
        self._file = BatchFile(directory, self.number)
        self._unwritten: list[tuple[object, ...]] = []  # entries of the open batch that its file does not hold yet
        self._exit: Exit | None = None
        self._is_closed = False

    def add_points(self, step: int, elapsed: float, points: Sequence[tuple[str, float | str]]) -> None:
        with self.changed:
            was_empty = self.is_empty
            for metric, value in points:
                self._open.add_point(metric, step, value, elapsed)
                self._unwritten.append(("point", metric, step, value, elapsed))
                if self._open.is_full:
                    self._seal()
            if was_empty:
                self.changed.notify()

    def add_log(self, stream: str, text: str) -> None:
        with self.changed:
            was_empty = self.is_empty
            self._open.add_log(stream, text)
            self._unwritten.append(("log", stream, text))
            if self._open.is_full:
                self._seal()
            if was_empty:
                self.changed.notify()

    def add_notice(self, kind: str, count: int, example: str, advice: str) -> None:
        with self.changed:
            was_empty = self.is_empty
            self._open.add_notice(kind, count, example, advice)
            self._unwritten.append(("notice", kind, count, example, advice))
            if self._open.is_full:
                self._seal()
            if was_empty:
                self.changed.notify()

    def add_parameter(self, name: str, value: str | float | bool | None) -> None:
        with self.changed:
            was_empty = self.is_empty
            self._open.add_parameter(name, value)
            self._unwritten.append(("parameter", name, value))
            if self._open.is_full:
                self._seal()
            if was_empty:
                self.changed.notify()

    def add_tag(self, tag: str) -> None:
        with self.changed:
            was_empty = self.is_empty
            self._open.add_tag(tag)
            self._unwritten.append(("tag", tag))
            if self._open.is_full:
                self._seal()
            if was_empty:
                self.changed.notify()

    def add_source(self, source: Mapping[str, object]) -> None:
        with self.changed:
            was_empty = self.is_empty
            self._open.add_source(source)
            self._unwritten.append(("source", source))
            self._write_out()
            if self._open.is_full:
                self._seal()
            if was_empty:
                self.changed.notify()

    def add_checkpoint(self, at: float) -> None:
        with self.changed:
            was_empty = self.is_empty
            self._open.add_checkpoint(at)
            self._unwritten.append(("checkpoint", at))
            if was_empty:
                self.changed.notify()

    def write_out(self) -> None:
        """Write added entries to disk as one group: once per read of a pipe, not once per line."""
        with self.changed:
            self._write_out()

    def close(self, end: Exit | None) -> None:
        """Add the exit, if any, as the last entry, and close the spool."""
        with self.changed:
            is_alone = self._open.is_empty and not self._unwritten and self._file.is_unused
            self._exit = self._open.exit = end
            self._is_closed = True
            if end is not None and is_alone and self._note_exit(self.number + len(self._sealed)):
                self._hold(self._open.encode(), None)
                self._open = Batch()
            elif end is not None:
                self._unwritten.append(_entry_of(end))
            if not self._open.is_empty:
                self._seal()
            self.changed.notify()

    @property
    def is_empty(self) -> bool:
        return not self._sealed and self._open.is_empty

    @property
    def is_delivered(self) -> bool:
        """Whether the spool is closed and everything in it was acknowledged."""
        return self._is_closed and self.is_empty

    @property
    def is_full(self) -> bool:
        """Whether the reader has to wait: disk and memory are full."""
        return self._memory_bytes >= self._limit_bytes

    def head(self) -> bytes:
        """Return the payload of the first waiting batch; there must be one."""
        with self.changed:
            if not self._sealed:
                self._seal()
            first = self._sealed[0]
        try:
            return first.read()
        except OSError as error:
            lost = f"batch {self.number} was lost with the disk it waited on ({error.strerror})"
            complain(lost)
            return self.replace_head(lost)

    def replace_head(self, sentence: str | None) -> bytes:
        """Replace the first batch's content by a log sentence. The exit is kept."""
        with self.changed:
            batch = Batch()
            entries: list[tuple[object, ...]] = []
            if sentence is not None:
                batch.add_log("SUPERVISOR", sentence)
                entries.append(("log", "SUPERVISOR", sentence))
            if len(self._sealed) == 1 and self._open.is_empty and self._exit is not None:
                batch.exit = self._exit
                entries.append(_entry_of(self._exit))
            self._discard_head()
            file = BatchFile(self._directory, self.number)
            file.append(entries)
            file.close()
            replaced = Sealed(batch.encode(), file.path if file.is_whole else None)
            self._sealed.appendleft(replaced)
            self._memory_bytes += replaced.memory_bytes
            return replaced.read()

    def acknowledge(self) -> None:
        """Discard the first batch: the service has stored it."""
        with self.changed:
            self._discard_head()
            self.number += 1

    def renumber(self, number: int) -> None:
        """Renumber the waiting batches from `number` on: the service's database went back to an older state."""
        with self.changed:
            for at, sealed in enumerate(self._sealed):  # to lower numbers, in order: none is overwritten
                target = self._directory / f"{number + at:09d}.jsonl"
                if sealed.file is not None:
                    with contextlib.suppress(OSError):
                        sealed.file = sealed.file.replace(target)
                elif at == len(self._sealed) - 1 and self._exit is not None:
                    self._note_exit(number + at)
            self._write_out()
            target = self._directory / f"{number + len(self._sealed):09d}.jsonl"
            with contextlib.suppress(OSError):
                self._file.path.replace(target)
            self._file.path = target
            self.number = number

    def clear(self) -> None:
        """Remove the files that are left. Of what was acknowledged none is."""
        if self.is_delivered:
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self._directory):
                if name.endswith(".jsonl"):
                    with contextlib.suppress(OSError):
                        os.unlink(self._directory / name)

    def _discard_head(self) -> None:
        first = self._sealed.popleft()
        self._memory_bytes -= first.memory_bytes
        if first.file is not None:
            with contextlib.suppress(OSError):
                first.file.unlink()

    def _seal(self) -> None:
        self._write_out()
        self._file.close()
        payload = self._open.encode()
        fits = self._memory_bytes + len(payload) <= self._memory_limit_bytes
        self._hold(payload if fits or not self._file.is_whole else None, self._file.path)
        self._open = Batch()
        self._file = BatchFile(self._directory, self.number + len(self._sealed))

    def _hold(self, payload: bytes | None, file: Path | None) -> None:
        sealed = Sealed(payload, file)
        self._sealed.append(sealed)
        self._memory_bytes += sealed.memory_bytes

    def _note_exit(self, number: int) -> bool:
        """Append a batch of the exit alone to the assignment; False if that can't be written."""
        assert self._exit is not None
        try:
            assignment.append(self._directory, {LAST: [number, _entry_of(self._exit)]})
        except OSError:
            return False
        return True

    def _write_out(self) -> None:
        if self._unwritten:
            self._file.append(self._unwritten)
            self._unwritten = []


def first_above(directory: Path, number: int) -> tuple[int, Batch] | None:
    """Read the first batch numbered above `number` in a dead supervisor's spool. Raises OSError."""
    numbered = [int(file.stem) for file in directory.glob("*.jsonl") if file.stem.isdecimal()]
    found = min((each for each in numbered if each > number), default=None)
    if found is not None:
        return found, read_batch(directory / f"{found:09d}.jsonl")
    last = _last_of(directory)
    return last if last is not None and last[0] > number else None


def _last_of(directory: Path) -> tuple[int, Batch] | None:
    """Read the batch that holds the exit alone; None for anything else: a simulation can write to that file, too."""
    batch = Batch()
    try:
        number, entry = assignment.read(directory)[LAST]
        _enter(batch, entry)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return (number, batch) if type(number) is int and batch.exit is not None else None


def _entry_of(end: Exit) -> tuple[object, ...]:
    return ("exit", *vars(end).values())


def read_batch(file: Path) -> Batch:
    """Rebuild a batch from its file: `encode` gives the same bytes. Raises OSError."""
    batch = Batch()
    for line in file.read_bytes().split(b"\n")[:-1]:  # after the last newline: nothing, or a torn line
        try:
            entries = json.loads(line)
        except ValueError:
            break  # a write that the disk cut off, and then another one
        for entry in entries:
            _enter(batch, entry)
    return batch


def _enter(batch: Batch, entry: Sequence[Any]) -> None:
    kind, *values = entry
    if kind == "point":
        batch.add_point(*values)
    elif kind == "log":
        batch.add_log(*values)
    elif kind == "notice":
        batch.add_notice(*values)
    elif kind == "parameter":
        batch.add_parameter(*values)
    elif kind == "tag":
        batch.add_tag(*values)
    elif kind == "source":
        batch.add_source(*values)
    elif kind == "checkpoint":
        batch.add_checkpoint(*values)
    elif kind == "exit":
        batch.exit = Exit(*values)


def encode(value: object) -> bytes:
    """Encode compact JSON. Raises ValueError for NaN and infinities."""
    return _JSON.encode(value).encode()
