"""Received points of one simulation: columns per metric, without points that a later attempt superseded.

Stored as packed arrays, 16 bytes a point, so that a run of a whole night fits into memory. Not responsible for drawing.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite

from cli.answers import ConvergenceEvent, Series
from cli.terminal import say_number

MOST_SUMMARISED = 4  # metrics in the summary line


@dataclass(slots=True)
class Metric:
    """One curve. `steps` increase; a value that was not finite is NaN: a gap."""

    name: str
    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, series: Series) -> None:
        """Append new points, after dropping the superseded ones."""
        if series.supersedes_from is not None:
            kept = bisect_left(self.steps, series.supersedes_from)
            del self.steps[kept:]
            del self.values[kept:]
        self.steps.extend(series.steps)
        self.values.extend(math.nan if value is None else value for value in series.values)

    def last_finite(self) -> tuple[int, float] | None:
        """Find the newest point with a finite value."""
        backwards = zip(reversed(self.steps), reversed(self.values), strict=True)
        return next(((step, value) for step, value in backwards if isfinite(value)), None)

    def buckets(self, count: int) -> tuple[list[int], list[float]]:
        """Downsample to at most about 2 x `count` points, keeping peaks, valleys and gaps.

        Each bucket keeps its lowest and highest value, in their order.
        """
        size = max(1, math.ceil(len(self.steps) / count))
        if size <= 2:
            return list(self.steps), list(self.values)
        steps: list[int] = []
        values: list[float] = []
        for start in range(0, len(self.steps), size):
            part = self.steps[start : start + size]
            finite = [
                point for point in zip(self.values[start : start + size], part, strict=True) if isfinite(point[0])
            ]
            ends = {min(finite), max(finite)} if finite else {(math.nan, part[0])}
            for value, step in sorted(ends, key=lambda point: point[1]):
                steps.append(step)
                values.append(value)
        return steps, values


@dataclass(slots=True)
class Curve:
    """All events of the subscription so far."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    state: str = "QUEUED"
    reason: str | None = None
    attempt: int = 0

    def add(self, event: ConvergenceEvent) -> None:
        """Add an event."""
        self.state, self.reason, self.attempt = event.state, event.reason, event.attempt
        for series in event.series:
            self.metrics.setdefault(series.metric, Metric(series.metric)).add(series)

    def leading(self, objective: str | None) -> list[Metric]:
        """Return the metrics in the order of their first points, the objective before the others."""
        return sorted(self.metrics.values(), key=lambda metric: metric.name != objective)

    def summary(self, objective: str | None = None) -> str:
        """Return the last values: "loss 0.021, accuracy 0.99 at step 199"; empty without any point."""
        ends: dict[int, list[str]] = {}
        for metric in islice(self.leading(objective), MOST_SUMMARISED):
            last = metric.last_finite()
            if last is not None:
                ends.setdefault(last[0], []).append(f"{metric.name} {say_number(last[1])}")
        return ", ".join(f"{', '.join(values)} at step {step}" for step, values in ends.items())
