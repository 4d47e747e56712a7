"""Machines to start: how many of each kind what waits for them needs, packed first come, first served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from policy.cost import billed_per_hour
from policy.matching import Machine, Requirements, conditions, fits_now, share_of, within_price


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A simulation that waits for machines that are not there yet, and how many it needs at once."""

    requirements: Requirements
    machines: int = 1


@dataclass(frozen=True, slots=True)
class Startable:
    """A kind of machines that can be started, at most so many; `machine` describes one, with nothing on it."""

    key: str
    machine: Machine
    most: int


@dataclass(slots=True)
class _Kind:
    of: Startable
    started: list[Machine] = field(default_factory=list)  # with what is free on each


def wanted(waiting: Sequence[Awaiting], startable: Sequence[Startable]) -> Mapping[str, int]:
    """Return how many machines of each kind to start, by key; kinds without any are left out.

    waiting: in the order in which they are served. Each takes the cheapest kind that meets its requirements, for what
    it would be billed, and room on machines that are started for others before another one. Members of one simulation
    are on different machines.
    """
    kinds = [_Kind(each) for each in startable]
    for each in waiting:
        _serve(each, kinds)
    return {kind.of.key: len(kind.started) for kind in kinds if kind.started}


def _serve(waiting: Awaiting, kinds: Sequence[_Kind]) -> None:
    required = waiting.requirements
    able = [kind for kind in kinds if _meets(required, kind.of.machine)]
    able.sort(key=lambda kind: billed_per_hour(kind.of.machine.price_per_hour, share_of(required, kind.of.machine)))
    for kind in able:
        roomy = [number for number, each in enumerate(kind.started) if fits_now(required, each)][: waiting.machines]
        missing = waiting.machines - len(roomy)
        if len(kind.started) + missing > kind.of.most:
            continue
        for number in roomy:
            kind.started[number] = _left(required, kind.started[number])
        kind.started += [_left(required, kind.of.machine)] * missing
        return


def _meets(required: Requirements, machine: Machine) -> bool:
    return all(condition.holds(machine) for condition in conditions(required)) and within_price(required, machine)


def _left(required: Requirements, machine: Machine) -> Machine:
    return replace(
        machine,
        online=True,
        free_cpus=machine.free_cpus - required.cpus,
        free_memory_gib=machine.free_memory_gib - required.memory_gib,
        free_gpus=machine.free_gpus - required.gpus,
    )
