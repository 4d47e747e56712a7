"""End of an attempt: by its exit, a loss, a launch error or a stop; final for its simulation, or back to the queue.

An attempt of several members ends with the last of them. The first that ends in another way than with exit code 0
decides: its end is written down as the evidence of a stop intent, by which the others receive the stop, and the attempt
ends as that member did. So no retry begins beside a member of the attempt before.

`settle` calls `policy.retry` for the verdict and carries it out; a simulation on a machine reaches a final state in no
other way. The attempt and its members get `ended_at` in the transaction that requeues or finishes the simulation, so
a batch of an old attempt can't commit after its successor began. Those that run after it are released in it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, billing, lifecycle, running
from db.attempts import Claim, Gang, Receipt, Settling
from db.connection import Sessions, driver_of
from db.events import Actor
from db.lifecycle import Closing, Move
from db.states import Reason, SimulationState
from policy.cost import is_spent
from policy.retry import Ended, Exit, Retry, after_attempt, meaning_of
from transitions import journal
from transitions.release import release
from transitions.stop import stop_members

S = SimulationState

FINAL_STATE_OF: dict[Reason, SimulationState] = {
    Reason.COMPLETED: S.FINISHED,
    Reason.CANCELLED: S.CANCELLED,
    Reason.EXIT_CODE: S.FAILED,
    Reason.LAUNCH_ERROR: S.FAILED,
    Reason.MACHINE_LOST: S.FAILED,
    Reason.MAX_RUNTIME: S.FAILED,
    Reason.MAX_COST: S.FAILED,
    Reason.STOPPING_THRESHOLD: S.FINISHED,
    Reason.PATIENCE_EXHAUSTED: S.FINISHED,
    Reason.PRUNED: S.FINISHED,
    Reason.DIVERGENCE_THRESHOLD: S.FAILED,
    Reason.NON_FINITE_METRIC: S.FAILED,
    Reason.BUDGET_EXHAUSTED: S.FAILED,
    Reason.UNWATCHED: S.FINISHED,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Reason of an attempt's end."""

    reason: Reason
    detail: str | None = None  # a sentence
    exit_code: int | None = None
    signal: int | None = None


STOPPED_EARLY = Ending(Reason.CANCELLED, "It was stopped before it began.")


async def complete(sessions: Sessions, claim: Claim, batch: int, exit_: Exit, actor: Actor) -> Receipt | None:
    """Store an exit that completes its simulation (`policy.retry.completes`); committed on return.

    Most are one statement and one round trip. None: nothing was written, and `settle` has to (`db.attempts.EXITED`).
    """
    ending = ending_by(exit_, None)
    target = FINAL_STATE_OF[ending.reason]
    async with driver_of(sessions) as driver:
        found = await lifecycle.finish(driver, claim, batch, _closing(ending), target, actor, _facts(ending))
    if found is None:
        return None
    receipt, attempt_id = found
    _log_end(None, receipt.simulation_id, attempt_id, receipt.number, ending, target, retry_after=None)
    return receipt


async def settle(
    session: AsyncSession,
    simulation_id: int,
    number: int,
    ending: Ending,
    actor: Actor,
    *,
    backoff: timedelta,
    rank: int | None = None,
    current: Settling | None = None,
) -> bool:
    """End an attempt if it is still current, and requeue or finish its simulation; return whether it was.

    rank: of the member that has ended; while others have not, only the member ends, and True means that it had not
    ended before. None: all members end. The caller has locked the simulation. backoff: before the first retry.
    current: the current attempt, if the caller has read it under that lock.
    """
    current = current or await attempts.find_settling(session, simulation_id)
    if current is None or current.number != number:
        return False
    if rank is not None and current.machines > 1:
        gang = await attempts.find_gang(session, current.attempt_id, rank)
        if not gang.is_open:
            return False
        await attempts.end_member(session, gang.attempt_id, rank, exit_code=ending.exit_code, signal=ending.signal)
        journal.write(
            session, "member_ended", simulation_id=simulation_id, attempt_id=gang.attempt_id, attempt=number, rank=rank,
            machine=gang.machine_name, reason=ending.reason.value, exit_code=ending.exit_code, signal=ending.signal,
        )  # fmt: skip
        ending = _named(ending, gang, rank)
        if gang.open:
            if ending.reason is not Reason.COMPLETED:
                await stop_members(
                    session, simulation_id, gang.attempt_id, number, ending.reason, _member(ending, rank)
                )
            return True
        ending = _last(ending, current, gang)
    return await _settle(session, simulation_id, current, ending, actor, backoff=backoff)


