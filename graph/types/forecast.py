"""Forecast of a metric: the value at the declared end, and what holds about a target.

What is computed, and when, is `graph.live.forecasts`; the judgement is `policy.forecast`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Self

import strawberry

from db import judged
from db.metrics import Summary
from db.models import Simulation as Row
from db.states import Reason, SimulationState
from graph.context import Info
from graph.errors import BadInput
from graph.live.forecasts import Asked, Newest, Outlook
from graph.types.enums import MetricMode
from graph.types.scalars import Step
from graph.types.stopping import Objective, known_mode
from policy import outlook, rule_documents
from policy.outlook import Pace
from policy.rule_documents import Declared


@strawberry.type(description="A later step, with the time and money until it, from the newest step.")
class StepAhead:
    step: Step = strawberry.field(description="The step itself.")
    seconds: float | None = strawberry.field(description="At the pace so far; null while it does not run.")
    cost: Decimal | None = strawberry.field(description="This time at the current rate; null without a price.")

    @classmethod
    def of(cls, step: int, pace: Pace | None) -> Self:
        ahead = outlook.ahead(step, pace)
        return cls(step=Step(ahead.step), seconds=ahead.seconds, cost=ahead.amount)


@strawberry.type(description="Forecasts from the newest step to the end, as columns of equal length, for drawing.")
class ForecastBand:
    steps: list[Step] = strawberry.field(description="Rising. At the first one the value is known.")
    values: list[float] = strawberry.field(description="The forecast at each step.")
    lows: list[float] = strawberry.field(description="The lower ends of the interval.")
    highs: list[float] = strawberry.field(description="The upper ends of the interval.")


@strawberry.type(description="The best value at the declared end, `limits.maxSteps`.")
class ForecastEnd:
    at: StepAhead = strawberry.field(description="The declared end.")
    value: float = strawberry.field(description="The best value that is expected until then.")
    low: float = strawberry.field(description="The lower end of an interval that holds the value in 80 of 100 cases.")
    high: float = strawberry.field(description="The upper end of that interval.")
    rough: bool = strawberry.field(
        description="True if the interval comes from recorded curves of other projects: fewer than eight runs of this "
        "name have completed."
    )
    history: int = strawberry.field(description="Completed runs of the same name that the interval comes from.")
    band: ForecastBand = strawberry.field(description="The way from the newest step to the end.")


@strawberry.type(description="What holds about the step at which a target is reached. No two-sided interval does.")
class ForecastTarget:
    value: float = strawberry.field(description="The target.")
    reached_step: Step | None = strawberry.field(description="The first step with the target.")
    not_before: StepAhead | None = strawberry.field(description="In 90 of 100 cases it is not reached before.")
    half_until: StepAhead | None = strawberry.field(
        description="Half of the similar runs that had not reached it by now needed until then; null below eight runs."
    )
    similar: int = strawberry.field(description="Finished runs of the same name that `halfUntil` is about.")
    likely_not: bool = strawberry.field(description="In 90 of 100 cases it is not reached within `maxSteps`.")
    rough: bool = strawberry.field(description="As of the value at the end.")


@strawberry.type(
    description="A forecast from the curve so far. Dense curves are averaged over 0.5 % of the steps first."
)
class Forecast:
    metric: str
    mode: MetricMode = strawberry.field(description="Whether lower or higher values are better.")
    step: Step = strawberry.field(description="The newest step that it is based on.")
    end: ForecastEnd | None = strawberry.field(description="Null without `maxSteps`, or if it is too early.")
    target: ForecastTarget | None = strawberry.field(description="Null without a target, or if it is too early.")
    sentence: str = strawberry.field(description="The forecast in words.")


async def of_simulation(info: Info, row: Row, metric: str | None, target: float | None) -> Forecast | None:
    """Forecast a metric, by default the objective; None where there is too little to say."""
    if target is not None and not math.isfinite(target):
        raise BadInput("target: expected a finite number.")
    if row.reason is Reason.COMPLETED:
        return None  # its end is known
    summaries = await info.context.loaders.metrics.load(row.id)
    found = _chosen(row, metric, summaries)
    if found is None:
        return None
    summary, mode = found
    if target is None:
        target = _target(row, summary.metric)
    asked = Asked(row.id, row.project_id, row.name, summary.metric, mode.value, row.max_steps, target)
    ended = row.finished_at is not None
    made = await info.context.live.forecasts.of(asked, Newest(row.attempt, summary.last_step, ended))
    if made.forecast is None and made.reach is None:
        return None
    pace, currency = await _pace(info, row, summary.metric)
    return _forecast(asked, mode, made, pace, currency, ended=ended)


def _chosen(row: Row, metric: str | None, summaries: Sequence[Summary]) -> tuple[Summary, MetricMode] | None:
    """The metric that was asked for, and its mode; None: it was not reported, or no direction is known."""
    if metric is None:
        objective = Objective.of(row, summaries)
        metric = objective.metric if objective is not None else None
    summary = next((each for each in summaries if each.metric == metric), None)
    mode = known_mode(row, summary.metric) if summary is not None else None
    return (summary, mode) if summary is not None and mode is not None else None


def _target(row: Row, metric: str) -> float | None:
    """The `stoppingThreshold` of the first rule of the metric that has one."""
    rules: Sequence[Declared] = rule_documents.decode(
        row.stopping, objective=row.objective_metric, max_steps=row.max_steps
    )
    thresholds = (each.rules.stopping_threshold for each in rules if each.rules.metric == metric)
    return next((each for each in thresholds if each is not None), None)


async def _pace(info: Info, row: Row, metric: str) -> tuple[Pace | None, str]:
    currency = info.context.settings.currency
    if row.state is not SimulationState.RUNNING:
        return None, currency
    async with info.context.sessions() as session:
        found = await judged.find_pace(session, row.id, metric)
    if found is None or found.seconds <= 0:
        return None, currency
    rate = (found.last_step - found.first_step) / found.seconds
    return Pace(found.last_step, rate, found.per_hour if found.per_hour > 0 else None), found.currency


def _forecast(
    asked: Asked, mode: MetricMode, made: Outlook, pace: Pace | None, currency: str, *, ended: bool
) -> Forecast:
    end, reach = made.forecast, made.reach
    return Forecast(
        metric=asked.metric,
        mode=mode,
        step=Step(made.step),
        end=ForecastEnd(
            at=StepAhead.of(end.step, pace), value=end.value, low=end.low, high=end.high, rough=end.rough,
            history=end.history,
            band=ForecastBand(
                steps=[Step(each) for each in made.band.steps], values=list(made.band.values),
                lows=list(made.band.lows), highs=list(made.band.highs),
            ),
        ) if end is not None and made.band is not None else None,
        target=ForecastTarget(
            value=asked.target,
            reached_step=Step(reach.reached_at) if reach.reached_at is not None else None,
            not_before=StepAhead.of(reach.not_before, pace) if reach.not_before is not None else None,
            half_until=StepAhead.of(reach.half_until, pace) if reach.half_until is not None else None,
            similar=reach.similar, likely_not=reach.likely_not, rough=reach.rough,
        ) if reach is not None and asked.target is not None else None,
        sentence=outlook.sentence(asked.metric, end, asked.target, reach, pace, currency, ended=ended),
    )  # fmt: skip
