"""Carry out a plan: preempt, and assign what still fits and is paid for, in one transaction.

Locks the simulations first, then the attempts that are to make room, the machines with their neighbours, the projects
with quotas and the budgets that pay, and checks each change again: where another process, even another leader, was
faster, its change wins, and the others are carried out all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db import events, lifecycle, machines, projects, running, watch_leases
from db.connection import Sessions
from db.models import Machine as MachineRow
from db.models import Simulation
from db.running import Running
from db.states import SimulationState
from policy.cost import billed_per_hour
from policy.matching import Machine, Requirements, share_of
from policy.placement import still_fitting
from policy.plan import Placement, Plan, Preemption
from policy.quota import admitted
from policy.workload import Run
from scheduler.inputs import free_gpus, machines_of, quotas_of, requirements_of
from scheduler.queue_memory import QueueMemory, Waiter
from scheduler.spending import rules_of
from settings import Settings
from transitions import budget
from transitions.assign import Assignment, Placed, assign
from transitions.budget import Start
from transitions.preempt import preempt_locked


@dataclass(slots=True)
class Done:
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


class Execution:
    """Carries out the plans of one planner."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._budget_rules = rules_of(settings)

    async def carry_out(
        self, planned: Plan, memory: QueueMemory, held: Sequence[Running], offered: Sequence[Machine]
    ) -> Done:
        """Preempt, and assign the placements that still fit and are paid for, in their order, in one transaction."""
        done = Done()
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
            gpus = await free_gpus(session, [one.machine for each in grants for one in each])
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
        wanted = [(member.machine_id, requirements_of(rows[each.run_id])) for each in starts for member in each.members]
        fitting = iter(still_fitting(await machines_of(session, found, self._lease), wanted))
        grants: list[list[_Grant]] = []
        for each in starts:
            row, required = rows[each.run_id], requirements_of(rows[each.run_id])
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


async def _within_quotas(session: AsyncSession, grants: list[list[_Grant]]) -> list[list[_Grant]]:
    """Lock the quotas of these placements' projects; return the placements that they admit, each as its members.

    The caller holds the locks of the machines: so starts of one project, by another planner too, see each other.
    """
    asks = [(each[0].simulation.project_id, sum(one.required.gpus for one in each)) for each in grants]
    concerned = {project_id for project_id, gpus in asks if gpus > 0}
    if not concerned:
        return grants
    quotas = quotas_of(await projects.lock_quotas(session, concerned))
    within = admitted(asks, quotas)
    return [each for each, is_within in zip(grants, within, strict=True) if is_within]


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


def _left_behind(run: Run, chosen: MachineRow, machines: Mapping[int, Machine]) -> str | None:
    """Return the name of the machine that has the checkpoint of a run which starts on another host."""
    if run.checkpoint_machine is None or run.attained_seconds <= 0 or run.checkpoint_machine == chosen.id:
        return None
    home = machines.get(run.checkpoint_machine)
    if home is not None and home.host is not None and home.host == chosen.host:
        return None
    return home.name if home is not None else "a machine that is gone"


def _still_waits(row: Simulation | None, waiter: Waiter | None) -> bool:
    if row is None or waiter is None:
        return False
    return row.state is SimulationState.QUEUED and not row.held and row.attempt == waiter.attempt
