"""Time of the newest checkpoint: that of the newest file in SIMULATION_CHECKPOINT_DIR, reported when it changes.

Programs write checkpoints under any name, so each file counts, whichever attempt wrote it. The directory is read every
few seconds, and once more after the child's end: a child that is stopped writes its last checkpoint in its grace. Of
more than `MOST_FILES` files some are not seen.

Failures: what can't be read is left out; nothing is raised.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

LOOK_SECONDS = 5.0
MOST_FILES = 1_000


class Checkpoints:
    """The checkpoints of one member. `note` receives a new time of the newest one, in seconds since 1970."""

    def __init__(self, directory: Path, note: Callable[[float], None]) -> None:
        self._directory = directory
        self._note = note
        self._newest = 0.0
        self._look_at = time.monotonic() + LOOK_SECONDS

    def tick(self) -> None:
        """Look for a new one, if it is time."""
        if time.monotonic() >= self._look_at:
            self.look()
            self._look_at = time.monotonic() + LOOK_SECONDS

    def look(self) -> None:
        """Look for a new one. A time in the future counts as now."""
        newest = min(max(_times(self._directory), default=0.0), time.time())
        if newest > self._newest:
            self._newest = newest
            self._note(newest)


def _times(directory: Path) -> Iterator[float]:
    """Yield when the files below a directory were last changed."""
    waiting, left = [str(directory)], MOST_FILES
    while waiting and left > 0:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            yield entry.stat(follow_symlinks=False).st_mtime
                    except OSError:  # it was removed or renamed meanwhile
                        continue
        except OSError:
            continue
