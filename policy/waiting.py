"""Waiting reasons: why a request is still queued, as a sentence for the user.

"Why is it pending?" is the first question that users of every scheduler ask. The answer names the missing resource and
the largest offer, has at most 300 characters for any number of machines, and is stable: the same state gives the same
sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from policy import phrasing
from policy.cost import billed_per_hour
from policy.dependencies import DependencyCondition, waits_for
from policy.matching import Condition, Machine, Requirements, Resource, conditions, covers, share_of, within_price


class WaitingReason(StrEnum):
    """Why a request stays in the queue. The planner sets those before UNATTENDED, for a whole class of requests."""

    # No machine that accepts work meets the requirements. Ends when an owner of machines adds one that does, brings it
    # back online, resumes it or lowers its price; or when the user cancels and submits smaller requirements.
    NO_MACHINE_FITS = "NO_MACHINE_FITS"
    # Only a machine that is not there yet meets the requirements, and its cluster starts one. Ends by itself.
    MACHINE_STARTING = "MACHINE_STARTING"
    # A machine meets the requirements, but its resources are in use. Ends by itself, when an attempt there ends.
    MACHINES_BUSY = "MACHINES_BUSY"
    # Others that are before it take the room first. Ends by itself, when they have started and there is room left.
    HELD_BACK = "HELD_BACK"
    # There is room, but it is kept for one that is before it and could not start in time otherwise. Ends by itself.
    RESERVED = "RESERVED"
    # Its project holds as many GPUs as it may at once. Ends by itself, when one of its attempts ends, or when an
    # administrator raises the quota.
    QUOTA = "QUOTA"
    # A budget of its project, or of the installation, does not pay for another start. Ends when the next period
    # begins, or when an administrator raises the budget.
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    # It runs after other simulations, which have not ended. Ends with their ends.
    DEPENDENCY = "DEPENDENCY"
    # A client paused it. Ends when a client resumes it.
    PAUSED = "PAUSED"
    # The simulation is attended and has no subscriber. Ends when a client subscribes to its convergence.
    UNATTENDED = "UNATTENDED"
    # The last attempt ended, and the pause before the next one has not passed. Ends by itself.
    BACKOFF = "BACKOFF"


PAUSED_DETAIL = "It is paused: it is planned again when it is resumed."
UNATTENDED_DETAIL = "No client watches it: it starts when a client subscribes to its convergence."


@dataclass(frozen=True, slots=True)
class Wait:
    """Why one simulation waits: a reason for programs, a sentence, and the end if time alone decides."""

    reason: WaitingReason
    detail: str
    until: datetime | None = None


class Queued(Protocol):
    """A queued simulation, as read from its rows."""

    @property
    def until(self) -> datetime | None: ...  # the end of its backoff, if in the future
    @property
    def seconds_left(self) -> float: ...  # until `until`
    @property
    def attempts_made(self) -> int: ...
    @property
    def max_retries(self) -> int: ...
    @property
    def ended(self) -> str | None: ...  # how its last attempt ended: a value of `db.states.Reason`
    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def paused(self) -> bool: ...
    @property
    def awaits(self) -> str | None: ...  # the name of the first unfinished simulation that it runs after
    @property
    def awaits_state(self) -> str: ...
    @property
    def awaits_condition(self) -> str: ...
    @property
    def awaits_others(self) -> int: ...  # how many more of them there are
    @property
    def unattended(self) -> bool: ...  # attended, without a subscriber now
    @property
    def class_reason(self) -> str | None: ...  # of its class, or its own; None: not planned yet
    @property
    def class_detail(self) -> str | None: ...


def why(queued: Queued) -> Wait | None:
    """Return what a simulation waits for: to be resumed, other simulations, its backoff, a subscriber, a machine."""
    if queued.paused:
        return Wait(WaitingReason.PAUSED, PAUSED_DETAIL)
    if queued.awaits is not None:
        condition = DependencyCondition(queued.awaits_condition)
        sentence = waits_for(queued.awaits, queued.awaits_state, condition, others=queued.awaits_others)
        return Wait(WaitingReason.DEPENDENCY, sentence)
    if queued.until is not None:
        return Wait(WaitingReason.BACKOFF, _backoff(queued), queued.until)
    if queued.unattended:
        return Wait(WaitingReason.UNATTENDED, UNATTENDED_DETAIL)
    if queued.class_reason is None:
        return None
    return Wait(WaitingReason(queued.class_reason), queued.class_detail or "")


def drained(machine: str, deadline: datetime) -> str:
    """Explain why an attempt on a drained machine was stopped. deadline: with its offset."""
    return f"{phrasing.name(machine)} was drained until {deadline:%Y-%m-%d %H:%M %Z}."


def _backoff(queued: Queued) -> str:
    seconds = max(math.ceil(queued.seconds_left), 1)
    span = f"{seconds} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"
    number = queued.attempts_made + 1
    return f"{_ended(queued)}; attempt {number} of {max(queued.max_retries + 1, number)} begins in {span}."


def _ended(queued: Queued) -> str:
    match queued.ended:
        case "EXIT_CODE" if queued.signal is not None:
            return f"It was ended by signal {queued.signal}"
        case "EXIT_CODE" if queued.exit_code is not None:
            return f"It ended with exit code {queued.exit_code}"
        case "MACHINE_LOST":
            return "Its machine was lost"
        case "LAUNCH_ERROR":
            return "It could not be launched"
        case "BUDGET_EXHAUSTED":
            return "It was stopped for a budget"
        case "MAX_RUNTIME":
            return "It took longer than its limit"
        case _:
            return "Its last attempt ended"


@dataclass(frozen=True, slots=True)
class Kind:
    """Machines that differ only in name, host and free resources."""

    first: Machine  # by name
    count: int


def explain(required: Requirements, kinds: Sequence[Kind], *, currency: str) -> tuple[WaitingReason, str]:
    """Explain why a request that fits on no machine now has to wait.

    `kinds`: all machines, or the one that the request names, in the order of their names, as they are after the plan.
    """
    reason, sentence = _explain(required, kinds, currency)
    return reason, phrasing.cut(sentence, phrasing.LONGEST_SENTENCE)


def starting(required: Requirements, kinds: Sequence[Kind], *, currency: str) -> tuple[WaitingReason, str] | None:
    """Explain that a request waits for a machine that can be started; None if none of these meets it."""
    wanted = conditions(required)
    able = [
        kind
        for kind in kinds
        if kind.first.startable
        and not kind.first.draining
        and all(each.holds(kind.first) for each in wanted)
        and within_price(required, kind.first)
    ]
    if not able:
        return None
    machine = _cheapest(required, able)
    price = phrasing.price(machine.price_per_hour, currency)
    name = phrasing.name(machine.name)
    return (
        WaitingReason.MACHINE_STARTING,
        f"No machine that runs meets its requirements: the cluster starts one like {name}, for {price} an hour.",
    )


def _explain(required: Requirements, kinds: Sequence[Kind], currency: str) -> tuple[WaitingReason, str]:
    if not kinds:
        return WaitingReason.NO_MACHINE_FITS, _nothing_there(required)
    wanted = conditions(required)
    unmet = [(kind, [each for each in wanted if not each.holds(kind.first)]) for kind in kinds]
    able = [kind for kind, lacks in unmet if not lacks]
    affordable = [kind for kind in able if within_price(required, kind.first)]
    ready = [kind for kind in affordable if kind.first.online and not kind.first.draining]
    if ready:
        return WaitingReason.MACHINES_BUSY, _busy(required, ready)
    starts = starting(required, affordable, currency=currency)
    if starts is not None:
        return starts
    if affordable:
        return WaitingReason.NO_MACHINE_FITS, _away(affordable)
    if able:
        return WaitingReason.NO_MACHINE_FITS, _too_expensive(required, able, currency)
    if required.machine_id is not None:
        kind, lacks = unmet[0]
        only = phrasing.name(kind.first.name)
        return WaitingReason.NO_MACHINE_FITS, f"It may run only on {only}, which {_lacking(kind.first, lacks)}."
    impossible = [each for each in wanted if all(each in lacks for _, lacks in unmet)]
    if impossible:
        return WaitingReason.NO_MACHINE_FITS, _impossible(impossible, [kind.first for kind in kinds])
    return WaitingReason.NO_MACHINE_FITS, _each_something_else(unmet)


def _nothing_there(required: Requirements) -> str:
    if required.machine_name is not None:
        return f"It may run only on {phrasing.name(required.machine_name)}, which has been deleted."
    if required.machine_id is not None:
        return "It may run only on a machine that has been deleted."
    return "No machine has joined yet."


def _busy(required: Requirements, ready: Sequence[Kind]) -> str:
    machine = _cheapest(required, ready)
    gpus, shared = machine.free_gpus, ""
    if machine.host_free_gpus is not None and machine.host_free_gpus < gpus:
        gpus, shared = machine.host_free_gpus, " (shared with its host's other machines)"
    taken: list[str] = []
    for resource, free, asked, note in (
        (Resource.GPUS, gpus, required.gpus, shared),
        (Resource.CPUS, machine.free_cpus, required.cpus, ""),
        (Resource.MEMORY, machine.free_memory_gib, required.memory_gib, ""),
    ):
        if not covers(free, asked):
            taken.append(f"{phrasing.number(max(free, 0))} of {resource.amount(resource.total(machine))}{note}")
    verb = "is" if len(taken) == 1 and " of 1 " in taken[0] else "are"
    others = sum(kind.count for kind in ready) - 1
    where = f"Fits on {phrasing.name(machine.name)}, where {phrasing.listed(taken)} {verb} free now"
    if others == 0:
        return f"{where}."
    return f"{where}, and on {others} {'other that is' if others == 1 else 'others that are'} busy too."


def _away(affordable: Sequence[Kind]) -> str:
    count = sum(kind.count for kind in affordable)
    why = sorted({"draining" if kind.first.online else "offline" for kind in affordable}, reverse=True)
    who = phrasing.name(affordable[0].first.name) + (f" and {count - 1} more" if count > 1 else "")
    return f"{who} would fit, but {'it is' if count == 1 else 'they are'} {phrasing.listed(why, 'or')}."


def _too_expensive(required: Requirements, able: Sequence[Kind], currency: str) -> str:
    machine = _cheapest(required, able)
    price = billed_per_hour(machine.price_per_hour, share_of(required, machine))
    assert required.max_price_per_hour is not None, "without a maximum price no machine is too expensive"
    return (
        f"The cheapest machine that fits, {phrasing.name(machine.name)}, costs {phrasing.price(price, currency)} an "
        f"hour: the limit is {phrasing.price(required.max_price_per_hour, currency)}."
    )


def _impossible(impossible: Sequence[Condition], machines: Sequence[Machine]) -> str:
    told = impossible[0].met_by_none(machines)
    for condition in impossible[1:]:
        longer = f"{told} {condition.met_by_none(machines)}"
        if len(longer) <= phrasing.LONGEST_SENTENCE:
            told = longer
    return told


def _each_something_else(unmet: Sequence[tuple[Kind, list[Condition]]]) -> str:
    """Name the nearest misses: one machine for each set of unmet conditions, the smallest sets first."""
    examples: dict[tuple[Condition, ...], Machine] = {}
    for kind, lacks in sorted(unmet, key=lambda each: len(each[1])):
        examples.setdefault(tuple(lacks), kind.first)
    count = sum(kind.count for kind, _ in unmet)
    shown: list[str] = []
    told = ""
    for missing, machine in examples.items():
        trial = [*shown, f"{phrasing.name(machine.name)} {_lacking(machine, missing)}"]
        rest = count - len(trial)
        more = [f"{rest} more {'falls' if rest == 1 else 'fall'} short too"] if rest else []
        sentence = f"No machine meets all requirements: {'; '.join(trial + more)}."
        if shown and len(sentence) > phrasing.LONGEST_SENTENCE:
            break
        shown, told = trial, sentence
        if len(shown) == 3:
            break
    return told


def _lacking(machine: Machine, lacks: Sequence[Condition]) -> str:
    told = [condition.lack(machine) for condition in lacks[:2]]
    more = [f"misses {len(lacks) - 2} more"] if len(lacks) > 2 else []
    return phrasing.listed([*told, *more])


def _cheapest(required: Requirements, kinds: Sequence[Kind]) -> Machine:
    """Return the cheapest machine; ties: the first by name."""
    machines = [kind.first for kind in kinds]
    return min(machines, key=lambda each: billed_per_hour(each.price_per_hour, share_of(required, each)))
