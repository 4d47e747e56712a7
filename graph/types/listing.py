"""Lists of simulations: the inputs `SimulationFilter` and `SimulationOrder`, and what they ask of `db.listing`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry
from strawberry.scalars import JSON

from db import sweeps
from db.listing import NAMED, Comparison, Condition, Filter, Sort, SortOrder, objective_mode
from graph.context import Info
from graph.errors import BadInput, refusals_told
from graph.types.enums import MetricMode, OrderDirection
from graph.types.inputs import FilterAsked, Invalid, check
from policy.metric_mode import direction
from transitions.report import MAX_METRIC_NAME


@strawberry.input(description="The sort order of a list of simulations. What has no value of it comes last.")
class SimulationOrder:
    field: Sort = strawberry.field(default=Sort.CREATED_AT, description="The sort key.")
    direction: OrderDirection | None = strawberry.field(
        default=None,
        description="Default: the best first for BEST and LAST of a metric whose direction is known, else DESC.",
    )
    name: str | None = strawberry.field(
        default=None, description="The metric of BEST and LAST, or the path of a PARAMETER: `lr`, `optimizer.lr`."
    )
    mode: MetricMode | None = strawberry.field(
        default=None,
        description="Which values of the metric are better; default: by its name, else as given to the newest "
        "simulation with this objective. BEST needs it.",
    )


@strawberry.input(
    description="A comparison of a parameter. Parameters that are missing, or of another type, don't match."
)
class ParameterCondition:
    name: str = strawberry.field(description="Its name; of an object in an object its path: `optimizer.lr`.")
    comparison: Comparison = strawberry.field(default=Comparison.EQ, description="How it is compared with `value`.")
    value: JSON = strawberry.field(description="A number, a text or a boolean.")


@strawberry.input(description="A filter of simulations: all that is given must match.")
class SimulationFilter:
    text: str | None = strawberry.field(
        default=None,
        description="A text in the name, the command or the notes, ignoring case; or the number of a simulation, 108 "
        "or #108, or its id. Of name and command together the first 1,000 characters are searched, of the notes 2,000.",
    )
    name: str | None = strawberry.field(
        default=None, description="A pattern of the whole name: `*` is any text, `?` any character: `vit*`."
    )
    tags: list[str] | None = strawberry.field(default=None, description="Tags, all of which it has: at most 20.")
    any_tags: list[str] | None = strawberry.field(
        default=None, description="Tags, at least one of which it has: at most 20."
    )
    created_by: str | None = strawberry.field(
        default=None, description="The user who created it, with or without ` (unverified)` after the name."
    )
    created_from: datetime | None = strawberry.field(default=None, description="Created at this time or later.")
    created_to: datetime | None = strawberry.field(default=None, description="Created before this time.")
    sweep: strawberry.ID | None = strawberry.field(
        default=None, description="The sweep of which it is a trial: its id, number or name."
    )
    parameters: list[ParameterCondition] | None = strawberry.field(
        default=None, description="Comparisons of parameters, all of which hold: at most 20."
    )


async def filter_of(info: Info, given: SimulationFilter | None, **others: Any) -> Filter:
    """The filter that was asked for. others: fields of `Filter`. Raises `BadInput` with all that is wrong."""
    try:
        asked: dict[str, Any] = {**check(FilterAsked, given)} if given is not None else {}
    except Invalid as invalid:
        raise BadInput("; ".join(f"filter.{error.message}" for error in invalid.errors[:10])) from None
    conditions = tuple(Condition(each.name, each.comparison, each.value) for each in asked.pop("parameters", ()))
    scope = info.context.scope
    if (reference := asked.pop("sweep", None)) is not None:
        with refusals_told():
            async with info.context.sessions() as session:
                number = await sweeps.resolve(session, reference, scope=scope)
                asked["sweep_id"] = (await sweeps.get(session, number, scope=scope)).id
    return Filter(**asked, **others, parameters=conditions, scope=scope)


async def order_of(info: Info, given: SimulationOrder | None) -> SortOrder:
    """The order that was asked for. Raises `BadInput`."""
    if given is None:
        return SortOrder()
    if given.field not in NAMED:
        if given.name is not None or given.mode is not None:
            raise BadInput(f"orderBy.name and orderBy.mode belong to {', '.join(sorted(NAMED))}, not to {given.field}.")
        return SortOrder(given.field, given.direction is not OrderDirection.ASC)
    name = given.name or ""
    if not 0 < len(name) <= MAX_METRIC_NAME or "\0" in name:
        raise BadInput(
            f"orderBy.name: {given.field} needs a name of 1 to {MAX_METRIC_NAME} characters, none of them NUL."
        )
    if given.field is Sort.PARAMETER:
        return SortOrder(given.field, given.direction is not OrderDirection.ASC, name)
    mode = given.mode or direction(name)
    if mode is None:
        async with info.context.sessions() as session:
            mode = await objective_mode(session, name, scope=info.context.scope)
    if mode is None and given.field is Sort.BEST:
        raise BadInput(
            f"orderBy.mode: the name {name!r} does not imply whether lower or higher is better: pass MIN or MAX, or "
            "sort by LAST."
        )
    is_max = mode == MetricMode.MAX
    usual = mode is None or is_max
    return SortOrder(
        given.field, usual if given.direction is None else given.direction is OrderDirection.DESC, name, is_max
    )
