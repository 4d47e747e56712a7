"""Bulk read of one metric's columns over all attempts, of one simulation or of many, without Python objects.

The driver would make a Python object of every number: half a second of CPU for a million points. So the server sends
each array as its wire bytes (`db.packed`). Points that later attempts superseded are left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import packed
from db.metrics import standing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAGE_POINTS = 250_000  # held as bytes at once, some 9 MB
FIRST_PAGE_ROWS = 64  # before anything is known of how many points a row has
MOST_ROWS = 8_192  # to a page
NEVER = 2**63 - 1  # beyond any batch and any step


@dataclass(frozen=True, slots=True)
class Part:
    """One attempt's points of a metric that no newer attempt supersedes."""

    attempt: int
    first_step: int  # of the attempt
    last_step: int  # of the attempt
    below: int | None  # it ends before this step


@dataclass(frozen=True, slots=True)
class Extent:
    """What is known of a curve before it is read."""

    parts: Sequence[Part]
    points: int  # of all attempts, superseded ones included; it never falls
    ended: bool  # the simulation has ended: points may still come late


@dataclass(frozen=True, slots=True)
class Points:
    """Points as columns. All (n,): steps rising int64, values and elapsed float64, attempts int32."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    elapsed: NDArray[np.float64]
    attempts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Points:
        return Points(self.steps[chosen], self.values[chosen], self.elapsed[chosen], self.attempts[chosen])


@dataclass(frozen=True, slots=True)
class Page:
    """Raw rows of one attempt; `unpack` belongs in a thread. Rows without `elapsed` become NaN there."""

    attempt: int
    rows: Sequence[tuple[bytes, bytes, bytes | None, int]]  # steps, values, elapsed, batch
    low: int
    high: int

    @property
    def last_batch(self) -> int:
        """The batch after which the next page begins."""
        return self.rows[-1][3]

    @property
    def next_rows(self) -> int:
        """How many rows the next page may have, if they are as long as these."""
        points = sum(packed.length(row[0]) for row in self.rows)
        return max(1, min(MOST_ROWS, PAGE_POINTS * len(self.rows) // max(points, 1)))

    def unpack(self) -> Points:
        """Convert pages to columns: the points from step `low` to `high`, both included."""
        import numpy as np

        steps, values, elapsed, _ = zip(*self.rows, strict=True)
        length = sum(map(packed.length, steps))
        points = Points(
            packed.steps_in(packed.joined(steps)),
            packed.values_in(packed.joined(values)),
            np.full(length, np.nan) if None in elapsed else packed.values_in(packed.joined(elapsed)),
            np.full(length, self.attempt, np.int32),
        )
        inside = (points.steps >= self.low) & (points.steps <= self.high)
        return points if inside.all() else points.take(inside)


_PARTS = text(
    """
    SELECT attempt, first_step, last_step FROM metrics
    WHERE simulation_id = :simulation_id AND metric = :metric ORDER BY attempt
    """
)

_PAGE = """
    SELECT array_send(steps), array_send("values"), array_send(elapsed), batch FROM convergence
    WHERE simulation_id = $1 AND attempt = $2 AND batch > $3 AND batch <= $4 AND metric = $5
    ORDER BY batch LIMIT $6
"""
# Whether a row lies in the range is asked only where there is one: the server has to unpack the row's steps for it.
_PAGE_WITHIN = """
    SELECT array_send(steps), array_send("values"), array_send(elapsed), batch FROM convergence
    WHERE simulation_id = $1 AND attempt = $2 AND batch > $3 AND batch <= $4 AND metric = $5
      AND steps[1] <= $7 AND steps[cardinality(steps)] >= $8
    ORDER BY batch LIMIT $6
"""

_EXTENTS = text(
    """
    SELECT m.simulation_id, m.attempt, m.first_step, m.last_step, m.count AS points, s.finished_at IS NOT NULL AS ended
    FROM metrics AS m JOIN simulations AS s ON s.id = m.simulation_id
    WHERE m.simulation_id = ANY(:ids) AND m.metric = :metric ORDER BY m.simulation_id, m.attempt
    """
)

# Arrays go as text: before its first statement with arrays a connection asks what they are.
_WHOLE = """
    SELECT p.simulation_id, p.attempt, array_send(c.steps), array_send(c."values"), {elapsed}, c.batch
    FROM unnest($1::text::bigint[], $2::text::integer[]) AS p (simulation_id, attempt)
    CROSS JOIN LATERAL (
        SELECT steps, "values", elapsed, batch FROM convergence
        WHERE simulation_id = p.simulation_id AND attempt = p.attempt AND metric = $3{within}
        OFFSET 0  -- each part is sought by itself, never all rows for a join
    ) AS c
