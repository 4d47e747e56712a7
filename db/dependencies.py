"""Dependencies: which simulations run after which, and how many ends each still waits for.

An edge is written with the simulation that waits, in one transaction that holds the locks of those it waits for: so an
end either comes first and is seen, or comes later and sees the edge. The ids of both rise along an edge, so locks
that are taken in the order of ids are taken in the order of dependencies.

`simulations.dependencies_left` counts the edges whose simulation has not ended; `transitions.release` decreases it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Dependency as Row
from db.models import Simulation
from db.states import FINAL_STATES, Reason, SimulationState


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A simulation that others are to run after, as it stands."""

    id: int
    project_id: int
    name: str
    state: SimulationState
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Edge:
    """A row. condition: policy.dependencies.DependencyCondition."""

    simulation_id: int
    after_id: int
    condition: str


async def hold(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Predecessor]:
    """Keep these simulations from changing their state until this transaction ends; those that exist, by id.

    Those that have not ended are written to, with what is there: an end in one statement (`attempts.EXITED`) that began
    before and waited for the lock would not see the edges, but sees that the row has changed.
    """
    rows = await session.execute(_HOLD, {"ids": list(ids)})
    return {
        simulation_id: Predecessor(
            simulation_id, project_id, name, SimulationState(state), Reason(reason) if reason is not None else None
        )
        for simulation_id, project_id, name, state, reason in rows
    }


_FINAL = ", ".join(f"'{each.value}'" for each in sorted(FINAL_STATES))
_HOLD = text(
    f"""
    WITH held AS (
        SELECT id, project_id, name, state, reason FROM simulations WHERE id = ANY(CAST(:ids AS bigint[]))
        ORDER BY id FOR NO KEY UPDATE
    ), written AS (
        UPDATE simulations SET dependencies_left = dependencies_left
        FROM held WHERE simulations.id = held.id AND held.state NOT IN ({_FINAL})
    )
    SELECT * FROM held ORDER BY id
    """  # noqa: S608  # constants
)


async def find_keyed(session: AsyncSession, project_id: int, client_keys: Collection[str]) -> Mapping[str, int]:
    """Find simulations of a project by their client keys."""
    rows = await session.execute(
        select(Simulation.client_key, Simulation.id).where(
            Simulation.project_id == project_id, Simulation.client_key.in_(client_keys)
        )
    )
    return {key: simulation_id for key, simulation_id in rows if key is not None}


async def link(session: AsyncSession, edges: Sequence[Edge]) -> None:
    """Write edges of simulations that were created in this transaction."""
    if edges:
        await session.execute(
            insert(Row),
            [asdict(each) for each in edges],
        )


# What waits for a simulation, and what waits for those that wait: the first level alone, or all of them.
# Written so that each row is looked up by its index, however many rows the statistics expect.
_FOLLOWERS = text(
    """
    WITH RECURSIVE reached (id) AS (
        SELECT unnest(CAST(:ids AS bigint[]))
        UNION
        SELECT e.simulation_id FROM reached CROSS JOIN LATERAL (
            SELECT d.simulation_id FROM dependencies AS d WHERE d.after_id = reached.id OFFSET 0
        ) AS e CROSS JOIN LATERAL (
            SELECT FROM simulations AS s
            WHERE s.id = e.simulation_id AND s.state = 'QUEUED' AND s.dependencies_left > 0 OFFSET 0
        ) AS waiting
        WHERE :deep
    )
    SELECT e.simulation_id, e.after_id, e.condition
    FROM reached CROSS JOIN LATERAL (
        SELECT d.simulation_id, d.after_id, d.condition FROM dependencies AS d WHERE d.after_id = reached.id OFFSET 0
    ) AS e CROSS JOIN LATERAL (
        SELECT FROM simulations AS s
        WHERE s.id = e.simulation_id AND s.state = 'QUEUED' AND s.dependencies_left > 0 OFFSET 0
    ) AS waiting
    """
)


