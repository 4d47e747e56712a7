"""Names of the metrics and parameters that simulations have: what lists are sorted by, filtered by and laid out in.

Each name takes one step down an index, however many simulations have it: PostgreSQL has no skip scan, so the next name
is looked for behind the last one, and none once enough are found. Metrics of what has not ended are in no index; they
are read from summaries.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.projects import Scope

# Names in an index of (name, value) over the rows that have a value. They come one after the other in alphabetical
# order: a sort in here would look for all of them before the limit counts.
_INDEXED = """
    (
        WITH RECURSIVE names (name) AS (
            (SELECT {name} FROM {table} WHERE {value} IS NOT NULL ORDER BY {name} LIMIT 1)
            UNION ALL
            SELECT (
                SELECT {name} FROM {table} WHERE {value} IS NOT NULL AND {name} > names.name ORDER BY {name} LIMIT 1
            ) FROM names WHERE names.name IS NOT NULL
        )
        SELECT name FROM names
        WHERE strpos(lower(name), lower(:contains)) > 0 AND (CAST(:scope AS bigint[]) IS NULL OR EXISTS (
            SELECT FROM {table} AS t JOIN simulations AS s ON s.id = t.simulation_id
            WHERE t.{name} = names.name AND t.{value} IS NOT NULL AND s.project_id = ANY(:scope)
        ))
        LIMIT :first
    )
"""
_LIVE = """
    SELECT m.metric
    FROM simulations AS s JOIN metrics AS m ON m.simulation_id = s.id
    WHERE s.attempt > 0 AND s.state IN ('QUEUED', 'STARTING', 'RUNNING')
      AND strpos(lower(m.metric), lower(:contains)) > 0
      AND (CAST(:scope AS bigint[]) IS NULL OR s.project_id = ANY(:scope))
"""
_ORDERED = " ORDER BY 1 LIMIT :first"
# A metric with a finite value has a minimum.
_METRICS = text(" UNION ".join((_INDEXED.format(table="results", name="metric", value="min_value"), _LIVE)) + _ORDERED)
_PARAMETERS = text(
    " UNION ".join(_INDEXED.format(table="parameter_values", name="name", value=each) for each in ("number", "word"))
    + _ORDERED
)


async def metrics(session: AsyncSession, contains: str, *, first: int, scope: Scope = None) -> Sequence[str]:
    """List names of metrics that contain a text, ignoring case, in alphabetical order."""
    return (await session.scalars(_METRICS, _asked(contains, first, scope))).all()


async def parameters(session: AsyncSession, contains: str, *, first: int, scope: Scope = None) -> Sequence[str]:
    """List paths of parameters that contain a text, ignoring case, in alphabetical order."""
    return (await session.scalars(_PARAMETERS, _asked(contains, first, scope))).all()


def _asked(contains: str, first: int, scope: Scope) -> dict[str, object]:
    return {"contains": contains, "first": first, "scope": None if scope is None else list(scope)}
