"""The convergence log: batches of columns, written once, read by cursor.

A batch is (simulation, attempt, batch number); it holds one row per metric, with `steps`, `values` and `elapsed` of
equal length. A cursor is (attempt, batch): attempts of a simulation follow one another and batches of an attempt are
numbered in the order they commit, so it can't pass over anything. (A global serial or a timestamp could: commits do
not land in the order of a sequence.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import billing, metrics
from db.billing import Holding
from db.states import Reason, SimulationState

START = (0, 0)
MONEY_SECONDS = 10  # how old an amount may be that is shown as the cost so far


@dataclass(frozen=True, slots=True)
class Column:
    """Points of one metric. steps: (n,) rising; values: (n,), may be NaN or infinite; elapsed: (n,) seconds."""

    steps: Sequence[int]
    values: Sequence[float]
    elapsed: Sequence[float]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one metric as read back. `supersedes_from`: what older attempts said from this step on is void."""

    metric: str
    steps: Sequence[int]
    values: Sequence[float]
    elapsed: Sequence[float]
    supersedes_from: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one report brought."""

    attempt: int
    batch: int
    series: tuple[Series, ...]

    @property
    def cursor(self) -> tuple[int, int]:
        return (self.attempt, self.batch)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a simulation stands; read before its batches, so that a final state means that none is missing.

    Money runs while nothing else changes: it makes no head a different one.
    """

    attempt: int
    state: SimulationState
    reason: Reason | None
    holdings: tuple[Holding, ...] = field(default=(), compare=False)  # by attempt, as of the time of reading
    read_at: int = field(default=0, compare=False)  # Unix time in seconds, by Postgres' clock

    def replaces(self, older: Head | None) -> bool:
        """Whether it says something else, or its money is so much newer that the older one should not be shown."""
        if older is None or self != older:
            return True
        runs = any(holding.is_open and holding.price_per_hour for holding in self.holdings)
        return runs and not 0 <= self.read_at - older.read_at < MONEY_SECONDS


# One statement for points and summary: a second one costs a batch twice as much of this process's time, and so
# there are no points without their summary.
# Columns travel as text: asyncpg's binary arrays are made with some calls of Python per number. For 3 x 1,000 points
# text costs this process 0.65 ms instead of 1.6, and the server half a millisecond more; doubles stay the same bits.
_STORE = text(
    f"""
    WITH stored AS (
        INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
        VALUES (:simulation_id, :attempt, :batch, :metric, CAST(CAST(:steps AS text) AS bigint[]),
                CAST(CAST(:values AS text) AS float8[]), CAST(CAST(:elapsed AS text) AS float8[]))
    )
    {metrics.KEEP}
    """  # noqa: S608  # both halves are constants
)

# "First of its metric in this attempt" is an index look-up per row of the page, not a scan: the primary key begins
# with (simulation, attempt) and a superseding row needs to know it only from the second attempt on.
_READ = text(
    """
    WITH page AS (
        SELECT DISTINCT attempt, batch FROM convergence
        WHERE simulation_id = :simulation_id AND (attempt, batch) > (:attempt, :batch)
        ORDER BY attempt, batch LIMIT :limit
    )
    SELECT c.attempt, c.batch, c.metric, c.steps, c."values", c.elapsed,
           c.attempt > 1 AND NOT EXISTS (
               SELECT FROM convergence AS p
               WHERE p.simulation_id = :simulation_id AND p.attempt = c.attempt AND p.batch < c.batch
                 AND p.metric = c.metric
           ) AS first_of_attempt
    FROM convergence AS c JOIN page USING (attempt, batch)
    WHERE c.simulation_id = :simulation_id
    ORDER BY c.attempt, c.batch, c.metric
    """
)

_END = text(
    """
    SELECT attempt, batch FROM convergence WHERE simulation_id = :simulation_id
    ORDER BY attempt DESC, batch DESC LIMIT 1
    """
)

# A row per attempt, one without an attempt if there is none yet.
_HEAD = text(
    f"""
    SELECT s.attempt, s.state, s.reason, CAST(extract(epoch FROM now()) AS bigint), a.number, {billing.COLUMNS}
    FROM simulations AS s LEFT JOIN attempts AS a ON a.simulation_id = s.id
    WHERE s.id = :simulation_id
    ORDER BY a.number
    """  # noqa: S608  # a constant
)


async def store(
    session: AsyncSession, simulation_id: int, attempt: int, batch: int, columns: Mapping[str, Column]
) -> None:
    """Write a batch that `attempts.accept` has let in, and its summary, in the same transaction.

    columns: each with at least one point.
    """
    if columns:
        await session.execute(
            _STORE,
            [
                {
                    "simulation_id": simulation_id,
                    "attempt": attempt,
                    "batch": batch,
                    "steps": _array(column.steps),
                    "values": _array(column.values),
                    "elapsed": _array(column.elapsed),
                    **asdict(metrics.summarise(metric, column.steps, column.values)),
                }
                for metric, column in columns.items()
            ],
        )


def _array(numbers: Sequence[float]) -> str:
    """Write numbers as Postgres writes an array. Each double is written so that it is read as the same one."""
    if math.isfinite(sum(numbers)):  # JSON has no others; a sum that overflows only costs the slower way
        return f"{{{orjson.dumps(numbers)[1:-1].decode()}}}"
    return f"{{{','.join(map(repr, numbers))}}}"


async def read(session: AsyncSession, simulation_id: int, after: tuple[int, int], *, limit: int) -> Sequence[Batch]:
    """At most `limit` batches behind the cursor, in order."""
    rows = await session.execute(
        _READ, {"simulation_id": simulation_id, "attempt": after[0], "batch": after[1], "limit": limit}
    )
    batches: list[Batch] = []
    for attempt, batch, metric, steps, values, elapsed, first_of_attempt in rows:
        series = Series(metric, steps, values, elapsed, steps[0] if first_of_attempt and steps else None)
        if batches and batches[-1].cursor == (attempt, batch):
            batches[-1] = Batch(attempt, batch, (*batches[-1].series, series))
        else:
            batches.append(Batch(attempt, batch, (series,)))
    return batches


async def find_head(session: AsyncSession, simulation_id: int) -> Head | None:
    """Where the simulation stands, None if there is none of this id."""
    rows = (await session.execute(_HEAD, {"simulation_id": simulation_id})).all()
    if not rows:
        return None
    attempt, state, reason, read_at = rows[0][:4]
    return Head(
        attempt,
        SimulationState(state),
        Reason(reason) if reason is not None else None,
        tuple(Holding(*row[5:]) for row in rows if row[4] is not None),
        read_at,
    )


async def find_end(session: AsyncSession, simulation_id: int) -> tuple[int, int]:
    """The cursor of the newest batch, `START` if there is none."""
    row = (await session.execute(_END, {"simulation_id": simulation_id})).one_or_none()
    return (row[0], row[1]) if row is not None else START
