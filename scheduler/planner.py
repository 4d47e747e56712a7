"""Planner: the leader's round, which ends lost attempts, stops overdue ones and carries out the plan for the queue.

`tick()` is the whole round, by timer; `plan()` is the part that runs at once after a change. The planner reads rows,
`policy` judges without a transaction, and a round's preemptions and placements are carried out in one transaction. It
locks the simulations first, then the attempts that are to make room, the machines with their neighbours and the budgets
that pay, and checks each change again: where another process, even another leader, was faster, its change wins, and
the others are carried out all the same.

A preempted attempt holds its room until it has ended, so the run that it makes room for is placed by a later round. Its
room stays with that run because equal input gives an equal plan, in which a leaving attempt is never a victim again.

The planner starts and kills no process: an assignment is a row on which the loop of the machine's host acts, and a
preemption is a stop intent, which the supervisor receives with the reply to its next report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import (
    attempts,
    billing,
    events,
    lifecycle,
    machines,
    newest_plan,
    projects,
    queue,
    running,
    silence,
    watch_leases,
)
from db.attempts import Hosted
from db.connection import Sessions, driver_of
from db.due import find_due
from db.machines import NOTHING, Usage
from db.models import Machine as MachineRow
from db.models import Member, Simulation
from db.newest_plan import Own, QueueOrder, Reservation
from db.running import Running
from db.states import MachineState, Reason, SimulationState
from policy.cost import billed_per_hour, is_spent
from policy.fairness import shares
from policy.learning import Learned
from policy.matching import Machine, Requirements, least_price, share_of
from policy.placement import left_after, placeable, still_fitting
from policy.plan import Placement, Plan, Preemption, Waiting
from policy.quota import Quota, admitted, used_after
from policy.retry import coverage_gap, is_lost, is_overdue, is_unwatched
from policy.schedule import plan
from policy.waiting import WaitingReason, drained
from policy.workload import Knobs, Project, Run
from scheduler.queue_memory import Explained, QueueMemory, Waiter, WaitingClass, facts, lineage_of
from scheduler.record import Record
from scheduler.spending import Spending, rules_of
from settings import Settings
from transitions import budget
from transitions.assign import Assignment, Placed, assign
from transitions.budget import Room, Start
from transitions.preempt import preempt, preempt_locked
from transitions.settle import STOPPED_EARLY, Ending, settle
from transitions.stop import stop, stop_locked

PLACEMENTS_AT_ONCE = 100  # in a transaction; then the plan is made again: a more urgent simulation may have arrived
EXPLAINED_AT_ONCE = 1000  # classes that get their first reason in one round; the others follow in the next ones
REFRESHED_AT_ONCE = 100  # likewise, classes whose sentence may have changed
MOST_SINGLE = 100  # simulations with a reason of their own, beside that of their class


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """Result of a round. `unfinished`: more fits than one round places, so the next round begins at once."""

    hosts: frozenset[str] = frozenset()  # of the assigned simulations
    assigned: int = 0
    refused: int = 0  # changes that were no longer possible
    waiting: int = 0  # classes of equal requirements, not simulations
    preempted: int = 0
    ended: int = 0
    unfinished: bool = False
    has_sweeps: bool = False  # that have not ended: `scheduler.sweeps` looks after them


@dataclass(slots=True)
class _Round:
    """Result of planning and carrying out."""

    hosts: set[str] = field(default_factory=set)
    assigned: int = 0
    refused: int = 0
    preempted: int = 0
    unfinished: bool = False
    emptied: Set[UUID] = frozenset()  # classes with no simulation left in the queue
    explained: Sequence[Explained] = ()
    reservations: tuple[Reservation, ...] = ()
    own: Own | None = None  # None: as before


@dataclass(slots=True)
class _Done:
    """What of a plan was carried out."""

    assigned: Sequence[Placed] = ()
    preempted: int = 0
    refused: int = 0
    gone: Set[int] = frozenset()  # simulations that are not queued any more
    unpayable: Set[UUID] = frozenset()  # classes that no budget pays for


@dataclass(frozen=True, slots=True)
class _Grant:
    """A member of a placement that still fits, before budgets are asked. `share`: of the machine."""

    simulation: Simulation
    required: Requirements
    machine: MachineRow
    share: Decimal

    @property
    def per_hour(self) -> Decimal:
        return billed_per_hour(self.machine.price_per_hour, self.share)


class Planner:
    """Planner of the leading scheduler; two at once do no harm."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._knobs = knobs_of(settings)
        self._memory = QueueMemory(self._knobs)
        self._record = Record(self._half_life)
        self._learned = Learned()
        self._projects: Sequence[Project] = ()
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
        if found.drained:
            await self._preempt_overstayers()
        if found.budgets:
            await self._spending.watch()
        if found.queue or ended or not self._memory.is_empty:
            return replace(await self.plan(), ended=ended, has_sweeps=found.sweeps)
        return PlanSummary(has_sweeps=found.sweeps)

    async def plan(self) -> PlanSummary:
        """Assign waiting simulations to free machines, and record waiting reasons. One query if none waits."""
        # A failed round leaves no memory: its notes may not have been carried out.
        memory, self._memory = self._memory, QueueMemory(self._knobs)
        summary = await self._plan(memory)
        self._memory = memory
        return summary

    def forget(self) -> None:
        """Drop the memory, so the next round reads the whole queue: another planner may lead until then."""
        self._memory, self._record = QueueMemory(self._knobs), Record(self._half_life)

    @property
    def _half_life(self) -> timedelta:
        return timedelta(seconds=self._knobs.half_life_seconds)

    async def _plan(self, memory: QueueMemory) -> PlanSummary:
        gone: Set[UUID] = frozenset()
        held: Sequence[Running] = ()
        weights: Mapping[int, float] = {}
        async with self._sessions() as session:
            look = await queue.look(session, memory.bookmark)
            now = look.bookmark.at
            if look.is_empty:
                await queue.forget(session, memory.drop_all_but(frozenset()))
                if memory.is_written:
                    await newest_plan.clear(session)
                await session.commit()
                memory.empty(look.bookmark)
                return PlanSummary()
            watched = await queue.watched(session)
            offered = await _machines(session, await machines.every(session), self._lease)
            rooms = await budget.rooms(session, self._budget_rules)
            quotas = _quotas(await projects.uses(session))
            is_first = memory.bookmark is None
            gone |= memory.leave(look.left)
            memory.take_in([*look.arrived, *watched])
            unwatched = memory.watched - {each.id for each in watched}
            gone |= memory.drop(unwatched)
            memory.let_in(memory.payable_again(rooms))
            memory.bookmark, memory.watched = look.bookmark, frozenset(each.id for each in watched)
            memory.note_quotas(quotas)
            if look.is_asked:
                memory.note_asked_for()
            is_due = memory.is_due(offered, now) or memory.has_unexplained
            if is_first:
                memory.whole_look_at = now
                gone |= await queue.noted(session) - memory.classes.keys()
            elif is_due and memory.needs_whole_look(now):
                memory.whole_look_at = now
                gone |= memory.drop_all_but(await queue.ids(session) | memory.watched)
            if is_due:
                await self._record.bring_up_to_date(session, now)
                held = await running.every(session)
                weights = await projects.weights(session)

        round_ = _Round()
        if is_due:
            known = [
                Project(each, weights.get(each, 1.0), gpu_quota=quotas[each].gpus if each in quotas else None)
                for each in {of.project_id for of in memory.classes.values()}
            ]
            self._projects = self._record.projects(known, held, now, weights)
            round_ = await self._place(memory, offered, held, rooms, quotas, now)
        gone |= round_.emptied
        told = [*look.due, *sorted(unwatched)]
        order = await self._order(memory, now)
        reservations = round_.reservations if is_due else memory.reservations
        own = round_.own if round_.own is not None else memory.own
        is_changed = (reservations, own) != (memory.reservations, memory.own)
        told += [each for each in own.keys() | memory.own.keys() if own.get(each) != memory.own.get(each)]
        if gone or round_.explained or told or order is not None or is_changed:
            async with self._sessions.begin() as session:
                await queue.forget(session, gone - memory.classes.keys())
                await queue.note_reasons(
                    session,
                    [(each.queue_class, each.reason, each.detail) for each in round_.explained],
                    new={each.queue_class for each in round_.explained if each.is_new},
                )
                await queue.notify_of(session, told)
                if order is not None:
                    await newest_plan.write(session, order)
                if is_changed or is_first:
                    await newest_plan.write_single(session, reservations, own)
            memory.reservations, memory.own, memory.is_written = reservations, own, True
        return PlanSummary(
            frozenset(round_.hosts),
            round_.assigned,
            round_.refused,
            len(memory.classes),
            preempted=round_.preempted,
            unfinished=round_.unfinished,
        )

    async def _place(
        self,
        memory: QueueMemory,
        offered: Sequence[Machine],
        held: Sequence[Running],
        rooms: Mapping[int | None, Room],
        quotas: Mapping[int, Quota],
        now: datetime,
    ) -> _Round:
        """Make a plan and carry it out: preempt, place what fits and can be paid, explain the rest."""
        memory.set_aside(await asyncio.to_thread(_over_budget, memory, rooms, offered))
        waiting = memory.queue(offered)
        here = [_running(each, now) for each in held]
        begun = [*here, *(memory.waiters[each].run for each in memory.begun)]
        self._learned = self._record.learned((each, waiting.sizes.of(each, each.group)) for each in begun)
        # In a thread: thousands of classes take a moment, during which this process has launches to make.
        planned = await asyncio.to_thread(
            plan, waiting, here, offered, now=now, projects=self._projects, learned=self._learned,
            speeds=self._record.speeds(facts(offered)), knobs=self._knobs, currency=self._settings.currency,
            most=PLACEMENTS_AT_ONCE,
        )  # fmt: skip

        round_ = _Round(reservations=_reservations(planned))
        done = await self._carry_out(planned, memory, held, offered)
        taken = []
        for placed in done.assigned:
            round_.assigned += 1
            round_.hosts |= {each.host for each in placed.assignments if each.host}
            required = memory.waiters[placed.simulation_id].run.requirements
            taken += [(each.machine_id, required) for each in placed.assignments]
        round_.preempted, round_.refused = done.preempted, done.refused
        round_.unfinished = not planned.is_complete
        if done.assigned or done.preempted:
            memory.note_stale()
        started = [memory.waiters[each.simulation_id].run for each in done.assigned]
        quotas = used_after([(each.project, each.gpus) for each in started], quotas)
        memory.quotas = quotas
        asked = dict.fromkeys(memory.to_explain(EXPLAINED_AT_ONCE, REFRESHED_AT_ONCE))
        told, own = _told(planned.waiting, memory, quotas, asked)
        if planned.is_complete:
            round_.own = own
        told |= {each: (WaitingReason.BUDGET_EXHAUSTED, room.detail) for each, room in memory.over_budget.items()}
        if planned.is_complete:
            memory.note_asked(asked)
        round_.emptied = memory.drop([*(each.simulation_id for each in done.assigned), *done.gone])
        memory.set_aside(_refused(memory, done.unpayable, rooms))
        memory.planned(
            left_after(offered, taken),
            is_settled=planned.is_complete and not round_.refused,
            due_at=planned.next_at,
        )
        round_.explained = memory.explain(told)
        return round_

    async def _order(self, memory: QueueMemory, now: datetime) -> QueueOrder | None:
        """Return the order of the queue if it is to be written down."""
        if not memory.is_order_due(now) or memory.machines is None:
            return None
        waiting = memory.queue(memory.machines)
        of_projects = shares(self._projects, now, self._knobs.half_life_seconds) if self._knobs.fair_share else {}
        order = await asyncio.to_thread(waiting.in_order, self._learned, of_projects)
        memory.ordered_at, memory.is_order_stale = now, False
        return QueueOrder(*order)

    async def _carry_out(
        self, planned: Plan, memory: QueueMemory, held: Sequence[Running], offered: Sequence[Machine]
    ) -> _Done:
        """Preempt, and assign the placements that still fit and are paid for, in their order, in one transaction."""
        done = _Done()
        starts = [each for each in planned.placements if not each.after]
        if not starts and not planned.preemptions:
            return done
        ahead = {each.run_id for each in starts} | {each.for_id for each in planned.preemptions}
        async with self._sessions.begin() as session:
            locked = await lifecycle.lock_all(session, ahead | {each.run_id for each in planned.preemptions})
            rows = {each.id: each for each in locked}
            waits = {each for each in ahead if _still_waits(rows.get(each), memory.waiters.get(each))}
            done.gone = (ahead & memory.waiters.keys()) - waits
            attended = {each for each in waits if rows[each].attended}
            waits -= attended - await watch_leases.watched_of(session, list(attended))
            done.preempted = await _preempt(session, planned.preemptions, rows, waits, held)
            grants = await self._grants(session, [each for each in starts if each.run_id in waits], rows)
            grants = await _within_quotas(session, grants)
            costs = [
                Start(
                    each[0].simulation.project_id,
                    sum((one.per_hour for one in each), Decimal(0)),
                    self._settings.currency,
                )
                for each in grants
            ]
            unpayable = await budget.unpayable(session, costs, self._budget_rules) if costs else frozenset()
            done.unpayable = {grants[each][0].simulation.queue_class for each in unpayable}
            # Read after what is free on the machines: an attempt that has ended in between frees more of both.
            gpus = await _free_gpus(session, [one.machine for each in grants for one in each])
            by_id = {each.id: each for each in offered}
            placed = [
                Placed(
                    each[0].simulation.id,
                    each[0].simulation.attempt,
                    tuple(self._assignment(one, gpus) for one in each),
                    left_behind=_left_behind(memory.waiters[each[0].simulation.id].run, each[0].machine, by_id),
                )
                for place, each in enumerate(grants)
                if place not in unpayable
            ]
            made = await assign(session, placed, events.PLANNER) if placed else {}
        done.assigned = [each for each in placed if each.simulation_id in made]
        done.refused = len(starts) - len(done.assigned) + len(planned.preemptions) - done.preempted
        return done

    async def _grants(
        self, session: AsyncSession, starts: Sequence[Placement], rows: Mapping[int, Simulation]
    ) -> list[list[_Grant]]:
        """Lock the machines of these placements; return those that still fit with all members, in their order."""
        found = await machines.lock_with_neighbours(
            session, {member.machine_id for each in starts for member in each.members}
        )
        by_id = {row.id: row for row in found}
        wanted = [(member.machine_id, _requirements(rows[each.run_id])) for each in starts for member in each.members]
        fitting = iter(still_fitting(await _machines(session, found, self._lease), wanted))
        grants: list[list[_Grant]] = []
        for each in starts:
            row, required = rows[each.run_id], _requirements(rows[each.run_id])
            there = [next(fitting) for _ in each.members]
            members = [
                _Grant(row, required, by_id[machine.id], share_of(required, machine))
                for machine in there
                if machine is not None
            ]
            if len(members) == row.machines:  # all of them, or none
                grants.append(members)
        return grants

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
            await silence.forgive_clock(session)
            await watch_leases.sweep(session, self._lease)

    async def _end_lost(self) -> int:
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

    async def _end_unwanted(self) -> int:
        """End members stopped before their launch: there is no supervisor to receive the stop."""
        async with self._sessions() as session:
            unwanted = await attempts.find_unwanted(session)
        return sum([await self._settle(each, _as_unclaimed) for each in unwanted])

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

    async def _stop_overdue(self) -> None:
        """Stop attempts over their time limit. Supervisors do so themselves, unless their clock is wrong."""
        async with self._sessions() as session:
            beyond = await silence.find_beyond_limit(session)
            listening = await silence.listening(session)
        for attempt, limit in beyond:
            started_at = attempt.started_at
            if started_at and is_overdue(started_at, limit, listening, self._lease, self._stop_grace):
                async with self._sessions.begin() as session:
                    await stop(session, attempt.simulation_id, Reason.MAX_RUNTIME, events.PLANNER)

    async def _stop_spent(self) -> None:
        """Stop attempts whose simulation has cost its limit. Supervisors stop a grace earlier, unless they can't."""
        async with self._sessions() as session:
            limited = await silence.find_with_max_cost(session)
            held = await billing.of_simulations(session, [attempt.simulation_id for attempt, _ in limited])
        for attempt, limit in limited:
            if is_spent(held.get(attempt.simulation_id, ()), limit):
                async with self._sessions.begin() as session:
                    await stop(session, attempt.simulation_id, Reason.MAX_COST, events.PLANNER, number=attempt.number)

    async def _stop_unwatched(self) -> None:
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

    async def _preempt_overstayers(self) -> None:
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


