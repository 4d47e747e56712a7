"""Running simulations with stop rules, and their new points: the reads of the judge (`scheduler.judge`).

The points of all of them come in one statement, from the cursor of each on, through the bare driver: it is called
for every batch that is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Simulation
from db.outage import Driver
from db.states import SimulationState

Cursor = tuple[int, int]  # attempt, batch: the last that was read
MOST_ROWS = 64  # of a simulation in one read; the batch that the last of them is in is read whole


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


# The last row of the page gives the simulation's new cursor, also where no metric of the rules is in it. Each of the
# two look-ups goes along the primary key from the cursor on, however long the curve is.
READ = """
    SELECT w.simulation_id, page.attempt AS page_attempt, page.batch AS page_batch, page.rows AS page_rows,
           c.attempt, c.metric, c.steps, c."values"
    FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS w (simulation_id, attempt, batch)
    CROSS JOIN LATERAL (
        SELECT n.attempt, n.batch, count(*) OVER () AS rows FROM (
            SELECT r.attempt, r.batch FROM convergence AS r
            WHERE r.simulation_id = w.simulation_id AND (r.attempt, r.batch) > (w.attempt, w.batch)
            ORDER BY r.attempt, r.batch LIMIT $5
        ) AS n
        ORDER BY n.attempt DESC, n.batch DESC LIMIT 1
    ) AS page
    LEFT JOIN LATERAL (
        SELECT r.attempt, r.batch, r.metric, r.steps, r."values" FROM convergence AS r
        WHERE r.simulation_id = w.simulation_id AND (r.attempt, r.batch) > (w.attempt, w.batch)
          AND (r.attempt, r.batch) <= (page.attempt, page.batch) AND r.metric = ANY ($4::text[])
        ORDER BY r.attempt, r.batch
    ) AS c ON true
"""

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


async def running(session: AsyncSession, ids: Collection[int] | None = None) -> Sequence[Judged]:
    """List the running simulations with rules: all, or those among `ids`."""
    statement = select(Simulation.id, Simulation.attempt, Simulation.stopping_revision).where(
        Simulation.stopping.is_not(None), Simulation.state == SimulationState.RUNNING
    )
    if ids is not None:
        statement = statement.where(Simulation.id.in_(ids))
    return [Judged(*row) for row in await session.execute(statement)]


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

    Rows have `simulation_id`, the new cursor `page_attempt` and `page_batch`, the number of rows of that page (at
    `most_rows` there may be more), and, unless the page has no point of
    these metrics, `attempt`, `metric`, `steps` and `values`.
    """
    attempts, batches = [each[0] for each in cursors.values()], [each[1] for each in cursors.values()]
    rows: Sequence[Any] = await driver.fetch(READ, list(cursors), attempts, batches, list(metrics), most_rows)
    return rows


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
