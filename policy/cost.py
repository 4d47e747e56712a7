"""Cost of an attempt: dominant share of the machine x price of the machine x time held.

Prices, shares and costs are Decimals. A share has 8 decimals and a cost 6, as in the database, so that the number
shown, the number compared and the number stored are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Protocol

_SHARE_STEP = Decimal("0.00000001")
_MONEY_STEP = Decimal("0.000001")
_SECONDS_PER_HOUR = 3600
_LONGEST_SECONDS = 100 * 366 * 86_400  # a century: beyond it, a limit of time is none
_MICROSECOND = timedelta(microseconds=1)


class Held(Protocol):
    """A share of a machine that is or was held: its price at assignment, and its duration."""

    @property
    def price_per_hour(self) -> Decimal: ...
    @property
    def share(self) -> Decimal: ...
    @property
    def time(self) -> timedelta: ...
    @property
    def is_open(self) -> bool: ...


def dominant_share(
    cpus: float, memory_gib: float, gpus: int, machine_cpus: float, machine_memory_gib: float, machine_gpus: int
) -> Decimal:
    """Return the dominant share: the largest share of any resource that a request takes, 0 to 1, to 8 decimals.

    A request for all GPUs and one CPU leaves no GPU to other requests, and pays for the whole machine. Source:
    Ghodsi et al., "Dominant Resource Fairness", NSDI 2011, section 4. A request above the total counts as the total.
    """
    pairs = ((cpus, machine_cpus), (memory_gib, machine_memory_gib), (gpus, machine_gpus))
    share = max(_part(asked, has) for asked, has in pairs)
    # repr: the shortest decimal of this float, so that 0.000000125 is a tie to round up, not slightly below one.
    return Decimal(repr(share)).quantize(_SHARE_STEP, ROUND_HALF_UP)


def billed_per_hour(price_per_hour: Decimal, share: Decimal) -> Decimal:
    """Return the price per hour of this share; prices are compared by it."""
    return (price_per_hour * share).quantize(_MONEY_STEP, ROUND_HALF_UP)


def cost(price_per_hour: Decimal, share: Decimal, seconds: Decimal | timedelta) -> Decimal:
    """Return the cost of holding this share of a machine for a duration; 0 for a negative duration.

    (A duration is negative only after a clock was set back.)
    """
    if isinstance(seconds, timedelta):
        seconds = Decimal(seconds // _MICROSECOND) / 1_000_000  # exact, which total_seconds() is not
    return (price_per_hour * share * max(seconds, Decimal(0)) / _SECONDS_PER_HOUR).quantize(_MONEY_STEP, ROUND_HALF_UP)


def time_affordable(money: Decimal, per_hour: Decimal) -> timedelta | None:
    """Return for how long this money pays at this rate, rounded down; None: for ever. 0 for a debt."""
    if per_hour <= 0:
        return None
    seconds = max(money, Decimal(0)) * _SECONDS_PER_HOUR / per_hour
    return timedelta(microseconds=int(seconds * 1_000_000)) if seconds < _LONGEST_SECONDS else None


def is_spent(holdings: Iterable[Held], max_cost: Decimal | None) -> bool:
    """Whether the cost so far has reached its limit; False without one."""
    return max_cost is not None and cost_so_far(holdings) >= max_cost


def cost_so_far(holdings: Iterable[Held]) -> Decimal:
    """Return the cost up to now: the sum over ended and open holdings."""
    return sum((cost(held.price_per_hour, held.share, held.time) for held in holdings), Decimal(0))


def cost_per_hour(holdings: Iterable[Held]) -> Decimal:
    """Return the cost of another hour: only open holdings count."""
    return sum((billed_per_hour(held.price_per_hour, held.share) for held in holdings if held.is_open), Decimal(0))


def _part(asked: float, has: float) -> float:
    if asked <= 0:
        return 0.0
    return min(asked / has, 1.0) if has > 0 else 1.0
