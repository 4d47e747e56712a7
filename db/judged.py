"""Running simulations with stop rules, and their new points: the reads of the judge (`scheduler.judge`).

Both come in one statement each for all of them, through the bare driver: the judge is woken by every batch that is
stored. Points are read from the cursor of each simulation on, and come as one row of columns: a row for each batch
costs the driver more than the rules. A look at all simulations compares a fingerprint of theirs, not each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import packed
from db.models import Simulation
from db.outage import Driver

Cursor = tuple[int, int]  # attempt, batch: the last that was read
Fingerprint = tuple[int, int]  # how many simulations, and their marks, all combined by XOR
FEW_METRICS = 20  # asked for in one read
MOST_ROWS = 64  # of a simulation in one read, and the rest of the last batch


@dataclass(frozen=True, slots=True)
class Judged:
    """A running simulation with stop rules, and the version of those rules. mark: a hash of the other fields."""

    simulation_id: int
    attempt: int
    revision: int
    mark: int


@dataclass(frozen=True, slots=True)
class News:
    """Rows behind the cursors as columns, each (n,): those of one simulation together and in order.

    places: of the simulation among those that were asked for, from 0. metrics: None of a metric that was not asked
    for. counts: points of the row, 0 then.
    """

    places: Sequence[int] = ()
    attempts: Sequence[int] = ()
    batches: Sequence[int] = ()
    metrics: Sequence[str | None] = ()
    counts: Sequence[int] = ()
    _steps: bytes | None = None
    _values: bytes | None = None

    def __len__(self) -> int:
        return len(self.places)

    def unpack(self) -> tuple[Sequence[int], Sequence[float]]:
        """Return steps and values of all rows, one after the other; belongs in a thread."""
        return packed.steps_in(self._steps or b"").tolist(), packed.values_in(self._values or b"").tolist()


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of a simulation as its row keeps them, and what its dry runs have recorded."""

    document: Mapping[str, Any] | None
    objective: str | None
    max_steps: int | None
    would_stop: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pace:
    """Progress of a current attempt: from its first step of a metric to the last, in its time so far."""

    seconds: float
    first_step: int
    last_step: int
    max_steps: int | None
    per_hour: Decimal
    currency: str


# Along the primary key from each cursor on, however long the curve is. Rows of other metrics come without their points:
# they move the cursor. Ties: a batch is read whole, so that a cursor is a batch. Arrays come without their headers.
_READ = f"""
    SELECT array_agg(w.place - 1), array_agg(c.attempt), array_agg(c.batch),
           array_agg(CASE WHEN c.is_asked THEN c.metric END),
           array_agg(CASE WHEN c.is_asked THEN cardinality(c.steps) ELSE 0 END),
           string_agg({packed.sent("c.steps")}, ''::bytea) FILTER (WHERE c.is_asked),
           string_agg({packed.sent('c."values"')}, ''::bytea) FILTER (WHERE c.is_asked)
    FROM unnest($1::text::bigint[], $2::text::integer[], $3::text::bigint[])
        WITH ORDINALITY AS w (simulation_id, attempt, batch, place)
    CROSS JOIN LATERAL (
        SELECT r.attempt, r.batch, r.metric, {{is_asked}} AS is_asked, r.steps, r."values"
        FROM convergence AS r
        WHERE r.simulation_id = w.simulation_id AND (r.attempt, r.batch) > (w.attempt, w.batch)
        ORDER BY r.attempt, r.batch FETCH FIRST $5 ROWS WITH TIES
    ) AS c
"""  # noqa: S608  # constants
READ = _READ.format(is_asked="r.metric = ANY ($4::text[])")
READ_MANY = _READ.format(is_asked="r.metric IN (SELECT unnest($4::text[]))")  # hashed; the other compares with each

# A hash of what the judge has to know of a simulation: by it, memory and rows are compared.
_MARK = "hashint8extended(id, attempt::bigint << 32 | stopping_revision)"
_RUNNING = "stopping IS NOT NULL AND state = 'RUNNING'"  # as in ix_simulations_judged

FINGERPRINT = f"SELECT count(*), coalesce(bit_xor({_MARK}), 0) FROM simulations WHERE {_RUNNING}"  # noqa: S608  # constants

# What differs from what is known, so that a look at thousands of simulations sends a few rows or none.
_CHANGED = f"""
    SELECT coalesce(s.id, w.id), s.attempt, s.stopping_revision, s.mark
    FROM (
        SELECT id, attempt, stopping_revision, {_MARK} AS mark FROM simulations WHERE {_RUNNING}{{among}}
    ) AS s
    FULL JOIN unnest($1::text::bigint[], $2::text::bigint[]) AS w (id, mark) ON w.id = s.id
    WHERE s.mark IS DISTINCT FROM w.mark
"""  # noqa: S608  # constants
CHANGED = _CHANGED.format(among="")
CHANGED_AMONG = _CHANGED.format(among=" AND id = ANY ($3::bigint[])")

