"""Child processes of `up`: started, restarted when they die, and stopped together.

Each runs in its own session, so that Ctrl-C in the terminal reaches only `up`, and gets a SIGTERM from the kernel when
`up` dies (PR_SET_PDEATHSIG), also by kill -9. The roster in the data directory lists the running children: the next
run ends any that are left. Their output goes straight to the terminal.

A child that dies is restarted without limit: at once if it had run for a while, and after a pause that doubles up to
half a minute if it dies within seconds of its start. The cause (out of memory, a database that is down) may be
temporary, and simulations continue without it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cli import memory
from cli.errors import StartFailed

STEADY_SECONDS = 5.0  # a program that runs this long counts as started
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LEFTOVER_SECONDS = 5.0
PR_SET_PDEATHSIG = 1  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """A command line and its display name."""

    name: str
    command: tuple[str, ...]


class Pauses:
    """Backoff before a restart: none after a run of some seconds, then doubled at each death soon after a start."""

    def __init__(self) -> None:
        self._early_deaths = 0  # consecutive

    def after(self, lifetime_seconds: float) -> float:
        """Return the seconds to wait after a run of this length."""
        if lifetime_seconds >= STEADY_SECONDS:
            self._early_deaths = 0
            return 0.0
        self._early_deaths += 1
        return float(min(FIRST_PAUSE_SECONDS * 2 ** min(self._early_deaths - 1, 10), LONGEST_PAUSE_SECONDS))


class Child:
    """One child process, kept running."""

    def __init__(self, program: Program, environment: Mapping[str, str], roster: Roster) -> None:
        self.program = program
        self._environment = dict(environment)
        self._roster = roster
        self.process: asyncio.subprocess.Process | None = None

    async def keep_running(self, say: Callable[[str], None]) -> None:
        """Start and restart the program until cancelled; it then keeps running. Raises `StartFailed`."""
        pauses = Pauses()
        while True:
            began, kills = time.monotonic(), memory.count_kills()
            code = await self.run_once()
            pause = pauses.after(time.monotonic() - began)
            ending = say_ending(code)
            if code == -signal.SIGKILL and self.process is not None:
                ending += f", {say_who_killed(self.process.pid, kills)}"
            when = f"in {pause:g} s" if pause else "at once"
            say(f"{self.program.name} ended ({ending}); starting it again {when}. Simulations go on.")
            await asyncio.sleep(pause)

    async def run_once(self) -> int:
        """Start the program, wait for its end and return its exit code. Raises `StartFailed` if it can't start."""
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        except OSError as error:
            raise StartFailed(f"Can't start {self.program.name}: {error}.") from error
        self._roster.add(self.process.pid)
        return await self.process.wait()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the program still runs."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


async def end_all(children: Sequence[Child], grace_seconds: float, hurry: asyncio.Event) -> list[str]:
    """Stop all: SIGTERM, then SIGKILL after the grace or once `hurry` is set. Return the names that were killed."""
    running = [child for child in children if child.is_running]
    waits = [asyncio.ensure_future(child.process.wait()) for child in running if child.process is not None]
    if not waits:
        return []
    for child in running:
        child.send(signal.SIGTERM)
    all_ended = asyncio.gather(*waits)
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait((all_ended, hurried), timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    stubborn = [child for child in running if child.is_running]
    for child in stubborn:
        child.send(signal.SIGKILL)
    await all_ended
    return [child.program.name for child in stubborn]


class Roster:
    """Running children on disk: process ids with start times, because the kernel reuses ids."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[dict[str, float]] = []

    def add(self, pid: int) -> None:
        """Record a child that was just started."""
        self._entries = [entry for entry in self._entries if _find(entry) is not None]
        with suppress(psutil.NoSuchProcess):
            self._entries.append({"pid": pid, "started_at": psutil.Process(pid).create_time()})
        self._write()

    def clear(self) -> None:
        """Remove all entries: the children have ended."""
        self._entries = []
        self._path.unlink(missing_ok=True)

    def end_leftovers(self) -> int:
        """Kill the children that a killed run left; return how many. They already got the kernel's SIGTERM."""
        try:
            told = json.loads(self._path.read_text())
            entries = [{"pid": int(each["pid"]), "started_at": float(each["started_at"])} for each in told]
        except (OSError, ValueError, TypeError, KeyError):
            return 0
        left = [process for process in map(_find, entries) if process is not None]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in left:
                with suppress(psutil.Error):
                    process.send_signal(number)
            _, busy = psutil.wait_procs(left, timeout=LEFTOVER_SECONDS)
            if not busy:
                break
        self.clear()
        return len(left)

    def _write(self) -> None:
        draft = self._path.with_name(f"{self._path.name}.new")
        # A full disk must not stop the service: the roster is only the second safeguard after the kernel's signal.
        with suppress(OSError):
            draft.write_text(json.dumps(self._entries))
            draft.replace(self._path)


def say_ending(code: int) -> str:
    """Describe how a process ended, from its return code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def say_who_killed(pid: int, kills: int | None) -> str:
    """Explain a SIGKILL. kills: number of out-of-memory kills when the process started."""
    if memory.was_killed(pid):
        return "by the kernel: out of memory"
    now = memory.count_kills()
    if kills is not None and now is not None and now > kills:
        return "probably by the kernel: out of memory"
    return "by a user, or by the kernel if memory was short"


def python_module(name: str) -> Program:
    """Make the program `python -m NAME` of this installation, not of a directory NAME in the current one."""
    return Program(name, (sys.executable, "-P", "-m", name))


def _find(entry: Mapping[str, float]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(entry["pid"]))
        same = abs(process.create_time() - entry["started_at"]) < 0.05
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _die_with(parent_pid: int) -> Callable[[], None]:
    def ask() -> None:
        # Runs between fork and exec: system calls only. The signal follows the forking thread, here the main thread.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:  # the parent died before prctl
            os._exit(1)

    return ask
