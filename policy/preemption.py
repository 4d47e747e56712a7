"""Preemption: which running runs make room on a machine for one that is before them in the order of service.

A run is never preempted that is not preemptible, was started less than `min_run_seconds` ago, is leaving already, or is
before the other in the order; keys of running runs are divided by the hysteresis, so two runs never preempt each other
in turn. Of several, the last in the order goes first, and of equal keys the one that loses the least work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from policy.queue_order import Precedence
from policy.room import Amounts, Line, Room, amounts_of
from policy.workload import Knobs, Run

USUAL_RESTART_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Victim:
    """A running run that may be preempted for those before it."""

    run: Run
    order: Precedence
    size: float
    lost: float  # GPU-seconds: a restart, and what came after the last checkpoint
    numbers: tuple[int, ...]  # of its machines
    amounts: Amounts


def may_be_preempted(run: Run, now: datetime, knobs: Knobs) -> bool:
    """Whether a running run may be preempted at all."""
    if not run.preemptible or run.leaving or run.started_at is None:
        return False
    return (now - run.started_at).total_seconds() >= knobs.min_run_seconds


def victim_of(run: Run, order: Precedence, size: float, now: datetime, room: Room) -> Victim:
    since = max((each for each in (run.last_checkpoint_at, run.started_at) if each is not None), default=now)
    lost = size * (USUAL_RESTART_SECONDS + max((now - since).total_seconds(), 0.0))
    numbers = tuple(room.number_of[each] for each in run.machine_ids if each in room.number_of)
    return Victim(run, order, size, lost, numbers, amounts_of(run.requirements))


@dataclass(frozen=True, slots=True)
class _Offer:
    """Whom to preempt on a machine, and what that costs: what is taken away, then price, time and number."""

    cost: tuple[float, float, float, int]
    chosen: Sequence[Victim]


class Victims:
    """Runs that may be preempted, by machine, the first to go first. Machines that share GPUs share their victims."""

    def __init__(self, victims: Iterable[Victim], room: Room) -> None:
        ordered = sorted(victims, key=lambda each: (each.order[:3], -each.lost, each.order[3:]), reverse=True)
        self._on: dict[int, list[Victim]] = {}
        self._last = ordered[0].order if ordered else None
        self._known: dict[Line, tuple[dict[int, _Offer], int]] = {}
        self.gone: set[int] = set()  # ids of those that this plan preempts
        for each in ordered:
            shared = {mate for number in each.numbers for mate in room.mates(number)}
            for number in sorted(shared) if each.amounts.gpus else each.numbers:
                self._on.setdefault(number, []).append(each)

    def any_behind(self, order: Precedence) -> bool:
        """Whether a run might be preempted for one at this place: decides most questions without a search."""
        return self._last is not None and order[:3] <= self._last[:3]

    def find(
        self,
        line: Line,
        room: Room,
        order: Precedence,
        excluded: Collection[int],
        is_allowed: Callable[[int], bool] | None,
    ) -> tuple[int, Sequence[Victim]] | None:
        """Return the machine where the least must be taken away, and from which runs."""
        offers = self._offers_to(line, room, order)
        refused: set[int] = set()
        while True:
            able = (each for number, each in offers.items() if number not in excluded and number not in refused)
            best = min(able, key=lambda each: each.cost, default=None)
            if best is None:
                return None
            number = best.cost[3]
            if not all(order < each.order and each.run.id not in self.gone for each in best.chosen):
                self._look_at(number, offers, line, room, order)
            elif is_allowed is not None and not is_allowed(number):
                refused.add(number)
            else:
                return number, best.chosen

    def _offers_to(self, line: Line, room: Room, order: Precedence) -> dict[int, _Offer]:
        """Return by machine whom to preempt there: looked at anew where something has changed since the last question.

        Questions come in the order of service. So of those behind there are ever fewer, and an offer stays right as
        long as its own victims are behind.
        """
        known, seen = self._known.get(line, ({}, 0))
        for number in self._on if seen == 0 else set(room.changed[seen - 1 :]) & self._on.keys():
            self._look_at(number, known, line, room, order)
        self._known[line] = known, len(room.changed) + 1
        return known

    def _look_at(self, number: int, offers: dict[int, _Offer], line: Line, room: Room, order: Precedence) -> None:
        offers.pop(number, None)
        here = self._on[number]
        if line.terms[room.kind_of[number]] is None or not line.may_use(number) or order[:3] > here[0].order[:3]:
            return
        behind = [each for each in here if order < each.order and each.run.id not in self.gone]
        chosen = fewest(line, room, number, behind)
        if chosen:
            terms = line.terms_on(number)
            offers[number] = _Offer((sum(each.size for each in chosen), terms.cost, terms.time, number), chosen)


def fewest(line: Line, room: Room, number: int, behind: Sequence[Victim]) -> Sequence[Victim]:
    """Return the runs to preempt for a member on a machine, in their order; none if all would not be enough."""
    chosen: list[Victim] = []
    for each in behind:
        if line.fits(room.without(number, chosen)):
            break
        chosen.append(each)
    if not line.fits(room.without(number, chosen)):
        return ()
    # Small ones chosen before a large one may be needless now: those first in the order are spared first.
    for each in reversed(chosen[:-1]):
        others = [other for other in chosen if other is not each]
        if line.fits(room.without(number, others)):
            chosen = others
    return chosen
