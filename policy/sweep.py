"""Rules that stop a sweep's losers: asynchronous successive halving, and the median rule.

Rungs are steps at which trials are compared: r, r * eta, r * eta^2, ... below the end of the plan. A trial that
reaches a rung leaves a result there, its best value so far, and is stopped if too many of the results before it are
better. Nothing is paused, and no result that comes later changes a decision: results are rows, and the decision is a
function of those that were there, also after restarts. The median rule compares at r, 2 r, 3 r, ..., with the trials
that had finished by then, so each comparison is made once.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (ASHA), as stopping instead of
promotion; the median rule: Golovin et al., "Google Vizier", KDD 2017, section 3.2.2. Figures: docs/performance.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from policy import phrasing
from policy.metric_mode import MAX, MIN

PRUNED = "PRUNED"

FIRST_RUNG = Fraction(1, 10)  # of the plan: half of it spares 6 % more, at three times the regret
REDUCTION_FACTOR = 3
UNKNOWN_END = 2**53  # a plan for trials without one: the last step there is
FINISHED_FOR_MEDIAN = 5  # trials: the median of fewer is chance
MOST_COMPARISONS = 1_000  # of one trial by the median rule


@dataclass(frozen=True, slots=True)
class Halving:
    """Successive halving, in Ray's and Optuna's words.

    grace_period: steps to the first rung; None: 10 % of `max_steps`.
    """

    max_steps: int
    mode: str = MIN  # MIN or MAX: see policy.metric_mode
    grace_period: int | None = None
    reduction_factor: int = REDUCTION_FACTOR


@dataclass(frozen=True, slots=True)
class Median:
    """The median rule. grace_period: steps to the first comparison, and between two; None: 10 % of `max_steps`."""

    max_steps: int
    mode: str = MIN
    grace_period: int | None = None


Pruning: TypeAlias = Halving | Median


@dataclass(frozen=True, slots=True)
class Pruned:
    """Verdict: this trial is stopped at this rung, because so many of the results seen there are better."""

    step: int  # of the rung
    value: float  # its best until then
    better: int
    seen: int  # itself included
    reduction_factor: int

    def evidence(self) -> dict[str, object]:
        """Return what an event keeps, as JSON values: null for a value that is not finite."""
        return {
            "rule": PRUNED,
            "step": self.step,
            "value": self.value if math.isfinite(self.value) else None,
            "better": self.better,
            "seen": self.seen,
            "reductionFactor": self.reduction_factor,
        }

    def sentence(self) -> str:
        """Explain the verdict to a user."""
        shown = phrasing.measured(self.value) if math.isfinite(self.value) else "no finite value"
        are = "is" if self.better == 1 else "are"
        return (
            f"{self.better:,} of {self.seen:,} trials at step {self.step:,} {are} better than its {shown}: "
            f"the best 1/{self.reduction_factor} go on."
        )


@dataclass(frozen=True, slots=True)
class BelowMedian:
    """Verdict: this trial is stopped at this step, because its best value is worse than the median of finished ones."""

    step: int
    value: float  # its best until then
    median: float  # of the finished trials' running averages
    seen: int  # finished trials

    def evidence(self) -> dict[str, object]:
        """Return what an event keeps, as JSON values: null for a value that is not finite."""
        value, median = (each if math.isfinite(each) else None for each in (self.value, self.median))
        return {"rule": PRUNED, "step": self.step, "value": value, "median": median, "seen": self.seen}

    def sentence(self) -> str:
        """Explain the verdict to a user."""
        shown = f"Its best, {phrasing.measured(self.value)}," if math.isfinite(self.value) else "No finite value"
        return (
            f"{shown} is worse than {phrasing.measured(self.median)}, the median of the running averages of "
            f"{self.seen:,} finished trials at step {self.step:,}."
        )


def validate(pruning: Pruning) -> list[str]:
    """Return what is wrong with the rule, a sentence each; empty if nothing is."""
    grace = pruning.grace_period
    problems = (
        (pruning.mode not in (MIN, MAX), f"mode must be {MIN} or {MAX}."),
        (pruning.max_steps < 1, "maxSteps must be at least 1."),
        (isinstance(pruning, Halving) and pruning.reduction_factor < 2, "reductionFactor must be at least 2."),
        (grace is not None and grace < 1, "gracePeriod must be at least 1."),
        (grace is not None and grace >= pruning.max_steps, "gracePeriod must be below maxSteps."),
    )
    return [sentence for is_wrong, sentence in problems if is_wrong]


def rungs(pruning: Pruning) -> tuple[int, ...]:
    """Return the steps of the rungs, ascending, all below `max_steps`; none for a plan of one step."""
    step = pruning.grace_period or max(math.ceil(pruning.max_steps * FIRST_RUNG), 1)
    if isinstance(pruning, Median):
        return tuple(range(step, min(pruning.max_steps, step * MOST_COMPARISONS + 1), step))
    found = []
    while step < pruning.max_steps:
        found.append(step)
        step *= pruning.reduction_factor
    return tuple(found)


def crossed(halving: Halving, before: int | None, step: int) -> tuple[int, ...]:
    """Return the rungs that a trial passed between its last point, None: it had none, and the one at `step`."""
    return tuple(rung for rung in rungs(halving) if rung <= step and (before is None or before < rung))


def at_rung(halving: Halving, step: int, value: float, earlier: Sequence[float]) -> Pruned | None:
    """Judge a trial that has reached a rung; None: go on.

    value: the trial's best so far. earlier: (n,), the results that other trials had left at this rung when it came. A
    value that is not finite is worse than any other.
    """
    own = _rank(halving.mode, value)
    seen = len(earlier) + 1
    better = sum(_rank(halving.mode, each) < own for each in earlier)
    if seen < halving.reduction_factor or better * halving.reduction_factor < seen:
        return None
    return Pruned(step, value, better, seen, halving.reduction_factor)


def below_median(
    mode: str,
    best: float,
    averages: Sequence[float],
    *,
    step: int = 0,
    finished_at_least: int = FINISHED_FOR_MEDIAN,
) -> BelowMedian | None:
    """Judge a trial whose best value may be worse than the median of the finished trials' running averages.

    averages: (n,), of each finished trial the mean of its values up to the same step, which the verdict names.
    """
    if len(averages) < finished_at_least:
        return None
    median = statistics.median(_rank(mode, each) for each in averages)
    if _rank(mode, best) <= median:
        return None
    return BelowMedian(step, best, -median if mode == MAX else median, len(averages))


def _rank(mode: str, value: float) -> float:
    if not math.isfinite(value):
        return math.inf
    return -value if mode == MAX else value
