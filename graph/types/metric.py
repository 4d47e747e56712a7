"""What a simulation's metrics came to, and which way each of them is to go."""

from __future__ import annotations

import math
from typing import Self

import strawberry

from db.metrics import Summary
from graph.types.enums import MetricMode
from graph.types.scalars import Step
from policy.metric_mode import goes_up


@strawberry.type(description="What a metric came to so far, over all attempts: what later ones said anew counts once.")
class Metric:
    name: str
    mode: MetricMode = strawberry.field(
        description="Which way it is to go: as createSimulation said, else as its name tells, else MIN."
    )
    count: int = strawberry.field(description="How many points there are.")
    last_step: Step = strawberry.field(description="The newest step.")
    last_value: float | None = strawberry.field(description="There; null if it is not finite.")
    min_step: Step | None = strawberry.field(description="Where the least value was reached first.")
    min_value: float | None = strawberry.field(description="The least value; null if none is finite.")
    max_step: Step | None = strawberry.field(description="Where the greatest value was reached first.")
    max_value: float | None = strawberry.field(description="The greatest value; null if none is finite.")

    @strawberry.field(description="Where the best value was reached first: the least or the greatest, by `mode`.")
    def best_step(self) -> Step | None:
        return self.max_step if self.mode is MetricMode.MAX else self.min_step

    @strawberry.field(description="The least or the greatest value, by `mode`.")
    def best_value(self) -> float | None:
        return self.max_value if self.mode is MetricMode.MAX else self.min_value

    @classmethod
    def of(cls, summary: Summary, mode: str) -> Self:
        return cls(
            name=summary.metric,
            mode=MetricMode(mode),
            count=summary.count,
            last_step=Step(summary.last_step),
            last_value=summary.last_value if math.isfinite(summary.last_value) else None,
            min_step=Step(summary.min_step) if summary.min_step is not None else None,
            min_value=summary.min_value,
            max_step=Step(summary.max_step) if summary.max_step is not None else None,
            max_value=summary.max_value,
        )


def usual_mode(metric: str) -> MetricMode:
    """Which way a metric goes that createSimulation did not speak of."""
    return MetricMode.MAX if goes_up(metric) else MetricMode.MIN


@strawberry.input(description="Something that the simulation will report.")
class MetricInput:
    name: str = strawberry.field(description="As it stands in the lines that the simulation prints.")
    mode: MetricMode = strawberry.field(description="Which way it is to go.")
