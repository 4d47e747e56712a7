"""What happens after an attempt has ended, and when one is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.retry import Ended, Final, Retry, after_attempt, lost

BACKOFF = timedelta(seconds=5)
LONGEST = timedelta(minutes=8)
LEASE = timedelta(seconds=30)
LONG = timedelta(hours=1)
reasons = st.sampled_from(["COMPLETED", "CANCELLED", "EXIT_CODE", "LAUNCH_ERROR", "MACHINE_LOST", "MAX_RUNTIME"])


def decide(
    reason: str,
    *,
    attempts_made: int = 1,
    max_retries: int = 0,
    retry_on: tuple[str, ...] = (),
    stop_wanted: str | None = None,
) -> Retry | Final:
    ended = Ended(reason, attempts_made, max_retries, frozenset(retry_on), stop_wanted)
    return after_attempt(ended, backoff=BACKOFF, longest=LONGEST)


def test_without_retries_the_reason_of_the_attempt_is_that_of_the_simulation() -> None:
    assert decide("EXIT_CODE", retry_on=("EXIT_CODE",)) == Final("EXIT_CODE")


def test_one_retry_means_two_attempts() -> None:
    assert decide("MACHINE_LOST", attempts_made=1, max_retries=1, retry_on=("MACHINE_LOST",)) == Retry(BACKOFF)
    assert decide("MACHINE_LOST", attempts_made=2, max_retries=1, retry_on=("MACHINE_LOST",)) == Final("MACHINE_LOST")


def test_only_the_reasons_that_were_chosen_are_retried() -> None:
    assert decide("EXIT_CODE", max_retries=5, retry_on=("MACHINE_LOST",)) == Final("EXIT_CODE")


def test_what_completed_is_not_done_again_even_if_somebody_chose_so() -> None:
    assert decide("COMPLETED", max_retries=5, retry_on=("COMPLETED",)) == Final("COMPLETED")


def test_what_was_cancelled_is_not_done_again_even_if_somebody_chose_so() -> None:
    assert decide("CANCELLED", max_retries=5, retry_on=("CANCELLED",)) == Final("CANCELLED")


def test_what_completed_before_the_stop_reached_it_is_complete() -> None:
    assert decide("COMPLETED", stop_wanted="CANCELLED") == Final("COMPLETED")


@pytest.mark.parametrize("reason", ["MACHINE_LOST", "EXIT_CODE", "LAUNCH_ERROR", "CANCELLED"])
def test_a_stop_that_is_wanted_wins_over_every_retry(reason: str) -> None:
    assert decide(reason, max_retries=5, retry_on=(reason,), stop_wanted="CANCELLED") == Final("CANCELLED")


def test_a_stop_for_another_reason_than_cancel_keeps_its_reason() -> None:
    assert decide("MACHINE_LOST", stop_wanted="MAX_RUNTIME") == Final("MAX_RUNTIME")


def test_the_pause_doubles_up_to_the_longest() -> None:
    pauses = [decide("EXIT_CODE", attempts_made=n, max_retries=9, retry_on=("EXIT_CODE",)) for n in range(1, 10)]
    seconds = [5, 10, 20, 40, 80, 160, 320, 480, 480]
    assert pauses == [Retry(timedelta(seconds=each)) for each in seconds]


@settings(deadline=None)
@given(
    attempts=st.integers(1, 10**9),
    backoff=st.timedeltas(timedelta(0), timedelta(days=1)),
    longest=st.timedeltas(timedelta(0), timedelta(days=100)),
)
def test_no_number_of_attempts_makes_the_pause_overflow_or_longer_than_the_longest(
    attempts: int, backoff: timedelta, longest: timedelta
) -> None:
    ended = Ended("EXIT_CODE", attempts, attempts, frozenset({"EXIT_CODE"}), None)
    decision = after_attempt(ended, backoff=backoff, longest=longest)
    assert isinstance(decision, Retry)
    assert min(backoff, longest) <= decision.after <= longest


@settings(deadline=None)
@given(reasons, st.integers(1, 20), st.integers(0, 20), st.frozensets(reasons), st.none() | reasons)
def test_there_are_never_more_attempts_than_one_and_the_retries(
    reason: str, attempts: int, retries: int, retry_on: frozenset[str], stop: str | None
) -> None:
    decision = after_attempt(Ended(reason, attempts, retries, retry_on, stop), backoff=BACKOFF, longest=LONGEST)
    if isinstance(decision, Retry):
        assert attempts <= retries
        assert reason in retry_on
        assert stop is None
    else:
        assert decision.reason in (reason, stop)


def test_silence_for_more_than_a_lease_that_was_listened_to_means_lost() -> None:
    assert lost(LEASE + timedelta(seconds=1), LEASE, LONG, LONG)
    assert lost(LEASE + timedelta(seconds=1), LEASE, LEASE, LEASE)


def test_silence_for_just_a_lease_does_not() -> None:
    assert not lost(LEASE, LEASE, LONG, LONG)
    assert not lost(timedelta(seconds=-5), LEASE, LONG, LONG)


@pytest.mark.parametrize("covered", [None, timedelta(0), LEASE - timedelta(microseconds=1)])
def test_nobody_is_lost_while_nobody_listened_for_a_whole_lease(covered: timedelta | None) -> None:
    assert not lost(LONG, LEASE, covered, LONG)
    assert not lost(LONG, LEASE, LONG, covered)
