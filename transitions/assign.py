"""QUEUED -> STARTING: the next attempt of a simulation, with its grant on a machine and its price."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, lifecycle
from db.events import Actor
from db.states import SimulationState
from transitions import journal


@dataclass(frozen=True, slots=True)
class Assignment:
    """Grant of resources to a member of an attempt, and its price."""

    machine_id: int
    machine_name: str
    host: str | None
    gpu_indices: tuple[int, ...]
    price_per_hour: Decimal
    share: Decimal  # of the machine, 0..1
    currency: str
    cpus: float
    memory_gib: float
    gpus: int


async def assign(
    session: AsyncSession, simulation_id: int, fence: int, assignment: Assignment, actor: Actor
) -> int | None:
    """Assign a queued simulation: create its next attempt; return its id, or None if the row has changed.

    fence: the number of the newest attempt when the placement was made; the caller holds the machine's lock.
    """
    number = fence + 1
    moved = await lifecycle.move(
        session, simulation_id, fence, SimulationState.STARTING, actor,
        {"attempt": number},
        {"attempt": number, "machine": assignment.machine_name},
    )  # fmt: skip
    if not moved:
        return None
    grant = {each.name: getattr(assignment, each.name) for each in fields(assignment)}
    grant["gpu_indices"] = list(assignment.gpu_indices)
    attempt_id = await attempts.create(session, simulation_id, number, **grant)
    journal.write(
        session, "simulation_assigned", simulation_id=simulation_id, attempt_id=attempt_id, attempt=number,
        machine=assignment.machine_name,
    )  # fmt: skip
    return attempt_id
