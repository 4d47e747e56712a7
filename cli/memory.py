"""Detection of out-of-memory kills, from the counters of the control group and from the kernel's log.

Counters: `memory.events` (cgroup v2, Documentation/admin-guide/cgroup-v2.rst) and `memory.oom_control` (v1). The
kernel's log is /dev/kmsg, readable by root, and by others if `kernel.dmesg_restrict` is 0. An unreadable source means
unknown, not "no kill".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

KERNEL_LOG = Path("/dev/kmsg")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
RECORD_BYTES = 8192  # at most, of the kernel's log


def count_kills(own_group: Path = OWN_GROUP, control_groups: Path = CONTROL_GROUPS) -> int | None:
    """Return the number of out-of-memory kills in this control group; None: unknown."""
    for path in _counters(own_group, control_groups):
        with suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
            if found is not None:
                return int(found[1])
    return None


def was_killed(pid: int, kernel_log: Path = KERNEL_LOG) -> bool:
    """Whether the kernel's log records an out-of-memory kill of this process."""
    sentence = re.compile(rb"Killed process %d[ ,(]" % pid)
    return any(b"ut of memory" in record and sentence.search(record) for record in _records(kernel_log))


def _counters(own_group: Path, control_groups: Path) -> Iterator[Path]:
    with suppress(OSError):
        for line in own_group.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                yield control_groups / group.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                yield control_groups / "memory" / group.lstrip("/") / "memory.oom_control"


def _records(path: Path) -> Iterator[bytes]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                record = os.read(file, RECORD_BYTES)
            except BrokenPipeError:  # records were overwritten: the next read continues after them
                continue
            except OSError:  # EAGAIN: no more records
                return
            if not record:
                return
            yield record
    finally:
        os.close(file)
