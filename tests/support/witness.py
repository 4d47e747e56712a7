"""A simulation that keeps a diary of what happens to it: `python witness.py DIRECTORY`.

It prints a point every ten milliseconds, from step 0 on, until `finish` lies in the directory (or, once it was told
to stop, `let-go`), then ten more. Before its first word it waits for `speak`. A grandchild that has left its process
group and its session sits beside it. It never ends: not on SIGTERM, and not when its output is not read any more.

    alone   it holds a lock on this file; a second one that lives at the same time can't
    diary   lines "ATTEMPT begun PID", "ATTEMPT second", "ATTEMPT told", "ATTEMPT printed COUNT"
    said    how many points it has printed so far: written after they are in the pipe
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

LAST_POINTS = 10
INTERVAL_SECONDS = 0.01


def main(directory: Path) -> int:
    attempt = int(os.environ["SIMULATION_ATTEMPT"])
    diary = os.open(directory / "diary", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    said = os.open(directory / "said", os.O_WRONLY | os.O_CREAT)
    alone = os.open(directory / "alone", os.O_RDWR | os.O_CREAT)
    told = False

    def note(line: str) -> None:
        os.write(diary, f"{attempt} {line}\n".encode())

    def stop(*_: object) -> None:
        nonlocal told
        told = True
        note("told")

    def say(step: int) -> None:
        with suppress(OSError):
            os.write(1, json.dumps({"step": step, "loss": loss(attempt, step)}).encode() + b"\n")
        os.pwrite(said, f"{step + 1:9d}".encode(), 0)

    def is_there(name: str) -> bool:
        return (directory / name).exists()

    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("second")
        return 99
    signal.signal(signal.SIGTERM, stop)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    os.pwrite(said, f"{0:9d}".encode(), 0)  # not what the attempt before said
    note(f"begun {os.getpid()}")
    while not is_there("speak"):
        time.sleep(INTERVAL_SECONDS)
    step = 0
    while not (is_there("finish") or (told and is_there("let-go"))):
        say(step)
        step += 1
        time.sleep(INTERVAL_SECONDS)
    for _ in range(LAST_POINTS):
        say(step)
        step += 1
    note(f"printed {step}")
    return 0


def loss(attempt: int, step: int) -> float:
    """What it prints at a step: no two attempts print the same."""
    return attempt + 1 / (step + 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
