"""Summaries of metrics: count, last, minimum and maximum, updated as batches are stored.

There is one row per attempt, and rows are merged when read. After a retry the older attempts of a metric end before
the new one's first step: most rows then count as a whole or not at all, and a row that is cut in two is counted anew
from the log. A value that is not finite is counted and may be the last value; it is never a minimum or a maximum.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Protocol, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of points of one metric. The extremes are the first of their value, None if no value is finite."""

    metric: str
    count: int
    first_step: int
    last_step: int
    last_value: float
    min_step: int | None
    min_value: float | None
    max_step: int | None
    max_value: float | None


class Stretch(Protocol):
    """Summary of an attempt's points of a metric, from one step to another."""

    @property
    def first_step(self) -> int: ...
    @property
    def last_step(self) -> int: ...


AnyStretch = TypeVar("AnyStretch", bound=Stretch)

# Of a summary in a statement: its columns, and their types.
NAMES = tuple(field.name for field in fields(Summary))
KINDS = ("text", "bigint", "bigint", "bigint", "float8", "bigint", "float8", "bigint", "float8")

# A part of the statement that stores a batch: `convergence` has the rest, with a row of `given` for each metric.
KEEP = """
    INSERT INTO metrics AS m (simulation_id, attempt, metric, count, first_step, last_step, last_value,
                              min_step, min_value, max_step, max_value)
    SELECT simulation_id, number, metric, count, first_step, last_step, last_value,
           min_step, min_value, max_step, max_value
    FROM given
    ON CONFLICT (simulation_id, attempt, metric) DO UPDATE SET
        count = m.count + excluded.count,
        last_step = excluded.last_step,
        last_value = excluded.last_value,
        min_step = CASE WHEN m.min_value IS NULL OR excluded.min_value < m.min_value
                        THEN excluded.min_step ELSE m.min_step END,
        min_value = least(m.min_value, excluded.min_value),
        max_step = CASE WHEN m.max_value IS NULL OR excluded.max_value > m.max_value
                        THEN excluded.max_step ELSE m.max_step END,
        max_value = greatest(m.max_value, excluded.max_value)
"""

_READ = text(
    """
    SELECT simulation_id, attempt, metric, count, first_step, last_step, last_value,
           min_step, min_value, max_step, max_value
    FROM metrics WHERE simulation_id = ANY(:ids)
    ORDER BY simulation_id, metric, attempt
    """
)

# Arrays compare element by element: the least (value, step) is the minimum where it was reached first, and the
# greatest (value, -step) the maximum. A float holds every step exactly, for they end at 2^53.
_COUNT_ANEW = text(
    """
    SELECT simulation_id, attempt, metric, count(*), min(step), max(step), (max(ARRAY[step, value]))[2],
           min(ARRAY[value, step]) FILTER (WHERE finite), max(ARRAY[value, -step]) FILTER (WHERE finite)
    FROM (
        SELECT w.simulation_id, w.attempt, w.metric, CAST(p.step AS float8) AS step, p.value,
               p.value NOT IN ('NaN', 'Infinity', '-Infinity') AS finite
        FROM unnest(CAST(:simulations AS bigint[]), CAST(:attempts AS integer[]), CAST(:metrics AS text[]),
                    CAST(:below AS bigint[])) AS w (simulation_id, attempt, metric, below)
        JOIN convergence AS c USING (simulation_id, attempt, metric)
        CROSS JOIN LATERAL unnest(c.steps, c."values") AS p (step, value)
        WHERE p.step < w.below
    ) AS points
    GROUP BY simulation_id, attempt, metric
    """
)


def summarise(metric: str, steps: Sequence[int], values: Sequence[float]) -> Summary:
    """Sum up a column. steps: (n,), rising, n > 0; values: (n,)."""
    finite_steps, finite_values = steps, values
    if not math.isfinite(sum(values)):  # the cheapest look at all of them; a sum that overflows only costs a second
        pairs = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
        finite_steps, finite_values = [step for step, _ in pairs], [value for _, value in pairs]
    if not finite_values:
        return Summary(metric, len(steps), steps[0], steps[-1], values[-1], None, None, None, None)
    least, greatest = min(finite_values), max(finite_values)
    return Summary(
        metric,
        len(steps),
        steps[0],
        steps[-1],
        values[-1],
        finite_steps[finite_values.index(least)],
        least,
        finite_steps[finite_values.index(greatest)],
        greatest,
    )


