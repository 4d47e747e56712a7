"""The service of a benchmark: what it started ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import service

LINGER = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def _linger(directory: Path, mark: str) -> subprocess.Popen[bytes]:
    """A process in a session of its own that ignores SIGTERM, with the directory only as this mark."""
    process = subprocess.Popen(
        [sys.executable, "-c", LINGER, *([f"{directory}/x"] if mark == "command" else [])],
        env={**os.environ, **({"MARK": f"{directory}/x"} if mark == "environment" else {})},
        cwd=directory if mark == "place" else None,
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("interruption", ["failure", "SIGTERM"])
def test_what_outlives_the_service_is_ended_with_a_benchmark_that_fails(
    interruption: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[subprocess.Popen[bytes]] = []
    started: list[subprocess.Popen[bytes]] = []
    other = _linger(tmp_path, "environment")

    def wait(_address: str, process: subprocess.Popen[bytes], log: Path) -> None:
        started.append(process)
        left.extend(_linger(log.parent, mark) for mark in ("command", "environment", "place"))
        if interruption == "failure":
            raise RuntimeError("not ready")

    monkeypatch.setattr(service, "_wait", wait)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises((RuntimeError, SystemExit)), service.running_service():
            signal.raise_signal(signal.SIGTERM)
        assert not any(psutil.pid_exists(each.pid) for each in left)
        assert started[0].poll() is not None
        assert psutil.pid_exists(other.pid)
        assert other.poll() is None
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        for process in (other, *left):
            process.kill()
            process.communicate()
