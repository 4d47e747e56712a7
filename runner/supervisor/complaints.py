"""The supervisor's own log, `supervisor.log`: its standard error, a line for each thing that went wrong."""

from __future__ import annotations

import contextlib
import sys
import time


def complain(sentence: str) -> None:
    """Say something to whoever reads `supervisor.log`."""
    with contextlib.suppress(OSError, ValueError):  # a full disk must not end a simulation
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {sentence}\n")
        sys.stderr.flush()