def _named(ending: Ending, gang: Gang, rank: int) -> Ending:
    """Name the member in the detail, if there is one."""
    if ending.detail is None:
        return ending
    return replace(ending, detail=f"Rank {rank} of {gang.size}, on {gang.machine_name}: {ending.detail}")


def _member(ending: Ending, rank: int) -> dict[str, Any]:
    return {"rank": rank, **_facts(ending)}


def _last(ending: Ending, current: Settling, gang: Gang) -> Ending:
    """Return how the attempt ends when its last member has: as the first that failed, or by the stop."""
    if current.first is not None:
        return _ending_of(current.first)
    if ending.reason is Reason.COMPLETED and gang.failed and current.stop_reason is not None:
        return replace(ending, reason=current.stop_reason, detail=current.stop_sentence)
    return ending


def _ending_of(member: Mapping[str, Any]) -> Ending:
    return Ending(Reason(member["reason"]), member.get("detail"), member.get("exitCode"), member.get("signal"))


async def _settle(
    session: AsyncSession, simulation_id: int, current: Settling, ending: Ending, actor: Actor, *, backoff: timedelta
) -> bool:
    number = current.number
    stop_reason = current.stop_reason if current.first is None else None
    verdict = after_attempt(
        Ended(
            reason=ending.reason.value,
            attempts_made=number - current.preempted,
            max_retries=current.max_retries,
            retry_on=current.retry_on,
            stop_wanted=stop_reason.value if stop_reason is not None else None,
            is_spent=await _is_spent(session, simulation_id, current.max_cost),
        ),
        backoff=backoff,
    )
    if verdict.reason == stop_reason:
        ending = replace(ending, detail=current.stop_sentence or ending.detail)
    ending = replace(ending, reason=Reason(verdict.reason))
    retry_after = verdict.after if isinstance(verdict, Retry) else None
    return await end(session, simulation_id, number, ending, actor, retry_after=retry_after)


async def _is_spent(session: AsyncSession, simulation_id: int, max_cost: Decimal | None) -> bool:
    if max_cost is None:
        return False
    holdings = await billing.of_simulations(session, [simulation_id])
    return is_spent(holdings.get(simulation_id, ()), max_cost)


async def end(
    session: AsyncSession,
    simulation_id: int,
    number: int,
    ending: Ending,
    actor: Actor,
    *,
    retry_after: timedelta | None = None,
) -> bool:
    """Carry out a verdict: with `retry_after` back to the queue (waiting that long), else to the final state.

    The caller holds the simulation's lock. False if the attempt is not the current one.
    """
    is_final = retry_after is None
    target = FINAL_STATE_OF[ending.reason] if is_final else S.QUEUED
    closed = await lifecycle.end(
        session,
        Move(simulation_id, number, _event(number, ending)),
        _closing(ending),
        target,
        actor,
        queued_after=retry_after or timedelta(0),
    )
    if closed is None:
        return False
    if not is_final:
        await running.keep_progress(session, simulation_id, number, goes_on=ending.reason is Reason.PREEMPTED)
    _log_end(session, simulation_id, closed.attempt_id, number, ending, target, retry_after)
    if is_final and closed.is_awaited:
        await release(session, simulation_id, target, actor)
    return True


def ending_by(exit_: Exit, stop_reason: Reason | None) -> Ending:
    """How an attempt ends by the exit of its process, while this stop is wanted."""
    meaning = meaning_of(exit_, stop_reason.value if stop_reason is not None else None)
    return Ending(Reason(meaning.reason), meaning.detail, meaning.exit_code, meaning.signal)


def _closing(ending: Ending) -> Closing:
    return Closing(ending.reason, ending.detail, ending.exit_code, ending.signal)


def _log_end(
    session: AsyncSession | None,
    simulation_id: int,
    attempt_id: int,
    number: int,
    ending: Ending,
    target: S,
    retry_after: timedelta | None,
) -> None:
    journal.write(
        session, "attempt_ended", simulation_id=simulation_id, attempt_id=attempt_id, attempt=number,
        state=target.value, reason=ending.reason.value, detail=ending.detail, exit_code=ending.exit_code,
        retry_after_seconds=retry_after.total_seconds() if retry_after is not None else None,
    )  # fmt: skip


def _event(number: int, ending: Ending) -> dict[str, Any]:
    return {"attempt": number, **_facts(ending)}


def _facts(ending: Ending) -> dict[str, Any]:
    told = {
        "reason": ending.reason.value, "detail": ending.detail or None,
        "exitCode": ending.exit_code, "signal": ending.signal,
    }  # fmt: skip
    return {key: value for key, value in told.items() if value is not None}
