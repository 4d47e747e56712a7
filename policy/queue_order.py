"""Order of service of the queue, kept so that a plan visits only its heads.

    order = (-priority, oldest first, key, submitted_at, id)        key = expected work x share of the project

Queued runs that are alike (equal requirements, project, priority, source of the key) form a class, and within a class
the order never changes: what changes with time, the shares of projects and what was learned, multiplies the keys of
all its runs. So a `Queue` lives as long as the machines' totals and prices stay the same, and one run added or removed
costs a binary search.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from policy.expected import Source, factor_of, learned_bin, rank_of, size_of, source_of
from policy.learning import BINS, Learned
from policy.matching import Machine, kinds_of, sameness
from policy.workload import DEFAULTS, Discipline, Knobs, Run


class Rule(StrEnum):
    """Why one run is before another."""

    PRIORITY = "PRIORITY"
    OLDEST_FIRST = "OLDEST_FIRST"
    FAIR_SHARE = "FAIR_SHARE"
    LESS_WORK = "LESS_WORK"
    EARLIER = "EARLIER"

    @property
    def letter(self) -> str:
        """Short form, for a long list of them."""
        return self.value[0]


class Precedence(NamedTuple):
    """Place in the order of service, the first lowest."""

    priority: int  # negated
    after_oldest: bool  # False: the oldest beyond `max_wait_seconds`
    key: float
    submitted_at: datetime
    id: int


Entry = tuple[float, datetime, int, Run]  # the part of the key of its own, and what decides between equal ones


class Class(NamedTuple):
    """What the runs of a class have in common."""

    same: Hashable  # requirements
    machines: int
    project: int
    priority: int
    preemptible: bool
    source: Source
    is_limited: bool
    lineage: tuple[Hashable, ...]
    bin: int  # of its service, where the key is learned; else -1
    home: int | None  # the machine on whose host their progress counts; None: everywhere, or there is none


class Sizes:
    """Sizes of runs, by requirements; they depend on the machines' totals and prices."""

    def __init__(self, machines: Iterable[Machine]) -> None:
        self._machines = list(machines)
        self._kinds = kinds_of(self._machines)
        self._known: dict[Hashable, float] = {}

    def of(self, run: Run, same: Hashable) -> float:
        """Return the size of all members of a run. `same`: the key of its requirements."""
        size = self._known.get(same)
        if size is None:
            required = run.requirements
            by_name = required.machine_id is not None or required.machine_name is not None
            size = self._known[same] = size_of(required, 1, self._machines if by_name else self._kinds)
        return size * run.machines


class Members:
    """Queued runs of one class, in their order. Sorted when more than the first one is asked for: many stay blocked."""

    __slots__ = ("_entries", "_is_sorted", "_oldest", "of", "size")

    def __init__(self, of: Class, size: float) -> None:
        self.of = of
        self.size = size
        self._entries: list[Entry] = []
        self._is_sorted = True
        self._oldest: Entry | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Entry]:
        if not self._is_sorted:
            self._entries.sort()
            self._is_sorted = True
        return self._entries

    def at(self, index: int) -> Entry:
        """Return the run at a place, from 0."""
        return min(self._entries) if index == 0 and not self._is_sorted else self.entries[index]

    def append(self, entry: Entry) -> None:
        """Add one of many."""
        self._entries.append(entry)
        self._is_sorted = False

    def add(self, entry: Entry) -> None:
        insort(self.entries, entry)
        if self._oldest is not None and entry[1:3] < self._oldest[1:3]:
            self._oldest = entry

    def remove(self, entry: Entry) -> None:
        entries = self.entries
        del entries[bisect_left(entries, entry)]
        if self._oldest is entry:
            self._oldest = None

    def oldest(self) -> Run:
        """Return the run submitted first."""
        if self._oldest is None:
            self._oldest = min(self._entries, key=itemgetter(1, 2))
        return self._oldest[3]


