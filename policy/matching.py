"""Requirements of a request, and whether a machine meets them.

A requirement is a condition on the machine, independent of its current load: the total of each resource, the GPU
model, each label, the price. `fits_now` answers the separate question whether there is room at this moment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum

from policy import phrasing
from policy.cost import billed_per_hour, dominant_share

# A millionth of a CPU, a KiB of memory: covers the float error of 3 x 0.1 against 0.3, and is negligible in practice.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Requirements:
    """Requirements of a simulation. A `machine_name` without `machine_id`: the named machine has been deleted."""

    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    machine_id: int | None
    machine_name: str | None
    max_price_per_hour: Decimal | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Current state of a machine.

    GPUs are exclusive per host: the machines of one host share one pool, `host_free_gpus`. None: only the machine's
    own limit applies.
    """

    id: int
    name: str
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    price_per_hour: Decimal
    free_cpus: float
    free_memory_gib: float
    free_gpus: int
    online: bool
    draining: bool
    host: str | None
    host_free_gpus: int | None
    startable: bool = False  # not there, and so not online: some like it can be started


def least(asked: float) -> float:
    """Return the least amount that satisfies a request; minus infinity if none is requested (overdrawn is fine)."""
    return asked - TOLERANCE if asked > 0 else -math.inf


def covers(has: float, asked: float) -> bool:
    """Whether an amount satisfies a request."""
    return has >= least(asked)


def fits_now(required: Requirements, machine: Machine) -> bool:
    """Whether this machine takes work, meets every requirement and has room for it at this moment."""
    free_gpus = machine.free_gpus
    if machine.host_free_gpus is not None:
        free_gpus = min(free_gpus, machine.host_free_gpus)
    return (
        machine.online
        and not machine.draining
        and may_use(required, machine)
        and covers(machine.free_cpus, required.cpus)
        and covers(machine.free_memory_gib, required.memory_gib)
        and covers(free_gpus, required.gpus)
        and all(condition.holds(machine) for condition in conditions(required))
        and within_price(required, machine)
    )


def may_use(required: Requirements, machine: Machine) -> bool:
    """Whether the request names this machine or no machine."""
    if required.machine_id is None:
        return required.machine_name is None
    return required.machine_id == machine.id


def share_of(required: Requirements, machine: Machine) -> Decimal:
    """Return the share of the machine that the request would be billed for."""
    return dominant_share(
        required.cpus, required.memory_gib, required.gpus, machine.cpus, machine.memory_gib, machine.gpus
    )


def within_price(required: Requirements, machine: Machine) -> bool:
    """Whether the billed share costs at most the maximum price. Called only if all conditions hold."""
    limit = required.max_price_per_hour
    return limit is None or billed_per_hour(machine.price_per_hour, share_of(required, machine)) <= limit


def least_price(required: Requirements, count: int, machines: Iterable[Machine]) -> Decimal | None:
    """Return the least billed price per hour of `count` members on machines of their own; None if too few fit now."""
    prices = sorted(
        billed_per_hour(each.price_per_hour, share_of(required, each)) for each in machines if fits_now(required, each)
    )
    return sum(prices[:count], Decimal(0)) if len(prices) >= count else None


def sameness(required: Requirements) -> Hashable:
    """Key of equal requirements: built from every field, so that a new field can't be forgotten."""
    values = (getattr(required, each.name) for each in fields(required))
    return tuple(frozenset(value.items()) if isinstance(value, Mapping) else value for value in values)


def kind_of(machine: Machine) -> Hashable:
    """Key of machines that differ only in name, host and what is free."""
    resources = (machine.cpus, machine.memory_gib, machine.gpus, machine.gpu_model, machine.price_per_hour)
    return (*resources, machine.online, machine.draining, machine.startable, frozenset(machine.labels.items()))


def kinds_of(machines: Iterable[Machine]) -> Sequence[Machine]:
    """Return one machine of each kind, the first by name."""
    found: dict[Hashable, Machine] = {}
    for each in sorted(machines, key=lambda machine: (machine.name, machine.id)):
        found.setdefault(kind_of(each), each)
    return list(found.values())


# --- conditions ------------------------------------------------------------------------------------------------


