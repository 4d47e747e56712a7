"""Alerts: which kinds an event has, whom it is sent to, and when a delivery is tried again.

An event has all kinds that describe it, the most specific first: a run that diverged has also failed and ended. A
target gets one message for an event, of the first kind that it listens to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=1)
GIVEN_UP_AFTER = timedelta(days=3)  # a weekend
JITTER = 0.2  # so that what failed together is not tried again together
BUDGET_PERCENT = 80  # spent, before it is an alert

FINAL_STATES = ("FINISHED", "FAILED", "CANCELLED")
LONG_WAIT = "WAITS_TOO_LONG"  # the kind of the event
BUDGET_WARNING = "BUDGET_WARNING"  # likewise


class AlertKind(StrEnum):
    """What a target listens to."""

    ENDED = "ENDED"
    FAILED = "FAILED"
    DIVERGED = "DIVERGED"
    TARGET_REACHED = "TARGET_REACHED"
    PLATEAU = "PLATEAU"
    MACHINE_LOST = "MACHINE_LOST"
    WAITS_TOO_LONG = "WAITS_TOO_LONG"
    BUDGET = "BUDGET"

    @property
    def type(self) -> str:
        """The `type` of the message."""
        return "budget.warning" if self is AlertKind.BUDGET else f"simulation.{self.value.lower()}"


TEST_TYPE = "alert.test"
_BY_REASON = {
    "DIVERGENCE_THRESHOLD": AlertKind.DIVERGED,
    "NON_FINITE_METRIC": AlertKind.DIVERGED,
    "STOPPING_THRESHOLD": AlertKind.TARGET_REACHED,
    "PATIENCE_EXHAUSTED": AlertKind.PLATEAU,
    "MACHINE_LOST": AlertKind.MACHINE_LOST,
}


def kinds_of(event: str, *, reason: str | None = None, percent: int | None = None) -> Sequence[AlertKind]:
    """Return the kinds of an event, the most specific first; empty for an event without an alert."""
    specific = [_BY_REASON[reason]] if reason in _BY_REASON else []
    if event == "QUEUED":  # again, after an attempt
        return [AlertKind.MACHINE_LOST] if reason == "MACHINE_LOST" else []
    if event in FINAL_STATES:
        return [*specific, *([AlertKind.FAILED] if event == "FAILED" else []), AlertKind.ENDED]
    if event == LONG_WAIT:
        return [AlertKind.WAITS_TOO_LONG]
    if event == BUDGET_WARNING and percent is not None and percent >= BUDGET_PERCENT:
        return [AlertKind.BUDGET]
    return []


class Target(Protocol):
    """A target, as far as it matters here."""

    @property
    def id(self) -> int: ...
    @property
    def kinds(self) -> Sequence[str]: ...
    @property
    def project_ids(self) -> Sequence[int] | None: ...
    @property
    def is_default(self) -> bool: ...


def serves(target: Target, project_id: int | None) -> bool:
    """True if the target is for this project; None: for what concerns the whole installation."""
    return target.project_ids is None or project_id in target.project_ids


def kind_for(
    target: Target, kinds: Sequence[AlertKind], project_id: int | None, chosen: Collection[int] | None
) -> AlertKind | None:
    """Return the kind of the message that a target gets for an event; None for no message.

    chosen: ids of the targets that the simulation names; None: the defaults of its project.
    """
    is_wanted = target.is_default if chosen is None else target.id in chosen
    if not is_wanted or not serves(target, project_id):
        return None
    return next((kind for kind in kinds if kind.value in target.kinds), None)


def retry_after(attempts: int, age: timedelta, chance: float) -> timedelta | None:
    """Return the pause after a failed delivery, which doubles; None if it is given up.

    attempts: so far, from 1. age: since the event. chance: 0 to 1, from a random source.
    """
    if age >= GIVEN_UP_AFTER:
        return None
    pause: timedelta = min(FIRST_PAUSE * 2 ** min(attempts - 1, 20), LONGEST_PAUSE)
    return pause * (1 + JITTER * (2 * chance - 1))
