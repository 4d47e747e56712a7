"""Curves in windows of steps, and finished runs of one name: reads of `graph.live.forecasts`.

PostgreSQL averages and looks for extremes, so that a curve of any length arrives as at most 201 rows. A window is 0.5 %
of the steps until `end`, as for stop rules (`policy.evaluations`); points that are not finite, and those that a later
attempt superseded, are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.metrics import standing

WINDOWS = 200
MOST_SIMILAR = 40  # finished runs, the newest ones
_NEVER = 2**63 - 1

# LIMIT before the metric is looked at: of a name with thousands of runs only the newest are read.
_SIMILAR = text(
    """
    SELECT s.id, s.reason, m.last_step, m.count FROM (
        SELECT id, reason FROM simulations
        WHERE name = :name AND project_id = :project_id AND state = 'FINISHED' AND reason = ANY(:reasons) AND id <> :id
        ORDER BY id DESC LIMIT :most
    ) AS s
    CROSS JOIN LATERAL (
        SELECT max(last_step) AS last_step, sum(count)::bigint AS count FROM metrics
        WHERE simulation_id = s.id AND metric = :metric
    ) AS m
    WHERE m.last_step IS NOT NULL
    ORDER BY s.id DESC
    """
)

_STRETCHES = text(
    """
    SELECT simulation_id, attempt, first_step, last_step FROM metrics
    WHERE simulation_id = ANY(:ids) AND metric = :metric
    ORDER BY simulation_id, attempt
    """
)

# OFFSET 0: a look-up by key for each attempt, never a join with the whole log, however many rows are expected.
_WINDOWS = text(
    """
    SELECT w.simulation_id, max(p.step) AS step, avg(p.value) AS value, min(p.value) AS low, max(p.value) AS high
    FROM unnest(CAST(:simulations AS bigint[]), CAST(:attempts AS integer[]), CAST(:below AS bigint[]),
                CAST(:ends AS bigint[])) AS w (simulation_id, attempt, below, last)
    CROSS JOIN LATERAL (
        SELECT steps, "values" FROM convergence
        WHERE simulation_id = w.simulation_id AND attempt = w.attempt AND metric = :metric OFFSET 0
    ) AS c
    CROSS JOIN LATERAL unnest(c.steps, c."values") AS p (step, value)
    WHERE p.step < w.below AND p.value BETWEEN -1e290 AND 1e290
    GROUP BY w.simulation_id, p.step * CAST(:windows AS bigint) / w.last
    ORDER BY w.simulation_id, step
    """
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run that has reported the metric."""

    simulation_id: int
    reason: str
    last_step: int
    points: int


@dataclass(frozen=True, slots=True)
class Windows:
    """A curve. steps: (n,), rising, of each window the last one with a point; the others: (n,), finite."""

    steps: Sequence[int] = ()
    values: Sequence[float] = ()  # means
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


async def similar(
    session: AsyncSession,
    simulation_id: int,
    *,
    project_id: int,
    name: str,
    metric: str,
    reasons: Collection[str],
) -> Sequence[Finished]:
    """List the newest other runs of this name and project that finished for one of these reasons, newest first."""
    rows = await session.execute(
        _SIMILAR,
        {
            "id": simulation_id,
            "project_id": project_id,
            "name": name,
            "metric": metric,
            "reasons": list(reasons),
            "most": MOST_SIMILAR,
        },
    )
    return [Finished(*row) for row in rows]


async def windows_of(session: AsyncSession, metric: str, ends: Mapping[int, int]) -> Mapping[int, Windows]:
    """Read the metric of these simulations in windows. ends: by simulation, the step that 200 windows reach to."""
    stretches = (await session.execute(_STRETCHES, {"ids": list(ends), "metric": metric})).all()
    wanted = [
        (number, each.attempt, below if below is not None else _NEVER, max(ends[number], 1))
        for number, group in groupby(stretches, key=lambda row: row.simulation_id)
        for each, below in standing(list(group))
    ]
    if not wanted:
        return {}
    simulations, attempts, below, lasts = map(list, zip(*wanted, strict=True))
    rows = await session.execute(
        _WINDOWS,
        {
            "simulations": simulations,
            "attempts": attempts,
            "below": below,
            "ends": lasts,
            "metric": metric,
            "windows": WINDOWS,
        },
    )
    return {
        number: Windows(*zip(*((row.step, row.value, row.low, row.high) for row in group), strict=True))
        for number, group in groupby(rows, key=lambda row: row.simulation_id)
    }
