"""Planner: the leader's round, which ends lost attempts, stops overdue ones and assigns the queue to machines.

`tick()` is the whole round, by timer; `plan()` is the part that runs at once after a change. The planner reads rows,
`policy` judges without a transaction, and a round's placements are carried out in one transaction, which locks the
simulations first, then the machines with their neighbours, then the budgets that pay for them, and checks each
placement again: where another process, even another leader, was faster, its change wins, and the other placements are
carried out all the same.

The planner starts and kills no process: an assignment is a row on which the loop of the machine's host acts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import attempts, billing, events, lifecycle, machines, projects, queue, watch_leases
from db.attempts import Execution
from db.connection import Sessions, driver_of
from db.due import find_due
from db.machines import NOTHING, Usage
from db.models import Attempt, Simulation
from db.models import Machine as MachineRow
from db.queue import Candidate
from db.states import MachineState, Reason, SimulationState
from policy.cost import billed_per_hour, is_spent
from policy.matching import share_of
from policy.placement import (
    Machine,
    Placement,
    Request,
    Requirements,
    Waiting,
    WaitingReason,
    left_after,
    placeable,
    plan,
    still_fitting,
)
from policy.quota import Quota, admitted, used_after
from policy.retry import coverage_gap, is_lost, is_overdue, is_unwatched
from scheduler.queue_memory import Explained, QueueMemory
from scheduler.spending import Spending, rules_of
from settings import Settings
from transitions import budget
from transitions.assign import Assignment, Placed, assign
from transitions.budget import Room, Start
from transitions.settle import STOPPED_EARLY, Ending, settle
from transitions.stop import stop, stop_locked

PLACEMENTS_AT_ONCE = 100  # in a transaction; then the queue is read again: a more urgent simulation may have arrived
FEWEST_OF_A_CLASS = 4  # rows read of each class that fits somewhere, however many classes there are
EXPLAINED_AT_ONCE = 1000  # classes that get their first reason in one round; the others follow in the next ones
REFRESHED_AT_ONCE = 100  # likewise, classes whose sentence may have changed


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """Result of a round. `unfinished`: more fits than one round places, so the next round begins at once."""

    hosts: frozenset[str] = frozenset()  # of the assigned simulations
    assigned: int = 0
    refused: int = 0  # placements that no longer fitted
    waiting: int = 0  # classes of equal requirements, not simulations
    ended: int = 0
    unfinished: bool = False


@dataclass(slots=True)
class _Round:
    """Result of placing."""

    hosts: set[str]
    assigned: int = 0
    refused: int = 0
    unfinished: bool = False
    emptied: Set[UUID] = frozenset()  # classes with no simulation left in the queue
    explained: Sequence[Explained] = ()


@dataclass(frozen=True, slots=True)
class _Grant:
    """A placement that still fits, before budgets are asked. `share`: of the machine."""

    simulation: Simulation
    required: Requirements
    machine: MachineRow
    share: Decimal


class Planner:
    """Planner of the leading scheduler; two at once do no harm."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._memory = QueueMemory()
        self._stop_grace = timedelta(seconds=settings.stop_grace_seconds)
        self._backoff = timedelta(seconds=settings.retry_backoff_seconds)
        self._spending = Spending(sessions, settings)
        self._budget_rules = rules_of(settings)

    async def tick(self) -> PlanSummary:
        """Do the whole round once: the steps for which a first look, the beat, finds something due."""
        async with driver_of(self._sessions) as driver:
            found = await find_due(driver, "scheduler", coverage_gap(self._lease), self._lease)
        if found.clock or found.leases:
            await self._tidy()
        ended = await self._end_lost() if found.quiet else 0
        ended += await self._end_unwanted() if found.unwanted else 0
        if found.overdue:
            await self._stop_overdue()
        if found.priced:
            await self._stop_spent()
        if found.unwatched:
            await self._stop_unwatched()
        if found.budgets:
            await self._spending.watch()
        if found.queue or ended or not self._memory.is_empty:
            return replace(await self.plan(), ended=ended)
        return PlanSummary()

    async def plan(self) -> PlanSummary:
        """Assign waiting simulations to free machines, and record waiting reasons. One query if none waits."""
        # A failed round leaves no memory: its notes may not have been carried out.
        memory, self._memory = self._memory, QueueMemory()
        summary = await self._plan(memory)
        self._memory = memory
        return summary

    def forget(self) -> None:
        """Drop the memory, so the next round reads the whole queue: another planner may lead until then."""
        self._memory = QueueMemory()

    async def _plan(self, memory: QueueMemory) -> PlanSummary:
        gone: set[UUID] = set()
        async with self._sessions() as session:
            look = await queue.look(session, memory.bookmark)
            if look.is_empty:
                await queue.forget(session, memory.classes.keys())
                await session.commit()
                memory.forget(set(memory.classes))
                return PlanSummary()
            watched = await queue.watched(session)
            offered = await _machines(session, await machines.every(session), self._lease)
            due, is_whole = look.due, memory.bookmark is None
            if not is_whole and memory.needs_whole_look(look.bookmark.at) and memory.to_judge(offered, look.arrived):
                look, is_whole = await queue.look(session, None), True
            new = {each.queue_class: each for each in watched if each.queue_class not in memory.classes}
            for each in await queue.first_of(session, look.arrived - memory.classes.keys(), most=1):
                new.setdefault(each.queue_class, each)
            if is_whole:
                there = look.arrived | {each.queue_class for each in watched}
                memory.forget(memory.classes.keys() - there)
                memory.whole_look_at = look.bookmark.at
                gone |= await queue.noted(session) - there
            rooms = await budget.rooms(session, self._budget_rules)
            quotas = _quotas(await projects.uses(session))
        for queue_class, example in new.items():
            memory.meet(queue_class, _request(example), example.project_id)
        unwatched = memory.watched - {each.id for each in watched}
        memory.bookmark, memory.watched = look.bookmark, frozenset(each.id for each in watched)

        round_ = _Round(hosts=set())
        judged = dict.fromkeys(
            [
                *memory.to_judge(offered, new),
                *memory.of_changed_budgets(rooms),
                *memory.of_wider_quotas(quotas),
            ]
        )
        if judged or memory.has_unexplained:
            round_ = await self._place(memory, list(judged), watched, offered, rooms, quotas)
        gone |= round_.emptied
        told = [*due, *sorted(unwatched)]
        if gone or round_.explained or told:
            async with self._sessions.begin() as session:
                await queue.forget(session, gone)
                await queue.note_reasons(
                    session,
                    [(each.queue_class, each.reason, each.detail) for each in round_.explained],
                    new={each.queue_class for each in round_.explained if each.is_new},
                )
                await queue.notify_of(session, told)
        return PlanSummary(
            frozenset(round_.hosts), round_.assigned, round_.refused, len(memory.classes), unfinished=round_.unfinished
        )

    async def _place(
        self,
        memory: QueueMemory,
        judged: Sequence[UUID],
        watched: Sequence[Candidate],
        offered: Sequence[Machine],
        rooms: Mapping[int | None, Room],
        quotas: Mapping[int, Quota],
    ) -> _Round:
        """Place simulations that fit, can be paid and are within quotas, and find the waiting reasons of the rest."""
        wanted = [memory.classes[each].example.requirements for each in judged]
        # In a thread: thousands of classes take a moment, during which this process has launches to make.
        fits = await asyncio.to_thread(placeable, wanted, offered)
        able = {each for each, fitting in zip(judged, fits, strict=True) if fitting}
        over = await self._over_budget(memory, able, offered, rooms)
        memory.note_over_budget(judged, over)
        able -= over.keys()
        beyond = {each for each in able if not memory.is_admitted(each, quotas)}
        memory.note_over_quota(judged, beyond)
        able -= beyond
        memory.note_unplaced(each for each in judged if each not in able)
        most = max(FEWEST_OF_A_CLASS, PLACEMENTS_AT_ONCE // max(len(able), 1) + 1)
        async with self._sessions() as session:
            candidates = list(await queue.first_of(session, able, most=most))
        last = {each.queue_class: each.id for each in candidates}
        counts = Counter(each.queue_class for each in candidates)
        more = {last[each] for each, count in counts.items() if count == most}
        candidates += [each for each in watched if each.queue_class in able]
        requests = [
            replace(_limited(_request(each), memory.room_of(each.queue_class, rooms)), more=each.id in more)
            for each in candidates
        ]
        class_of = {each.id: each.queue_class for each in candidates}
        if able:
            memory.note_stale()
        told: dict[UUID, tuple[WaitingReason, str]] = {}
        for each in memory.to_explain(EXPLAINED_AT_ONCE, REFRESHED_AT_ONCE):
            room = memory.room_of(each, rooms) if each in memory.over_budget else None
            if room is not None:
                told[each] = WaitingReason.BUDGET_EXHAUSTED, room.detail
            elif each in memory.over_quota and not memory.is_admitted(each, quotas):
                told[each] = _beyond_quota(memory, each, quotas)
            elif each not in able:
                requests.append(memory.classes[each].example)
                class_of[memory.classes[each].example.id] = each

        asks = {each: memory.asks_of(queue_class) for each, queue_class in class_of.items()}
        answers, refused = await asyncio.to_thread(
            _plan_within, requests, offered, asks, quotas, self._settings.currency
        )
        memory.note_over_quota((), {class_of[each] for each in refused})
        placements = [answer for answer in answers if isinstance(answer, Placement)]
        fences = {each.id: each.attempt for each in candidates}
        round_ = _Round(hosts=set())
        left = dict(class_of)
        taken: list[tuple[int, Requirements]] = []
        attempted = placements[:PLACEMENTS_AT_ONCE]
        assigned = await self._assign(attempted, fences) if attempted else {}
        for placement in attempted:
            if placement.request_id not in assigned:
                round_.refused += 1
                continue
            host = assigned[placement.request_id].host
            round_.assigned += 1
            round_.hosts |= {host} if host else set()
            taken.append((placement.machine_id, memory.classes[left.pop(placement.request_id)].example.requirements))
        round_.unfinished = len(placements) > PLACEMENTS_AT_ONCE or len(answers) + len(refused) < len(requests)
        memory.machines = left_after(offered, taken)
        memory.is_settled = not round_.unfinished and not round_.refused
        round_.emptied = able - set(left.values()) - {class_of[each] for each in more}
        memory.forget(round_.emptied)
        quotas = used_after([asks[each] for each in assigned], quotas)
        told |= {class_of[each]: _beyond_quota(memory, class_of[each], quotas) for each in refused}
        told |= {class_of[each.request_id]: (each.reason, each.detail) for each in answers if isinstance(each, Waiting)}
        round_.explained = memory.explain(told)
        return round_

    async def _over_budget(
        self, memory: QueueMemory, able: Set[UUID], offered: Sequence[Machine], rooms: Mapping[int | None, Room]
    ) -> Mapping[UUID, Room]:
        """Find those of the classes that fit which a budget does not pay for, each with the room that it has."""
        limits = {each: room for each in able if (room := memory.room_of(each, rooms)) is not None}
        wanted = [_limited(memory.classes[each].example, room).requirements for each, room in limits.items()]
        fits = await asyncio.to_thread(placeable, wanted, offered)
        return {each: limits[each] for each, fitting in zip(limits, fits, strict=True) if not fitting}

    async def _assign(self, placements: Sequence[Placement], fences: Mapping[int, int]) -> Mapping[int, Assignment]:
        """Carry out the placements that still fit and are paid for, in their order; return the assignments."""
        async with self._sessions.begin() as session:
            locked = await lifecycle.lock_all(session, [each.request_id for each in placements])
            waiting = {each.id: each for each in locked if _still_waits(each, fences)}
            attended = [each.id for each in waiting.values() if each.attended]
            unwatched = set(attended) - await watch_leases.watched_of(session, attended)
            placements = [each for each in placements if each.request_id in waiting.keys() - unwatched]
            rows = await machines.lock_with_neighbours(session, {each.machine_id for each in placements})
            by_id = {row.id: row for row in rows}
            wanted = [(each.machine_id, _requirements(waiting[each.request_id])) for each in placements]
            fitting = still_fitting(await _machines(session, rows, self._lease), wanted)
            grants = [
                _Grant(waiting[placement.request_id], required, by_id[machine.id], share_of(required, machine))
                for placement, (_, required), machine in zip(placements, wanted, fitting, strict=True)
                if machine is not None
            ]
            grants = await _within_quotas(session, grants)
            starts = [
                Start(
                    each.simulation.project_id,
                    billed_per_hour(each.machine.price_per_hour, each.share),
                    self._settings.currency,
                )
                for each in grants
            ]
            unpayable = await budget.unpayable(session, starts, self._budget_rules) if starts else frozenset()
            # Read after what is free on the machines: an attempt that has ended in between frees more of both.
            gpus = await _free_gpus(session, rows)
            placed = [
                Placed(each.simulation.id, each.simulation.attempt, self._assignment(each, gpus))
                for place, each in enumerate(grants)
                if place not in unpayable
            ]
            made = await assign(session, placed, events.PLANNER) if placed else {}
        return {each.simulation_id: each.assignment for each in placed if each.simulation_id in made}

    def _assignment(self, grant: _Grant, gpus: Mapping[str, list[int]]) -> Assignment:
        """Grant what is required, and take the lowest free GPU indices of the host out of `gpus`.

        Without a host, the machine's engine assigns the GPUs.
        """
        row, required = grant.machine, grant.required
        indices: list[int] = []
        if required.gpus > 0 and row.host is not None:
            indices = gpus[row.host][: required.gpus]
            del gpus[row.host][: required.gpus]
        return Assignment(
            machine_id=row.id,
            machine_name=row.name,
            host=row.host,
            gpu_indices=tuple(indices),
            price_per_hour=row.price_per_hour,
            share=grant.share,
            currency=self._settings.currency,
            cpus=required.cpus,
            memory_gib=required.memory_gib,
            gpus=required.gpus,
        )

    # --- what went wrong ---------------------------------------------------------------------------------------

    async def _tidy(self) -> None:
        """Correct times in the future, after a clock was set back; drop watch leases that have run out."""
        async with self._sessions.begin() as session:
            await attempts.forgive_clock(session)
            await watch_leases.sweep(session, self._lease)

    async def _end_lost(self) -> int:
        """End attempts silent for a lease; a host whose scheduler lives has another lease to prove them dead."""
        async with self._sessions() as session:
            quiet = await attempts.find_quiet(session, self._lease)
            if not quiet:
                return 0
            listening = await attempts.listening(session)
            live = await machines.live_hosts(session, self._lease)
        ended = 0
        for each in quiet:
            host_lives = each.lead.host in live
            if is_lost(each.lead.heartbeat_at, listening, self._lease, host_lives=host_lives):
                ended += await self._settle(each.attempt, partial(self._as_lost, host_lives=host_lives))
        return ended

    async def _as_lost(self, session: AsyncSession, current: Execution, *, host_lives: bool) -> Ending | None:
        """Check again, the coverage too: the whole machine, this process included, may have been suspended."""
        listening = await attempts.listening(session)
        if not is_lost(current.lead.heartbeat_at, listening, self._lease, host_lives=host_lives):
            return None
        seconds = f"{self._settings.lease_seconds:g} seconds"
        return Ending(
            Reason.MACHINE_LOST, f"Nothing was heard of it, on {current.lead.machine_name}, for more than {seconds}."
        )

    async def _end_unwanted(self) -> int:
        """End attempts stopped before their launch: there is no supervisor to receive the stop."""
        async with self._sessions() as session:
            unwanted = await attempts.find_unwanted(session)
        return sum([await self._settle(each.attempt, _as_unclaimed) for each in unwanted])

    async def _settle(
        self, attempt: Attempt, look_again: Callable[[AsyncSession, Execution], Awaitable[Ending | None]]
    ) -> bool:
        """End an attempt if `look_again` still returns an ending under lock; return whether it did."""
        async with self._sessions.begin() as session:
            simulation = await lifecycle.lock(session, attempt.simulation_id)
            current = await attempts.lock(session, attempt.id)
            if simulation is None or current is None:
                return False
            ending = await look_again(session, current)
            if ending is None:
                return False
            return await settle(session, simulation.id, attempt.number, ending, events.PLANNER, backoff=self._backoff)

    async def _stop_overdue(self) -> None:
        """Stop attempts over their time limit. Supervisors do so themselves, unless their clock is wrong."""
        async with self._sessions() as session:
            beyond = await attempts.find_beyond_limit(session)
            listening = await attempts.listening(session)
        for attempt, limit in beyond:
            started_at = attempt.started_at
            if started_at and is_overdue(started_at, limit, listening, self._lease, self._stop_grace):
                async with self._sessions.begin() as session:
                    await stop(session, attempt.simulation_id, Reason.MAX_RUNTIME, events.PLANNER)

    async def _stop_spent(self) -> None:
        """Stop attempts whose simulation has cost its limit. Supervisors stop a grace earlier, unless they can't."""
        async with self._sessions() as session:
            limited = await attempts.find_with_max_cost(session)
            held = await billing.of_simulations(session, [attempt.simulation_id for attempt, _ in limited])
        for attempt, limit in limited:
            if is_spent(held.get(attempt.simulation_id, ()), limit):
                async with self._sessions.begin() as session:
                    await stop(session, attempt.simulation_id, Reason.MAX_COST, events.PLANNER, number=attempt.number)

    async def _stop_unwatched(self) -> None:
        """Stop attended simulations that had no subscriber for their grace."""
        async with self._sessions() as session:
            found = await watch_leases.find_unwatched(session)
            listening = await attempts.listening(session)
        for each in found:
            if not is_unwatched(each.present_since, each.grace, listening, self._lease):
                continue
            async with self._sessions.begin() as session:
                simulation = await lifecycle.lock(session, each.simulation_id)
                still = await watch_leases.still_unwatched(session, each.simulation_id)
                listening = await attempts.listening(session)
                if simulation and still and is_unwatched(still.present_since, still.grace, listening, self._lease):
                    await stop_locked(session, simulation, Reason.UNWATCHED, events.PLANNER)


async def _as_unclaimed(_session: AsyncSession, current: Execution) -> Ending | None:
    """Ending of an unclaimed attempt; None if its launch is claimed, as then its supervisor receives the stop."""
    return STOPPED_EARLY if current.lead.token_digest is None else None


# --- quotas ----------------------------------------------------------------------------------------------------


def _plan_within(
    requests: Sequence[Request],
    offered: Sequence[Machine],
    asks: Mapping[int, tuple[int, int]],
    quotas: Mapping[int, Quota],
    currency: str,
) -> tuple[Sequence[Placement | Waiting], frozenset[int]]:
    """Plan, without the requests that a quota refuses once those before them are placed; return these as well.

    The plan is made again without them, because they took room that others can have. asks: project and GPUs of each.
    """
    refused: set[int] = set()
    while True:
        answers = plan([each for each in requests if each.id not in refused], offered, currency=currency)
        placed = [each.request_id for each in answers if isinstance(each, Placement)]
        within = admitted([asks[each] for each in placed], quotas)
        beyond = {each for each, is_within in zip(placed, within, strict=True) if not is_within}
        if not beyond:
            return answers, frozenset(refused)
        refused |= beyond


async def _within_quotas(session: AsyncSession, grants: list[_Grant]) -> list[_Grant]:
    """Lock the quotas of these grants' projects; return the grants that they admit.

    The caller holds the locks of the machines: so starts of one project, by another planner too, see each other.
    """
    concerned = {each.simulation.project_id for each in grants if each.required.gpus > 0}
    if not concerned:
        return grants
    quotas = _quotas(await projects.lock_quotas(session, concerned))
    within = admitted([(each.simulation.project_id, each.required.gpus) for each in grants], quotas)
    return [each for each, is_within in zip(grants, within, strict=True) if is_within]


def _quotas(uses: Mapping[int, projects.Use]) -> Mapping[int, Quota]:
    return {project_id: Quota(use.name, use.quota, use.used) for project_id, use in uses.items()}


def _beyond_quota(memory: QueueMemory, queue_class: UUID, quotas: Mapping[int, Quota]) -> tuple[WaitingReason, str]:
    project_id, gpus = memory.asks_of(queue_class)
    return WaitingReason.QUOTA, quotas[project_id].refusal(gpus)


# --- rows as policy wants them ---------------------------------------------------------------------------------


def _request(candidate: Candidate) -> Request:
    return Request(candidate.id, candidate.priority, candidate.created_at, _requirements(candidate))


def _limited(request: Request, room: Room | None) -> Request:
    """Limit a request to what budgets pay for."""
    if room is None:
        return request
    own = request.requirements.max_price_per_hour
    most = room.per_hour if own is None else min(own, room.per_hour)
    return replace(request, requirements=replace(request.requirements, max_price_per_hour=most))


def _requirements(simulation: Simulation | Candidate) -> Requirements:
    return Requirements(**{each.name: getattr(simulation, each.name) for each in fields(Requirements)})


async def _machines(session: AsyncSession, rows: Sequence[MachineRow], lease: timedelta) -> Sequence[Machine]:
    """Read the free amounts of these machines, and whether they accept work."""
    ids = [row.id for row in rows]
    held = await machines.usage(session, ids)
    states = await machines.states_of(session, ids, lease)
    free = await _free_gpus(session, rows)
    return [_machine(row, held.get(row.id, NOTHING), states.get(row.id, MachineState.OFFLINE), free) for row in rows]


def _machine(row: MachineRow, held: Usage, state: MachineState, free: Mapping[str, Sequence[int]]) -> Machine:
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


async def _free_gpus(session: AsyncSession, rows: Sequence[MachineRow]) -> Mapping[str, list[int]]:
    """Read the free GPU indices of the hosts of these machines, lowest first; none of hosts without GPUs."""
    hosts = {row.host for row in rows if row.host is not None and row.gpus > 0}
    if not hosts:
        return {}
    return {host: list(indices) for host, indices in (await machines.free_gpu_indices(session, hosts)).items()}


def _still_waits(simulation: Simulation, fences: Mapping[int, int]) -> bool:
    return simulation.state is SimulationState.QUEUED and simulation.attempt == fences[simulation.id]
