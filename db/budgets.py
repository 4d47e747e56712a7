"""Budgets: create, change, delete, list; what was spent of one, and the attempts that spend it.

What a budget allows is judged by `policy.budget`. The lock of a budget's row is the last in the order: simulation,
attempt, member, machine, project, budget. A transaction that assigns an attempt takes it before it reads what is spent,
so starts that come together see each other's members.

Members that ended are added up once: the judge moves their cost into `budgets.counted`, up to an hour ago, when every
transaction that ended one has long been committed. So a read costs as much as what ended in the last hour, however
much was spent in the period.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.billing import AMOUNT
from db.errors import NotFound, Taken
from db.events import Actor
from db.models import Budget
from db.outage import Driver
from db.pages import Ordering, Page, page
from db.projects import Scope

COUNTED_AFTER = timedelta(hours=1)  # statements are cancelled after seconds: no transaction is open for so long


@dataclass(frozen=True, slots=True)
class Wanted:
    """A budget to be created. project_id: None for the whole installation."""

    project_id: int | None
    period: str
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What a budget's projects cost since a time, and their rate."""

    ended: Decimal
    running: Decimal
    per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Since:
    """From when a budget is added up: the begin of its period, and the time up to which members are counted."""

    budget: Budget
    begin: datetime
    counted_to: datetime


# --- by users --------------------------------------------------------------------------------------------------


async def create(session: AsyncSession, wanted: Wanted, actor: Actor) -> Budget:
    """Create a budget. Raises `Taken` if the project has one for this period."""
    try:
        async with session.begin_nested():
            budget = Budget(
                project_id=wanted.project_id, period=wanted.period, amount=wanted.amount, currency=wanted.currency,
                created_by=actor.name,
            )  # fmt: skip
            session.add(budget)
            await session.flush()
    except IntegrityError as error:
        owner = "This project" if wanted.project_id is not None else "The installation"
        raise Taken(f"{owner} has a budget for this period: change that one.", field="period") from error
    await session.refresh(budget)
    await _record(session, "CREATED", actor, budget)
    return budget


async def change(
    session: AsyncSession, budget_id: int, amount: Decimal, currency: str, actor: Actor, *, scope: Scope = None
) -> Budget:
    """Set a budget's amount, in the installation's currency of today. It is open again. Raises `NotFound`."""
    budget = await get(session, budget_id, lock=True, scope=scope)
    if budget.currency != currency:
        budget.period_begin = None  # counted anew
    budget.amount, budget.currency = amount, currency
    budget.closed_at, budget.warned_percent = None, 0
    await session.flush()
    await _record(session, "UPDATED", actor, budget)
    return budget


async def remove(session: AsyncSession, budget_id: int, actor: Actor, *, scope: Scope = None) -> None:
    """Delete a budget: nothing waits for it or is stopped for it any longer. Raises `NotFound`."""
    budget = await get(session, budget_id, lock=True, scope=scope)
    await _record(session, "DELETED", actor, budget)
    await session.delete(budget)
    await session.flush()


async def get(session: AsyncSession, budget_id: int, *, lock: bool = False, scope: Scope = None) -> Budget:
    """Get a budget. Raises `NotFound`."""
    statement = select(Budget).where(Budget.id == budget_id, _within(scope))
    if lock:
        statement = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    budget = await session.scalar(statement)
    if budget is None:
        raise NotFound("There is no such budget.", field="id")
    return budget


async def find(session: AsyncSession, budget_id: int) -> Budget | None:
    """Find a budget; None if it was deleted."""
    return await session.scalar(select(Budget).where(Budget.id == budget_id))


async def by_ids(session: AsyncSession, ids: Collection[int], *, scope: Scope = None) -> Sequence[Budget]:
    return (await session.scalars(select(Budget).where(Budget.id.in_(ids), _within(scope)))).all()


async def page_matching(
    session: AsyncSession, *, project_id: int | None, first: int, after: str | None, scope: Scope = None
) -> Page[Budget]:
    """One page of the budgets, oldest first; of one project, or all that may be seen."""
    statement = select(Budget).where(_within(scope))
    if project_id is not None:
        statement = statement.where(Budget.project_id == project_id)
    return await page(session, statement, Ordering((Budget.created_at, Budget.id)), first=first, after=after)


def _within(scope: Scope) -> ColumnElement[bool]:
    """The installation's budgets are for viewers of all projects."""
    return Budget.id.is_not(None) if scope is None else Budget.project_id.in_(scope)


async def _record(session: AsyncSession, kind: str, actor: Actor, budget: Budget) -> None:
    detail = {"period": budget.period, "amount": str(budget.amount), "currency": budget.currency}
    await events.record(session, kind, actor, "Budget", budget.id, project_id=budget.project_id, detail=detail)


# --- by scheduler and judge --------------------------------------------------------------------------------------


async def ids(driver: Driver) -> Sequence[int]:
    """List the ids of all budgets. Through the bare driver: it is asked in every tick, mostly in vain."""
    return [row[0] for row in await driver.fetch("SELECT id FROM budgets ORDER BY id")]


async def every(session: AsyncSession) -> Sequence[Budget]:
    return (await session.scalars(select(Budget).order_by(Budget.id))).all()


async def lock_of(session: AsyncSession, project_ids: Collection[int]) -> Sequence[Budget]:
    """Lock all budgets that these projects are paid from, those of the installation too, in the order of ids."""
    return (await session.scalars(_locked(select(Budget).where(
        or_(Budget.project_id.is_(None), Budget.project_id.in_(project_ids))
    )))).all()  # fmt: skip


