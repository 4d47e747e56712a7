"""The end of a simulation, for those that run after it: released, or cancelled because they can never run.

In the transaction of the end, and without a look at the queue: those that wait are found by the edges to the simulation
that has ended. What can never run is cancelled (DEPENDENCY_FAILED), and with it what waits for its success, and so on.
All of them are locked in the order of their ids, which is the order of dependencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from db import dependencies, lifecycle
from db.events import Actor
from db.lifecycle import Move
from db.notifications import Channel, notify, payload_of
from db.states import Reason, SimulationState
from policy.dependencies import Consequences, DependencyCondition, Edge, consequences, never
from transitions import journal

S = SimulationState


async def release(session: AsyncSession, simulation_id: int, state: SimulationState, actor: Actor) -> None:
    """Carry out what follows for others. The simulation is locked, and has reached this final state."""
    found = await _consequences(session, simulation_id, state, deep=False)
    if not found.met and not found.failed:
        return
    deep = bool(found.failed)
    if deep:
        found = await _consequences(session, simulation_id, state, deep=True)
    fences: dict[int, int] = {}
    while missing := _concerned(found) - fences.keys():  # again only if more were submitted before the locks
        locked = await lifecycle.lock_all(session, missing)
        fences |= {each.id: each.attempt for each in locked}
        found = await _consequences(session, simulation_id, state, deep=deep)
    await _cancel(session, found.failed, fences, actor)
    await dependencies.note_met(session, found.met)
    if found.met:
        await notify(session, Channel.SIMULATIONS, payload_of(sorted(found.met)))
        journal.write(session, "dependents_released", simulation_id=simulation_id, dependents=len(found.met))


async def _consequences(
    session: AsyncSession, simulation_id: int, state: SimulationState, *, deep: bool
) -> Consequences:
    rows = await dependencies.followers(session, [simulation_id], deep=deep)
    edges = [Edge(each.simulation_id, each.after_id, DependencyCondition(each.condition)) for each in rows]
    return consequences(simulation_id, edges, succeeded=state is S.FINISHED)


def _concerned(found: Consequences) -> set[int]:
    return found.met.keys() | {each.simulation_id for each in found.failed}


async def _cancel(session: AsyncSession, failed: Sequence[Edge], fences: Mapping[int, int], actor: Actor) -> None:
    """Cancel what can never run, with a sentence that names the simulation that it was to run after."""
    if not failed:
        return
    names = await dependencies.names_of(session, {each.after_id for each in failed})
    cancelled = {each.simulation_id for each in failed}
    moves = []
    for each in failed:
        after = names[each.after_id]
        ended = (S.CANCELLED, Reason.DEPENDENCY_FAILED) if after.id in cancelled else (after.state, after.reason)
        sentence = never(after.name, ended[0].value, ended[1].value if ended[1] is not None else None, each.condition)
        detail = {"reason": Reason.DEPENDENCY_FAILED.value, "detail": sentence}
        moves.append(Move(each.simulation_id, fences[each.simulation_id], detail, reason_detail=sentence))
    moved = await lifecycle.move(
        session, moves, S.CANCELLED, actor, reason=Reason.DEPENDENCY_FAILED, only_from=S.QUEUED
    )
    assert len(moved) == len(failed), "they were locked and queued"
    for move in moves:
        journal.write(
            session, "simulation_cancelled", simulation_id=move.simulation_id, by=actor.name, detail=move.reason_detail
        )
