"""Overview of all simulations that have not ended: counts by state, and what is held, a statement each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.billing import COLUMNS, Holding
from db.models import Simulation
from db.projects import Scope, within
from db.states import SimulationState

ACTIVE = (SimulationState.QUEUED, SimulationState.STARTING, SimulationState.RUNNING)

_HELD = text(
    f"SELECT {COLUMNS} FROM members AS m WHERE m.ended_at IS NULL"  # noqa: S608  # a constant of db.billing
)
_HELD_IN = text(
    f"SELECT {COLUMNS} FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id "  # noqa: S608  # as above
    "JOIN simulations AS s ON s.id = a.simulation_id WHERE m.ended_at IS NULL AND s.project_id = ANY(:projects)"
)


def chosen(project_id: int | None, scope: Scope) -> Scope:
    """Return the projects of an overview of one project, or of all in the scope."""
    if project_id is None:
        return scope
    return frozenset({project_id}) if scope is None or project_id in scope else frozenset()


async def counts(session: AsyncSession, projects: Scope) -> Mapping[SimulationState, int]:
    """Count the simulations that are not over, by state: row by row."""
    counted = (
        select(Simulation.state, func.count())
        .where(Simulation.state.in_(ACTIVE), within(Simulation.project_id, projects))
        .group_by(Simulation.state)
    )
    return {row[0]: row[1] for row in await session.execute(counted)}


async def holdings(session: AsyncSession, projects: Scope) -> Sequence[Holding]:
    """Read what the simulations on machines hold now."""
    held = await session.execute(*((_HELD,) if projects is None else (_HELD_IN, {"projects": list(projects)})))
    return [Holding(*row) for row in held]
