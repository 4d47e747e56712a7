"""What one simulation waits for, of all that the rows say of it. Sentences about machines: test_placement.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from policy.waiting import UNATTENDED_DETAIL, Wait, WaitingReason, why

LATER = datetime(2030, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class InQueue:
    """One that the planner has not looked at yet."""

    until: datetime | None = None
    seconds_left: float = 0.0
    attempts_made: int = 0
    max_retries: int = 0
    ended: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    unattended: bool = False
    class_reason: str | None = None
    class_detail: str | None = None


RETRY = InQueue(LATER, 13.2, attempts_made=1, max_retries=5, ended="EXIT_CODE", exit_code=3)


def test_before_the_planner_has_looked_there_is_no_reason() -> None:
    assert why(InQueue()) is None


def test_what_all_of_its_class_wait_for_is_what_it_waits_for() -> None:
    busy = InQueue(class_reason="MACHINES_BUSY", class_detail="All busy.")
    assert why(busy) == Wait(WaitingReason.MACHINES_BUSY, "All busy.")


def test_what_nobody_watches_waits_for_that_before_it_waits_for_a_machine() -> None:
    alone = InQueue(unattended=True, class_reason="MACHINES_BUSY", class_detail="All busy.")
    assert why(alone) == Wait(WaitingReason.UNATTENDED, UNATTENDED_DETAIL)
    assert "starts when somebody subscribes" in UNATTENDED_DETAIL


def test_a_retry_waits_for_its_backoff_before_anything_else() -> None:
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
def test_it_says_how_the_last_attempt_ended(ending: dict[str, object], words: str) -> None:
    wait = why(replace(RETRY, **ending))  # type: ignore[arg-type]  # a test's shorthand
    assert wait is not None
    assert wait.detail == f"{words}; attempt 2 of 6 begins in 14 s."


@pytest.mark.parametrize(
    ("seconds", "span"), [(0.0, "1 s"), (119.0, "119 s"), (119.5, "2 min"), (600.0, "10 min"), (-3.0, "1 s")]
)
def test_it_says_for_how_long(seconds: float, span: str) -> None:
    wait = why(replace(RETRY, seconds_left=seconds))
    assert wait is not None
    assert wait.detail.endswith(f"begins in {span}.")
