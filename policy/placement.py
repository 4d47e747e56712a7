"""Room on machines: which requirements fit now, what is left after placements, and whether they still fit.

The planner uses `placeable`, `left_after` and `still_fitting`. `plan` is the planner of earlier versions, in the order
of priority and age; `policy.schedule` has replaced it, and only its own tests call it.

In `plan` requests are placed one by one, highest priority first, then oldest. Candidates are the machines that accept
work, meet the requirements and have room now; the cheapest (billed share) wins, then the tightest fit. A small request
may pass a big one that does not fit now: there are no reservations.

The queue may be long and the room small, so a caller may pass only the first few requests of each class of equal
requirements (`Request.more`), and only the classes that fit on some machine (`placeable`): the answers equal those
for the whole queue, as far as they go.

Not responsible for: applying a placement (the scheduler locks the machines and checks again with `still_fitting`), GPU
indices, retries. No error case: a request that can't be placed waits, with a reason.

Why it is fast: requests with equal requirements share one `_Line`. During a plan room only shrinks. A machine that was
full for a line is therefore never visited again by this line, and the line's last choice stays its best (each use
makes the fit tighter) until that machine is full or another line has made a different machine the tighter fit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from policy.cost import billed_per_hour
from policy.matching import Machine, Requirements, conditions, fits_now, least, sameness, share_of, within_price
from policy.waiting import Kind, WaitingReason, explain

__all__ = [
    "Machine", "Placement", "Request", "Requirements", "Waiting", "WaitingReason", "fits_now", "left_after", "order",
    "placeable", "plan", "still_fitting",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """A simulation in the queue."""

    id: int
    priority: int
    created_at: datetime
    requirements: Requirements
    more: bool = False  # more requests with these requirements follow in the queue that are not in the plan


@dataclass(frozen=True, slots=True)
class Placement:
    """Start the request on this machine. `share` of the machine is billed: 0 to 1, 8 decimals."""

    request_id: int
    machine_id: int
    share: Decimal


@dataclass(frozen=True, slots=True)
class Waiting:
    """Leave the request in the queue. `detail` is a sentence of at most 300 characters for the user."""

    request_id: int
    reason: WaitingReason
    detail: str


def plan(requests: Sequence[Request], machines: Sequence[Machine], *, currency: str) -> Sequence[Placement | Waiting]:
    """Answer every request once, in the order of `order`; the order of the arguments changes no answer.

    The plan ends early after a placed request with `more`, because the next request of its class is unknown.
    `currency` is used only in the sentences.
    """
    room = _Room(machines)
    lines: dict[Hashable, _Line] = {}
    chosen: list[tuple[Request, _Line, Placement | None]] = []
    for request in order(requests):
        key = sameness(request.requirements)
        line = lines.get(key)
        if line is None:
            line = lines[key] = _Line(request.requirements, room)
        placement = line.place(request.id)
        chosen.append((request, line, placement))
        if request.more and placement is not None:
            break
    # Explained after all placements, so that requests with equal requirements get the same sentence.
    kinds = room.kinds_as_left()
    sentences: dict[int, tuple[WaitingReason, str]] = {}
    answers: list[Placement | Waiting] = []
    for request, line, placement in chosen:
        if placement is None and id(line) not in sentences:
            sentences[id(line)] = line.explain(kinds, currency)
        answers.append(placement or Waiting(request.id, *sentences[id(line)]))
    return answers


def placeable(wanted: Sequence[Requirements], machines: Sequence[Machine]) -> Sequence[bool]:
    """For each, whether some machine accepts work, meets the requirements and has room now."""
    room = _Room(machines)
    open_to_work = [number for number, each in enumerate(room.machines) if each.online and not each.draining]
    most_cpus = max((room.cpus[number] for number in open_to_work), default=-math.inf)
    most_memory_gib = max((room.memory_gib[number] for number in open_to_work), default=-math.inf)
    most_gpus = max((room.gpus[number] for number in open_to_work), default=-math.inf)
    # Most of a long queue asks for more than any machine has free: three comparisons decide, before labels and models.
    return [
        bool(open_to_work)
        and most_cpus >= least(required.cpus)
        and most_memory_gib >= least(required.memory_gib)
        and most_gpus >= least(required.gpus)
        and _Line(required, room).fits_somewhere()
        for required in wanted
    ]


def left_after(machines: Sequence[Machine], taken: Iterable[tuple[int, Requirements]]) -> Sequence[Machine]:
    """Return the machines with the placements, as (machine id, requirements), subtracted from what is free."""
    room = _Room(machines)
    for machine_id, required in taken:
        room.take(room.number_of[machine_id], required)
    left = {each.id: room.as_left(number) for number, each in enumerate(room.machines)}
    return [left[each.id] for each in machines]


def still_fitting(machines: Sequence[Machine], wanted: Iterable[tuple[int, Requirements]]) -> Sequence[Machine | None]:
    """Check placements, as (machine id, requirements), again in their order: each one that fits takes its room.

    Returns for each the machine as it stands at its turn, or None if it does not fit any more.
    """
    room = _Room(machines)
    found: list[Machine | None] = []
    for machine_id, required in wanted:
        number = room.number_of.get(machine_id)
        machine = room.as_left(number) if number is not None else None
        if number is None or machine is None or not fits_now(required, machine):
            found.append(None)
            continue
        room.take(number, required)
        found.append(machine)
    return found


def order(requests: Iterable[Request]) -> Sequence[Request]:
    """Sort into the order of service: highest priority first, then oldest, then by id."""
    return sorted(requests, key=lambda request: (-request.priority, request.created_at, request.id))


class _Room:
    """Free resources of each machine during a plan. Machines are numbered in the order of (name, id)."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.machines = sorted(machines, key=lambda machine: (machine.name, machine.id))
        self.cpus = [machine.free_cpus for machine in self.machines]
        self.memory_gib = [machine.free_memory_gib for machine in self.machines]
        self._own_gpus = [machine.free_gpus for machine in self.machines]
        self._pools: dict[str | int, int] = {}
        self._sharing: defaultdict[str | int, list[int]] = defaultdict(list)
        for number, machine in enumerate(self.machines):
            if machine.host_free_gpus is not None:
                pool = self._pool_of(number)
                self._pools[pool] = min(machine.host_free_gpus, self._pools.get(pool, machine.host_free_gpus))
                self._sharing[pool].append(number)
        self.gpus = [self._free_gpus(number) for number in range(len(self.machines))]
        self.changed: list[int] = []  # every machine whose room has shrunk, in order of time
        self.number_of = {machine.id: number for number, machine in enumerate(self.machines)}
        self.kind_of: list[int] = []
        self.kinds: list[list[int]] = []
        self._sort_into_kinds()

    def take(self, number: int, required: Requirements) -> None:
        """Subtract the requirements from a machine's free resources."""
        self.cpus[number] -= max(required.cpus, 0.0)
        self.memory_gib[number] -= max(required.memory_gib, 0.0)
        self.changed.append(number)
        if required.gpus <= 0:
            return
        self._own_gpus[number] -= required.gpus
        touched = [number]
        if self.machines[number].host_free_gpus is not None:
            pool = self._pool_of(number)
            self._pools[pool] -= required.gpus
            touched = self._sharing[pool]
        for each in touched:
            left = self._free_gpus(each)
            if left != self.gpus[each]:
                self.gpus[each] = left
                self.changed.append(each)

    def as_left(self, number: int) -> Machine:
        """Return the machine with its free resources as of now."""
        machine = self.machines[number]
        return replace(
            machine,
            free_cpus=self.cpus[number],
            free_memory_gib=self.memory_gib[number],
            free_gpus=self._own_gpus[number],
            host_free_gpus=None if machine.host_free_gpus is None else self._pools[self._pool_of(number)],
        )

    def kinds_as_left(self) -> Sequence[Kind]:
        return [Kind(self.as_left(numbers[0]), len(numbers)) for numbers in self.kinds]

    def _pool_of(self, number: int) -> str | int:
        host = self.machines[number].host
        return number if host is None else host

    def _free_gpus(self, number: int) -> int:
        own = self._own_gpus[number]
        return own if self.machines[number].host_free_gpus is None else min(own, self._pools[self._pool_of(number)])

    def _sort_into_kinds(self) -> None:
        kinds: dict[Hashable, int] = {}
        for number, each in enumerate(self.machines):
            resources = (each.cpus, each.memory_gib, each.gpus, each.gpu_model, each.price_per_hour)
            kind = (*resources, each.online, each.draining, frozenset(each.labels.items()))
            place = kinds.setdefault(kind, len(kinds))
            if place == len(self.kinds):
                self.kinds.append([])
            self.kinds[place].append(number)
            self.kind_of.append(place)


