"""A complete service for a benchmark: `simulations up` on a temporary data directory and a free port.

Launchers, supervisors and simulations outlive `up` by design. Those of a benchmark are killed at its end, also when it
failed or was interrupted (SIGINT, SIGTERM): they are found by the data directory, which no other service has.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.processes import end

START_SECONDS = 90


def free_port() -> int:
    """Return a free port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_service(**settings: str) -> Iterator[str]:
    """Start it, yield its address (http://127.0.0.1:PORT), end it and remove its data."""
    data_directory = Path(tempfile.mkdtemp(prefix="simulations-bench-", dir="/tmp"))
    data_directory.chmod(0o711)  # as root, the database's own user passes through
    port = free_port()
    environment = {
        **os.environ,
        "PORT": str(port),
        "HOST": "127.0.0.1",
        "SIMULATIONS_DATA_DIR": str(data_directory),
        **settings,
    }
    with (data_directory / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _wait(address, process, data_directory / "up.log")
        yield address
    finally:
        signal.signal(signal.SIGTERM, before)
        end(process)
        end_all(data_directory)
        shutil.rmtree(data_directory, ignore_errors=True)


def end_all(directory: Path) -> None:
    """Kill every process with this directory in its command, its environment or as its place, until there is none."""
    while found := [process for process in psutil.process_iter() if _is_of(process, str(directory))]:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, 5)


def _is_of(process: psutil.Process, directory: str) -> bool:
    try:
        marks = [*process.cmdline(), *process.environ().values(), process.cwd()]
        return any(directory in mark for mark in marks) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # it has ended, or is not ours
        return False


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the service was not ready in {START_SECONDS} s:\n{log.read_text()[-4000:]}")
