"""Environments with real trackers' clients and training libraries, each with a lock of its own.

MLflow and this service need different versions of some libraries, and of each client several versions are tested.
`forms` has the libraries whose output the readers know. It is the largest, 0.9 GB unpacked: Keras trains with JAX (its
NumPy backend can't, PyTorch is larger), and xgboost-cpu leaves out CUDA's libraries. An environment is made once, in
`.make/trackers` below the repository, under the hash of its lock, in some seconds. Where it can't be made (no network)
the tests that need it are skipped; with REQUIRE_TRACKERS set, as in CI, they fail.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

LOCKS = Path(__file__).with_name("trackers")
KEPT = Path(__file__).parents[2] / ".make" / "trackers"


def python_of(name: str) -> str:
    """The interpreter of an environment, named as its lock. Skips the test where it can't be made."""
    lock = LOCKS / f"{name}.lock"
    environment = KEPT / f"{name}-{sha256(lock.read_bytes()).hexdigest()[:16]}"
    python, done = environment / "bin" / "python", environment / "installed"
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests run in several processes
        if not done.exists():
            try:
                uv = [sys.executable, "-m", "uv", "--quiet"]
                subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(environment)], check=True)
                install = ["pip", "install", "--require-hashes", "--python", str(python), "-r", str(lock)]
                subprocess.run([*uv, *install], check=True, capture_output=True, text=True)
            except subprocess.CalledProcessError as error:
                refuse = pytest.fail if os.environ.get("REQUIRE_TRACKERS") else pytest.skip
                refuse(f"the {name} trackers can't be installed: {str(error.stderr)[-500:]}")
            done.touch()
    return str(python)
