"""Preemption: the current attempt is stopped because its machine is wanted for another simulation.

Its supervisor stops it like any other (SIGTERM, grace, SIGKILL: time to write a checkpoint). When it has ended,
`settle` puts the simulation back into the queue at once, without backoff and without using up a retry. The caller
decides who is preempted, and for whom.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from db.events import Actor
from db.states import Reason
from transitions.stop import stop


async def preempt(
    session: AsyncSession, simulation_id: int, actor: Actor, *, evidence: dict[str, Any] | None = None
) -> bool:
    """Ask the current attempt to make room. False if it is on no machine, or is to be stopped already.

    evidence: for whom and by which rule, as JSON.
    """
    return await stop(session, simulation_id, Reason.PREEMPTED, actor, evidence=evidence)
