"""Notices: what of a simulation's output was nearly points, or was dropped; counted by its supervisor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

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


async def store(session: AsyncSession, simulation_id: int, attempt: int, notices: Sequence[Notice]) -> None:
    """Write the newest totals of an attempt whose report was accepted, in its transaction. notices: kinds differ."""
    if not notices:
        return
    statement = insert(models.Notice).values(
        [
            {
                "simulation_id": simulation_id,
                "attempt": attempt,
                "kind": notice.kind,
                "count": notice.count,
                "example": notice.example,
                "advice": notice.advice,
            }
            for notice in notices
        ]
    )
    newest = {name: statement.excluded[name] for name in ("count", "example", "advice")}
    key = [models.Notice.simulation_id, models.Notice.attempt, models.Notice.kind]
    await session.execute(statement.on_conflict_do_update(index_elements=key, set_=newest))


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Sequence[Notice]]:
    """Notices of these simulations' newest attempts, by kind; simulations without one are left out."""
    rows = await session.execute(
        select(models.Notice)
        .join(
            Simulation, (Simulation.id == models.Notice.simulation_id) & (Simulation.attempt == models.Notice.attempt)
        )
        .where(models.Notice.simulation_id.in_(ids), models.Notice.attempt == Simulation.attempt)
        .order_by(models.Notice.simulation_id, models.Notice.kind)
    )
    found: dict[int, list[Notice]] = {}
    for row in rows.scalars():
        found.setdefault(row.simulation_id, []).append(Notice(row.kind, row.count, row.example, row.advice))
    return found
