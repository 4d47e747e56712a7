"""What ended: the decayed cost of each project, how much service runs of a learning class took, and how fast they were.

The planner reads the whole of it when it begins to lead, in three statements, and after that only what has ended
since. All are estimates: what was committed late enough to be missed, or was deleted, is a loss of precision and no
error. Service is in machine-seconds: the GPUs of all members, or for a run without GPUs its share of a machine, times
its useful run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# A member that costs nothing counts as one of a price that is next to nothing: where all machines are free, shares of
# machines decide, and beside any price they vanish.
RATE = "(greatest(m.price_per_hour, 0.000001) * m.share)::float8"
MOST_LEARNED = 100_000  # runs, the newest, that a planner learns from when it begins to lead
MOST_TIMED = 10_000  # attempts, the newest, whose step rates it reads then
# Reasons that end a run for a cause of its own: its service says how long such runs take.
BY_THEMSELVES = (
    "COMPLETED", "CANCELLED", "EXIT_CODE", "MAX_RUNTIME", "MAX_COST", "STOPPING_THRESHOLD", "PATIENCE_EXHAUSTED",
    "PRUNED", "DIVERGENCE_THRESHOLD", "NON_FINITE_METRIC",
)  # fmt: skip

# The integral of rate x 2^-((now - t) / half_life) over the member's time, in the rate's unit times seconds.
_SPENT = text(
    f"""
    WITH given AS (SELECT CAST(:half_life AS float8) AS h, CAST(:until AS timestamptz) AS until),
    held AS (
        SELECT s.project_id, {RATE} AS rate, m.assigned_at, m.ended_at
        FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id JOIN simulations AS s ON s.id = a.simulation_id
        WHERE m.ended_at IS NOT NULL AND m.ended_at > :until - CAST(:window AS interval) AND m.ended_at <= :until
        UNION ALL
        SELECT project_id, {RATE}, assigned_at, ended_at FROM deleted_members AS m
        WHERE ended_at > :until - CAST(:window AS interval) AND ended_at <= :until
    )
    SELECT project_id, sum(rate * h / ln(2) * (
        power(2, -extract(epoch FROM until - ended_at)::float8 / h)
        - power(2, -extract(epoch FROM until - assigned_at)::float8 / h)
    ))::float8 AS used
    FROM held CROSS JOIN given GROUP BY project_id
    """  # noqa: S608  # a constant
)
_ENDED = text(
    """
    SELECT s.project_id, s.name, s.learning_class,
           extract(epoch FROM s.attained + (a.ended_at - a.started_at))::float8
           * CASE WHEN s.gpus > 0 THEN s.gpus ELSE m.share::float8 END AS service
    FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id JOIN simulations AS s ON s.id = a.simulation_id
    WHERE m.ended_at > :since AND m.ended_at <= :until AND m.rank = 0 AND a.started_at IS NOT NULL
      AND a.number = s.attempt AND s.state IN ('FINISHED', 'FAILED', 'CANCELLED') AND s.reason = ANY(:reasons)
    ORDER BY m.ended_at DESC LIMIT :most
    """
)
# Steps per second of an attempt `a` of `s` that has ended, as `db.running` measures the current one's.
_STEP_RATE = """(
    SELECT (coalesce(max(x.last_step) FILTER (WHERE x.metric = s.objective_metric), max(x.last_step))
            - coalesce(min(x.first_step) FILTER (WHERE x.metric = s.objective_metric), min(x.first_step)))
           / nullif(extract(epoch FROM a.ended_at - a.started_at), 0)::float8
    FROM metrics AS x WHERE x.simulation_id = s.id AND x.attempt = a.number AND x.metric NOT LIKE 'system/%'
)"""
_TIMED = text(
    f"""
    SELECT s.project_id, s.name, s.learning_class, m.machine_id,
           extract(epoch FROM a.ended_at - a.started_at)::float8 AS seconds, {_STEP_RATE} AS step_rate
    FROM (
        SELECT attempt_id, machine_id FROM members
        WHERE ended_at > :since AND ended_at <= :until AND rank = 0 AND machine_id IS NOT NULL
        ORDER BY ended_at DESC LIMIT :most
    ) AS m
    JOIN attempts AS a ON a.id = m.attempt_id AND a.started_at IS NOT NULL AND a.ended_at IS NOT NULL
    JOIN simulations AS s ON s.id = a.simulation_id
    """  # noqa: S608  # a constant
)
_NEWLY = text(
    f"""
    SELECT m.id, s.project_id, {RATE} AS rate, m.assigned_at, m.ended_at, s.name, s.learning_class,
           CASE WHEN m.rank = 0 AND a.started_at IS NOT NULL AND a.number = s.attempt
                     AND s.state IN ('FINISHED', 'FAILED', 'CANCELLED') AND s.reason = ANY(:reasons)
                THEN extract(epoch FROM s.attained + (a.ended_at - a.started_at))::float8
                     * CASE WHEN s.gpus > 0 THEN s.gpus ELSE m.share::float8 END END AS service,
           CASE WHEN m.rank = 0 THEN m.machine_id END AS machine_id,
           extract(epoch FROM a.ended_at - a.started_at)::float8 AS seconds,
           CASE WHEN m.rank = 0 AND m.machine_id IS NOT NULL THEN {_STEP_RATE} END AS step_rate
    FROM members AS m
    CROSS JOIN LATERAL (SELECT * FROM attempts WHERE id = m.attempt_id OFFSET 0) AS a
    CROSS JOIN LATERAL (SELECT * FROM simulations WHERE id = a.simulation_id OFFSET 0) AS s
    WHERE m.ended_at > :since
    ORDER BY m.id
    """  # noqa: S608  # a constant
)


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ended by itself. service: in machine-seconds."""

    project_id: int
    name: str
    learning_class: int
    service: float


