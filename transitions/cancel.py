"""Cancellation: QUEUED -> CANCELLED at once; a simulation on a machine gets a stop intent."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from db import lifecycle, queue, simulations
from db.errors import WrongState
from db.events import Actor
from db.lifecycle import Move
from db.models import Simulation
from db.projects import Scope
from db.states import Reason, SimulationState
from transitions import journal
from transitions.release import release
from transitions.stop import stop_locked


async def cancel(session: AsyncSession, simulation_id: int, actor: Actor, *, scope: Scope = None) -> Simulation:
    """Cancel a queued simulation, or stop a running one; idempotent.

    Raises `NotFound`, and `WrongState` if it has ended for another reason.
    """
    simulation = simulations.seen(await lifecycle.lock(session, simulation_id), scope)
    if simulation.state is SimulationState.QUEUED:
        await _cancel_queued(session, simulation, actor)
    else:
        await stop_locked(session, simulation, Reason.CANCELLED, actor)
    simulation = await simulations.get(session, simulation_id)
    if simulation.state.is_final and simulation.state is not SimulationState.CANCELLED:
        raise WrongState(f"It has ended already: {simulation.state.value}, {simulation.reason}.", field="id")
    return simulation


async def _cancel_queued(session: AsyncSession, simulation: Simulation, actor: Actor) -> None:
    """End a simulation on no machine: there is no attempt to stop."""
    moved = await lifecycle.move(
        session, [Move(simulation.id, simulation.attempt, {})], SimulationState.CANCELLED, actor,
        reason=Reason.CANCELLED, only_from=SimulationState.QUEUED,
    )  # fmt: skip
    assert moved, f"simulation {simulation.id} was locked and QUEUED"
    await queue.note_left(session, simulation.id)
    journal.write(session, "simulation_cancelled", simulation_id=simulation.id, by=actor.name)
    await release(session, simulation.id, SimulationState.CANCELLED, actor)
