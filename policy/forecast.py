"""Forecast of a metric: its best value at a known step, and what can be said about a target.

An ensemble of 16 falling curves is fitted to the values so far, after Domhan et al., "Speeding up automatic
hyperparameter optimization of deep neural networks by extrapolation of learning curves", IJCAI 2015, but each with two
parameters in closed form. Only its improvement from now on is believed, and taken off the best value so far. The
interval comes from the errors that the same forecast made on runs that have ended (split-conformal calibration): of
recorded curves by default, called rough, of the project's own runs as soon as there are eight. The ensemble's own
intervals hold far less than they promise and are not used.

For the step at which a target is reached, no two-sided interval holds: `reach` says only what does. Figures:
`benchmarks/forecast.py`, docs/performance.md. Where there is too little to say, functions return None.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.metric_mode import MAX, MIN, bound
from policy.outlook import LEAST_HISTORY

Array = NDArray[np.float64]

LEAST_EVALUATIONS = 5
LEAST_SHARE = 0.1  # of the run: before, errors are larger than anything worth drawing
_WINDOWS = 64
_POWERS = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5])
_RATES = np.array([0.5, 1, 2, 4, 8, 16])
_STEPS_OF_BAND = 32
_STEPS_AHEAD = 64  # at which `reach` looks for a target
# A target is often just ahead of what the run reaches: where the interval's lower end alone ruled it out, that held in
# as few as 75 % of cases; at twice the distance in 94 % or more.
_MARGIN = 2.0

# 10 % and 90 % quantiles of the scaled error at a share of the run, from recorded curves.
_ROUGH = np.array([[0.25, -3.0, 0.98], [0.50, -0.98, 0.51], [0.75, -0.32, 0.28]])


@dataclass(frozen=True, slots=True)
class Forecast:
    """Best value at a step: `value`, and the interval that holds it in 80 of 100 cases."""

    step: int
    value: float
    low: float
    high: float
    rough: bool  # calibrated on recorded curves of other projects, not on enough runs of this one
    history: int  # ended runs that it is calibrated on


@dataclass(frozen=True, slots=True)
class Band:
    """Forecasts of the best value at steps from now until an end, as columns. Between now and the end: for drawing."""

    steps: tuple[int, ...]  # (n,), rising; the first is the newest step, where the value is known
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be said about the step at which a target is reached."""

    reached_at: int | None  # the first step with the target
    not_before: int | None  # in 90 of 100 cases it is not reached before this step
    half_until: int | None  # half of the similar runs that had not reached it by now, needed until this step
    similar: int  # runs that `half_until` is about
    likely_not: bool  # in 90 of 100 cases not within the plan
    rough: bool


@dataclass(frozen=True, slots=True)
class Factors:
    """Calibration of the interval at one share of the run: quantiles of the scaled error."""

    low: float
    high: float
    history: int  # 0: rough


def forecast(
    steps: Sequence[int],
    values: Sequence[float],
    mode: str,
    at: int,
    *,
    metric: str = "",
    scores: Sequence[float] = (),
    bests: Sequence[float] = (),
) -> Forecast | None:
    """Forecast the best value at a later step; None where there is too little to say.

    steps, values: (n,), in order; values may be NaN or infinite. metric: its name; neither forecast nor interval passes
    `metric_mode.bound`. scores: of ended runs of the same kind, each from `score` at about the same share of the run;
    fewer than eight are not used. bests: (n,), where each of the values is a mean, the best of what it is the mean of:
    then the forecast is of the best of these.
    """
    curve = _Curve.of(steps, values, mode, bests)
    if curve is None or not curve.can_forecast(at):
        return None
    own = calibrated(scores)
    value, low, high = (float(column[0]) for column in _interval(curve, metric, np.array([at]), own))
    return Forecast(at, value, low, high, own is None, own.history if own is not None else 0)


def band(
    steps: Sequence[int],
    values: Sequence[float],
    mode: str,
    at: int,
    *,
    metric: str = "",
    scores: Sequence[float] = (),
    bests: Sequence[float] = (),
) -> Band | None:
    """Return the forecasts until `at`, at most 32, the last one as `forecast` gives it; None where it is None."""
    curve = _Curve.of(steps, values, mode, bests)
    if curve is None or not curve.can_forecast(at):
        return None
    ahead = np.unique(np.linspace(curve.step, at, _STEPS_OF_BAND + 1).round().astype(np.int64))[1:]
    best = curve.sign * curve.best
    columns = [(best, *map(float, column)) for column in _interval(curve, metric, ahead, calibrated(scores))]
    return Band((curve.step, *map(int, ahead)), *columns)


