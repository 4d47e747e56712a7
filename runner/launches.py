"""Launcher client of an engine: find, start and replace the launcher, and send it launch and sweep requests.

Launches that are asked for together share messages: the launcher forks those of a message directly after each other.

`runner.supervisor.launcher` is the process; it outlives the engine that started it. Its key is a hash of the archive,
the interpreter and the interpreter's version. An engine uses a launcher of its own key and retires the others, which
end with their last supervisors. The sockets lie in a directory that only this user can enter.

Failures. A killed launcher is detected by its closed connection, a hung one by a timeout, then killed; both
raise LauncherLost, and the next launch starts another launcher. The outcome of that one request is then unknown, for
each of its launches: the caller kills all processes of its attempt before it asks again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from runner import archive

ANSWER_SECONDS = 30.0  # a launch takes milliseconds; a busy machine, or the start of the launcher, some seconds
LONGEST_REPLY = 1 << 16
MOST_TOGETHER = 8  # launches in a message: the first of them waits for the last
LONGEST_TOGETHER = 64 << 10  # characters of them; the kernel takes messages of 200 KB (SO_SNDBUF)

# Started here and not waited for yet, by any object: what it started ends after it was closed.
_children: set[int] = set()
_reaping = threading.Lock()  # what was waited for is forgotten before its pid may be another child's


class LauncherLost(Exception):
    """The launcher died or hung during a request, and may have carried it out."""


class LaunchRefused(OSError):
    """The launcher could not start the supervisor; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The launcher in use."""

    socket: socket.socket
    pid: int


class Launches:
    """The launchers of one host. Its methods may be called from any thread."""

    def __init__(self, directory: Path, archives: Path, python: str, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._archives = archives
        self._python = python
        self._environment = environment  # the launcher's own
        self._contents = archive.sources()  # once: this engine launches the version that it is part of
        made_of = "\0".join((archive.digest(self._contents), python, sys.version))
        self._key = sha256(made_of.encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._current: Connection | None = None

    def launch(self, wanted: Sequence[tuple[Path, Mapping[str, str]]]) -> list[LauncherLost | OSError | None]:
        """Start supervisors in these attempts' directories and environments; return for each why it did not start.

        Those that start are recorded by then. `LauncherLost`: it may have started all the same.
        """
        outcomes: list[LauncherLost | OSError | None] = []
        for texts in _messages(json.dumps([str(directory), dict(given)]) for directory, given in wanted):
            with self._lock:
                _reap()
                outcomes += self._send(texts)
        return outcomes

    def sweep(self, attempt_directory: Path) -> bool:
        """Make every launcher kill what dead supervisors left; False if a process of this attempt may be alive."""
        with self._lock:
            _reap()
            # Every launcher is asked, also after one that failed.
            swept = [self._swept(path, attempt_directory) for path in self._sockets()]
        return all(swept)

    def start_alone(self, attempt_directory: Path, environment: Mapping[str, str]) -> int:
        """Start a supervisor without a launcher, in an interpreter of its own; returns its pid. Raises OSError."""
        with open(attempt_directory / "supervisor.log", "ab") as log:
            return self._run([str(attempt_directory)], attempt_directory, environment, subprocess.DEVNULL, log)

    def close(self) -> None:
        """Disconnect from the launcher, which goes on while supervisors run."""
        with self._lock:
            self._disconnect()
            _reap()

    # --- all below is called with the lock held ----------------------------------------------------------------------

    def _send(self, texts: Sequence[str]) -> list[LauncherLost | OSError | None]:
        """Send the launches of a message; return for each why it did not start."""
        request = f'{{"launch":[{",".join(texts)}]}}'
        try:
            reply = self._ask_current(request)
            if "retired" in reply:  # it was retired
                self._disconnect()
                reply = self._ask_current(request)
        except (LauncherLost, OSError) as error:  # OSError: it could not be started
            return [error] * len(texts)
        launched = reply.get("launched")
        replies = launched if isinstance(launched, list) else [reply] * len(texts)
        return [
            None if "pid" in each else LaunchRefused(str(each.get("refused", "the launcher is retired")))
            for _, each in zip(texts, replies, strict=True)
        ]

    def _ask_current(self, request: str) -> Mapping[str, object]:
        if self._current is None:
            self._current = self._find() or self._start()
        try:
            return _ask(self._current.socket, request)
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError):  # else the launcher is dead, and its pid may be reused
                _kill(self._current.pid)
            self._disconnect()
            raise LauncherLost(f"{type(error).__name__}: {error}") from error

    def _find(self) -> Connection | None:
        """Connect to a launcher that an earlier engine left; retire all others."""
        found: Connection | None = None
        for path in self._sockets():
            try:
                connected = _connect(path)
            except OSError:  # it was killed
                path.unlink(missing_ok=True)
                continue
            if found is None and path.name.startswith(f"{self._key}."):
                found = Connection(connected, _pid_of(path))
            else:
                with connected, contextlib.suppress(OSError, ValueError):
                    _ask(connected, json.dumps({"retire": True}))
        return found

    def _start(self) -> Connection:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, open(self._directory / "launcher.log", "ab") as log:
                arguments = ["--launcher", str(self._directory), self._key]
                pid = self._run(arguments, self._directory, self._environment, theirs, log)
        except BaseException:
            ours.close()
            raise
        return Connection(ours, pid)

    def _run(
        self,
        arguments: list[str],
        directory: Path,
        environment: Mapping[str, str],
        stdin: int | socket.socket,
        log: IO[bytes],
    ) -> int:
        program = archive.install(self._archives, self._contents)
        process = subprocess.Popen(
            # -I and -S: nothing of the environment or of installed packages, and 30 ms less
            [self._python, "-I", "-S", str(program), *arguments],
            cwd=directory,
            env=dict(environment),
            stdin=stdin if isinstance(stdin, int) else stdin.fileno(),
            stdout=log,
            stderr=log,
            close_fds=True,
            start_new_session=True,
        )
        process.returncode = 0  # it outlives this object on purpose
        with _reaping:
            _children.add(process.pid)
        return process.pid

    def _swept(self, path: Path, attempt_directory: Path) -> bool:
        try:
            with _connect(path) as connected:
                return not _ask(connected, json.dumps({"sweep": str(attempt_directory)})).get("left")
        except TimeoutError:
            _kill(_pid_of(path))
            return False  # the next sweep does not find it, and searches without it
        except (OSError, ValueError):  # it ended in this moment, or was killed
            return True

    def _sockets(self) -> list[Path]:
        try:
            return [path for path in sorted(self._directory.iterdir()) if path.is_socket()]
        except FileNotFoundError:  # there never was a launcher
            return []

    def _disconnect(self) -> None:
        if self._current is not None:
            self._current.socket.close()
            self._current = None


def _reap() -> None:
    with _reaping:
        for pid in list(_children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            _children.discard(pid)


def _messages(texts: Iterable[str]) -> Iterator[list[str]]:
    """Distribute launches among messages, in order."""
    message: list[str] = []
    length = 0
    for text in texts:
        if message and (len(message) == MOST_TOGETHER or length + len(text) > LONGEST_TOGETHER):
            yield message
            message, length = [], 0
        message.append(text)
        length += len(text)
    if message:
        yield message


def _connect(path: Path) -> socket.socket:
    """Connect to a launcher's socket. Raises OSError."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connected.settimeout(ANSWER_SECONDS)
    # By the directory's descriptor: a socket's path is at most 107 bytes long.
    directory = os.open(path.parent, os.O_PATH)
    try:
        connected.connect(f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        connected.close()
        raise
    finally:
        os.close(directory)
    return connected


def _ask(connected: socket.socket, request: str) -> Mapping[str, object]:
    """Send a request, return the reply. Raises OSError or ValueError."""
    connected.settimeout(ANSWER_SECONDS)
    connected.send(request.encode())
    reply = connected.recv(LONGEST_REPLY)
    if not reply:
        raise ConnectionResetError("the launcher is gone")
    return dict(json.loads(reply))


def _pid_of(path: Path) -> int:
    return int(path.suffix[1:])


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
