"""Reservations: machines kept, from a moment on, for the first runs that can't be placed now.

A reservation begins at the first moment at which the run fits beside all that can't be preempted, as far as their
limits (`maxRuntime`) show their ends: a run without a limit never ends for this purpose. Until then others use the room
(backfill): those that can be preempted freely, those that can't only if no reservation is delayed by it. Source:
Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995 (EASY backfilling), here with several reservations.

The oldest run beyond `max_wait_seconds` gets its machines reserved even if no moment is known: no run without a limit
starts there any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from policy.room import Amounts, Free, Line, Room
from policy.workload import Run

OVERRUN_SECONDS = 60.0  # a run beyond its limit is expected to end that soon


@dataclass(frozen=True, slots=True)
class Reservation:
    """Machines for a run, from `at`. None: the moment is unknown, because something there has no limit."""

    run_id: int
    machine_ids: tuple[int, ...]
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation during a plan: seconds from now, infinite where unknown."""

    run_id: int
    begins: float
    ends: float
    amounts: Amounts
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Use:
    """Room held by a run that can't be preempted, until `ends`."""

    ends: float
    amounts: Amounts


def ends_in(run: Run) -> float:
    """Return after how many seconds a run that runs, or starts now, has reached its limit; infinite without one."""
    if run.max_runtime_seconds is None:
        return math.inf
    left = run.max_runtime_seconds - run.attained_seconds
    return left if left > 0 else OVERRUN_SECONDS


