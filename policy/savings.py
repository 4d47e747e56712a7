"""What a stop saved: the rest of the run, as time and money.

An estimate from the pace until the stop. Its end is the declared `max_steps`, or else a forecast end; the sentence
names which one. Without either, and without a pace, nothing is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from policy import phrasing
from policy.cost import cost

_MOST_SECONDS = 100 * 365 * 86_400.0  # a pace measured over a moment can make any number of years
_CENT = Decimal("0.01")


class End(StrEnum):
    """Where the end of the run is taken from."""

    MAX_STEPS = "MAX_STEPS"
    FORECAST = "FORECAST"


@dataclass(frozen=True, slots=True)
class Saved:
    """The rest of a run that was stopped."""

    steps: int
    seconds: float
    amount: Decimal | None  # None: the machine has no price
    by: End
    end: int  # the step at which the run would have ended

    def sentence(self, currency: str) -> str:
        """Explain to a user what was saved."""
        time = phrasing.span(self.seconds)
        amount = self.amount.quantize(_CENT, ROUND_HALF_UP) if self.amount is not None else None
        what = f"{time} and {phrasing.money(amount, currency)}" if amount else time
        end = "maxSteps" if self.by is End.MAX_STEPS else "a forecast end"
        return f"About {what} saved, by {end} of {self.end:,}."


def saved(
    step: int,
    steps_per_second: float,
    *,
    max_steps: int | None,
    forecast_end: int | None = None,
    price_per_hour: Decimal | None = None,
    share: Decimal = Decimal(1),
) -> Saved | None:
    """Estimate what a stop at this step saved; None: the end or the pace is unknown, or the run is past its end.

    price_per_hour, share: as billed at the stop, of all machines together; None: not set. A run past its `max_steps`
    has a forecast end at most.
    """
    ends = ((End.MAX_STEPS, max_steps), (End.FORECAST, forecast_end))
    found = next(((by, end) for by, end in ends if end is not None and end > step), None)
    if found is None or not steps_per_second > 0:
        return None
    by, end = found
    seconds = min((end - step) / steps_per_second, _MOST_SECONDS)
    amount = cost(price_per_hour, share, Decimal(repr(seconds))) if price_per_hour is not None else None
    return Saved(end - step, seconds, amount, by, end)
