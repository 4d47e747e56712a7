"""The newest plan: the order of the queue, the reservations, and why single simulations wait; one row.

Written by the planner, and read by clients.

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


@dataclass(frozen=True, slots=True)
class QueueOrder:
    """Order of the queue: ids of simulations, the first first. rules: a letter for each of them."""

    queue: Sequence[int]
    rules: str


@dataclass(frozen=True, slots=True)
class Place:
    """Place in the order, from 1, who is directly before it (None: it is the first), and the letter of the rule."""

    place: int
    ahead_id: int | None = None
    rule: str = ""


Own = Mapping[int, tuple[str, str]]  # reason and sentence of single simulations

_WRITE = text(
    """
    INSERT INTO plans (id, at, queue, rules) VALUES (1, now(), :queue, :rules)
    ON CONFLICT (id) DO UPDATE SET at = excluded.at, queue = excluded.queue, rules = excluded.rules
    """
)
_SINGLE = text(
    """
    INSERT INTO plans (id, at, reservations, own) VALUES (1, now(), CAST(:reservations AS jsonb), CAST(:own AS jsonb))
    ON CONFLICT (id) DO UPDATE SET reservations = excluded.reservations, own = excluded.own
    WHERE (plans.reservations, plans.own) IS DISTINCT FROM (excluded.reservations, excluded.own)
    """
)
_ASK = text(
    """
    INSERT INTO plans (id, asked_xid) VALUES (1, pg_current_xact_id()::text::bigint)
    ON CONFLICT (id) DO UPDATE SET asked_xid = excluded.asked_xid
    """
)
_CLEAR = text(
    "UPDATE plans SET at = now(), queue = '{}', rules = '', reservations = '[]', own = '{}' "
    "WHERE queue <> '{}' OR reservations <> '[]' OR own <> '{}'"
)
_SUMMARY = text("SELECT now(), coalesce((SELECT cardinality(queue) FROM plans), 0)")
_READ = text("SELECT reservations FROM plans")
# Those behind it that have left the queue since count for nothing; those before it do, until the next plan.
_PLACES = text(
    """
    SELECT found.id, found.place, plans.queue[found.place - 1] AS ahead_id, substr(plans.rules, found.place, 1) AS rule
    FROM plans CROSS JOIN LATERAL (
        SELECT given.id, array_position(plans.queue, given.id) AS place
        FROM unnest(CAST(:ids AS bigint[])) AS given (id)
    ) AS found
    WHERE found.place IS NOT NULL
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


async def write(session: AsyncSession, order: QueueOrder) -> None:
    """Write the order of the queue."""
    await session.execute(_WRITE, {"queue": list(order.queue), "rules": order.rules})


async def ask_for_another(session: AsyncSession) -> None:
    """Have the planner plan anew, after a change that neither the queue nor the machines show.

    The last statement of its transaction: until the commit, no other plan is written.
    """
    await session.execute(_ASK)


async def clear(session: AsyncSession) -> None:
    """Empty the plan, because nothing is queued; nothing is written if it is empty."""
    await session.execute(_CLEAR)


async def write_single(session: AsyncSession, reservations: Sequence[Reservation], own: Own) -> None:
    """Write what is reserved, and why single simulations wait. Nothing is written where nothing has changed."""
    told = orjson.dumps({str(each): list(why) for each, why in own.items()}).decode()
    await session.execute(_SINGLE, {"reservations": _as_json(reservations), "own": told})


async def reservations(session: AsyncSession) -> Sequence[Reservation]:
    """Read what is reserved, the first first."""
    found = (await session.execute(_READ)).scalar_one_or_none()
    return [
        Reservation(each["simulation"], tuple(each["machines"]), datetime.fromisoformat(each["at"]))
        for each in found or ()
    ]


async def places_of(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Place]:
    """Return the places of these simulations in the order of the newest plan."""
    rows = await session.execute(_PLACES, {"ids": list(ids)})
    return {row.id: Place(row.place, row.ahead_id, row.rule) for row in rows}


def _as_json(reservations: Sequence[Reservation]) -> str:
    return orjson.dumps(
        [{"simulation": each.simulation_id, "machines": list(each.machine_ids), "at": each.at} for each in reservations]
    ).decode()
