"""Properties of every plan of `policy.schedule`, for generated queues, running runs and machines.

The strongest property: the plan equals that of a slow twin, which keeps no classes, no shapes and no heaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from effort import POLICY_PLANS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from policy.cost import billed_per_hour
from policy.expected import Source, expected, size_of
from policy.fairness import shares
from policy.learning import Counts, Learned
from policy.matching import TOLERANCE, Machine, Requirements, conditions, may_use, share_of, within_price
from policy.plan import Placement, Plan
from policy.queue_order import Queue
from policy.schedule import plan
from policy.workload import Knobs, Project, Run

# A busy machine may draw examples slowly, for reasons other than the planner.
patient = settings(
    max_examples=POLICY_PLANS, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)

NOW = datetime(2030, 1, 5, tzinfo=UTC)
CPUS = st.sampled_from([0.0, 1.0, 2.0, 4.0])
MEMORY = st.sampled_from([0.0, 1.0, 8.0])
LABELS = st.sampled_from([{}, {}, {"zone": "eu"}])
SECONDS = st.sampled_from([0.0, 30.0, 100.0, 700.0, 5000.0])
KNOBS = st.builds(
    Knobs,
    max_wait_seconds=st.sampled_from([None, 3600.0, 86_400.0]),
    min_run_seconds=st.sampled_from([0.0, 300.0]),
    fair_share=st.booleans(),
    time_value=st.sampled_from([Decimal(0), Decimal(2)]),
    reservations=st.sampled_from([0, 1, 4]),
)
PROJECTS = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.0, 10.0, 5000.0])), min_size=2, max_size=2
).map(lambda drawn: [Project(n, weight, use, NOW - timedelta(days=n)) for n, (weight, use) in enumerate(drawn, 1)])
LEARNED = Learned({(): Counts((3, 4, *[0] * 23), (1, 0, 2, *[0] * 22)), "long": Counts((0,) * 8 + (9,) + (0,) * 16)})


@dataclass(frozen=True)
class World:
    queue: list[Run]
    running: list[Run]
    machines: list[Machine]  # free amounts without what runs


@st.composite
def some_requirements(draw: st.DrawFn) -> Requirements:
    named = draw(st.sampled_from([(None, None)] * 8 + [(1, "m"), (99, "gone")]))
    return Requirements(
        cpus=draw(CPUS), memory_gib=draw(MEMORY), gpus=draw(st.sampled_from([0, 1, 1, 2, 4])), gpu_model=None,
        labels=draw(LABELS), machine_id=named[0], machine_name=named[1],
        max_price_per_hour=draw(st.sampled_from([None, None, None, Decimal(2)])),
    )  # fmt: skip


@st.composite
def some_machines(draw: st.DrawFn, most: int = 5) -> list[Machine]:
    machines = []
    for number in range(draw(st.integers(1, most))):
        cpus, memory, gpus = draw(st.sampled_from([2.0, 4.0, 8.0])), draw(MEMORY), draw(st.sampled_from([0, 1, 2, 4]))
        host = draw(st.sampled_from([None, None, "h"]))
        machines.append(
            Machine(
                id=number, name=draw(st.sampled_from(["a", "b", "c"])), cpus=cpus, memory_gib=memory, gpus=gpus,
                gpu_model=None, labels=draw(LABELS),
                price_per_hour=draw(st.sampled_from([Decimal(0), Decimal(1), Decimal(3)])),
                free_cpus=cpus, free_memory_gib=memory, free_gpus=gpus,
                online=draw(st.sampled_from([True, True, True, False])),
                draining=draw(st.sampled_from([False, False, False, True])), host=host, host_free_gpus=None,
            )
        )  # fmt: skip
    pool = draw(st.integers(0, 4))
    return [replace(each, host_free_gpus=pool if each.host else None) for each in machines]


@st.composite
def some_run(draw: st.DrawFn, number: int, kinds: Sequence[Requirements]) -> Run:
    limit = draw(st.sampled_from([None, 600.0, 3600.0, 50_000.0]))
    return Run(
        id=number, project=draw(st.integers(1, 2)), priority=draw(st.sampled_from([0, 0, 0, 1])),
        submitted_at=NOW - timedelta(seconds=draw(st.sampled_from([1, 60, 4000, 90_000, 90_001]))),
        requirements=draw(st.sampled_from(kinds)), machines=draw(st.sampled_from([1, 1, 1, 2, 3])),
        preemptible=draw(st.booleans()), max_steps=draw(st.sampled_from([None, 100.0, 10_000.0])),
        max_runtime_seconds=limit, attained_seconds=draw(SECONDS), steps_done=draw(st.sampled_from([0.0, 50.0])),
        steps_per_second=draw(st.sampled_from([None, 0.1, 3.0])), lineage=draw(st.sampled_from([(), ("long",)])),
        checkpoint_machine=draw(st.sampled_from([None, None, 0, 1])),
        waiting_since=draw(st.sampled_from([None, NOW - timedelta(seconds=10), NOW - timedelta(hours=2)])),
    )  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A queue, and running runs on machines that have room for them."""
    machines = draw(some_machines())
    kinds = draw(st.lists(some_requirements(), min_size=1, max_size=4))
    runs = [draw(some_run(number, kinds)) for number in range(draw(st.integers(0, 14)))]
    queue, running = [], []
    for run in runs:
        places = [each for each in machines if fits(run.requirements, each, needs_online=False)]
        if len(places) < run.machines or draw(st.booleans()):
            queue.append(run)
            continue
        chosen = draw(st.permutations(places))[: run.machines]
        trial = machines
        for each in chosen:
            trial = taken(trial, each.id, run.requirements)
        if any(each.host_free_gpus is not None and each.host_free_gpus < 0 for each in trial):
            queue.append(run)
            continue
        machines = trial
        since = NOW - timedelta(seconds=draw(st.sampled_from([10.0, 400.0, 6000.0, 88_000.0])))
        running.append(
            replace(
                run, machine_ids=tuple(each.id for each in chosen), started_at=since, waiting_since=None,
                checkpoint_machine=draw(st.sampled_from([None, chosen[0].id])),
                leaving=draw(st.sampled_from([False, False, False, True])),
            )
        )  # fmt: skip
    return World(queue, running, machines)


