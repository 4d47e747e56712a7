"""Running simulations with stop rules, and their new points: the reads of the judge (`scheduler.judge`).

Both come in one statement each for all of them, through the bare driver: the judge is woken by every batch that is
stored. Points are read from the cursor of each simulation on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Simulation
from db.outage import Driver

Cursor = tuple[int, int]  # attempt, batch: the last that was read
MOST_ROWS = 64  # of a simulation in one read, and the rest of the last batch


@dataclass(frozen=True, slots=True)
class Judged:
    """A running simulation with stop rules, and the version of those rules."""

    simulation_id: int
    attempt: int
    revision: int


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
# they move the cursor. Ties: a batch is read whole, so that a cursor is a batch.
READ = """
    SELECT w.simulation_id, c.attempt, c.batch, c.metric, c.steps, c."values"
    FROM unnest($1::text::bigint[], $2::text::integer[], $3::text::bigint[])
        AS w (simulation_id, attempt, batch)
    CROSS JOIN LATERAL (
        SELECT r.attempt, r.batch, r.metric,
               CASE WHEN r.metric = ANY ($4::text[]) THEN r.steps END AS steps,
               CASE WHEN r.metric = ANY ($4::text[]) THEN r."values" END AS "values"
        FROM convergence AS r
        WHERE r.simulation_id = w.simulation_id AND (r.attempt, r.batch) > (w.attempt, w.batch)
        ORDER BY r.attempt, r.batch FETCH FIRST $5 ROWS WITH TIES
    ) AS c
"""

# What differs from what is known, so that a look at thousands of simulations sends a few rows or none.
_CHANGED = """
    SELECT coalesce(s.id, w.id), s.attempt, s.stopping_revision
    FROM (
        SELECT id, attempt, stopping_revision FROM simulations
        WHERE stopping IS NOT NULL AND state = 'RUNNING'{among}
    ) AS s
    FULL JOIN unnest($1::text::bigint[], $2::text::integer[], $3::text::integer[])
        AS w (id, attempt, revision) ON w.id = s.id
    WHERE s.attempt IS DISTINCT FROM w.attempt OR s.stopping_revision IS DISTINCT FROM w.revision
"""
CHANGED = _CHANGED.format(among="")
CHANGED_AMONG = _CHANGED.format(among=" AND id = ANY ($4::bigint[])")

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
    columns = (
        _array(each.simulation_id for each in known),
        _array(each.attempt for each in known),
        _array(each.revision for each in known),
    )
    if among is None:
        rows = await driver.fetch(CHANGED, *columns)
    else:
        rows = await driver.fetch(CHANGED_AMONG, *columns, list(among))
    return [Judged(*row) for row in rows if row[1] is not None], [row[0] for row in rows if row[1] is None]


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
    driver: Driver, cursors: Mapping[int, Cursor], metrics: Collection[str], *, most_rows: int = MOST_ROWS
) -> Sequence[Any]:
    """Read what follows the cursor of each simulation, each in order.

    Rows have `simulation_id`, `attempt`, `batch`, `metric`, and, if it is one of these metrics, `steps` and `values`;
    else they are None. Of a simulation with `most_rows` or more there may be further ones.
    """
    attempts, batches = (_array(each[place] for each in cursors.values()) for place in (0, 1))
    rows: Sequence[Any] = await driver.fetch(READ, _array(cursors), attempts, batches, list(metrics), most_rows)
    return rows


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
