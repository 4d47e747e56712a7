"""Simulations on machines as a plan sees them: what they hold, since when, and how far they are; and their progress.

Read once for each plan that is made, never for a tick in which nothing changed: as many rows as attempts are current.
Steps are the highest of the objective, else of any metric that the program itself reported (`metrics` has one row for
each metric of an attempt, so no points are read).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Place:
    """What one member holds."""

    machine_id: int
    share: Decimal


@dataclass(frozen=True, slots=True)
class Running:
    """A simulation with a current attempt."""

    id: int
    attempt: int
    project_id: int
    name: str
    priority: int
    created_at: datetime
    preemptible: bool
    max_runtime: timedelta | None
    max_steps: int | None
    queue_class: UUID
    learning_class: int
    attained: timedelta  # before this attempt
    assigned_at: datetime
    started_at: datetime | None
    stop_reason: str | None  # of its stop intent: it is about to leave
    stop_for: int | None  # the simulation that a preemption makes room for
    steps_done: int | None
    step_rate: float | None  # steps per second, of this attempt
    stored_at: datetime | None  # when this attempt stored its checkpoint the last time
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    machine_id: int | None  # the only one that it may run on
    machine_name: str | None
    max_price_per_hour: Decimal | None
    checkpoint_at: datetime | None  # when its newest checkpoint was written, on its machines
    places: tuple[Place, ...]  # by rank
    rate: float  # of all its members, per hour


# OFFSET 0 keeps each look-up of a simulation one by its id: a queue that has just grown would be read as a whole else.
# Of simulations `s` with a current attempt `a`. The rate is that of this attempt alone: an older one may have run on
# another machine.
_PROGRESS = """
    LEFT JOIN LATERAL (
        SELECT coalesce(max(x.last_step) FILTER (WHERE x.metric = s.objective_metric), max(x.last_step)) AS last,
               coalesce(min(x.first_step) FILTER (WHERE x.metric = s.objective_metric AND x.attempt = a.number),
                        min(x.first_step) FILTER (WHERE x.attempt = a.number)) AS first
        FROM metrics AS x WHERE x.simulation_id = s.id AND x.metric NOT LIKE 'system/%'
    ) AS done ON true
"""
_RATE = """
    CASE WHEN done.first IS NOT NULL AND {until} > a.started_at AND done.last > done.first
         THEN (done.last - done.first) / extract(epoch FROM {until} - a.started_at)::float8 END
"""
_READ = f"""
    SELECT s.id, a.number AS attempt, s.project_id, s.name, s.priority, s.created_at, s.preemptible, s.max_runtime,
           s.max_steps, s.queue_class, s.learning_class, s.attained, a.assigned_at, a.started_at, a.stop_reason,
           CASE WHEN jsonb_typeof(a.stop_evidence -> 'for') = 'number'
                THEN (a.stop_evidence -> 'for')::bigint END AS stop_for,
           done.last AS steps_done,
           {_RATE.format(until="now()")} AS step_rate,
           (SELECT max(f.stored_at) FROM stored_files AS f
            WHERE f.simulation_id = s.id AND f.kind = 'CHECKPOINT' AND f.attempt = a.number) AS stored_at,
           s.cpus, s.memory_gib, s.gpus, s.gpu_model, s.labels, s.machine_id, s.machine_name, s.max_price_per_hour,
           held.checkpoint_at, held.machine_ids, held.shares, held.rate
    FROM attempts AS a
    CROSS JOIN LATERAL (SELECT * FROM simulations WHERE id = a.simulation_id OFFSET 0) AS s
    JOIN LATERAL (
        SELECT array_agg(m.machine_id ORDER BY m.rank) AS machine_ids, array_agg(m.share ORDER BY m.rank) AS shares,
               sum(greatest(m.price_per_hour, 0.000001) * m.share)::float8 AS rate,
               max(m.checkpoint_at) AS checkpoint_at
        FROM members AS m WHERE m.attempt_id = a.id AND m.ended_at IS NULL
    ) AS held ON held.machine_ids IS NOT NULL
    {_PROGRESS}
    WHERE a.ended_at IS NULL
"""  # noqa: S608  # the constants above
_EVERY = text(f"{_READ} ORDER BY s.id")
_ON_MACHINES = text(
    f"{_READ} AND a.id IN (SELECT attempt_id FROM members WHERE machine_id = ANY(:machines) AND ended_at IS NULL) "  # noqa: S608  # as above
    "ORDER BY s.id"
)
_LEAVING = text(
    """
    SELECT a.simulation_id, a.stop_evidence ->> 'for' FROM attempts AS a
    WHERE a.ended_at IS NULL AND a.stop_reason = 'PREEMPTED' AND a.stop_evidence ->> 'for' = ANY(:ids)
    """
)
_KEEP = text(
    f"""
    UPDATE simulations SET attained = kept.attained, steps_done = kept.steps, step_rate = kept.rate
    FROM (
        SELECT s.id,
               CASE WHEN :goes_on THEN s.attained + greatest(coalesce(a.ended_at - a.started_at, interval '0'),
                                                             interval '0')
                    ELSE interval '0' END AS attained,
               CASE WHEN :goes_on THEN done.last END AS steps,
               CASE WHEN :goes_on THEN coalesce({_RATE.format(until="a.ended_at")}, s.step_rate) END AS rate
        FROM simulations AS s JOIN attempts AS a ON a.simulation_id = s.id AND a.number = :number
        {_PROGRESS}
        WHERE s.id = :id
    ) AS kept
    WHERE simulations.id = kept.id
      AND (simulations.attained, simulations.steps_done, simulations.step_rate)
          IS DISTINCT FROM (kept.attained, kept.steps, kept.rate)
    """  # noqa: S608  # the constants above
)

_BEGIN_ANEW = text("UPDATE simulations SET attained = interval '0', steps_done = NULL WHERE id = ANY(:ids)")


async def every(session: AsyncSession) -> Sequence[Running]:
    """Read all simulations with a current attempt, by id."""
    return [_running(row) for row in await session.execute(_EVERY)]


async def on_machines(session: AsyncSession, machine_ids: Collection[int]) -> Sequence[Running]:
    """Read the simulations with a current attempt that has a member on one of these machines, by id."""
    rows = await session.execute(_ON_MACHINES, {"machines": list(machine_ids)})
    return [_running(row) for row in rows]


async def leaving_for(session: AsyncSession, ids: Collection[int]) -> frozenset[tuple[int, int]]:
    """Return the simulations whose current attempt makes room for one of these, each with the one that it is for.

    The caller holds the locks of these simulations: as long as it does, no other planner makes room for them.
    """
    rows = await session.execute(_LEAVING, {"ids": [str(each) for each in ids]})
    return frozenset((row[0], int(row[1])) for row in rows)


async def begin_anew(session: AsyncSession, ids: Collection[int]) -> None:
    """Forget the progress of simulations whose next attempt begins from zero."""
    if ids:
        await session.execute(_BEGIN_ANEW, {"ids": list(ids)})


def _running(row: Sequence[Any]) -> Running:
    machine_ids, shares, rate = row[-3:]
    held = [Place(*each) for each in zip(machine_ids, shares, strict=True) if each[0] is not None]
    return Running(*[*row[:-3], tuple(held), rate])


async def keep_progress(session: AsyncSession, simulation_id: int, number: int, *, goes_on: bool) -> None:
    """Write down how far a simulation is whose attempt has ended and which goes back to the queue.

    goes_on: it was preempted, and goes on from its checkpoint; else it begins anew.
    """
    await session.execute(_KEEP, {"id": simulation_id, "number": number, "goes_on": goes_on})