def free_gpus(machine: Machine) -> int:
    return machine.free_gpus if machine.host_free_gpus is None else min(machine.free_gpus, machine.host_free_gpus)


def meets(required: Requirements, machine: Machine) -> bool:
    return (
        may_use(required, machine)
        and all(each.holds(machine) for each in conditions(required))
        and within_price(required, machine)
    )


def fits(required: Requirements, machine: Machine, *, needs_online: bool = True) -> bool:
    return (
        (not needs_online or (machine.online and not machine.draining))
        and meets(required, machine)
        and (required.cpus <= 0 or machine.free_cpus >= required.cpus - TOLERANCE)
        and (required.memory_gib <= 0 or machine.free_memory_gib >= required.memory_gib - TOLERANCE)
        and (required.gpus <= 0 or free_gpus(machine) >= required.gpus)
    )


def taken(machines: Sequence[Machine], machine_id: int, required: Requirements, sign: int = 1) -> list[Machine]:
    """Return the machines after a member was placed on one of them, or with sign -1 has left it."""
    (chosen,) = (each for each in machines if each.id == machine_id)
    changed = []
    for each in machines:
        if each.host is not None and each.host == chosen.host and each.host_free_gpus is not None:
            each = replace(each, host_free_gpus=each.host_free_gpus - sign * required.gpus)
        if each.id == machine_id:
            each = replace(
                each,
                free_cpus=each.free_cpus - sign * required.cpus,
                free_memory_gib=each.free_memory_gib - sign * required.memory_gib,
                free_gpus=each.free_gpus - sign * required.gpus,
            )
        changed.append(each)
    return changed


def planned(world: World, **options: object) -> Plan:
    return plan(world.queue, world.running, world.machines, now=NOW, learned=LEARNED, currency="EUR", **options)  # type: ignore[arg-type]


