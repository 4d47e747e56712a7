"""QUEUED -> STARTING: the next attempts of simulations, with a grant on a machine and its price for each member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, lifecycle, notices, running
from db.attempts import Next
from db.events import Actor
from db.lifecycle import Move
from db.notices import Notice
from db.states import SimulationState
from policy import phrasing
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


@dataclass(frozen=True, slots=True)
class Placed:
    """A queued simulation with the grants of its members, by rank: all of them or none are assigned.

    fence: the number of its newest attempt when it was placed. One that leaves its checkpoint behind begins from zero:
    what it has attained counts no more, and a notice of the attempt says so.
    """

    simulation_id: int
    fence: int
    assignments: tuple[Assignment, ...]
    left_behind: str | None = None  # the machine that has its checkpoint, where this is on another host


async def assign(session: AsyncSession, placed: Sequence[Placed], actor: Actor) -> Mapping[int, int]:
    """Assign queued simulations: create their next attempts; return the attempts' ids by simulation.

    A simulation whose row has changed is left out. The caller holds the locks of the simulations and of the machines.
    """
    moved = await lifecycle.move(
        session,
        [Move(each.simulation_id, each.fence, _event(each)) for each in placed],
        SimulationState.STARTING,
        actor,
    )
    assigned = [each for each in placed if each.simulation_id in moved]
    if not assigned:
        return {}
    made = await attempts.create(
        session,
        [Next(each.simulation_id, each.fence + 1, [_grant(one) for one in each.assignments]) for each in assigned],
    )
    anew = {each.simulation_id: each.left_behind for each in assigned if each.left_behind is not None}
    await running.begin_anew(session, anew.keys())
    for each in assigned:
        if each.left_behind is not None:
            await notices.store(session, each.simulation_id, each.fence + 1, [_from_zero(each, each.left_behind)])
        journal.write(
            session, "simulation_assigned", simulation_id=each.simulation_id, attempt_id=made[each.simulation_id],
            attempt=each.fence + 1, machine=_machines(each),
        )  # fmt: skip
    return made


def _event(placed: Placed) -> dict[str, object]:
    return {"attempt": placed.fence + 1, "machine": _machines(placed)}


def _from_zero(placed: Placed, home: str) -> Notice:
    """Notice of an attempt that can't continue from a checkpoint."""
    advice = f"Its checkpoint is on the host of {phrasing.name(home)}: this attempt begins from zero."
    return Notice("CHECKPOINT_LEFT_BEHIND", 1, "", advice)


def _machines(placed: Placed) -> str:
    """Name the machines, each once, in the order of the ranks."""
    return ", ".join(dict.fromkeys(each.machine_name for each in placed.assignments))


def _grant(assignment: Assignment) -> dict[str, object]:
    grant = {each.name: getattr(assignment, each.name) for each in fields(assignment)}
    grant["gpu_indices"] = list(assignment.gpu_indices)
    return grant
