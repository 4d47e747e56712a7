"""STARTING -> RUNNING: a supervisor's hello, which binds the attempt to the supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, billing, events, lifecycle
from db.attempts import Claim, Standing, Work
from db.events import Actor
from db.lifecycle import Move
from db.models import Attempt, Simulation
from db.states import SimulationState
from policy.cost import cost_per_hour, cost_so_far, time_affordable
from transitions import journal

LEAST_TIME = timedelta(seconds=1)  # that an attempt gets: it was preempted before it reached its limit


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Limits of an attempt as times from its hello; None: no limit."""

    max_runtime: timedelta | None = None
    max_cost: timedelta | None = None  # for how long the simulation's `max_cost` pays, the grace of a stop deducted


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a hello."""

    standing: Standing
    work: Work | None = None
    limits: TimeLimits = TimeLimits()


async def hello(
    session: AsyncSession,
    claim: Claim,
    actor: Actor = events.SUPERVISOR,
    *,
    stop_grace: timedelta = timedelta(0),
) -> Greeting:
    """Bind the attempt to the first nonce and begin it; the same nonce again gets the same answer, any other OVER.

    An attempt with a stop intent is bound but does not begin: its supervisor reports the end.
    """
    if await lifecycle.lock_of(session, claim.attempt_id, claim.token_digest) is None:
        return Greeting(Standing.UNKNOWN)
    bound = await attempts.bind(session, claim)
    if bound is None:
        return Greeting(Standing.OVER)
    if bound.is_new:
        await begin(session, bound.simulation_id, claim.attempt_id, bound.number, actor)
    work = await attempts.work_of(session, claim)
    limits = await time_limits(session, work.simulation, work.attempt, stop_grace)
    return Greeting(Standing.CURRENT, work, limits)


async def time_limits(
    session: AsyncSession, simulation: Simulation, attempt: Attempt, stop_grace: timedelta
) -> TimeLimits:
    """Return the limits of a current attempt, without what earlier attempts have used up of them.

    The time of preempted attempts counts for the attempt that continues them; the cost of all attempts counts.
    """
    runtime, money = simulation.max_runtime, None
    if runtime is not None:
        runtime = max(runtime - await attempts.preempted_time(session, simulation.id), LEAST_TIME)
    if simulation.max_cost is not None:
        held = (await billing.of_simulations(session, [simulation.id])).get(simulation.id, ())
        spent = cost_so_far(each for each in held if not each.is_open)
        money = time_affordable(simulation.max_cost - spent, cost_per_hour(held))
    if money is not None:
        waited = attempt.started_at - attempt.assigned_at if attempt.started_at is not None else timedelta(0)
        money = max(money - waited - stop_grace, LEAST_TIME)
    return TimeLimits(runtime, money)


async def begin(session: AsyncSession, simulation_id: int, attempt_id: int, number: int, actor: Actor) -> bool:
    """STARTING becomes RUNNING. The caller holds the simulation's lock, and has bound the attempt."""
    moved = await lifecycle.move(
        session, [Move(simulation_id, number, {"attempt": number})], SimulationState.RUNNING, actor
    )
    if moved:
        await attempts.note_started(session, attempt_id)
        journal.write(session, "attempt_began", simulation_id=simulation_id, attempt_id=attempt_id, attempt=number)
    return bool(moved)
