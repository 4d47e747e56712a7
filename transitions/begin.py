"""STARTING -> RUNNING: the hello of a supervisor, which binds the attempt to it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, lifecycle
from db.attempts import Claim, Standing
from db.events import Actor
from db.models import Attempt, Simulation
from db.states import SimulationState
from transitions import journal


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a hello."""

    standing: Standing
    attempt: Attempt | None = None
    simulation: Simulation | None = None


async def hello(session: AsyncSession, claim: Claim, actor: Actor = events.SUPERVISOR) -> Greeting:
    """Bind the attempt to the first nonce and begin it; the same nonce again gets the same answer, any other OVER.

    An attempt that is to be stopped is greeted and does not begin: its supervisor reports the end.
    """
    simulation_id = await attempts.simulation_of(session, claim.attempt_id, claim.token_digest)
    if simulation_id is None:
        return Greeting(Standing.UNKNOWN)
    simulation = await lifecycle.lock(session, simulation_id)
    attempt = await attempts.bind(session, claim)
    if simulation is None or attempt is None:
        return Greeting(Standing.OVER)
    if attempt.started_at is None and simulation.stop_wanted_at is None:
        await begin(session, attempt, actor)
        await session.refresh(attempt)
        await session.refresh(simulation)
    return Greeting(Standing.CURRENT, attempt, simulation)


async def begin(session: AsyncSession, attempt: Attempt, actor: Actor) -> bool:
    """STARTING becomes RUNNING. The caller holds both rows' locks."""
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
