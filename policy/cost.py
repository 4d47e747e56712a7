"""What is billed: the dominant share of a machine, at the machine's price, for the time it was held.

Prices, shares and costs are Decimals. A share has 8 decimals and a cost 6, as the database keeps them, so that what
is shown, compared and stored is the same number.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Protocol

_SHARE_STEP = Decimal("0.00000001")
_MONEY_STEP = Decimal("0.000001")
_SECONDS_PER_HOUR = 3600
_MICROSECOND = timedelta(microseconds=1)


class Held(Protocol):
    """A share of a machine that is or was held: its price as it was at assignment, and for how long."""

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
    """Return the largest of the shares of a machine's resources that a request takes, 0 to 1, to 8 decimals.

    Who takes all GPUs and one cpu keeps everybody else from the GPUs, and pays for the whole machine. The measure is
    from Ghodsi et al., "Dominant Resource Fairness", NSDI 2011, section 4. More than there is counts as all of it.
    """
    pairs = ((cpus, machine_cpus), (memory_gib, machine_memory_gib), (gpus, machine_gpus))
    share = max(_part(asked, has) for asked, has in pairs)
    # repr, the shortest decimal that means this float: 0.000000125 is then a tie to round up, not a hair below one.
    return Decimal(repr(share)).quantize(_SHARE_STEP, ROUND_HALF_UP)


def billed_per_hour(price_per_hour: Decimal, share: Decimal) -> Decimal:
    """Return what an hour costs the one who holds this share; what prices are compared by."""
    return (price_per_hour * share).quantize(_MONEY_STEP, ROUND_HALF_UP)


def cost(price_per_hour: Decimal, share: Decimal, seconds: Decimal | timedelta) -> Decimal:
    """Return what holding this share of a machine for so long costs; nothing for a time below zero.

    (A duration is below zero only when a clock was set back.)
    """
    if isinstance(seconds, timedelta):
        seconds = Decimal(seconds // _MICROSECOND) / 1_000_000  # exact, which total_seconds() is not
    return (price_per_hour * share * max(seconds, Decimal(0)) / _SECONDS_PER_HOUR).quantize(_MONEY_STEP, ROUND_HALF_UP)


def cost_so_far(holdings: Iterable[Held]) -> Decimal:
    """Return what was and is held cost up to now: the sum of what each holding is billed."""
    return sum((cost(held.price_per_hour, held.share, held.time) for held in holdings), Decimal(0))


def cost_per_hour(holdings: Iterable[Held]) -> Decimal:
    """Return what an hour more costs: only what is held now counts."""
    return sum((billed_per_hour(held.price_per_hour, held.share) for held in holdings if held.is_open), Decimal(0))


def _part(asked: float, has: float) -> float:
    if asked <= 0:
        return 0.0
    return min(asked / has, 1.0) if has > 0 else 1.0