def _interval(curve: _Curve, metric: str, at: NDArray[np.int64], own: Factors | None) -> tuple[Array, Array, Array]:
    """Return value, low and high at each step, in the metric's own direction."""
    value = curve.best - curve.improvement(at)
    factors = [own or rough_factors(curve.share(int(step))) for step in at]
    low = value + np.array([each.low for each in factors]) * curve.scale
    high = np.maximum(np.minimum(value + np.array([each.high for each in factors]) * curve.scale, curve.best), low)
    most = bound(metric, MIN if curve.sign > 0 else MAX, curve.sign * curve.best)
    if most is not None:
        value, low, high = (np.maximum(each, curve.sign * most) for each in (value, low, high))
    return (value, low, high) if curve.sign > 0 else (-value, -high, -low)


def score(
    steps: Sequence[int], values: Sequence[float], mode: str, share: float, bests: Sequence[float] = ()
) -> float | None:
    """Return the scaled error that a forecast at this share of an ended run would have made; None: it made none.

    The error of the forecast for the run's last step, in units of the scale of its interval.
    """
    if not 0 < share < 1 or len(steps) < 2:
        return None
    end = steps[-1]
    now = steps[0] + share * (end - steps[0])
    seen = sum(step <= now for step in steps)
    curve, whole = _Curve.of(steps[:seen], values[:seen], mode, bests[:seen]), _Curve.of(steps, values, mode, bests)
    if curve is None or whole is None or not curve.can_forecast(end):
        return None
    return (whole.best - curve.best + float(curve.improvement(np.array([end]))[0])) / curve.scale


def calibrated(scores: Sequence[float]) -> Factors | None:
    """Return the factors of an 80 % interval from the scores of ended runs; None: there are fewer than eight.

    The order statistics at ranks 0.1 (n + 1) and 0.9 (n + 1), interpolated, are exceeded by a tenth each of new scores
    from the same distribution. The distribution needs no particular form.
    """
    if len(scores) < LEAST_HISTORY:
        return None
    ordered = sorted(scores)
    ranks = np.arange(1, len(ordered) + 1)
    low, high = np.interp([0.1 * (len(ordered) + 1), 0.9 * (len(ordered) + 1)], ranks, ordered)
    return Factors(float(low), float(high), len(ordered))


def rough_factors(share: float) -> Factors:
    """Return the factors from recorded curves at a share of the run: interpolated; below 25 % extrapolated."""
    shares, lows, highs = _ROUGH.T
    low, high = (float(np.interp(share, shares, each)) for each in (lows, highs))
    if share < shares[0]:
        ahead = (shares[0] - share) / (shares[1] - shares[0])
        low += ahead * (lows[0] - lows[1])
        high += ahead * (highs[0] - highs[1])
    return Factors(float(low), float(high), 0)


def first_reached(steps: Sequence[int], values: Sequence[float], mode: str, target: float) -> int | None:
    """Return the first step at which the target is reached."""
    sign = -1 if mode == MAX else 1
    return next((step for step, value in zip(steps, values, strict=True) if sign * value <= sign * target), None)


def reach(
    steps: Sequence[int],
    values: Sequence[float],
    mode: str,
    target: float,
    *,
    max_steps: int | None,
    similar: Sequence[int | None] = (),
    scores: Sequence[float] = (),
    bests: Sequence[float] = (),
) -> Reach | None:
    """Say what holds about the step at which a target is reached; None where there is too little to say.

    similar: of each ended run of the same kind the first step with the target, None: it never reached it. A bound
    "not before" needs a plan: it is the last step at which twice the interval of the value does not hold the target.
    """
    at = first_reached(steps, values, mode, target)
    if at is not None:
        return Reach(at, None, None, 0, likely_not=False, rough=False)
    curve = _Curve.of(steps, values, mode, bests)
    if curve is None:
        return None
    half_until, count = _half_until(similar, steps[-1])
    not_before = _not_before(curve, curve.sign * target, max_steps, scores) if max_steps is not None else None
    if not_before is None and half_until is None:
        return None
    likely_not = not_before is not None and max_steps is not None and not_before >= max_steps
    rough = not_before is not None and len(scores) < LEAST_HISTORY
    return Reach(None, not_before, half_until, count, likely_not, rough)