# --- quotas ----------------------------------------------------------------------------------------------------


async def _within_quotas(session: AsyncSession, grants: list[list[_Grant]]) -> list[list[_Grant]]:
    """Lock the quotas of these placements' projects; return the placements that they admit, each as its members.

    The caller holds the locks of the machines: so starts of one project, by another planner too, see each other.
    """
    asks = [(each[0].simulation.project_id, sum(one.required.gpus for one in each)) for each in grants]
    concerned = {project_id for project_id, gpus in asks if gpus > 0}
    if not concerned:
        return grants
    quotas = _quotas(await projects.lock_quotas(session, concerned))
    within = admitted(asks, quotas)
    return [each for each, is_within in zip(grants, within, strict=True) if is_within]


def _quotas(uses: Mapping[int, projects.Use]) -> Mapping[int, Quota]:
    return {project_id: Quota(use.name, use.quota, use.used) for project_id, use in uses.items()}


# --- preemption ------------------------------------------------------------------------------------------------


async def _preempt(
    session: AsyncSession,
    preemptions: Sequence[Preemption],
    rows: Mapping[int, Simulation],
    waits: Collection[int],
    held: Sequence[Running],
) -> int:
    """Preempt the attempts that still run, for runs that still wait; return how many. The caller holds the locks.

    Where another planner has begun to make room for the same run since this plan was made, nothing is stopped for it:
    the next plan sees that room.
    """
    if not preemptions:
        return 0
    planned_for = {each.id: each for each in held}
    leaving = await running.leaving_for(session, {each.for_id for each in preemptions})
    known = {(each.id, each.stop_for) for each in held if each.stop_for is not None}
    made_way = {for_id for run_id, for_id in leaving if (run_id, for_id) not in known}
    count = 0
    for each in preemptions:
        row, was = rows.get(each.run_id), planned_for.get(each.run_id)
        if row is None or was is None or row.attempt != was.attempt or not row.preemptible:
            continue
        if each.for_id not in waits or each.for_id in made_way:
            continue
        other = rows[each.for_id]
        evidence = {
            "for": each.for_id, "name": other.name if other.project_id == row.project_id else None,
            "order": each.rule.value, "expected": each.own, "against": each.other, "sentence": each.detail,
        }  # fmt: skip
        count += await preempt_locked(session, row, events.PLANNER, evidence=evidence)
    return count


