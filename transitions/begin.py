"""STARTING -> RUNNING: a supervisor's hello, which binds the attempt to the supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, lifecycle
from db.attempts import Claim, Execution, Standing
from db.events import Actor
from db.models import Attempt, Simulation
from db.states import SimulationState
from transitions import journal

LEAST_TIME = timedelta(seconds=1)  # that an attempt gets: it was preempted before it reached its limit


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a hello."""

    standing: Standing
    execution: Execution | None = None
    simulation: Simulation | None = None
    time_left: timedelta | None = None  # of the simulation's limit; None: without a limit


async def hello(session: AsyncSession, claim: Claim, actor: Actor = events.SUPERVISOR) -> Greeting:
    """Bind the attempt to the first nonce and begin it; the same nonce again gets the same answer, any other OVER.

    An attempt with a stop intent is bound but does not begin: its supervisor reports the end.
    """
    simulation_id = await attempts.simulation_of(session, claim.attempt_id, claim.token_digest)
    if simulation_id is None:
        return Greeting(Standing.UNKNOWN)
    simulation = await lifecycle.lock(session, simulation_id)
    execution = await attempts.bind(session, claim)
    if simulation is None or execution is None:
        return Greeting(Standing.OVER)
    attempt = execution.attempt
    if attempt.started_at is None and attempt.stop_wanted_at is None:
        await begin(session, attempt, actor)
        await session.refresh(attempt)
        await session.refresh(simulation)
    return Greeting(Standing.CURRENT, execution, simulation, await _time_left(session, simulation))


async def _time_left(session: AsyncSession, simulation: Simulation) -> timedelta | None:
    """Rest of the time limit: the time of preempted attempts counts for the attempt that continues them."""
    if simulation.max_runtime is None:
        return None
    return max(simulation.max_runtime - await attempts.preempted_time(session, simulation.id), LEAST_TIME)


async def begin(session: AsyncSession, attempt: Attempt, actor: Actor) -> bool:
    """STARTING becomes RUNNING. The caller holds the simulation's lock, and has bound the attempt."""
    moved = await lifecycle.move(
        session, attempt.simulation_id, attempt.number, SimulationState.RUNNING, actor,
        {"started_at": func.coalesce(Simulation.started_at, func.now())},
        {"attempt": attempt.number},
    )  # fmt: skip
    if moved:
        await attempts.note_started(session, attempt.id)
        journal.write(
            session, "attempt_began", simulation_id=attempt.simulation_id, attempt_id=attempt.id, attempt=attempt.number
        )
    return moved
