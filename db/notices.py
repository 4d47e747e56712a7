"""Notices: what of a simulation's output was nearly points, or was dropped; counted by its supervisor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import models
from db.models import Simulation


@dataclass(frozen=True, slots=True)
class Notice:
    """A kind of output, how many times it came in the attempt, its first example, and advice as a sentence."""

    kind: str
    count: int
    example: str
    advice: str


async def store(
    session: AsyncSession, simulation_id: int, attempt: int, notices: Sequence[Notice], *, rank: int = 0
) -> None:
    """Write the newest totals of a member whose report was accepted, in its transaction. notices: kinds differ."""
    if not notices:
        return
    statement = insert(models.Notice).values(
        [
            {
                "simulation_id": simulation_id,
                "attempt": attempt,
                "rank": rank,
                "kind": notice.kind,
                "count": notice.count,
                "example": notice.example,
                "advice": notice.advice,
            }
            for notice in notices
        ]
    )
    newest = {name: statement.excluded[name] for name in ("count", "example", "advice")}
    key = [models.Notice.simulation_id, models.Notice.attempt, models.Notice.rank, models.Notice.kind]
    await session.execute(statement.on_conflict_do_update(index_elements=key, set_=newest))


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Sequence[Notice]]:
    """Notices of these simulations' newest attempts, by kind; simulations without one are left out.

    The counts of all ranks are added; example and advice are those of the lowest rank that has the kind.
    """
    rows = await session.execute(
        select(models.Notice)
        .join(
            Simulation, (Simulation.id == models.Notice.simulation_id) & (Simulation.attempt == models.Notice.attempt)
        )
        .where(models.Notice.simulation_id.in_(ids), models.Notice.attempt == Simulation.attempt)
        .order_by(models.Notice.simulation_id, models.Notice.kind, models.Notice.rank)
    )
    found: dict[int, dict[str, Notice]] = {}
    for row in rows.scalars():
        of_simulation = found.setdefault(row.simulation_id, {})
        lower = of_simulation.get(row.kind)
        of_simulation[row.kind] = (
            replace(lower, count=lower.count + row.count)
            if lower is not None
            else Notice(row.kind, row.count, row.example, row.advice)
        )
    return {simulation_id: list(kinds.values()) for simulation_id, kinds in found.items()}
