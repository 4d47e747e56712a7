"""Server processes of a benchmark: start, CPU time to the microsecond, and unshared memory.

Clients, servers and database share the machine, so wall time says little; CPU time is counted by the kernel for each
process, and hardly minds what else runs.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from asyncpg import Connection, Record

START_SECONDS = 120
OPEN_FILES = 8_192  # a thousand sockets and more in each of two processes


@contextmanager
def server(module: str, port: int, **environment: str) -> Iterator[psutil.Process]:
    """Run `python -m MODULE` while the block runs, from when it answers at /healthz.

    Raises RuntimeError when it ends instead, or is not there in time; it has said why on stderr.
    """
    allow_open_files()
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env={**os.environ, "PORT": str(port), "HOST": "127.0.0.1", "SIMULATIONS_LOG_LEVEL": "error", **environment},
        cwd=Path(__file__).parents[1],
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz", process)
        yield psutil.Process(process.pid)
    finally:
        end(process)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the address answers with 200."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not answer at {address}")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and see that it does."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(*processes: psutil.Process) -> float:
    """CPU time of all their threads so far, user and system."""
    return sum(_cpu_seconds(process) for process in processes)


def own_mebibytes(process: psutil.Process) -> float:
    """Memory that would be free if the process ended: what it shares with others doesn't count."""
    return float(process.memory_full_info().uss) / 2**20


async def backends(connection: Connection[Record], applications: Iterable[str]) -> list[psutil.Process]:
    """The database's processes that serve these applications."""
    found = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = ANY($1)", [*applications])
    return [psutil.Process(row["pid"]) for row in found]


def allow_open_files() -> None:
    """Raise the limit of this process, which its children inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _cpu_seconds(process: psutil.Process) -> float:
    # psutil's times come in steps of 10 ms: too coarse for some hundred milliseconds. The scheduler counts nanoseconds.
    try:
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except OSError:  # a kernel without these statistics
        times = process.cpu_times()
        return float(times.user + times.system)