def applied(world: World, result: Plan) -> World:
    """Return the world after the plan was carried out and all that leave have left."""
    machines = world.machines
    gone = {each.run_id for each in result.preemptions} | {each.id for each in world.running if each.leaving}
    queue = {each.id: each for each in world.queue}
    running = {}
    for each in world.running:
        if each.id not in gone:
            running[each.id] = each
            continue
        for machine_id in each.machine_ids:
            machines = taken(machines, machine_id, each.requirements, sign=-1)
        if not each.leaving:
            queue[each.id] = replace(each, machine_ids=(), started_at=None, waiting_since=NOW)
    for placement in result.placements:
        run = queue.pop(placement.run_id)
        for member in placement.members:
            machines = taken(machines, member.machine_id, run.requirements)
        ids = tuple(member.machine_id for member in placement.members)
        home = run.checkpoint_machine if run.checkpoint_machine is None else ids[0]
        running[run.id] = replace(run, machine_ids=ids, started_at=NOW, checkpoint_machine=home)
    return World(list(queue.values()), list(running.values()), list(machines))


# --- the slow twin ---------------------------------------------------------------------------------------------------


@dataclass
class Twin:
    """The rules of the specification, written directly: everything is computed anew whenever it is needed."""

    world: World
    knobs: Knobs
    projects: Sequence[Project]

    def __post_init__(self) -> None:
        self.factor = shares(self.projects, NOW, self.knobs.half_life_seconds) if self.knobs.fair_share else {}
        self.soon = list(self.world.machines)
        self.now = list(self.world.machines)
        self.leaving: set[int] = set()
        self.runs = {each.id: each for each in (*self.world.queue, *self.world.running)}
        self.preempted: dict[int, int] = {}
        self.placed: dict[int, tuple[tuple[int, ...], bool]] = {}
        self.kept: set[int] = set()  # those that wait for the host of their checkpoint
        self.order_placed: list[int] = []
        self.held: dict[int, tuple[float, float, tuple[int, ...]]] = {}
        for each in self.world.running:
            if each.leaving:
                self.leave(each)
        self.oldest = self.find_oldest()

    def size(self, run: Run) -> float:
        return size_of(run.requirements, 1, self.world.machines) * run.machines

    def order(self, run: Run, *, running: bool) -> tuple[object, ...]:
        work, source = expected(run, self.size(run), LEARNED, self.knobs)
        key = work * self.factor.get(run.project, 1.0) * (1 - 1e-9 * min(run.attained_seconds, 1e7))
        if running:
            key /= 1.25 if source is Source.PROGRESS else 3
        # Rounded: the product multiplies in another order.
        return (-run.priority, run.id not in self.oldest, float(f"{key:.12g}"), run.submitted_at, run.id)

    def able(self, run: Run) -> list[Machine]:
        ready = [each for each in self.soon if each.online and not each.draining and meets(run.requirements, each)]
        if run.id in self.kept:
            ready = [each for each in ready if self.is_home(run, each)]
        return sorted(ready, key=lambda each: (each.name, each.id))

    def is_home(self, run: Run, machine: Machine) -> bool:
        """Whether this machine is on the host of the run's checkpoint."""
        hosts = {each.host for each in self.soon if each.id == run.checkpoint_machine and each.host is not None}
        return machine.id == run.checkpoint_machine or machine.host in hosts

    def may_wait(self, run: Run) -> bool:
        if run.waiting_since is None or run.checkpoint_machine is None:
            return False
        return (NOW - run.waiting_since).total_seconds() < run.attained_seconds

    def keeps(self, run: Run) -> bool:
        home = [each for each in self.able(run) if self.is_home(run, each)]
        is_full = not any(fits(run.requirements, each) for each in home)
        return run.machines == 1 and bool(home) and is_full and self.may_wait(run)

    def find_oldest(self) -> set[int]:
        found: set[int] = set()
        if self.knobs.max_wait_seconds is None:
            return found
        for priority in {each.priority for each in self.runs.values()}:
            old = [
                (each.submitted_at, each.id)
                for each in self.runs.values()
                if each.priority == priority
                and (NOW - each.submitted_at).total_seconds() > self.knobs.max_wait_seconds
                and (keeps_first_place(each, self.knobs) if each.machine_ids else len(self.able(each)) >= each.machines)
            ]
            found |= {min(old)[1]} if old else set()
        return found

    def leave(self, run: Run, sign: int = -1) -> None:
        for each in run.machine_ids:
            self.soon = taken(self.soon, each, run.requirements, sign)
        self.leaving ^= {run.id}

    def is_there(self, run: Run) -> bool:
        return bool(run.machine_ids) and run.id not in self.leaving

    def terms(self, run: Run, machine: Machine) -> tuple[float, float]:
        value = float(self.knobs.time_value) * self.size(run) / run.machines
        price = billed_per_hour(machine.price_per_hour, share_of(run.requirements, machine))
        return round(float(price) + value, 9), 1.0

    def rank(self, run: Run, machine: Machine) -> tuple[object, ...]:
        required, (cost, time) = run.requirements, self.terms(run, machine)
        left = [(machine.free_cpus - required.cpus) / machine.cpus]
        left += [(machine.free_memory_gib - required.memory_gib) / machine.memory_gib] if machine.memory_gib else []
        (at_once,) = (each for each in self.now if each.id == machine.id)
        work = max(expected(run, self.size(run), LEARNED, self.knobs)[0] / self.size(run), 1.0)
        has_home = any(self.is_home(run, each) for each in self.soon)
        is_away = has_home and not self.is_home(run, machine) and run.attained_seconds > 0
        again = (work + run.attained_seconds) / work if is_away else 1.0
        return (
            not fits(required, at_once), cost * again, time * again, machine.gpus > 0 and required.gpus <= 0,
            free_gpus(machine) - required.gpus if required.gpus > 0 else 0, round(min(left), 9),
            machine.name, machine.id,
        )  # fmt: skip

    def place(self, run: Run, order: tuple[object, ...]) -> bool:
        before = self.soon, set(self.leaving), dict(self.preempted)
        numbers: list[int] = []
        waits = run.id in self.preempted
        while len(numbers) < run.machines:
            free = [
                each
                for each in self.able(run)
                if each.id not in numbers and fits(run.requirements, each) and self.may_start(run, each)
            ]
            if free:
                best = self.best(run, free, [each for each in self.soon if each.id in numbers])
                waits |= bool(self.rank(run, best)[0])
            else:
                found = self.victims(run, order, numbers)
                if found is None:
                    self.soon, self.leaving, self.preempted = before
                    return False
                best, victims = found
                waits = True
                for each in victims:
                    self.leave(each)
                    self.preempted[each.id] = run.id
            self.soon = taken(self.soon, best.id, run.requirements)
            numbers.append(best.id)
        if not waits:
            for number in numbers:
                self.now = taken(self.now, number, run.requirements)
        self.placed[run.id] = tuple(numbers), waits
        self.order_placed.append(run.id)
        return True

    def best(self, run: Run, free: Sequence[Machine], members: Sequence[Machine]) -> Machine:
        """Return the best; the host of the checkpoint is compared only with the best of the others."""
        alike = replace(run, checkpoint_machine=None)
        best = min(free, key=lambda each: self.rank(alike, each))
        home = [each for each in free if self.is_home(run, each)]
        if not home or run.attained_seconds <= 0 or best in home or any(self.is_home(run, each) for each in members):
            return best
        there = min(home, key=lambda each: self.rank(run, each))
        waits, *rank = self.rank(run, there)[:6]
        return there if (waits and not self.may_wait(run), *rank) <= self.rank(run, best)[:6] else best

    def victims(self, run: Run, order: tuple[object, ...], numbers: Sequence[int]) -> tuple[Machine, list[Run]] | None:
        found = []
        for machine in self.able(run):
            if machine.id in numbers or not self.may_start(run, machine):
                continue
            mates = {each.id for each in self.soon if each.host is not None and each.host == machine.host}
            shared = mates if machine.host_free_gpus is not None else set()
            behind = [
                each
                for each in self.world.running
                if self.is_there(each)
                and (machine.id in each.machine_ids or (each.requirements.gpus > 0 and shared & set(each.machine_ids)))
                and each.preemptible
                and (NOW - (each.started_at or NOW)).total_seconds() >= self.knobs.min_run_seconds
                and order < self.order(each, running=True)
            ]
            behind.sort(
                key=lambda each: (self.order(each, running=True)[:3], -self.lost(each), each.submitted_at, each.id)
            )
            chosen: list[Run] = []
            for each in reversed(behind):
                if self.fits_without(run, machine, chosen):
                    break
                chosen.append(each)
            if not chosen or not self.fits_without(run, machine, chosen):
                continue
            for each in reversed(chosen[:-1]):
                others = [other for other in chosen if other is not each]
                if self.fits_without(run, machine, others):
                    chosen = others
            cost = (sum(self.size(each) for each in chosen), *self.terms(run, machine), machine.name, machine.id)
            found.append((cost, machine, chosen))
        return min(found, key=lambda each: each[0])[1:] if found else None

    def lost(self, run: Run) -> float:
        since = run.last_checkpoint_at or run.started_at or NOW
        return self.size(run) * (30 + (NOW - since).total_seconds())

    def fits_without(self, run: Run, machine: Machine, chosen: Sequence[Run]) -> bool:
        machines: Sequence[Machine] = self.soon
        for each in chosen:
            for machine_id in each.machine_ids:
                machines = taken(machines, machine_id, each.requirements, sign=-1)
        return any(fits(run.requirements, each) for each in machines if each.id == machine.id)

    def stays(self, run: Run) -> float:
        if run.max_runtime_seconds is None:
            return math.inf
        return (
            run.max_runtime_seconds - run.attained_seconds if run.max_runtime_seconds > run.attained_seconds else 60.0
        )

    def at(self, moment: float) -> list[Machine]:
        """Return the machines with only what can't be preempted and is still there, and what is reserved."""
        machines = list(self.world.machines)
        for each in self.world.running:
            is_certain = not each.preemptible and not each.leaving
            if not is_certain or (self.stays(each) <= moment and not math.isinf(self.stays(each))):
                for machine_id in each.machine_ids:
                    machines = taken(machines, machine_id, each.requirements, sign=-1)
        for run_id, (numbers, _) in self.placed.items():
            run = self.runs[run_id]
            if not run.preemptible and (self.stays(run) > moment or math.isinf(self.stays(run))):
                for machine_id in numbers:
                    machines = taken(machines, machine_id, run.requirements)
        for run_id, (begins, ends, numbers) in self.held.items():
            if begins <= moment and (moment < ends or math.isinf(ends)):
                for machine_id in numbers:
                    machines = taken(machines, machine_id, self.runs[run_id].requirements)
        return machines

    def fits_at(self, run: Run, machine: Machine, moment: float) -> bool:
        return any(fits(run.requirements, each) for each in self.at(moment) if each.id == machine.id)

    def concerns(self, run: Run, machine: Machine, numbers: Sequence[int]) -> bool:
        """Whether a reservation on these machines concerns a start on this one."""
        hosts = {each.host for each in self.soon if each.id in numbers and each.host_free_gpus is not None}
        return machine.id in numbers or (
            run.requirements.gpus > 0 and machine.host is not None and machine.host in hosts
        )

    def may_start(self, run: Run, machine: Machine, begins: float = 0.0) -> bool:
        if run.preemptible:
            return True
        ends = begins + self.stays(run)
        return all(
            self.fits_at(run, machine, start)
            for start, _, numbers in self.held.values()
            if self.concerns(run, machine, numbers)
            and (start >= begins if begins == 0 else start > begins)
            and (start < ends or (math.isinf(start) and math.isinf(ends)))
        )

    def reserve(self, run: Run) -> bool:
        if len(self.held) >= self.knobs.reservations:
            return False
        certain = [each for each in self.world.running if not each.preemptible and not each.leaving]
        certain += [self.runs[each] for each in self.placed if not self.runs[each].preemptible]
        moments = {0.0} | {self.stays(each) for each in certain} | {ends for _, ends, _ in self.held.values()}
        able = self.able(run)
        chosen: list[Machine] | None = None
        begins = math.inf
        for moment in sorted(each for each in moments if each < math.inf):
            good = [each for each in able if self.fits_at(run, each, moment) and self.may_be_held(run, each, moment)]
            if len(good) >= run.machines:
                good.sort(key=lambda each: (*self.terms(run, each), each.name, each.id))
                begins, chosen = moment, good[: run.machines]
                break
        if chosen is None:
            if run.id not in self.oldest or len(able) < run.machines:
                return False
            able.sort(key=lambda each: (self.lacking(run, each), *self.terms(run, each), each.name, each.id))
            chosen = able[: run.machines]
        self.held[run.id] = begins, begins + self.stays(run), tuple(each.id for each in chosen)
        return True

    def may_be_held(self, run: Run, machine: Machine, moment: float) -> bool:
        if run.preemptible:
            return True
        ends = moment + self.stays(run)
        return all(
            self.fits_at(run, machine, start)
            for start, _, numbers in self.held.values()
            if self.concerns(run, machine, numbers)
            and (moment < start < ends or (math.isinf(start) and math.isinf(ends)))
        )

    def lacking(self, run: Run, machine: Machine) -> float:
        (left,) = (each for each in self.at(math.inf) if each.id == machine.id)
        required = run.requirements
        pairs = [
            (required.cpus - left.free_cpus, machine.cpus),
            (required.memory_gib - left.free_memory_gib, machine.memory_gib),
            (required.gpus - free_gpus(left), machine.gpus),
        ]  # fmt: skip
        return round(max(max(lacks, 0.0) / has for lacks, has in pairs if has > 0), 9)

    def walk(self) -> None:
        todo = [(self.order(each, running=False), each) for each in self.world.queue]
        dropped: set[object] = set()
        blocked: set[object] = set()
        while todo:
            order, run = min(todo, key=lambda each: each[0])
            todo.remove((order, run))
            alone = run.id in self.oldest or run.id in self.preempted
            group = run.id if alone else self.group(run)
            if group in dropped:
                continue
            if group not in blocked:
                if len(self.able(run)) < run.machines:
                    dropped.add(group)
                    continue
                before = set(self.preempted)
                self.kept |= {run.id} if self.keeps(run) else set()
                if self.place(run, order):
                    for run_id in set(self.preempted) - before:
                        again = replace(self.runs[run_id], machine_ids=(), started_at=None, waiting_since=NOW)
                        self.runs[run_id] = again
                        todo.append((self.order(again, running=False), again))
                    continue
                if run.id in self.kept:
                    self.reserve(run)
                    continue
                blocked.add(group)
            if not self.reserve(run):
                dropped.add(group)

    def group(self, run: Run) -> object:
        source = expected(run, self.size(run), LEARNED, self.knobs)[1]
        service = run.attained_seconds * self.size(run)
        same = repr(run.requirements), run.machines, run.project, run.priority, run.preemptible
        width = int(service / 600).bit_length() if source is Source.LEARNED else -1
        home = run.checkpoint_machine if run.attained_seconds > 0 else None
        return same, source, run.max_runtime_seconds is None, run.lineage, width, home


