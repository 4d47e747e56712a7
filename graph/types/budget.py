"""Budgets in GraphQL: the type with its account, the list, the mutations."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Self

import strawberry
from strawberry import relay

from db import budgets, errors, events, models, projects
from graph.context import Info
from graph.errors import refusals_told
from graph.types import pages
from graph.types.enums import BudgetPeriod
from graph.types.event import Event
from graph.types.ids import number_asked, number_of
from graph.types.inputs import BudgetAsked, BudgetChanged, Invalid, check
from graph.types.project import Project
from graph.types.project import find as find_project
from graph.types.user_errors import UserError, user_error
from policy.budget import lasts_until
from transitions.budget import Statement


@strawberry.type(description="A budget in its current period.")
class BudgetAccount:
    spent: Decimal = strawberry.field(description="By ended and running attempts, up to now, in the budget's currency.")
    remaining: Decimal = strawberry.field(description="The rest; negative if it was overspent.")
    percent: int = strawberry.field(description="The spent part in whole percent; 100 if it counts as used up.")
    per_hour: Decimal = strawberry.field(description="The current cost per hour of what is paid from it.")
    is_used_up: bool = strawberry.field(
        description="True if nothing is left, or attempts were stopped for it: nothing else starts in this period."
    )
    lasts_until: datetime | None = strawberry.field(
        description="When it will be used up at the current rate; null if nothing is spent now."
    )
    period_begin: datetime = strawberry.field(description="When the current period began.")
    period_end: datetime | None = strawberry.field(description="When the next period begins; null for a total budget.")


@strawberry.type(
    description="An amount that a project, or the whole installation, may spend in each period. Attempts that it does "
    "not pay for wait with BUDGET_EXHAUSTED; running ones are stopped before it is used up."
)
class Budget(relay.Node):
    id: relay.NodeID[int]
    project_number: strawberry.Private[int | None]
    period: BudgetPeriod = strawberry.field(description="How often it begins anew.")
    amount: Decimal = strawberry.field(description="What may be spent in each period.")
    currency: str
    created_at: datetime
    created_by: str = strawberry.field(description="The user who created it.")

    @strawberry.field(description="Whose budget it is; null for the whole installation.")
    async def project(self, info: Info) -> Project | None:
        return await find_project(info, self.project_number) if self.project_number is not None else None

    @strawberry.field(
        description="What was spent of it in the current period; null if it was deleted meanwhile.",
        metadata={"cost": 10},
    )
    async def account(self, info: Info) -> BudgetAccount | None:
        found = await info.context.loaders.budget_statement.load(int(self.id))
        return _account(*found) if found is not None else None

    @strawberry.field(
        description="Its history, oldest first: CREATED, UPDATED, and a BUDGET_WARNING for each threshold and period.",
        metadata={"size": 20},
    )
    async def events(self, info: Info) -> list[Event]:
        async with info.context.sessions() as session:
            return [Event.of(row) for row in await events.list_of(session, "Budget", int(self.id))]

    @classmethod
    def of(cls, row: models.Budget) -> Self:
        return cls(
            id=row.id, project_number=row.project_id, period=BudgetPeriod(row.period), amount=row.amount,
            currency=row.currency, created_at=row.created_at, created_by=row.created_by,
        )  # fmt: skip


def _account(statement: Statement, now: datetime) -> BudgetAccount:
    account, span = statement.account, statement.span
    return BudgetAccount(
        spent=account.spent, remaining=account.left, percent=account.percent, per_hour=account.per_hour,
        is_used_up=account.is_used_up, lasts_until=lasts_until(account, now), period_begin=span.begin,
        period_end=span.end,
    )  # fmt: skip


@strawberry.type(description="Budgets, oldest first.")
class BudgetConnection:
    edges: list[pages.Edge[Budget]]
    nodes: list[Budget]
    page_info: relay.PageInfo


# --- queries ---------------------------------------------------------------------------------------------------


async def find(info: Info, number: int) -> Budget | None:
    row = await info.context.loaders.budget.load(number)
    return Budget.of(row) if row is not None else None


async def page(info: Info, project: str | None, first: int, after: str | None) -> BudgetConnection:
    number = number_asked(project, "Project") if project is not None else None
    with refusals_told():
        async with info.context.sessions() as session:
            found = await budgets.page_matching(
                session, project_id=number, first=pages.size(first), after=after, scope=info.context.scope
            )
    edges, nodes, page_info = pages.edges(found, Budget.of)
    return BudgetConnection(edges=edges, nodes=nodes, page_info=page_info)


# --- mutations -------------------------------------------------------------------------------------------------


@strawberry.input(description="A budget to create, in the installation's currency.")
class CreateBudgetInput:
    amount: Decimal = strawberry.field(description="What may be spent in each period.")
    period: BudgetPeriod = strawberry.field(default=BudgetPeriod.MONTH, description="How often it begins anew.")
    project: strawberry.ID | None = strawberry.field(
        default=None, description="Whose budget it is. Default: the whole installation's."
    )


@strawberry.input(description="A budget's new amount, in the installation's currency. It is open again.")
class UpdateBudgetInput:
    id: strawberry.ID
    amount: Decimal = strawberry.field(description="What may be spent in each period.")


@strawberry.input(description="The budget to delete.")
class BudgetInput:
    id: strawberry.ID


@strawberry.type(description="The budget, or errors.")
class BudgetPayload:
    budget: Budget | None = strawberry.field(default=None, description="Its new state.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The id of the deleted object, or errors.")
class DeleteBudgetPayload:
    deleted_id: strawberry.ID | None = strawberry.field(default=None, description="Null if it was not deleted.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def create(info: Info, given: CreateBudgetInput) -> BudgetPayload:
    try:
        asked = check(BudgetAsked, given)
        project = number_of(asked.project, "Project", field="project") if asked.project is not None else None
        async with info.context.sessions() as session, session.begin():
            if project is not None:
                await projects.get(session, project, scope=info.context.scope)
            wanted = budgets.Wanted(project, asked.period.value, asked.amount, info.context.settings.currency)
            return BudgetPayload(budget=Budget.of(await budgets.create(session, wanted, info.context.actor)))
    except Invalid as invalid:
        return BudgetPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return BudgetPayload(user_errors=[user_error(refusal)])


async def update(info: Info, given: UpdateBudgetInput) -> BudgetPayload:
    try:
        number = number_of(given.id, "Budget")
        asked = check(BudgetChanged, given)
        async with info.context.sessions() as session, session.begin():
            row = await budgets.change(
                session, number, asked.amount, info.context.settings.currency, info.context.actor,
                scope=info.context.scope,
            )  # fmt: skip
            return BudgetPayload(budget=Budget.of(row))
    except Invalid as invalid:
        return BudgetPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return BudgetPayload(user_errors=[user_error(refusal)])


async def delete(info: Info, public_id: str) -> DeleteBudgetPayload:
    try:
        number = number_of(public_id, "Budget")
        async with info.context.sessions() as session, session.begin():
            await budgets.remove(session, number, info.context.actor, scope=info.context.scope)
        return DeleteBudgetPayload(deleted_id=strawberry.ID(public_id))
    except errors.Refusal as refusal:
        return DeleteBudgetPayload(user_errors=[user_error(refusal)])
