"""What a stop saved: the rest of the run, as time and money.

An estimate from the pace until the stop. Its end is the declared `max_steps`, or else a forecast: the median end of
completed runs of the same name that went further than this one. The sentence names which of the two. Without either,
and without a pace, nothing is claimed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from policy import phrasing
from policy.cost import cost

_MOST_SECONDS = 100 * 365 * 86_400.0  # a pace measured over a moment can make any number of years
LEAST_SIMILAR = 3  # runs of which an end is forecast: they mostly end at the same step


class End(StrEnum):
    """Where the end of the run is taken from."""

    MAX_STEPS = "MAX_STEPS"
    FORECAST = "FORECAST"


@dataclass(frozen=True, slots=True)
class ForecastEnd:
    """The step at which half of the similar runs had ended."""

    step: int
    similar: int  # runs that it is about


def forecast_end(step: int, ends: Sequence[int]) -> ForecastEnd | None:
    """Forecast where a run that has come to `step` would have ended; None: there are too few similar runs.

    ends: the last steps of completed runs of the same name.
    """
    later = [end for end in ends if end > step]
    if len(later) < LEAST_SIMILAR:
        return None
    return ForecastEnd(statistics.median_low(later), len(later))


@dataclass(frozen=True, slots=True)
class Saved:
    """The rest of a run that was stopped."""

    steps: int
    seconds: float
    amount: Decimal | None  # None: the machine has no price
    by: End
    end: int  # the step at which the run would have ended
    similar: int = 0  # completed runs that a forecast end is the median of

    def sentence(self, currency: str, *, dry_run: bool = False) -> str:
        """Explain to a user what was saved, or would have been."""
        time = phrasing.span(self.seconds)
        what = f"{time} and {phrasing.money(self.amount, currency)}" if self.amount else time
        about = f"About {what} {'would have been saved' if dry_run else 'saved'}"
        if self.by is End.MAX_STEPS:
            return f"{about}, by maxSteps of {self.end:,}."
        return f"{about}, by a forecast end of {self.end:,}, the median of {self.similar} similar runs."


def saved(
    step: int,
    steps_per_second: float,
    *,
    max_steps: int | None,
    forecast: ForecastEnd | None = None,
    price_per_hour: Decimal | None = None,
    share: Decimal = Decimal(1),
) -> Saved | None:
    """Estimate what a stop at this step saved; None: the end or the pace is unknown, or the run is past its end.

    price_per_hour, share: as billed at the stop, of all machines together; None: not set. A run past its `max_steps`
    has a forecast end at most.
    """
    ends = ((End.MAX_STEPS, max_steps), (End.FORECAST, forecast.step if forecast is not None else None))
    found = next(((by, end) for by, end in ends if end is not None and end > step), None)
    if found is None or not steps_per_second > 0:
        return None
    by, end = found
    seconds = min((end - step) / steps_per_second, _MOST_SECONDS)
    amount = cost(price_per_hour, share, Decimal(repr(seconds))) if price_per_hour is not None else None
    similar = forecast.similar if by is End.FORECAST and forecast is not None else 0
    return Saved(end - step, seconds, amount, by, end, similar)
