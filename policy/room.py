"""Free resources of the machines during a plan, and the choice of a machine for each class of equal requirements.

Two amounts are kept for each machine: the resources that are free once all runs being stopped on it have ended (`take`,
`give`), and those that are free now (`take_now`). A placement that fits both starts now. One that fits only the first
waits for the runs being stopped, and its resources are withheld from all requests behind it in the queue.

Performance: machines of one kind with the same free resources share a `Shape`. Whether a request fits a shape, and how
well, depends only on the shape and is computed once for each class (`Line`). A cluster has few shapes as long as most
of its machines are empty or full.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from policy.cost import billed_per_hour
from policy.matching import Machine, Requirements, conditions, kind_of, least, share_of, within_price

DECIMALS = 6  # of cpus and GiB, as in `policy.matching.TOLERANCE`: sums of floats depend on their order

Speeds = Mapping[Hashable, Mapping[int, float]]  # by learning class and machine: step rate there / usual step rate


class Amounts(NamedTuple):
    """Resources of one member."""

    cpus: float
    memory_gib: float
    gpus: int


class Shape(NamedTuple):
    """Free resources of equal machines once the runs being stopped have ended; `now`: if less is free at present."""

    kind: int
    cpus: float
    memory_gib: float
    gpus: int
    now: Amounts | None


class Rank(NamedTuple):
    """Sort key of a machine for a request; the lowest is best. `cost` and `time`: per second of usual speed."""

    waits: bool  # for runs that leave the machine
    cost: float
    time: float
    wastes_gpus: bool
    gpus_left: int
    left: float  # of the scarcer of CPUs and memory, in proportion to the machine's total


@dataclass(frozen=True, slots=True)
class Terms:
    """Share and price of a kind of machine for one class of equal requirements."""

    share: Decimal
    cost: float
    time: float
    wastes_gpus: bool


class Needs(NamedTuple):
    """Minimum of free resources for a request; minus infinity for a resource that it does not request."""

    cpus: float
    memory_gib: float
    gpus: float

    def fit(self, free: Amounts) -> bool:
        cpus, memory_gib, gpus = self
        return free.gpus >= gpus and free.cpus >= cpus and free.memory_gib >= memory_gib


def amounts_of(required: Requirements) -> Amounts:
    return Amounts(max(required.cpus, 0.0), max(required.memory_gib, 0.0), max(required.gpus, 0))


def needs_of(required: Requirements) -> Needs:
    return Needs(least(required.cpus), least(required.memory_gib), least(required.gpus))


class Leaving(Protocol):
    """A run that would leave its machines."""

    @property
    def amounts(self) -> Amounts: ...
    @property
    def numbers(self) -> tuple[int, ...]: ...


class Free:
    """Amounts free on each machine; the machines of a host share a pool of GPUs."""

    def __init__(self, machines: Sequence[Machine], pools: Sequence[int | None], pool_gpus: Sequence[int]) -> None:
        self._cpus = [round(each.free_cpus, DECIMALS) for each in machines]
        self._memory_gib = [round(each.free_memory_gib, DECIMALS) for each in machines]
        self._gpus = [each.free_gpus for each in machines]
        self._pools = pools
        self._pool_gpus = list(pool_gpus)

    def add(self, number: int, amounts: Amounts, sign: int = 1) -> None:
        self._cpus[number] = round(self._cpus[number] + sign * amounts.cpus, DECIMALS)
        self._memory_gib[number] = round(self._memory_gib[number] + sign * amounts.memory_gib, DECIMALS)
        if amounts.gpus:
            self._gpus[number] += sign * amounts.gpus
            pool = self._pools[number]
            if pool is not None:
                self._pool_gpus[pool] += sign * amounts.gpus

    def gpus_with(self, number: int, own: int, of_pool: int) -> int:
        """Return the free GPUs of a machine if it had `own` more, and its host `of_pool` more."""
        gpus, pool = self._gpus[number] + own, self._pools[number]
        return gpus if pool is None else min(gpus, self._pool_gpus[pool] + of_pool)

    def own_gpus(self, number: int) -> int:
        return self._gpus[number]

    def on(self, number: int) -> Amounts:
        gpus, pool = self._gpus[number], self._pools[number]
        if pool is not None:
            gpus = min(gpus, self._pool_gpus[pool])
        return Amounts(self._cpus[number], self._memory_gib[number], gpus)


class Room:
    """Room of all machines. Machines are numbered in the order of (name, id)."""

    def __init__(self, machines: Iterable[Machine], speeds: Speeds | None = None) -> None:
        self.machines = sorted(machines, key=lambda machine: (machine.name, machine.id))
        self.number_of = {machine.id: number for number, machine in enumerate(self.machines)}
        self._speeds = speeds or {}
        self.kinds: list[Machine] = []  # one of each
        self.kind_of = list(self._kinds())
        self.pools, self._mates, pool_gpus = self._pools()
        self._soon = Free(self.machines, self.pools, pool_gpus)
        self._now = Free(self.machines, self.pools, pool_gpus)
        self._shapes = [self._shape(number) for number in range(len(self.machines))]
        self.changed: list[int] = []  # machines whose room has changed, in order of time
        self.with_shape: dict[Shape, list[int]] = {}
        for number, shape in enumerate(self._shapes):
            self.with_shape.setdefault(shape, []).append(number)
        # Of each resource the most that a machine has free; not lowered when room is taken.
        self._most = Amounts(
            max((each.cpus for each in self._shapes), default=0.0),
            max((each.memory_gib for each in self._shapes), default=0.0),
            max((each.gpus for each in self._shapes), default=0),
        )

    def free(self) -> Free:
        """Return the room at the beginning of the plan, to count on."""
        return Free(self.machines, self.pools, self._pools()[2])

    def take(self, number: int, amounts: Amounts, *, at_once: bool = False) -> None:
        """Take resources that are free once the runs being stopped have ended; `at_once`: also of those free now."""
        self._soon.add(number, amounts, -1)
        if at_once:
            self._now.add(number, amounts, -1)
        self._reshape(number, amounts)

    def give(self, number: int, amounts: Amounts) -> None:
        """Give back the resources of a run that is being stopped."""
        self._soon.add(number, amounts)
        self._reshape(number, amounts)

    def take_now(self, number: int, amounts: Amounts) -> None:
        """Take resources that are free now; `take` is a separate step."""
        self._now.add(number, amounts, -1)
        self._reshape(number, amounts)

    def without(self, number: int, leaving: Iterable[Leaving]) -> Amounts:
        """Return the free resources of a machine if these runs were stopped as well."""
        cpus, memory_gib, gpus = self._shapes[number][1:4]
        own = of_pool = 0
        for each in leaving:
            of_pool += each.amounts.gpus * sum(mate in each.numbers for mate in self.mates(number))
            if number in each.numbers:
                cpus, memory_gib = cpus + each.amounts.cpus, memory_gib + each.amounts.memory_gib
                own += each.amounts.gpus
        return Amounts(cpus, memory_gib, self._soon.gpus_with(number, own, of_pool) if of_pool else gpus)

    def beside(self, machine_id: int | None) -> tuple[int, ...]:
        """Return the machines that share this one's files, those of its host; None if it does not exist."""
        number = self.number_of.get(machine_id) if machine_id is not None else None
        if number is None:
            return ()
        host = self.machines[number].host
        if host is None:
            return (number,)
        return tuple(each for each, machine in enumerate(self.machines) if machine.host == host)

    def could_have(self, needs: Needs) -> bool:
        """Whether a machine might have room for a request: three comparisons, before its labels and models are seen."""
        return needs.fit(self._most)

    def shape(self, number: int) -> Shape:
        return self._shapes[number]

    def speed(self, lineage: tuple[Hashable, ...], number: int) -> float:
        """Return the speed of this machine for a class, in proportion to the usual one."""
        ratio = self._speeds.get(lineage[-1], {}).get(self.machines[number].id, 1.0) if lineage else 1.0
        return ratio if ratio > 0 else 1.0

    def has_speeds(self, lineage: tuple[Hashable, ...]) -> bool:
        return bool(lineage) and lineage[-1] in self._speeds

    def as_left(self, number: int) -> Machine:
        """Return a machine with what will be free on it."""
        machine, (cpus, memory_gib, gpus) = self.machines[number], self._shapes[number][1:4]
        has_pool = machine.host_free_gpus is not None
        own = self._soon.own_gpus(number)
        return replace(
            machine,
            free_cpus=cpus,
            free_memory_gib=memory_gib,
            free_gpus=own,
            host_free_gpus=gpus if has_pool else None,
        )

    def mates(self, number: int) -> Sequence[int]:
        """Return the machines that share the GPUs of this one, itself included."""
        pool = self.pools[number]
        return (number,) if pool is None else self._mates[pool]

    def _shape(self, number: int) -> Shape:
        soon, now = self._soon.on(number), self._now.on(number)
        return Shape(self.kind_of[number], *soon, None if now == soon else now)

    def _reshape(self, number: int, amounts: Amounts) -> None:
        for each in self.mates(number) if amounts.gpus else (number,):
            before, after = self._shapes[each], self._shape(each)
            if before == after:
                continue
            alike = self.with_shape[before]
            if len(alike) == 1:
                del self.with_shape[before]
            else:
                del alike[bisect_left(alike, each)]
            self._shapes[each] = after
            self.changed.append(each)
            most = self._most
            if after.cpus > most.cpus or after.memory_gib > most.memory_gib or after.gpus > most.gpus:
                cpus, memory_gib = max(most.cpus, after.cpus), max(most.memory_gib, after.memory_gib)
                self._most = Amounts(cpus, memory_gib, max(most.gpus, after.gpus))
            insort(self.with_shape.setdefault(after, []), each)

    def _pools(self) -> tuple[list[int | None], list[list[int]], list[int]]:
        pools: list[int | None] = []
        mates: list[list[int]] = []
        gpus: list[int] = []
        place_of: dict[Hashable, int] = {}
        for number, machine in enumerate(self.machines):
            if machine.host_free_gpus is None:
                pools.append(None)
                continue
            host: Hashable = number if machine.host is None else machine.host
            place = place_of.setdefault(host, len(mates))
            if place == len(mates):
                mates.append([])
                gpus.append(machine.host_free_gpus)
            mates[place].append(number)
            gpus[place] = min(gpus[place], machine.host_free_gpus)
            pools.append(place)
        return pools, mates, gpus

    def _kinds(self) -> Iterator[int]:
        ratios: dict[int, set[tuple[Hashable, float]]] = {}
        for group, by_machine in self._speeds.items():
            for machine_id, ratio in by_machine.items():
                ratios.setdefault(machine_id, set()).add((group, ratio))
        place_of: dict[Hashable, int] = {}
        for machine in self.machines:
            kind = (kind_of(machine), frozenset(ratios.get(machine.id, ())))
            place = place_of.setdefault(kind, len(self.kinds))
            if place == len(self.kinds):
                self.kinds.append(machine)
            yield place


