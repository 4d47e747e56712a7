"""QUEUED -> STARTING: the next attempt of a simulation, bound to a machine and to the price it is billed by."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, lifecycle
from db.events import Actor
from db.states import SimulationState
from transitions import journal


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an attempt is bound to, and billed by."""

    machine_id: int
    machine_name: str
    host: str | None
    gpu_indices: tuple[int, ...]
    price_per_hour: Decimal
    share: Decimal  # of the machine, 0..1
    currency: str


async def assign(
    session: AsyncSession, simulation_id: int, fence: int, assignment: Assignment, actor: Actor
) -> int | None:
    """Take a queued simulation out of the queue and mint its next attempt: its id, or None if it was too late.

    fence: the number of the newest attempt when the placement was made; the caller holds the machine's lock.
    """
    number = fence + 1
    moved = await lifecycle.move(
        session, simulation_id, fence, SimulationState.STARTING, actor,
        {"attempt": number},
        {"attempt": number, "machine": assignment.machine_name},
        unwanted=True,
    )  # fmt: skip
    if not moved:
        return None
    attempt_id = await attempts.create(
        session,
        simulation_id=simulation_id,
        number=number,
        machine_id=assignment.machine_id,
        machine_name=assignment.machine_name,
        host=assignment.host,
        gpu_indices=list(assignment.gpu_indices),
        price_per_hour=assignment.price_per_hour,
        share=assignment.share,
        currency=assignment.currency,
    )
    journal.write(
        session, "simulation_assigned", simulation_id=simulation_id, attempt_id=attempt_id, attempt=number,
        machine=assignment.machine_name,
    )  # fmt: skip
    return attempt_id