def keeps_first_place(run: Run, knobs: Knobs) -> bool:
    """Whether a run that runs may be the oldest."""
    assert knobs.max_wait_seconds is not None
    assert run.started_at is not None
    most = timedelta(seconds=knobs.max_wait_seconds)
    return run.preemptible or (run.started_at - run.submitted_at > most and NOW - run.started_at < most)


def could_start(run: Run, machines: Sequence[Machine]) -> bool:
    """Whether enough machines that take work meet its requirements, full ones too."""
    able = [each for each in machines if each.online and not each.draining and meets(run.requirements, each)]
    return len(able) >= run.machines


# --- properties ------------------------------------------------------------------------------------------------------


@settings(patient, max_examples=5 * POLICY_PLANS)
@given(worlds(), KNOBS, PROJECTS)
def test_the_plan_equals_that_of_the_slow_twin(world: World, knobs: Knobs, projects: list[Project]) -> None:
    result = planned(world, knobs=knobs, projects=projects)
    twin = Twin(world, knobs, projects)
    twin.walk()
    assert {each.run_id: each.for_id for each in result.preemptions} == twin.preempted
    got = {each.run_id: (tuple(m.machine_id for m in each.members), bool(each.after)) for each in result.placements}
    assert got == twin.placed
    held = {each.run_id: each.machine_ids for each in result.reservations}
    assert held == {run_id: numbers for run_id, (_, _, numbers) in twin.held.items()}
    begins = [each.at for each in result.reservations]
    assert begins == [None if math.isinf(at) else NOW + timedelta(seconds=round(at)) for at, _, _ in twin.held.values()]


