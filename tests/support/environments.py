"""Locked environments beside the tests' own, for programs whose requirements ours exclude.

An environment is made once, in `.make` below the repository, under the hash of its lock. Where it can't be made (no
network) the tests that need it are skipped; with the variable that the caller names, as in CI, they fail.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

MADE = Path(__file__).parents[2] / ".make"
TRIES = 3  # a download may break off; what has come by then is in the cache


def python_of(lock: Path, required_by: str) -> str:
    """The interpreter of the environment of a lock. Skips the test where it can't be made.

    required_by: the variable with which the test fails instead.
    """
    kept = MADE / lock.parent.name
    environment = kept / f"{lock.stem}-{sha256(lock.read_bytes()).hexdigest()[:16]}"
    python, done = environment / "bin" / "python", environment / "installed"
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / f"{lock.stem}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests run in several processes
        if not done.exists():
            uv = [sys.executable, "-m", "uv", "--quiet"]
            subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(environment)], check=True)
            install = [*uv, "pip", "install", "--require-hashes", "--python", str(python), "-r", str(lock)]
            for _ in range(TRIES):
                ran = subprocess.run(install, check=False, capture_output=True, text=True)
                if ran.returncode == 0:
                    break
            else:
                refuse = pytest.fail if os.environ.get(required_by) else pytest.skip
                refuse(f"{lock.stem} can't be installed: {ran.stderr[-500:]}")
            done.touch()
    return str(python)
