"""Budgets and attempts: refuse a start that a budget does not pay for, and read the accounts of budgets.

A caller that assigns attempts asks `unpayable` in the same transaction, after the locks of simulations and machines and
before the assignment: the budgets' rows are the last locks. Another transaction that starts something of the same
budget waits there until this one is committed, and counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from db import budgets, projects
from db.budgets import Since
from db.models import Budget
from policy.budget import Account, Period, Reserve, Span, headroom, may_start, refusal, span_of


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings that budgets depend on."""

    reserve: Reserve
    zone: tzinfo
    currency: str  # that machines are billed in now


@dataclass(frozen=True, slots=True)
class Statement:
    """A budget with its account in the period of now."""

    budget: Budget
    account: Account
    span: Span

    @property
    def period(self) -> Period:
        return Period(self.budget.period)

    @property
    def since(self) -> Since:
        """From when the budget is to be added up."""
        return since_of(self.budget, self.span)


@dataclass(frozen=True, slots=True)
class Start:
    """An attempt that is to start: whose it is, and what it costs."""

    project_id: int
    per_hour: Decimal  # policy.cost.billed_per_hour
    currency: str


def since_of(budget: Budget, span: Span) -> Since:
    """Return from when a budget is added up: from what was counted, if that is of this period."""
    if budget.period_begin == span.begin and budget.counted_to is not None:
        return Since(budget, span.begin, budget.counted_to)
    return Since(budget, span.begin, span.begin)


async def statements(
    session: AsyncSession, found: Sequence[Budget], zone: tzinfo, now: datetime | None = None
) -> Sequence[Statement]:
    """Add up these budgets, in their periods of now by PostgreSQL's clock."""
    if not found:
        return []
    now = now or await budgets.clock(session)
    spans = [span_of(Period(each.period), now, zone) for each in found]
    spent = await budgets.spent_of(session, [since_of(each, span) for each, span in zip(found, spans, strict=True)])
    return [
        Statement(
            each,
            Account(
                amount=each.amount,
                currency=each.currency,
                spent=spent[each.id].ended + spent[each.id].running,
                per_hour=spent[each.id].per_hour,
                is_closed=each.closed_at is not None and each.period_begin == span.begin,
            ),
            span,
        )
        for each, span in zip(found, spans, strict=True)
    ]


async def unpayable(session: AsyncSession, starts: Sequence[Start], rules: Rules) -> frozenset[int]:
    """Lock the budgets of these starts; return the places in the list of those that can't be paid.

    The starts are judged in their order, each together with those before it that can be paid.
    """
    found = await budgets.lock_of(session, {each.project_id for each in starts})
    accounts = {each.budget.id: each.account for each in await statements(session, found, rules.zone)}
    refused = set()
    for place, start in enumerate(starts):
        concerned = [each.id for each in found if each.project_id in (None, start.project_id)]
        if all(may_start(accounts[each], start.per_hour, start.currency, rules.reserve) for each in concerned):
            for each in concerned:
                accounts[each] = replace(accounts[each], per_hour=accounts[each].per_hour + start.per_hour)
        else:
            refused.add(place)
    return frozenset(refused)


@dataclass(frozen=True, slots=True)
class Room:
    """The rate at which a project may start something else, and the sentence for what costs more."""

    per_hour: Decimal
    detail: str
    is_used_up: bool
    until: datetime | None  # the end of the budget's period


async def rooms(session: AsyncSession, rules: Rules) -> Mapping[int | None, Room]:
    """Read how much room the budgets leave, by project; under None for projects without a budget. Nothing is locked.

    The room of a project with a budget includes the installation's.
    """
    found = await budgets.every(session)
    tightest: dict[int | None, tuple[Decimal, Statement]] = {}
    for each in await statements(session, found, rules.zone):
        most = headroom(each.account, rules.currency, rules.reserve)
        owner = each.budget.project_id
        if owner not in tightest or most < tightest[owner][0]:
            tightest[owner] = most, each
    whole = tightest.get(None)
    if whole is not None:
        tightest = {owner: min(each, whole, key=lambda pair: pair[0]) for owner, each in tightest.items()}
    return {
        owner: Room(most, await sentence(session, each, rules), each.account.is_used_up, each.span.end)
        for owner, (most, each) in tightest.items()
    }


async def sentence(session: AsyncSession, statement: Statement, rules: Rules) -> str:
    """Explain what a budget has left."""
    owner = statement.budget.project_id
    project = (await projects.get(session, owner)).name if owner is not None else None
    return refusal(
        statement.account, statement.period, statement.span, rules.zone, project=project, currency=rules.currency
    )
