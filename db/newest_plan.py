"""The newest plan: the order of the queue and the reservations, one row, written by the planner and read by clients.

The order is an array in one row. A column of each simulation would be exact in the same way, but a single arrival at
the front moves all others: with 100,000 queued, that is 100,000 rows for each. A place is therefore as old as the
newest plan, and a simulation that arrived after it has none yet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room kept for a simulation that can't start now: on these machines, from then on."""

    simulation_id: int
    machine_ids: tuple[int, ...]
    at: datetime


_WRITE = text(
    """
    INSERT INTO plans (id, at, queue, reservations) VALUES (1, now(), :queue, CAST(:reservations AS jsonb))
    ON CONFLICT (id) DO UPDATE SET at = excluded.at, queue = excluded.queue, reservations = excluded.reservations
    """
)
_RESERVE = text(
    """
    INSERT INTO plans (id, at, reservations) VALUES (1, now(), CAST(:reservations AS jsonb))
    ON CONFLICT (id) DO UPDATE SET reservations = excluded.reservations
    WHERE plans.reservations IS DISTINCT FROM excluded.reservations
    """
)
_CLEAR = text("UPDATE plans SET at = now(), queue = '{}', reservations = '[]' WHERE queue <> '{}'")
_SUMMARY = text("SELECT now(), coalesce((SELECT cardinality(queue) FROM plans), 0)")
_READ = text("SELECT reservations FROM plans")
# Those behind it that have left the queue since count for nothing; those before it do, until the next plan.
_PLACES = text(
    """
    SELECT given.id, array_position(plans.queue, given.id) AS place
    FROM plans CROSS JOIN unnest(CAST(:ids AS bigint[])) AS given (id)
    """
)


@dataclass(frozen=True, slots=True)
class Summary:
    """The length of the planned queue, and the time by Postgres' clock."""

    now: datetime
    queued: int


async def summary(session: AsyncSession) -> Summary:
    """Read how long the queue of the newest plan is: 0 before the first."""
    return Summary(*(await session.execute(_SUMMARY)).one())


async def write(session: AsyncSession, order: Sequence[int], reservations: Sequence[Reservation]) -> None:
    """Write the order of the queue (ids of simulations, the first first) and what is reserved."""
    await session.execute(_WRITE, {"queue": list(order), "reservations": _as_json(reservations)})


async def clear(session: AsyncSession) -> None:
    """Empty the plan, because nothing is queued; nothing is written if it is empty."""
    await session.execute(_CLEAR)


async def write_reservations(session: AsyncSession, reservations: Sequence[Reservation]) -> None:
    """Write what is reserved; the order stays as it was. Nothing is written where nothing has changed."""
    await session.execute(_RESERVE, {"reservations": _as_json(reservations)})


async def reservations(session: AsyncSession) -> Sequence[Reservation]:
    """Read what is reserved, the first first."""
    found = (await session.execute(_READ)).scalar_one_or_none()
    return [
        Reservation(each["simulation"], tuple(each["machines"]), datetime.fromisoformat(each["at"]))
        for each in found or ()
    ]


async def places_of(session: AsyncSession, ids: Collection[int]) -> Mapping[int, int]:
    """Return the places of these simulations in the order of the newest plan, 1 for the first."""
    rows = await session.execute(_PLACES, {"ids": list(ids)})
    return {row.id: row.place for row in rows if row.place is not None}


def _as_json(reservations: Sequence[Reservation]) -> str:
    return orjson.dumps(
        [{"simulation": each.simulation_id, "machines": list(each.machine_ids), "at": each.at} for each in reservations]
    ).decode()