@patient
@given(worlds(), KNOBS)
def test_no_machine_and_no_host_is_ever_overcommitted(world: World, knobs: Knobs) -> None:
    result = planned(world, knobs=knobs)
    at_once = replace(result, placements=tuple(each for each in result.placements if not each.after))
    for state in (applied(world, result), started(world, at_once)):
        for before, machine in zip(world.machines, state.machines, strict=True):
            assert machine.free_cpus >= min(before.free_cpus, 0) - TOLERANCE
            assert machine.free_memory_gib >= min(before.free_memory_gib, 0) - TOLERANCE
            assert free_gpus(machine) >= min(free_gpus(before), 0)


def started(world: World, result: Plan) -> World:
    """Return the world after those that start now have started, and nothing has left yet."""
    machines, runs = world.machines, {each.id: each for each in (*world.queue, *world.running)}
    for placement in result.placements:
        for member in placement.members:
            machines = taken(machines, member.machine_id, runs[placement.run_id].requirements)
    return World([], [], list(machines))


@patient
@given(worlds(), KNOBS, PROJECTS)
def test_only_what_may_be_preempted_is_preempted(world: World, knobs: Knobs, projects: list[Project]) -> None:
    by_id = {each.id: each for each in world.running}
    for each in planned(world, knobs=knobs, projects=projects).preemptions:
        victim = by_id[each.run_id]
        assert victim.preemptible
        assert not victim.leaving
        assert victim.started_at is not None
        assert (NOW - victim.started_at).total_seconds() >= knobs.min_run_seconds
        assert each.run_id != each.for_id
        assert 0 < len(each.detail) <= 300


