"""Default names of simulations."""

from __future__ import annotations

import pytest

from graph.types.naming import name_of


@pytest.mark.parametrize(
    ("entrypoint", "name"),
    [
        (["python", "train.py"], "train.py"),
        (["/usr/bin/python3.12", "-u", "/home/me/train.py", "--epochs", "20"], "train.py"),
        (["python", "-W", "error", "-m", "runner.demo", "--steps", "40"], "runner.demo"),
        (["python", "-c", "open('a/b')"], "python"),
        (["bash", "-lc", "cd here && ./solve"], "bash"),
        (["bash", "-e", "job.sh"], "job.sh"),
        (["node", "-e", "console.log(1)"], "node"),
        (["sh", "./run.sh"], "run.sh"),
        (["uv", "run", "--with", "torch", "train.py"], "train.py"),
        (["/opt/solvers/navier", "mesh.h5"], "navier"),
        (["torchrun", "--nproc-per-node", "8", "train.py"], "torchrun"),
        (["shred", "file"], "shred"),
        (["python"], "python"),
        (["/opt/solver/"], "solver"),
        (["/"], "simulation"),
        (["bash", "\x1b[31m\n"], "[31m"),
        (["python", "x" * 300], "x" * 100),
    ],
)
def test_it_is_called_after_what_it_runs(entrypoint: list[str], name: str) -> None:
    assert name_of(entrypoint) == name
