"""The supervisor: travels with one attempt of a simulation, `python -I supervisor.py DIRECTORY`.

It says hello to the service, starts the simulation it is told to, reads what that prints, reports it in numbered
batches, obeys STOP and OVER, enforces the time limit, and leaves no process behind. One file of the standard library,
because it goes to machines that have only Python.

Two threads share one `Spool`. The reader (main) waits for the child's pipes, its end and signals, and never for the
network. The reporter waits for the network and for nothing else.

How it fails. Only a reply that names this attempt counts; whatever else comes back (nothing, an error page, another
installation) means unreachable: it keeps spooling, to memory and then to files, and tries again. With the disk and the
memory set aside both full it stops reading, and the simulation waits in its `print`: points are never lost. Logs are:
above a rate and a total they are dropped and counted. If this process is killed, its engine finds what is left by
what it recorded (`supervisor.json`, `child.json`) and by the mark in the environment.

DIRECTORY holds `config.json` and `token`, both written by the engine; `spool/` and `work/` are made here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import http.client
import json
import math
import os
import random
import re
import select
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

# --- what is promised to the service ---------------------------------------------------------------------------------

MAX_BATCH_POINTS = 10_000
MAX_BATCH_BYTES = 750_000  # the line that fills it up comes on top: below the megabyte that is promised
MAX_BATCH_LOGS = 1_000
REPORT_SPACING_SECONDS = 0.05  # 20 reports a second: a curve looks live, a busy run costs the service little
MAX_STEP = 2**53  # the largest integer that every JSON reader keeps exact
MAX_METRICS = 1_000
MAX_METRIC_NAME = 256

# --- what is kept, and for how long ----------------------------------------------------------------------------------

SPOOL_MEMORY_BYTES = 4 << 20  # sealed batches beyond this go to files
SPOOL_LIMIT_BYTES = 64 << 20  # and beyond this, with the disk full, reading stops
DISK_RESERVE_BYTES = 256 << 20  # left free: the service's own database may live on the same disk
MAX_PARSED_LINE = 1 << 20
MAX_LOGGED_LINE = 32 << 10
MAX_LOG_STRETCH = 64 << 10  # characters of one entry of a report's log
LOG_BURST_BYTES = 256 << 10
LOG_RATE_BYTES = 64 << 10  # a second
LOG_TOTAL_BYTES = 64 << 20  # an attempt

# --- waiting ---------------------------------------------------------------------------------------------------------

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 5.0
LAST_HELLO_RETRY_SECONDS = 1.0  # the machine is held and does nothing yet
DEFAULT_HEARTBEAT_SECONDS = 2.0  # where no order says it
HTTP_SECONDS = 10.0
MAX_REPLY_BYTES = 4 << 20
TICK_SECONDS = 0.5
DRAIN_SECONDS = 5.0  # for the end of the pipes, once everybody who could write is dead
KILL_SECONDS = 10.0
SHUTDOWN_SECONDS = 5.0  # to get the last report out while the machine goes down
READ_BYTES = 256 << 10
PIPE_BYTES = 1 << 20
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

INHERITED = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"})
INHERITED |= {"LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_DEVICE_ORDER"}
INHERITED |= {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
ATTEMPT_VARIABLE = "SIMULATION_ATTEMPT_ID"
MARK_VARIABLE = "SIMULATION_ATTEMPT_DIRECTORY"  # unlike the id, no other installation on this host has it too
CHECKPOINT_VARIABLE = "SIMULATION_CHECKPOINT_DIR"

HELLO = (
    "mutation Hello($input: HelloAttemptInput!) { helloAttempt(input: $input) { attempt { id } verdict order { "
    "entrypoint environment workingDirectory maxRuntimeSeconds stopGraceSeconds heartbeatSeconds gpuIndices } "
    "userErrors { code message field } } }"
)
REPORT = (
    "mutation Report($input: ReportAttemptInput!) { reportAttempt(input: $input) { attempt { id } verdict stopReason "
    "expectedBatch userErrors { code message field } } }"
)


class Unreachable(Exception):
    """What came back, if anything, does not count as an answer. The message says what it was."""


class Refused(Exception):
    """The child could not be started; the message is a sentence for the user."""


def complain(sentence: str) -> None:
    """Say something to whoever reads `supervisor.log`."""
    with contextlib.suppress(OSError, ValueError):  # a full disk must not end a simulation
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {sentence}\n")
        sys.stderr.flush()


# --- what it is told -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which attempt this is and where things lie on this machine: `config.json` and `token`."""

    directory: Path
    attempt_id: str
    token: str = field(repr=False)
    address_file: Path
    checkpoint_directory: Path
    work_directory: Path
    allowed_roots: tuple[Path, ...]
    give_up_seconds: float
    spool_memory_bytes: int
    spool_limit_bytes: int

    @classmethod
    def read(cls, directory: Path) -> Assignment:
        config = json.loads((directory / "config.json").read_bytes())
        return cls(
            directory=directory,
            attempt_id=config["attempt_id"],
            token=(directory / "token").read_text().strip(),
            address_file=directory / config["address_file"],
            checkpoint_directory=directory / config["checkpoint_directory"],
            work_directory=directory / config.get("work_directory", "work"),
            allowed_roots=tuple(Path(root) for root in config.get("allowed_roots", ())),
            give_up_seconds=float(config["give_up_seconds"]),
            spool_memory_bytes=int(config.get("spool_memory_bytes", SPOOL_MEMORY_BYTES)),
            spool_limit_bytes=int(config.get("spool_limit_bytes", SPOOL_LIMIT_BYTES)),
        )


