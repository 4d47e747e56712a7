"""Costs in GraphQL: where the money went, in groups and in total."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Self

import strawberry

from db import costs, machines
from db.costs import Question, Sums
from graph.context import Info
from graph.errors import BadInput
from graph.types.enums import CostGroup
from graph.types.ids import number_asked


@strawberry.type(description="A sum of costs, in one currency.")
class CostSum:
    currency: str
    amount: Decimal = strawberry.field(description="What was billed.")
    wasted: Decimal = strawberry.field(
        description="The part of the amount that was billed for attempts that failed, were lost or preempted, and that "
        "no later attempt continued from a checkpoint."
    )
    saved: Decimal = strawberry.field(description="What stop rules saved, as estimated when they stopped an attempt.")
    attempts: int = strawberry.field(description="The number of attempts that were billed.")
    simulations: int = strawberry.field(description="The number of their simulations.")

    @classmethod
    def of(cls, sums: Sums) -> Self:
        return cls(
            currency=sums.currency, amount=sums.amount, wasted=sums.wasted, saved=sums.saved, attempts=sums.attempts,
            simulations=sums.simulations,
        )  # fmt: skip


@strawberry.type(description="The costs of one group, in one currency. Null: it was not grouped by this.")
class CostRow:
    project: str | None = strawberry.field(description="The name of the project.")
    user: str | None = strawberry.field(description="The creator of the simulations.")
    machine: str | None = strawberry.field(description="The name of the machine.")
    name: str | None = strawberry.field(description="The name of the simulations.")
    tag: str | None = strawberry.field(
        description="A tag; null also for simulations without tags. A simulation counts under each of its tags."
    )
    begin: datetime | None = strawberry.field(description="The begin of the day, week or month.")
    sum: CostSum = strawberry.field(description="What was billed, wasted and saved.")

    @classmethod
    def of(cls, sums: Sums) -> Self:
        return cls(
            project=sums.project, user=sums.user, machine=sums.machine, name=sums.name, tag=sums.tag, begin=sums.begin,
            sum=CostSum.of(sums),
        )  # fmt: skip


@strawberry.type(description="Where the money went. Amounts of different currencies are never added.")
class Costs:
    rows: list[CostRow] = strawberry.field(
        description="By time, then the dearest first; empty without groups.", metadata={"size": 100}
    )
    totals: list[CostSum] = strawberry.field(
        description="For each currency; each simulation counts once.", metadata={"size": 1}
    )
    to: datetime = strawberry.field(description="The end of the time that was added up.")
    has_prices: bool = strawberry.field(
        description="False if no machine has a price and nothing was billed: amounts of 0 then mean nothing."
    )


async def read(
    info: Info,
    group_by: Sequence[CostGroup],
    since: datetime | None,
    to: datetime | None,
    project: str | None,
) -> Costs:
    if len([each for each in set(group_by) if each in costs.TIMES]) > 1:
        raise BadInput("groupBy takes one of DAY, WEEK and MONTH at most.")
    begin, end = _aware(since), _aware(to) or datetime.max.replace(tzinfo=UTC)
    if begin is not None and begin >= end:
        raise BadInput("from must be before to.")
    question = Question(
        group_by=tuple(group_by),
        since=begin,
        to=end,
        zone=info.context.settings.time_zone,
        scope=info.context.scope,
        project_id=number_asked(project, "Project") if project is not None else None,
    )
    async with info.context.sessions() as session:
        try:
            rows, totals, until = await costs.read(session, question)
        except costs.TooMany:
            raise BadInput(f"More than {costs.MOST_ROWS:,} groups: choose a shorter time or fewer groups.") from None
        has_prices = any(each.amount > 0 for each in totals) or await machines.has_prices(session)
    return Costs(
        rows=[CostRow.of(each) for each in rows] if question.group_by else [],
        totals=[CostSum.of(each) for each in totals],
        to=until,
        has_prices=has_prices,
    )


def _aware(at: datetime | None) -> datetime | None:
    """A time without an offset is UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
