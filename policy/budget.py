"""Budgets: what a budget has left, whether another attempt may start, and which ones to stop before it is used up.

A budget is an amount for a period: a day, a week (from Monday), a month, or in total. An attempt that starts has to be
stoppable before the money is gone. A stop takes one look of the judge, one heartbeat and one grace (`Reserve`), so:

    left pays for running attempts and the new one, for the whole reserve    -> it may start
    left no longer pays for all running ones, for the whole reserve          -> stop what it does not pay for
    left no longer pays for one more look                                    -> end what was stopped and has not ended

By the last line a machine that sends nothing costs no more than one that obeys. As long as the judge looks once in
`Reserve.look`, a budget is therefore never exceeded; after an outage of the judge it is exceeded by at most the length
of the outage times the rate.

Amounts are Decimals with six decimals, as costs are. Amounts of different currencies are never added: a budget counts
what was billed in its own currency, and lets nothing start that would be billed in another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum

from policy import phrasing

THRESHOLDS = (50, 80, 100)  # percent at which a warning is recorded, once in each period

_MONEY_STEP = Decimal("0.000001")
_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


class Period(StrEnum):
    """How often a budget begins anew."""

    DAY = "DAY"
    WEEK = "WEEK"  # from Monday
    MONTH = "MONTH"
    TOTAL = "TOTAL"  # never


@dataclass(frozen=True, slots=True)
class Span:
    """A period of the calendar; the end is excluded, and None where there is none."""

    begin: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True)
class Reserve:
    """How long an attempt may cost money after it was decided to stop it."""

    look: timedelta  # from one look of the judge to the next
    heartbeat: timedelta  # until the supervisor has received the stop
    grace: timedelta  # until it has killed the process

    @property
    def to_end(self) -> timedelta:
        return self.heartbeat + self.grace

    @property
    def whole(self) -> timedelta:
        return self.look + self.to_end


@dataclass(frozen=True, slots=True)
class Account:
    """A budget at one moment of its period."""

    amount: Decimal
    currency: str
    spent: Decimal  # by ended and by running attempts, up to now
    per_hour: Decimal  # of all running attempts
    is_closed: bool = False  # attempts were stopped for it in this period: nothing else starts before the next one

    @property
    def left(self) -> Decimal:
        return self.amount - self.spent

    @property
    def is_used_up(self) -> bool:
        return self.is_closed or self.left <= 0

    @property
    def percent(self) -> int:
        """Return the spent part in whole percent, rounded down; 100 from the moment at which it counts as used up."""
        if self.is_used_up:
            return 100
        return int(self.spent * 100 / self.amount)


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that holds machines, and its rate: the sum over its members."""

    attempt_id: int
    simulation_id: int
    priority: int
    assigned_at: datetime
    per_hour: Decimal
    stop_wanted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Attempts to be stopped, with time to write a checkpoint, and attempts to be ended at once."""

    stop: tuple[Running, ...] = ()
    end: tuple[Running, ...] = ()


# --- starting --------------------------------------------------------------------------------------------------


def needed(per_hour: Decimal, time: timedelta) -> Decimal:
    """Return what a rate costs in a time, rounded up."""
    return (per_hour * (time // _MICROSECOND) / (_HOUR // _MICROSECOND)).quantize(_MONEY_STEP, ROUND_CEILING)


def headroom(account: Account, currency: str, reserve: Reserve) -> Decimal:
    """Return the highest rate at which another attempt may start; 0 if only free ones may. Rounded down.

    Beside the attempts that run, the rest has to pay for the new one for the whole reserve.
    """
    if account.is_used_up or currency != account.currency:
        return Decimal(0)
    most = account.left * (_HOUR // _MICROSECOND) / max(reserve.whole // _MICROSECOND, 1) - account.per_hour
    return max(most.quantize(_MONEY_STEP, ROUND_FLOOR), Decimal(0))


def may_start(account: Account, per_hour: Decimal, currency: str, reserve: Reserve) -> bool:
    """Whether another attempt may start, by its billed rate (`policy.cost.billed_per_hour`). What is free may."""
    return per_hour <= headroom(account, currency, reserve)


# --- stopping --------------------------------------------------------------------------------------------------


def lasts_until(account: Account, now: datetime) -> datetime | None:
    """Return when the money will be gone at the present rate; None if nothing is spent, or not in this millennium."""
    if account.per_hour <= 0:
        return None
    hours = max(account.left, Decimal(0)) / account.per_hour
    return now + _HOUR * float(hours) if hours < 24 * 365 * 900 else None


def verdict_of(account: Account, running: Sequence[Running], now: datetime, reserve: Reserve) -> Verdict:
    """Choose what to stop and what to end, so that the rest pays for everything until the next look.

    Kept are the attempts of the highest priority, then the oldest, as far as the money goes; a cheap one may be kept
    after a dear one was not. What costs nothing is never stopped.
    """
    rate = sum((each.per_hour for each in running), Decimal(0))
    if account.left >= needed(rate, reserve.whole):
        return Verdict()
    ordered = sorted(running, key=lambda each: (-each.priority, each.assigned_at, each.attempt_id))
    going = [each for each in ordered if each.stop_wanted_at is None]
    stop = _unpaid(going, account.left - needed(rate, reserve.to_end), reserve.look)
    # After an outage the money may be gone before anything was stopped: it still gets its time to write a checkpoint.
    least = reserve.to_end - reserve.look
    late = {
        each.attempt_id for each in ordered if each.stop_wanted_at is not None and now - each.stop_wanted_at >= least
    }
    end = [each for each in _unpaid(ordered, account.left, reserve.look) if each.attempt_id in late]
    return Verdict(tuple(stop), tuple(end))


def _unpaid(ordered: Sequence[Running], money: Decimal, time: timedelta) -> list[Running]:
    """Keep, in this order, what the money pays for; return the others."""
    kept, others = Decimal(0), []
    for each in ordered:
        if each.per_hour == 0:
            continue
        if needed(kept + each.per_hour, time) <= money:
            kept += each.per_hour
        else:
            others.append(each)
    return others


def warnings_due(account: Account, warned: int) -> tuple[int, ...]:
    """Return the thresholds that were reached since the last warning, at `warned` percent."""
    return tuple(each for each in THRESHOLDS if warned < each <= account.percent)


# --- periods ---------------------------------------------------------------------------------------------------


def span_of(period: Period, at: datetime, zone: tzinfo) -> Span:
    """Return the day, week or month that contains a time, by the calendar of a time zone."""
    if period is Period.TOTAL:
        return Span(_EPOCH, None)
    day = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period is Period.DAY:
        begin, end = day, day + timedelta(days=1)  # of the calendar: 23 or 25 hours when clocks change
    elif period is Period.WEEK:
        begin = day - timedelta(days=day.weekday())
        end = begin + timedelta(days=7)
    else:
        begin = day.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
    return Span(begin.astimezone(UTC), end.astimezone(UTC))


# --- sentences -------------------------------------------------------------------------------------------------


def refusal(account: Account, period: Period, span: Span, zone: tzinfo, *, project: str | None, currency: str) -> str:
    """Explain why a start can't be paid. project: None for the budget of the installation, whose amounts stay out."""
    subject = _named(period, span, zone, project)
    if currency != account.currency:
        return _cut(f"{subject} is in {account.currency}, but machines are billed in {currency}: set it anew.")
    then = f" The next period begins on {_day(span.end.astimezone(zone))}." if span.end is not None else ""
    amount = phrasing.money(account.amount, account.currency)
    if account.is_used_up:
        spent = phrasing.money(account.spent, account.currency)
        how_much = f": {spent} of {amount}" if project is not None else ""
        return _cut(f"{subject} is used up{how_much}.{then}")
    left = phrasing.money(account.left, account.currency, ROUND_FLOOR)
    how_much = f"{left} of {amount}" if project is not None else "too little"
    return _cut(f"{subject} has {how_much} left, which does not pay for another start beside what runs.{then}")


def _named(period: Period, span: Span, zone: tzinfo, project: str | None) -> str:
    owner = f"project {phrasing.name(project)}" if project is not None else "this installation"
    begin = span.begin.astimezone(zone)
    match period:
        case Period.DAY:
            return f"The budget of {owner} for {_day(begin)}"
        case Period.WEEK:
            return f"The budget of {owner} for the week of {_day(begin)}"
        case Period.MONTH:
            return f"The budget of {owner} for {_MONTHS[begin.month - 1]} {begin.year}"
        case Period.TOTAL:
            return f"The total budget of {owner}"


def _day(at: datetime) -> str:
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def _cut(sentence: str) -> str:
    return phrasing.cut(sentence, phrasing.LONGEST_SENTENCE)