@dataclass(frozen=True, slots=True)
class Order:
    """What the service wants done. Seconds are None where there is no limit."""

    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: str | None
    max_runtime_seconds: float | None
    stop_grace_seconds: float
    heartbeat_seconds: float
    gpu_indices: tuple[int, ...]

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> Order:
        """Read the order of a hello reply. Raises ValueError, TypeError or KeyError on anything odd."""
        entrypoint, environment, gpus = raw["entrypoint"], raw["environment"] or {}, raw["gpuIndices"] or []
        directory, limit = raw["workingDirectory"], raw["maxRuntimeSeconds"]
        if not isinstance(entrypoint, list) or not entrypoint or not all(isinstance(word, str) for word in entrypoint):
            raise ValueError("entrypoint")
        if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
            raise ValueError("environment")
        if not isinstance(gpus, list) or not (directory is None or isinstance(directory, str)):
            raise ValueError("gpuIndices or workingDirectory")
        return cls(
            entrypoint=tuple(entrypoint),
            environment=environment,
            working_directory=directory,
            max_runtime_seconds=None if limit is None else _seconds(limit),
            stop_grace_seconds=_seconds(raw["stopGraceSeconds"]),
            heartbeat_seconds=max(_seconds(raw["heartbeatSeconds"]), REPORT_SPACING_SECONDS),
            gpu_indices=tuple(int(index) for index in gpus),
        )


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no number of seconds")
    return float(value)


# --- what the child prints -------------------------------------------------------------------------------------------


class Lines:
    """Cuts what a pipe delivers into whole lines. Of a line over the limit only the beginning is kept, with a mark."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._cut_bytes = 0  # of the line under way, once it is over the limit

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk, return the lines it completed, each with its newline."""
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
        """What came after the last newline."""
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
        if self._cut_bytes:  # the mark also keeps its beginning from being valid JSON
            line += _cut_mark(self._cut_bytes - MAX_LOGGED_LINE)
        self._partial.clear()
        self._cut_bytes = 0
        return line


def _cut_mark(cut_bytes: int) -> bytes:
    return f" … [cut: {cut_bytes} bytes more]".encode()


class Curve:
    """The rules of a point: which numbers of a line count, and for which step."""

    def __init__(self) -> None:
        self._next_step = 0
        self._last_steps: dict[str, int] = {}

    def read(self, line: bytes) -> tuple[int, list[tuple[str, float | str]], bool]:
        """Return the step, the points (metric and value; what is not finite as text), and whether all of it was used.

        A key that can't be used is a reason to log the line, never to lose its other points.
        """
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError):  # bad UTF-8 is a ValueError, and so is an integer of 5,000 digits
            return 0, [], False
        if type(record) is not dict:
            return 0, [], False
        step = _step(record.pop("step")) if "step" in record else self._next_step
        if step is None or step > MAX_STEP:
            return 0, [], False
        points: list[tuple[str, float | str]] = []
        for metric, raw in record.items():
            value = _value(raw)
            if value is not None and self._rises(metric, step):
                self._last_steps[metric] = step
                points.append((metric, value))
        if points:
            self._next_step = step + 1
        return step, points, 0 < len(points) == len(record)

    def _rises(self, metric: str, step: int) -> bool:
        last = self._last_steps.get(metric)
        if last is not None:
            return step > last
        return len(self._last_steps) < MAX_METRICS and 0 < len(metric) <= MAX_METRIC_NAME and _is_storable(metric)


