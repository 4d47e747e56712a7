r"""Processes of the service without their imports: forked from a process that has made them.

`python -m cli up` starts three processes, and what they import takes most of their start: three seconds of CPU, some
hundred times in a run of the tests. Here a nursery, one for each process of the tests, imports the modules once and
then only forks. What it forks is a process like any other: a session, an environment, a working directory, output, a
command line, a pid and an exit status of its own; `kill -9` kills it, and `up` watches and restarts its parts, which
are forked from itself. It differs in two ways: `/proc/PID/environ` is that of the nursery, and modules are not
imported anew. A test whose subject is one of these starts its processes cold, with `subprocess`.

    tests --- nursery --- up --- graph
                    |      \---- scheduler
                    \---- graph, scheduler ...
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, NoReturn

import structlog

from runner import archive

# What these programs import at once, and what they import when they begin to work.
PROGRAMS = ("cli", "graph", "scheduler")
IMPORTED = (
    "alembic.command", "cli.app", "cli.up", "cli.migrate", "db.embedded.server", "graph.__main__", "graph.server",
    "scheduler.__main__", "uvloop",
)  # fmt: skip
COLLECT_AFTER = gc.get_threshold()  # Python's own: `cli`, from which parts are forked, sets another
PADDING = 200  # characters of the command line, so that a longer one fits
ENDING_SECONDS = 60  # of the nursery, which takes tenths of one
MOST_BYTES = 200_000  # of a request
PR_SET_PDEATHSIG = 1  # prctl(2)
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)

_libc = ctypes.CDLL(None, use_errno=True)


# --- for tests ---------------------------------------------------------------------------------------------------


class Process:
    """What `subprocess.Popen` is to a process that this one started itself."""

    def __init__(self, words: Sequence[str], pid: int, status: int) -> None:
        """status: what the nursery writes the exit status to."""
        self.args = list(words)
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self._status)

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is not None:  # it was read, and what it was read from may be open and empty now
            return self.returncode
        waiting = select.poll()
        waiting.register(self._status, select.POLLIN)
        if not waiting.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with self._lock:
            if self.returncode is None:
                # Without a status the nursery has ended, and the kernel has ended its children.
                self.returncode = int(os.read(self._status, 16) or -signal.SIGTERM)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    stdout: IO[Any],
    stderr: IO[Any] | None = None,
) -> Process:
    """Start `python WORDS`, a program of the service, in a session of its own; it ends when the tests do.

    stderr: where its standard error goes, if not to `stdout`.
    """
    return _nursery().start(words, environment, directory, stdout.fileno(), (stderr or stdout).fileno())


def run(
    words: Sequence[str], *, environment: Mapping[str, str], directory: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` to its end, as `subprocess.run` does with `capture_output` and `text`."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = start(words, environment=environment, directory=directory, stdout=stdout, stderr=stderr)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        told = [stdout, stderr]
        for each in told:
            each.seek(0)
        return subprocess.CompletedProcess(process.args, code, *(each.read() for each in told))


class Nursery:
    """The process that forks, as its parent knows it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), " " * PADDING],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=end_with_parent,
                cwd=os.sep,
            )

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], directory: Path, stdout: int, stderr: int
    ) -> Process:
        status, theirs = os.pipe()
        try:
            request = json.dumps([list(words), dict(environment), str(directory)]).encode()
            with self._lock:
                socket.send_fds(self._socket, [request], [theirs, stdout, stderr])
                pid = int(self._socket.recv(16) or 0)
        finally:
            os.close(theirs)
        if not pid:
            os.close(status)
            raise AssertionError("the nursery has ended")
        return Process([sys.executable, *words], pid, status)

    def close(self) -> None:
        self._socket.close()
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()


@cache
def _nursery() -> Nursery:
    nursery = Nursery()
    atexit.register(nursery.close)
    return nursery


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask the kernel to end this process, by this signal, when its parent ends, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, number)


# --- the nursery -------------------------------------------------------------------------------------------------


