"""Speed of machines for each learning class, from the step rates that runs of it had there.

Machines with equal hardware share what is known of one of them: otherwise the noise of a few runs would decide between
machines that are alike. For the same reason ratios are rounded to steps of ten percent.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from policy.matching import Machine
from policy.room import Speeds

LEAST_SECONDS = 60.0  # shorter attempts are mostly their start
STEP = math.log(1.1)  # of a ratio's logarithm


@dataclass(slots=True)
class Rates:
    """Step rates of a class on a machine: how many, and the sum of their logarithms. They spread by factors."""

    count: int = 0
    logs: float = 0.0

    def add(self, steps_per_second: float) -> None:
        self.count += 1
        self.logs += math.log(steps_per_second)


def hardware_of(machine: Machine) -> Hashable:
    """Key of machines that are expected to be equally fast."""
    return machine.gpu_model, machine.gpus, machine.cpus, round(machine.memory_gib)


def speeds_of(rates: Mapping[Hashable, Mapping[int, Rates]], machines: Iterable[Machine]) -> Speeds:
    """Return step rates there / usual step rate, by class and machine; those that are as usual are left out.

    rates: by class and machine. Usual is the mean over the hardware on which runs of the class have been measured.
    """
    alike: dict[Hashable, list[int]] = {}
    hardware: dict[int, Hashable] = {}
    for machine in machines:
        kind = hardware[machine.id] = hardware_of(machine)
        alike.setdefault(kind, []).append(machine.id)
    if len(alike) < 2:
        return {}
    found: dict[Hashable, dict[int, float]] = {}
    for of, by_machine in rates.items():
        measured: dict[Hashable, Rates] = {}
        for machine_id, each in by_machine.items():
            if machine_id in hardware:
                known = measured.setdefault(hardware[machine_id], Rates())
                known.count, known.logs = known.count + each.count, known.logs + each.logs
        means = {kind: each.logs / each.count for kind, each in measured.items()}
        usual = sum(means.values()) / max(len(means), 1)
        steps = {kind: round((mean - usual) / STEP) for kind, mean in means.items()}
        ratios = {
            machine_id: math.exp(count * STEP) for kind, count in steps.items() if count for machine_id in alike[kind]
        }
        if ratios:
            found[of] = ratios
    return found
