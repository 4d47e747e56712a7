"""The state machine: the only place that writes `simulations.state`, and the only one that opens or ends an attempt.

    QUEUED --assign--> STARTING --begin--> RUNNING --end--> FINISHED | FAILED | CANCELLED
      ^                   |                   |
      +------ end, to be retried -------------+            QUEUED --cancel_queued--> CANCELLED

Each verb is one guarded UPDATE (id, source state, fence) and one event, in the caller's transaction, and returns
whether it took place: a False is a fact about the row (somebody else was first), never an error. An attempt is one
execution on one machine. Its number is minted by `assign` and is the fence; it is current while its own row has
`ended_at IS NULL`, and `end` sets that in the same transaction that requeues or finishes the simulation. So a batch
of an old attempt, guarded by its own row, can't commit after its successor began.

Locks: simulation, attempt, machine, in this order, FOR NO KEY UPDATE. Every verb here takes the simulation's first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.events import Actor
from db.models import Attempt, Simulation
from db.notifications import Channel, notify
from db.states import FINAL_STATES, Reason, SimulationState

S = SimulationState

TRANSITIONS: dict[SimulationState, frozenset[SimulationState]] = {
    S.QUEUED: frozenset({S.STARTING, S.CANCELLED}),
    S.STARTING: frozenset({S.RUNNING, S.QUEUED}) | FINAL_STATES,
    S.RUNNING: frozenset({S.QUEUED}) | FINAL_STATES,
    S.FINISHED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}

FINAL_STATE_OF: dict[Reason, SimulationState] = {
    Reason.COMPLETED: S.FINISHED,
    Reason.CANCELLED: S.CANCELLED,
    Reason.EXIT_CODE: S.FAILED,
    Reason.LAUNCH_ERROR: S.FAILED,
    Reason.MACHINE_LOST: S.FAILED,
    Reason.MAX_RUNTIME: S.FAILED,
    Reason.UNWATCHED: S.FINISHED,
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an attempt is bound to, and billed by."""

    machine_id: int
    machine_name: str
    host: str | None
    gpu_indices: tuple[int, ...]
    price_per_hour: Decimal
    share: Decimal  # of the machine, 0..1
    currency: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    reason: Reason
    detail: str | None = None  # a sentence
    exit_code: int | None = None
    signal: int | None = None