@patient
@given(worlds(), KNOBS)
def test_members_are_placed_on_different_machines_that_meet_the_requirements_or_not_at_all(
    world: World, knobs: Knobs
) -> None:
    by_id = {each.id: each for each in world.machines}
    runs = {each.id: each for each in (*world.queue, *world.running)}
    for placement in planned(world, knobs=knobs).placements:
        run = runs[placement.run_id]
        assert len({each.machine_id for each in placement.members}) == run.machines
        for member in placement.members:
            machine = by_id[member.machine_id]
            assert meets(run.requirements, machine)
            assert machine.online
            assert not machine.draining
            assert member.share == share_of(run.requirements, machine)


@patient
@given(worlds(), KNOBS, PROJECTS, st.randoms(use_true_random=False))
def test_no_order_of_the_arguments_changes_a_plan(
    world: World, knobs: Knobs, projects: list[Project], random: Random
) -> None:
    shuffled = World(world.queue.copy(), world.running.copy(), world.machines.copy())
    for each in (shuffled.queue, shuffled.running, shuffled.machines):
        random.shuffle(each)
    expected_plan = planned(world, knobs=knobs, projects=projects)
    assert planned(shuffled, knobs=knobs, projects=projects[::-1]) == expected_plan


@settings(patient, max_examples=3 * POLICY_PLANS)
@given(worlds(), KNOBS, PROJECTS)
def test_a_plan_repeated_on_its_own_result_changes_nothing(world: World, knobs: Knobs, projects: list[Project]) -> None:
    once = applied(world, planned(world, knobs=knobs, projects=projects))
    again = planned(once, knobs=knobs, projects=projects)
    assert (again.placements, again.preemptions) == ((), ())