def _step(raw: object) -> int | None:
    if type(raw) is float and raw.is_integer():
        raw = int(raw)
    return raw if type(raw) is int and 0 <= raw <= MAX_STEP else None


def _value(raw: object) -> float | str | None:
    if type(raw) is int:
        try:
            raw = float(raw)
        except OverflowError:
            return None
    if type(raw) is not float:  # a bool is no number
        return None
    if math.isfinite(raw):
        return raw
    return "NaN" if raw != raw else "Infinity" if raw > 0 else "-Infinity"


def _is_storable(name: str) -> bool:
    return "\0" not in name and (name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name))


class Log:
    """What is no point, as text and within limits: a burst, then so much a second, so much an attempt.

    Once the allowance is used up everything is dropped until a second's worth is back, so that a flood costs a mark a
    second and not one for every other line.
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
        return self._total_left <= MAX_LOGGED_LINE  # then some line would not fit

    def tick(self) -> None:
        """Let time pass: fill the allowance up, and say what was dropped as soon as there is room again."""
        now = time.monotonic()
        self._allowance = min(self._allowance + (now - self._refilled_at) * LOG_RATE_BYTES, LOG_BURST_BYTES)
        self._refilled_at = now
        if self._is_shut and self._allowance >= LOG_RATE_BYTES and not self._is_used_up:
            self._is_shut = False
            self.say_dropped()

    def say_dropped(self) -> None:
        """Leave the mark of what is missing here."""
        if self._dropped_bytes:
            limit = f"the log of an attempt ends at {LOG_TOTAL_BYTES >> 20} MiB"
            if not self._is_used_up:
                limit = f"more than {LOG_RATE_BYTES >> 10} KiB a second"
            self._spool.add_log("SUPERVISOR", f"dropped {self._dropped_bytes} bytes of output: {limit}")
            self._dropped_bytes = 0


class Output:
    """One pipe of the child: reads it, tells points from log, hands both to the spool."""

    # Only lines that begin and end like an object are looked at one by one; what lies between them is log in bulk.
    _OBJECT = re.compile(rb'^[ \t\r]*\{[ \t\r]*"[^\n]*\}[ \t\r]*(?:\n|\Z)', re.MULTILINE)

    def __init__(self, descriptor: int, stream: str, curve: Curve | None, log: Log, spool: Spool) -> None:
        self.descriptor = descriptor
        self._stream = stream
        self._curve = curve
        self._log = log
        self._spool = spool
        self._lines = Lines()
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # beyond the user's allowance of pipe memory: the default does too
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def read(self, elapsed: float) -> bool:
        """Take in what there is; False at the end of the pipe. elapsed: seconds since the child's start."""
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


# --- what waits to be reported ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
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
        return b"".join(b',"%s":%s' % (name.encode(), _encode(value)) for name, value in fields.items())


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


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


# --- the service -----------------------------------------------------------------------------------------------------


