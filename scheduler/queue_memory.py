"""The planner's cache of the queue between two rounds, so that a round judges only what has changed.

It holds classes of equal requirements, never simulations: the classes in the queue, the machines when the classes were
judged, and the recorded waiting reasons. In a settled memory each class was found to fit no machine of that time,
so neither an arrival in such a class nor a tick without changes needs a judgement.

The rows are authoritative: a planner whose memory may be stale begins with an empty one, and reads the whole queue
once. No I/O; the rows come from `db.queue`, the judgement from `policy.placement`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from db.queue import Bookmark
from policy.placement import Machine, Request, WaitingReason
from policy.quota import Quota
from transitions.budget import Room

# A round with work reads the whole queue this often, to drop the classes whose simulations were cancelled.
WHOLE_LOOK_EVERY = timedelta(minutes=1)
DECIMALS = 6  # of cpus and GiB, as in `policy.matching.TOLERANCE`


@dataclass(slots=True)
class WaitingClass:
    """One class of equal requirements, with one of its simulations as the example."""

    example: Request
    project_id: int
    reason: WaitingReason | None = None  # None: not explained yet
    detail: str = ""


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

    bookmark: Bookmark | None = None
    whole_look_at: datetime | None = None
    watched: frozenset[int] = frozenset()  # attended simulations in the queue that were watched
    machines: Sequence[Machine] | None = None  # as they stood when the classes were judged
    is_settled: bool = True  # all classes were judged by `machines`
    classes: dict[UUID, WaitingClass] = field(default_factory=dict)
    over_budget: dict[UUID, Room] = field(
        default_factory=dict
    )  # classes that only a budget keeps waiting, and its room
    over_quota: set[UUID] = field(default_factory=set)  # classes that only a quota keeps waiting
    _hopeless: set[UUID] = field(default_factory=set)  # no machine fits them, even an idle one
    _unexplained: dict[UUID, None] = field(default_factory=dict)  # by age: an ordered set

    def needs_whole_look(self, now: datetime) -> bool:
        return self.whole_look_at is None or not timedelta(0) <= now - self.whole_look_at < WHOLE_LOOK_EVERY

    def meet(self, queue_class: UUID, example: Request, project_id: int) -> None:
        self.classes[queue_class] = WaitingClass(example, project_id)

    def room_of(self, queue_class: UUID, rooms: Mapping[int | None, Room]) -> Room | None:
        """Return what budgets leave for a class; None if no budget concerns it."""
        return rooms.get(self.classes[queue_class].project_id, rooms.get(None))

    def of_changed_budgets(self, rooms: Mapping[int | None, Room]) -> list[UUID]:
        """List the classes over budget that may be payable now, or whose sentence is no longer true."""
        return [
            each
            for each, before in self.over_budget.items()
            if (now := self.room_of(each, rooms)) is None
            or now.per_hour > before.per_hour
            or (now.is_used_up, now.until) != (before.is_used_up, before.until)
        ]

    def note_over_budget(self, judged: Iterable[UUID], over: Mapping[UUID, Room]) -> None:
        """Record which of the judged classes only a budget keeps from a machine."""
        for each in judged:
            self.over_budget.pop(each, None)
        self.over_budget.update(over)

    def asks_of(self, queue_class: UUID) -> tuple[int, int]:
        """Return the project of a class, and the GPUs that each of its simulations needs."""
        known = self.classes[queue_class]
        return known.project_id, known.example.requirements.gpus

    def is_admitted(self, queue_class: UUID, quotas: Mapping[int, Quota]) -> bool:
        """Whether the quota of its project admits another one of a class now."""
        project_id, gpus = self.asks_of(queue_class)
        return project_id not in quotas or quotas[project_id].admits(gpus)

    def of_wider_quotas(self, quotas: Mapping[int, Quota]) -> list[UUID]:
        """List the classes over quota that are admitted now."""
        return [each for each in self.over_quota if self.is_admitted(each, quotas)]

    def note_over_quota(self, judged: Iterable[UUID], over: Iterable[UUID]) -> None:
        """Record which of the judged classes only a quota keeps from a machine."""
        self.over_quota.difference_update(judged)
        self.over_quota.update(over)

    def to_judge(self, machines: Sequence[Machine], new: Collection[UUID]) -> Collection[UUID]:
        """List the classes whose judgement the changes may affect."""
        if self.machines is None or _facts(self.machines) != _facts(machines):
            self._hopeless.clear()
            return list(self.classes)
        if self.is_settled and _standing(self.machines) == _standing(machines):
            return new
        return [each for each in self.classes if each not in self._hopeless]

    def note_unplaced(self, classes: Iterable[UUID]) -> None:
        """Mark classes that fit nowhere: this or one of the next rounds looks for their reasons."""
        self._unexplained.update(dict.fromkeys(classes))

    def note_stale(self) -> None:
        """Mark all classes that an idle machine fits: placements will change the reasons of those that wait."""
        self.note_unplaced(each for each in self.classes if each not in self._hopeless)

    def to_explain(self, most_first: int, most_again: int) -> list[UUID]:
        """List marked classes: at most `most_first` without a reason yet, and `most_again` with one."""
        first = (each for each in self._unexplained if self.classes[each].reason is None)
        again = (each for each in self._unexplained if self.classes[each].reason is not None)
        return [*islice(first, most_first), *islice(again, most_again)]

    def explain(self, told: Mapping[UUID, tuple[WaitingReason, str]]) -> list[Explained]:
        """Record these reasons; return those that have changed."""
        news = []
        for each, (reason, detail) in told.items():
            known = self.classes[each]
            self._unexplained.pop(each, None)
            if reason is WaitingReason.NO_MACHINE_FITS:
                self._hopeless.add(each)
            if (known.reason, known.detail) != (reason, detail):
                news.append(Explained(each, reason, detail, is_new=known.reason is not reason))
                known.reason, known.detail = reason, detail
        return news

    def forget(self, classes: Set[UUID]) -> None:
        for each in classes:
            self.classes.pop(each, None)
            self._unexplained.pop(each, None)
            self.over_budget.pop(each, None)
        self.over_quota -= classes
        self._hopeless -= classes

    @property
    def is_empty(self) -> bool:
        """Whether a look at an empty queue would change nothing here or in the rows."""
        return not self.classes

    @property
    def has_unexplained(self) -> bool:
        return bool(self._unexplained)


def _facts(machines: Sequence[Machine]) -> list[Machine]:
    """Properties of the machines that do not depend on what runs there."""
    return [replace(each, free_cpus=0.0, free_memory_gib=0.0, free_gpus=0, host_free_gpus=None) for each in machines]


def _standing(machines: Sequence[Machine]) -> list[Machine]:
    """Free amounts as well, rounded: sums of floats depend on their order."""
    return [
        replace(each, free_cpus=round(each.free_cpus, DECIMALS), free_memory_gib=round(each.free_memory_gib, DECIMALS))
        for each in machines
    ]
