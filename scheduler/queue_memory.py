"""The planner's memory of the queue between two rounds, so that a round reads and judges only what has changed.

It holds the queued simulations in `policy`'s order, the machines when they were last planned for, the reservations, and
the recorded waiting reason of each class of equal requirements. After a settled round nothing can be placed that waits,
so a tick without changes needs no plan, until the moment at which time alone changes one (`due_at`).

The rows are authoritative: a planner whose memory may be stale begins with an empty one, and reads the whole queue
once. What was cancelled or paused leaves at the next look (`leave`); what was missed in any other way leaves when it
comes to its turn and its row is locked, or at the next whole look. No I/O; the rows come from `db.queue`, the judgement
from `policy.schedule`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from db.newest_plan import Own, Reservation
from db.queue import Bookmark, Candidate
from policy.matching import Machine, Requirements
from policy.queue_order import Queue
from policy.quota import Quota
from policy.waiting import WaitingReason
from policy.workload import Knobs, Run
from transitions.budget import Room

# A round with work reads the ids of the queue this often, to drop the simulations that were cancelled.
WHOLE_LOOK_EVERY = timedelta(minutes=1)
DECIMALS = 6  # of cpus and GiB, as in `policy.matching.TOLERANCE`
# The order of the queue is written with each plan; a longer one at most so often for each of so many simulations.
ORDERED_EVERY = timedelta(seconds=1)
ORDERED_AT_ONCE = 10_000


@dataclass(slots=True)
class WaitingClass:
    """Simulations of a project with equal requirements, in the queue; what they wait for, as it was written down."""

    key: UUID
    project_id: int
    requirements: Requirements
    machines: int = 1  # members of each
    members: dict[int, None] = field(default_factory=dict)  # by arrival: an ordered set
    reason: WaitingReason | None = None  # None: not explained yet
    detail: str = ""

    @property
    def example(self) -> int:
        return next(iter(self.members))


@dataclass(frozen=True, slots=True)
class Waiter:
    """A queued simulation: the fence of its next assignment, its class, and what the plan knows of it."""

    attempt: int
    run: Run
    of: WaitingClass


@dataclass(frozen=True, slots=True)
class Explained:
    """A class whose waiting reason or sentence has changed."""

    queue_class: UUID
    reason: WaitingReason
    detail: str
    is_new: bool  # the reason changed, not only the sentence


@dataclass(slots=True)
class QueueMemory:
    """State that one round leaves for the next."""

    knobs: Knobs = field(default_factory=Knobs)
    bookmark: Bookmark | None = None
    whole_look_at: datetime | None = None
    watched: frozenset[int] = frozenset()  # attended simulations in the queue that were watched
    machines: Sequence[Machine] | None = None  # as they stood after the newest plan
    is_settled: bool = True  # all that could be placed was
    due_at: datetime | None = None  # when time alone changes the plan
    classes: dict[UUID, WaitingClass] = field(default_factory=dict)
    waiters: dict[int, Waiter] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)  # those of them that have run before
    over_budget: dict[UUID, Room] = field(default_factory=dict)  # classes that no budget pays for, and the room left
    quotas: Mapping[int, Quota] = field(default_factory=dict)  # and what is used of them, after the newest plan
    reservations: tuple[Reservation, ...] = ()  # as written down
    own: Own = field(default_factory=dict)  # likewise: of single simulations
    is_written: bool = True  # a plan may be written down that is not empty
    ordered_at: datetime | None = None
    is_order_stale: bool = True
    _queue: Queue | None = None  # all waiters whose class is not over budget
    _hopeless: set[UUID] = field(default_factory=set)  # no machine fits them, even an idle one
    _unexplained: dict[UUID, None] = field(default_factory=dict)  # by age: an ordered set
    _has_news: bool = False

    # --- the queue ---------------------------------------------------------------------------------------------

    def needs_whole_look(self, now: datetime) -> bool:
        return self.whole_look_at is None or not timedelta(0) <= now - self.whole_look_at < WHOLE_LOOK_EVERY

    def take_in(self, candidates: Iterable[Candidate]) -> None:
        """Add simulations that arrived, or that changed in the queue; what is known already changes nothing."""
        for each in candidates:
            known = self.waiters.get(each.id)
            of = self.classes.get(each.queue_class)
            if of is None:
                required = _requirements(each)
                of = self.classes[each.queue_class] = WaitingClass(
                    each.queue_class, each.project_id, required, each.machines
                )
                self._unexplained[each.queue_class] = None
            run = _run(each, of.requirements)
            if known is not None and (known.attempt, known.run) == (each.attempt, run):
                continue
            if known is not None:
                self.drop([each.id])
                self.classes[each.queue_class] = of
            self.waiters[each.id] = Waiter(each.attempt, run, of)
            of.members[each.id] = None
            if run.attained_seconds > 0:
                self.begun.add(each.id)
            if self._queue is not None and each.queue_class not in self.over_budget:
                self._queue.add(run)
            self._has_news = self.is_order_stale = True

    def drop(self, ids: Iterable[int]) -> frozenset[UUID]:
        """Remove simulations that are not queued any more; return the classes of which none is left."""
        emptied = set()
        for each in ids:
            waiter = self.waiters.pop(each, None)
            if waiter is None:
                continue
            self.begun.discard(each)
            self._has_news = self.is_order_stale = True
            if self._queue is not None and each in self._queue:
                self._queue.remove(each)
            waiter.of.members.pop(each)
            if not waiter.of.members:
                emptied.add(waiter.of.key)
                self._forget(waiter.of.key)
        return frozenset(emptied)

    def leave(self, ids: Iterable[int]) -> frozenset[UUID]:
        """Remove simulations that were cancelled or paused: what waited behind them may wait for something else now."""
        known = [each for each in ids if each in self.waiters]
        emptied = self.drop(known)
        if known:
            self.note_stale()
        return emptied

    def drop_all_but(self, ids: Set[int]) -> frozenset[UUID]:
        """Likewise, all that are not among these."""
        return self.drop([each for each in self.waiters if each not in ids])

    def empty(self, bookmark: Bookmark) -> None:
        """Note that nothing is queued, and that no plan is written down."""
        self.bookmark, self.watched, self.machines, self._queue = bookmark, frozenset(), None, None
        self.reservations, self.own, self.is_written, self.is_order_stale = (), {}, False, False

    def queue(self, machines: Sequence[Machine]) -> Queue:
        """Return the queue in the order of service: built anew where the machines have other totals or prices.

        Where they stand otherwise than the newest plan left them, all that waits for one is to be explained again.
        """
        if self._queue is None or self.machines is None or facts(self.machines) != facts(machines):
            self._hopeless.clear()
            self._unexplained.update(dict.fromkeys(self.classes))
            runs = [each.run for each in self.waiters.values() if each.of.key not in self.over_budget]
            self._queue = Queue(machines, self.knobs, runs)
        elif _standing(self.machines) != _standing(machines):
            self.note_stale()
        return self._queue

    # --- budgets -----------------------------------------------------------------------------------------------

    def room_of(self, queue_class: UUID, rooms: Mapping[int | None, Room]) -> Room | None:
        """Return what budgets leave for a class; None if no budget concerns it."""
        return rooms.get(self.classes[queue_class].project_id, rooms.get(None))

    def payable_again(self, rooms: Mapping[int | None, Room]) -> list[UUID]:
        """List the classes over budget that may be payable now, or whose sentence is no longer true."""
        return [
            each
            for each, before in self.over_budget.items()
            if (now := self.room_of(each, rooms)) is None
            or now.per_hour > before.per_hour
            or (now.is_used_up, now.until) != (before.is_used_up, before.until)
        ]

    def let_in(self, classes: Iterable[UUID]) -> None:
        """Put classes back into the queue that were over budget."""
        for each in classes:
            if self.over_budget.pop(each, None) is not None:
                self._has_news = self.is_order_stale = True
                self._unexplained[each] = None
                for member in self.classes[each].members:
                    if self._queue is not None:
                        self._queue.add(self.waiters[member].run)

    def set_aside(self, over: Mapping[UUID, Room]) -> None:
        """Take classes out of the queue that no budget pays for, until `let_in`."""
        for each, room in over.items():
            if each in self.classes and each not in self.over_budget:
                self.is_order_stale = True
                for member in self.classes[each].members:
                    if self._queue is not None and member in self._queue:
                        self._queue.remove(member)
            if each in self.classes:
                self.over_budget[each] = room
                self._unexplained[each] = None

    def note_quotas(self, quotas: Mapping[int, Quota]) -> None:
        """Note what projects use of their quotas: another use or quota is a reason to plan, and to explain again."""
        if quotas != self.quotas:
            self._has_news = True
            self._unexplained.update(
                (key, None)
                for key, each in self.classes.items()
                if each.project_id in quotas or each.project_id in self.quotas
            )
            self.quotas = quotas

    def note_asked_for(self) -> None:
        """Note that a plan was asked for: weights or running simulations have changed."""
        self._has_news = self.is_order_stale = True
        self.note_stale()

    # --- when to plan ------------------------------------------------------------------------------------------

    def is_due(self, machines: Sequence[Machine], now: datetime) -> bool:
        """Whether a plan may place, preempt or reserve anything that the newest one did not."""
        if self.machines is None or not self.is_settled or self._has_news:
            return True
        if self.due_at is not None and self.due_at <= now:
            return True
        return _standing(self.machines) != _standing(machines)

    def planned(self, machines: Sequence[Machine], *, is_settled: bool, due_at: datetime | None) -> None:
        """Note a plan that was carried out. machines: as it left them."""
        self.machines, self.is_settled, self.due_at = machines, is_settled, due_at
        self._has_news = False

    def is_order_due(self, now: datetime) -> bool:
        """Whether the order of the queue is to be written down."""
        if not self.is_order_stale:
            return False
        pause = ORDERED_EVERY * (len(self.waiters) // ORDERED_AT_ONCE)
        return self.ordered_at is None or not timedelta(0) <= now - self.ordered_at < pause

    # --- reasons -----------------------------------------------------------------------------------------------

    def note_stale(self) -> None:
        """Mark all classes that an idle machine fits: what was placed may change why the others wait."""
        self._unexplained.update((each, None) for each in self.classes if each not in self._hopeless)

    def to_explain(self, most_first: int, most_again: int) -> list[UUID]:
        """List marked classes: at most `most_first` without a reason yet, and `most_again` with one."""
        first = (each for each in self._unexplained if self.classes[each].reason is None)
        again = (each for each in self._unexplained if self.classes[each].reason is not None)
        return [*islice(first, most_first), *islice(again, most_again)]

    def note_asked(self, classes: Iterable[UUID]) -> None:
        """Note that a plan was asked why these wait: those that it has no answer for, it places."""
        for each in classes:
            self._unexplained.pop(each, None)

    def explain(self, told: Mapping[UUID, tuple[WaitingReason, str]]) -> list[Explained]:
        """Record these reasons; return those that have changed."""
        news = []
        for each, (reason, detail) in told.items():
            known = self.classes.get(each)
            if known is None:
                continue
            self._unexplained.pop(each, None)
            if reason in (WaitingReason.NO_MACHINE_FITS, WaitingReason.MACHINE_STARTING):
                self._hopeless.add(each)
            if (known.reason, known.detail) != (reason, detail):
                news.append(Explained(each, reason, detail, is_new=known.reason is not reason))
                known.reason, known.detail = reason, detail
        return news

    @property
    def is_empty(self) -> bool:
        """Whether nothing is remembered as queued, and no plan is known to be written down."""
        return not self.waiters and not self.is_written

    @property
    def has_unexplained(self) -> bool:
        return bool(self._unexplained)

    def _forget(self, queue_class: UUID) -> None:
        self.classes.pop(queue_class, None)
        self._unexplained.pop(queue_class, None)
        self.over_budget.pop(queue_class, None)
        self._hopeless.discard(queue_class)


def lineage_of(project_id: int, name: str, learning_class: int) -> tuple[tuple[Hashable, ...], ...]:
    """Return the classes that a run's length is learned from, the most general first."""
    return (project_id,), (project_id, name), (project_id, name, learning_class)