@dataclass(frozen=True, slots=True)
class _Terms:
    """Share and price of a kind of machine for one class of equal requirements."""

    share: Decimal
    billed_per_hour: Decimal
    wastes_gpus: bool


class _Line:
    """A class of requests with equal requirements, and the machine for its next request."""

    def __init__(self, required: Requirements, room: _Room) -> None:
        self._required = required
        self._room = room
        self._conditions = conditions(required)
        self._least = (least(required.cpus), least(required.memory_gib), least(required.gpus))
        self._terms: dict[int, _Terms | None] = {}  # by kind, computed when first needed
        self._named: Sequence[int] | None = None  # machines that the requests may use; None: any
        if required.machine_id is not None or required.machine_name is not None:
            number = room.number_of.get(required.machine_id) if required.machine_id is not None else None
            self._named = [] if number is None else [number]
        self._candidates: Sequence[int] = range(len(room.machines)) if self._named is None else self._named
        self._choice: int | None = None
        self._seen = 0  # how many of room.changed the choice has been compared with

    def place(self, request_id: int) -> Placement | None:
        """Place the next request of the line. None: no further request of the line can be placed."""
        number = self._choice = self._choose()
        if number is None:
            return None
        self._room.take(number, self._required)
        return Placement(request_id, self._room.machines[number].id, self._terms_of(number).share)

    def fits_somewhere(self) -> bool:
        return self._choose() is not None

    def explain(self, kinds: Sequence[Kind], currency: str) -> tuple[WaitingReason, str]:
        """Explain why the remaining requests have to wait."""
        if self._named is not None:
            kinds = [Kind(self._room.as_left(number), 1) for number in self._named]
        return explain(self._required, kinds, currency=currency)

    def _choose(self) -> int | None:
        if self._choice is None or not self._fitting([self._choice]):
            self._candidates = rivals = self._fitting(self._candidates)
        else:
            changed = set(self._room.changed[self._seen :])
            if self._named is not None:
                changed.intersection_update(self._named)
            rivals = self._fitting(changed | {self._choice})
        self._seen = len(self._room.changed)
        return min(rivals, key=self._preference, default=None)

    def _fitting(self, numbers: Iterable[int]) -> Sequence[int]:
        cpus, memory_gib, gpus = self._room.cpus, self._room.memory_gib, self._room.gpus
        least_cpus, least_memory_gib, least_gpus = self._least
        roomy = [
            each
            for each in numbers
            if gpus[each] >= least_gpus and cpus[each] >= least_cpus and memory_gib[each] >= least_memory_gib
        ]
        return [each for each in roomy if self._find_terms(each) is not None]

    def _preference(self, number: int) -> tuple[Decimal, bool, int, float, int]:
        """Rank a machine that fits, the best lowest; never rises while room shrinks.

        Cheapest first. At the same price: machines without GPUs for requests without GPUs; the fewest GPUs left free,
        so that large groups of GPUs stay together for large requests; then the least left of the scarcer of CPUs and
        memory, in proportion to the machine's total. Then by name.
        """
        machine, terms = self._room.machines[number], self._terms_of(number)
        left = [
            (free - max(asked, 0.0)) / has
            for free, asked, has in (
                (self._room.cpus[number], self._required.cpus, machine.cpus),
                (self._room.memory_gib[number], self._required.memory_gib, machine.memory_gib),
            )
            if has > 0
        ]
        gpus_left = self._room.gpus[number] - self._required.gpus if self._required.gpus > 0 else 0
        # Rounded, so that float error does not decide between equally full machines.
        return terms.billed_per_hour, terms.wastes_gpus, gpus_left, round(min(left, default=0.0), 9), number

    def _terms_of(self, number: int) -> _Terms:
        terms = self._find_terms(number)
        assert terms is not None, "only machines that meet the requirements are candidates"
        return terms

    def _find_terms(self, number: int) -> _Terms | None:
        kind = self._room.kind_of[number]
        if kind not in self._terms:
            self._terms[kind] = self._work_out(self._room.machines[number])
        return self._terms[kind]

    def _work_out(self, machine: Machine) -> _Terms | None:
        takes_work = machine.online and not machine.draining
        if not takes_work or not all(condition.holds(machine) for condition in self._conditions):
            return None
        if not within_price(self._required, machine):
            return None
        share = share_of(self._required, machine)
        billed = billed_per_hour(machine.price_per_hour, share)
        return _Terms(share, billed, wastes_gpus=machine.gpus > 0 and self._required.gpus <= 0)
