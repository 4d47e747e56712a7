"""Counts of work instead of seconds: the same on a slow machine, a busy one, and late in a long test run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Work:
    """The calls of functions, Python's and C's, that this thread has made."""

    calls: int = 0

    def note(self, _frame: FrameType, what: str, _argument: object) -> None:
        self.calls += what in ("call", "c_call")


@contextmanager
def counting() -> Iterator[Work]:
    """Count the calls of the block and of all that runs in this thread's event loop meanwhile."""
    work, before = Work(), sys.getprofile()
    sys.setprofile(work.note)
    try:
        yield work
    finally:
        sys.setprofile(before)
