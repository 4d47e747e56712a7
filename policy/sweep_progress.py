"""Progress of a sweep: how a trial ended, whether another one begins and with how much money, when all are over.

A trial is one set of parameters, run once or, with several seeds, in several simulations. Its value is the mean of
their best values, its spread their standard deviation.

**Money.** Each simulation of a sweep with a `max_cost` gets an allotment as its own limit, which its supervisor and the
planner enforce, silent machines included. Allotments of what runs and costs of what has ended never exceed the budget
together, so it can't be overspent. What a simulation leaves of its allotment goes to the next ones. A trial only begins
with as much as a complete one has cost in the median, and its stop grace, which supervisors keep back of a limit: one
that would be cut short is no result.

**Patience.** No later trial is taken as likely to beat the best one once `patience` ended trials in a row have not,
failed and cancelled ones not counted. Of trials that are drawn without learning from others, the best is as likely
among any: there a patience of k out of n trials costs k / n of the chances to improve.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

from policy import phrasing
from policy.metric_mode import MAX
from policy.sampling import Outcome

SUCCEEDED = frozenset({"COMPLETED", "STOPPING_THRESHOLD", "PATIENCE_EXHAUSTED", "UNWATCHED"})
PRUNED = "PRUNED"
CANCELLED = "CANCELLED"
MOST_FAILURES = 5  # with no other trial: the command is wrong, and so would the next ones be
MOST_NAMES = 5  # of metrics, in a sentence
_MONEY_STEP = Decimal("0.000001")


class SweepReason(StrEnum):
    """Why a sweep begins no more trials."""

    COMPLETED = "COMPLETED"  # all trials were begun
    CANCELLED = "CANCELLED"
    MAX_COST = "MAX_COST"
    STOPPING_THRESHOLD = "STOPPING_THRESHOLD"
    PATIENCE_EXHAUSTED = "PATIENCE_EXHAUSTED"
    TRIALS_FAILED = "TRIALS_FAILED"  # so far, or all of them at the end


# --- a trial ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """An ended simulation of a trial. value: its best, None without one; step: the newest rung it has reached."""

    reason: str
    value: float | None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """How a trial ended, as its sampler is told. step: that a pruned trial came to."""

    outcome: Outcome
    value: float | None = None
    spread: float | None = None
    step: int | None = None


def told(runs: Sequence[Run]) -> Told:
    """Judge a trial whose simulations have all ended.

    Pruned if one was pruned; complete if more than half of them succeeded with a value; else failed, or, if one was
    cancelled and none failed, cancelled.
    """
    finite = [each for each in runs if each.value is not None and math.isfinite(each.value)]
    pruned = [each for each in finite if each.reason == PRUNED and each.step is not None]
    if pruned:
        values = [each.value for each in pruned if each.value is not None]
        return Told(Outcome.PRUNED, *_mean(values), step=min(each.step or 0 for each in pruned))
    good = [each.value for each in finite if each.reason in SUCCEEDED and each.value is not None]
    if 2 * len(good) <= len(runs):
        others = {each.reason for each in runs} - SUCCEEDED
        return Told(Outcome.CANCELLED if others == {CANCELLED} else Outcome.FAIL)
    return Told(Outcome.COMPLETE, *_mean(good))


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    # Scaled first: the sum of two large doubles may be no double.
    mean = math.fsum(each / len(values) for each in values)
    if len(values) < 2:
        return mean, None
    scale = max(abs(each - mean) for each in values)
    if not scale or not math.isfinite(scale):
        return mean, 0.0 if not scale else None
    return mean, scale * statistics.stdev([(each - mean) / scale for each in values])


# --- all trials ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sweep may do. patience, target, max_cost: None is none."""

    mode: str
    trials: int
    parallel: int
    seeds: int = 1
    max_cost: Decimal | None = None
    patience: int | None = None
    target: float | None = None
    metric: str = "the objective"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a sweep has done. ended: in the order of their ends, with what each has cost."""

    begun: int = 0
    open: int = 0
    ended: Sequence[tuple[Told, Decimal]] = ()
    allotted: Decimal = Decimal(0)  # to open trials: what they may still cost, and what parts of them have cost
    grace: Decimal = Decimal(0)  # what a simulation costs in its stop grace: it is stopped so long before its limit
    is_priced: bool = True  # False: none has been on a machine yet, and `grace` is that of the dearest one

    @property
    def spent(self) -> Decimal:
        return sum((cost for _, cost in self.ended), Decimal(0))


@dataclass(frozen=True, slots=True)
class Ending:
    """Verdict: no more trials begin."""

    reason: SweepReason
    sentence: str


def ending(limits: Limits, standing: Standing, currency: str = "") -> Ending | None:
    """Judge whether a sweep begins no more trials; None: it goes on, at once or when an open trial has ended."""
    counted = [each.value for each, _ in standing.ended if each.outcome is Outcome.COMPLETE and each.value is not None]
    best = (max if limits.mode == MAX else min)(counted, default=None)
    if best is not None and limits.target is not None and not _is_better(limits.mode, limits.target, best):
        return Ending(
            SweepReason.STOPPING_THRESHOLD,
            f"A trial has reached {phrasing.measured(best)}: the target was {phrasing.measured(limits.target)}.",
        )
    if limits.patience is not None and (since := _since_best(limits.mode, standing)) >= limits.patience:
        assert best is not None
        return Ending(
            SweepReason.PATIENCE_EXHAUSTED,
            f"{_last(since)} not better than {phrasing.measured(best)}: no later one is likely to be.",
        )
    outcomes = [each.outcome for each, _ in standing.ended if each.outcome is not Outcome.CANCELLED]
    failed = outcomes.count(Outcome.FAIL)
    if failed >= MOST_FAILURES and failed == len(outcomes):
        return Ending(
            SweepReason.TRIALS_FAILED,
            f"All of the first {failed:,} trials failed: none has a value of {limits.metric}.",
        )
    if standing.begun >= limits.trials:
        all_ = f"All of its {limits.trials:,} trials have" if limits.trials > 1 else "Its only trial has"
        return Ending(SweepReason.COMPLETED, f"{all_} begun.")
    if limits.max_cost is not None and not standing.open and allotment(limits, standing) is None:
        left = phrasing.money(max(limits.max_cost - standing.spent, Decimal(0)), currency, ROUND_DOWN)
        least = "less than a trial has cost in the median, with its stop grace"
        return Ending(SweepReason.MAX_COST, f"{left} of its budget are left, {least}.")
    return None


def why_no_more(limits: Limits, standing: Standing) -> str | None:
    """Return why no trial begins although fewer have begun than `limits.trials`, with what helps; None: one may."""
    verdict = ending(limits, standing) if standing.begun < limits.trials else None
    match verdict:
        case Ending(SweepReason.STOPPING_THRESHOLD, sentence):
            return f"{sentence} Create a sweep with another target."
        case Ending(SweepReason.PATIENCE_EXHAUSTED, sentence):
            return f"{sentence} Give it a larger patience, too."
        case Ending(SweepReason.TRIALS_FAILED, sentence):
            return f"{sentence} Create a new sweep once its command works."
    return None


def without_result(concluded: Ending, standing: Standing) -> Ending | None:
    """Judge the end of a sweep of which no trial has a value; None: one has, or none has begun.

    concluded: why no more trials begin. If all had begun, it is TRIALS_FAILED instead, unless all were cancelled.
    """
    outcomes = [each.outcome for each, _ in standing.ended]
    if not outcomes or any(each.value is not None for each, _ in standing.ended):
        return None
    if concluded.reason in (SweepReason.TRIALS_FAILED, SweepReason.CANCELLED):
        return concluded
    sentence = (
        f"None of its {len(outcomes):,} trials has a result." if len(outcomes) > 1 else "Its trial has no result."
    )
    if concluded.reason is SweepReason.COMPLETED and Outcome.FAIL in outcomes:
        return Ending(SweepReason.TRIALS_FAILED, sentence)
    return Ending(concluded.reason, f"{concluded.sentence} {sentence}")


def unreported(metric: str, names: Sequence[str]) -> str:
    """Return why trials that have succeeded have no result, as a sentence. names: of the metrics they reported."""
    if not names:
        return f"No trial reported {metric}; they reported no metric."
    shown = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    which = "one of these" if len(names) > 1 else "it"
    return f"No trial reported {metric}; they reported {shown}: create a sweep with {which} as its objective."


def _last(number: int) -> str:
    return f"The last {number:,} trials were" if number > 1 else "The last trial was"


def slots(limits: Limits, standing: Standing) -> int:
    """Return how many trials may begin now."""
    return max(0, min(limits.parallel - standing.open, limits.trials - standing.begun))


def allotment(limits: Limits, standing: Standing) -> Decimal | None:
    """Return what each simulation of the next trial may cost; None: the budget has too little left.

    What is left is divided among the trials that may begin now, this one included. Before a price is known, one begins
    also with less than the grace of the dearest machine costs. limits: with a `max_cost`.
    """
    assert limits.max_cost is not None
    left = limits.max_cost - standing.spent - standing.allotted
    costs = [cost for each, cost in standing.ended if each.outcome is Outcome.COMPLETE]
    complete = statistics.median(costs) if costs else Decimal(0)
    something = max(complete, _MONEY_STEP * limits.seeds)
    least = something + standing.grace * limits.seeds
    among = max(slots(limits, standing), 1)
    share = left / among
    while share < least and among > 1:  # fewer trials at once, rather than some that would be cut short
        among -= 1
        share = left / among
    is_first = not standing.is_priced and not standing.open
    if share < (something if is_first else least):
        return None
    return (share / limits.seeds).quantize(_MONEY_STEP, ROUND_DOWN)


def seconds_left(limits: Limits, ended: int, open_: int, mean: timedelta | None) -> float | None:
    """Estimate how long a sweep still takes. mean: of its ended trials, None: there is none."""
    left = limits.trials - ended
    if mean is None or left <= 0:
        return None
    return mean.total_seconds() * math.ceil(left / max(min(limits.parallel, left), 1))


def _since_best(mode: str, standing: Standing) -> int:
    """Count the trials that have ended since the best one, failed and cancelled ones left out; 0 without a value."""
    best: float | None = None
    since = 0
    for each, _ in standing.ended:
        if each.outcome in (Outcome.FAIL, Outcome.CANCELLED):
            continue
        is_new = each.outcome is Outcome.COMPLETE and each.value is not None
        if is_new and each.value is not None and (best is None or _is_better(mode, each.value, best)):
            best, since = each.value, 0
        elif best is not None:
            since += 1
    return since


def _is_better(mode: str, value: float, than: float) -> bool:
    return value > than if mode == MAX else value < than
