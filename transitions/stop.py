"""The intent that the current attempt ends. Its supervisor receives it with the next report; until then it runs.

An intent is no state: what becomes of the attempt is decided when it ends (`settle`). It belongs to the attempt, so an
attempt that follows begins without one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, lifecycle
from db.events import Actor
from db.models import Simulation
from db.notifications import Channel, notify
from db.states import Reason
from transitions import journal


async def stop(
    session: AsyncSession, simulation_id: int, reason: Reason, actor: Actor, *, evidence: dict[str, Any] | None = None
) -> bool:
    """Note that what a simulation has on a machine is to be stopped. False if it is on none, or has such an intent.

    evidence: what the reason was judged by, as JSON. The first intent stands, but one that ends the simulation replaces
    a preemption.
    """
    simulation = await lifecycle.lock(session, simulation_id)
    return simulation is not None and await stop_locked(session, simulation, reason, actor, evidence=evidence)


async def stop_locked(
    session: AsyncSession,
    simulation: Simulation,
    reason: Reason,
    actor: Actor,
    *,
    evidence: dict[str, Any] | None = None,
) -> bool:
    """The same for a simulation that the caller has locked in this transaction."""
    attempt = await attempts.find_current(session, simulation.id)
    if attempt is None or not await attempts.want_stop(session, attempt.id, reason, actor.name, evidence):
        return False
    told: dict[str, Any] = {"reason": reason.value}
    if evidence is not None:
        told["evidence"] = evidence
    await events.record(
        session, "STOP_WANTED", actor, "Simulation", simulation.id, project_id=simulation.project_id, detail=told
    )
    await notify(session, Channel.SIMULATIONS, str(simulation.id))
    journal.write(
        session, "stop_wanted", simulation_id=simulation.id, attempt_id=attempt.id, attempt=attempt.number,
        reason=reason.value, by=actor.name,
    )  # fmt: skip
    return True