class Service:
    """The GraphQL API, over one connection that is kept while the address stays the same. One thread at a time."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._nonce = f"{random.SystemRandom().getrandbits(128):032x}"
        self._connection: http.client.HTTPConnection | None = None
        self._address = ""

    def hello(self) -> Mapping[str, object]:
        """Ask for the order. Raises Unreachable."""
        return self._ask("helloAttempt", self._body(HELLO, b""))

    def report(self, number: int | None, payload: bytes) -> Mapping[str, object]:
        """Send a batch, or with no number a heartbeat. The same arguments make the same bytes. Raises Unreachable."""
        batch = b"" if number is None else b',"batch":%d' % number
        return self._ask("reportAttempt", self._body(REPORT, batch + payload))

    def _body(self, query: str, fields: bytes) -> bytes:
        identity = _encode({"attemptId": self._assignment.attempt_id, "nonce": self._nonce})
        return b'{"query":%s,"variables":{"input":%s%s}}}' % (_encode(query), identity[:-1], fields)

    def _ask(self, name: str, body: bytes) -> Mapping[str, object]:
        reply = self._post(body)
        try:
            document = json.loads(reply)
            if document.get("errors"):
                raise Unreachable(f"errors: {str(document['errors'])[:300]}")
            answer = document["data"][name]
            named, verdict = answer["attempt"]["id"], answer["verdict"]
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise Unreachable(f"no answer to {name}: {reply[:100]!r}") from None
        if named != self._assignment.attempt_id or verdict not in ("CONTINUE", "STOP", "OVER"):
            raise Unreachable(f"an answer to somebody else: {str(named)[:100]}, {str(verdict)[:100]}")
        return dict(answer)

    def _post(self, body: bytes) -> bytes:
        try:
            address = self._assignment.address_file.read_text().strip()
            if address != self._address or self._connection is None:
                self.close()
                self._connection = _connection(address)
                self._address = address
            was_open = self._connection.sock is not None
            try:
                return self._exchange(self._connection, body)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # The service closes idle connections; batches are numbered, so asking again at once does no harm.
                self._connection.close()
                if not was_open:
                    raise
                return self._exchange(self._connection, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise Unreachable(f"{type(error).__name__}: {error}") from None

    def _exchange(self, connection: http.client.HTTPConnection, body: bytes) -> bytes:
        headers = {
            "Authorization": f"Bearer {self._assignment.token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        parts = urlsplit(self._address)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers)
        response = connection.getresponse()
        reply = response.read(MAX_REPLY_BYTES)
        if response.status != 200 or response.read(1):
            raise ValueError(f"status {response.status}: {reply[:100]!r}")
        return reply

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connection(address: str) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{address[:100]!r} is no address")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=HTTP_SECONDS)


class Backoff:
    """How long to wait before the next try: longer each time up to a limit, never in step with others."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._failures = 0

    def failed(self, why: str) -> float:
        """Note a failure, return the seconds to wait."""
        if not self._failures:
            complain(f"the service can't be reached, trying on: {why}")
        self._failures += 1
        longest: float = min(FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 20), self._longest_seconds)
        return longest * random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        if self._failures:
            complain(f"the service answers again after {self._failures} tries")
        self._failures = 0


