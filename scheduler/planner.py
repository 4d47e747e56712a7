"""The leader's round: find what was lost, match the queue to the machines, act on it.

`tick()` is the whole round, by timer; `plan()` is the part that is worth doing at once when something changed. Rows
are read, `policy` judges without a transaction, and each judgement is carried out in a transaction of its own that
locks the simulation first, then the machine with its neighbours, and looks again: whoever was faster, another
leader included, wins.

Nothing is started or stopped here: an assignment is a row that its host's own loop acts on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, events, lifecycle, machines, simulations, watch_leases
from db.lifecycle import Assignment, Ending
from db.machines import NOTHING, Usage
from db.models import Machine as MachineRow
from db.models import Simulation
from db.states import MachineState, Reason, SimulationState
from policy.matching import share_of
from policy.placement import Machine, Placement, Request, Requirements, Waiting, fits_now, plan
from scheduler.settlement import STOPPED_EARLY, Sessions, settle
from settings import Settings

log = structlog.get_logger()

QUEUE_LIMIT = 10_000  # what is behind them waits unexplained until they have moved
PLACEMENTS_AT_ONCE = 100  # then the queue is read again: somebody more urgent may have come
OVERTIME = timedelta(seconds=15)  # how much slower than Postgres' clock a supervisor's may run


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a round did. `unfinished`: more was to be placed than one round places; come again at once."""

    hosts: frozenset[str] = frozenset()  # of what was assigned
    assigned: int = 0
    refused: int = 0  # somebody was faster
    waiting: int = 0
    ended: int = 0
    unfinished: bool = False


class Planner:
    """Only the leader calls it; two that do are harmless."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._stop_grace = timedelta(seconds=settings.stop_grace_seconds)

    async def tick(self) -> PlanSummary:
        """Do the whole round once."""
        await self._beat()
        ended = await self._end_silent() + await self._end_unwanted()
        await self._stop_overdue()
        await self._stop_unwatched()
        planned = await self.plan()
        return replace(planned, ended=ended)

    async def plan(self) -> PlanSummary:
        """Give waiting simulations the machines that are free, and the rest their reasons. One query if none waits."""
        async with self._sessions() as session:
            queue = await simulations.queue(session, limit=QUEUE_LIMIT)
            if not queue:
                return PlanSummary()
            watched = await watch_leases.watched_of(session, [each.id for each in queue if each.attended])
            offered = await _machines(session, await machines.every(session), self._lease)
        requests = [
            Request(
                each.id,
                each.priority,
                each.created_at,
                _requirements(each),
                unattended=each.attended and each.id not in watched,
            )
            for each in queue
        ]
        # Thousands of requests take a moment, in which this process has launches to make.
        answers = await asyncio.to_thread(plan, requests, offered, currency=self._settings.currency)
        placements = [answer for answer in answers if isinstance(answer, Placement)]
        waiting = [answer for answer in answers if isinstance(answer, Waiting)]
        fences = {each.id: each.attempt for each in queue}
        hosts: set[str] = set()
        assigned = refused = 0
        for placement in placements[:PLACEMENTS_AT_ONCE]:
            machine = await self._assign(placement, fences[placement.request_id])
            if machine is None:
                refused += 1
            else:
                assigned += 1
                hosts |= {machine.host} if machine.host else set()
        async with self._sessions.begin() as session:
            await simulations.note_waiting(session, [(each.request_id, each.reason, each.detail) for each in waiting])
        return PlanSummary(
            frozenset(hosts), assigned, refused, len(waiting), unfinished=len(placements) > PLACEMENTS_AT_ONCE
        )

    async def _assign(self, placement: Placement, fence: int) -> MachineRow | None:
        """Carry out one placement, if it still fits; None if it does not."""
        async with self._sessions.begin() as session:
            simulation = await lifecycle.lock(session, placement.request_id)
            if simulation is None or simulation.state is not SimulationState.QUEUED or simulation.attempt != fence:
                return None
            if simulation.attended and not await watch_leases.watched_of(session, [simulation.id]):
                return None
            row = await machines.lock_with_neighbours(session, placement.machine_id)
            if row is None:
                return None
            [machine] = await _machines(session, [row], self._lease)
            required = _requirements(simulation)
            if not fits_now(required, machine):
                return None
            indices = await _choose_gpus(session, row, simulation.gpus)
            assignment = Assignment(
                machine_id=row.id,
                machine_name=row.name,
                host=row.host,
                gpu_indices=indices,
                price_per_hour=row.price_per_hour,
                share=share_of(required, machine),
                currency=self._settings.currency,
            )
            attempt_id = await lifecycle.assign(session, simulation.id, fence, assignment, events.PLANNER)
        if attempt_id is None:
            return None
        log.info("simulation_assigned", simulation_id=simulation.id, attempt_id=attempt_id, machine=row.name)
        return row

    # --- what went wrong ---------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        async with self._sessions.begin() as session:
            await attempts.beat(session, "scheduler", attempts.coverage_gap(self._lease))
            await attempts.forgive_clock(session)
            await watch_leases.sweep(session, self._lease)

    async def _end_silent(self) -> int:
        """End what was silent for a lease. Where the host's own scheduler lives, it has another lease to prove it."""
        gap = attempts.coverage_gap(self._lease)
        async with self._sessions() as session:
            silent = await attempts.find_silent(session, self._lease, gap)
            if not silent:
                return 0
            long_silent = {each.id for each in await attempts.find_silent(session, 2 * self._lease, gap)}
            live = await machines.live_hosts(session, self._lease)
        ended = 0
        for attempt in silent:
            if attempt.host in live and attempt.id not in long_silent:
                continue
            seconds = f"{self._settings.lease_seconds:g} seconds"
            ending = Ending(
                Reason.MACHINE_LOST, f"Nothing was heard of it, on {attempt.machine_name}, for more than {seconds}."
            )
            still_so = partial(self._is_still_lost, attempt_id=attempt.id)
            ended += await settle(self._sessions, self._settings, attempt, ending, still_so=still_so)
        return ended

    async def _is_still_lost(self, session: AsyncSession, attempt_id: int) -> bool:
        """Look again, at the coverage too: this process may just have been asleep, and everybody with it."""
        if not await attempts.is_still_silent(session, attempt_id, self._lease):
            return False
        silent = await attempts.find_silent(session, self._lease, attempts.coverage_gap(self._lease))
        return attempt_id in {each.id for each in silent}

    async def _end_unwanted(self) -> int:
        """End what was to be stopped before it was launched: there is no supervisor that could be told."""
        async with self._sessions() as session:
            unwanted = await attempts.find_unwanted(session)
        ended = 0
        for attempt in unwanted:
            still_so = partial(attempts.is_still_unclaimed, attempt_id=attempt.id)
            ended += await settle(self._sessions, self._settings, attempt, STOPPED_EARLY, still_so=still_so)
        return ended

    async def _stop_overdue(self) -> None:
        """Want what exceeds its limit stopped. Its supervisor does that by itself, unless its clock is wrong."""
        async with self._sessions() as session:
            gap = attempts.coverage_gap(self._lease)
            overdue: Sequence[int] = await attempts.find_overdue(session, self._stop_grace + OVERTIME, gap)
        for simulation_id in overdue:
            async with self._sessions.begin() as session:
                await lifecycle.want_stop(session, simulation_id, Reason.MAX_RUNTIME, events.PLANNER)

    async def _stop_unwatched(self) -> None:
        """Want what is attended stopped when nobody has watched it for its grace. Its supervisor hears of it."""
        gap = attempts.coverage_gap(self._lease)
        async with self._sessions() as session:
            unwatched = await watch_leases.find_unwatched(session, gap)
        for simulation_id in unwatched:
            async with self._sessions.begin() as session:
                await lifecycle.lock(session, simulation_id)
                if await watch_leases.is_still_unwatched(session, simulation_id, gap):
                    await lifecycle.want_stop(session, simulation_id, Reason.UNWATCHED, events.PLANNER)


