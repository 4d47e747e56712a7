"""Launcher: one warm process per host that forks a supervisor in milliseconds, instead of starting an interpreter.

All modules are imported, and there is one thread. An engine starts it with one end of a socket pair as standard input;
later engines find its listening socket, `LAUNCHERS/<key>.<pid>`, which only this user can reach. A message is one JSON
object, and so is its reply:

    {"launch": [[DIRECTORY, {NAME: VALUE, ...}], ...]}  -> {"launched": [{"pid": N} or {"refused": WHY}, ...]},
                                                           {"retired": true}
    {"sweep": DIRECTORY}                                -> {"left": BOOL}
    {"retire": true}                                    -> {"supervisors": N}

Supervisors wait at a gate until the identity of each is in `DIRECTORY/supervisor.json`. If the launcher dies before
that, the gate closes and they exit silently: an unrecorded supervisor never runs. Those of one message are forked one
directly after the other: what the launcher writes to between two forks is copied once more, page by page. Large parts
of the standard library that few supervisors use (`http`, `ssl`, `hashlib`, `tarfile`) are imported by these: each page
costs each fork.

Launcher and supervisors are child subreapers. An orphan below a living supervisor becomes a child of that supervisor;
therefore a child of the launcher that is no supervisor was left by a dead one, and is killed with its descendants. Once
no process of an attempt is left, `DIRECTORY/supervisor.json` becomes `DIRECTORY/gone` and holds the supervisor's exit:
the engine then needs no search of all processes.

Exit. The launcher outlives its engine while supervisors run, and exits when there is neither a supervisor nor a
connection. A retired launcher (SIGTERM, or an engine with another archive) starts nothing more and exits with its last
supervisor. If the launcher is killed, supervisors go on and keep their orphans; but processes left by a supervisor that
is killed later can only be found by identity, session and environment (`runner.processes`).
"""

from __future__ import annotations

import contextlib
import encodings.idna  # a lookup of an address needs it, and it takes longer to import than a fork takes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from runner import processes
from runner.supervisor.child import become_subreaper, children, kill_descendants, name_process
from runner.supervisor.complaints import LateLog, complain
from runner.supervisor.files import bring, package, saver
from runner.supervisor.run import NOT_REPORTED, REPORTED, supervise

assert encodings.idna
assert bring
assert package
assert saver  # supervisors import them when there are files: the archive may be gone by then
assert not issubclass(tuple, os.PathLike)  # subprocess asks that of a command, and the first answer takes long

LONGEST_MESSAGE = 1 << 20
SWEEP_SECONDS = 1.0  # a killed process is gone in milliseconds; what the kernel holds longer is tried again
AGAIN_SECONDS = 1.0
HANDLED = (signal.SIGCHLD, signal.SIGTERM)  # all others are ignored; a set of all would cost as much as a fork
_ENVIRONMENT = dict(os.environ)  # the launcher's own: nearly that of each supervisor
FAILED = 70  # exit status of a supervisor that failed by a defect (sysexits.h: EX_SOFTWARE)

Reply = Mapping[str, object]