async def followers(session: AsyncSession, ids: Collection[int], *, deep: bool) -> Sequence[Edge]:
    """Read the edges of what is queued after these simulations; deep: and after those, and so on."""
    return [Edge(*row) for row in await session.execute(_FOLLOWERS, {"ids": list(ids), "deep": deep})]


async def set_left(session: AsyncSession, left: Mapping[int, int]) -> None:
    """Set how many ends simulations wait for that were created in this transaction."""
    if left:
        await session.execute(_SET_LEFT, {"ids": list(left), "counts": list(left.values())})


_SET_LEFT = text(
    """
    UPDATE simulations AS s SET dependencies_left = l.count
    FROM unnest(CAST(:ids AS bigint[]), CAST(:counts AS int[])) AS l (id, count) WHERE s.id = l.id
    """
)


async def note_met(session: AsyncSession, met: Mapping[int, int]) -> None:
    """Decrease what is left of these simulations, which are locked. What is left with nothing arrives in the queue."""
    if not met:
        return
    await session.execute(_NOTE_MET, {"ids": list(met), "counts": list(met.values())})


_NOTE_MET = text(
    """
    UPDATE simulations AS s SET
        dependencies_left = s.dependencies_left - m.met,
        queued_at = CASE WHEN s.dependencies_left = m.met THEN now() ELSE s.queued_at END,
        queued_xid = CASE WHEN s.dependencies_left = m.met THEN pg_current_xact_id()::text::bigint
                          ELSE s.queued_xid END
    FROM unnest(CAST(:ids AS bigint[]), CAST(:counts AS int[])) AS m (id, met)
    WHERE s.id = m.id AND s.state = 'QUEUED'
    """
)


_PREDECESSOR = (Simulation.id, Simulation.project_id, Simulation.name, Simulation.state, Simulation.reason)


async def names_of(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Predecessor]:
    """Read these simulations as others wait for them."""
    rows = await session.execute(select(*_PREDECESSOR).where(Simulation.id.in_(ids)))
    return {row[0]: Predecessor(*row) for row in rows}


# --- reading ---------------------------------------------------------------------------------------------------


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Sequence[Edge]]:
    """The edges from each of these simulations to those that it runs after."""
    rows = await session.execute(
        select(Row.simulation_id, Row.after_id, Row.condition).where(Row.simulation_id.in_(ids)).order_by(Row.after_id)
    )
    found: dict[int, list[Edge]] = {}
    for row in rows:
        found.setdefault(row.simulation_id, []).append(Edge(*row))
    return found


async def to_simulations(session: AsyncSession, ids: Collection[int], *, most: int) -> Mapping[int, Sequence[Edge]]:
    """The edges to each of these simulations from those that run after it, oldest first, at most `most` of each."""
    rows = await session.execute(_DEPENDENTS, {"ids": list(ids), "most": most})
    found: dict[int, list[Edge]] = {}
    for row in rows:
        found.setdefault(row.after_id, []).append(Edge(*row))
    return found


_DEPENDENTS = text(
    """
    SELECT d.* FROM unnest(CAST(:ids AS bigint[])) AS a (id) CROSS JOIN LATERAL (
        SELECT simulation_id, after_id, condition FROM dependencies
        WHERE after_id = a.id ORDER BY simulation_id LIMIT :most
    ) AS d
    """
)


async def newest_repeats(session: AsyncSession, ids: Collection[int]) -> Mapping[int, int]:
    """The newest simulation that repeats each of these, by way of any number of repeats; without one, itself."""
    rows = await session.execute(_REPEATS, {"ids": list(ids)})
    return {row.root: row.newest for row in rows}


_REPEATS = text(
    """
    WITH RECURSIVE chain (root, id) AS (
        SELECT id, id FROM unnest(CAST(:ids AS bigint[])) AS given (id)
        UNION
        SELECT chain.root, r.id FROM chain CROSS JOIN LATERAL (
            SELECT s.id FROM simulations AS s WHERE s.retry_of = chain.id OFFSET 0
        ) AS r
    )
    SELECT root, max(id) AS newest FROM chain GROUP BY root
    """
)
