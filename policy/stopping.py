"""Stop rules of a single run: a verdict from the curve of its objective.

The verdict at a point is a function of the curve up to that point, and of nothing else: a scheduler that restarts
between a point and its verdict reaches the same one from the stored curve. `Monitor` reads the points as they come,
`judge` a whole curve at once; both are the same code. Formulas and parameters were measured on recorded curves
(`benchmarks/stopping.py`, docs/performance.md).

An evaluation is a point of the objective, or the mean of several where a run logs more than rules need
(`policy.evaluations`). All rules but NON_FINITE see evaluations. A curve whose step or value makes no sense to a rule
gives no verdict; nothing here fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from policy import phrasing
from policy.evaluations import Evaluations
from policy.metric_mode import MAX, MIN

STOPPING_THRESHOLD = "STOPPING_THRESHOLD"
PATIENCE_EXHAUSTED = "PATIENCE_EXHAUSTED"
DIVERGENCE_THRESHOLD = "DIVERGENCE_THRESHOLD"
NON_FINITE_METRIC = "NON_FINITE_METRIC"

LONGEST_METRIC = 200  # characters, as for the names of metrics in a batch
_EVIDENCE = 20  # the newest evaluations kept with a verdict: what a page draws, not the whole curve


class Rule(StrEnum):
    """The rule that decided: finer than the reason, so that users see which one to switch off."""

    NON_FINITE = "NON_FINITE"
    STOPPING_THRESHOLD = "STOPPING_THRESHOLD"
    DIVERGENCE_THRESHOLD = "DIVERGENCE_THRESHOLD"
    PATIENCE = "PATIENCE"
    PLATEAU = "PLATEAU"
    RISING = "RISING"
    SLOW = "SLOW"


REASONS: dict[Rule, str] = {
    Rule.NON_FINITE: NON_FINITE_METRIC,
    Rule.STOPPING_THRESHOLD: STOPPING_THRESHOLD,
    Rule.DIVERGENCE_THRESHOLD: DIVERGENCE_THRESHOLD,
    Rule.PATIENCE: PATIENCE_EXHAUSTED,
    Rule.PLATEAU: PATIENCE_EXHAUSTED,
    Rule.RISING: PATIENCE_EXHAUSTED,
    Rule.SLOW: PATIENCE_EXHAUSTED,
}


@dataclass(frozen=True, slots=True)
class StopRules:
    """When to stop a run, in the words of Keras, Lightning and Ray. Metric and mode alone give the default.

    `patience` replaces PLATEAU and RISING. A run with `stopping_threshold` is judged as if `max_steps` were unknown:
    a rule that knows the plan gives up too many runs that would reach their target late.
    """

    metric: str
    mode: str = MIN  # MIN or MAX: see policy.metric_mode
    min_delta: float = 0.0  # a smaller improvement on the best value is none
    patience: int | None = None  # evaluations without improvement
    grace_period: int = 0  # no stop before this step
    stopping_threshold: float | None = None  # reached: stop
    divergence_threshold: float | None = None  # worse than this: stop
    check_finite: bool = True
    smoothing: float = 0.0  # weight of the past in an exponential moving average, 0 to below 1
    plateau: bool = True
    rising: bool = True
    aggressive: bool = False  # SLOW: also stop what still improves, but by less than 1 % until the end
    max_steps: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Stop: which rule decided, at which point, on which evidence."""

    reason: str  # a value of `db.states.Reason`
    rule: Rule
    metric: str
    step: int  # of the point that decided
    value: float  # as the rule saw it: an evaluation; not finite for NON_FINITE
    best_step: int | None  # None: no finite value before
    best_value: float | None
    threshold: float | None  # of a threshold rule
    evaluations: int  # since the best one
    share: float  # of the run so far since the best evaluation, 0 to 1
    mean_of: int  # points that an evaluation is the mean of, on average
    steps: tuple[int, ...]  # the newest evaluations
    values: tuple[float, ...]

    def evidence(self) -> dict[str, object]:
        """Return what an event keeps, as JSON values: null for a value that is not finite."""
        return {
            "rule": self.rule.value,
            "metric": self.metric,
            "step": self.step,
            "value": _finite(self.value),
            "bestStep": self.best_step,
            "bestValue": self.best_value,
            "threshold": self.threshold,
            "evaluations": self.evaluations,
            "share": round(self.share, 4),
            "steps": list(self.steps),
            "values": list(self.values),
        }

    def sentence(self) -> str:
        """Explain the verdict to a user."""
        return phrasing.cut(_SENTENCES[self.rule](self), phrasing.LONGEST_SENTENCE)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- what users may ask for ------------------------------------------------------------------------------------


