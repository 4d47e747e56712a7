"""STARTING -> RUNNING: a supervisor's hello, which binds its member; the last of an attempt's members begins it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, billing, events, lifecycle, silence
from db.attempts import NOWHERE, Claim, Endpoint, Standing, Work
from db.connection import Sessions, driver_of
from db.events import Actor
from db.lifecycle import Move
from db.states import Reason, SimulationState
from policy.cost import cost_per_hour, cost_so_far, time_affordable
from policy.retry import MEETING, is_incomplete
from transitions import journal
from transitions.stop import stop_members

LOOPBACK = "127.0.0.1"
LEAST_TIME = timedelta(seconds=1)  # that an attempt gets: it was preempted before it reached its limit


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Limits of an attempt as times from its hello; None: no limit."""

    max_runtime: timedelta | None = None
    max_cost: timedelta | None = None  # for how long the simulation's `max_cost` pays, the grace of a stop deducted


@dataclass(frozen=True, slots=True)
class Gang:
    """The members of an attempt, as each of them is to meet the others. addresses: by rank. port: on rank 0's host."""

    addresses: Sequence[str] = (LOOPBACK,)
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a hello. is_waiting: other members have not said hello yet, so there is no work to do now."""

    standing: Standing
    work: Work | None = None
    limits: TimeLimits = TimeLimits()
    gang: Gang = Gang()
    is_waiting: bool = False


async def greet(
    sessions: Sessions,
    claim: Claim,
    actor: Actor = events.SUPERVISOR,
    *,
    stop_grace: timedelta,
    lease: timedelta,
    endpoint: Endpoint = NOWHERE,
) -> Greeting:
    """Answer a hello; committed on return.

    The first one of an attempt with one member and no limit of cost, as most are, is one statement and one round trip.
    """
    async with driver_of(sessions) as driver:
        work = await lifecycle.begin(driver, claim, endpoint, actor)
    if work is not None:
        _log_begin(None, work.simulation_id, work.attempt_id, work.number)
        return Greeting(Standing.CURRENT, work, TimeLimits(_time_left(work.max_runtime, work.attained)))
    async with sessions.begin() as session:
        return await hello(session, claim, actor, stop_grace=stop_grace, lease=lease, endpoint=endpoint)


async def hello(
    session: AsyncSession,
    claim: Claim,
    actor: Actor = events.SUPERVISOR,
    *,
    stop_grace: timedelta = timedelta(0),
    lease: timedelta = timedelta(seconds=30),
    endpoint: Endpoint = NOWHERE,
) -> Greeting:
    """Bind a member to its first nonce; the same nonce again gets the same answer, any other OVER.

    The attempt begins when all its members are bound: until then they wait, at most for `policy.retry.MEETING`. An
    attempt with a stop intent does not begin: its supervisors report the end.
    """
    bound = await attempts.bind(session, claim, endpoint)
    if bound is None:
        return Greeting(Standing.OVER if await attempts.is_known(session, claim) else Standing.UNKNOWN)
    work = bound.work
    if bound.is_new:
        if work.machines == 1 or await attempts.are_all_bound(session, work.attempt_id):
            await begin(session, work.simulation_id, work.attempt_id, work.number, actor)
        else:
            greeted_at = await attempts.note_greeted(session, work.attempt_id)
            if not is_incomplete(greeted_at, await silence.listening(session), lease):
                return Greeting(Standing.CURRENT, is_waiting=True)
            work = await _give_up(session, work)
    limits = await time_limits(
        session, work.simulation_id, work.attempt_id, stop_grace,
        max_runtime=work.max_runtime, attained=work.attained, max_cost=work.max_cost,
    )  # fmt: skip
    gang = await _gang(session, work.attempt_id) if work.machines > 1 else Gang()
    return Greeting(Standing.CURRENT, work, limits, gang)


async def _give_up(session: AsyncSession, work: Work) -> Work:
    """Stop an attempt whose members did not all say hello in time: a loss of the first that is missing."""
    members = await attempts.members_of(session, [work.attempt_id])
    missing = next(each for each in members if each.nonce is None)
    detail = (
        f"Rank {missing.rank} of {len(members)}, on {missing.machine_name}, did not say hello within "
        f"{MEETING.total_seconds():g} seconds after another one."
    )
    end = {"rank": missing.rank, "reason": Reason.MACHINE_LOST.value, "detail": detail}
    await stop_members(session, work.simulation_id, work.attempt_id, work.number, Reason.MACHINE_LOST, end)
    return replace(work, stop_reason=Reason.MACHINE_LOST)


async def _gang(session: AsyncSession, attempt_id: int) -> Gang:
    """Read where the members of an attempt meet. On one host that is its loopback interface."""
    members = await attempts.members_of(session, [attempt_id])
    hosts = {each.host for each in members}
    is_local = len(hosts) == 1 and None not in hosts
    return Gang([LOOPBACK if is_local else each.address or LOOPBACK for each in members], members[0].port)


async def time_limits(
    session: AsyncSession,
    simulation_id: int,
    attempt_id: int,
    stop_grace: timedelta,
    *,
    max_runtime: timedelta | None,
    attained: timedelta,
    max_cost: Decimal | None,
) -> TimeLimits:
    """Return the limits of a current attempt, without what earlier attempts have used up of the simulation's.

    The time of preempted attempts counts for the attempt that continues them; the cost of all attempts counts.
    """
    money = None
    if max_cost is not None:
        held = (await billing.of_simulations(session, [simulation_id])).get(simulation_id, ())
        spent = cost_so_far(each for each in held if not each.is_open)
        money = time_affordable(max_cost - spent, cost_per_hour(held))
    if money is not None:
        money = max(money - await attempts.waited(session, attempt_id) - stop_grace, LEAST_TIME)
    return TimeLimits(_time_left(max_runtime, attained), money)


def _time_left(max_runtime: timedelta | None, attained: timedelta) -> timedelta | None:
    return max(max_runtime - attained, LEAST_TIME) if max_runtime is not None else None


async def begin(session: AsyncSession, simulation_id: int, attempt_id: int, number: int, actor: Actor) -> bool:
    """STARTING becomes RUNNING. The caller holds the simulation's lock, and has bound the attempt."""
    moved = await lifecycle.move(
        session, [Move(simulation_id, number, {"attempt": number})], SimulationState.RUNNING, actor
    )
    if moved:
        _log_begin(session, simulation_id, attempt_id, number)
    return bool(moved)


def _log_begin(session: AsyncSession | None, simulation_id: int, attempt_id: int, number: int) -> None:
    journal.write(session, "attempt_began", simulation_id=simulation_id, attempt_id=attempt_id, attempt=number)