class Timeline:
    """Room beside what can't be preempted, over time. `free`: the room without all that can be, or that leaves."""

    def __init__(self, room: Room, free: Free) -> None:
        self._room = room
        self._free = free
        self._uses: dict[int, list[_Use]] = {}
        self._held_on: dict[int, list[Held]] = {}
        self.held: list[Held] = []

    def add(self, run: Run, amounts: Amounts, numbers: Sequence[int], *, is_new: bool) -> None:
        """Add a run that can't be preempted. `is_new`: placed by this plan, so `free` does not know it."""
        for number in numbers:
            if is_new:
                self._free.add(number, amounts, -1)
            self._uses.setdefault(number, []).append(_Use(ends_in(run), amounts))

    def may_start(self, run: Run, line: Line, number: int) -> bool:
        """Whether no reservation is delayed if a run that can't be preempted starts on this machine now."""
        return self.delayed_by(run, line, number) is None

    def delayed_by(self, run: Run, line: Line, number: int) -> Held | None:
        """Return the reservation that would be delayed if this run started on this machine now."""
        if not self.held:
            return None
        ends = ends_in(run)
        for each in self._room.mates(number) if line.amounts.gpus else (number,):
            for held in self._held_on.get(each, ()):
                if ends <= held.begins and not math.isinf(ends):
                    continue
                left = self._left(number, held.begins)
                if not line.fits(left):
                    return held
        return None

    def reserve(self, run: Run, line: Line, *, at_any_rate: bool) -> Held | None:
        """Reserve the first moment at which all members fit. `at_any_rate`: also where no moment is known."""
        able = line.able()
        if len(able) < run.machines:
            return None
        found = self._first_moment(run, line, able)
        if found is None:
            if not at_any_rate:
                return None
            # Where the least is lacking as long as runs without a limit go on.
            lacking = sorted(able, key=lambda number: (self._lacking(line, number), line.worth(number)))
            found = math.inf, tuple(lacking[: run.machines])
        begins, numbers = found
        held = Held(run.id, begins, begins + ends_in(run), line.amounts, numbers)
        self.held.append(held)
        for number in numbers:
            self._held_on.setdefault(number, []).append(held)
        return held

    def _first_moment(self, run: Run, line: Line, able: Sequence[int]) -> tuple[float, tuple[int, ...]] | None:
        moments: list[tuple[float, int]] = []
        for number in able:
            if line.fits(self._most(number)):
                first = self._first_on(run, line, number, 0.0)
                if first is not None:
                    moments.append((first, number))
        if len(moments) < run.machines:
            return None
        moments.sort(key=lambda each: each[0])
        # Beside an earlier reservation the room of a machine may shrink again, so each is looked at anew.
        for begins in sorted({first for first, _ in moments}):
            fitting = [
                number
                for first, number in moments
                if first == begins or (first < begins and self._fits_at(run, line, number, begins))
            ]
            if len(fitting) >= run.machines:
                fitting.sort(key=line.worth)
                return begins, tuple(fitting[: run.machines])
        return None

    def _first_on(self, run: Run, line: Line, number: int, earliest: float) -> float | None:
        """Return the first moment at which a member fits on this machine, of those at which room becomes free."""
        mates = self._room.mates(number) if line.amounts.gpus else (number,)
        if len(mates) == 1 and number not in self._held_on:
            return self._first_end(line, number)
        ends = {use.ends for each in mates for use in self._uses.get(each, ())}
        ends |= {held.ends for each in mates for held in self._held_on.get(each, ())}
        for moment in (earliest, *sorted(each for each in ends if earliest < each < math.inf)):
            if self._fits_at(run, line, number, moment):
                return moment
        return None

    def _first_end(self, line: Line, number: int) -> float | None:
        """Return the same for a machine that shares nothing and has no reservation: one pass over the ends."""
        left, moment = self._free.on(number), 0.0
        for use in sorted(self._uses.get(number, ()), key=lambda each: each.ends):
            if use.ends > moment:
                if line.fits(left):
                    return moment
                moment = use.ends
            more = use.amounts
            left = Amounts(left.cpus + more.cpus, left.memory_gib + more.memory_gib, left.gpus + more.gpus)
        return moment if moment < math.inf and line.fits(left) else None

    def _fits_at(self, run: Run, line: Line, number: int, moment: float) -> bool:
        if not line.fits(self._left(number, moment)):
            return False
        if run.preemptible:
            return True
        ends = moment + ends_in(run)
        return all(
            line.fits(self._left(number, held.begins))
            for each in (self._room.mates(number) if line.amounts.gpus else (number,))
            for held in self._held_on.get(each, ())
            if moment < held.begins < ends or (math.isinf(ends) and math.isinf(held.begins))
        )

    def _left(self, number: int, moment: float) -> Amounts:
        """Return the room at a moment: what has ended by then is free, what is reserved is not."""
        free = self._free.on(number)
        cpus, memory_gib, gpus = free
        mates = self._room.mates(number)
        own_gpus = pool_gpus = 0
        for each in mates:
            for use in self._uses.get(each, ()):
                if use.ends <= moment and not math.isinf(use.ends):
                    pool_gpus += use.amounts.gpus
                    if each == number:
                        cpus, memory_gib = cpus + use.amounts.cpus, memory_gib + use.amounts.memory_gib
                        own_gpus += use.amounts.gpus
            for held in self._held_on.get(each, ()):
                if held.begins <= moment and (moment < held.ends or math.isinf(held.ends)):
                    pool_gpus -= held.amounts.gpus
                    if each == number:
                        cpus, memory_gib = cpus - held.amounts.cpus, memory_gib - held.amounts.memory_gib
                        own_gpus -= held.amounts.gpus
        gpus = self._free.gpus_with(number, own_gpus, pool_gpus) if own_gpus or pool_gpus else gpus
        return Amounts(cpus, memory_gib, gpus)

    def _most(self, number: int) -> Amounts:
        machine = self._room.machines[number]
        return Amounts(machine.cpus, machine.memory_gib, machine.gpus)

    def _lacking(self, line: Line, number: int) -> float:
        """Return the largest part of a machine's total that is lacking as long as runs without a limit go on."""
        machine, left = self._room.machines[number], self._left(number, math.inf)
        pairs = (
            (line.amounts.cpus - left.cpus, machine.cpus),
            (line.amounts.memory_gib - left.memory_gib, machine.memory_gib),
            (line.amounts.gpus - left.gpus, machine.gpus),
        )
        return round(max((max(lacks, 0.0) / has for lacks, has in pairs if has > 0), default=0.0), 9)