class Reporter(threading.Thread):
    """Sends what the spool holds and keeps what it is answered: `is_over`, `is_stop_wanted`, `stop_reason`."""

    def __init__(
        self,
        service: Service,
        spool: Spool,
        wake: Callable[[], None],
        heartbeat_seconds: float,
        first_heartbeat_seconds: float,
    ) -> None:
        super().__init__(name="reporter", daemon=True)
        self.is_over = False
        self.is_stop_wanted = False
        self.stop_reason: str | None = None
        self.is_answered = False
        self.is_finished = False  # done, or failed by a mistake of ours
        self._service = service
        self._spool = spool
        self._heartbeat_seconds = heartbeat_seconds
        self._wake = wake
        # Who wants to hear of it often gives it up early, too: back again, it must not be silent for long.
        self._backoff = Backoff(min(LAST_RETRY_SECONDS, 2.5 * heartbeat_seconds))
        self._send_at = 0.0  # not before
        self._heartbeat_at = time.monotonic() + first_heartbeat_seconds  # not after
        self._refusals = 0

    @property
    def is_done(self) -> bool:
        return self.is_over or self._spool.is_delivered

    def run(self) -> None:
        try:
            while not self.is_done:
                self.run_once()
        finally:  # whatever happened here, the reader has to look at it
            self.is_finished = True
            self._wake()

    def run_once(self) -> None:
        """Wait until something is due, send it, take in the answer; after a failure, wait before the next."""
        number = self._next()
        payload = b"" if number is None else self._spool.head()
        if number is not None:
            self._send_at = time.monotonic() + REPORT_SPACING_SECONDS
        try:
            answer = self._service.report(number, payload)
            settled = self._obey(answer, number)
        except Unreachable as error:
            time.sleep(self._backoff.failed(str(error)))
            return
        if not settled:
            time.sleep(self._backoff.failed(f"batch {number} was not taken: {str(answer)[:300]}"))
            return
        self._backoff.succeeded()

    def _next(self) -> int | None:
        with self._spool.changed:
            while True:
                now = time.monotonic()
                is_waiting = not self._spool.is_empty
                if is_waiting and now >= self._send_at:
                    return self._spool.number
                if not is_waiting and now >= self._heartbeat_at:
                    return None
                self._spool.changed.wait((self._send_at if is_waiting else self._heartbeat_at) - now)

    def _obey(self, answer: Mapping[str, object], number: int | None) -> bool:
        """Take in an answer that names this attempt; False if the batch has to be sent again, after a while."""
        self._heartbeat_at = time.monotonic() + self._heartbeat_seconds
        was_full, had_stop = self._spool.is_full, self.is_stop_wanted
        settled = True
        if answer["verdict"] == "OVER":
            self.is_over = True
        elif number is not None:
            settled = self._settle(answer, number)
        if answer["verdict"] == "STOP" and not had_stop:
            reason = answer.get("stopReason")
            self.stop_reason = reason if isinstance(reason, str) else None
            self.is_stop_wanted = True
        is_first, self.is_answered = not self.is_answered, True
        if self.is_over or is_first or was_full or self.is_stop_wanted != had_stop:
            self._wake()
        return settled

    def _settle(self, answer: Mapping[str, object], number: int) -> bool:
        expected = answer.get("expectedBatch")
        if type(expected) is not int:
            raise Unreachable(f"an answer without expectedBatch: {str(answer)[:300]}")
        refusal = _refusal(answer)
        if expected > number:
            self._refusals = 0
            self._spool.acknowledge()
            return True
        if refusal is not None:
            self._refusals += 1
            complain(f"batch {number} was refused: {refusal}")
            # Should even the sentence be refused, nothing is put in its place: never stuck for ever.
            sentence = f"The service refused batch {number} and its content is lost: {refusal}"
            self._spool.replace_head(sentence if self._refusals == 1 else None)
            return self._refusals <= 2
        if expected < number and expected > 0:
            # What came before was acknowledged and is not held any more: the service has gone back to an older state
            # (a restored backup). Going on from there is all that can be done.
            complain(f"the service expects batch {expected} again, after it acknowledged {number - 1}")
            self._spool.number = expected
        return False


def _refusal(answer: Mapping[str, object]) -> str | None:
    errors = answer.get("userErrors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict) and error.get("code") == "BATCH_REFUSED":
            return str(error.get("message"))[:1000].replace("\0", "\ufffd")
    return None


# --- the child -------------------------------------------------------------------------------------------------------


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a simulation may see. Everything else stays behind: it may be a secret."""
    return {name: value for name, value in environment.items() if name in INHERITED or name.startswith("LC_")}


def start(assignment: Assignment, order: Order) -> subprocess.Popen[bytes]:
    """Start the child in a process group of its own. Raises Refused."""
    directory = _working_directory(assignment, order)
    try:
        assignment.checkpoint_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"The checkpoint directory can't be made: {error}.") from None
    environment = {
        **inherited(os.environ),
        "PYTHONUNBUFFERED": "1",  # else a print into a pipe arrives when the child ends
        **order.environment,
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, order.gpu_indices)),
        CHECKPOINT_VARIABLE: str(assignment.checkpoint_directory),
        ATTEMPT_VARIABLE: assignment.attempt_id,
        MARK_VARIABLE: mark(assignment.directory),
    }
    command = order.entrypoint[0]
    try:
        return subprocess.Popen(
            order.entrypoint,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            process_group=0,
        )
    except OSError as error:
        raise Refused(_why_not(command, directory, error)) from None
    except ValueError as error:  # NUL, or = in the name of a variable
        raise Refused(f"{command!r} can't be started: {error}.") from None


def mark(directory: Path) -> str:
    """The value of `MARK_VARIABLE` for an attempt's directory."""
    return str(directory.resolve())


def _working_directory(assignment: Assignment, order: Order) -> Path:
    if order.working_directory is None:
        try:
            assignment.work_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"The attempt's own directory can't be made: {error}.") from None
        return assignment.work_directory
    asked = order.working_directory
    try:
        directory = (assignment.work_directory / asked).resolve()
        is_directory = directory.is_dir()
        exists = is_directory or directory.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise Refused(f"The working directory {asked} can't be used on this machine: {error}.") from None
    roots = [root.resolve() for root in assignment.allowed_roots]
    if roots and not any(directory.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots))
        raise Refused(f"The working directory {asked} is not inside a directory allowed on this machine ({allowed}).")
    if not exists:
        raise Refused(f"The working directory {asked} does not exist on this machine.")
    if not is_directory:
        raise Refused(f"The working directory {asked} is not a directory.")
    if not os.access(directory, os.X_OK):
        raise Refused(f"The working directory {asked} can't be entered: permission denied.")
    return directory


