"""State of the scheduling problem as plain data: runs, projects and the knobs of an installation.

A plan is a function of these, the machines (`policy.matching.Machine`) and the time. Everything holds "as of now": the
caller adds what has passed since the last report. Units: seconds as floats, work in GPU-seconds, times in UTC.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from policy.matching import Requirements


@dataclass(frozen=True, slots=True)
class Run:
    """A simulation that is queued or running.

    `attained_seconds` is useful time: of all attempts that count, the present one included, without work lost at a
    restart. `lineage` lists the classes to learn durations from, the most general one first.
    """

    id: int
    project: int
    priority: int
    submitted_at: datetime
    requirements: Requirements  # of each member
    machines: int = 1  # members, each on a machine of its own, all or none
    preemptible: bool = False
    max_steps: float | None = None
    max_runtime_seconds: float | None = None
    attained_seconds: float = 0.0
    steps_done: float = 0.0
    steps_per_second: float | None = None  # None: not measured yet
    lineage: tuple[Hashable, ...] = ()
    checkpoint_machine: int | None = None  # its progress counts on the host of this machine alone; None: everywhere
    waiting_since: datetime | None = None  # of a queued run: its newest queueing; None: long ago
    group: Hashable = None  # equal for equal requirements, where the caller knows; None: they are compared
    more: bool = False  # runs follow in its class that are not in the plan
    machine_ids: tuple[int, ...] = ()  # of its members, by rank; empty while queued
    started_at: datetime | None = None  # of the running attempt
    last_checkpoint_at: datetime | None = None
    leaving: bool = False  # has been asked to stop: its room will soon be free, and it is never preempted

    @property
    def gpus(self) -> int:
        """GPUs of all members."""
        return max(self.requirements.gpus, 0) * self.machines


@dataclass(frozen=True, slots=True)
class Project:
    """A project's claim: its weight, its decayed use at `used_at`, and how many GPUs it may hold at once."""

    id: int
    weight: float = 1.0
    used: float = 0.0
    used_at: datetime | None = None
    gpu_quota: int | None = None


class Discipline(StrEnum):
    """Queue discipline: the key by which the queue is sorted.

    The service uses SERVICE; the replay of traces compares it with the others.
    """

    SERVICE = "SERVICE"  # expected GPU-seconds, smallest first
    TIME = "TIME"  # expected seconds, smallest first
    ARRIVAL = "ARRIVAL"  # first come, first served


@dataclass(frozen=True, slots=True)
class Knobs:
    """Settings of the policy. The defaults were chosen on recorded traces (docs/performance.md)."""

    max_wait_seconds: float | None = 86_400  # the oldest run beyond it goes first; None: never
    min_run_seconds: float = 300  # an attempt is not preempted before
    fair_share: bool = True
    half_life_seconds: float = 7 * 86_400  # of a project's use
    time_value: Decimal = Decimal(0)  # per GPU-hour, beside the price: faster machines are worth more
    reservations: int = 4  # held for the first runs that can't be placed
    progress_after_seconds: float = 60  # before, a step rate is not trusted
    hysteresis_progress: float = 1.25  # how much smaller a key must be to preempt, if progress is measured
    hysteresis: float = 3.0  # and if not
    discipline: Discipline = Discipline.SERVICE


DEFAULTS = Knobs()
