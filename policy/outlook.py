"""What is left of a run until a step, as time and money, and the sentences of a forecast.

Time is the pace so far, carried on; money is that time at the current rate. Both are about a step that is given: the
declared end, or a bound that `policy.forecast` holds. Without a pace only steps are named.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from policy import phrasing
from policy.cost import cost
from policy.phrasing import measured

if TYPE_CHECKING:  # numpy comes with it, and is imported where a forecast is made
    from policy.forecast import Forecast, Reach

LEAST_HISTORY = 8  # ended runs: with fewer, the rough factors of a forecast hold better
_MOST_SECONDS = 100 * 365 * 86_400.0  # a pace measured over a moment can make any number of years


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a running attempt goes on. per_hour: of all its machines together, at their shares; None: not set."""

    step: int  # the newest
    steps_per_second: float
    per_hour: Decimal | None


@dataclass(frozen=True, slots=True)
class Ahead:
    """A step, and the time and money until it from the newest step; None: not known."""

    step: int
    seconds: float | None
    amount: Decimal | None


def ahead(step: int, pace: Pace | None) -> Ahead:
    """Derive time and money until a step."""
    if pace is None or not pace.steps_per_second > 0 or step < pace.step:
        return Ahead(step, None, None)
    seconds = min((step - pace.step) / pace.steps_per_second, _MOST_SECONDS)
    amount = cost(pace.per_hour, Decimal(1), Decimal(repr(seconds))) if pace.per_hour is not None else None
    return Ahead(step, seconds, amount)


def sentence(
    metric: str,
    forecast: Forecast | None,
    target: float | None,
    reach: Reach | None,
    pace: Pace | None,
    currency: str,
    *,
    ended: bool,
) -> str:
    """Explain a forecast to a user; empty where there is nothing to explain. ended: it was stopped before its end."""
    parts = [_of_end(metric, forecast, pace, currency, ended=ended)] if forecast is not None else []
    if target is not None and reach is not None:
        parts += _of_target(metric, target, reach, pace, currency)
    return " ".join(parts)


def _of_end(metric: str, forecast: Forecast, pace: Pace | None, currency: str, *, ended: bool) -> str:
    by = "rough" if forecast.rough else f"from {phrasing.count(forecast.history, 'run')} of the same name"
    verb = "would have been" if ended else "will be"
    text = (
        f"By step {forecast.step:,} the best {phrasing.name(metric)} {verb} about {measured(forecast.value)} "
        f"(80 %: {measured(forecast.low)} to {measured(forecast.high)}; {by})"
    )
    rest = _rest(ahead(forecast.step, pace), currency)
    return f"{text}, in {rest}." if rest else f"{text}."


def _of_target(metric: str, target: float, reach: Reach, pace: Pace | None, currency: str) -> list[str]:
    what = f"{phrasing.name(metric)} {measured(target)}"
    if reach.reached_at is not None:
        return [f"The target {what} was reached at step {reach.reached_at:,}."]
    found = []
    if reach.likely_not:
        found.append(f"The target {what} is likely not reached within maxSteps (90 %).")
    elif reach.not_before is not None:
        rest = _rest(ahead(reach.not_before, pace), currency)
        found.append(f"The target {what} is not reached before step {reach.not_before:,} (90 %{rest and f'; {rest}'}).")
    if reach.half_until is not None:
        found.append(f"Half of {reach.similar} similar runs needed until step {reach.half_until:,} for {what}.")
    return found


def _rest(left: Ahead, currency: str) -> str:
    if left.seconds is None:
        return ""
    time = phrasing.span(left.seconds)
    return f"{time} and for {phrasing.money(left.amount, currency)} more" if left.amount else f"{time} more"
