"""Planner: the leader's round, which ends lost attempts, stops overdue ones and carries out the plan for the queue.

`tick()` is the whole round, by timer; `plan()` is the part that runs at once after a change. The planner reads rows,
`policy` judges without a transaction, and `execution` carries out a round's preemptions and placements in one
transaction. What goes on although it must not (lost, overdue, spent, unwatched) is `enforcement`'s.

A preempted attempt holds its room until it has ended, so the run that it makes room for is placed by a later round. Its
room stays with that run because equal input gives an equal plan, in which a leaving attempt is never a victim again.

The planner starts and kills no process: an assignment is a row on which the loop of the machine's host acts, and a
preemption is a stop intent, which the supervisor receives with the reply to its next report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from db import machines, newest_plan, overview, projects, queue, running
from db.connection import Sessions, driver_of
from db.due import find_due
from db.newest_plan import Own, QueueOrder, Reservation
from db.running import Running
from policy.fairness import shares
from policy.learning import Learned
from policy.matching import Machine
from policy.placement import left_after
from policy.plan import Plan, Waiting
from policy.quota import Quota, used_after
from policy.retry import coverage_gap
from policy.schedule import plan
from policy.waiting import WaitingReason
from policy.workload import Project
from scheduler.affordable import over_budget, refused
from scheduler.enforcement import Enforcement
from scheduler.execution import Execution
from scheduler.inputs import knobs_of, machines_of, quotas_of, run_of
from scheduler.queue_memory import Explained, QueueMemory, facts
from scheduler.record import Record
from scheduler.spending import Spending, rules_of
from settings import Settings
from transitions import budget
from transitions.budget import Room

PLACEMENTS_AT_ONCE = 100  # in a transaction; then the plan is made again: a more urgent simulation may have arrived
EXPLAINED_AT_ONCE = 1000  # classes that get their first reason in one round; the others follow in the next ones
REFRESHED_AT_ONCE = 100  # likewise, classes whose sentence may have changed
MOST_SINGLE = 100  # simulations with a reason of their own, beside that of their class


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """Result of a round. `unfinished`: more fits than one round places, so the next round begins at once."""

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

    assigned: int = 0
    refused: int = 0
    preempted: int = 0
    unfinished: bool = False
    emptied: Set[UUID] = frozenset()  # classes with no simulation left in the queue
    explained: Sequence[Explained] = ()
    reservations: tuple[Reservation, ...] = ()
    own: Own | None = None  # None: as before


class Planner:
    """Planner of the leading scheduler; two at once do no harm."""

    def __init__(
        self, sessions: Sessions, settings: Settings, assigned: Callable[[Set[str]], None] = lambda _: None
    ) -> None:
        """assigned: called with the hosts of what was assigned, once that is committed; the round goes on."""
        self._sessions = sessions
        self._assigned = assigned
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._knobs = knobs_of(settings)
        self._memory = QueueMemory(self._knobs)
        self._record = Record(self._half_life)
        self._learned = Learned()
        self._projects: Sequence[Project] = ()
        self._spending = Spending(sessions, settings)
        self._budget_rules = rules_of(settings)
        self._enforcement = Enforcement(sessions, settings)
        self._execution = Execution(sessions, settings)

    async def tick(self) -> PlanSummary:
        """Do the whole round once: the steps for which a first look, the beat, finds something due."""
        async with driver_of(self._sessions) as driver:
            found = await find_due(driver, "scheduler", coverage_gap(self._lease), self._lease)
        if found.clock or found.leases:
            await self._enforcement.tidy()
        ended = await self._enforcement.end_lost() if found.quiet else 0
        ended += await self._enforcement.end_unwanted() if found.unwanted else 0
        if found.overdue:
            await self._enforcement.stop_overdue()
        if found.priced:
            await self._enforcement.stop_spent()
        if found.unwatched:
            await self._enforcement.stop_unwatched()
        if found.drained:
            await self._enforcement.preempt_overstayers()
        if found.budgets:
            await self._spending.watch()
        if found.counts:
            async with self._sessions.begin() as session:
                await overview.fold(session)
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
            offered = await machines_of(session, await machines.every(session), self._lease)
            rooms = await budget.rooms(session, self._budget_rules)
            quotas = quotas_of(await projects.uses(session))
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
        memory.set_aside(await asyncio.to_thread(over_budget, memory, rooms, offered))
        waiting = memory.queue(offered)
        here = [run_of(each, now) for each in held]
        begun = [*here, *(memory.waiters[each].run for each in memory.begun)]
        self._learned = self._record.learned((each, waiting.sizes.of(each, each.group)) for each in begun)
        # In a thread: thousands of classes take a moment, during which this process has launches to make.
        planned = await asyncio.to_thread(
            plan, waiting, here, offered, now=now, projects=self._projects, learned=self._learned,
            speeds=self._record.speeds(facts(offered)), knobs=self._knobs, currency=self._settings.currency,
            most=PLACEMENTS_AT_ONCE,
        )  # fmt: skip

        round_ = _Round(reservations=_reservations(planned))
        done = await self._execution.carry_out(planned, memory, held, offered)
        taken = []
        for placed in done.assigned:
            round_.assigned += 1
            required = memory.waiters[placed.simulation_id].run.requirements
            taken += [(each.machine_id, required) for each in placed.assignments]
        if done.assigned:
            self._assigned({one.host for each in done.assigned for one in each.assignments if one.host})
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
        memory.set_aside(refused(memory, done.unpayable, rooms))
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
