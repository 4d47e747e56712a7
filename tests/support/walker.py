"""A simulation that walks so many steps and ends: `python walker.py DIRECTORY STEPS`.

It holds a lock of its simulation and rank while it lives; a second one of these says so in `DIRECTORY/second`.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path

PAUSE_SECONDS = 0.02


def value_at(attempt: int, step: int) -> float:
    """What it prints at a step: no two attempts print the same."""
    return attempt + 1 / (step + 1)


def main(directory: Path, steps: int) -> int:
    simulation, attempt = os.environ["SIMULATION_NAME"], int(os.environ["SIMULATION_ATTEMPT"])
    alone = os.open(directory / f"{simulation}.{os.environ['SIMULATION_RANK']}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with (directory / "second").open("a") as second:
            second.write(f"{simulation} attempt {attempt}\n")
        return 99
    for step in range(steps):
        print(json.dumps({"step": step, "loss": value_at(attempt, step)}))  # noqa: T201  # its curve
        time.sleep(PAUSE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