def _why_not(command: str, directory: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        if "/" not in command:
            return f"The command {command} was not found on this machine's PATH."
        if (directory / command).exists():
            return f"{command} can't be started: the interpreter that its first line names does not exist."
        return f"{command} does not exist on this machine (looked from {directory})."
    if error.errno == errno.EACCES:
        return f"{command} can't be started: permission denied; is it an executable file?"
    return f"{command} can't be started: {error.strerror or error}."


def become_subreaper() -> None:
    """Have orphaned descendants handed to this process, whatever they did to escape."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        complain(f"not a subreaper: {os.strerror(ctypes.get_errno())}")


def reap(spared: int | None = None) -> None:
    """Take leave of descendants that have ended, but not of the spared one: its pid must stay its own."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid == spared:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def kill_descendants(spared: int | None = None) -> bool:
    """Kill every descendant until there is none; False if one would not die. A spared one must be a zombie already."""
    deadline = time.monotonic() + KILL_SECONDS
    while _has_children():
        living = [pid for pid in _children() if pid != spared]
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in living:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not living:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    # By the parent's pid and not by /proc/self/task/*/children: that list may skip some while others exit.
    me = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                text = Path("/proc", name, "stat").read_bytes()
                if int(text[text.rindex(b")") + 2 :].split()[1]) == me:
                    found.append(int(name))
    return found


def record(path: Path, pid: int) -> None:
    """Write down who a process is, so that the engine can tell it from a later one of the same pid."""
    try:
        stat = Path("/proc", str(pid), "stat").read_bytes()
        identity = {
            "pid": pid,
            "start_time": int(stat[stat.rindex(b")") + 2 :].split()[19]),  # proc(5): field 22, in ticks since boot
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        }
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(json.dumps(identity))
        temporary.replace(path)
    except OSError as error:  # a full disk; the mark in the environment is still there
        complain(f"{path.name} can't be written: {error}")


# --- the whole -------------------------------------------------------------------------------------------------------


class Signals:
    """What can wake the reader besides the child: a signal to this process, or the reporter."""

    def __init__(self) -> None:
        self.is_terminated = False
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)
        # Whoever started this may have blocked or ignored signals, and all of that is inherited.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        # Handlers that do nothing, because what is ignored would be ignored by the child as well.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, self._stay)

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake up anyway
            os.write(self._writer, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until woken, at most so long."""
        select.select([self.descriptor], [], [], max(seconds, 0.0))
        self.clear()

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def _terminate(self, *_: object) -> None:
        self.is_terminated = True

    def _stay(self, *_: object) -> None:
        """Go on."""


class Run:
    """One child from its start to its end: read it, end it when that is wanted, and let nothing of it remain."""

    def __init__(
        self, assignment: Assignment, order: Order, spool: Spool, reporter: Reporter, signals: Signals
    ) -> None:
        """Start the child. Raises Refused."""
        self._order = order
        self._spool = spool
        self._reporter = reporter
        self._signals = signals
        self._log = Log(spool)
        self._child = start(assignment, order)
        self._started_at = time.monotonic()
        self._pid = self._child.pid
        self._child.returncode = 0  # reaped here and not by subprocess, which would take over the pid
        record(assignment.directory / "child.json", self._pid)
        self._ended_by: str | None = None
        self._is_ended = False  # by us; `_ended_by` may still be None
        self._is_lost = False
        self._message: str | None = None
        self._kill_at = math.inf
        self._is_paused = False
        curve = Curve()
        self._selector = selectors.DefaultSelector()
        self._exited = os.pidfd_open(self._pid)
        self._selector.register(self._exited, selectors.EVENT_READ)
        self._selector.register(signals.descriptor, selectors.EVENT_READ)
        self._outputs: list[Output] = []
        for pipe, stream, rules in ((self._child.stdout, "STDOUT", curve), (self._child.stderr, "STDERR", None)):
            assert pipe is not None
            output = Output(os.dup(pipe.fileno()), stream, rules, self._log, spool)
            pipe.close()
            self._outputs.append(output)
            self._selector.register(output.descriptor, selectors.EVENT_READ, output)

    def to_the_end(self) -> Exit | None:
        """Stay with the child until it and all its descendants are gone.

        Returns None if its end says nothing about it, because the machine went down. At OVER it is simply killed.
        """
        while not self._look():
            if self._reporter.is_over or self._reporter.is_finished:
                self._signal(signal.SIGKILL)
                kill_descendants()
                return None
            self._enforce()
            self._log.tick()
            self._pause_or_resume()
            reap(spared=self._pid)
        self._signal(signal.SIGKILL)  # the child is a zombie by now, but its group may be full of life
        if not kill_descendants(spared=self._pid):
            self._spool.add_log("SUPERVISOR", "some process of this simulation can't be killed: the kernel holds it")
        _, status = os.waitpid(self._pid, 0)
        self._drain()
        self._log.say_dropped()
        # Whoever takes a machine down may send SIGTERM to all processes at once: then it was not killed by us.
        if self._is_lost or (self._signals.is_terminated and not self._is_ended and os.WIFSIGNALED(status)):
            # Nobody wanted it to end, so this is no end: the engine will find the attempt dead, and it may be retried.
            self._spool.add_log("SUPERVISOR", "the machine is going down: the supervisor was told to end (SIGTERM)")
            return None
        return Exit(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            reason=self._ended_by,
            message=self._message,
        )

    @property
    def _elapsed(self) -> float:
        return round(time.monotonic() - self._started_at, 6)

    def _look(self) -> bool:
        """Wait for something to happen and read what there is; True once the child has ended."""
        until = min(self._kill_at, self._deadline if not self._is_ended else math.inf) - time.monotonic()
        has_exited = False
        for key, _ in self._selector.select(max(min(until, TICK_SECONDS), 0.0)):
            if isinstance(key.data, Output):
                self._read(key.data)
            elif key.fd == self._exited:
                has_exited = True
            else:
                self._signals.clear()
        return has_exited

    def _read(self, output: Output) -> None:
        if not output.read(self._elapsed):
            with contextlib.suppress(KeyError):  # while paused it is not registered
                self._selector.unregister(output.descriptor)
            self._outputs.remove(output)
            output.close(self._elapsed)

    @property
    def _deadline(self) -> float:
        limit = self._order.max_runtime_seconds
        return math.inf if limit is None else self._started_at + limit

    def _enforce(self) -> None:
        """End the child if somebody or something wants it ended; kill it if it was asked and did not."""
        now = time.monotonic()
        if self._is_ended:
            if now >= self._kill_at:
                self._kill_at = math.inf
                self._signal(signal.SIGKILL)
        elif self._reporter.is_stop_wanted:
            self._end(self._reporter.stop_reason, None)
        elif self._signals.is_terminated:
            self._end(None, None)
            self._is_lost = self._is_ended
        elif now >= self._deadline:
            self._end("MAX_RUNTIME", f"It ran longer than its limit of {self._order.max_runtime_seconds:g} seconds.")

    def _end(self, reason: str | None, message: str | None) -> None:
        if os.waitid(os.P_PIDFD, self._exited, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return  # it was faster, and its own end is what gets reported
        self._is_ended, self._ended_by, self._message = True, reason, message
        self._kill_at = time.monotonic() + self._order.stop_grace_seconds
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        # The child is not reaped before the end, so that neither number can be anybody else's.
        with contextlib.suppress(PermissionError):  # it became another user
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:  # it left its group
                os.kill(self._pid, number)

    def _pause_or_resume(self) -> None:
        if self._spool.is_full != self._is_paused:
            self._is_paused = not self._is_paused
            complain("nowhere to keep output: the simulation waits" if self._is_paused else "reading output again")
            for output in self._outputs:
                if self._is_paused:
                    self._selector.unregister(output.descriptor)
                else:
                    self._selector.register(output.descriptor, selectors.EVENT_READ, output)

    def _drain(self) -> None:
        """Read what is left in the pipes; it is bounded, for nobody who could write is left."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._outputs and time.monotonic() < deadline:
            descriptors = [output.descriptor for output in self._outputs]
            ready, _, _ = select.select(descriptors, [], [], TICK_SECONDS)
            for output in [output for output in self._outputs if output.descriptor in ready]:
                self._read(output)
        for output in self._outputs:
            output.close(self._elapsed)


def greet(service: Service, signals: Signals, give_up_at: float) -> tuple[str, Order | None] | None:
    """Say hello until it is answered with a verdict and, unless that is OVER, the order.

    Returns None if this process is to end first.
    """
    backoff = Backoff(LAST_HELLO_RETRY_SECONDS)
    while not signals.is_terminated and time.monotonic() < give_up_at:
        try:
            answer = service.hello()
            verdict, order = str(answer["verdict"]), answer["order"]
            if verdict == "CONTINUE" and not isinstance(order, dict):
                raise Unreachable("an answer without an order")
            return verdict, Order.parse(order) if isinstance(order, dict) else None
        except (Unreachable, KeyError, ValueError, TypeError) as error:
            signals.wait(backoff.failed(f"{type(error).__name__}: {error}"))
    return None


def supervise(directory: Path) -> int:
    """See one attempt through. Returns the exit status of this process: 0 once the service knows how it ended."""
    assignment = Assignment.read(directory)
    become_subreaper()
    record(directory / "supervisor.json", os.getpid())
    signals = Signals()
    service = Service(assignment)
    greeting = greet(service, signals, time.monotonic() + assignment.give_up_seconds)
    if greeting is None:
        complain("gave up before the service answered")
        return 1
    verdict, order = greeting
    if verdict == "OVER":
        complain("this attempt is over already")
        return 0

    spool = Spool(directory / "spool", assignment.spool_memory_bytes, assignment.spool_limit_bytes)
    heartbeat_seconds = order.heartbeat_seconds if order is not None else DEFAULT_HEARTBEAT_SECONDS
    is_stopped = order is None or verdict == "STOP"
    reporter = Reporter(service, spool, signals.wake, heartbeat_seconds, 0.0 if is_stopped else heartbeat_seconds)
    reporter.start()
    try:
        if order is None or is_stopped:
            end: Exit | None = refuse_to_start(reporter, signals, assignment.give_up_seconds)
        else:
            try:
                end = Run(assignment, order, spool, reporter, signals).to_the_end()
            except Refused as refusal:
                end = Exit(reason="LAUNCH_ERROR", message=str(refusal))
        spool.close(end)
        deliver(reporter, signals, assignment.give_up_seconds)
    finally:  # also when this very program is wrong: nothing stays behind
        kill_descendants()
    if reporter.is_over or (reporter.is_done and end is not None):
        spool.clear()
        return 0
    complain("gave up: the end was not reported")
    return 1


def refuse_to_start(reporter: Reporter, signals: Signals, give_up_seconds: float) -> Exit | None:
    """The service wanted it stopped before it began: learn the reason from the first heartbeat's answer."""
    deadline = time.monotonic() + give_up_seconds
    while not reporter.is_answered and not reporter.is_finished and time.monotonic() < deadline:
        if signals.is_terminated:
            return None
        signals.wait(deadline - time.monotonic())
    return Exit(reason=reporter.stop_reason, message="It was stopped before it began.")


def deliver(reporter: Reporter, signals: Signals, give_up_seconds: float) -> None:
    """Wait until everything is acknowledged; not for ever, and not for long while the machine goes down."""
    deadline = time.monotonic() + give_up_seconds
    is_hurried = False
    while not reporter.is_finished and time.monotonic() < deadline:
        if signals.is_terminated and not is_hurried:
            is_hurried = True
            deadline = min(deadline, time.monotonic() + SHUTDOWN_SECONDS)
        signals.wait(min(deadline - time.monotonic(), 60.0))


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]).resolve()))
