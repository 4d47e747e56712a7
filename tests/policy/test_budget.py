"""Budgets: room for another start, what to stop and to end, periods and sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.budget import (
    Account,
    Period,
    Reserve,
    Running,
    Verdict,
    headroom,
    lasts_until,
    may_start,
    needed,
    refusal,
    span_of,
    verdict_of,
    warnings_due,
)

NOW = datetime(2026, 11, 29, 14, 30, tzinfo=UTC)
RESERVE = Reserve(look=timedelta(seconds=1), heartbeat=timedelta(seconds=2), grace=timedelta(seconds=10))
SECOND = timedelta(seconds=1)
HUNDRED = Account(Decimal(100), "USD", spent=Decimal(0), per_hour=Decimal(0))

rates = st.decimals(Decimal(0), Decimal(400), places=6)
money = st.decimals(Decimal(0), Decimal(10), places=6)


def running(number: int, per_hour: str | Decimal, priority: int = 0, stopped: timedelta | None = None) -> Running:
    return Running(
        number, number, priority, NOW - timedelta(hours=1) + number * SECOND, Decimal(per_hour),
        NOW - stopped if stopped is not None else None,
    )  # fmt: skip


def account(left: str, *of: Running) -> Account:
    return Account(Decimal(100), "USD", Decimal(100) - Decimal(left), sum((each.per_hour for each in of), Decimal(0)))


def test_a_start_needs_money_for_the_whole_reserve_of_all_that_runs() -> None:
    # 13 seconds of 36 $ an hour are 13 cents.
    assert needed(Decimal(36), RESERVE.whole) == Decimal("0.13")
    one = replace(HUNDRED, spent=Decimal("99.87"))
    assert may_start(one, Decimal(36), "USD", RESERVE)
    assert not may_start(one, Decimal("36.000001"), "USD", RESERVE)
    beside = replace(one, spent=Decimal("99.74"), per_hour=Decimal(36))
    assert may_start(beside, Decimal(36), "USD", RESERVE)
    assert headroom(beside, "USD", RESERVE) == 36
    assert not may_start(replace(beside, per_hour=Decimal(37)), Decimal(36), "USD", RESERVE)


def test_what_is_free_starts_whatever_the_budget_and_its_currency_are() -> None:
    for each in (
        replace(HUNDRED, spent=Decimal(101)),
        replace(HUNDRED, is_closed=True),
        replace(HUNDRED, amount=Decimal(0)),
    ):
        assert may_start(each, Decimal(0), "EUR", RESERVE)
        assert not may_start(each, Decimal("0.000001"), "USD", RESERVE)


def test_nothing_starts_that_is_billed_in_another_currency() -> None:
    assert not may_start(HUNDRED, Decimal(1), "EUR", RESERVE)
    assert headroom(HUNDRED, "EUR", RESERVE) == 0


def test_nothing_starts_in_a_period_in_which_attempts_were_stopped_for_the_budget() -> None:
    """Otherwise the reserve that a stop leaves would start and stop the queue, one after the other."""
    assert headroom(replace(HUNDRED, is_closed=True), "USD", RESERVE) == 0


def test_nothing_is_stopped_while_the_rest_pays_for_the_whole_reserve() -> None:
    all_ = [running(1, "36"), running(2, "36")]
    assert verdict_of(account("0.26", *all_), all_, NOW, RESERVE) == Verdict()
    assert verdict_of(account("0.259999", *all_), all_, NOW, RESERVE).stop == (all_[1],)


def test_the_highest_priority_and_then_the_oldest_are_kept_as_far_as_the_money_goes() -> None:
    all_ = [running(1, "36"), running(2, "36", priority=5), running(3, "36"), running(4, "0")]
    # 0.36 are reserved for three stops; a cent pays for another second of one of them.
    assert verdict_of(account("0.37", *all_), all_, NOW, RESERVE).stop == (all_[0], all_[2])
    assert verdict_of(account("0.38", *all_), all_, NOW, RESERVE).stop == (all_[2],)
    assert verdict_of(account("0.36", *all_), all_, NOW, RESERVE).stop == (all_[1], all_[0], all_[2])
    assert verdict_of(account("-5", *all_), all_, NOW, RESERVE).stop == (all_[1], all_[0], all_[2])


def test_a_cheap_one_goes_on_after_a_dear_one_was_stopped() -> None:
    dear, cheap = running(1, "100"), running(2, "0.01")
    assert verdict_of(account("0.3354", dear, cheap), [dear, cheap], NOW, RESERVE).stop == (dear,)
    assert verdict_of(account("0.3354", cheap), [cheap], NOW, RESERVE) == Verdict()


def test_what_was_stopped_is_ended_when_the_rest_pays_for_no_other_look() -> None:
    stopped = running(1, "36", stopped=11 * SECOND)
    assert verdict_of(account("0.01", stopped), [stopped], NOW, RESERVE).end == ()
    assert verdict_of(account("0.009999", stopped), [stopped], NOW, RESERVE).end == (stopped,)


def test_after_an_outage_what_was_just_stopped_has_its_time() -> None:
    fresh, late = running(1, "36", stopped=2 * SECOND), running(2, "36", stopped=11 * SECOND)
    assert verdict_of(account("-3", fresh, late), [fresh, late], NOW, RESERVE).end == (late,)


def test_warnings_are_due_once_for_each_threshold() -> None:
    assert warnings_due(replace(HUNDRED, spent=Decimal("49.99")), 0) == ()
    assert warnings_due(replace(HUNDRED, spent=Decimal(50)), 0) == (50,)
    assert warnings_due(replace(HUNDRED, spent=Decimal(79)), 50) == ()
    assert warnings_due(replace(HUNDRED, spent=Decimal("99.99")), 0) == (50, 80)
    assert warnings_due(replace(HUNDRED, spent=Decimal("99.99"), is_closed=True), 80) == (100,)
    assert warnings_due(replace(HUNDRED, amount=Decimal(0)), 0) == (50, 80, 100)
    assert warnings_due(replace(HUNDRED, spent=Decimal(120)), 100) == ()


def test_the_end_of_the_money_follows_from_the_rate() -> None:
    assert lasts_until(HUNDRED, NOW) is None
    assert lasts_until(replace(HUNDRED, per_hour=Decimal(50)), NOW) == NOW + timedelta(hours=2)
    assert lasts_until(replace(HUNDRED, spent=Decimal(200), per_hour=Decimal(50)), NOW) == NOW
    assert lasts_until(replace(HUNDRED, per_hour=Decimal("0.000001")), NOW) is None


@settings(deadline=None)
@given(money, rates, rates)
def test_what_may_start_could_be_stopped_at_once_without_overspending(
    left: Decimal, rate: Decimal, per_hour: Decimal
) -> None:
    one = Account(Decimal(100), "USD", Decimal(100) - left, rate)
    if per_hour and may_start(one, per_hour, "USD", RESERVE):
        assert needed(rate + per_hour, RESERVE.whole) <= left


@settings(deadline=None)
@given(money, st.lists(st.tuples(rates, st.integers(-2, 2)), max_size=8))
def test_with_a_look_each_second_no_budget_is_exceeded_even_if_nothing_obeys(
    left: Decimal, given_: list[tuple[Decimal, int]]
) -> None:
    """A day of looks, played: no attempt follows its stop, and each is billed until it is ended."""
    open_ = [running(number, rate, priority) for number, (rate, priority) in enumerate(given_) if rate]
    rate = sum((each.per_hour for each in open_), Decimal(0))
    if needed(rate, RESERVE.whole) > left:
        return  # such a state is never reached: nothing starts in it
    now = NOW
    for _ in range(200):
        verdict = verdict_of(account(str(left), *open_), open_, now, RESERVE)
        ended, stopped = set(verdict.end), set(verdict.stop)
        assert not ended & stopped
        open_ = [replace(each, stop_wanted_at=now) if each in stopped else each for each in open_ if each not in ended]
        left -= sum((each.per_hour for each in open_), Decimal(0)) / 3600  # until the next look
        now += SECOND
        assert left >= 0


@pytest.mark.parametrize(
    ("period", "zone", "begin", "end"),
    [
        (Period.DAY, "UTC", "2026-11-29T00:00+00:00", "2026-11-30T00:00+00:00"),
        (Period.WEEK, "UTC", "2026-11-23T00:00+00:00", "2026-11-30T00:00+00:00"),
        (Period.MONTH, "UTC", "2026-11-01T00:00+00:00", "2026-12-01T00:00+00:00"),
        (Period.DAY, "Europe/Berlin", "2026-11-28T23:00+00:00", "2026-11-29T23:00+00:00"),
        (Period.MONTH, "Asia/Tokyo", "2026-10-31T15:00+00:00", "2026-11-30T15:00+00:00"),
    ],
)
def test_periods_follow_the_calendar_of_the_time_zone(period: Period, zone: str, begin: str, end: str) -> None:
    span = span_of(period, NOW, ZoneInfo(zone))
    assert (span.begin, span.end) == (datetime.fromisoformat(begin), datetime.fromisoformat(end))


def test_a_day_has_25_hours_when_clocks_go_back() -> None:
    span = span_of(Period.DAY, datetime(2026, 10, 25, 12, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
    assert span.end is not None
    assert span.end - span.begin == timedelta(hours=25)


@settings(deadline=None)
@given(
    st.integers(0, 3_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_each_moment_is_in_one_period_and_periods_join(at: datetime, period: Period, zone: str) -> None:
    span = span_of(period, at, ZoneInfo(zone))
    assert span.end is not None
    assert span.begin <= at < span.end
    assert span_of(period, span.begin, ZoneInfo(zone)) == span
    assert span_of(period, span.end, ZoneInfo(zone)).begin == span.end


def test_the_sentence_names_the_budget_the_amounts_and_the_next_period() -> None:
    used_up = replace(HUNDRED, spent=Decimal("99.996"), is_closed=True)
    span = span_of(Period.MONTH, NOW, UTC)
    assert refusal(used_up, Period.MONTH, span, UTC, project="vision", currency="USD") == (
        "The budget of project vision for November 2026 is used up: 100.00 USD of 100.00 USD. The next period begins "
        "on 1 December 2026."
    )
    assert refusal(used_up, Period.MONTH, span, UTC, project=None, currency="USD") == (
        "The budget of this installation for November 2026 is used up. The next period begins on 1 December 2026."
    )
    low = replace(HUNDRED, spent=Decimal("99.9"))
    assert refusal(low, Period.TOTAL, span_of(Period.TOTAL, NOW, UTC), UTC, project="x", currency="USD") == (
        "The total budget of project x has 0.10 USD of 100.00 USD left, which does not pay for another start beside "
        "what runs."
    )
    assert "is in USD, but machines are billed in EUR" in refusal(
        low, Period.DAY, span_of(Period.DAY, NOW, UTC), UTC, project="x", currency="EUR"
    )
    assert len(refusal(low, Period.WEEK, span_of(Period.WEEK, NOW, UTC), UTC, project="x" * 999, currency="USD")) <= 300
