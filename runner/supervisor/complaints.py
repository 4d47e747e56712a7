"""Log of the supervisor, `supervisor.log`: its standard error, one line per failure."""

from __future__ import annotations

import contextlib
import sys
import time


def complain(sentence: str) -> None:
    """Write a line to `supervisor.log`."""
    with contextlib.suppress(OSError, ValueError):  # a full disk must not end a simulation
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {sentence}\n")
        sys.stderr.flush()
