"""Result of a plan: placements, preemptions, reservations, and why runs wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from policy.queue_order import Rule
from policy.reservation import Reservation
from policy.waiting import WaitingReason


@dataclass(frozen=True, slots=True)
class Member:
    """A member's machine. `share` of it is billed: 0 to 1, 8 decimals."""

    machine_id: int
    share: Decimal


@dataclass(frozen=True, slots=True)
class Placement:
    """Start a run on these machines, one for each member, once the runs `after` have ended; now if there are none."""

    run_id: int
    members: tuple[Member, ...]
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Preemption:
    """Stop a running run to make room. `own` and `other`: what is expected of it and of the other, in GPU-seconds."""

    run_id: int
    for_id: int
    rule: Rule
    own: float
    other: float
    detail: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a run waits. `detail`: a sentence of at most 300 characters.

    `general`: a sentence that holds for all of its class; None if there is none, because it waits for something else.
    """

    run_id: int
    reason: WaitingReason
    detail: str
    general: str | None
    ahead_id: int | None = None
    rule: Rule | None = None
    estimated_start: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Result of a plan. `waiting`: the first run of each class that waits, and those that wait for something else."""

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...]
    reservations: tuple[Reservation, ...]
    waiting: tuple[Waiting, ...]
    is_complete: bool  # False: ended early, so apply it and plan again
    next_at: datetime | None  # when time alone could change the plan; None: only events can
