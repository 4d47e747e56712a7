"""Overview of all simulations that have not ended: counts by state, and what is held, a statement each.

PostgreSQL counts row by row: 100,000 queued ones are 9 ms of its CPU time, twice that of the rest of the overview. So
triggers write each change of the numbers (`simulation_counts`), and a count is their sum. The leader adds them up now
and then (`fold`): then there is a row for each project, and those of some changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.billing import COLUMNS, Holding
from db.projects import Scope
from db.states import SimulationState

ACTIVE = (SimulationState.QUEUED, SimulationState.STARTING, SimulationState.RUNNING)
# Whether there are changes to add up: more rows than a hundred and one for each project.
UNFOLDED = "SELECT FROM simulation_counts OFFSET 100 + (SELECT count(*) FROM projects)"

_COUNTS = text("SELECT sum(queued), sum(starting), sum(running) FROM simulation_counts")
_COUNTS_IN = text(f"{_COUNTS.text} WHERE project_id = ANY(:projects)")
# Two at once do no harm: a row that another one has added up is gone, and its sum is not seen before the next time.
_FOLD = text(
    """
    WITH folded AS (DELETE FROM simulation_counts RETURNING *)
    INSERT INTO simulation_counts (project_id, queued, starting, running)
    SELECT project_id, sum(queued), sum(starting), sum(running) FROM folded GROUP BY project_id
    HAVING (sum(queued), sum(starting), sum(running)) <> (0, 0, 0)
    """
)
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
    """Read how many simulations are in each state that is not final."""
    found = await session.execute(*((_COUNTS,) if projects is None else (_COUNTS_IN, {"projects": list(projects)})))
    return dict(zip(ACTIVE, (each or 0 for each in found.one()), strict=True))


async def fold(session: AsyncSession) -> None:
    """Add up the changes: one row remains of each project that has simulations which have not ended."""
    await session.execute(_FOLD)


async def holdings(session: AsyncSession, projects: Scope) -> Sequence[Holding]:
    """Read what the simulations on machines hold now."""
    held = await session.execute(*((_HELD,) if projects is None else (_HELD_IN, {"projects": list(projects)})))
    return [Holding(*row) for row in held]
