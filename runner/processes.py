"""Process identity on this host, and finding and killing all processes of an attempt.

A process is identified by pid, start time and boot: the kernel soon reuses a pid. To an attempt belong the recorded
supervisor and child, their session, their descendants, and every process with the attempt's mark in its environment: a
grandchild that called setsid escapes process group and session, but keeps the mark. A supervisor that the launcher
forked has no mark (`/proc/PID/environ` is that of the launcher's start), and is found by its recorded identity. One
that also emptied its environment is found by the launcher alone (`runner.supervisor.launcher`).

Processes vanish during a search, and other users' processes can't be read: neither is an error here. A process in
uninterruptible sleep can't be killed; then `end_all` returns False.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
END_SECONDS = 10.0  # a killed process is gone in milliseconds, unless the kernel holds it
PAUSE_SECONDS = 0.005


@dataclass(frozen=True)
class Identity:
    """Unique identity of a process. `start_time` is in clock ticks since boot (proc(5), stat, field 22)."""

    pid: int
    start_time: int
    boot_id: str


@dataclass(frozen=True)
class _Status:
    pid: int
    state: str
    parent: int
    session: int
    start_time: int


def identify(pid: int) -> Identity | None:
    """Identity of the process that has this pid now; None if there is none."""
    status = _status(pid)
    return Identity(pid, status.start_time, boot_id()) if status is not None else None


@functools.cache
def boot_id() -> str:
    """Random id of this boot of the host."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def read_identity(path: Path) -> Identity | None:
    """Read a recorded identity; None if the file is missing or was cut off."""
    try:
        return identity_of(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None


def identity_of(record: Any) -> Identity | None:
    """Read an identity from JSON; None for anything else."""
    try:
        return Identity(int(record["pid"]), int(record["start_time"]), str(record["boot_id"]))
    except (ValueError, KeyError, TypeError):
        return None


def write_identity(path: Path, identity: Identity) -> None:
    """Record an identity atomically."""
    temporary = f"{path}.{os.getpid()}"  # the engine and the supervisor may both write
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        os.write(descriptor, json.dumps(vars(identity)).encode())
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def is_alive(identity: Identity) -> bool:
    """Whether this process still runs. A zombie does not; a zombie child of this process is reaped."""
    status = _status(identity.pid)
    if status is None or status.start_time != identity.start_time or identity.boot_id != boot_id():
        return False
    if status.state != "Z":
        return True
    _reap(identity.pid)
    return False


def end_all(mark: str, supervisor: Identity | None, child: Identity | None) -> bool:
    """Kill all processes of an attempt until none is left; False if one does not die in ten seconds.

    mark: `NAME=value`, as in the environment of every process that the attempt started.
    """
    deadline = time.monotonic() + END_SECONDS
    killed: set[_Status] = set()
    # A dying process loses its environment a moment before it releases files and GPUs.
    while remaining := _belonging(mark.encode(), supervisor, child) or [each for each in killed if _is_running(each)]:
        for status in remaining:
            _kill(status)
            killed.add(status)
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def _is_running(seen: _Status) -> bool:
    status = _status(seen.pid)
    return status is not None and status.start_time == seen.start_time and status.state != "Z"


def _belonging(mark: bytes, supervisor: Identity | None, child: Identity | None) -> list[_Status]:
    every = {status.pid: status for status in _statuses()}
    roots = [identity for identity in (supervisor, child) if identity is not None and identity.boot_id == boot_id()]
    found = {root.pid for root in roots if _is(every.get(root.pid), root)}
    # The kernel does not reuse a session's number while the session has a member: its members are the supervisor's,
    # unless another process has that pid by now, which means that the session had died out.
    leader = supervisor if supervisor in roots else None
    if leader is not None and (leader.pid in found or leader.pid not in every):
        found |= {status.pid for status in every.values() if status.session == leader.pid}
    found |= {pid for pid in every if mark in _environment(pid)}
    found |= _descendants(found, {pid: status.parent for pid, status in every.items()})
    found.discard(os.getpid())
    living = []
    for pid in found:
        if every[pid].state == "Z":
            _reap(pid)
        else:
            living.append(every[pid])
    return living


def _is(status: _Status | None, identity: Identity) -> bool:
    return status is not None and status.start_time == identity.start_time


def _descendants(roots: set[int], parents: Mapping[int, int]) -> set[int]:
    found: set[int] = set()
    fresh = set(roots)
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found - roots
        found |= fresh
    return found


def _kill(status: _Status) -> None:
    # Through a pidfd, checked after it was opened: the pid may have been reused between search and kill.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        descriptor = os.pidfd_open(status.pid)
        try:
            current = _status(status.pid)
            if current is not None and current.start_time == status.start_time:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # not a child of this process
        os.waitpid(pid, os.WNOHANG)


def _statuses() -> Iterator[_Status]:
    for name in os.listdir(PROC):
        if name.isdigit() and (status := _status(int(name))) is not None:
            yield status


def _status(pid: int) -> _Status | None:
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The second field is the command's name in brackets, and may contain brackets and blanks.
    fields = text[text.rindex(b")") + 2 :].split()
    return _Status(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def _read(path: str) -> bytes:
    """Read a small file of the kernel's. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
