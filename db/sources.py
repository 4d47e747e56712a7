"""Sources of attempts: the git commit, command, host, Python and packages that its supervisor recorded.

The object is written and read as a whole; fields that a later version adds have defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import AttemptSource


@dataclass(frozen=True, slots=True)
class Source:
    """What an attempt ran. None: not found. dirty: tracked files differed from the commit."""

    commit: str | None = None
    dirty: bool | None = None
    remote: str | None = None
    command: Sequence[str] = ()
    host: str | None = None
    python: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)  # version by name


_FIELDS = frozenset(each.name for each in fields(Source))


async def store(session: AsyncSession, simulation_id: int, attempt: int, source: Source) -> None:
    """Write the source of an attempt whose report was accepted, in its transaction."""
    statement = insert(AttemptSource).values(simulation_id=simulation_id, attempt=attempt, source=asdict(source))
    key = [AttemptSource.simulation_id, AttemptSource.attempt]
    await session.execute(
        statement.on_conflict_do_update(index_elements=key, set_={"source": statement.excluded.source})
    )


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Source]:
    """Read the source of each simulation's newest attempt that has one."""
    rows = await session.execute(
        select(AttemptSource.simulation_id, AttemptSource.source)
        .ext(distinct_on(AttemptSource.simulation_id))
        .where(AttemptSource.simulation_id.in_(ids))
        .order_by(AttemptSource.simulation_id, AttemptSource.attempt.desc())
    )
    return {simulation_id: Source(**{name: raw[name] for name in raw.keys() & _FIELDS}) for simulation_id, raw in rows}
