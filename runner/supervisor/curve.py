"""Parser of points: which numbers of a printed line are points, and for which step. No I/O, no clock."""

from __future__ import annotations

import json
import math

MAX_STEP = 2**53  # the largest integer that every JSON reader keeps exact
MAX_METRICS = 1_000
MAX_METRIC_NAME = 256


class Curve:
    """Parses points from lines; keeps the last step of each metric, as steps must rise."""

    def __init__(self) -> None:
        self._next_step = 0
        self._last_steps: dict[str, int] = {}

    def read(self, line: bytes) -> tuple[int, list[tuple[str, float | str]], bool]:
        """Return the step, the points (metric and value; text if not finite), and whether every key was used.

        A line with an unusable key is logged, and its other points are kept.
        """
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError):  # bad UTF-8 is a ValueError, and so is an integer of 5,000 digits
            return 0, [], False
        if type(record) is not dict:
            return 0, [], False
        step = _step(record.pop("step")) if "step" in record else self._next_step
        if step is None or step > MAX_STEP:
            return 0, [], False
        points: list[tuple[str, float | str]] = []
        for metric, raw in record.items():
            value = _value(raw)
            if value is not None and self._rises(metric, step):
                self._last_steps[metric] = step
                points.append((metric, value))
        if points:
            self._next_step = step + 1
        return step, points, 0 < len(points) == len(record)

    def _rises(self, metric: str, step: int) -> bool:
        last = self._last_steps.get(metric)
        if last is not None:
            return step > last
        return len(self._last_steps) < MAX_METRICS and 0 < len(metric) <= MAX_METRIC_NAME and _is_storable(metric)


def _step(raw: object) -> int | None:
    if type(raw) is float and raw.is_integer():
        raw = int(raw)
    return raw if type(raw) is int and 0 <= raw <= MAX_STEP else None


def _value(raw: object) -> float | str | None:
    if type(raw) is int:
        try:
            raw = float(raw)
        except OverflowError:
            return None
    if type(raw) is not float:  # a bool is no number
        return None
    if math.isfinite(raw):
        return raw
    return "NaN" if raw != raw else "Infinity" if raw > 0 else "-Infinity"


def _is_storable(name: str) -> bool:
    return "\0" not in name and (name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name))