def facts(machines: Sequence[Machine]) -> list[Machine]:
    """Properties of the machines that do not depend on what runs there."""
    return [replace(each, free_cpus=0.0, free_memory_gib=0.0, free_gpus=0, host_free_gpus=None) for each in machines]


def _standing(machines: Sequence[Machine]) -> list[Machine]:
    """Free amounts as well, rounded: sums of floats depend on their order."""
    return [
        replace(each, free_cpus=round(each.free_cpus, DECIMALS), free_memory_gib=round(each.free_memory_gib, DECIMALS))
        for each in machines
    ]


def _run(each: Candidate, required: Requirements) -> Run:
    attained = each.attained.total_seconds()
    return Run(
        id=each.id,
        project=each.project_id,
        priority=each.priority,
        submitted_at=each.created_at,
        requirements=required,
        machines=each.machines,
        preemptible=each.preemptible,
        max_steps=each.max_steps,
        max_runtime_seconds=each.max_runtime.total_seconds() if each.max_runtime is not None else None,
        attained_seconds=attained,
        steps_done=float(each.steps_done or 0),
        steps_per_second=each.step_rate,
        lineage=lineage_of(each.project_id, each.name, each.learning_class),
        checkpoint_machine=each.checkpoint_machine,
        waiting_since=each.waiting_since,
        group=each.queue_class,
    )


def _requirements(each: Candidate) -> Requirements:
    return Requirements(
        cpus=each.cpus, memory_gib=each.memory_gib, gpus=each.gpus, gpu_model=each.gpu_model, labels=each.labels,
        machine_id=each.machine_id, machine_name=each.machine_name, max_price_per_hour=each.max_price_per_hour,
    )  # fmt: skip