def main(descriptor: int) -> None:
    """Fork what is asked for, and report how it ended, until the tests end."""
    for name in IMPORTED:
        importlib.import_module(name)
    archive.with_compiled(archive.sources())  # kept: else each scheduler compiles them for its data directory
    gc.collect()
    gc.freeze()  # pages that the collector does not write to stay shared
    requests = socket.socket(fileno=descriptor)
    children: dict[int, tuple[int, int]] = {}  # by pidfd: the pid, and where its status is written
    events = select.poll()
    events.register(descriptor, select.POLLIN)
    while True:
        for ready, _ in events.poll():
            if ready != descriptor:
                events.unregister(ready)
                _report(ready, *children.pop(ready))
                continue
            request, descriptors, _, _ = socket.recv_fds(requests, MOST_BYTES, 3)
            if not request:
                return
            status, *outputs = descriptors
            pid = os.fork()
            if pid == 0:
                try:
                    _stand_alone(*outputs)
                    words, environment, directory = json.loads(request)
                    os.chdir(directory)
                    become(words, environment)
                finally:  # for an error before it has become anything
                    os._exit(1)
            for output in outputs:
                os.close(output)
            child = os.pidfd_open(pid)
            children[child] = (pid, status)
            events.register(child, select.POLLIN)
            requests.send(str(pid).encode())


def _report(child: int, pid: int, status: int) -> None:
    """Take the exit status of a process that ended, and hand it on."""
    os.close(child)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # no test is waiting for it any more
        os.write(status, str(code).encode())
    os.close(status)


def _stand_alone(stdout: int, stderr: int) -> None:
    """Make of a forked process what `subprocess` starts: a session leader with this output."""
    _reset_signals()
    os.setsid()
    end_with_parent()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    asyncio.create_subprocess_exec = partial(_fork, asyncio.create_subprocess_exec)  # `up` starts its parts by it


async def _fork(execute: Any, program: str, *words: str, **options: Any) -> Any:
    """Start a part of the service in place of `asyncio.create_subprocess_exec`, and anything else by that.

    A lock that another thread holds at the fork is never released in what is forked: then a part is started cold.
    """
    if program == sys.executable and module_of(words) in PROGRAMS and _is_alone():
        prepare, environment = options["preexec_fn"], options["env"]

        def begin() -> None:
            _reset_signals()  # first: `prepare` asks for SIGTERM at the parent's end, which must end this process
            prepare()
            become(words, environment)  # never returns: what would be executed next is this very program

        options["preexec_fn"] = begin
    return await execute(program, *words, **options)


def _is_alone() -> bool:
    """Whether no other thread may hold a lock; those of asyncio that wait for the end of a child hold none."""
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    return all("waitpid-" in thread.name for thread in others)  # named by asyncio.ThreadedChildWatcher


def module_of(words: Sequence[str]) -> str | None:
    """The module that `python WORDS` runs."""
    match [word for word in words if word != "-P"]:
        case ["-m", module, *_]:
            return module
        case _:
            return None


def become(words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Be `python WORDS` from here on, in a process that was just forked; all files but 0 to 2 are closed."""
    code = 1
    try:
        _forget()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        _show([sys.executable, *words])
        code = _run(words)
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does at its end
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001  # the last that this process does: nothing is above it to catch it
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def _reset_signals() -> None:
    """Handle signals as Python does when it starts."""
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _forget() -> None:
    """Undo what the program that was forked from had set up in its loggers, and keep its objects for ever.

    Were they collected, they would close descriptors whose numbers belong to this program's files by then.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.root.handlers.clear()
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()):
            if isinstance(value, structlog._config.BoundLoggerLazyProxy):
                vars(value).pop("bind", None)  # the logger of the first configuration


def _show(command: Sequence[str]) -> None:
    """Have /proc/PID/cmdline say this; slashes before the program's path fill what is left of the room."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc(5)
    text = "\0".join([*command, ""]).encode()
    if len(text) <= end - start:
        ctypes.memmove(start, text.rjust(end - start, b"/"), end - start)


def _run(words: Sequence[str]) -> int:
    """Run the program to its end; the exit status, or a signal's number, negative."""
    match [word for word in words if word != "-P"]:
        case ["-m", module, *arguments]:
            sys.modules.pop(f"{module}.__main__", None)  # it was imported for what it imports
            program: Callable[[], object] = partial(runpy.run_module, module, run_name="__main__", alter_sys=True)
        case ["-c", text, *arguments]:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            program = partial(exec, compile(text, "<string>", "exec"), vars(main))
        case _:
            raise ValueError(words)
    sys.argv = [words[0], *arguments]
    try:
        program()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    return 0


if __name__ == "__main__":
    main(int(sys.argv[1]))
