"""Watch leases of attended simulations: one for each graph process that has subscribers of a simulation.

A watcher is one run of a graph process, under a random name of its own. The process renews its lease while it has
subscribers and ends it at once when the last of them leaves; after a crash the lease runs out; all by Postgres' clock.
An ended lease is kept until the simulation has ended, or for the longest grace, because the grace is counted from it.

This module stops and starts no simulation: `policy.retry` judges the candidates, the planner acts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Watcher
from db.notifications import Channel, notify, payload_of

LONGEST_GRACE = timedelta(days=1)  # that createSimulation takes; what ended longer ago changes no answer

# One statement for all simulations that a process watches. Ordered by id, like every lock of several rows here.
_KEEP = text(
    """
    INSERT INTO watchers (simulation_id, watcher, watched_until)
    SELECT s.id, :watcher, clock_timestamp() + CAST(:lease AS interval) FROM simulations AS s
    WHERE s.id = ANY(:ids) AND s.attended AND s.state IN ('QUEUED', 'STARTING', 'RUNNING')
    ORDER BY s.id
    ON CONFLICT (simulation_id, watcher) DO UPDATE SET watched_until = excluded.watched_until
    RETURNING simulation_id
    """
)
_LEAVE = text(
    """
    UPDATE watchers SET watched_until = clock_timestamp()
    WHERE watcher = :watcher AND simulation_id = ANY(:ids)
    """
)

# Those whose grace has passed since they were assigned, began or lost their last subscriber.
UNWATCHED = """
    SELECT * FROM (
        SELECT s.id, s.attended_grace, greatest(
            a.assigned_at, a.started_at,
            (SELECT max(w.watched_until) FROM watchers AS w WHERE w.simulation_id = s.id)
        ) AS present_since
        FROM simulations AS s JOIN attempts AS a ON a.simulation_id = s.id AND a.ended_at IS NULL
        WHERE s.attended AND s.state IN ('STARTING', 'RUNNING')
          AND (a.stop_wanted_at IS NULL OR a.stop_reason = 'PREEMPTED')
    ) AS s
    WHERE s.present_since + s.attended_grace < now()
"""
_FIND_UNWATCHED = text(f"{UNWATCHED} ORDER BY s.id")
_GET_UNWATCHED = text(f"{UNWATCHED} AND s.id = :id")

# SKIP LOCKED: a process that renews a lease at this moment neither delays this statement nor waits for it.
_FORGET = text(
    """
    DELETE FROM watchers WHERE (simulation_id, watcher) IN (
        SELECT w.simulation_id, w.watcher FROM watchers AS w
        WHERE w.watched_until < now() - CAST(:longest AS interval) OR NOT EXISTS (
            SELECT FROM simulations AS s WHERE s.id = w.simulation_id AND s.state IN ('QUEUED', 'STARTING', 'RUNNING')
        )
        FOR UPDATE OF w SKIP LOCKED
    )
    """
)
_FORGIVE = text(
    """
    UPDATE watchers SET watched_until = now() WHERE (simulation_id, watcher) IN (
        SELECT w.simulation_id, w.watcher FROM watchers AS w
        WHERE w.watched_until > now() + CAST(:most AS interval)
        FOR UPDATE OF w SKIP LOCKED
    )
    """
)


async def keep(session: AsyncSession, watcher: str, ids: Collection[int], lease: timedelta) -> frozenset[int]:
    """Take or renew this watcher's leases; those of the ids that are attended and have not ended.

    The other ids are left alone, for good: what is not attended never will be, and final is final.
    """
    if not ids:
        return frozenset()
    kept = await session.scalars(_KEEP, {"watcher": watcher, "ids": sorted(ids), "lease": lease})
    return frozenset(kept.all())


async def leave(session: AsyncSession, watcher: str, ids: Collection[int]) -> None:
    """End this watcher's leases now: the last of its subscribers has left."""
    if ids:
        await session.execute(_LEAVE, {"watcher": watcher, "ids": sorted(ids)})


async def announce(session: AsyncSession, ids: Collection[int]) -> None:
    """Notify the planner of new watchers of these simulations, when the transaction commits."""
    if ids:
        await notify(session, Channel.SIMULATIONS, payload_of(sorted(ids)))


async def watched_of(session: AsyncSession, ids: Collection[int]) -> frozenset[int]:
    """Return which of these simulations are watched now."""
    if not ids:
        return frozenset()
    statement = select(Watcher.simulation_id).where(
        Watcher.simulation_id.in_(ids), Watcher.watched_until > func.clock_timestamp()
    )
    return frozenset((await session.scalars(statement)).all())


@dataclass(frozen=True, slots=True)
class Unwatched:
    """An attended simulation on a machine without a subscriber, and since when."""

    simulation_id: int
    grace: timedelta
    present_since: datetime  # when it was assigned, began or lost its last subscriber


async def find_unwatched(session: AsyncSession) -> Sequence[Unwatched]:
    """Find attended simulations that have had no subscriber for their grace, and that nothing has stopped yet."""
    return [Unwatched(*row) for row in await session.execute(_FIND_UNWATCHED)]


async def still_unwatched(session: AsyncSession, simulation_id: int) -> Unwatched | None:
    """Check again: a subscriber may have come meanwhile. The caller holds the simulation's lock."""
    row = (await session.execute(_GET_UNWATCHED, {"id": simulation_id})).one_or_none()
    return Unwatched(*row) if row is not None else None


async def sweep(session: AsyncSession, longest_lease: timedelta) -> None:
    """Delete leases that are not needed any more; end those that a clock set back has made longer."""
    await session.execute(_FORGET, {"longest": LONGEST_GRACE})
    await session.execute(_FORGIVE, {"most": longest_lease})