@patient
@given(worlds(), KNOBS)
def test_the_oldest_beyond_max_wait_is_never_passed(world: World, knobs: Knobs) -> None:
    """Among equal requirements of its priority it is first, and it is not preempted for one of its priority."""
    assume(knobs.max_wait_seconds is not None)
    assert knobs.max_wait_seconds is not None
    since = NOW - timedelta(seconds=knobs.max_wait_seconds)
    result = planned(world, knobs=knobs)
    runs = {each.id: each for each in (*world.queue, *world.running)}
    fitting = {
        each.id
        for each in runs.values()
        if (keeps_first_place(each, knobs) if each.machine_ids else could_start(each, world.machines))
    }
    for priority in {each.priority for each in runs.values()}:
        old = [each for each in runs.values() if each.priority == priority and each.submitted_at < since]
        old = [each for each in old if each.id in fitting]
        if not old:
            continue
        oldest = min(old, key=lambda each: (each.submitted_at, each.id))
        for each in result.preemptions:
            assert each.run_id != oldest.id or runs[each.for_id].priority > priority
        places = [each.run_id for each in result.placements if runs[each.run_id].priority == priority]
        if oldest.id in places:
            assert places[0] == oldest.id


@patient
@given(worlds(), KNOBS)
def test_no_reservation_is_delayed_by_what_was_placed_behind_it(world: World, knobs: Knobs) -> None:
    """Reserved again with all that was placed already running, each one begins no later."""
    result = planned(world, knobs=knobs)
    first = {each.run_id: each.at for each in result.reservations}
    state = applied(world, result)
    again = {each.run_id: each.at for each in planned(state, knobs=knobs).reservations}
    for run_id, at in first.items():
        if at is not None:
            then = again[run_id]
            assert then is not None
            assert then <= at


