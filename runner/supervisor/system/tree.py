"""Usage of the processes of an attempt, from /proc: the descendants of the supervisor."""

from __future__ import annotations

import os
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAX_PROCESSES = 10_000


class Usage(NamedTuple):
    """Totals of a tree. cpu, read and written grow; they shrink only where a process ended without a parent."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


def usage(root: int) -> Usage:
    """Sum up what the descendants of a process use. Those that end meanwhile are left out."""
    found = [_of(pid) for pid in descendants(root)]
    return Usage(
        sum(each.cpu for each in found),
        sum(each.own for each in found) + max((each.shared for each in found), default=0),
        sum(each.read for each in found),
        sum(each.written for each in found),
    )


def descendants(root: int) -> list[int]:
    """The pids below a process. One that is forked or ends meanwhile may be missing."""
    found: list[int] = []
    waiting = [root]
    while waiting and len(found) < MAX_PROCESSES:
        for child in _children(waiting.pop()):
            found.append(child)
            waiting.append(child)
    return found


class _Process(NamedTuple):
    cpu: float = 0.0
    own: int = 0
    shared: int = 0
    read: int = 0
    written: int = 0


def _children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        return found
    return found


def _of(pid: int) -> _Process:
    try:
        stat = _read(f"/proc/{pid}/stat")
        # proc_pid_stat(5): utime, stime, and those of the children waited for; after the name, which may hold blanks.
        cpu = sum(map(int, stat[stat.rindex(")") + 2 :].split()[11:15])) / TICKS
        _, resident, shared = map(int, _read(f"/proc/{pid}/statm").split()[:3])
    except (OSError, ValueError):
        return _Process()
    read, written = _disk(pid)
    return _Process(cpu, (resident - shared) * PAGE_BYTES, shared * PAGE_BYTES, read, written)


def _disk(pid: int) -> tuple[int, int]:
    try:
        fields = dict(line.split(": ") for line in _read(f"/proc/{pid}/io").splitlines())
        return int(fields["read_bytes"]), int(fields["write_bytes"])
    except (OSError, ValueError, KeyError):  # of another user
        return 0, 0


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
