"""One plan of the whole installation: who starts where, who is preempted for whom, what is reserved, why others wait.

The queue is visited in the order of service (`policy.queue_order`). Each run takes the best machine with room; where
there is none, running runs behind it in the order are preempted; where that does not help either, it waits, and the
first few that wait get a reservation. Members of a run that needs several machines are placed together or not at all.

A plan is a function of its arguments, whose order changes nothing. Planned again on its own result it changes nothing.
A class of equal runs stops at its first run that can't be placed, because room only shrinks for those behind it; so the
first few runs of each class are enough (`Run.more`).

Not responsible for: carrying it out. A placement whose `after` is not empty waits until those runs have ended; the
next plan repeats it, and gives its room to no other run. No error case: what can't be placed waits, with a reason.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from policy.expected import Source, expected, learned_bin, seconds_left
from policy.fairness import shares
from policy.learning import BINS, Learned, end_of_bin
from policy.matching import Machine
from policy.plan import Member, Placement, Plan, Preemption, Waiting
from policy.preemption import Victim, Victims, may_be_preempted, victim_of
from policy.queue_order import Class, Members, Precedence, Queue, class_of, factor_of_class, order_of, place_in_order
from policy.reservation import Held, Reservation, Timeline
from policy.room import Line, Rank, Room, Speeds, amounts_of
from policy.waiting import WaitingReason
from policy.why import Blocked, Placed, explained, preemption_of
from policy.workload import DEFAULTS, Discipline, Knobs, Project, Run

NOTHING_LEARNED = Learned()


def plan(
    queue: Queue | Iterable[Run],
    running: Iterable[Run],
    machines: Sequence[Machine],
    *,
    now: datetime,
    projects: Iterable[Project] = (),
    learned: Learned = NOTHING_LEARNED,
    speeds: Speeds | None = None,
    knobs: Knobs = DEFAULTS,
    currency: str = "",
    most: int | None = None,
    explain: bool = True,
) -> Plan:
    """Plan once.

    The plan ends early after `most` placements that start now, or after the placement of a run with `more`, because the
    next run of its class is unknown. Without `explain` no waiting reasons are worked out; `currency` is for them.
    """
    if not isinstance(queue, Queue):
        queue = Queue(machines, knobs, queue)
    by_id = {each.id: each for each in projects}
    planner = _Planner(queue, list(running), machines, now, by_id, learned, speeds or {}, knobs)
    planner.walk(most)
    return planner.result(currency if explain else None)


@dataclass(slots=True)
class _Cursor:
    """The next run of a class; without `members` one run alone."""

    members: Members | None
    times: float  # what the keys of its class are multiplied by
    run: Run | None = None
    index: int = 0
    is_blocked: bool = False


class _Planner:
    """State of one plan."""

    def __init__(
        self,
        queue: Queue,
        running: Sequence[Run],
        machines: Sequence[Machine],
        now: datetime,
        projects: Mapping[int, Project],
        learned: Learned,
        speeds: Speeds,
        knobs: Knobs,
    ) -> None:
        self.now = now
        self.knobs = knobs
        self.room = Room(machines, speeds)
        self.running = sorted(running, key=lambda run: run.id)
        self.learned = learned
        self.projects = projects
        self.shares = shares(projects.values(), now, knobs.half_life_seconds) if knobs.fair_share else {}
        self.placed: list[Placed] = []
        self.preempted: list[tuple[Victim, Placed]] = []
        self.blocked: list[Blocked] = []
        self.is_complete = True
        self._queue = queue
        self._lines: dict[Hashable, Line] = {}
        self._heap: list[tuple[Precedence, _Cursor]] = []
        self._timeline: Timeline | None = None
        self._leaving_on: dict[int, set[int]] = {}
        self._with_oldest: Set[int] = set()  # priorities with a run beyond `max_wait_seconds`
        self._gpus: dict[int, int] = {}  # held by each project with a quota, without those that leave
        self._leaving_gpus: dict[int, dict[int, int]] = {}  # and by those, by run
        self.begun_with = {shape: tuple(numbers) for shape, numbers in self.room.with_shape.items()}
        for run in self.running:
            self._count_gpus(run)
            if run.leaving:
                self._leave(run, self._numbers(run))
        self._oldest = self._find_oldest()
        self._victims = Victims(self._may_be_preempted(), self.room)

    # --- the walk ------------------------------------------------------------------------------------------------

    def walk(self, most: int | None) -> None:
        """Visit the queue in the order of service."""
        self._begin()
        starts = 0
        while self._heap:
            order, cursor = heapq.heappop(self._heap)
            run = cursor.run
            assert run is not None, "set when it was entered"
            if cursor.is_blocked:
                if self._reserve(run, self._line(run)) is not None:
                    self._push_next(cursor)
                continue
            outcome = self._serve(run, order)
            is_kept = isinstance(outcome, Blocked) and outcome.home is not None
            if isinstance(outcome, Placed):
                self.placed.append(outcome)
                starts += not outcome.after
                if run.more or (starts == most and not outcome.after):
                    self.is_complete = False
                    return
                self._push_next(cursor)
                continue
            if run.id not in self._victims.gone:
                self.blocked.append(outcome)
            if is_kept and run.more:
                self.is_complete = False
                return
            cursor.is_blocked = not is_kept  # the next of its class may have less work to lose
            if is_kept or outcome.held is not None:
                self._push_next(cursor)

    def _begin(self) -> None:
        for members in self._queue.classes:
            self._push(_Cursor(members, self._times(members.of, members.size)))
        for run_id in self._oldest:
            found = self._queue.find(run_id)
            if found is not None:
                entry, members = found
                times = self._times(members.of, members.size)
                order = order_of(entry, members.of, times)._replace(after_oldest=False)
                heapq.heappush(self._heap, (order, _Cursor(None, times, entry[3])))

    def _push_next(self, cursor: _Cursor) -> None:
        if cursor.members is not None:
            cursor.index += 1
            self._push(cursor)

    def _push(self, cursor: _Cursor) -> None:
        members = cursor.members
        assert members is not None
        while cursor.index < len(members):
            entry = members.at(cursor.index)
            if entry[2] not in self._oldest:
                cursor.run = entry[3]
                heapq.heappush(self._heap, (order_of(entry, members.of, cursor.times), cursor))
                return
            cursor.index += 1  # it has a cursor of its own

    def _serve(self, run: Run, order: Precedence) -> Placed | Blocked:
        line = self._line(run)
        if line.able_count < run.machines:
            return Blocked(run, order, line, WaitingReason.NO_MACHINE_FITS)
        if not self._within_quota(run):
            return Blocked(run, order, line, WaitingReason.QUOTA)
        home = self._kept_to(run, line)
        if home:
            line = self._line(run, home)
        is_allowed = self._backfill_check(run, line)
        found = None if line.is_full else self._find(run, order, line, is_allowed)
        if found is not None:
            return self._commit(run, order, line, *found)
        by = self._reserved_for(run, order, line) if is_allowed is not None and not line.is_full else None
        reason = WaitingReason.MACHINES_BUSY if by is None else WaitingReason.RESERVED
        line.is_full |= by is None
        return Blocked(run, order, line, reason, held=self._reserve(run, line), by=by, home=home[0] if home else None)

    def _kept_to(self, run: Run, line: Line) -> tuple[int, ...]:
        """Return the machines that a run waits for although others may have room: those of its checkpoint's host.

        Elsewhere it would do its work once more. How long it would have to wait is not known, so it waits for at most
        as long as that work took: it never loses more than twice the better of the two (as in renting skis).
        """
        if run.machines > 1 or run.waiting_since is None or self._may_wait_at_home(run) <= 0:
            return ()
        able = [
            each
            for each in self.room.beside(run.checkpoint_machine)
            if line.may_use(each) and line.terms[self.room.kind_of[each]] is not None
        ]
        has_room = any(line.rank(self.room.shape(each)) is not None for each in able)
        return () if has_room else tuple(able)

    def _may_wait_at_home(self, run: Run) -> float:
        """Return for how many seconds a run still waits for the host of its checkpoint."""
        if run.checkpoint_machine is None or run.waiting_since is None:
            return 0.0
        return run.attained_seconds - (self.now - run.waiting_since).total_seconds()

    def _find(
        self, run: Run, order: Precedence, line: Line, is_allowed: Callable[[int], bool] | None
    ) -> tuple[list[int], list[int], list[Victim]] | None:
        """Find room for all members, or none: return their machines, those to wait for, and whom to preempt.

        Takes the room of all members but the last: `_commit` does that, or `_undo` gives it back.
        """
        taken: list[int] = []
        waiting_on: list[int] = []
        gone: list[Victim] = []
        while len(taken) < run.machines:
            choice = self._choose(run, line, taken, is_allowed)
            if choice is not None:
                rank, number = choice
                waits = rank.waits
            else:
                behind = self._victims.any_behind(order)
                hit = self._victims.find(line, self.room, order, taken, is_allowed) if behind else None
                if hit is None:
                    self._undo(line, taken, gone)
                    return None
                number, waits = hit[0], True
                for victim in hit[1]:
                    self._victims.gone.add(victim.run.id)
                    self._leave(victim.run, victim.numbers)
                    gone.append(victim)
            taken.append(number)
            if waits:
                waiting_on.append(number)
            if len(taken) < run.machines:
                self.room.take(number, line.amounts)
        return taken, waiting_on, gone

    def _choose(
        self, run: Run, line: Line, taken: Sequence[int], is_allowed: Callable[[int], bool] | None
    ) -> tuple[Rank, int] | None:
        """Choose a machine with room. Elsewhere than at its checkpoint, a run costs the work it has done once more."""
        if not self.room.could_have(line.needs):
            return None
        best = line.choose(taken, is_allowed)
        if best is None or run.checkpoint_machine is None or run.attained_seconds <= 0:
            return best
        home = self.room.beside(run.checkpoint_machine)
        if best[1] in home or not set(home).isdisjoint(taken):
            return best
        at_home = (
            (rank, each)
            for each in home
            if line.may_use(each)
            and (rank := line.rank(self.room.shape(each))) is not None
            and (is_allowed is None or is_allowed(each))
        )
        there = min(at_home, default=None)
        if there is None:
            return best
        left = max(seconds_left(run, self._size(run), self.learned, self.knobs), 1.0)
        again = (left + run.attained_seconds) / left
        elsewhere = best[0]._replace(cost=best[0].cost * again, time=best[0].time * again)
        waits = there[0].waits and self._may_wait_at_home(run) <= 0
        return there if there[0]._replace(waits=waits) <= elsewhere else best

    def _undo(self, line: Line, taken: Sequence[int], gone: Sequence[Victim]) -> None:
        for number in taken:
            self.room.give(number, line.amounts)
        for victim in gone:
            self._victims.gone.discard(victim.run.id)
            self._count_gpus(victim.run)
            self._leaving_gpus.get(victim.run.project, {}).pop(victim.run.id, None)
            for number in victim.numbers:
                self.room.take(number, victim.amounts)
                self._leaving_on[number].discard(victim.run.id)

    def _commit(
        self,
        run: Run,
        order: Precedence,
        line: Line,
        numbers: Sequence[int],
        waits_on: Sequence[int],
        gone: list[Victim],
    ) -> Placed:
        after = set[int]()
        for number in waits_on:
            for mate in self.room.mates(number):
                after |= self._leaving_on.get(mate, set())
        if run.id in self._victims.gone:
            after.add(run.id)
        after |= self._count_against_quota(run)
        for number in () if after else numbers[:-1]:
            self.room.take_now(number, line.amounts)
        self.room.take(numbers[-1], line.amounts, at_once=not after)
        if self._timeline is not None and not run.preemptible:
            self._timeline.add(run, line.amounts, numbers, is_new=True)
        placed = Placed(run, order, line, tuple(numbers), tuple(sorted(after)))
        for victim in gone:
            self.preempted.append((victim, placed))
            self._queue_again(victim)
        return placed

    def _queue_again(self, victim: Victim) -> None:
        """Give a preempted run its place in the order, as one that is queued."""
        run = victim.run
        of, size = class_of(run, self._queue.sizes, self.knobs)
        times = self._times(of, size)
        order = place_in_order(run, of, times, self.knobs, is_oldest=run.id in self._oldest)
        again = replace(run, machine_ids=(), started_at=None, waiting_since=self.now)
        heapq.heappush(self._heap, (order, _Cursor(None, times, again)))

    # --- reservations --------------------------------------------------------------------------------------------

    def _reserve(self, run: Run, line: Line) -> Held | None:
        if self.knobs.reservations <= 0:
            return None
        if self._timeline is None:
            self._timeline = self._new_timeline()
        if len(self._timeline.held) >= self.knobs.reservations:
            return None
        return self._timeline.reserve(run, line, at_any_rate=run.id in self._oldest)

    def _new_timeline(self) -> Timeline:
        free = self.room.free()
        for run in self.running:
            if run.preemptible or run.leaving:
                for number in self._numbers(run):
                    free.add(number, amounts_of(run.requirements))
        timeline = Timeline(self.room, free)
        for run in self.running:
            if not (run.preemptible or run.leaving):
                timeline.add(run, amounts_of(run.requirements), self._numbers(run), is_new=False)
        for placed in self.placed:
            if not placed.run.preemptible:
                timeline.add(placed.run, placed.line.amounts, placed.numbers, is_new=True)
        return timeline

    def _backfill_check(self, run: Run, line: Line) -> Callable[[int], bool] | None:
        timeline = self._timeline
        if timeline is None or not timeline.held or run.preemptible:
            return None
        return lambda number: timeline.may_start(run, line, number)

    def _reserved_for(self, run: Run, order: Precedence, line: Line) -> Held | None:
        """Return the reservation that alone keeps a run from starting."""
        found = self._find(run, order, line, None)
        if found is None or self._timeline is None:
            return None
        taken, _, gone = found
        self._undo(line, taken[:-1], gone)
        delayed = (self._timeline.delayed_by(run, line, number) for number in taken)
        return next((each for each in delayed if each is not None), self._timeline.held[0])

    # --- what is known of runs -----------------------------------------------------------------------------------

    def _line(self, run: Run, home: tuple[int, ...] | None = None) -> Line:
        """Return the line of a run. home: the machines that it keeps to."""
        of, size = self._queue.class_and_size(run)
        lineage = run.lineage if self.room.has_speeds(run.lineage) else ()
        key = (of.same, run.machines, lineage, home)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(
                run.requirements, self.room, size=size / run.machines, time_value=self.knobs.time_value,
                lineage=lineage, among=home,
            )  # fmt: skip
        return line

    def _size(self, run: Run) -> float:
        return self._queue.class_and_size(run)[1]

    def _times(self, of: Class, size: float) -> float:
        return factor_of_class(of, size, self.learned, self.shares, self.knobs)

    def _numbers(self, run: Run) -> tuple[int, ...]:
        return tuple(self.room.number_of[each] for each in run.machine_ids if each in self.room.number_of)

    def _find_oldest(self) -> set[int]:
        """Find for each priority the oldest run beyond `max_wait_seconds` that some machines fit, and its quota admits.

        One that waits for its own project to use less would keep the first place from all others for that time, and so
        would one that runs, can't be preempted and so needs no place.
        """
        if self.knobs.max_wait_seconds is None:
            return set()
        since = self.now - timedelta(seconds=self.knobs.max_wait_seconds)
        found: dict[int, Run] = {}
        waiting = (members.oldest() for members in self._queue.classes)
        for run in (*self.running, *waiting):
            if run.submitted_at >= since or (run.machine_ids and self._first_place_left(run) <= 0):
                continue
            before = found.get(run.priority)
            if before is not None and (before.submitted_at, before.id) < (run.submitted_at, run.id):
                continue
            if run.machine_ids or (self._line(run).able_count >= run.machines and self._within_quota(run)):
                found[run.priority] = run
        self._with_oldest = found.keys()
        return {run.id for run in found.values()}

    def _first_place_left(self, run: Run) -> float:
        """Return for how many seconds a running run keeps the first place of its priority, if it is the oldest.

        Until its end, if it can be preempted. Else only if it had waited long enough to start by it, and for no longer
        than others have to wait: long enough that not all that is old starts by age, whatever work is expected of it.
        """
        if run.preemptible or run.started_at is None or self.knobs.max_wait_seconds is None:
            return math.inf
        if (run.started_at - run.submitted_at).total_seconds() <= self.knobs.max_wait_seconds:
            return 0.0
        return self.knobs.max_wait_seconds - (self.now - run.started_at).total_seconds()

    def _may_be_preempted(self) -> Iterator[Victim]:
        for run in self.running:
            if may_be_preempted(run, self.now, self.knobs):
                of, size = class_of(run, self._queue.sizes, self.knobs)
                order = place_in_order(
                    run, of, self._times(of, size), self.knobs, is_running=True, is_oldest=run.id in self._oldest
                )
                yield victim_of(run, order, size, self.now, self.room)

    def _leave(self, run: Run, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.room.give(number, amounts_of(run.requirements))
            self._leaving_on.setdefault(number, set()).add(run.id)
        if run.project in self._gpus:
            self._gpus[run.project] -= run.gpus
            self._leaving_gpus.setdefault(run.project, {})[run.id] = run.gpus

    # --- quotas --------------------------------------------------------------------------------------------------

    def quota_of(self, run: Run) -> int | None:
        project = self.projects.get(run.project)
        return None if project is None or run.gpus == 0 else project.gpu_quota

    def _count_gpus(self, run: Run) -> None:
        project = self.projects.get(run.project)
        if project is not None and project.gpu_quota is not None:
            self._gpus[run.project] = self._gpus.get(run.project, 0) + run.gpus

    def _within_quota(self, run: Run) -> bool:
        quota = self.quota_of(run)
        return quota is None or self._gpus.get(run.project, 0) + run.gpus <= quota

    def _count_against_quota(self, run: Run) -> set[int]:
        """Count a placed run; return those of its project that must have left before it is within the quota."""
        self._count_gpus(run)
        quota, leaving = self.quota_of(run), self._leaving_gpus.get(run.project, {})
        if quota is None or self._gpus[run.project] + sum(leaving.values()) <= quota:
            return set()
        return set(leaving)

    # --- the result ----------------------------------------------------------------------------------------------

    def result(self, currency: str | None) -> Plan:
        """Return the plan; without a currency no waiting reasons."""
        return Plan(
            placements=tuple(
                Placement(
                    each.run.id,
                    tuple(Member(self.room.machines[n].id, each.line.share_on(n)) for n in each.numbers),
                    each.after,
                )
                for each in self.placed
            ),
            preemptions=tuple(self._preemptions()),
            reservations=tuple(self._reservations()),
            waiting=tuple(self._waiting(currency)) if currency is not None else (),
            is_complete=self.is_complete,
            next_at=self._next_at(),
        )

    def _preemptions(self) -> Iterator[Preemption]:
        for victim, placed in self.preempted:
            own, other = (
                expected(run, self._size(run), self.learned, self.knobs)[0] for run in (victim.run, placed.run)
            )
            pair = (self.shares.get(placed.run.project, 1.0), self.shares.get(victim.run.project, 1.0))
            yield preemption_of(victim.run, victim.order, placed, own, other, pair)

    def _reservations(self) -> Iterator[Reservation]:
        for held in self._timeline.held if self._timeline is not None else ():
            machine_ids = tuple(self.room.machines[number].id for number in held.numbers)
            yield Reservation(held.run_id, machine_ids, self._at(held.begins))

    def _waiting(self, currency: str) -> Iterator[Waiting]:
        quotas = {each.id: (each.gpu_quota or 0, self._gpus.get(each.id, 0)) for each in self.projects.values()}
        starts = {
            each.run.id: self._at(each.held.begins) for each in self.blocked if each.held and each.held.begins > 0
        }
        for waiting in explained(self, currency, quotas):
            yield replace(waiting, estimated_start=starts.get(waiting.run_id))

    def _at(self, seconds: float) -> datetime | None:
        return None if math.isinf(seconds) else self.now + timedelta(seconds=round(seconds))

    def _next_at(self) -> datetime | None:
        """Return when a key or a protection changes with time alone, and that could let one start that waits."""
        moments = [seconds for seconds in self._moments() if 0 < seconds < math.inf]
        return self.now + timedelta(seconds=min(moments)) if moments else None

    def _moments(self) -> Iterator[float]:
        if not self.blocked:
            return
        for blocked in self.blocked:
            if blocked.home is not None:
                yield self._may_wait_at_home(blocked.run)
        for run in self.running:
            if run.preemptible and not run.leaving and run.started_at is not None:
                yield from self._moments_of(run, (self.now - run.started_at).total_seconds())
        starting = (each.run for each in self.placed if each.run.preemptible and not each.after)
        # All of them are protected equally long, and until then no key of theirs matters.
        for run in islice(starting, 1 if self.knobs.min_run_seconds > 0 else None):
            yield from self._moments_of(run, 0.0)
        if self.knobs.max_wait_seconds is not None:
            yield from (self._first_place_left(run) for run in self.running if run.id in self._oldest)
            for members in self._queue.classes:
                if members.of.priority not in self._with_oldest:
                    yield self.knobs.max_wait_seconds - (self.now - members.oldest().submitted_at).total_seconds()

    def _moments_of(self, run: Run, seconds: float) -> Iterator[float]:
        """Yield when a preemptible run that started so long ago loses its protection, and when its key changes next."""
        protected = self.knobs.min_run_seconds - seconds
        yield protected
        if self.knobs.discipline is Discipline.ARRIVAL:
            return
        of, size = self._queue.class_and_size(run)
        if run.max_steps is not None and of.source is not Source.PROGRESS:
            yield max(self.knobs.progress_after_seconds - run.attained_seconds, protected)
        if of.source is Source.LEARNED and of.bin < BINS - 1:
            yield max(end_of_bin(learned_bin(run, size)) / size - run.attained_seconds, protected)
