"""Overview of all simulations that have not ended: counts by state, and the resources held, in two statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Overview:
    """Simulations by state, of the states that are not final; and what those on machines hold now."""

    counts: Mapping[SimulationState, int]
    holdings: Sequence[Holding]


async def read(session: AsyncSession, *, project_id: int | None = None, scope: Scope = None) -> Overview:
    """Read the overview of one project, or for all in the scope."""
    projects = scope
    if project_id is not None:
        projects = frozenset({project_id}) if scope is None or project_id in scope else frozenset()
    counted = (
        select(Simulation.state, func.count())
        .where(Simulation.state.in_(ACTIVE), within(Simulation.project_id, projects))
        .group_by(Simulation.state)
    )
    counts = {row[0]: row[1] for row in await session.execute(counted)}
    held = await session.execute(*((_HELD,) if projects is None else (_HELD_IN, {"projects": list(projects)})))
    return Overview(counts, [Holding(*row) for row in held])
