"""Convergence log: batches of columns, written once, read by cursor.

A batch is (simulation, attempt, batch number); it holds one row per metric, with `steps`, `values` and `elapsed` of
equal length. A cursor is (attempt, batch): attempts of a simulation follow one another and batches of an attempt are
numbered in the order they commit, so it can't pass over anything. (A global serial or a timestamp could: commits do
not land in the order of a sequence.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, billing, metrics
from db.attempts import Claim, Receipt
from db.billing import Holding
from db.outage import Driver
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
    """Points of one metric as read back. `supersedes_from`: older attempts' points from this step on are void."""

    metric: str
    steps: Sequence[int]
    values: Sequence[float]
    elapsed: Sequence[float]
    supersedes_from: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one report."""

    attempt: int
    batch: int
    series: tuple[Series, ...]

    @property
    def cursor(self) -> tuple[int, int]:
        return (self.attempt, self.batch)

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(series.metric for series in self.series)


@dataclass(frozen=True, slots=True)
class Head:
    """State of a simulation; read before its batches, so that a final state means that no batch is missing.

    The cost grows while nothing else changes: heads that differ only in cost are equal.
    """

    attempt: int
    state: SimulationState
    reason: Reason | None
    holdings: tuple[Holding, ...] = field(default=(), compare=False)  # by attempt, as of the time of reading
    read_at: float = field(default=0.0, compare=False)  # in seconds, by the monotonic clock of the process that reads

    def replaces(self, older: Head | None) -> bool:
        """Whether a head differs, or its cost is so much newer that the older should not be shown."""
        if older is None or self != older:
            return True
        runs = any(holding.is_open and holding.price_per_hour for holding in self.holdings)
        return runs and self.read_at - older.read_at >= MONEY_SECONDS / 2


# A batch is stored by one statement, in which what lets it in, the points and their summary follow from one another:
# each further one costs this process as much as the points of a hundred steps, and so there are no points without
# their summary. All parts of it see the same snapshot, and so all of them take their rows from `accepted`.
# Columns travel as text: asyncpg's binary arrays are made with some calls of Python per number. For 3 x 1,000 points
# text costs this process 0.65 ms instead of 1.6, and the server half a millisecond more; doubles stay the same bits.
def _storing(accepting: str, parameters: int) -> str:
    """Write the statement round one with so many parameters, which returns simulation_id, number and next_batch."""
    kinds = enumerate(("text", "text", "text", *metrics.KINDS), parameters + 1)
    columns = ", ".join(f"${number}::{kind}[]" for number, kind in kinds)
    return f"""
        WITH accepted AS ({accepting}),
        given AS (
            SELECT a.simulation_id, a.number, a.next_batch - 1 AS batch, g.*
            FROM accepted AS a, unnest({columns}) AS g (steps, "values", elapsed, {", ".join(metrics.NAMES)})
        ),
        stored AS (
            INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
            SELECT simulation_id, number, batch, metric, steps::bigint[], "values"::float8[], elapsed::float8[]
            FROM given
        ),
        kept AS ({metrics.KEEP})
        SELECT * FROM accepted
    """  # noqa: S608  # all parts are constants


# Only the points of rank 0 are the curve: a report of another member is accepted by `attempts.accept`.
_TAKE_IN = _storing(attempts.ACCEPT.replace("RETURNING", "AND m.rank = 0\n    RETURNING"), 4)
_STORE = _storing("SELECT $1::bigint AS simulation_id, $2::integer AS number, $3::bigint + 1 AS next_batch", 3)

# "First of its metric in this attempt" is an index look-up per row of the page, not a scan: the primary key begins
# with (simulation, attempt) and a superseding row needs to know it only from the second attempt on.
_READ = """
    WITH page AS (
        SELECT DISTINCT attempt, batch FROM convergence
        WHERE simulation_id = $1 AND (attempt, batch) > ($2, $3)
        ORDER BY attempt, batch LIMIT $4
    )
    SELECT c.attempt, c.batch, c.metric, c.steps, c."values", c.elapsed,
           c.attempt > 1 AND NOT EXISTS (
               SELECT FROM convergence AS p
               WHERE p.simulation_id = $1 AND p.attempt = c.attempt AND p.batch < c.batch AND p.metric = c.metric
           ) AS first_of_attempt
    FROM convergence AS c JOIN page USING (attempt, batch)
    WHERE c.simulation_id = $1
    ORDER BY c.attempt, c.batch, c.metric