async def _as_unclaimed(_session: AsyncSession, current: Hosted) -> Ending | None:
    """Ending of an unclaimed member; None if its launch is claimed, as then its supervisor receives the stop."""
    return STOPPED_EARLY if current.member.token_digest is None else None


# --- rows as policy wants them ---------------------------------------------------------------------------------


def knobs_of(settings: Settings) -> Knobs:
    """Return the knobs of the policy by these settings."""
    return Knobs(
        max_wait_seconds=settings.max_wait_seconds or None,
        min_run_seconds=settings.min_run_seconds,
        fair_share=settings.fair_share,
        half_life_seconds=settings.fair_share_half_life_seconds,
        time_value=settings.time_value,
    )


def _running(held: Running, now: datetime) -> Run:
    since = (now - held.started_at).total_seconds() if held.started_at is not None else 0.0
    return Run(
        id=held.id,
        project=held.project_id,
        priority=held.priority,
        submitted_at=held.created_at,
        requirements=Requirements(**{each.name: getattr(held, each.name) for each in fields(Requirements)}),
        preemptible=held.preemptible,
        max_steps=held.max_steps,
        max_runtime_seconds=held.max_runtime.total_seconds() if held.max_runtime is not None else None,
        attained_seconds=held.attained.total_seconds() + max(since, 0.0),
        steps_done=float(held.steps_done or 0),
        steps_per_second=held.step_rate,
        lineage=lineage_of(held.project_id, held.name, held.learning_class),
        machines=len(held.places),
        group=held.queue_class,
        checkpoint_machine=held.places[0].machine_id if held.places and held.stored_at is None else None,
        machine_ids=tuple(each.machine_id for each in held.places),
        started_at=held.started_at or held.assigned_at,
        last_checkpoint_at=held.checkpoint_at or held.stored_at,
        leaving=held.stop_reason is not None,
    )


