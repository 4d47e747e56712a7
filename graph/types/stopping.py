"""Objective and stop rules of a simulation as they are read: rules, decisions with their evidence, notices.

`stop_rules` has the inputs. What the rules decide is the judge's (`scheduler.judge`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

import strawberry
from strawberry.scalars import JSON

from db.metrics import Summary
from db.models import Simulation as Row
from graph.types.enums import MetricMode, Reason, SavedBy
from graph.types.scalars import Step
from policy.metric_mode import default_objective, direction
from policy.rule_documents import Declared, decode


@strawberry.type(
    description="The metric by which a simulation is judged: as given to createSimulation, else chosen among those "
    "that it has reported, validation before training."
)
class Objective:
    metric: str
    mode: MetricMode | None = strawberry.field(
        description="Whether lower or higher is better: as given, else by the metric's name; null if the name implies "
        "neither."
    )
    value: float | None = strawberry.field(description="The newest value; null if there is none or it is not finite.")
    best_value: float | None = strawberry.field(description="The best value by `mode`; null without one.")
    best_step: Step | None = strawberry.field(description="The first step with the best value.")

    @classmethod
    def of(cls, row: Row, summaries: Sequence[Summary]) -> Self | None:
        metric = row.objective_metric or default_objective(each.metric for each in summaries)
        if metric is None:
            return None
        mode = known_mode(row, metric)
        found = next((each for each in summaries if each.metric == metric), None)
        if found is None:
            return cls(metric=metric, mode=mode, value=None, best_value=None, best_step=None)
        up = mode is MetricMode.MAX
        step = None if mode is None else found.max_step if up else found.min_step
        return cls(
            metric=metric,
            mode=mode,
            value=found.last_value if math.isfinite(found.last_value) else None,
            best_value=None if mode is None else found.max_value if up else found.min_value,
            best_step=Step(step) if step is not None else None,
        )


def known_mode(row: Row, metric: str) -> MetricMode | None:
    """The direction of a metric, the objective or another one; None if none is known."""
    given = row.objective_mode if metric == row.objective_metric else None
    mode = given or row.metric_modes.get(metric) or direction(metric)
    return MetricMode(mode) if mode is not None else None


@strawberry.type(description="A stop rule: when to stop the simulation by the curve of one metric.")
class StopRule:
    metric: str
    mode: MetricMode = strawberry.field(description="Whether lower or higher is better.")
    min_delta: float = strawberry.field(description="A smaller improvement on the best value counts as none.")
    patience: int | None = strawberry.field(
        description="Stop after so many evaluations without improvement; null: the default rule, which adapts to the "
        "length of the run."
    )
    grace_period: Step = strawberry.field(description="Stop at no step before this one.")
    stopping_threshold: float | None = strawberry.field(description="Stop once the metric reaches this value.")
    divergence_threshold: float | None = strawberry.field(description="Stop once the metric is worse than this value.")
    check_finite: bool = strawberry.field(
        description="Stop at NaN or an infinite value. Only the objective's: of other metrics it is a notice."
    )
    smoothing: float = strawberry.field(
        description="The weight of the past in an exponential moving average, 0 to below 1."
    )
    plateau: bool = strawberry.field(description="Whether the default rule stops what no longer improves.")
    rising: bool = strawberry.field(description="Whether the default rule stops what gets worse; needs `maxSteps`.")
    aggressive: bool = strawberry.field(description="Also stop what improves by less than 1 % until `maxSteps`.")
    dry_run: bool = strawberry.field(description="Record what this rule would have stopped, and stop nothing.")

    @classmethod
    def of(cls, declared: Declared) -> Self:
        rules = declared.rules
        return cls(
            metric=rules.metric, mode=MetricMode(rules.mode), min_delta=rules.min_delta, patience=rules.patience,
            grace_period=Step(rules.grace_period), stopping_threshold=rules.stopping_threshold,
            divergence_threshold=rules.divergence_threshold, check_finite=rules.check_finite,
            smoothing=rules.smoothing, plateau=rules.plateau, rising=rules.rising, aggressive=rules.aggressive,
            dry_run=declared.dry_run,
        )  # fmt: skip


@strawberry.type(description="What a stop saved, as estimated when it was decided: the rest of the run, at its pace.")
class StopSaving:
    seconds: float = strawberry.field(description="The time until the end.")
    amount: Decimal | None = strawberry.field(description="At the rate of then; null without a price.")
    currency: str
    by: SavedBy = strawberry.field(description="What the end of the run is taken from.")
    end_step: Step | None = strawberry.field(
        description="The step at which the run would have ended; null if the stop was decided by an older version."
    )
    similar: int = strawberry.field(description="Completed runs of the same name that a forecast end is the median of.")

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Self:
        end, amount = saved.get("endStep"), saved.get("amount")
        return cls(
            seconds=saved["seconds"], amount=Decimal(amount) if amount is not None else None,
            currency=saved["currency"], by=SavedBy(saved["by"]), end_step=Step(end) if end is not None else None,
            similar=saved.get("similar", 0),
        )  # fmt: skip


@strawberry.type(description="The decision of a stop rule, with the facts that it was based on.")
class StopEvidence:
    reason: Reason = strawberry.field(description="The reason with which the simulation ends, or would have ended.")
    rule: str = strawberry.field(description="The rule that decided: PLATEAU, RISING, SLOW, PATIENCE, NON_FINITE...")
    metric: str
    step: Step = strawberry.field(description="The step of the point that decided.")
    value: float | None = strawberry.field(description="The value there; null if it is not finite.")
    best_step: Step | None = strawberry.field(description="The step of the best value before it.")
    best_value: float | None = strawberry.field(description="The best value before it.")
    sentence: str = strawberry.field(description="The decision in words.")
    saved: StopSaving | None = strawberry.field(
        description="What the stop saved, or would have; null if neither `maxSteps` nor similar runs give an end."
    )
    detail: JSON = strawberry.field(description="All facts: the newest evaluations, the threshold, what was saved.")

    @classmethod
    def of(cls, evidence: Mapping[str, Any]) -> Self:
        best = evidence.get("bestStep")
        return cls(
            reason=Reason(evidence["reason"]), rule=evidence["rule"], metric=evidence["metric"],
            step=Step(evidence["step"]), value=evidence.get("value"),
            best_step=Step(best) if best is not None else None, best_value=evidence.get("bestValue"),
            sentence=evidence["sentence"], detail=JSON(evidence),
            saved=StopSaving.of(evidence["saved"]) if evidence.get("saved") is not None else None,
        )  # fmt: skip


@strawberry.type(description="Stop rules of a simulation, and what they decided.")
class Stopping:
    rules: list[StopRule] = strawberry.field(description="Any of them stops the simulation.", metadata={"size": 2})
    evidence: StopEvidence | None = strawberry.field(
        description="Of the stop of the newest attempt, if a rule made it."
    )
    would_have_stopped: list[StopEvidence] = strawberry.field(
        description="The first decision of each dry-run rule, by the order of the rules.", metadata={"size": 1}
    )
    notices: list[str] = strawberry.field(
        description="Metrics of rules that were never reported, and metrics that are not finite."
    )

    @classmethod
    def of(cls, row: Row, evidence: Mapping[str, Any] | None, summaries: Sequence[Summary]) -> Self:
        rules = decode(row.stopping, objective=row.objective_metric, max_steps=row.max_steps)
        recorded = row.would_stop or {}
        return cls(
            rules=[StopRule.of(each) for each in rules],
            evidence=StopEvidence.of(evidence) if evidence is not None and "metric" in evidence else None,
            would_have_stopped=[StopEvidence.of(recorded[key]) for key in sorted(recorded, key=int)],
            notices=list(notices(row, rules, summaries)),
        )


def notices(row: Row, rules: Sequence[Declared], summaries: Sequence[Summary]) -> Sequence[str]:
    """Sentences about rules that can't work, and about metrics that only a notice is due for."""
    reported = {each.metric for each in summaries}
    found = []
    if row.started_at is not None:
        missing = dict.fromkeys(each.rules.metric for each in rules if each.rules.metric not in reported)
        has = f"it has reported {', '.join(sorted(reported)[:10])}" if reported else "it has reported no metric"
        found += [f"The stop rule's metric {name} was never reported: {has}." for name in missing]
    for each in summaries:
        if not math.isfinite(each.last_value) and each.metric != row.objective_metric:
            found.append(f"{each.metric} is not finite at step {each.last_step:,}. It is not the objective.")
    return found
