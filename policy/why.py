"""Why a run waits behind others, and why one was preempted, as sentences for the user.

A sentence names the run that is ahead and the rule that puts it there. It contains no time and no amount that changes
while the plan stays the same, so it is written only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policy import phrasing, waiting
from policy.plan import Preemption, Waiting
from policy.queue_order import Precedence, Rule, rule_between
from policy.reservation import Held
from policy.room import Line, Room, Shape
from policy.waiting import Kind, WaitingReason
from policy.workload import Run

RULES = {
    Rule.PRIORITY: "its priority is higher",
    Rule.OLDEST_FIRST: "it has waited longest",
    Rule.FAIR_SHARE: "its project has used less of its share",
    Rule.LESS_WORK: "less work is expected of it",
    Rule.EARLIER: "it was submitted earlier",
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A run that the plan places, on machines by number."""

    run: Run
    order: Precedence
    line: Line
    numbers: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Blocked:
    """The first run of a class that can't be placed."""

    run: Run
    order: Precedence
    line: Line
    reason: WaitingReason
    held: Held | None = None  # its reservation
    by: Held | None = None  # the reservation of another run that alone keeps it from starting
    home: int | None = None  # a machine of its checkpoint's host, which it keeps to


class Outcome(Protocol):
    """What a plan has come to."""

    @property
    def room(self) -> Room: ...  # as it is left
    @property
    def begun_with(self) -> Mapping[Shape, Sequence[int]]: ...  # machines by their room at the beginning
    @property
    def placed(self) -> Sequence[Placed]: ...
    @property
    def blocked(self) -> Sequence[Blocked]: ...
    @property
    def shares(self) -> Mapping[int, float]: ...


def explained(outcome: Outcome, currency: str, quotas: Mapping[int, tuple[int, int]]) -> Iterator[Waiting]:
    """Explain why each blocked run waits, and each placed one that can't start yet.

    `quotas`: by project, its quota of GPUs and how many it holds.
    """
    sentences: dict[int, tuple[WaitingReason, str]] = {}
    kinds = _kinds(outcome.room)
    waiting_ones = [each for each in reversed(outcome.placed) if each.after]
    takers: dict[int, Sequence[Placed]] = {}  # by line
    for each in outcome.placed:
        if each.after:
            yield Waiting(each.run.id, WaitingReason.MACHINES_BUSY, _after(outcome.room, each), None)
    for blocked in outcome.blocked:
        run = blocked.run
        if blocked.reason is WaitingReason.QUOTA:
            quota, held = quotas[run.project]
            most = phrasing.count(quota, "GPU")
            detail = f"Its project may hold {most} at once, and holds {held}: this one needs {run.gpus} more."
            yield Waiting(run.id, blocked.reason, detail, detail)
        elif blocked.home is not None:
            yield Waiting(run.id, blocked.reason, _at_home(outcome.room, blocked.home, run), None)
        elif blocked.by is not None:
            detail = (
                f"Room is kept for simulation {blocked.by.run_id}, which is before it. It could start earlier if it "
                "were preemptible, or had a shorter limit of its running time."
            )
            yield Waiting(run.id, blocked.reason, detail, detail, ahead_id=blocked.by.run_id)
        elif (ahead := _ahead(outcome, blocked, waiting_ones, takers)) is not None:
            pair = (outcome.shares.get(ahead.run.project, 1.0), outcome.shares.get(run.project, 1.0))
            rule = rule_between(ahead.order, blocked.order, *pair)
            first = f"Simulation {ahead.run.id} takes the room first"
            detail, general = f"{first}: {RULES[rule]}.", f"{first}."
            yield Waiting(run.id, WaitingReason.HELD_BACK, detail, general, ahead_id=ahead.run.id, rule=rule)
        else:
            key = id(blocked.line)
            if key not in sentences:
                sentences[key] = _of_machines(outcome.room, blocked, kinds, currency)
            reason, detail = sentences[key]
            yield Waiting(run.id, reason, detail, detail)