def _left_behind(run: Run, chosen: MachineRow, machines: Mapping[int, Machine]) -> str | None:
    """Return the name of the machine that has the checkpoint of a run which starts on another host."""
    if run.checkpoint_machine is None or run.attained_seconds <= 0 or run.checkpoint_machine == chosen.id:
        return None
    home = machines.get(run.checkpoint_machine)
    if home is not None and home.host is not None and home.host == chosen.host:
        return None
    return home.name if home is not None else "a machine that is gone"


def _told(
    waiting: Sequence[Waiting], memory: QueueMemory, quotas: Mapping[int, Quota], asked: Collection[UUID]
) -> tuple[dict[UUID, tuple[WaitingReason, str]], Own]:
    """Return the reasons of these classes, and those of single simulations that wait for something else."""
    told: dict[UUID, tuple[WaitingReason, str]] = {}
    single: dict[int, tuple[WaitingReason, str]] = {}
    for each in waiting:  # in the order of service: the first of a class speaks for it
        waiter = memory.waiters.get(each.run_id)  # None: it is to make room, and was planned again
        if waiter is None:
            continue
        general = each.general
        if each.reason is WaitingReason.QUOTA and waiter.run.project in quotas:
            general = quotas[waiter.run.project].refusal(waiter.run.gpus)
        elif general != each.detail and len(single) < MOST_SINGLE:
            single[each.run_id] = (each.reason, each.detail)
        if general is not None and waiter.of.key in asked:
            told.setdefault(waiter.of.key, (each.reason, general))
    for run_id, why in single.items():  # of classes for which none speaks
        of = memory.waiters[run_id].of.key
        if of in asked:
            told.setdefault(of, why)
    return told, single


