"""Short ways to write queued runs, machines and plans in which nothing runs yet, for the tests of policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal

from policy.matching import Machine, Requirements
from policy.plan import Plan
from policy.schedule import plan
from policy.workload import Discipline, Knobs, Run

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
A100 = "NVIDIA A100-SXM4-80GB"
NOTHING = Requirements(
    cpus=0, memory_gib=0, gpus=0, gpu_model=None, labels={}, machine_id=None, machine_name=None, max_price_per_hour=None
)
# By priority and age, so that a test chooses the order; no room is kept for those that wait.
IN_TURN = Knobs(discipline=Discipline.ARRIVAL, reservations=0, max_wait_seconds=None)


def request(number: int = 1, **asked: object) -> Run:
    """Make a queued run with these requirements; other names are fields of the run."""
    required = {each.name for each in fields(Requirements)} & asked.keys()
    requirements = replace(NOTHING, **{name: asked.pop(name) for name in required})  # type: ignore[arg-type]
    return replace(Run(number, 1, 0, NOON, requirements), **asked)  # type: ignore[arg-type]  # a test's shorthand


def machine(name: str, number: int = 1, **has: object) -> Machine:
    """Make a machine: 8 CPUs, 64 GiB, 1 per hour, all free by default."""
    empty = Machine(
        id=number, name=name, cpus=8, memory_gib=64, gpus=0, gpu_model=None, labels={}, price_per_hour=Decimal(1),
        free_cpus=0, free_memory_gib=0, free_gpus=0, online=True, draining=False, host=None, host_free_gpus=None,
    )  # fmt: skip
    made = replace(empty, **has)  # type: ignore[arg-type]  # a test's shorthand
    free = {"free_cpus": made.cpus, "free_memory_gib": made.memory_gib, "free_gpus": made.gpus}
    return replace(made, **{name: value for name, value in free.items() if name not in has})  # type: ignore[arg-type]


def gpu_machine(name: str, number: int = 1, **has: object) -> Machine:
    return machine(name, number, **{"gpus": 2, "gpu_model": A100, **has})


def planned(queue: Sequence[Run], machines: Sequence[Machine]) -> Plan:
    return plan(queue, [], machines, now=NOON, knobs=IN_TURN, currency="USD")


def places(queue: Sequence[Run], machines: Sequence[Machine]) -> dict[int, int | None]:
    """Plan; return the machine of each run, None for those that wait. A plan that ended early has only the former."""
    result = planned(queue, machines)
    unplaced: dict[int, int | None] = dict.fromkeys((each.id for each in queue), None) if result.is_complete else {}
    return unplaced | {each.run_id: member.machine_id for each in result.placements for member in each.members}