@dataclass(frozen=True, slots=True)
class Timed:
    """An attempt that ended: how long it ran on which machine, and its steps per second, where it reported steps."""

    project_id: int
    name: str
    learning_class: int
    machine_id: int
    seconds: float
    step_rate: float | None


@dataclass(frozen=True, slots=True)
class Past:
    """What ended up to a time. used: decayed cost by project, per hour times seconds."""

    used: Mapping[int, float]
    runs: Sequence[EndedRun]
    timed: Sequence[Timed] = ()


@dataclass(frozen=True, slots=True)
class EndedMember:
    """A member that has ended. service: of its run, if that ended with it and by itself. The rest is of rank 0 only."""

    id: int
    project_id: int
    rate: float  # per hour
    assigned_at: datetime
    ended_at: datetime
    name: str
    learning_class: int
    service: float | None
    machine_id: int | None = None
    seconds: float | None = None  # of its attempt
    step_rate: float | None = None


async def read(
    session: AsyncSession, until: datetime, *, half_life: timedelta, window: timedelta, learned: timedelta
) -> Past:
    """Add up all that ended until then: cost within `window`, services within `learned`."""
    spent = await session.execute(_SPENT, {"half_life": half_life.total_seconds(), "window": window, "until": until})
    given = {"since": until - learned, "until": until, "reasons": list(BY_THEMSELVES), "most": MOST_LEARNED}
    ended = await session.execute(_ENDED, given)
    timed = await session.execute(_TIMED, {"since": until - learned, "until": until, "most": MOST_TIMED})
    return Past(
        {row.project_id: row.used for row in spent},
        [EndedRun(*row) for row in ended],
        [Timed(*row) for row in timed],
    )


async def ended_since(session: AsyncSession, since: datetime) -> Sequence[EndedMember]:
    """Read the members that ended after this time: one entry of an index where there is none."""
    rows = await session.execute(_NEWLY, {"since": since, "reasons": list(BY_THEMSELVES)})
    return [EndedMember(*row) for row in rows]