def _reservations(planned: Plan) -> tuple[Reservation, ...]:
    return tuple(
        Reservation(each.run_id, each.machine_ids, each.at) for each in planned.reservations if each.at is not None
    )


def _over_budget(
    memory: QueueMemory, rooms: Mapping[int | None, Room], offered: Sequence[Machine]
) -> Mapping[UUID, Room]:
    """Find the classes that no budget pays for, on any machine that they could use were it idle."""
    if not rooms:
        return {}
    concerned = {
        key: room
        for key in memory.classes
        if key not in memory.over_budget and (room := memory.room_of(key, rooms)) is not None
    }
    idle = [_idle(each) for each in offered]
    able = placeable([memory.classes[each].requirements for each in concerned], idle)
    paid = placeable([_limited(memory.classes[each].requirements, room) for each, room in concerned.items()], idle)
    return {
        key: room
        for (key, room), is_able, is_paid in zip(concerned.items(), able, paid, strict=True)
        if is_able and not (is_paid and _pays_all_members(memory.classes[key], room, idle))
    }


def _pays_all_members(of: WaitingClass, room: Room, idle: Sequence[Machine]) -> bool:
    """Whether a budget pays for the cheapest machines that a whole gang could use; True if there are too few."""
    price = least_price(of.requirements, of.machines, idle) if of.machines > 1 else None
    return price is None or price <= room.per_hour


def _refused(memory: QueueMemory, classes: Set[UUID], rooms: Mapping[int | None, Room]) -> Mapping[UUID, Room]:
    """Return the room of classes that could not be paid after all: none, until the next look at their budgets.

    So another run may take the machine in the next round, if this one waits for one that is cheaper.
    """
    found = {each: memory.room_of(each, rooms) for each in classes if each in memory.classes}
    return {each: replace(room, per_hour=Decimal(0)) for each, room in found.items() if room is not None}


def _idle(machine: Machine) -> Machine:
    return replace(
        machine, free_cpus=machine.cpus, free_memory_gib=machine.memory_gib, free_gpus=machine.gpus, host_free_gpus=None
    )


def _limited(required: Requirements, room: Room) -> Requirements:
    """Limit requirements to machines that a budget pays for, each by itself."""
    own = required.max_price_per_hour
    return replace(required, max_price_per_hour=room.per_hour if own is None else min(own, room.per_hour))


def _requirements(simulation: Simulation) -> Requirements:
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


def _still_waits(row: Simulation | None, waiter: Waiter | None) -> bool:
    if row is None or waiter is None:
        return False
    return row.state is SimulationState.QUEUED and not row.held and row.attempt == waiter.attempt
