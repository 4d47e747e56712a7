"""The user's patterns: regular expressions whose named groups are metrics, and `step` the step.

A pattern is searched in the first 2 KiB of a line, and may use 50 ms of CPU time for it: the `re` module looks for
signals every few thousand steps of a match, so a timer interrupts one that backtracks without end. Then the pattern is
switched off, with a notice.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from runner.supervisor.curve import MAX_STEP, Reading
from runner.supervisor.notices import PATTERN_SLOW, PATTERN_UNMATCHED, PATTERN_UNUSABLE, Notices

MAX_LINE = 2 << 10  # characters
BUDGET_SECONDS = 0.05  # of CPU time, of this process
STEP = "step"


class _TooSlow(Exception):
    """The timer ran out."""


class _Pattern:
    def __init__(self, written: str) -> None:
        self.written = written
        self.search = re.compile(written).search
        self.has_matched = False


class Patterns:
    """The patterns of a simulation, for all of its streams. For the main thread: it uses a signal."""

    def __init__(self, written: Sequence[str], notices: Notices) -> None:
        self._notices = notices
        self._patterns: list[_Pattern] = []
        self._step: int | None = None  # from a pattern that has nothing but a step
        self._armed = False
        for each in written:
            try:
                self._patterns.append(_Pattern(each))
            except (re.error, RecursionError, OverflowError) as error:
                notices.count(PATTERN_UNUSABLE, each, subject=each, advice=f"{error}.")
        if self._patterns:
            signal.signal(signal.SIGVTALRM, self._expire)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def read(self, text: str) -> Reading | None:
        """Search all patterns in a line; their groups make one reading."""
        text = text[:MAX_LINE]
        values: dict[str, float] = {}
        step: int | None = None
        for pattern in tuple(self._patterns):
            groups = self._groups(pattern, text)
            for name, written in groups.items():
                value = _number(written)
                if value is None:
                    continue
                pattern.has_matched = True
                if name != STEP:
                    values[name] = value
                elif value.is_integer() and 0 <= value <= MAX_STEP:
                    step = int(value)
        if values:
            return Reading(self._step if step is None else step, list(values.items()))
        if step is not None:
            self._step = step
        return None

    def note_unmatched(self) -> None:
        """Count the patterns that matched nothing, at the end."""
        for pattern in self._patterns:
            if not pattern.has_matched:
                self._notices.count(PATTERN_UNMATCHED, pattern.written, subject=pattern.written)

    def _groups(self, pattern: _Pattern, text: str) -> dict[str, str]:
        try:
            try:
                self._armed = True
                signal.setitimer(signal.ITIMER_VIRTUAL, BUDGET_SECONDS)
                found = pattern.search(text)
            finally:
                self._armed = False
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except (_TooSlow, RecursionError, MemoryError):
            self._patterns.remove(pattern)
            self._notices.count(PATTERN_SLOW, text, subject=pattern.written)
            return {}
        return {name: value for name, value in found.groupdict().items() if value is not None} if found else {}

    def _expire(self, *_: object) -> None:
        if self._armed:
            raise _TooSlow


def _number(written: str) -> float | None:
    try:
        return float(written.strip().rstrip(",;%")) if len(written) <= 64 and "_" not in written else None
    except ValueError:
        return None