class Line:
    """A class of equal requirements: the machines it may use, and how good each one is.

    The best machine has room now, then is the cheapest until the run ends: (price of the share + time value x GPUs) x
    expected time there. Then the fastest; at the same price machines without GPUs for requests without GPUs; the fewest
    GPUs left free, so that large groups of GPUs stay together; the tightest fit. Then by name.
    """

    def __init__(
        self,
        required: Requirements,
        room: Room,
        *,
        size: float,
        time_value: Decimal,
        lineage: tuple[Hashable, ...],
        among: Sequence[int] | None = None,
    ) -> None:
        self.required = required
        self.amounts = amounts_of(required)
        self._room = room
        self._value_per_hour = float(time_value) * size
        self._lineage = lineage
        self._conditions = conditions(required)
        self.needs = needs_of(required)
        self.fits = self.needs.fit
        self._ranks: dict[Shape, Rank | None] = {}
        self._heap: list[tuple[Rank, int, int, Shape]] = []  # as of when `room.changed` had `_seen` entries
        self._entered = 0
        self._seen: int | None = None
        self.named = among  # machines that the requests may use; None: any
        if required.machine_id is not None or required.machine_name is not None:
            number = room.number_of.get(required.machine_id) if required.machine_id is not None else None
            self.named = () if number is None or (among is not None and number not in among) else (number,)
        self.terms = [self._work_out(kind) for kind in range(len(room.kinds))]
        self.able_count = len(self.able())
        self.is_full = False  # no machine has room, even without reservations: so for the rest of the plan

    def able(self) -> list[int]:
        """Return the machines that take work and meet the requirements, full ones too, in the order of names."""
        numbers = range(len(self._room.machines)) if self.named is None else self.named
        return [each for each in numbers if self.terms[self._room.kind_of[each]] is not None]

    def may_use(self, number: int) -> bool:
        """Whether the requests name this machine, or none."""
        return self.named is None or number in self.named

    def share_on(self, number: int) -> Decimal:
        return self.terms_on(number).share

    def terms_on(self, number: int) -> Terms:
        terms = self.terms[self._room.kind_of[number]]
        assert terms is not None, "only machines that meet the requirements are candidates"
        return terms

    def worth(self, number: int) -> tuple[float, float, int]:
        """Rank a machine by what does not depend on its load."""
        terms = self.terms_on(number)
        return terms.cost, terms.time, number

    def choose(
        self, excluded: Collection[int], is_allowed: Callable[[int], bool] | None = None
    ) -> tuple[Rank, int] | None:
        """Return the best machine that has room, or will have when all that leave it have ended."""
        best: tuple[Rank, int] | None = None
        for rank, numbers in self._by_rank() if self.named is None else self._named():
            if best is not None and (rank, numbers[0]) > best:
                break
            for number in numbers:
                if number not in excluded and (is_allowed is None or is_allowed(number)):
                    best = (rank, number) if best is None else min(best, (rank, number))
                    break
        return best

    def _by_rank(self) -> Iterator[tuple[Rank, Sequence[int]]]:
        """Yield the machines with room by shape: in the order of rank, then of the first machine.

        Of each shape there is an entry in a heap, of a machine that is not behind the first one of the shape now: a
        machine that changes its shape is entered anew when it is next asked for, and an entry whose machine has left
        its shape is replaced when it is reached.
        """
        heap, room = self._heap, self._room
        self._catch_up()
        seen: list[tuple[Rank, int, int, Shape]] = []
        shapes: set[Shape] = set()
        try:
            while heap:
                entry = rank, number, _, shape = heappop(heap)
                if shape in shapes:
                    continue  # entered twice
                if room.shape(number) == shape:
                    shapes.add(shape)
                    seen.append(entry)
                    yield rank, room.with_shape[shape]
                elif numbers := room.with_shape.get(shape):
                    self._enter(rank, numbers[0], shape)
        finally:
            for entry in seen:
                heappush(heap, entry)

    def _catch_up(self) -> None:
        room = self._room
        if self._seen is None:
            for shape, numbers in room.with_shape.items():
                if (rank := self.rank(shape)) is not None:
                    self._enter(rank, numbers[0], shape)
        else:
            for number in set(room.changed[self._seen :]):
                shape = room.shape(number)
                if (rank := self.rank(shape)) is not None:
                    self._enter(rank, number, shape)
        self._seen = len(room.changed)

    def _enter(self, rank: Rank, number: int, shape: Shape) -> None:
        self._entered += 1  # so that shapes are never compared
        heappush(self._heap, (rank, number, self._entered, shape))

    def _named(self) -> Iterator[tuple[Rank, Sequence[int]]]:
        found = [(rank, (number,)) for number in self.named or () if (rank := self.rank(self._room.shape(number)))]
        yield from sorted(found)

    def rank(self, shape: Shape) -> Rank | None:
        """Return the sort key of machines of this shape; None if the request does not fit."""
        try:
            return self._ranks[shape]
        except KeyError:
            found = self._ranks[shape] = self._rank(shape)
            return found

    def _rank(self, shape: Shape) -> Rank | None:
        terms = self.terms[shape.kind]
        if terms is None or not self.fits(Amounts(shape.cpus, shape.memory_gib, shape.gpus)):
            return None
        machine, asked = self._room.kinds[shape.kind], self.amounts
        left = [
            (free - amount) / has
            for free, amount, has in (
                (shape.cpus, asked.cpus, machine.cpus),
                (shape.memory_gib, asked.memory_gib, machine.memory_gib),
            )
            if has > 0
        ]
        waits = shape.now is not None and not self.fits(shape.now)
        gpus_left = shape.gpus - asked.gpus if asked.gpus else 0
        # Rounded, so that float error does not decide between equally full machines.
        return Rank(waits, terms.cost, terms.time, terms.wastes_gpus, gpus_left, round(min(left, default=0.0), 9))

    def _work_out(self, kind: int) -> Terms | None:
        machine, required = self._room.kinds[kind], self.required
        takes_work = machine.online and not machine.draining
        if not takes_work or not all(condition.holds(machine) for condition in self._conditions):
            return None
        if not within_price(required, machine):
            return None
        share = share_of(required, machine)
        time = 1.0
        if self._lineage:
            time = 1 / self._room.speed(self._lineage, self._room.number_of[machine.id])
        cost = (float(billed_per_hour(machine.price_per_hour, share)) + self._value_per_hour) * time
        return Terms(share, round(cost, 9), round(time, 9), wastes_gpus=machine.gpus > 0 and required.gpus <= 0)
