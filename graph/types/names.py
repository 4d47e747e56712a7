"""Names of metrics and parameters, for forms that offer what lists can be sorted and filtered by."""

from __future__ import annotations

import strawberry

from db import names
from graph.context import Info
from graph.types.enums import MetricMode
from policy.metric_mode import direction

MOST = 200  # of each kind in one answer


@strawberry.type(description="The name of a metric that simulations have reported.")
class MetricName:
    name: str
    direction: MetricMode | None = strawberry.field(
        description="Whether lower or higher is better, as the name implies; null where it implies neither."
    )


@strawberry.type(description="Names of metrics and parameters, each in alphabetical order.")
class Names:
    metrics: list[MetricName] = strawberry.field(
        description="Each name once, with the direction that it implies.", metadata={"size": MOST}
    )
    parameters: list[str] = strawberry.field(description="Paths of numbers, texts and booleans: `lr`, `optimizer.lr`.")


async def read(info: Info, contains: str) -> Names:
    scope = info.context.scope
    async with info.context.sessions() as session:
        metrics = await names.metrics(session, contains, first=MOST, scope=scope)
        parameters = await names.parameters(session, contains, first=MOST, scope=scope)
    return Names(
        metrics=[MetricName(name=each, direction=_direction(each)) for each in metrics], parameters=[*parameters]
    )


def _direction(name: str) -> MetricMode | None:
    return None if (implied := direction(name)) is None else MetricMode(implied)
