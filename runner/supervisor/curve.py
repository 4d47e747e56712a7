"""Points of an attempt: which numbers count, for which step, and from which source. No I/O, no clock.

Steps rise for each metric, and an attempt has a bounded number of metrics. What is refused is counted as a notice.
Points come from printed lines and from `runner.supervisor.sources`. The source that first gives a metric keeps it, so
that a program which prints, logs and records the same value gives one curve; only what a program reports explicitly
(`simulations.report`) replaces printed lines. Each source uses one thread at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple, Union

from runner.supervisor.notices import (
    HIGHER_RANK,
    NAME_UNUSABLE,
    NOT_RISING,
    OTHER_SOURCE,
    STEP_UNUSABLE,
    TOO_MANY_METRICS,
    Notices,
)

MAX_STEP = 2**53  # the largest integer that every JSON reader keeps exact
MAX_METRICS = 1_000
SYSTEM = "system/"  # prefix of measurements of the machine: they are no sign of progress, and have a limit of their own
MAX_METRIC_NAME = 256
# Bidirectional embeddings, overrides and isolates (UAX #9, 2).
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
PRINTED = "printed lines"
REPORTED = "simulations.report"

Value = Union[float, str]  # evaluated, by Python 3.9 too; not finite: NaN, Infinity or -Infinity


class Reading(NamedTuple):
    """Values that a line holds. `step` is None where it has none: the next whole number."""

    step: int | None
    values: list[tuple[str, float]]
    counts_alone: bool = False  # each metric has its own count instead of a step
    elapsed: float | None = None  # if it was read earlier
    forgives: bool = False  # one value that does not rise is usual here, as in LightGBM's last line


class Curve:
    """Takes readings; keeps the source and the last step of each metric, as steps must rise."""

    def __init__(self, notices: Notices, *, rank: int = 0) -> None:
        """rank: of the member; only rank 0's points are the curve."""
        self._notices = notices
        self._rank = rank
        self._next_step = 0
        self._last_steps: dict[str, int] = {}
        self._forgiven: set[str] = set()
        self._sources: dict[str, str] = {}
        self._counts = {True: 0, False: 0}  # metrics, of the system and others

    @property
    def is_empty(self) -> bool:
        return not self._counts[False] and not self._rank  # of a higher rank none are expected

    def take(self, reading: Reading, line: str, source: str = PRINTED) -> tuple[int, list[tuple[str, Value]]]:
        """Return the step and the points (metric and value; text if not finite). line: the example of a notice."""
        step = self._next_step if reading.step is None else reading.step
        points = [
            (metric, _value(value))
            for name, value in reading.values
            if self._rises(metric := straight(name), step, line, reading, source)
        ]
        if points:
            self._next_step = step + 1
        return step, points

    def each(self, reading: Reading, line: str) -> Iterable[tuple[int, list[tuple[str, Value]]]]:
        """Yield a reading's points by step: one step, unless each metric has its own count."""
        if not reading.counts_alone:
            yield self.take(reading, line)
            return
        for metric, value in reading.values:
            yield self.take(Reading(self._last_steps.get(straight(metric), -1) + 1, [(metric, value)]), line)

    def take_recorded(self, source: str, metric: str, step: int, value: float) -> Value | None:
        """Return a value of another source than printed lines as it travels; None if it is no point.

        metric: as `straight` has it.
        """
        example = f"{source}: {metric} = {value} at step {step}"
        if not 0 <= step <= MAX_STEP:
            self._notices.count(STEP_UNUSABLE, example)
            return None
        return _value(value) if self._rises(metric, step, example, source=source) else None

    def _rises(self, metric: str, step: int, line: str, reading: Reading | None = None, source: str = PRINTED) -> bool:
        if self._rank:
            self._notices.count(HIGHER_RANK, line, subject=metric)
            return False
        last = self._last_steps.get(metric)
        if last is not None:
            if self._sources[metric] != source:
                if {self._sources[metric], source} != {PRINTED, REPORTED}:
                    return self._refuse_other(metric, source, line)
                self._sources[metric] = REPORTED  # the printed value is the same one, and needs no notice
                if source == PRINTED or step <= last:
                    return False
            if step > last:
                self._last_steps[metric] = step
                return True
            if reading is not None and reading.forgives and metric not in self._forgiven:
                self._forgiven.add(metric)
            else:
                self._notices.count(NOT_RISING, line, subject=metric, advice=f"{metric}: {step} after {last}.")
            return False
        if not (0 < len(metric) <= MAX_METRIC_NAME and _is_storable(metric)):
            self._notices.count(NAME_UNUSABLE, line)
            return False
        is_system = metric.startswith(SYSTEM)
        if self._counts[is_system] >= MAX_METRICS:
            self._notices.count(TOO_MANY_METRICS, line, subject=metric)
            return False
        if self._sources.setdefault(metric, source) != source:  # atomic: sources have threads of their own
            return self._refuse_other(metric, source, line)
        self._last_steps[metric] = step
        self._counts[is_system] += 1
        return True

    def _refuse_other(self, metric: str, source: str, line: str) -> bool:
        advice = f"{metric} comes from {self._sources[metric]}, not from {source}."
        self._notices.count(OTHER_SOURCE, line, subject=metric, advice=advice)
        return False


def straight(name: str) -> str:
    """Return a name without characters that change the direction of text: it is found as it is shown."""
    return name if name.isascii() else TURNING.sub("", name)


def _value(number: float) -> Value:
    if math.isfinite(number):
        return number
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def _is_storable(name: str) -> bool:
    return "\0" not in name and (name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name))
