"""Coarse levels: long curves of ended simulations, thinned once and kept, so that a look at them reads few points.

The first reader of a curve makes its level (`graph.types.curve`), at the end of the simulation or later; no other code
has to write or delete one. A level holds the number of points that the curve had. The statement that stores a batch
also counts its points in `metrics`: a level counts only while both numbers are equal, however late points come. A
deletion takes it along by its foreign key.

Columns are the bytes of numpy's arrays: PostgreSQL copies them as they are, where it would write an array number by
number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.curve import Points


@dataclass(frozen=True, slots=True)
class Level:
    """A curve, thinned."""

    of: int  # points of all attempts, superseded ones included
    cursor: tuple[int, int]  # attempt and batch of the curve's end
    points: Points


_FIND = """
    SELECT l.simulation_id, l.points, l.attempt, l.batch, l.steps, l."values", {elapsed} AS elapsed, l.attempts
    FROM unnest(CAST(:ids AS bigint[]), CAST(:points AS bigint[])) AS w (simulation_id, points)
    JOIN curve_levels AS l USING (simulation_id, points)
    WHERE l.metric = :metric{timed}
"""
_FINDS = {
    True: text(_FIND.format(elapsed="l.elapsed", timed=" AND l.elapsed IS NOT NULL")),
    False: text(_FIND.format(elapsed="NULL::bytea", timed="")),
}

# The order is that of all who keep levels, so that none waits for one that waits for it. A simulation that is being
# deleted is passed over. Of two that read at the same time, the one that saw more stays.
_KEEP = text(
    """
    INSERT INTO curve_levels AS l (simulation_id, metric, points, attempt, batch, steps, "values", elapsed, attempts)
    SELECT g.simulation_id, :metric, g.points, g.attempt, g.batch, g.steps, g."values", g.elapsed, g.attempts
    FROM unnest(CAST(:ids AS bigint[]), CAST(:points AS bigint[]), CAST(:attempt AS integer[]),
                CAST(:batch AS bigint[]), CAST(:steps AS bytea[]), CAST(:values AS bytea[]),
                CAST(:elapsed AS bytea[]), CAST(:attempts AS bytea[]))
        AS g (simulation_id, points, attempt, batch, steps, "values", elapsed, attempts)
    JOIN simulations AS s ON s.id = g.simulation_id
    ORDER BY g.simulation_id
    FOR KEY SHARE OF s SKIP LOCKED
    ON CONFLICT (simulation_id, metric) DO UPDATE SET
        points = excluded.points, attempt = excluded.attempt, batch = excluded.batch, steps = excluded.steps,
        "values" = excluded."values", elapsed = excluded.elapsed, attempts = excluded.attempts
    WHERE l.points < excluded.points
       OR (l.points = excluded.points AND l.elapsed IS NULL AND excluded.elapsed IS NOT NULL)
    """
)


async def find(
    session: AsyncSession, metric: str, points: Mapping[int, int], *, timed: bool = True
) -> Mapping[int, Level]:
    """Read the levels of curves that have so many points, by simulation; one that is missing or older is left out.

    timed: with elapsed seconds; else these are NaN.
    """
    import numpy as np

    asked = {"ids": list(points), "points": list(points.values()), "metric": metric}
    found: dict[int, Level] = {}
    for row in await session.execute(_FINDS[timed], asked):
        steps = np.frombuffer(row.steps, "<i8")
        elapsed = np.frombuffer(row.elapsed, "<f8") if timed else np.full(len(steps), np.nan)
        columns = Points(steps, np.frombuffer(row.values, "<f8"), elapsed, np.frombuffer(row.attempts, "<i4"))
        found[row.simulation_id] = Level(row.points, (row.attempt, row.batch), columns)
    return found


async def keep(session: AsyncSession, metric: str, levels: Mapping[int, Level], *, timed: bool = True) -> None:
    """Keep the levels of a metric, by simulation. Simulations that are gone, or being deleted, are passed over.

    timed: their elapsed seconds were read.
    """
    columns = [each.points for each in levels.values()]
    given = {
        "metric": metric,
        "ids": list(levels),
        "points": [each.of for each in levels.values()],
        "attempt": [each.cursor[0] for each in levels.values()],
        "batch": [each.cursor[1] for each in levels.values()],
        "steps": [each.steps.astype("<i8").tobytes() for each in columns],
        "values": [each.values.astype("<f8").tobytes() for each in columns],
        "elapsed": [each.elapsed.astype("<f8").tobytes() if timed else None for each in columns],
        "attempts": [each.attempts.astype("<i4").tobytes() for each in columns],
    }
    await session.execute(_KEEP, given)
