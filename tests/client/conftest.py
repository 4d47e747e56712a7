"""Scripts as simulations run them, with the pipe that a supervisor reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"


@dataclass
class Ran:
    """What a script reported and printed."""

    status: int
    reported: list[dict[str, float]]
    out: str
    err: str

    def points(self, metric: str) -> list[tuple[int, float]]:
        return [(int(line["step"]), line[metric]) for line in self.reported if metric in line]


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a script with the package `simulations` and the frameworks in `tmp_path / "frameworks"`."""

    def run(code: str, *arguments: str, python: str = sys.executable) -> Ran:
        pipe = tmp_path / "report"
        os.mkfifo(pipe)
        descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{CLIENT}:{tmp_path / 'frameworks'}",
            "SIMULATION_REPORT": str(pipe),
        }
        ended = subprocess.run([python, "-c", code, *arguments], env=environment, capture_output=True, text=True)
        try:
            lines = os.read(descriptor, 1 << 20).splitlines()
        except BlockingIOError:
            lines = []
        os.close(descriptor)
        return Ran(ended.returncode, [json.loads(line) for line in lines], ended.stdout, ended.stderr)

    return run