"""
_WITHIN = " AND steps[1] <= $4 AND steps[cardinality(steps)] >= $5"
# By whether it is a range of steps, and whether elapsed seconds are asked for: the server writes each array number by
# number, which takes most of the statement's time.
_WHOLES = {
    (ranged, timed): _WHOLE.format(
        within=_WITHIN if ranged else "", elapsed="array_send(c.elapsed)" if timed else "NULL::bytea"
    )
    for ranged in (False, True)
    for timed in (False, True)
}

_ENDS = text(
    """
    SELECT a.attempt, (
        SELECT max(c.batch) FROM convergence AS c WHERE c.simulation_id = :simulation_id AND c.attempt = a.attempt
    )
    FROM (SELECT DISTINCT attempt FROM metrics WHERE simulation_id = :simulation_id) AS a
    ORDER BY a.attempt
    """
)


async def ends(session: AsyncSession, simulation_id: int) -> Mapping[int, int]:
    """The last batch with points of each attempt that has one, by attempt, first to last."""
    rows = await session.execute(_ENDS, {"simulation_id": simulation_id})
    return {row[0]: row[1] for row in rows}


async def parts(session: AsyncSession, simulation_id: int, metric: str) -> Sequence[Part]:
    """List each attempt's part of a metric that is not superseded, first to last."""
    rows = (await session.execute(_PARTS, {"simulation_id": simulation_id, "metric": metric})).all()
    return [Part(row.attempt, row.first_step, row.last_step, below) for row, below in standing(rows)]


async def extents(session: AsyncSession, ids: Collection[int], metric: str) -> Mapping[int, Extent]:
    """Describe a metric's curves of several simulations; one without points is left out."""
    rows = (await session.execute(_EXTENTS, {"ids": list(ids), "metric": metric})).all()
    found: dict[int, Extent] = {}
    for simulation_id, group in groupby(rows, key=lambda row: int(row.simulation_id)):
        attempts = list(group)
        listed = [Part(row.attempt, row.first_step, row.last_step, below) for row, below in standing(attempts)]
        found[simulation_id] = Extent(listed, sum(row.points for row in attempts), attempts[0].ended)
    return found


async def whole(
    session: AsyncSession,
    parts: Mapping[int, Sequence[Part]],
    metric: str,
    *,
    low: int = 0,
    high: int = NEVER,
    timed: bool = True,
) -> Mapping[int, Sequence[Page]]:
    """Read all parts of several simulations in one statement, from step `low` to `high`, both included.

    timed: with elapsed seconds.

    For short curves: nothing bounds the answer. A page for each attempt, first to last; a simulation without points is
    left out.
    """
    asked = [(simulation_id, part) for simulation_id, each in parts.items() for part in each]
    connection = await (await session.connection()).get_raw_connection()
    raw = connection.driver_connection
    assert raw is not None
    numbers, attempts = ",".join(str(number) for number, _ in asked), ",".join(str(part.attempt) for _, part in asked)
    arguments = [f"{{{numbers}}}", f"{{{attempts}}}", metric]
    ranged = low > 0 or high != NEVER
    rows = await raw.fetch(_WHOLES[ranged, timed], *arguments, *((high, low) if ranged else ()))
    by_attempt: dict[tuple[int, int], list[tuple[bytes, bytes, bytes | None, int]]] = {}
    for simulation_id, attempt, *columns in rows:
        by_attempt.setdefault((simulation_id, attempt), []).append(tuple(columns))
    found: dict[int, list[Page]] = {}
    for simulation_id, part in asked:
        if of_part := by_attempt.get((simulation_id, part.attempt)):
            last = min(high, part.below - 1) if part.below is not None else high
            page = Page(part.attempt, sorted(of_part, key=lambda row: row[3]), low, last)
            found.setdefault(simulation_id, []).append(page)
    return found


async def pages(
    session: AsyncSession,
    simulation_id: int,
    metric: str,
    part: Part,
    *,
    low: int = 0,
    high: int = NEVER,
    last_batch: int = NEVER,
) -> AsyncIterator[Page]:
    """Read a part from step `low` to `high`, both included, as far as the batch `last_batch`; steps rise."""
    after, rows = 0, FIRST_PAGE_ROWS
    while found := await find_page(
        session, simulation_id, metric, part, low=low, high=high, after=after, last_batch=last_batch, rows=rows
    ):
        yield found
        after, rows = found.last_batch, found.next_rows


async def find_page(
    session: AsyncSession,
    simulation_id: int,
    metric: str,
    part: Part,
    *,
    low: int = 0,
    high: int = NEVER,
    after: int = 0,
    last_batch: int = NEVER,
    rows: int = FIRST_PAGE_ROWS,
) -> Page | None:
    """Read the page that follows the batch `after`, for callers that hold no session between two; None at the end."""
    if part.below is not None:
        high = min(high, part.below - 1)
    if low > high or low > part.last_step or high < part.first_step:
        return None
    connection = await (await session.connection()).get_raw_connection()
    raw = connection.driver_connection
    assert raw is not None
    arguments = [simulation_id, part.attempt, after, last_batch, metric, rows]
    if low <= part.first_step and high >= part.last_step:
        found = await raw.fetch(_PAGE, *arguments)
    else:
        found = await raw.fetch(_PAGE_WITHIN, *arguments, high, low)
    return Page(part.attempt, found, low, high) if found else None