def is_before(ahead_id: int, rule: Rule) -> str:
    """Explain the place in the queue of a run that is directly behind another one."""
    return f"Simulation {ahead_id} is directly before it: {RULES[rule]}."


def preemption_of(
    run: Run, order: Precedence, placed: Placed, own: float, other: float, shares: tuple[float, float]
) -> Preemption:
    """Explain a preemption. `own`, `other`: expected GPU-seconds of it and of the other; `shares`: of other and own."""
    rule = rule_between(placed.order, order, *shares)
    why = RULES[rule]
    if rule is Rule.LESS_WORK:
        hours = phrasing.number(round(other / 3600, 2))
        why = f"{hours} GPU-hours are expected of it, against {phrasing.number(round(own / 3600, 2))} of this one"
    return Preemption(run.id, placed.run.id, rule, own, other, f"Made room for simulation {placed.run.id}: {why}.")


def _ahead(
    outcome: Outcome, blocked: Blocked, waiting_ones: Sequence[Placed], takers: dict[int, Sequence[Placed]]
) -> Placed | None:
    """Return the run that took room which was free before this plan, and which would have been enough.

    Only a run that can't start yet counts: one that starts with this plan makes its machines busy, as a later plan
    would say, and a reason that changes at once would be written and notified of twice for each start.

    waiting_ones: those runs, the last first. takers: those of them that took room from a line, once it was asked for.
    """
    key = id(blocked.line)
    if key not in takers:
        fitting = {
            number
            for shape, numbers in outcome.begun_with.items()
            if (rank := blocked.line.rank(shape)) is not None and not rank.waits
            for number in numbers
            if blocked.line.may_use(number)
        }
        is_enough = len(fitting) >= blocked.run.machines
        takers[key] = [each for each in waiting_ones if not fitting.isdisjoint(each.numbers)] if is_enough else ()
    return next((each for each in takers[key] if each.order < blocked.order), None)


def _at_home(room: Room, home: int, run: Run) -> str:
    name, work = phrasing.name(room.machines[home].name), phrasing.span(run.attained_seconds)
    return (
        f"Waits for room on the host of {name}, where its checkpoint is: elsewhere it would begin from zero, and do "
        f"{work} of work again. It goes elsewhere when it has waited that long."
    )


def _after(room: Room, placed: Placed) -> str:
    name = phrasing.name(room.machines[placed.numbers[0]].name)
    others = f" and {len(placed.numbers) - 1} more" if len(placed.numbers) > 1 else ""
    which = phrasing.listed([str(each) for each in placed.after[:2]])
    more = f" and {len(placed.after) - 2} more" if len(placed.after) > 2 else ""
    noun, verb = ("simulation", "has") if len(placed.after) == 1 else ("simulations", "have")
    return f"Starts on {name}{others} when {noun} {which}{more} {verb} stopped."


def _of_machines(room: Room, blocked: Blocked, kinds: Sequence[Kind], currency: str) -> tuple[WaitingReason, str]:
    line, count = blocked.line, blocked.run.machines
    if count > 1 and line.able_count > 0:
        if blocked.reason is WaitingReason.NO_MACHINE_FITS:
            starts = waiting.starting(line.required, kinds, currency=currency)
            if starts is not None:
                return starts
        them = "machine meets its requirements" if line.able_count == 1 else "machines meet its requirements"
        busy = "" if blocked.reason is WaitingReason.NO_MACHINE_FITS else ", and not enough of them have room now"
        return blocked.reason, f"It needs {count} machines at once: {line.able_count} {them}{busy}."
    required = line.required
    if required.machine_id is not None or required.machine_name is not None:
        kinds = [Kind(room.as_left(number), 1) for number in line.named or ()]
    reason, detail = waiting.explain(required, kinds, currency=currency)
    return reason, detail


def _kinds(room: Room) -> Sequence[Kind]:
    """Return the machines by kind, each with the least free GPUs of its kind."""
    found: dict[int, list[int]] = {}
    for number, kind in enumerate(room.kind_of):
        found.setdefault(kind, []).append(number)
    return [Kind(room.as_left(numbers[0]), len(numbers)) for numbers in found.values()]