def validate(rules: StopRules) -> list[str]:
    """Return what is wrong with the rules, a sentence each; empty if nothing is."""
    return [sentence for is_wrong, sentence in _problems(rules) if is_wrong]


def _problems(rules: StopRules) -> list[tuple[bool, str]]:
    up = rules.mode == MAX
    reach, diverge = rules.stopping_threshold, rules.divergence_threshold
    finite = {
        "minDelta": rules.min_delta,
        "stoppingThreshold": reach,
        "divergenceThreshold": diverge,
        "smoothing": rules.smoothing,
    }
    broken = [name for name, value in finite.items() if value is not None and not math.isfinite(value)]
    return [
        (not rules.metric.strip(), "metric must not be empty."),
        (len(rules.metric) > LONGEST_METRIC, f"metric must have at most {LONGEST_METRIC} characters."),
        (any(not each.isprintable() for each in rules.metric), "metric must have printable characters only."),
        (rules.mode not in (MIN, MAX), f"mode must be {MIN} or {MAX}."),
        *((True, f"{name} must be a finite number.") for name in broken),
        (rules.min_delta < 0, "minDelta must not be negative."),
        (rules.patience is not None and rules.patience < 0, "patience must not be negative."),
        (rules.grace_period < 0, "gracePeriod must not be negative."),
        (rules.smoothing < 0 or rules.smoothing >= 1, "smoothing must be at least 0 and below 1."),
        (rules.max_steps is not None and rules.max_steps < 1, "maxSteps must be at least 1."),
        (
            reach is not None and diverge is not None and (reach <= diverge if up else reach >= diverge),
            f"stoppingThreshold must be {'above' if up else 'below'} divergenceThreshold for mode {rules.mode}.",
        ),
        (
            rules.aggressive and (rules.max_steps is None or reach is not None),
            "aggressive needs maxSteps, and no stoppingThreshold: it has no effect otherwise.",
        ),
        (not any(asked(rules) for _, asked, _ in PRIORITY), "No stop rule is on."),
    ]


# --- the rules -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Parameters of PLATEAU and RISING, tuned on recorded curves: see docs/performance.md."""

    k: int  # a plateau takes at least this many evaluations,
    f: float  # this share of the run so far,
    k0: int  # and this many if nothing improved on the first value
    early: float  # and does not begin in this first share of the plan
    ahead: float  # the trend since the best is extrapolated by at most this many half windows


_KNOWN = _Parameters(k=8, f=0.1, k0=40, early=0.6, ahead=4)
_UNKNOWN = _Parameters(k=15, f=0.1, k0=50, early=0, ahead=4)
_RISING_K, _RISING_F, _RISING_Z = 10, 0.2, 1.0  # evaluations, share of the run so far, standard deviations of the noise
_SLOW_N, _SLOW_W, _SLOW_F, _SLOW_LEAST = 10, 3, 0.3, 0.01


def _non_finite(rules: StopRules, curve: Evaluations, value: float) -> bool:
    return not math.isfinite(value)


def _reached(rules: StopRules, curve: Evaluations, value: float) -> bool:
    threshold = rules.stopping_threshold
    return threshold is not None and (value - threshold) * curve.sign <= 0


def _diverged(rules: StopRules, curve: Evaluations, value: float) -> bool:
    threshold = rules.divergence_threshold
    return threshold is not None and (value - threshold) * curve.sign > 0


def _impatient(rules: StopRules, curve: Evaluations, value: float) -> bool:
    return rules.patience is not None and curve.gap >= max(rules.patience, 1)


def _plateau(rules: StopRules, curve: Evaluations, value: float) -> bool:
    """No improvement for a while, and the trend since the best one would not reach it again."""
    gap, n = curve.gap, curve.n
    if gap < _KNOWN.k or gap < _KNOWN.f * n or (curve.last == 0 and gap < _KNOWN.k0):
        return False  # not with either set of parameters
    planned = curve.planned()
    chosen = _UNKNOWN if planned is None else _KNOWN
    if planned is not None and n < chosen.early * planned:
        return False
    if gap < chosen.k or gap < chosen.f * n or (curve.last == 0 and gap < chosen.k0):
        return False
    return not _recovering(curve, planned)


def _rising(rules: StopRules, curve: Evaluations, value: float) -> bool:
    """All of the last half is worse than the best by more than the noise, and worse than the half before."""
    gap, n = curve.gap, curve.n
    if gap < _RISING_K or curve.last == 0 or gap < _RISING_F * n or not curve.within_plan():
        return False
    trend = curve.trend()
    if trend.last <= trend.first:
        return False
    return trend.lowest > curve.best + _RISING_Z * curve.noise(trend)


