"""Preemption: the current attempt is stopped because its machine is wanted for another simulation, or is drained.

The supervisor stops the attempt like any other (SIGTERM, grace, SIGKILL: time to write a checkpoint). After its end
`settle` puts the simulation back into the queue at once, without backoff and without using up a retry. The caller
decides which attempt is preempted, and for which simulation.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from db.events import Actor
from db.models import Simulation
from db.states import Reason
from transitions.stop import stop, stop_locked


async def preempt(
    session: AsyncSession,
    simulation_id: int,
    actor: Actor,
    *,
    evidence: dict[str, Any] | None = None,
    number: int | None = None,
) -> bool:
    """Preempt the current attempt. False if there is none, or it has a stop intent already.

    evidence: for which simulation and by which rule, as JSON; its `sentence` is the reason as users read it.
    number: of the attempt that is meant; False if another is current.
    """
    return await stop(session, simulation_id, Reason.PREEMPTED, actor, evidence=evidence, number=number)


async def preempt_locked(
    session: AsyncSession, simulation: Simulation, actor: Actor, *, evidence: dict[str, Any] | None = None
) -> bool:
    """Like `preempt`, for a simulation that the caller has locked in this transaction."""
    return await stop_locked(session, simulation, Reason.PREEMPTED, actor, evidence=evidence)
