"""Waiting reason of one simulation. Sentences about machines: test_placement.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from policy.waiting import PAUSED_DETAIL, UNATTENDED_DETAIL, Wait, WaitingReason, why

LATER = datetime(2030, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class InQueue:
    """A queued simulation that the planner has not seen yet."""

    until: datetime | None = None
    seconds_left: float = 0.0
    attempts_made: int = 0
    max_retries: int = 0
    ended: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    paused: bool = False
    awaits: str | None = None
    awaits_state: str = ""
    awaits_condition: str = ""
    awaits_others: int = 0
    unattended: bool = False
    class_reason: str | None = None
    class_detail: str | None = None


RETRY = InQueue(LATER, 13.2, attempts_made=1, max_retries=5, ended="EXIT_CODE", exit_code=3)


def test_no_reason_before_the_first_plan() -> None:
    assert why(InQueue()) is None


def test_the_reason_of_the_class_is_the_reason_of_its_simulations() -> None:
    busy = InQueue(class_reason="MACHINES_BUSY", class_detail="All busy.")
    assert why(busy) == Wait(WaitingReason.MACHINES_BUSY, "All busy.")


def test_a_pause_takes_precedence_over_others_and_others_over_the_rest() -> None:
    held = replace(RETRY, awaits="prep", awaits_state="RUNNING", awaits_condition="ANY", unattended=True)
    assert why(replace(held, paused=True)) == Wait(WaitingReason.PAUSED, PAUSED_DETAIL)
    sentence = "It waits for the end of prep, which is RUNNING."
    assert why(held) == Wait(WaitingReason.DEPENDENCY, sentence)


def test_unattended_takes_precedence_over_a_missing_machine() -> None:
    alone = InQueue(unattended=True, class_reason="MACHINES_BUSY", class_detail="All busy.")
    assert why(alone) == Wait(WaitingReason.UNATTENDED, UNATTENDED_DETAIL)
    assert "starts when a client subscribes" in UNATTENDED_DETAIL


def test_the_backoff_of_a_retry_takes_precedence() -> None:
    sentence = "It ended with exit code 3; attempt 2 of 6 begins in 14 s."
    assert why(replace(RETRY, unattended=True, class_reason="MACHINES_BUSY")) == Wait(
        WaitingReason.BACKOFF, sentence, LATER
    )


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ({"exit_code": None, "signal": 9}, "It was ended by signal 9"),
        ({"ended": "MACHINE_LOST"}, "Its machine was lost"),
        ({"ended": "LAUNCH_ERROR"}, "It could not be launched"),
        ({"ended": "MAX_RUNTIME"}, "It took longer than its limit"),
        ({"ended": None}, "Its last attempt ended"),
    ],
)
def test_the_detail_names_the_end_of_the_last_attempt(ending: dict[str, object], words: str) -> None:
    wait = why(replace(RETRY, **ending))  # type: ignore[arg-type]  # a test's shorthand
    assert wait is not None
    assert wait.detail == f"{words}; attempt 2 of 6 begins in 14 s."


@pytest.mark.parametrize(
    ("seconds", "span"), [(0.0, "1 s"), (119.0, "119 s"), (119.5, "2 min"), (600.0, "10 min"), (-3.0, "1 s")]
)
def test_the_detail_names_the_remaining_time(seconds: float, span: str) -> None:
    wait = why(replace(RETRY, seconds_left=seconds))
    assert wait is not None
    assert wait.detail.endswith(f"begins in {span}.")