def _not_before(curve: _Curve, target: float, max_steps: int, scores: Sequence[float]) -> int | None:
    """Return the last step of the plan at which the lower end of twice the interval has not reached the target."""
    if not curve.can_forecast(max_steps):
        return None
    ahead = np.unique(np.linspace(curve.step + 1, max_steps, _STEPS_AHEAD).astype(np.int64))
    own = calibrated(scores)
    lows = np.array([(own or rough_factors(curve.share(int(step)))).low for step in ahead])
    lowest = curve.best - curve.improvement(ahead) + _MARGIN * np.minimum(lows, 0) * curve.scale
    missed = np.flatnonzero(np.minimum.accumulate(lowest) > target)
    return int(ahead[missed[-1]]) if len(missed) else None


def _half_until(similar: Sequence[int | None], now: int) -> tuple[int | None, int]:
    """Median step of the similar runs that had not reached the target by now; None: too few, or half never did."""
    later = [math.inf if step is None else step for step in similar if step is None or step > now]
    if len(later) < LEAST_HISTORY:
        return None, len(later)
    middle = statistics.median_high(later)
    return (int(middle) if math.isfinite(middle) else None), len(later)


# --- the ensemble ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Curve:
    """The finite values so far, oriented so that lower is better, on an axis that counts evaluations from 1."""

    sign: int
    first: int  # step
    step: int  # the newest
    n: int  # evaluations
    x: Array  # (m,), m <= 64: of windows, from 1 to n
    y: Array  # (m,), clipped
    best: float
    scale: float  # unit of errors: recent improvement and noise

    @classmethod
    def of(cls, steps: Sequence[int], values: Sequence[float], mode: str, bests: Sequence[float] = ()) -> _Curve | None:
        sign = -1 if mode == MAX else 1
        y = sign * np.asarray(values, dtype=np.float64)
        at = np.asarray(steps, dtype=np.float64)
        reached = sign * np.asarray(bests or values, dtype=np.float64)
        finite = np.isfinite(y)
        if not finite.all():
            y, at, reached = y[finite], at[finite], reached[finite]
        n = len(y)
        if n < LEAST_EVALUATIONS or at[-1] <= at[0]:
            return None
        best = float(reached.min())
        gained = float(y[: n // 2].min() - y.min())
        noise = float(np.median(np.abs(np.diff(y)))) / 0.954
        x = 1 + (at - at[0]) * ((n - 1) / (at[-1] - at[0]))
        if n > _WINDOWS:
            bounds = np.linspace(0, n, _WINDOWS + 1).astype(np.int64)
            counts = np.diff(bounds)
            x, y = np.add.reduceat(x, bounds[:-1]) / counts, np.add.reduceat(y, bounds[:-1]) / counts
        low, middle, high = np.quantile(y, [0.25, 0.5, 0.75])
        y = np.clip(y, middle - 5 * (high - low), middle + 20 * (high - low))
        scale = gained + noise + 0.001 * abs(best)
        return cls(sign, int(at[0]), int(at[-1]), n, x, y, best, scale if scale > 0 else 1e-12)

    def share(self, at: int) -> float:
        """Share of the run until `at` that has been seen."""
        return (self.step - self.first) / (at - self.first)

    def can_forecast(self, at: int) -> bool:
        return at > self.step and self.share(at) >= LEAST_SHARE

    def improvement(self, at: NDArray[np.int64]) -> Array:
        """Return the ensemble's improvement from now until each step: (len(at),), not negative."""
        ahead = 1 + (at - self.first) * ((self.n - 1) / (self.step - self.first))
        shapes = _shapes(np.concatenate((self.x, [float(self.n)], ahead)), self.n)
        m = len(self.x)
        weights = self.x / self.x.sum()
        seen = shapes[:, :m] - (shapes[:, :m] @ weights)[:, None]
        y = self.y - self.y @ weights
        covariance, variance = seen @ (weights * y), (seen * seen) @ weights
        slopes = np.maximum(covariance, 0) / np.maximum(variance, 1e-300)
        total = float((weights * y) @ y)
        if total <= 0:
            return np.zeros(len(at))
        rss = np.maximum(total - slopes * covariance, 1e-12 * total)
        effective = 1 / float(weights @ weights)
        models = np.exp(-effective / 2 * np.log(rss / rss.min()))
        models /= models.sum()
        falls: Array = (models * slopes) @ (shapes[:, m : m + 1] - shapes[:, m + 1 :])
        return np.maximum(falls, 0)


def _shapes(x: Array, n: int) -> Array:
    """The 16 falling curves at x: (16, len(x))."""
    logarithm = np.log(x)
    powers = np.exp(-_POWERS[:, None] * logarithm)
    decays = np.exp(-_RATES[:, None] * (x / n))
    return np.concatenate((powers, decays, -logarithm[None, :]))