class Queue:
    """Queued runs, by class. `machines` give the size of runs without GPUs."""

    def __init__(self, machines: Iterable[Machine], knobs: Knobs = DEFAULTS, runs: Iterable[Run] = ()) -> None:
        self.knobs = knobs
        self.sizes = Sizes(machines)
        self._by_class: dict[Class, Members] = {}
        self._entries: dict[int, Entry] = {}
        self._members: dict[int, Members] = {}
        self._fill(runs)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._entries

    @property
    def classes(self) -> Iterable[Members]:
        return self._by_class.values()

    def add(self, run: Run) -> None:
        """Add a run; one with the same id is replaced."""
        if run.id in self._entries:
            self.remove(run.id)
        members = self._members_for(run)
        members.add(self._enter(run, members))

    def remove(self, run_id: int) -> None:
        """Remove a run; no error if it is not there."""
        entry, members = self._entries.pop(run_id, None), self._members.pop(run_id, None)
        if entry is None or members is None:
            return
        members.remove(entry)
        if not len(members):
            del self._by_class[members.of]

    def place_of(self, run_id: int, learned: Learned, shares: Mapping[int, float]) -> int:
        """Return the place of a run in the order of service among the queued ones, from 1. Oldest-first is left out."""
        own_class = self._members[run_id]
        own = order_of(self._entries[run_id], own_class.of, self._times(own_class, learned, shares))
        ahead = 0
        for each in self._by_class.values():
            key = partial(order_of, of=each.of, times=self._times(each, learned, shares))
            ahead += bisect_left(each.entries, own, key=key)
        return ahead + 1

    def in_order(self, learned: Learned, shares: Mapping[int, float]) -> tuple[list[int], str]:
        """Return all queued runs in the order of service, and for each the letter of the rule that puts it there.

        The rule is why it is behind the one before it, a space for the first. Oldest-first is left out.
        """
        found: list[tuple[Precedence, float]] = []
        for each in self._by_class.values():
            times, share = self._times(each, learned, shares), shares.get(each.of.project, 1.0)
            found += [(order_of(entry, each.of, times), share) for entry in each.entries]
        found.sort()
        rules = (
            rule_between(ahead, behind, share, other).letter for (ahead, share), (behind, other) in pairwise(found)
        )
        return [order.id for order, _ in found], "".join([" ", *rules][: len(found)])

    def find(self, run_id: int) -> tuple[Entry, Members] | None:
        """Return the entry of a run, and those of its class."""
        entry = self._entries.get(run_id)
        return None if entry is None else (entry, self._members[run_id])

    def class_and_size(self, run: Run) -> tuple[Class, float]:
        members = self._members.get(run.id)
        return class_of(run, self.sizes, self.knobs) if members is None else (members.of, members.size)

    def _times(self, members: Members, learned: Learned, shares: Mapping[int, float]) -> float:
        return factor_of_class(members.of, members.size, learned, shares, self.knobs)

    def _fill(self, runs: Iterable[Run]) -> None:
        # Of a long queue most have not begun: their class and their part of the key are looked up by a few fields.
        alike: dict[Hashable, tuple[Members, float]] = {}
        for run in runs:
            face = _face_of_new(run, self.knobs)
            known = alike.get(face) if face is not None else None
            if known is None:
                members = self._members_for(run)
                known = members, rank_of(run, members.of.source, self.knobs.discipline)
                if face is not None:
                    alike[face] = known
            members, rank = known
            entry = (rank, run.submitted_at, run.id, run)
            members.append(entry)
            self._entries[run.id] = entry
            self._members[run.id] = members

    def _members_for(self, run: Run) -> Members:
        of, size = class_of(run, self.sizes, self.knobs)
        members = self._by_class.get(of)
        if members is None:
            members = self._by_class[of] = Members(of, size)
        return members

    def _enter(self, run: Run, members: Members) -> Entry:
        entry = (rank_of(run, members.of.source, self.knobs.discipline), run.submitted_at, run.id, run)
        self._entries[run.id] = entry
        self._members[run.id] = members
        return entry


def _face_of_new(run: Run, knobs: Knobs) -> Hashable | None:
    """Return what the order of a run depends on that has not begun, beside its age; None if it has, or has no group."""
    if run.group is None or run.attained_seconds > 0 or knobs.progress_after_seconds <= 0:
        return None
    return run.group, run.machines, run.project, run.priority, run.preemptible, run.max_runtime_seconds, run.lineage


def class_of(run: Run, sizes: Sizes, knobs: Knobs = DEFAULTS) -> tuple[Class, float]:
    """Return the class of a run and its size."""
    same = sameness(run.requirements) if run.group is None else run.group
    size = sizes.of(run, same)
    source = source_of(run, knobs)
    is_learned = source is Source.LEARNED and knobs.discipline is not Discipline.ARRIVAL
    return (
        Class(
            same, run.machines, run.project, run.priority, run.preemptible, source,
            run.max_runtime_seconds is not None, run.lineage, learned_bin(run, size) if is_learned else -1,
            run.checkpoint_machine if run.attained_seconds > 0 else None,
        ),
        size,
    )  # fmt: skip


def factor_of_class(of: Class, size: float, learned: Learned, shares: Mapping[int, float], knobs: Knobs) -> float:
    if knobs.discipline is Discipline.ARRIVAL:
        return 1.0
    value = learned.values(of.lineage)[of.bin] if 0 <= of.bin < BINS else 0.0
    return factor_of(of.source, size, value, shares.get(of.project, 1.0), knobs.discipline)


def order_of(entry: Entry, of: Class, times: float) -> Precedence:
    """Return the place in the order of a queued run. `times`: the factor of its class."""
    return Precedence(-of.priority, True, entry[0] * times, entry[1], entry[2])


def place_in_order(
    run: Run, of: Class, times: float, knobs: Knobs = DEFAULTS, *, is_running: bool = False, is_oldest: bool = False
) -> Precedence:
    """Return the place of a run. A running one's key is divided: only a clearly smaller one preempts it."""
    key = rank_of(run, of.source, knobs.discipline) * times
    if is_running:
        key /= knobs.hysteresis_progress if of.source is Source.PROGRESS else knobs.hysteresis
    return Precedence(-run.priority, not is_oldest, key, run.submitted_at, run.id)


def rule_between(ahead: Precedence, behind: Precedence, share_ahead: float, share_behind: float) -> Rule:
    """Return why the first of two runs is before the second."""
    if ahead.priority != behind.priority:
        return Rule.PRIORITY
    if ahead.after_oldest != behind.after_oldest:
        return Rule.OLDEST_FIRST
    if ahead.key == behind.key:
        return Rule.EARLIER
    return Rule.LESS_WORK if ahead.key / share_ahead < behind.key / share_behind else Rule.FAIR_SHARE
