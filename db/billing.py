"""Resources held by attempts, for how long and at which price; `policy.cost` computes the cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Holding:
    """Price and share of a member at its assignment, and its time by Postgres' clock."""

    price_per_hour: Decimal
    share: Decimal
    currency: str
    time: timedelta  # from assignment to its end, or to now
    is_open: bool  # it still holds it


# Of members `m`: the columns of a Holding, in its order.
COLUMNS = """m.price_per_hour, m.share, m.currency, coalesce(m.ended_at, now()) - m.assigned_at, m.ended_at IS NULL"""

# What a rate (price times share) costs from one time to another; rounded as `policy.cost.cost` rounds.
AMOUNT = "round({rate} * greatest(extract(epoch FROM {to} - {since}), 0) / 3600, 6)"

_READ = text(
    f"SELECT a.simulation_id, {COLUMNS} FROM attempts AS a JOIN members AS m ON m.attempt_id = a.id "  # noqa: S608  # the line above
    "WHERE a.simulation_id = ANY(:ids) ORDER BY a.number, m.rank"
)


_READ_ATTEMPTS = text(
    f"SELECT m.attempt_id, {COLUMNS} FROM members AS m "  # noqa: S608  # a constant of this module
    "WHERE m.attempt_id = ANY(:ids) ORDER BY m.attempt_id, m.rank"
)


async def of_attempts(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Sequence[Holding]]:
    """Read the holdings of each attempt's members."""
    found: dict[int, list[Holding]] = {}
    for attempt_id, *columns in await session.execute(_READ_ATTEMPTS, {"ids": list(ids)}):
        found.setdefault(attempt_id, []).append(Holding(*columns))
    return found


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Sequence[Holding]]:
    """Read the holdings of each simulation's attempts, first to last; simulations without one are left out."""
    found: dict[int, list[Holding]] = {}
    for simulation_id, *columns in await session.execute(_READ, {"ids": list(ids)}):
        found.setdefault(simulation_id, []).append(Holding(*columns))
    return found