def _slow(rules: StopRules, curve: Evaluations, value: float) -> bool:
    """At the rate of the last 30 % of the run, the rest of the plan would improve it by less than 1 %."""
    n, bests = curve.n, curve.bests
    if n < _SLOW_N or curve.last == 0 or bests is None:
        return False
    planned = curve.planned()
    if planned is None or n < _KNOWN.early * planned:
        return False
    window = max(_SLOW_W, int(_SLOW_F * n))
    gained = bests[n - window] - curve.best
    if gained * (planned - n) / window >= _SLOW_LEAST * abs(curve.best):
        return False
    return not _recovering(curve, planned)


def _recovering(curve: Evaluations, planned: float | None) -> bool:
    """Whether the trend since the best evaluation would beat it."""
    trend = curve.trend()
    better = trend.first - trend.last
    if better <= 0:
        return False
    ahead = _UNKNOWN.ahead if planned is None else min(_KNOWN.ahead, (planned - curve.n) / trend.half)
    return trend.last - ahead * better < curve.best


Check = Callable[[StopRules, Evaluations, float], bool]
Checks = tuple[tuple[Rule, Check], ...]

# The first rule that holds decides. A rule, whether it was asked for, and whether it holds at this evaluation.
PRIORITY: tuple[tuple[Rule, Callable[[StopRules], bool], Check], ...] = (
    (Rule.NON_FINITE, lambda rules: rules.check_finite, _non_finite),
    (Rule.STOPPING_THRESHOLD, lambda rules: rules.stopping_threshold is not None, _reached),
    (Rule.DIVERGENCE_THRESHOLD, lambda rules: rules.divergence_threshold is not None, _diverged),
    (Rule.PATIENCE, lambda rules: rules.patience is not None, _impatient),
    (Rule.PLATEAU, lambda rules: rules.plateau and rules.patience is None, _plateau),
    (Rule.RISING, lambda rules: rules.rising and rules.patience is None, _rising),
    (Rule.SLOW, lambda rules: rules.aggressive, _slow),
)
_OF_POINTS = frozenset({Rule.NON_FINITE})  # seen at the point itself; all others see evaluations
# Evaluations since the best below which a rule never holds: most points of a run that learns need no further check.
_LEAST_GAP = {Rule.PATIENCE: 1, Rule.PLATEAU: _KNOWN.k, Rule.RISING: _RISING_K}


# --- applied to a curve ----------------------------------------------------------------------------------------


class Monitor:
    """Rules applied to one curve, point by point."""

    __slots__ = ("_curve", "_finite", "_least_gap", "_of_evaluations", "_of_points", "rules")

    def __init__(self, rules: StopRules) -> None:
        self.rules = rules
        chosen = tuple((rule, check) for rule, asked, check in PRIORITY if asked(rules))
        self._of_points = tuple(each for each in chosen if each[0] in _OF_POINTS)
        self._of_evaluations = tuple(each for each in chosen if each[0] not in _OF_POINTS)
        self._least_gap = min((_LEAST_GAP.get(rule, 0) for rule, _ in self._of_evaluations), default=0)
        self._curve = Evaluations(
            sign=-1 if rules.mode == MAX else 1,
            max_steps=rules.max_steps if rules.stopping_threshold is None else None,
            min_delta=rules.min_delta,
            smoothing=rules.smoothing,
            keep_bests=rules.aggressive,
        )
        self._finite: float | None = None  # the newest finite value

    def add(self, step: int, value: float) -> Verdict | None:
        """Add the next point of the standing curve; return the verdict at this point, None: go on.

        A point after a verdict is judged like any other.
        """
        if math.isfinite(value):
            self._finite = value
        else:
            verdict = self._decide(self._of_points, step, value)
            if verdict is not None or self._finite is None:
                return verdict
            value = self._finite  # no improvement, and a value that rules can compute with
        curve, verdict = self._curve, None
        if curve.outgrown(step):
            curve.close()
            verdict = self._decide(self._of_evaluations, curve.steps[-1], curve.sign * curve.values[-1])
        if curve.add(step, value) and curve.gap >= self._least_gap and verdict is None:
            verdict = self._decide(self._of_evaluations, step, curve.sign * curve.values[-1])
        return verdict

    def extend(self, steps: Iterable[int], values: Iterable[float]) -> Verdict | None:
        """Add points until one has a verdict, and return it; the points after that one are not read."""
        for step, value in zip(steps, values, strict=True):
            verdict = self.add(step, value)
            if verdict is not None:
                return verdict
        return None

    def _decide(self, checks: Checks, step: int, value: float) -> Verdict | None:
        if step < self.rules.grace_period:
            return None
        for rule, check in checks:
            if check(self.rules, self._curve, value):
                return self._verdict(rule, step, value)
        return None

    def _verdict(self, rule: Rule, step: int, value: float) -> Verdict:
        curve = self._curve
        known = len(curve.values) > 0
        return Verdict(
            reason=REASONS[rule],
            rule=rule,
            metric=self.rules.metric,
            step=step,
            value=value,
            best_step=curve.steps[curve.last] if known else None,
            best_value=curve.sign * curve.best if known else None,
            threshold=_threshold(rule, self.rules),
            evaluations=curve.gap,
            share=curve.gap / curve.n if curve.n > 0 else 0.0,
            mean_of=round(curve.points / len(curve.values)) if known else 1,
            steps=tuple(curve.steps[-_EVIDENCE:]),
            values=tuple(curve.sign * each for each in curve.values[-_EVIDENCE:]),
        )