async def lock(session: AsyncSession, budget_id: int) -> Budget | None:
    """Lock one budget and read it; None if it was deleted."""
    return await session.scalar(_locked(select(Budget).where(Budget.id == budget_id)))


def _locked(statement: Select[Budget]) -> Select[Budget]:
    return statement.order_by(Budget.id).with_for_update(key_share=True).execution_options(populate_existing=True)


async def clock(session: AsyncSession) -> datetime:
    """Return PostgreSQL's time of this moment, not of the transaction's begin: the locks may have taken a while."""
    now: datetime = (await session.scalars(select(func.clock_timestamp()))).one()
    return now


_RATE = "m.price_per_hour * m.share"
_ENDED = AMOUNT.format(rate=_RATE, since="greatest(m.assigned_at, b.since)", to="m.ended_at")
_RUNNING = AMOUNT.format(rate=_RATE, since="greatest(m.assigned_at, b.since)", to="clock_timestamp()")
_GIVEN = """
    FROM unnest(
        CAST(:ids AS bigint[]), CAST(:projects AS bigint[]), CAST(:currencies AS text[]),
        CAST(:begins AS timestamptz[]), CAST(:counted AS timestamptz[])
    ) AS b (id, project_id, currency, since, counted_to)
"""
_OF = """
    FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id JOIN simulations AS s ON s.id = a.simulation_id
    WHERE m.currency = b.currency AND (b.project_id IS NULL OR s.project_id = b.project_id)
"""
_OF_DELETED = """
    FROM deleted_members AS m
    WHERE m.currency = b.currency AND (b.project_id IS NULL OR m.project_id = b.project_id)
"""
_SPENT = text(
    f"""
    SELECT b.id, e.amount + d.amount AS ended, r.amount AS running, r.per_hour
    {_GIVEN}
    CROSS JOIN LATERAL (SELECT coalesce(sum({_ENDED}), 0) AS amount {_OF} AND m.ended_at >= b.counted_to) AS e
    CROSS JOIN LATERAL (SELECT coalesce(sum({_ENDED}), 0) AS amount {_OF_DELETED} AND m.ended_at >= b.counted_to) AS d
    CROSS JOIN LATERAL (
        SELECT coalesce(sum({_RUNNING}), 0) AS amount, coalesce(sum({_RATE}), 0) AS per_hour
        {_OF} AND m.ended_at IS NULL
    ) AS r
    """
)
_COUNT = text(
    f"""
    SELECT e.amount + d.amount
    {_GIVEN}
    CROSS JOIN LATERAL (
        SELECT coalesce(sum({_ENDED}), 0) AS amount {_OF} AND m.ended_at >= b.counted_to AND m.ended_at < :until
    ) AS e
    CROSS JOIN LATERAL (
        SELECT coalesce(sum({_ENDED}), 0) AS amount {_OF_DELETED} AND m.ended_at >= b.counted_to AND m.ended_at < :until
    ) AS d
    """
)
_RUNNING_OF = text(
    """
    SELECT a.id AS attempt_id, s.id AS simulation_id, s.priority, min(m.assigned_at) AS assigned_at,
           sum(m.price_per_hour * m.share) AS per_hour, a.stop_wanted_at, a.number
    FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id JOIN simulations AS s ON s.id = a.simulation_id
    WHERE m.ended_at IS NULL AND m.currency = :currency
      AND (CAST(:project AS bigint) IS NULL OR s.project_id = :project)
    GROUP BY a.id, s.id
    """
)


async def spent_of(session: AsyncSession, since: Sequence[Since]) -> Mapping[int, Spent]:
    """Return what was spent of each budget since its period began, by the budget's id, up to this very moment."""
    rows = await session.execute(_SPENT, _arguments(since))
    return {
        row.id: Spent(each.budget.counted + row.ended if _is_counted(each) else row.ended, row.running, row.per_hour)
        for row, each in ((row, next(each for each in since if each.budget.id == row.id)) for row in rows)
    }


async def count(session: AsyncSession, since: Since, now: datetime) -> None:
    """Move the cost of members that ended some time ago into the budget's row, which the caller has locked."""
    until = max(now - COUNTED_AFTER, since.counted_to)
    amount = (await session.scalars(_COUNT, {**_arguments([since]), "until": until})).one()
    before = since.budget.counted if _is_counted(since) else Decimal(0)
    await note(
        session, since.budget.id, period_begin=since.begin, counted=before + amount, counted_to=until,
    )  # fmt: skip


async def note(session: AsyncSession, budget_id: int, **values: Any) -> None:
    """Write down the state of a budget's period."""
    await session.execute(update(Budget).where(Budget.id == budget_id).values(**values))


async def running_of(session: AsyncSession, budget: Budget) -> Sequence[Any]:
    """Read the attempts that spend a budget now, each with its rate."""
    found = await session.execute(_RUNNING_OF, {"currency": budget.currency, "project": budget.project_id})
    return found.all()


def _is_counted(since: Since) -> bool:
    return since.budget.period_begin == since.begin and since.budget.counted_to == since.counted_to


def _arguments(since: Sequence[Since]) -> dict[str, Any]:
    return {
        "ids": [each.budget.id for each in since],
        "projects": [each.budget.project_id for each in since],
        "currencies": [each.budget.currency for each in since],
        "begins": [each.begin for each in since],
        "counted": [each.counted_to for each in since],
    }
