"""Where tests keep databases and the data of services: in memory where there is room, else in /tmp.

On a disk, most of what PostgreSQL takes for a new database is the file system's search for some 400 inodes: `CREATE
DATABASE` took 60 to 240 ms of CPU on ext4, and 10 to 20 on tmpfs. Nothing there outlives the tests.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
CGROUPS = Path("/sys/fs/cgroup")  # a container sees its own there
LIMITS = (  # of version 2 and of version 1, with what is in use; files in a tmpfs are in use
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
DISK = Path("/tmp")  # not TMPDIR, which may be long: the paths of sockets end at 107 bytes
NEEDED_BYTES = 1 << 30  # for each process of tests: a server, its log of changes, and the data of some services
SPARE_BYTES = 2 << 30  # a store of files leaves one GiB of its disk free
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free_memory(cgroups: Path = CGROUPS) -> int:
    """Bytes that are free on this host, and within the limit of the container if there is one."""
    free = int(psutil.virtual_memory().available)
    for limit, used, details in LIMITS:
        with suppress(OSError, ValueError):  # of the other version, or "max"
            most, now = int((cgroups / limit).read_text()), int((cgroups / used).read_text())
            cached = dict(line.split() for line in (cgroups / details).read_text().splitlines()).get("inactive_file", 0)
            free = min(free, most - now + int(cached))
    return free


def is_roomy(place: Path) -> bool:
    """Whether it is a tmpfs that lets programs run, as PostgreSQL's do, with room for all processes of tests."""
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    free = min(found.f_bavail * found.f_frsize, free_memory())
    is_mount = any(
        each.mountpoint == str(place) and each.fstype == "tmpfs" for each in psutil.disk_partitions(all=True)
    )
    return (
        is_mount
        and not found.f_flag & os.ST_NOEXEC
        and os.access(place, os.W_OK)
        and free >= SPARE_BYTES + NEEDED_BYTES * WORKERS
    )


PLACE = SHARED_MEMORY if is_roomy(SHARED_MEMORY) else DISK