async def lock(session: AsyncSession, simulation_id: int) -> Simulation | None:
    """Lock the simulation's row, the first lock of every transaction that takes more than one, and read it."""
    return await session.scalar(
        select(Simulation)
        .where(Simulation.id == simulation_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


async def assign(
    session: AsyncSession, simulation_id: int, fence: int, assignment: Assignment, actor: Actor
) -> int | None:
    """Take a queued simulation out of the queue and mint its next attempt: its id, or None if it was too late."""
    number = fence + 1
    moved = await _move(
        session, simulation_id, fence, S.STARTING, actor,
        {"attempt": number, "waiting": None, "waiting_detail": None},
        {"attempt": number, "machine": assignment.machine_name},
        unwanted=True,
    )  # fmt: skip
    if not moved:
        return None
    attempt_id: int | None = await session.scalar(
        insert(Attempt)
        .values(
            simulation_id=simulation_id,
            number=number,
            machine_id=assignment.machine_id,
            machine_name=assignment.machine_name,
            host=assignment.host,
            gpu_indices=list(assignment.gpu_indices),
            price_per_hour=assignment.price_per_hour,
            share=assignment.share,
            currency=assignment.currency,
        )
        .returning(Attempt.id)
    )
    assert attempt_id is not None
    return attempt_id


async def begin(session: AsyncSession, attempt: Attempt, actor: Actor) -> bool:
    """The supervisor said hello: STARTING becomes RUNNING. The caller holds both rows' locks."""
    moved = await _move(
        session, attempt.simulation_id, attempt.number, S.RUNNING, actor,
        {"started_at": func.coalesce(Simulation.started_at, func.now())},
        {"attempt": attempt.number},
    )  # fmt: skip
    if moved:
        await session.execute(update(Attempt).where(Attempt.id == attempt.id).values(started_at=func.now()))
    return moved


async def end(
    session: AsyncSession,
    simulation_id: int,
    number: int,
    ending: Ending,
    actor: Actor,
    *,
    retry_after: timedelta | None = None,
) -> bool:
    """End the current attempt; with `retry_after` back to the queue (waiting that long), else to the final state."""
    if await lock(session, simulation_id) is None:
        return False
    ended = await session.scalar(
        update(Attempt)
        .where(Attempt.simulation_id == simulation_id, Attempt.number == number, Attempt.ended_at.is_(None))
        .values(
            ended_at=func.now(),
            reason=ending.reason,
            reason_detail=ending.detail,
            exit_code=ending.exit_code,
            signal=ending.signal,
        )
        .returning(Attempt.id)
    )
    if ended is None:
        return False
    told: dict[str, Any] = {"attempt": number, "reason": ending.reason.value}
    if ending.detail:
        told["detail"] = ending.detail
    if ending.exit_code is not None:
        told["exitCode"] = ending.exit_code
    if ending.signal is not None:
        told["signal"] = ending.signal
    values: dict[str, Any]
    if retry_after is None:
        values = {"reason": ending.reason, "reason_detail": ending.detail, "finished_at": func.now()}
        target = FINAL_STATE_OF[ending.reason]
    else:
        values = {"queued_at": func.now() + retry_after, "reason": None, "reason_detail": None}
        target = S.QUEUED
    moved = await _move(session, simulation_id, number, target, actor, values, told)
    assert moved, f"attempt {number} of simulation {simulation_id} was current, but its simulation was not running"
    return True


async def cancel_queued(session: AsyncSession, simulation_id: int, actor: Actor) -> bool:
    """A simulation that waits in the queue needs nobody's consent to be cancelled. False if it has left the queue."""
    simulation = await lock(session, simulation_id)
    if simulation is None:
        return False
    values = {
        "reason": Reason.CANCELLED,
        "waiting": None,
        "waiting_detail": None,
        "finished_at": func.now(),
        "stop_reason": Reason.CANCELLED,
        "stop_wanted_at": func.now(),
        "stop_wanted_by": actor.name,
    }
    return await _move(session, simulation_id, simulation.attempt, S.CANCELLED, actor, values, {}, only_from=S.QUEUED)


async def want_stop(session: AsyncSession, simulation_id: int, reason: Reason, actor: Actor) -> bool:
    """Note that a simulation on a machine is to be stopped. The first reason stands. False if it is not on one."""
    noted = await session.scalar(
        update(Simulation)
        .where(
            Simulation.id == simulation_id,
            Simulation.state.in_((S.STARTING, S.RUNNING)),
            Simulation.stop_wanted_at.is_(None),
        )
        .values(stop_wanted_at=func.now(), stop_wanted_by=actor.name, stop_reason=reason)
        .returning(Simulation.project_id)
    )
    if noted is None:
        return False
    await events.record(
        session, "STOP_WANTED", actor, "Simulation", simulation_id, project_id=noted, detail={"reason": reason.value}
    )
    await notify(session, Channel.SIMULATIONS, str(simulation_id))
    return True


async def _move(
    session: AsyncSession,
    simulation_id: int,
    fence: int,
    target: SimulationState,
    actor: Actor,
    values: dict[str, Any],
    detail: dict[str, Any],
    *,
    only_from: SimulationState | None = None,
    unwanted: bool = False,
) -> bool:
    """The one guarded statement. `unwanted`: only where nobody wants it stopped."""
    sources = [only_from] if only_from else [source for source, targets in TRANSITIONS.items() if target in targets]
    statement = (
        update(Simulation)
        .where(Simulation.id == simulation_id, Simulation.state.in_(sources), Simulation.attempt == fence)
        .values(state=target, **values)
        .returning(Simulation.project_id)
        .execution_options(synchronize_session=False)
    )
    if unwanted:
        statement = statement.where(Simulation.stop_wanted_at.is_(None))
    project_id = await session.scalar(statement)
    if project_id is None:
        return False
    await events.record(session, target.value, actor, "Simulation", simulation_id, project_id=project_id, detail=detail)
    await notify(session, Channel.SIMULATIONS, str(simulation_id))
    return True