"""

_END = text(
    """
    SELECT attempt, batch FROM convergence WHERE simulation_id = :simulation_id
    ORDER BY attempt DESC, batch DESC LIMIT 1
    """
)

# A row per member of each attempt, one without an attempt if there is none yet.
_HEAD = text(
    f"""
    SELECT s.attempt, s.state, s.reason, a.number, {billing.COLUMNS}
    FROM simulations AS s
    LEFT JOIN (attempts AS a JOIN members AS m ON m.attempt_id = a.id) ON a.simulation_id = s.id
    WHERE s.id = :simulation_id
    ORDER BY a.number, m.rank
    """  # noqa: S608  # a constant
)


async def take_in(
    driver: Driver,
    claim: Claim,
    batch: int,
    columns: Mapping[str, Column],
) -> Receipt | None:
    """Accept a batch of rank 0 like `attempts.accept`, and store it; None if it isn't the next of a current attempt.

    The statement is a transaction of its own, committed on return: BEGIN and COMMIT would cost as much again.
    """
    assert not driver.is_in_transaction()
    rows = await driver.fetch(_TAKE_IN, claim.attempt_id, claim.token_digest, claim.nonce, batch, *_given(columns))
    return attempts.receipt_of(tuple(rows[0]), stored=True) if rows else None


async def store(
    session: AsyncSession, simulation_id: int, attempt: int, batch: int, columns: Mapping[str, Column]
) -> None:
    """Write a batch that `attempts.accept` has accepted, and its summary, in the same transaction.

    columns: each with at least one point.
    """
    if columns:
        connection = await session.connection()
        await connection.exec_driver_sql(_STORE, (simulation_id, attempt, batch, *_given(columns)))


def _given(columns: Mapping[str, Column]) -> list[list[Any]]:
    """The rows of a batch, as columns."""
    summaries = [metrics.summarise(metric, column.steps, column.values) for metric, column in columns.items()]
    return [
        [_array(column.steps) for column in columns.values()],
        [_array(column.values) for column in columns.values()],
        [_array(column.elapsed) for column in columns.values()],
        *([getattr(summary, name) for summary in summaries] for name in metrics.NAMES),
    ]


def _array(numbers: Sequence[float]) -> str:
    """Write numbers as Postgres writes an array. Each double is written so that it is read as the same one."""
    written = orjson.dumps(numbers)
    if b"n" in written:  # a null: JSON has no numbers that are not finite
        return f"{{{','.join(map(repr, numbers))}}}"
    return f"{{{written[1:-1].decode()}}}"


async def read(driver: Driver, simulation_id: int, after: tuple[int, int], *, limit: int) -> Sequence[Batch]:
    """Read at most `limit` batches after the cursor, in order.

    Through the bare driver: called for every watched batch, and SQLAlchemy's overhead is four times the time of reading
    a hundred points.
    """
    rows = await driver.fetch(_READ, simulation_id, *after, limit)
    batches: list[Batch] = []
    for attempt, batch, metric, steps, values, elapsed, first_of_attempt in rows:
        series = Series(metric, steps, values, elapsed, steps[0] if first_of_attempt and steps else None)
        if batches and batches[-1].cursor == (attempt, batch):
            batches[-1] = Batch(attempt, batch, (*batches[-1].series, series))
        else:
            batches.append(Batch(attempt, batch, (series,)))
    return batches


def joined(batches: Iterable[Batch], most_points: int) -> Iterator[Batch]:
    """The same points in fewer batches: an attempt's that follow one another are one, with the cursor of the last.

    At most `most_points` are put together; a batch that has more comes as it is.
    """
    for _, of_attempt in groupby(batches, lambda batch: batch.attempt):
        together: list[Batch] = []
        points = 0
        for batch in of_attempt:
            more = sum(len(series.steps) for series in batch.series)
            if together and points + more > most_points:
                yield _one_of(together)
                together, points = [], 0
            together.append(batch)
            points += more
        yield _one_of(together)


def _one_of(batches: Sequence[Batch]) -> Batch:
    last = batches[-1]
    if len(batches) == 1:
        return last
    found: dict[str, list[Series]] = {}
    for batch in batches:
        for series in batch.series:
            found.setdefault(series.metric, []).append(series)
    return Batch(last.attempt, last.batch, tuple(_end_to_end(found[metric]) for metric in sorted(found)))


def _end_to_end(parts: Sequence[Series]) -> Series:
    return Series(
        parts[0].metric,
        [step for part in parts for step in part.steps],
        [value for part in parts for value in part.values],
        [seconds for part in parts for seconds in part.elapsed],
        parts[0].supersedes_from,  # only the first points of a metric in an attempt supersede
    )


def batch_of(attempt: int, batch: int, columns: Mapping[str, Column]) -> Batch:
    """The batch as it would be read back, if it supersedes nothing."""
    return Batch(
        attempt,
        batch,
        tuple(Series(name, each.steps, each.values, each.elapsed, None) for name, each in sorted(columns.items())),
    )


async def find_head(session: AsyncSession, simulation_id: int, read_at: float = 0.0) -> Head | None:
    """Where the simulation stands, None if there is none of this id. read_at: what time it is, for `Head.replaces`."""
    rows = (await session.execute(_HEAD, {"simulation_id": simulation_id})).all()
    if not rows:
        return None
    attempt, state, reason = rows[0][:3]
    return Head(
        attempt,
        SimulationState(state),
        Reason(reason) if reason is not None else None,
        tuple(Holding(*row[4:]) for row in rows if row[3] is not None),
        read_at,
    )


async def find_end(session: AsyncSession, simulation_id: int) -> tuple[int, int]:
    """The cursor of the newest batch, `START` if there is none."""
    row = (await session.execute(_END, {"simulation_id": simulation_id})).one_or_none()
    return (row[0], row[1]) if row is not None else START
