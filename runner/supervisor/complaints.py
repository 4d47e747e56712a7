"""Log of the supervisor, `supervisor.log`: its standard error, one line per failure. Most supervisors have none."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from pathlib import Path


class LateLog(io.TextIOBase):
    """Standard output and error of a forked supervisor: a file that is created with the first line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_open = False

    def write(self, text: str) -> int:
        """Write text. Raises OSError, as on a full disk; the launcher's log takes it where no file can be made."""
        if not self._is_open:
            self._is_open = True
            with contextlib.suppress(OSError):
                log = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.close(log)
        os.write(2, text.encode(errors="replace"))
        return len(text)


def complain(sentence: str) -> None:
    """Write a line to `supervisor.log`."""
    with contextlib.suppress(OSError, ValueError):  # a full disk must not end a simulation
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {sentence}\n")
        sys.stderr.flush()
