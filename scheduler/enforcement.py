"""Attempts that must not go on: lost, over a limit, unwatched, or on a machine past its drain deadline.

Each step finds its candidates and lets `policy` judge them; the deadline of a drain is its owner's decision. What
another process may have changed meanwhile is judged again under lock, and no attempt is stopped but the one that was
judged. Two planners at once do no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, billing, events, lifecycle, machines, silence, watch_leases
from db.attempts import Hosted
from db.connection import Sessions
from db.models import Attempt, Member
from db.silence import Listening
from db.states import MachineState, Reason
from policy.cost import is_spent
from policy.retry import is_lost, is_overdue, is_unwatched
from policy.waiting import drained
from settings import Settings
from transitions.preempt import preempt
from transitions.settle import STOPPED_EARLY, Ending, settle
from transitions.stop import stop, stop_locked


class Enforcement:
    """The steps of a planner's round that end, stop or preempt attempts; none of them looks at the queue."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._stop_grace = timedelta(seconds=settings.stop_grace_seconds)
        self._backoff = timedelta(seconds=settings.retry_backoff_seconds)

    async def tidy(self) -> None:
        """Correct times in the future, after a clock was set back; drop watch leases that have run out."""
        async with self._sessions.begin() as session:
            await silence.forgive_clock(session)
            await watch_leases.sweep(session, self._lease)

    async def end_lost(self) -> int:
        """End members silent for a lease; a host whose scheduler lives has another lease to prove them dead."""
        async with self._sessions() as session:
            quiet = await silence.find_quiet(session, self._lease)
            if not quiet:
                return 0
            listening = await silence.listening(session)
            live = await self._looked_after(session, [each.member for each in quiet])
        ended = 0
        for each in quiet:
            host_lives = each.member.id in live
            if is_lost(each.member.heartbeat_at, listening, self._lease, host_lives=host_lives):
                ended += await self._settle(each, partial(self._as_lost, host_lives=host_lives))
        return ended

    async def end_unwanted(self) -> int:
        """End members stopped before their launch: there is no supervisor to receive the stop."""
        async with self._sessions() as session:
            unwanted = await attempts.find_unwanted(session)
        return sum([await self._settle(each, _as_unclaimed) for each in unwanted])

    async def stop_overdue(self) -> None:
        """Stop attempts over their time limit. Supervisors do so themselves, unless their clock is wrong."""
        async with self._sessions() as session:
            beyond = await silence.find_beyond_limit(session)
            listening = await silence.listening(session)
        for attempt, limit in beyond:
            if not self._is_overdue(attempt, limit, listening):
                continue
            async with self._sessions.begin() as session:
                simulation = await lifecycle.lock(session, attempt.simulation_id)
                listening = await silence.listening(session)
                if simulation and self._is_overdue(attempt, simulation.max_runtime, listening):
                    await stop(session, simulation.id, Reason.MAX_RUNTIME, events.PLANNER, number=attempt.number)

    async def stop_spent(self) -> None:
        """Stop attempts whose simulation has cost its limit. Supervisors stop a grace earlier, unless they can't."""
        async with self._sessions() as session:
            limited = await silence.find_with_max_cost(session)
            held = await billing.of_simulations(session, [attempt.simulation_id for attempt, _ in limited])
        for attempt, limit in limited:
            if not is_spent(held.get(attempt.simulation_id, ()), limit):
                continue
            async with self._sessions.begin() as session:
                simulation = await lifecycle.lock(session, attempt.simulation_id)
                now_held = await billing.of_simulations(session, [attempt.simulation_id])
                if simulation and is_spent(now_held.get(simulation.id, ()), simulation.max_cost):
                    await stop(session, simulation.id, Reason.MAX_COST, events.PLANNER, number=attempt.number)

    async def stop_unwatched(self) -> None:
        """Stop attended simulations that had no subscriber for their grace."""
        async with self._sessions() as session:
            found = await watch_leases.find_unwatched(session)
            listening = await silence.listening(session)
        for each in found:
            if not is_unwatched(each.present_since, each.grace, listening, self._lease):
                continue
            async with self._sessions.begin() as session:
                simulation = await lifecycle.lock(session, each.simulation_id)
                still = await watch_leases.still_unwatched(session, each.simulation_id)
                listening = await silence.listening(session)
                if simulation and still and is_unwatched(still.present_since, still.grace, listening, self._lease):
                    await stop_locked(session, simulation, Reason.UNWATCHED, events.PLANNER)

    async def preempt_overstayers(self) -> None:
        """Preempt what still runs on drained machines after their deadlines, preemptible or not: the owner decided."""
        async with self._sessions() as session:
            found = await machines.find_overstayers(session)
        for each in found:
            evidence = {  # without a `rule`: that is what stop rules have
                "machine": each.machine,
                "deadline": each.deadline.isoformat(),
                "sentence": drained(each.machine, each.deadline),
            }
            async with self._sessions.begin() as session:
                await preempt(session, each.simulation_id, events.PLANNER, evidence=evidence, number=each.number)

    def _is_overdue(self, attempt: Attempt, limit: timedelta | None, listening: Listening) -> bool:
        if attempt.started_at is None or limit is None:
            return False
        return is_overdue(attempt.started_at, limit, listening, self._lease, self._stop_grace)

    async def _looked_after(self, session: AsyncSession, members: Sequence[Member]) -> frozenset[int]:
        """Return the members whose host's scheduler lives, or, on a machine without a host, whose machine is online."""
        hosts = await machines.live_hosts(session, self._lease)
        on = {each.machine_id for each in members if each.host is None and each.machine_id is not None}
        states = await machines.states_of(session, on, self._lease) if on else {}
        online = {machine_id for machine_id, state in states.items() if state is not MachineState.OFFLINE}
        return frozenset(
            each.id for each in members if (each.machine_id in online if each.host is None else each.host in hosts)
        )

    async def _as_lost(self, session: AsyncSession, current: Hosted, *, host_lives: bool) -> Ending | None:
        """Check again, the coverage too: the whole machine, this process included, may have been suspended."""
        listening = await silence.listening(session)
        if not is_lost(current.member.heartbeat_at, listening, self._lease, host_lives=host_lives):
            return None
        seconds = f"{self._settings.lease_seconds:g} seconds"
        return Ending(
            Reason.MACHINE_LOST, f"Nothing was heard of it, on {current.member.machine_name}, for more than {seconds}."
        )

    async def _settle(
        self, hosted: Hosted, look_again: Callable[[AsyncSession, Hosted], Awaitable[Ending | None]]
    ) -> bool:
        """End a member if `look_again` still returns an ending under lock; return whether it did."""
        attempt, rank = hosted.attempt, hosted.member.rank
        async with self._sessions.begin() as session:
            simulation = await lifecycle.lock(session, attempt.simulation_id)
            current = await attempts.lock(session, attempt.id, rank)
            if simulation is None or current is None:
                return False
            ending = await look_again(session, current)
            if ending is None:
                return False
            return await settle(
                session, simulation.id, attempt.number, ending, events.PLANNER, backoff=self._backoff, rank=rank
            )


async def _as_unclaimed(_session: AsyncSession, current: Hosted) -> Ending | None:
    """Ending of an unclaimed member; None if its launch is claimed, as then its supervisor receives the stop."""
    return STOPPED_EARLY if current.member.token_digest is None else None
