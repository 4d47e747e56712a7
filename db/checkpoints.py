"""Times of checkpoints, as the supervisors see them in the checkpoint directories: one for each member."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_NOTE = text(
    "UPDATE members SET checkpoint_at = least(CAST(:at AS timestamptz), now()) "
    "WHERE attempt_id = :attempt_id AND rank = :rank"
)
_NEWEST = text(
    """
    SELECT DISTINCT ON (a.simulation_id) a.simulation_id, m.checkpoint_at, m.machine_name
    FROM attempts AS a JOIN members AS m ON m.attempt_id = a.id
    WHERE a.simulation_id = ANY(:ids) AND m.checkpoint_at IS NOT NULL
    ORDER BY a.simulation_id, m.checkpoint_at DESC, a.number, m.rank
    """
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The newest checkpoint of a simulation, and the machine on whose host it was written."""

    at: datetime
    machine_name: str


async def note(session: AsyncSession, attempt_id: int, rank: int, at: datetime) -> None:
    """Write the time of a member's newest checkpoint, with the report that was accepted in this transaction."""
    await session.execute(_NOTE, {"attempt_id": attempt_id, "rank": rank, "at": at})


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Checkpoint]:
    """Return the newest checkpoint of those of these simulations that have one.

    A later attempt on the same host reports what an earlier one wrote: then it is the earlier one's machine.
    """
    rows = await session.execute(_NEWEST, {"ids": list(ids)})
    return {row.simulation_id: Checkpoint(row.checkpoint_at, row.machine_name) for row in rows}
