"""Stop intents: the supervisor receives the intent with the reply to its next report, and ends the attempt.

An intent is no state: `settle` decides about the attempt when it has ended. An intent belongs to its attempt, so the
next attempt begins without one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, judged, lifecycle
from db.events import Actor
from db.models import Simulation
from db.notifications import Channel, notify
from db.states import Reason
from transitions import journal


async def stop(
    session: AsyncSession,
    simulation_id: int,
    reason: Reason,
    actor: Actor,
    *,
    evidence: dict[str, Any] | None = None,
    number: int | None = None,
) -> bool:
    """Write a stop intent for the current attempt. False if there is none, or it has an intent already.

    evidence: the facts behind the reason, as JSON. number: of the attempt that was judged; False if another is current.
    The first intent stands, but one that ends the simulation replaces a preemption.
    """
    simulation = await lifecycle.lock(session, simulation_id)
    if simulation is None or number not in (None, simulation.attempt):
        return False
    return await stop_locked(session, simulation, reason, actor, evidence=evidence)


async def stop_locked(
    session: AsyncSession,
    simulation: Simulation,
    reason: Reason,
    actor: Actor,
    *,
    evidence: dict[str, Any] | None = None,
) -> bool:
    """Like `stop`, for a simulation that the caller has locked in this transaction."""
    attempt = await attempts.find_current(session, simulation.id)
    if attempt is None or not await _want(session, simulation.id, attempt.id, attempt.number, reason, actor, evidence):
        return False
    told: dict[str, Any] = {"reason": reason.value}
    if evidence is not None:
        told["evidence"] = evidence
    await events.record(
        session, "STOP_WANTED", actor, "Simulation", simulation.id, project_id=simulation.project_id, detail=told
    )
    return True


async def stop_members(
    session: AsyncSession, simulation_id: int, attempt_id: int, number: int, reason: Reason, member: dict[str, Any]
) -> bool:
    """Stop the other members of an attempt of which one has ended. False if the attempt has a stop intent already.

    member: the end of that member, as JSON, by which the attempt will be settled. The caller holds the simulation's
    lock.
    """
    evidence = {"member": member, "sentence": member.get("detail")}
    if not await _want(session, simulation_id, attempt_id, number, reason, events.SUPERVISOR, evidence):
        return False
    simulation = await lifecycle.lock(session, simulation_id)
    await events.record(
        session, "MEMBER_ENDED", events.SUPERVISOR, "Simulation", simulation_id,
        project_id=simulation.project_id if simulation is not None else None,
        detail={"attempt": number, "member": member},
    )  # fmt: skip
    return True


async def _want(
    session: AsyncSession,
    simulation_id: int,
    attempt_id: int,
    number: int,
    reason: Reason,
    actor: Actor,
    evidence: dict[str, Any] | None,
) -> bool:
    """Write the intent, with its hint and its line in the log; False if the first one stands."""
    if not await attempts.want_stop(session, attempt_id, reason, actor.name, evidence):
        return False
    await notify(session, Channel.SIMULATIONS, str(simulation_id))
    journal.write(
        session, "stop_wanted", simulation_id=simulation_id, attempt_id=attempt_id, attempt=number,
        reason=reason.value, by=actor.name,
    )  # fmt: skip
    return True


async def would_stop(
    session: AsyncSession, simulation: Simulation, place: int, actor: Actor, evidence: dict[str, Any]
) -> bool:
    """Record, once, what a dry-run rule would have stopped; False if that rule has a record already.

    simulation: locked and read in this transaction. place: of the rule in its list.
    """
    if not await judged.note_would_stop(session, simulation, place, evidence):
        return False
    await events.record(
        session, "WOULD_STOP", actor, "Simulation", simulation.id, project_id=simulation.project_id,
        detail={"reason": evidence["reason"], "evidence": evidence},
    )  # fmt: skip
    await notify(session, Channel.SIMULATIONS, str(simulation.id))
    journal.write(
        session, "would_stop", simulation_id=simulation.id, attempt=simulation.attempt, reason=evidence["reason"],
        by=actor.name,
    )  # fmt: skip
    return True
