"""`ray start` for tests, by Ray's own interpreter: a node that comes up on a busy machine, however long it takes.

Ray gives a node up whose daemon has not joined after 30 s, which no setting changes, and a try that was given up has
cost as much CPU as one that succeeds. And it starts a Python worker for each CPU, three seconds of CPU each, that no
job uses: jobs have workers of their own.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

from ray._private import services  # type: ignore[import-not-found]  # in an environment of its own
from ray.scripts.scripts import main  # type: ignore[import-not-found]

PATIENCE_SECONDS = 240.0
PAUSE_SECONDS = 0.05
PRESTARTED = "--num_prestart_python_workers="

_get_node = services.get_node
_start_process = services.start_ray_process


def get_node_in_time(*arguments: Any) -> Any:
    """Find a node that may not have joined yet; not if one of its processes, all of which are to stay, has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        with suppress(RuntimeError):
            return _get_node(*arguments)
        time.sleep(PAUSE_SECONDS)
    return _get_node(*arguments)


def start_without_workers(command: list[str], *arguments: Any, **more: Any) -> Any:
    """Start a process of a node; its daemon starts no worker by itself."""
    command = [f"{PRESTARTED}0" if each.startswith(PRESTARTED) else each for each in command]
    return _start_process(command, *arguments, **more)


services.get_node = get_node_in_time
services.start_ray_process = start_without_workers
sys.exit(main())