@patient
@given(worlds(), KNOBS, st.integers(1, 3))
def test_rounds_of_a_few_placements_equal_one_plan(world: World, knobs: Knobs, most: int) -> None:
    """As the planner does, as long as nothing leaves: a few placements, then another plan with those running."""
    world = World([replace(each, preemptible=False) for each in world.queue], [], world.machines)
    machines = world.machines
    knobs = replace(knobs, reservations=0)
    whole = planned(world, knobs=knobs)
    got: list[Placement] = []
    for _ in range(len(world.queue) + 1):
        part = planned(replace(world, machines=machines), knobs=knobs, most=most)
        got += part.placements
        world = applied(replace(world, machines=machines), part)
        machines = world.machines
        if part.is_complete:
            break
    assert tuple(got) == whole.placements


@patient
@given(worlds(), KNOBS, PROJECTS, st.integers(4, 6))
def test_the_first_few_of_each_class_are_enough(world: World, knobs: Knobs, projects: list[Project], most: int) -> None:
    """A plan of the heads of the classes equals the plan of all, as far as it goes."""
    whole = planned(world, knobs=knobs, projects=projects)
    queue = Queue(world.machines, knobs, world.queue)
    heads: dict[int, Run] = {}
    for members in queue.classes:
        runs = [entry[3] for entry in members.entries]
        for number, run in enumerate(runs[:most], 1):
            heads[run.id] = replace(run, more=number == most and len(runs) > most)
        oldest = members.oldest()
        heads.setdefault(oldest.id, oldest)
    part = planned(replace(world, queue=list(heads.values())), knobs=knobs, projects=projects)
    count = len(part.placements)
    assert part.placements == whole.placements[:count]
    assert set(part.preemptions) <= set(whole.preemptions)
    if part.is_complete:
        assert (part.placements, part.preemptions) == (whole.placements, whole.preemptions)
        assert part.reservations == whole.reservations


@patient
@given(worlds(), KNOBS, PROJECTS, st.randoms(use_true_random=False))
def test_a_queue_kept_by_adding_and_removing_equals_a_new_one(
    world: World, knobs: Knobs, projects: list[Project], random: Random
) -> None:
    queue = Queue(world.machines, knobs)
    for run in world.queue:
        queue.add(replace(run, attained_seconds=random.choice([0.0, 5.0, 9000.0])))
    for run in world.queue[:1]:
        queue.add(replace(run, id=1000))
    queue.remove(1000)
    for run in random.sample(world.queue, len(world.queue)):
        queue.add(run)
    kept = plan(
        queue, world.running, world.machines, now=NOW, learned=LEARNED, knobs=knobs, projects=projects, currency="EUR"
    )
    assert kept == planned(world, knobs=knobs, projects=projects)


@patient
@given(st.lists(some_run(0, [Requirements(0, 0, 1, None, {}, None, None, None)]), min_size=1, max_size=8), KNOBS)
def test_a_cluster_without_gpus_is_ordered_like_one_with_single_gpus(drawn: list[Run], knobs: Knobs) -> None:
    machine = Machine(1, "m", 8, 64, 1, None, {}, Decimal(1), 8, 64, 1, True, False, None, None)
    with_gpu = [replace(run, id=number, machines=1, checkpoint_machine=None) for number, run in enumerate(drawn)]
    whole = Requirements(8, 64, 0, None, {}, None, None, None)  # all of a machine, as one GPU of one is
    without = [replace(run, requirements=whole) for run in with_gpu]
    first, second = (
        Queue([some], knobs, runs) for some, runs in ((machine, with_gpu), (replace(machine, gpus=0), without))
    )
    places = [[queue.place_of(run.id, LEARNED, {}) for run in with_gpu] for queue in (first, second)]
    assert places[0] == places[1]
    assert sorted(places[0]) == list(range(1, len(with_gpu) + 1))
