"""What happens after an attempt has ended, what its exit means, when it is lost, and when it is to be stopped."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.arguments import Retryable
from policy.retry import (
    LEAVING,
    MOST_BACKOFFS,
    OVERTIME,
    RETRYABLE,
    Ended,
    Exit,
    Final,
    Meaning,
    Retry,
    after_attempt,
    beat_period,
    completes,
    coverage_gap,
    has_outstayed,
    heard_since,
    ignores_stop,
    is_lost,
    is_overdue,
    is_unwatched,
    meaning_of,
)

BACKOFF = timedelta(seconds=5)
LONGEST = MOST_BACKOFFS * BACKOFF
LEASE = timedelta(seconds=30)
NOTHING = timedelta(0)
LONG = timedelta(hours=1)
GRACE = timedelta(seconds=10)
MOMENT = timedelta(microseconds=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
reasons = st.sampled_from(
    ["COMPLETED", "CANCELLED", "EXIT_CODE", "LAUNCH_ERROR", "MACHINE_LOST", "MAX_RUNTIME", "PREEMPTED"]
)


def decide(
    reason: str,
    *,
    attempts_made: int = 1,
    max_retries: int = 0,
    retry_on: tuple[str, ...] = (),
    stop_wanted: str | None = None,
) -> Retry | Final:
    ended = Ended(reason, attempts_made, max_retries, frozenset(retry_on), stop_wanted)
    return after_attempt(ended, backoff=BACKOFF)


def test_without_retries_the_reason_of_the_attempt_is_that_of_the_simulation() -> None:
    assert decide("EXIT_CODE", retry_on=("EXIT_CODE",)) == Final("EXIT_CODE")


def test_one_retry_means_two_attempts() -> None:
    assert decide("MACHINE_LOST", attempts_made=1, max_retries=1, retry_on=("MACHINE_LOST",)) == Retry(
        NOTHING, "MACHINE_LOST"
    )
    assert decide("MACHINE_LOST", attempts_made=2, max_retries=1, retry_on=("MACHINE_LOST",)) == Final("MACHINE_LOST")


def test_the_first_retry_after_a_lost_machine_waits_for_nothing_and_later_ones_do() -> None:
    lost_again = [decide("MACHINE_LOST", attempts_made=n, max_retries=9, retry_on=("MACHINE_LOST",)) for n in (1, 2, 3)]
    assert lost_again == [Retry(pause, "MACHINE_LOST") for pause in (NOTHING, 2 * BACKOFF, 4 * BACKOFF)]


@pytest.mark.parametrize("reason", ["PREEMPTED", "CANCELLED", "EXIT_CODE", "MACHINE_LOST", "LAUNCH_ERROR"])
def test_what_was_preempted_is_queued_at_once_however_it_ended_and_uses_up_no_retry(reason: str) -> None:
    assert decide(reason, max_retries=0, stop_wanted="PREEMPTED") == Retry(NOTHING, "PREEMPTED")


def test_what_completed_or_exceeded_its_limit_before_it_made_room_is_final() -> None:
    assert decide("COMPLETED", stop_wanted="PREEMPTED") == Final("COMPLETED")
    assert decide("MAX_RUNTIME", stop_wanted="PREEMPTED") == Final("MAX_RUNTIME")


@pytest.mark.parametrize("reason", ["MAX_RUNTIME", "UNWATCHED", "CANCELLED", "COMPLETED"])
def test_what_is_not_retryable_is_not_retried_even_if_it_was_chosen(reason: str) -> None:
    assert decide(reason, max_retries=5, retry_on=(reason,)) == Final(reason)


def test_only_the_reasons_that_were_chosen_are_retried() -> None:
    assert decide("EXIT_CODE", max_retries=5, retry_on=("MACHINE_LOST",)) == Final("EXIT_CODE")


def test_a_completed_attempt_is_not_retried_even_if_chosen() -> None:
    assert decide("COMPLETED", max_retries=5, retry_on=("COMPLETED",)) == Final("COMPLETED")


def test_a_cancelled_attempt_is_not_retried_even_if_chosen() -> None:
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
    seconds = [5, 10, 20, 40, 80, 160, 320, 500, 500]
    assert pauses == [Retry(timedelta(seconds=each), "EXIT_CODE") for each in seconds]


@settings(deadline=None)
@given(
    attempts=st.integers(1, 10**9),
    backoff=st.timedeltas(timedelta(0), timedelta(days=1)),
)
def test_no_number_of_attempts_makes_the_pause_overflow_or_longer_than_the_longest(
    attempts: int, backoff: timedelta
) -> None:
    ended = Ended("EXIT_CODE", attempts, attempts, frozenset({"EXIT_CODE"}), None)
    decision = after_attempt(ended, backoff=backoff)
    assert isinstance(decision, Retry)
    assert backoff <= decision.after <= MOST_BACKOFFS * backoff


@settings(deadline=None)
@given(reasons, st.integers(1, 20), st.integers(0, 20), st.frozensets(reasons), st.none() | reasons)
def test_there_are_never_more_attempts_than_one_and_the_retries(
    reason: str, attempts: int, retries: int, retry_on: frozenset[str], stop: str | None
) -> None:
    decision = after_attempt(Ended(reason, attempts, retries, retry_on, stop), backoff=BACKOFF)
    if stop == "PREEMPTED" and reason not in ("COMPLETED", "MAX_RUNTIME"):
        assert decision == Retry(NOTHING, "PREEMPTED")
    elif isinstance(decision, Retry):
        assert attempts <= retries
        assert reason in retry_on
        assert stop is None
    else:
        assert decision.reason in (reason, stop)


# --- silence and losses ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beats:
    covered_since: datetime
    beat_at: datetime


@dataclass(frozen=True)
class Listening:
    now: datetime
    graph: Beats | None
    scheduler: Beats | None


def listening(graph: timedelta | None = LONG, scheduler: timedelta | None = LONG) -> Listening:
    """Both roles beat without a gap for so long; None: not now."""
    return Listening(NOW, *(Beats(NOW - each, NOW) if each is not None else None for each in (graph, scheduler)))


def lost(silent_for: timedelta, *covered: timedelta | None, host_lives: bool = False) -> bool:
    return is_lost(NOW - silent_for, listening(*covered), LEASE, host_lives=host_lives)


def test_silence_for_more_than_a_lease_that_was_listened_to_means_lost() -> None:
    assert lost(LEASE + MOMENT)
    assert lost(LEASE + MOMENT, LEASE, LEASE)


def test_silence_for_just_a_lease_does_not() -> None:
    assert not lost(LEASE)
    assert not lost(timedelta(seconds=-5))


@pytest.mark.parametrize("covered", [None, timedelta(0), LEASE - timedelta(microseconds=1)])
def test_no_attempt_is_lost_unless_reports_could_arrive_for_a_whole_lease(covered: timedelta | None) -> None:
    assert not lost(LONG, covered, LONG)
    assert not lost(LONG, LONG, covered)


def test_a_role_that_has_missed_its_last_beats_does_not_listen_now() -> None:
    gone = Beats(NOW - LONG, NOW - coverage_gap(LEASE) - MOMENT)
    assert heard_since(replace(listening(), scheduler=gone), LEASE) is None
    assert not is_lost(NOW - LONG, replace(listening(), graph=gone), LEASE, host_lives=False)


def test_where_the_hosts_own_scheduler_lives_it_has_another_lease_to_prove_the_loss() -> None:
    assert not lost(2 * LEASE, host_lives=True)
    assert lost(2 * LEASE + MOMENT, host_lives=True)
    assert not lost(LONG, 2 * LEASE - MOMENT, LONG, host_lives=True)


def test_a_role_beats_three_times_in_the_silence_that_breaks_its_cover() -> None:
    assert coverage_gap(LEASE) / beat_period(LEASE) == pytest.approx(3)
    assert coverage_gap(LEASE) == LEASE / 3


# --- stops -----------------------------------------------------------------------------------------------------


def test_overdue_is_what_exceeds_limit_grace_and_the_difference_of_clocks() -> None:
    just = timedelta(minutes=10) + GRACE + OVERTIME

    def overdue(ran: timedelta, heard: Listening) -> bool:
        return is_overdue(NOW - ran, timedelta(minutes=10), heard, LEASE, GRACE)

    assert not overdue(just, listening())
    assert overdue(just + MOMENT, listening())
    assert overdue(just + MOMENT, listening(graph=None)), "no report is needed to count time"
    assert not overdue(just + MOMENT, listening(scheduler=None))
    assert not overdue(LONG, listening(scheduler=just)), "time before the last gap of the scheduler does not count"


def test_unwatched_is_what_had_no_subscriber_for_its_grace_in_which_it_could_have_had_one() -> None:
    def unwatched(since: timedelta, heard: Listening) -> bool:
        return is_unwatched(NOW - since, GRACE, heard, LEASE)

    assert not unwatched(GRACE, listening())
    assert unwatched(GRACE + MOMENT, listening())
    assert unwatched(GRACE + MOMENT, listening(scheduler=None))
    assert not unwatched(GRACE + MOMENT, listening(graph=None))
    assert not unwatched(LONG, listening(graph=GRACE)), "no graph process was there to subscribe to"


def test_a_stop_is_ignored_after_the_grace_and_a_lease_in_which_it_could_be_received() -> None:
    def ignores(since: timedelta | None, heard: Listening) -> bool:
        return ignores_stop(NOW - since if since is not None else None, heard, LEASE, GRACE)

    assert not ignores(None, listening())
    assert not ignores(GRACE + LEASE, listening())
    assert ignores(GRACE + LEASE + MOMENT, listening())
    assert not ignores(LONG, listening(graph=GRACE + LEASE)), "reports could not come in before"
    assert not ignores(LONG, listening(scheduler=None))


def test_what_was_lost_outstays_at_once_and_what_ended_otherwise_after_time_to_leave() -> None:
    assert has_outstayed("MACHINE_LOST", NOW, NOW, GRACE)
    assert not has_outstayed("COMPLETED", NOW - GRACE - LEAVING, NOW, GRACE)
    assert has_outstayed("COMPLETED", NOW - GRACE - LEAVING - MOMENT, NOW, GRACE)


# --- what an exit means ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_", "stop", "meaning"),
    [
        (Exit(0), None, Meaning("COMPLETED", None, 0, None)),
        (Exit(0), "CANCELLED", Meaning("COMPLETED", None, 0, None)),
        (Exit(3), None, Meaning("EXIT_CODE", "It ended with exit code 3.", 3, None)),
        (Exit(3, message="Out of memory."), None, Meaning("EXIT_CODE", "Out of memory.", 3, None)),
        (Exit(None, 9), None, Meaning("EXIT_CODE", "It was ended by signal 9 (SIGKILL).", None, 9)),
        (Exit(None, 99), None, Meaning("EXIT_CODE", "It was ended by signal 99 (unknown).", None, 99)),
        (Exit(None, 15, "CANCELLED"), "CANCELLED", Meaning("CANCELLED", None, None, 15)),
        (Exit(None, 15, "CANCELLED"), None, Meaning("EXIT_CODE", "It was ended by signal 15 (SIGTERM).", None, 15)),
        (Exit(0, None, "PREEMPTED"), "PREEMPTED", Meaning("PREEMPTED", None, 0, None)),
        (Exit(0, None, "PREEMPTED"), "CANCELLED", Meaning("CANCELLED", None, 0, None)),  # it was replaced meanwhile
        (Exit(0, None, "MAX_RUNTIME", "Too long."), None, Meaning("MAX_RUNTIME", "Too long.", 0, None)),
        (Exit(0, None, "MACHINE_LOST"), None, Meaning("MACHINE_LOST", None, 0, None)),
        (Exit(1, 2, "LAUNCH_ERROR", "No such file."), None, Meaning("LAUNCH_ERROR", "No such file.", None, None)),
        (Exit(0, None, "COMPLETED"), None, Meaning("COMPLETED", None, 0, None)),
        (Exit(None, None, "anything"), None, Meaning("EXIT_CODE", "It ended with exit code None.", None, None)),
    ],
)
def test_an_exit_means(exit_: Exit, stop: str | None, meaning: Meaning) -> None:
    assert meaning_of(exit_, stop) == meaning


STOPS = st.sampled_from([None, "CANCELLED", "PREEMPTED", "PRUNED", "MAX_COST", "MACHINE_LOST"])


@given(
    st.builds(Exit, st.sampled_from([None, 0, 1]), st.sampled_from([None, 9]), st.sampled_from([None, "CANCELLED"])),
    STOPS, st.integers(1, 9), st.integers(0, 9), st.sets(st.sampled_from(RETRYABLE)), st.booleans(),
)  # fmt: skip
def test_an_exit_that_completes_is_final_whatever_is_wanted(
    exit_: Exit, stop: str | None, made: int, most: int, retry_on: set[str], is_spent: bool
) -> None:
    if completes(exit_):
        meaning = meaning_of(exit_, stop)
        assert meaning == meaning_of(exit_, None)
        ended = Ended(meaning.reason, made, most, frozenset(retry_on), stop, is_spent)
        assert after_attempt(ended, backoff=BACKOFF) == Final("COMPLETED")
    else:
        assert (exit_.exit_code, exit_.reason) != (0, None)


# --- the list that three places show ---------------------------------------------------------------------------


def test_schema_command_line_and_page_name_what_may_be_retried_and_nothing_else() -> None:
    assert f"any of {', '.join(RETRYABLE)}." in (ROOT / "graph/schema.graphql").read_text(encoding="utf-8")
    assert get_args(Retryable) == RETRYABLE
    page = (ROOT / "web/src/submit/draft.svelte.ts").read_text(encoding="utf-8")
    listed = re.search(r"RETRYABLE = \[(.*?)\] as const", page)
    assert listed is not None
    assert tuple(re.findall(r"[A-Z_]+", listed[1])) == RETRYABLE


@pytest.mark.parametrize(
    "reason", ["MAX_COST", "NON_FINITE_METRIC", "DIVERGENCE_THRESHOLD", "PATIENCE_EXHAUSTED", "STOPPING_THRESHOLD"]
)
def test_limits_and_stop_rules_are_never_retried(reason: str) -> None:
    assert decide(reason, stop_wanted=reason) == Final(reason)
    assert decide("MACHINE_LOST", stop_wanted=reason) == Final(reason)
    assert reason not in RETRYABLE


def test_the_supervisors_own_cost_limit_is_final_even_during_a_preemption() -> None:
    assert decide("MAX_COST", stop_wanted="PREEMPTED") == Final("MAX_COST")
    assert meaning_of(Exit(None, 15, "MAX_COST", "Used up."), None) == Meaning("MAX_COST", "Used up.", None, 15)


def test_there_is_no_further_attempt_without_money_for_it() -> None:
    lost = Ended(
        "MACHINE_LOST", 1, max_retries=3, retry_on=frozenset({"MACHINE_LOST"}), stop_wanted=None, is_spent=True
    )
    assert after_attempt(lost, backoff=BACKOFF) == Final("MAX_COST")
    assert after_attempt(replace(lost, stop_wanted="PREEMPTED"), backoff=BACKOFF) == Final("MAX_COST")
    assert after_attempt(replace(lost, reason="COMPLETED"), backoff=BACKOFF) == Final("COMPLETED")