class Resource(StrEnum):
    """A countable resource of a machine."""

    GPUS = "GPUs"
    CPUS = "cpus"
    MEMORY = "GiB of memory"

    def amount(self, count: float) -> str:
        """Format an amount: 8 GPUs, 1 cpu, 0.5 GiB of memory."""
        unit = self.value[:-1] if count == 1 and self is not Resource.MEMORY else self.value
        return f"{phrasing.number(count)} {unit}"

    @property
    def nothing(self) -> str:
        return "memory" if self is Resource.MEMORY else self.value

    def total(self, machine: Machine) -> float:
        match self:
            case Resource.GPUS:
                return machine.gpus
            case Resource.CPUS:
                return machine.cpus
            case Resource.MEMORY:
                return machine.memory_gib


@dataclass(frozen=True, slots=True)
class AtLeast:
    """At least this total of a resource."""

    resource: Resource
    asked: float

    def holds(self, machine: Machine) -> bool:
        return covers(self.resource.total(machine), self.asked)

    def lack(self, machine: Machine) -> str:
        has = self.resource.total(machine)
        if has <= 0:
            return f"has no {self.resource.nothing}"
        return f"has {self.resource.amount(has)}, not {phrasing.number(self.asked)}"

    def met_by_none(self, machines: Sequence[Machine]) -> str:
        most = max(machines, key=self.resource.total)  # ties: the first by name
        has = self.resource.total(most)
        if has <= 0:
            return f"No machine has {self.resource.nothing}: {phrasing.number(self.asked)} asked for."
        best = f"the most is {phrasing.number(has)} (on {phrasing.name(most.name)})"
        return f"No machine has {self.resource.amount(self.asked)}: {best}."


@dataclass(frozen=True, slots=True)
class GpuModel:
    """GPU model: every requested word is a word of the machine's model, in any case and order.

    "A100" and "a100 80gb" are met by "NVIDIA A100-SXM4-80GB"; "A10" is not: it is another GPU.
    """

    asked: str
    words: frozenset[str]

    def holds(self, machine: Machine) -> bool:
        if machine.gpus <= 0 or machine.gpu_model is None:
            return False
        if self.asked.casefold() == machine.gpu_model.casefold():
            return True
        return bool(self.words) and self.words <= _words(machine.gpu_model)

    def lack(self, machine: Machine) -> str:
        return f"has no GPU of the model {phrasing.name(self.asked)}"

    def met_by_none(self, machines: Sequence[Machine]) -> str:
        said = f"No machine has a GPU of the model {phrasing.name(self.asked)}"
        models = list(dict.fromkeys(each.gpu_model for each in machines if each.gpus > 0 and each.gpu_model))
        if not models:
            return f"{said}."
        shown = [phrasing.name(model) for model in models[:2]]
        more = [f"{len(models) - 2} more"] if len(models) > 2 else []
        return f"{said}: there {'is' if len(models) == 1 else 'are'} {phrasing.listed(shown + more)}."


@dataclass(frozen=True, slots=True)
class Label:
    """Label with exactly this value."""

    key: str
    value: str

    def holds(self, machine: Machine) -> bool:
        return machine.labels.get(self.key) == self.value

    def lack(self, machine: Machine) -> str:
        return f"lacks the label {phrasing.name(f'{self.key}={self.value}')}"

    def met_by_none(self, machines: Sequence[Machine]) -> str:
        return f"No machine has the label {phrasing.name(f'{self.key}={self.value}')}."


Condition = AtLeast | GpuModel | Label


def conditions(required: Requirements) -> tuple[Condition, ...]:
    """List the conditions on a machine, the scarcest first; sentences name them in this order."""
    found: list[Condition] = []
    if required.gpus > 0:
        found.append(AtLeast(Resource.GPUS, required.gpus))
    if required.gpu_model is not None:
        found.append(GpuModel(required.gpu_model, _words(required.gpu_model)))
    found += (Label(key, value) for key, value in sorted(required.labels.items()))
    if required.cpus > 0:
        found.append(AtLeast(Resource.CPUS, required.cpus))
    if required.memory_gib > 0:
        found.append(AtLeast(Resource.MEMORY, required.memory_gib))
    return tuple(found)


def _words(model: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", model.casefold()))
