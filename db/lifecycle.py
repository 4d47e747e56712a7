"""The state machine's row: the one guarded statement that writes `simulations.state`, and the lock that comes first.

    QUEUED --assign--> STARTING --hello--> RUNNING --settle--> FINISHED | FAILED | CANCELLED
      ^                   |                   |
      +------ settle, to be retried ----------+            QUEUED --cancel--> CANCELLED

`transitions` decides when a simulation moves, and is the only room that calls `move`. A move is one guarded UPDATE (id,
source state, fence), one event and one hint, in the caller's transaction; a False is a fact about the row (another
transaction was first), never an error.

Locks: simulation, attempt, member, machine, budget, in this order, FOR NO KEY UPDATE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.events import Actor
from db.models import Simulation
from db.notifications import Channel, notify
from db.states import FINAL_STATES, SimulationState

S = SimulationState

TRANSITIONS: dict[SimulationState, frozenset[SimulationState]] = {
    S.QUEUED: frozenset({S.STARTING, S.CANCELLED}),
    S.STARTING: frozenset({S.RUNNING, S.QUEUED}) | FINAL_STATES,
    S.RUNNING: frozenset({S.QUEUED}) | FINAL_STATES,
    S.FINISHED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}


async def lock(session: AsyncSession, simulation_id: int) -> Simulation | None:
    """Lock the simulation's row, the first lock of every transaction that takes more than one, and read it."""
    return await session.scalar(
        select(Simulation)
        .where(Simulation.id == simulation_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


async def move(
    session: AsyncSession,
    simulation_id: int,
    fence: int,
    target: SimulationState,
    actor: Actor,
    values: Mapping[str, Any],
    detail: Mapping[str, Any],
    *,
    only_from: SimulationState | None = None,
) -> bool:
    """Write a new state, if the row is still in a state from which it may be entered and its newest attempt is `fence`.

    values: what is written with the state; detail: of the event.
    """
    sources = [only_from] if only_from else [source for source, targets in TRANSITIONS.items() if target in targets]
    statement = (
        update(Simulation)
        .where(Simulation.id == simulation_id, Simulation.state.in_(sources), Simulation.attempt == fence)
        .values(state=target, **values)
        .returning(Simulation.project_id)
        .execution_options(synchronize_session=False)
    )
    project_id = await session.scalar(statement)
    if project_id is None:
        return False
    await events.record(
        session, target.value, actor, "Simulation", simulation_id, project_id=project_id, detail=dict(detail)
    )
    await notify(session, Channel.SIMULATIONS, str(simulation_id))
    return True