def standing(attempts: Sequence[AnyStretch]) -> Iterator[tuple[AnyStretch, int | None]]:
    """List the attempts with points of a metric that still count, and the step before which each one's end.

    attempts: first to last; so is the result. None: no newer attempt cuts its points.
    """
    ends: list[int | None] = []
    end: int | None = None
    for attempt in reversed(attempts):
        ends.append(end)
        end = attempt.first_step if end is None else min(end, attempt.first_step)
    for attempt, below in zip(attempts, reversed(ends), strict=True):
        if below is None or attempt.first_step < below:
            yield attempt, below


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Sequence[Summary]]:
    """Read the metrics of each simulation by name, merged over its attempts; simulations without one are left out."""
    pieces: dict[tuple[int, str], list[Summary]] = {}
    cut: list[tuple[int, int, str, int]] = []
    rows = (await session.execute(_READ, {"ids": list(ids)})).all()
    places: dict[tuple[int, int, str], int] = {}
    for (simulation_id, metric), group in groupby(rows, key=lambda row: (row.simulation_id, row.metric)):
        whole = pieces.setdefault((simulation_id, metric), [])
        for row, below in standing(list(group)):
            if below is not None and row.last_step >= below:
                cut.append((simulation_id, row.attempt, metric, below))
                places[simulation_id, row.attempt, metric] = len(whole)
            whole.append(Summary(*row[2:]))
    for simulation_id, attempt, summary in await _count_anew(session, cut):
        pieces[simulation_id, summary.metric][places[simulation_id, attempt, summary.metric]] = summary
    merged: dict[int, list[Summary]] = {}
    for (simulation_id, _), summaries in pieces.items():
        merged.setdefault(simulation_id, []).append(_merge(summaries))
    return merged


async def names(session: AsyncSession, simulation_id: int) -> Sequence[str]:
    """List the metrics that a simulation has reported, by name."""
    found = await session.scalars(
        text("SELECT DISTINCT metric FROM metrics WHERE simulation_id = :id ORDER BY metric"), {"id": simulation_id}
    )
    return found.all()


async def long_of_ended(session: AsyncSession, simulation_id: int, least: int) -> Sequence[str]:
    """List the metrics of an ended simulation that have at least so many points, by name; none before its end."""
    found = await session.scalars(
        text(
            "SELECT m.metric FROM metrics AS m JOIN simulations AS s ON s.id = m.simulation_id "
            "WHERE s.id = :id AND s.finished_at IS NOT NULL GROUP BY m.metric HAVING sum(m.count) >= :least "
            "ORDER BY m.metric"
        ),
        {"id": simulation_id, "least": least},
    )
    return found.all()


async def _count_anew(
    session: AsyncSession, cut: Sequence[tuple[int, int, str, int]]
) -> Sequence[tuple[int, int, Summary]]:
    """Count the points below a step anew from the log, in one statement: (simulation, attempt, summary)."""
    if not cut:
        return ()
    simulations, attempts, metrics, below = map(list, zip(*cut, strict=True))
    rows = await session.execute(
        _COUNT_ANEW, {"simulations": simulations, "attempts": attempts, "metrics": metrics, "below": below}
    )
    return [
        (
            simulation_id,
            attempt,
            Summary(metric, count, int(first), int(last), value, *_step_and_value(least), *_step_and_value(greatest)),
        )
        for simulation_id, attempt, metric, count, first, last, value, least, greatest in rows
    ]


def _step_and_value(found: Sequence[float] | None) -> tuple[int | None, float | None]:
    return (abs(int(found[1])), found[0]) if found is not None else (None, None)


def _merge(summaries: Sequence[Summary]) -> Summary:
    """Merge summaries: at least one, in the order of their steps, so that the first extreme wins."""
    lows = [each for each in summaries if each.min_value is not None]
    highs = [each for each in summaries if each.max_value is not None]
    low = min(lows, key=lambda each: each.min_value or 0.0, default=None)
    high = max(highs, key=lambda each: each.max_value or 0.0, default=None)
    return Summary(
        summaries[0].metric,
        sum(each.count for each in summaries),
        summaries[0].first_step,
        summaries[-1].last_step,
        summaries[-1].last_value,
        low.min_step if low is not None else None,
        low.min_value if low is not None else None,
        high.max_step if high is not None else None,
        high.max_value if high is not None else None,
    )