def _threshold(rule: Rule, rules: StopRules) -> float | None:
    match rule:
        case Rule.STOPPING_THRESHOLD:
            return rules.stopping_threshold
        case Rule.DIVERGENCE_THRESHOLD:
            return rules.divergence_threshold
        case _:
            return None


def judge(rules: StopRules, steps: Sequence[int], values: Sequence[float], *, since: int = 0) -> Verdict | None:
    """Return the first verdict on a whole curve; only points from index `since` on may decide.

    steps, values: (n,), the standing curve in order. `since`: so that rules added to a running simulation don't stop
    it for what happened before.
    """
    monitor = Monitor(rules)
    for index, (step, value) in enumerate(zip(steps, values, strict=True)):
        verdict = monitor.add(step, value)
        if verdict is not None and index >= since:
            return verdict
    return None


# --- sentences -------------------------------------------------------------------------------------------------


def _said_non_finite(verdict: Verdict) -> str:
    shown = "NaN" if math.isnan(verdict.value) else "infinite"
    return f"{_name(verdict)} was {shown} at step {verdict.step:,}."


def _said_reached(verdict: Verdict) -> str:
    return (
        f"{_name(verdict)} reached {_amount(verdict.value)} at step {verdict.step:,}: "
        f"the stopping threshold is {_amount(verdict.threshold)}."
    )


def _said_diverged(verdict: Verdict) -> str:
    return (
        f"{_name(verdict)} was {_amount(verdict.value)} at step {verdict.step:,}: "
        f"the divergence threshold is {_amount(verdict.threshold)}."
    )


def _said_patience(verdict: Verdict) -> str:
    return f"{_not_improved(verdict)}."


def _said_plateau(verdict: Verdict) -> str:
    return f"{_not_improved(verdict)}; the trend since then would not reach it again."


def _said_rising(verdict: Verdict) -> str:
    return f"{_not_improved(verdict)}; since then it has become worse by more than its noise."


def _said_slow(verdict: Verdict) -> str:
    return (
        f"{_name(verdict)} improves too slowly: at its present rate the rest of the run would improve on "
        f"{_best(verdict)} by less than 1 %."
    )


_SENTENCES: dict[Rule, Callable[[Verdict], str]] = {
    Rule.NON_FINITE: _said_non_finite,
    Rule.STOPPING_THRESHOLD: _said_reached,
    Rule.DIVERGENCE_THRESHOLD: _said_diverged,
    Rule.PATIENCE: _said_patience,
    Rule.PLATEAU: _said_plateau,
    Rule.RISING: _said_rising,
    Rule.SLOW: _said_slow,
}


def _not_improved(verdict: Verdict) -> str:
    count = verdict.evaluations
    mean = f" (mean of {verdict.mean_of:,} points)" if verdict.mean_of > 1 else ""
    return (
        f"{_name(verdict)}{mean} has not improved on {_best(verdict)} for {count:,} "
        f"evaluation{'' if count == 1 else 's'} ({verdict.share * 100:.0f} % of the run so far)"
    )


def _best(verdict: Verdict) -> str:
    at = f" (step {verdict.best_step:,})" if verdict.best_step is not None else ""
    return f"{_amount(verdict.best_value)}{at}"


def _name(verdict: Verdict) -> str:
    return phrasing.name(verdict.metric)


def _amount(value: float | None) -> str:
    return "" if value is None else phrasing.measured(value)
