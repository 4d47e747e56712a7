"""Checks of placements: which requirements fit now, what placements leave free, and whether they still fit.

`policy.schedule` makes the plan; the planner uses these functions around it, under lock too. Placements are pairs of
machine id and requirements. No error case: what does not fit is answered by False or None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from policy.matching import Machine, Requirements, fits_now
from policy.room import Line, Room, amounts_of, needs_of


def placeable(wanted: Sequence[Requirements], machines: Sequence[Machine]) -> Sequence[bool]:
    """For each, whether some machine accepts work, meets the requirements and has room now."""
    room = Room(machines)
    # Most of a long queue asks for more than any machine has free: three comparisons decide, before a line is made.
    return [
        room.could_have(needs_of(required))
        and Line(required, room, size=0.0, time_value=Decimal(0), lineage=()).choose(()) is not None
        for required in wanted
    ]


def left_after(machines: Sequence[Machine], taken: Iterable[tuple[int, Requirements]]) -> Sequence[Machine]:
    """Return the machines with these placements subtracted from what is free."""
    left = _Left(machines)
    for machine_id, required in taken:
        left.take(machine_id, required)
    return [left.machines[each.id] for each in machines]


def still_fitting(machines: Sequence[Machine], wanted: Iterable[tuple[int, Requirements]]) -> Sequence[Machine | None]:
    """Check placements again in their order: each one that fits takes its room.

    Returns for each the machine as it stands at its turn, or None if it does not fit any more.
    """
    left = _Left(machines)
    found: list[Machine | None] = []
    for machine_id, required in wanted:
        machine = left.machines.get(machine_id)
        if machine is None or not fits_now(required, machine):
            found.append(None)
            continue
        left.take(machine_id, required)
        found.append(machine)
    return found


class _Left:
    """Machines by id, as placements leave them; those of a host share a pool of GPUs.

    Sums are not rounded, unlike those of `Room`: the planner compares them with what the database adds up.
    """

    def __init__(self, machines: Iterable[Machine]) -> None:
        self.machines = {each.id: each for each in machines}
        self._mates: defaultdict[str, list[int]] = defaultdict(list)
        for each in self.machines.values():
            if each.host is not None and each.host_free_gpus is not None:
                self._mates[each.host].append(each.id)

    def take(self, machine_id: int, required: Requirements) -> None:
        machine, asked = self.machines[machine_id], amounts_of(required)
        self.machines[machine_id] = replace(
            machine,
            free_cpus=machine.free_cpus - asked.cpus,
            free_memory_gib=machine.free_memory_gib - asked.memory_gib,
            free_gpus=machine.free_gpus - asked.gpus,
        )
        if asked.gpus and machine.host_free_gpus is not None:
            for each in [machine_id] if machine.host is None else self._mates[machine.host]:
                mate = self.machines[each]
                assert mate.host_free_gpus is not None, "only machines with a pool are mates"
                self.machines[each] = replace(mate, host_free_gpus=mate.host_free_gpus - asked.gpus)
