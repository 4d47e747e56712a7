"""Rules that stop a sweep's losers: asynchronous successive halving, and the median rule.

Rungs are steps at which trials are compared: r, r * eta, r * eta^2, ... below the end of the plan. A trial that
reaches a rung leaves a result there, its best value so far, and is stopped if too many of the results before it are
better. Nothing is paused, and no result that comes later changes a decision: results are rows, and the decision is a
function of those that were there, also after restarts.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (ASHA), as stopping instead of
promotion; the median rule: Golovin et al., "Google Vizier", KDD 2017, section 3.2.2. Figures: docs/performance.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from policy import phrasing
from policy.metric_mode import MAX, MIN

PRUNED = "PRUNED"

FIRST_RUNG = Fraction(1, 10)  # of the plan: half of it spares 6 % more, at three times the regret
REDUCTION_FACTOR = 3
UNKNOWN_END = 2**53  # a plan for trials without one: the last step there is
FINISHED_FOR_MEDIAN = 5  # trials: the median of fewer is chance


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
        return (
            f"{self.better:,} of {self.seen:,} trials at step {self.step:,} are better than its {shown}: "
            f"the best 1/{self.reduction_factor} go on."
        )


def validate(halving: Halving) -> list[str]:
    """Return what is wrong with the rule, a sentence each; empty if nothing is."""
    grace = halving.grace_period
    problems = (
        (halving.mode not in (MIN, MAX), f"mode must be {MIN} or {MAX}."),
        (halving.max_steps < 1, "maxSteps must be at least 1."),
        (halving.reduction_factor < 2, "reductionFactor must be at least 2."),
        (grace is not None and grace < 1, "gracePeriod must be at least 1."),
        (grace is not None and grace >= halving.max_steps, "gracePeriod must be below maxSteps."),
    )
    return [sentence for is_wrong, sentence in problems if is_wrong]


def rungs(halving: Halving) -> tuple[int, ...]:
    """Return the steps of the rungs, ascending, all below `max_steps`; none for a plan of one step."""
    step = halving.grace_period or max(math.ceil(halving.max_steps * FIRST_RUNG), 1)
    found = []
    while step < halving.max_steps:
        found.append(step)
        step *= halving.reduction_factor
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
    mode: str, best: float, averages: Sequence[float], *, finished_at_least: int = FINISHED_FOR_MEDIAN
) -> bool:
    """Whether a trial's best value is worse than the median of the finished trials' running averages.

    averages: (n,), of each finished trial the mean of its values up to the same step.
    """
    if len(averages) < finished_at_least:
        return False
    return _rank(mode, best) > statistics.median(_rank(mode, each) for each in averages)


def _rank(mode: str, value: float) -> float:
    if not math.isfinite(value):
        return math.inf
    return -value if mode == MAX else value
