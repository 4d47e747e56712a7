"""Programs that are started, watched, started again when they die, and ended together.

Each runs in its own session, so that Ctrl-C in the terminal reaches only us, and asks the kernel for a SIGTERM when we
die, so that kill -9 of us ends it. Who runs is written to a roster in the data directory: the next run ends whoever is
still there, whatever happened. What they write goes straight to the terminal.

A program that dies is started again, for ever, after a pause that doubles up to half a minute: what killed it (a lack
of memory, a database that was away) may pass, and simulations go on without it.
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

STEADY_SECONDS = 5.0  # a program that lives this long has started
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LEFTOVER_SECONDS = 5.0
PR_SET_PDEATHSIG = 1  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and what to call it."""

    name: str
    command: tuple[str, ...]


class Pauses:
    """The pauses before a program is started again: they double while it dies within seconds of its start."""

    def __init__(self) -> None:
        self._deaths = 0  # in a row, each within seconds

    def after(self, lifetime_seconds: float) -> float:
        """How many seconds to wait after such a life."""
        self._deaths = 1 if lifetime_seconds >= STEADY_SECONDS else self._deaths + 1
        return float(min(FIRST_PAUSE_SECONDS * 2 ** min(self._deaths - 1, 10), LONGEST_PAUSE_SECONDS))


class Child:
    """One program, kept running."""

    def __init__(self, program: Program, environment: Mapping[str, str], roster: Roster) -> None:
        self.program = program
        self._environment = dict(environment)
        self._roster = roster
        self.process: asyncio.subprocess.Process | None = None

    async def keep_running(self, say: Callable[[str], None]) -> None:
        """Start it, and start it again, until cancelled; it stays running then. Raises `StartFailed`."""
        pauses = Pauses()
        while True:
            began, kills = time.monotonic(), memory.count_kills()
            code = await self.run_once()
            pause = pauses.after(time.monotonic() - began)
            ending = say_ending(code)
            if code == -signal.SIGKILL and self.process is not None:
                ending += f", {say_who_killed(self.process.pid, kills)}"
            say(f"{self.program.name} ended ({ending}); starting it again in {pause:g} s. Simulations go on.")
            await asyncio.sleep(pause)

    async def run_once(self) -> int:
        """Start it and wait for its end; its return code. Raises `StartFailed` if it can't be started."""
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
        """Send it a signal, if it still runs."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


async def end_all(children: Sequence[Child], grace_seconds: float, hurry: asyncio.Event) -> list[str]:
    """End them: SIGTERM, then SIGKILL when the grace is over or somebody is in a hurry. Says who needed it."""
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
    """Who runs, on disk: process ids with their start times, since the kernel gives ids out again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[dict[str, float]] = []

    def add(self, pid: int) -> None:
        """Write down a child that was just started."""
        self._entries = [entry for entry in self._entries if _find(entry) is not None]
        with suppress(psutil.NoSuchProcess):
            self._entries.append({"pid": pid, "started_at": psutil.Process(pid).create_time()})
        self._write()

    def clear(self) -> None:
        """Forget them: they have ended."""
        self._entries = []
        self._path.unlink(missing_ok=True)

    def end_leftovers(self) -> int:
        """End those of an earlier run that was killed; how many there were. They are on their way out already."""
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
        # A full disk must not keep the service from running: the kernel's signal comes first, the roster second.
        with suppress(OSError):
            draft.write_text(json.dumps(self._entries))
            draft.replace(self._path)


def say_ending(code: int) -> str:
    """Say how a process ended, from its return code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def say_who_killed(pid: int, kills: int | None) -> str:
    """Say what a SIGKILL probably was. kills: how many were killed for want of memory when the process started."""
    if memory.was_killed(pid):
        return "by the kernel: out of memory"
    now = memory.count_kills()
    if kills is not None and now is not None and now > kills:
        return "probably by the kernel: out of memory"
    return "by a user, or by the kernel if memory was short"


def python_module(name: str) -> Program:
    """Make the program `python -m NAME`, of this very installation and not of a folder of that name where we are."""
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
        # Runs between fork and exec: nothing but system calls. The kernel watches the thread that forked, our main one.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:  # we died before it could ask
            os._exit(1)

    return ask
