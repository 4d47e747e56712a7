"""Reports: JSON lines in the named pipe `SIMULATION_REPORT`, which the package `simulations` writes to.

Unlike standard output it is never redirected or captured, and each process of the simulation can open it. The main loop
reads it as it reads the output: while the spool is full nothing is read, and the program waits.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from runner.supervisor.complaints import complain
from runner.supervisor.curve import REPORTED, Curve, Reading
from runner.supervisor.lines import READ_BYTES, Lines
from runner.supervisor.notices import NEARLY_JSON, Notices
from runner.supervisor.readers import objects
from runner.supervisor.spool import Spool

REPORT_VARIABLE = "SIMULATION_REPORT"


class Reports:
    """The named pipe of one attempt. descriptor: to be watched, None if there is no pipe. Never raises."""

    def __init__(self, path: Path, curve: Curve, spool: Spool, notices: Notices) -> None:
        self.descriptor: int | None = None
        self.variables: dict[str, str] = {}
        self._path = path
        self._curve = curve
        self._spool = spool
        self._notices = notices
        self._lines = Lines()
        try:
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
            # For writing too: without a writer the pipe would be at its end, and always readable.
            self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            complain(f"reports: no named pipe: {error}")
        else:
            self.variables = {REPORT_VARIABLE: str(path)}

    def read(self, elapsed: float) -> bool:
        """Read what is there, up to a chunk; False if nothing is left. elapsed: seconds since the child's start."""
        if self.descriptor is None:
            return False
        try:
            chunk = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        for line in self._lines.feed(chunk).splitlines():
            self._take(line, elapsed)
        self._spool.write_out()
        return True

    def close(self, elapsed: float) -> None:
        """Read the rest, which is bounded once no process that could write is left, and remove the pipe."""
        if self.descriptor is None:
            return
        while self.read(elapsed):
            pass
        os.close(self.descriptor)
        self.descriptor = None
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _take(self, line: bytes, elapsed: float) -> None:
        text = line.decode("utf-8", "replace")
        records, is_all = objects.parse(text.strip())
        if not is_all:
            self._notices.count(NEARLY_JSON, text)
        for record in records:
            found = objects.numbers_of(record)
            if found.problem is not None:
                self._notices.count(found.problem, text)
                continue
            step, points = self._curve.take(Reading(found.step, found.values), text, REPORTED)
            if points:
                self._spool.add_points(step, elapsed, points)
