"""The curve as stop rules see it: thinned to evaluations, with its best value and the trend since then.

An evaluation is a point of the objective, unless the points are dense: then it is the mean of a window. With a known
plan a window is 0.5 % of it; otherwise a window is one point. Each time 1,000 windows are full, neighbours are merged
and the width doubles. So a rule that counts evaluations means the same for a metric of every step and for one of every
epoch, and a curve of any length takes at most 40 KiB.

Incremental: a point costs a few operations. The medians that the rules compare are kept sorted from one evaluation to
the next (`Trend`). Only a merge, once in 500 windows, visits all of them.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from itertools import islice

MOST_WINDOWS = 1_000
WINDOWS_OF_PLAN = 200  # a window is 0.5 % of a known plan
_HUGE = 1e290  # larger values count as this one, so that no sum of them overflows
_SHORTEST_TREND = 4  # evaluations: two halves of two


class Trend:
    """Halves of the evaluations since the best one: a window that grows at its end, with sorted halves.

    values: the window, (length,), at least two. The middle one of an odd length is in neither half.
    """

    __slots__ = ("_diffs", "_first", "_last", "length")

    def __init__(self, values: array[float]) -> None:
        self.length = len(values)
        half = self.length // 2
        self._first = array("d", sorted(values[:half]))
        self._last = array("d", sorted(values[-half:]))
        self._diffs: array[float] | None = None

    @property
    def half(self) -> int:
        """The number of values in each half."""
        return len(self._first)

    @property
    def first(self) -> float:
        """Median of the first half."""
        return _median(self._first)

    @property
    def last(self) -> float:
        """Median of the last half."""
        return _median(self._last)

    @property
    def lowest(self) -> float:
        """Minimum of the last half."""
        return self._last[0]

    def noise(self, values: array[float], begin: int) -> float:
        """Return the standard deviation of the noise: the median absolute difference of neighbours / 0.954.

        (0.954 is the median of |x - y| for two standard normal variables.)
        """
        if self._diffs is None:
            window = values[begin : begin + self.length]
            self._diffs = array("d", sorted(abs(b - a) for a, b in zip(window, islice(window, 1, None), strict=False)))
        return _median(self._diffs) / 0.954

    def grow(self, values: array[float], begin: int) -> None:
        """Include the next value: the window is now `values[begin : begin + length + 1]`."""
        end = begin + self.length
        newest = values[end]
        half = len(self._first)
        if self.length % 2:
            insort(self._first, values[begin + half])
        else:
            del self._last[bisect_left(self._last, values[end - half])]
        insort(self._last, newest)
        if self._diffs is not None:
            insort(self._diffs, abs(newest - values[end - 1]))
        self.length += 1


class Evaluations:
    """Evaluations of one curve, oriented so that lower is better.

    sign: -1 for a metric to maximise. max_steps: the known plan; None: unknown.
    """

    __slots__ = (
        "_count", "_edge", "_points", "_previous", "_sum", "_trend", "_width",
        "best", "bests", "gap", "last", "max_steps", "min_delta", "n", "points", "sign", "smoothing", "steps", "values",
    )  # fmt: skip

    def __init__(
        self,
        *,
        sign: int = 1,
        max_steps: int | None = None,
        min_delta: float = 0.0,
        smoothing: float = 0.0,
        keep_bests: bool = False,
    ) -> None:
        self.sign = sign
        self.max_steps = max_steps
        self.min_delta = min_delta
        self.smoothing = smoothing
        self.steps = array("q")
        self.values = array("d")
        self.best = math.inf
        self.last = 0  # index of the first evaluation with the best value
        self.bests = array("d") if keep_bests else None  # the best value at each evaluation
        self.n = -1  # index of the newest evaluation
        self.gap = 0  # evaluations since the best one
        self.points = 0  # that were added
        # The open window: its sum and number of points, and the step before which it ends. It is as many steps wide
        # with a known plan; otherwise it is full with as many points.
        self._sum = 0.0
        self._count = 0
        self._previous = -math.inf  # the newest step
        self._width = max_steps / WINDOWS_OF_PLAN if max_steps is not None else 0.0
        self._edge = -math.inf if self._width else math.inf
        self._points = 0 if self._width else 1
        self._trend: Trend | None = None

    # --- points -> evaluations ---------------------------------------------------------------------------------

    def outgrown(self, step: int) -> bool:
        """Whether a window is open that ended before this step: it has to be closed before the point is added."""
        return self._count > 0 and step >= self._edge

    def add(self, step: int, value: float) -> bool:
        """Add a finite point; return whether it completed an evaluation.

        A window in steps is complete if the next point, at the distance of the last two, would be outside: a sparse
        curve is judged at each point, without waiting for the next.
        """
        self.points += 1
        if not -_HUGE < value < _HUGE:
            value = math.copysign(_HUGE, value)
        if self._points == 1:
            self._append(step, value)
            return True
        self._sum += value
        self._count += 1
        previous, self._previous = self._previous, step
        if self._width:
            if step >= self._edge:
                self._edge = (step // self._width + 1) * self._width
            if 2 * step - previous < self._edge:
                return False
        elif self._count < self._points:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Make an evaluation of the open window."""
        value = self._sum / self._count
        self._sum, self._count = 0.0, 0
        self._edge += self._width  # a further point before the old edge belongs to the next window
        self._append(int(self._previous), value)

    def _append(self, step: int, value: float) -> None:
        value *= self.sign
        if self.smoothing and self.values:
            value += self.smoothing * (self.values[-1] - value)
        self.steps.append(step)
        self.values.append(value)
        if len(self.values) == MOST_WINDOWS:
            self._merge()
        else:
            self._rank(value)

    def _rank(self, value: float) -> None:
        self.n += 1
        self.gap += 1
        if value < self.best - self.min_delta:
            self.best, self.last, self.gap = value, self.n, 0
            self._trend = None
        if self.bests is not None:
            self.bests.append(self.best)

    def _merge(self) -> None:
        self.values = array("d", ((a + b) / 2 for a, b in zip(self.values[::2], self.values[1::2], strict=True)))
        self.steps = self.steps[1::2]
        self._points *= 2
        self._width *= 2
        self.n, self.gap, self.best, self.last = -1, 0, math.inf, 0
        self._trend = None
        if self.bests is not None:
            self.bests = array("d")
        for value in self.values:
            self._rank(value)

    # --- what the rules ask ------------------------------------------------------------------------------------

    def within_plan(self) -> bool:
        """Whether the plan is known and the run is not past it."""
        return self.max_steps is not None and self.steps[-1] <= self.max_steps

    def planned(self) -> float | None:
        """Return the index of the evaluation at `max_steps`, at the rate so far; None: no plan, or the run is past."""
        steps, max_steps = self.steps, self.max_steps
        if max_steps is None or steps[-1] > max_steps:
            return None
        taken = steps[-1] - steps[0]
        return self.n + (max_steps - steps[-1]) * self.n / taken if taken > 0 else math.inf

    def trend(self) -> Trend:
        """Return the halves of the evaluations since the best one, at least the newest four."""
        gap = self.gap
        if gap <= _SHORTEST_TREND:
            return Trend(self.values[-_SHORTEST_TREND:])
        trend, begin = self._trend, self.last + 1
        if trend is None:
            self._trend = trend = Trend(self.values[begin:])
        while trend.length < gap:
            trend.grow(self.values, begin)
        return trend

    def noise(self, trend: Trend) -> float:
        """Return the noise of the evaluations in this trend."""
        return trend.noise(self.values, len(self.values) - trend.length)


def _median(ordered: array[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
