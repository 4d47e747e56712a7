"""Rows and settings as `policy` takes them: knobs, runs, machines with what is free on them, quotas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from db import machines, projects
from db.machines import NOTHING, Usage
from db.models import Machine as MachineRow
from db.models import Simulation
from db.running import Running
from db.states import MachineState
from policy.matching import Machine, Requirements
from policy.quota import Quota
from policy.workload import Knobs, Run
from scheduler.queue_memory import lineage_of
from settings import Settings


def knobs_of(settings: Settings) -> Knobs:
    """Return the knobs of the policy by these settings."""
    return Knobs(
        max_wait_seconds=settings.max_wait_seconds or None,
        min_run_seconds=settings.min_run_seconds,
        fair_share=settings.fair_share,
        half_life_seconds=settings.fair_share_half_life_seconds,
        time_value=settings.time_value,
    )


def run_of(held: Running, now: datetime) -> Run:
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


def requirements_of(simulation: Simulation) -> Requirements:
    return Requirements(**{each.name: getattr(simulation, each.name) for each in fields(Requirements)})


async def machines_of(session: AsyncSession, rows: Sequence[MachineRow], lease: timedelta) -> Sequence[Machine]:
    """Read the free amounts of these machines, and whether they accept work."""
    ids = [row.id for row in rows]
    held = await machines.usage(session, ids)
    states = await machines.states_of(session, ids, lease)
    free = await free_gpus(session, rows)
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
        startable=machines.is_startable(row.engine_key),
        draining=row.draining,
        host=row.host,
        host_free_gpus=len(free[row.host]) if row.host is not None and row.host in free else None,
    )


async def free_gpus(session: AsyncSession, rows: Sequence[MachineRow]) -> Mapping[str, list[int]]:
    """Read the free GPU indices of the hosts of these machines, lowest first; none of hosts without GPUs."""
    hosts = {row.host for row in rows if row.host is not None and row.gpus > 0}
    if not hosts:
        return {}
    return {host: list(indices) for host, indices in (await machines.free_gpu_indices(session, hosts)).items()}


def quotas_of(uses: Mapping[int, projects.Use]) -> Mapping[int, Quota]:
    return {project_id: Quota(use.name, use.quota, use.used) for project_id, use in uses.items()}
