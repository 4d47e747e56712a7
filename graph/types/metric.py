"""Metrics of a simulation: last, best and extreme values, and whether lower or higher is better."""

from __future__ import annotations

import math
from typing import Self

import strawberry

from db.metrics import Summary
from graph.types.enums import MetricMode
from graph.types.scalars import Step


@strawberry.type(description="Summary of a metric over all attempts, without superseded points.")
class Metric:
    name: str
    mode: MetricMode = strawberry.field(
        description="Whether lower or higher is better: as given to createSimulation, else by its name, else MIN."
    )
    direction: MetricMode | None = strawberry.field(
        description="The `mode` where it is given or its name implies one; null where neither direction is better, as "
        "far as is known."
    )
    count: int = strawberry.field(description="The number of points.")
    last_step: Step = strawberry.field(description="The newest step.")
    last_value: float | None = strawberry.field(description="The value at `lastStep`; null if it is not finite.")
    min_step: Step | None = strawberry.field(description="The first step with the least value.")
    min_value: float | None = strawberry.field(description="The least value; null if none is finite.")
    max_step: Step | None = strawberry.field(description="The first step with the greatest value.")
    max_value: float | None = strawberry.field(description="The greatest value; null if none is finite.")

    @strawberry.field(
        description="The first step with the best value: the least or the greatest; null without a `direction`."
    )
    def best_step(self) -> Step | None:
        return {MetricMode.MIN: self.min_step, MetricMode.MAX: self.max_step, None: None}[self.direction]

    @strawberry.field(description="The least or the greatest value; null without a `direction`.")
    def best_value(self) -> float | None:
        return {MetricMode.MIN: self.min_value, MetricMode.MAX: self.max_value, None: None}[self.direction]

    @classmethod
    def of(cls, summary: Summary, direction: MetricMode | None) -> Self:
        return cls(
            name=summary.metric,
            mode=direction or MetricMode.MIN,
            direction=direction,
            count=summary.count,
            last_step=Step(summary.last_step),
            last_value=summary.last_value if math.isfinite(summary.last_value) else None,
            min_step=Step(summary.min_step) if summary.min_step is not None else None,
            min_value=summary.min_value,
            max_step=Step(summary.max_step) if summary.max_step is not None else None,
            max_value=summary.max_value,
        )


@strawberry.input(description="A metric that the simulation will report.")
class MetricInput:
    name: str = strawberry.field(description="Its name in the JSON lines that the simulation prints.")
    mode: MetricMode = strawberry.field(description="Whether lower or higher values are better.")