_PACE = text(
    """
    SELECT extract(epoch FROM now() - a.started_at)::float8, p.first_step, p.last_step, s.max_steps,
           (SELECT sum(round(m.price_per_hour * m.share, 6)) FROM members AS m WHERE m.attempt_id = a.id),
           (SELECT min(m.currency) FROM members AS m WHERE m.attempt_id = a.id)
    FROM simulations AS s
    JOIN attempts AS a ON a.simulation_id = s.id AND a.number = s.attempt
    JOIN metrics AS p ON p.simulation_id = s.id AND p.attempt = s.attempt AND p.metric = :metric
    WHERE s.id = :id AND a.started_at IS NOT NULL
    """
)


async def changes(
    driver: Driver, known: Collection[Judged], among: Collection[int] | None = None
) -> tuple[Sequence[Judged], Sequence[int]]:
    """Compare the running simulations with rules with the known ones: those that are new or changed, and ids of others.

    The others no longer run, or have no rules. among: look at these ids only; `known` then has none but them.
    """
    ids, marks = (_array(each.simulation_id for each in known), _array(each.mark for each in known))
    if among is None:
        rows = await driver.fetch(CHANGED, ids, marks)
    else:
        rows = await driver.fetch(CHANGED_AMONG, ids, marks, list(among))
    return [Judged(*row) for row in rows if row[1] is not None], [row[0] for row in rows if row[1] is None]


async def fingerprint(driver: Driver) -> Fingerprint:
    """Read how many simulations with rules are running, and their marks as one number."""
    row = await driver.fetchrow(FINGERPRINT)
    assert row is not None
    return tuple(row)


async def rules_of(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Rules]:
    """Read the rules of these simulations."""
    rows = await session.execute(
        select(
            Simulation.id,
            Simulation.stopping,
            Simulation.objective_metric,
            Simulation.max_steps,
            Simulation.would_stop,
        ).where(Simulation.id.in_(ids))
    )
    return {
        number: Rules(document, objective, max_steps, would_stop or {})
        for number, document, objective, max_steps, would_stop in rows
    }


async def with_points(session: AsyncSession, ids: Collection[int]) -> frozenset[int]:
    """Which of these simulations have reported any point."""
    rows = await session.scalars(
        text(
            "SELECT w.id FROM unnest(CAST(:ids AS bigint[])) AS w (id) "
            "WHERE EXISTS (SELECT FROM metrics AS m WHERE m.simulation_id = w.id)"
        ),
        {"ids": list(ids)},
    )
    return frozenset(rows)


async def read(
    driver: Driver,
    ids: Sequence[int],
    attempts: Sequence[int],
    batches: Sequence[int],
    metrics: Sequence[str],
    *,
    most_rows: int = MOST_ROWS,
) -> News:
    """Read what follows the cursor of each simulation, with the points of these metrics.

    Of a simulation with `most_rows` rows or more there may be further ones.
    """
    statement = READ if len(metrics) <= FEW_METRICS else READ_MANY
    row = await driver.fetchrow(statement, _array(ids), _array(attempts), _array(batches), metrics, most_rows)
    assert row is not None
    return News(*row) if row[0] is not None else News()


def _array(numbers: Iterable[int]) -> str:
    """Write an array as text: asyncpg asks each element of a list whether it is a list itself, 0.4 us an integer."""
    return "{" + ",".join(map(str, numbers)) + "}"


async def find_pace(session: AsyncSession, simulation_id: int, metric: str) -> Pace | None:
    """Read the progress of the current attempt; None where it has reported no point."""
    row = (await session.execute(_PACE, {"id": simulation_id, "metric": metric})).one_or_none()
    return Pace(*row) if row is not None else None


async def note_would_stop(
    session: AsyncSession, simulation: Simulation, place: int, evidence: Mapping[str, Any]
) -> bool:
    """Record what a dry-run rule would have stopped, once; False if that rule has a record already.

    simulation: locked and read in this transaction. place: of the rule in its list.
    """
    recorded = simulation.would_stop or {}
    if str(place) in recorded:
        return False
    await session.execute(
        update(Simulation)
        .where(Simulation.id == simulation.id)
        .values(would_stop={**recorded, str(place): dict(evidence)})
        .execution_options(synchronize_session=False)
    )
    return True