class Launcher:
    """Serves the engine at the other end of `first`, and engines that connect later, until it is idle."""

    def __init__(self, first: socket.socket, key: str) -> None:
        self._supervisors: dict[int, Path] = {}
        self._dead: dict[Path, str] = {}  # attempts with a process that does not die, and their supervisors' exits
        self._held: set[int] = set()  # processes that do not die
        self._connections: set[socket.socket] = set()
        self._is_retired = False
        self._name = f"{key}.{os.getpid()}"
        self._listener = _listen(self._name)
        self._selector = selectors.DefaultSelector()
        self._wake, writer = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._retire)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._selector.register(self._wake, selectors.EVENT_READ, self._drain)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._connect(first)

    def serve(self) -> None:
        """Serve until there is neither a supervisor nor a connection that could request one."""
        try:
            while self._supervisors or self._dead or (self._connections and not self._is_retired):
                for key, _ in self._selector.select(AGAIN_SECONDS if self._dead else None):
                    key.data()
                self._bury()
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._name)

    # --- connections -------------------------------------------------------------------------------------------------

    def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connections.add(connection)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._answer(connection))

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            self._connect(self._listener.accept()[0])

    def _answer(self, connection: socket.socket) -> None:
        try:
            message = connection.recv(LONGEST_MESSAGE)
            if message:
                connection.send(json.dumps(self._do(message)).encode())
                return
        except BlockingIOError:  # nothing there after all; or an engine that reads no replies, which times out there
            return
        except OSError:
            pass
        self._selector.unregister(connection)
        self._connections.discard(connection)
        connection.close()

    def _do(self, message: bytes) -> Reply:
        try:
            request = json.loads(message)
            if "launch" in request:
                if self._is_retired:
                    return {"retired": True}
                return {"launched": self._launch([(Path(place), dict(given)) for place, given in request["launch"]])}
            if "retire" in request:
                self._retire()
                return {"supervisors": len(self._supervisors)}
            self._bury()
            return {"left": Path(request["sweep"]) in self._dead}
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {"refused": _sentence(error)}

    def _retire(self, *_: object) -> None:
        if not self._is_retired:
            self._is_retired = True
            name = f"retired.{os.getpid()}"  # found there for sweeps only
            with contextlib.suppress(OSError):
                os.rename(self._name, name)
                self._name = name

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    # --- supervisors -------------------------------------------------------------------------------------------------

    def _launch(self, wanted: Sequence[tuple[Path, Mapping[str, str]]]) -> Sequence[Reply]:
        """Fork supervisors, record them, and let those that are recorded run; return a reply for each."""
        forked: list[int] = []
        failure = ""
        gate, opener = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            for directory, environment in wanted:
                pid = os.fork()
                if pid == 0:
                    _be_supervisor(directory, environment, gate)
                forked.append(pid)
        except OSError as error:
            failure = _sentence(error)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(gate)
        try:
            replies = [self._record(pid, directory) for pid, (directory, _) in zip(forked, wanted)]
            with contextlib.suppress(BrokenPipeError):  # all of them are dead
                os.write(opener, b"\n" * len(forked))  # one that was killed may still take its byte, in the kernel
        finally:
            os.close(opener)
        return [*replies, *({"refused": failure} for _ in wanted[len(forked) :])]

    def _record(self, pid: int, directory: Path) -> Reply:
        """Record a supervisor that waits at the gate, or kill it: it never passes then."""
        try:
            identity = processes.identify(pid)
            if identity is None:
                raise ProcessLookupError(f"process {pid} is gone")
            processes.write_identity(directory / "supervisor.json", identity)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)  # a child of this process, not reaped yet
            return {"refused": _sentence(error)}
        self._supervisors[pid] = directory
        return {"pid": pid}

    def _bury(self) -> None:
        """Reap ended supervisors, kill what they left, and note attempts of which no process is left."""
        died: dict[Path, str] = {}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)) is not None:
                directory = self._supervisors.pop(ended.si_pid, None)
                if directory is None:
                    continue
                has_exited = ended.si_code == os.CLD_EXITED
                how = f"{'exit' if has_exited else 'signal'} {ended.si_status}"
                if has_exited and ended.si_status in (REPORTED, NOT_REPORTED):  # it has killed its descendants itself
                    _note_gone(directory, how)
                else:
                    died[directory] = how
        if died and not kill_descendants({*self._supervisors, *self._held}, SWEEP_SECONDS):
            self._dead.update(died)
            died.clear()
        if self._dead:  # without waiting: a process that the kernel holds must not delay launches
            if kill_descendants(self._supervisors, 0):
                died.update(self._dead)
                self._dead.clear()
            self._held = set(children()) - self._supervisors.keys()
        for directory, how in died.items():
            _note_gone(directory, how)


def _listen(name: str) -> socket.socket:
    """Open a listening socket in the current directory."""
    with contextlib.suppress(FileNotFoundError):  # of an earlier process of the same pid
        os.unlink(name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(name)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _note_gone(directory: Path, how: str) -> None:
    try:
        # Into a file that is there: a new one would cost more than all else here (`runner.supervisor.assignment`).
        with contextlib.suppress(FileNotFoundError):
            os.rename(directory / "supervisor.json", directory / "gone")
        note = os.open(directory / "gone", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.truncate(note, os.write(note, f"{how}\n".encode()))
        finally:
            os.close(note)
    except OSError as error:  # the engine will search all processes instead
        complain(f"{directory.name}: {error}")


def _be_supervisor(directory: Path, environment: Mapping[str, str], gate: int) -> NoReturn:
    """Main of the forked child: drop the launcher's state, wait for the gate, run the supervisor."""
    status = FAILED
    try:
        signal.set_wakeup_fd(-1)  # signals stay blocked or ignored until the supervisor has handlers of its own
        os.setsid()
        _close_descriptors(kept=gate)
        if os.read(gate, 1):
            os.close(gate)
            name_process("supervisor")
            os.chdir(directory)
            sys.stdout = sys.stderr = LateLog(directory / "supervisor.log")
            for name in _ENVIRONMENT.keys() - environment.keys():
                del os.environ[name]
            for name, value in environment.items() - _ENVIRONMENT.items():
                os.environ[name] = value
            status = supervise(directory)
    except BaseException:  # noqa: BLE001  # the launcher's loop is below on the stack and must not go on here
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _close_descriptors(kept: int) -> None:
    """Close all descriptors but the standard ones and `kept`."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(3, kept)
    os.closerange(kept + 1, highest + 1)


def main(directory: Path, key: str) -> int:
    """Run the launcher of a directory of sockets."""
    first = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    _close_descriptors(kept=first.fileno())
    become_subreaper()
    name_process("launcher")
    os.chdir(directory)  # a socket's path is at most 107 bytes long
    gc.collect()
    gc.freeze()  # imported modules stay shared with every supervisor, as long as nothing writes to them
    Launcher(first, key).serve()
    return 0