# --- rows as policy wants them ---------------------------------------------------------------------------------


def _requirements(simulation: Simulation) -> Requirements:
    return Requirements(
        cpus=simulation.cpus,
        memory_gib=simulation.memory_gib,
        gpus=simulation.gpus,
        gpu_model=simulation.gpu_model,
        labels=simulation.labels,
        machine_id=simulation.machine_id,
        machine_name=simulation.machine_name,
        max_price_per_hour=simulation.max_price_per_hour,
    )


async def _machines(session: AsyncSession, rows: Sequence[MachineRow], lease: timedelta) -> Sequence[Machine]:
    """Read what is free on these machines, and whether they take work."""
    ids = [row.id for row in rows]
    held = await machines.usage(session, ids)
    states = await machines.states_of(session, ids, lease)
    with_gpus = {row.host for row in rows if row.host is not None and row.gpus > 0}
    free = await machines.free_gpu_indices(session, with_gpus) if with_gpus else {}
    return [_machine(row, held.get(row.id, NOTHING), states.get(row.id, MachineState.OFFLINE), free) for row in rows]


def _machine(row: MachineRow, held: Usage, state: MachineState, free: Mapping[str, tuple[int, ...]]) -> Machine:
    return Machine(
        id=row.id,
        name=row.name,
        cpus=row.cpus,
        memory_gib=row.memory_gib,
        gpus=row.gpus,
        gpu_model=row.gpu_model,
        labels=row.labels,
        price_per_hour=row.price_per_hour,
        free_cpus=row.cpus - held.cpus,
        free_memory_gib=row.memory_gib - held.memory_gib,
        free_gpus=row.gpus - held.gpus,
        online=state is not MachineState.OFFLINE,
        draining=row.draining,
        host=row.host,
        host_free_gpus=len(free[row.host]) if row.host is not None and row.host in free else None,
    )


async def _choose_gpus(session: AsyncSession, row: MachineRow, count: int) -> tuple[int, ...]:
    """The lowest free ones of the host. A machine of no host has its GPUs given out by its engine."""
    if count == 0 or row.host is None:
        return ()
    free = (await machines.free_gpu_indices(session, [row.host]))[row.host]
    return free[:count]
