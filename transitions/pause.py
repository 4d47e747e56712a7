"""Pause of what waits: it keeps its place, and is no candidate for a machine until it is resumed."""

from __future__ import annotations

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import events, lifecycle, simulations
from db.errors import WrongState
from db.events import Actor
from db.models import THIS_TRANSACTION, Simulation
from db.notifications import Channel, notify
from db.projects import Scope
from db.states import SimulationState
from transitions import journal


async def pause(session: AsyncSession, simulation_id: int, actor: Actor, *, scope: Scope = None) -> Simulation:
    """Pause a queued simulation; idempotent. Raises `NotFound`, and `WrongState` for one that does not wait."""
    simulation = simulations.seen(await lifecycle.lock(session, simulation_id), scope)
    if simulation.state.is_final:
        raise _has_ended(simulation)
    if simulation.state is not SimulationState.QUEUED:
        raise WrongState(
            f"It is {simulation.state.value}: only what waits in the queue can be paused. To free its machine, cancel "
            "it, or drain the machine with a deadline: then it returns to the queue.",
            field="id",
        )
    return await _write(session, simulation, actor, paused=True)


async def resume(session: AsyncSession, simulation_id: int, actor: Actor, *, scope: Scope = None) -> Simulation:
    """End the pause of a simulation; idempotent. Raises `NotFound`, and `WrongState` for one that has ended."""
    simulation = simulations.seen(await lifecycle.lock(session, simulation_id), scope)
    if simulation.state.is_final:
        raise _has_ended(simulation)
    return await _write(session, simulation, actor, paused=False)


async def _write(session: AsyncSession, simulation: Simulation, actor: Actor, *, paused: bool) -> Simulation:
    if simulation.paused is paused:
        return simulation
    # The rest of a backoff counts.
    arrived = {} if paused else {"queued_at": func.greatest(Simulation.queued_at, func.now())}
    await session.execute(
        update(Simulation)
        .where(Simulation.id == simulation.id)
        .values(paused=paused, queued_xid=THIS_TRANSACTION, **arrived)
        .execution_options(synchronize_session=False)
    )
    await session.refresh(simulation)
    kind = "PAUSED" if paused else "RESUMED"
    await events.record(session, kind, actor, "Simulation", simulation.id, project_id=simulation.project_id)
    await notify(session, Channel.SIMULATIONS, str(simulation.id))
    journal.write(session, f"simulation_{kind.lower()}", simulation_id=simulation.id, by=actor.name)
    return simulation


def _has_ended(simulation: Simulation) -> WrongState:
    return WrongState(f"It has ended ({simulation.state.value}): only what waits can be paused.", field="id")
