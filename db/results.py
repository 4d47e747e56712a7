"""Results: the metrics of ended simulations, one row per metric over all attempts, in indexes to sort lists by.

What has not ended has no results: `LIVE` computes the same values from the summaries of its attempts.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import metrics

_KEEP = text(
    """
    INSERT INTO results (simulation_id, metric, last_value, min_value, max_value)
    SELECT * FROM unnest(CAST(:simulations AS bigint[]), CAST(:metrics AS text[]), CAST(:last AS float8[]),
                         CAST(:min AS float8[]), CAST(:max AS float8[]))
    ON CONFLICT (simulation_id, metric) DO UPDATE SET
        last_value = excluded.last_value, min_value = excluded.min_value, max_value = excluded.max_value
    """
)

# An older attempt's points count below the first step of a newer one (`metrics.standing`). An extreme that lies there
# stands; one that was cut off is looked for among the points that were not.
_EXTREME = """
    {aggregate}(CASE WHEN m.below IS NULL OR m.{column}_step < m.below THEN m.{column}_value ELSE (
        SELECT {aggregate}(p.value)
        FROM convergence AS c CROSS JOIN LATERAL unnest(c.steps, c."values") AS p (step, value)
        WHERE c.simulation_id = m.simulation_id AND c.attempt = m.attempt AND c.metric = m.metric AND p.step < m.below
          AND p.value NOT IN ('NaN', 'Infinity', '-Infinity')
    ) END)
"""
_LAST = "CASE WHEN m.last_value NOT IN ('NaN', 'Infinity', '-Infinity') THEN m.last_value END"
# Of a first attempt, which most are, and of several.
_VALUES = {
    "last_value": (_LAST, f"(array_agg({_LAST} ORDER BY m.attempt DESC))[1]"),
    "min_value": ("m.min_value", _EXTREME.format(aggregate="min", column="min")),
    "max_value": ("m.max_value", _EXTREME.format(aggregate="max", column="max")),
}
# (value) of the row of `simulations` beside it, which has begun and has not ended: correlated, so that it is computed
# for what a list's filter leaves, once (OFFSET 0), and always by the primary key of `metrics`.
LIVE = {
    column: f"""
    SELECT CASE WHEN simulations.attempt = 1 THEN (
        SELECT {of_first} FROM metrics AS m
        WHERE m.simulation_id = simulations.id AND m.attempt = 1 AND m.metric = :metric
    ) ELSE (
        SELECT {of_several}
        FROM (
            SELECT m.*, min(m.first_step) OVER (
                ORDER BY m.attempt DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS below
            FROM metrics AS m WHERE m.simulation_id = simulations.id AND m.metric = :metric
        ) AS m
        WHERE m.below IS NULL OR m.first_step < m.below
    ) END AS value OFFSET 0
    """  # noqa: S608  # constants of this module
    for column, (of_first, of_several) in _VALUES.items()
}


async def keep(session: AsyncSession, ids: Collection[int]) -> None:
    """Keep the results of simulations that have just ended."""
    found = [
        (simulation_id, each)
        for simulation_id, summaries in (await metrics.of_simulations(session, ids)).items()
        for each in summaries
    ]
    if found:
        values = {
            "simulations": [simulation_id for simulation_id, _ in found],
            "metrics": [each.metric for _, each in found],
            "last": [each.last_value if math.isfinite(each.last_value) else None for _, each in found],
            "min": [each.min_value for _, each in found],
            "max": [each.max_value for _, each in found],
        }
        await session.execute(_KEEP, values)
