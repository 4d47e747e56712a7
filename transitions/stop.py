"""The intent that what is on a machine ends. Its supervisor receives it with the next report; until then it runs.

An intent is no state: what becomes of the attempt is decided when it ends (`settle`).
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events
from db.events import Actor
from db.notifications import Channel, notify
from db.states import Reason
from transitions import journal


async def stop(session: AsyncSession, simulation_id: int, reason: Reason, actor: Actor) -> bool:
    """Note that a simulation on a machine is to be stopped. The first reason stands. False if it is not on one."""
    project_id = await attempts.want_stop(session, simulation_id, reason, actor.name)
    if project_id is None:
        return False
    await events.record(
        session, "STOP_WANTED", actor, "Simulation", simulation_id, project_id=project_id,
        detail={"reason": reason.value},
    )  # fmt: skip
    await notify(session, Channel.SIMULATIONS, str(simulation_id))
    journal.write(session, "stop_wanted", simulation_id=simulation_id, reason=reason.value, by=actor.name)
    return True
