"""Objective and stop rules of a simulation: types, inputs, and the rules as a row keeps them.

`resolved` completes what was asked: a rule's metric is the objective's unless it names one, its mode the one that was
given or the name implies. `policy.stopping.validate` judges the result; each mistake becomes a user error that names
its field. What the rules decide is the judge's (`scheduler.judge`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from types import MappingProxyType
from typing import Any, Self

import strawberry
from pydantic.alias_generators import to_camel
from strawberry.scalars import JSON

from db.metrics import Summary
from db.models import Simulation as Row
from graph.types.enums import MetricMode, Reason
from graph.types.inputs import Invalid, RuleAsked
from graph.types.scalars import Step
from graph.types.user_errors import UserError, UserErrorCode
from policy.metric_mode import default_objective, direction
from policy.rule_documents import Declared, decode, encode
from policy.stopping import StopRules, validate

DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(StopRules) if each.default is not MISSING}


# --- what is read ----------------------------------------------------------------------------------------------


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
        mode = objective_mode(row, metric)
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


def objective_mode(row: Row, metric: str) -> MetricMode | None:
    """The direction of the objective, None if none is known."""
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
    detail: JSON = strawberry.field(description="All facts: the newest evaluations, the threshold, what was saved.")

    @classmethod
    def of(cls, evidence: Mapping[str, Any]) -> Self:
        best = evidence.get("bestStep")
        return cls(
            reason=Reason(evidence["reason"]), rule=evidence["rule"], metric=evidence["metric"],
            step=Step(evidence["step"]), value=evidence.get("value"),
            best_step=Step(best) if best is not None else None, best_value=evidence.get("bestValue"),
            sentence=evidence["sentence"], detail=JSON(evidence),
        )  # fmt: skip


@strawberry.type(description="Stop rules of a simulation, and what they decided.")
class Stopping:
    rules: list[StopRule] = strawberry.field(description="Any of them stops the simulation.")
    evidence: StopEvidence | None = strawberry.field(
        description="Of the stop of the newest attempt, if a rule made it."
    )
    would_have_stopped: list[StopEvidence] = strawberry.field(
        description="The first decision of each dry-run rule, by the order of the rules."
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
            evidence=StopEvidence.of(evidence) if evidence is not None and "rule" in evidence else None,
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


# --- what is asked ---------------------------------------------------------------------------------------------


@strawberry.input(description="The metric by which the simulation is judged.")
class ObjectiveInput:
    metric: str = strawberry.field(description="Its name in the output of the simulation.")
    mode: MetricMode | None = strawberry.field(
        default=None, description="Whether lower or higher is better; default: by the metric's name."
    )


@strawberry.input(description="A stop rule. Without any option but the metric, the default rule.")
class StopRuleInput:
    metric: str | None = strawberry.field(default=None, description="Default: the objective's.")
    mode: MetricMode | None = strawberry.field(
        default=None, description="Whether lower or higher is better; default: by the metric's name."
    )
    min_delta: float = strawberry.field(
        default=DEFAULTS["min_delta"], description="A smaller improvement on the best value counts as none."
    )
    patience: int | None = strawberry.field(
        default=None,
        description="Stop after so many evaluations without improvement, instead of by the default rule.",
    )
    grace_period: Step = strawberry.field(
        default=DEFAULTS["grace_period"], description="Stop at no step before this one."
    )
    stopping_threshold: float | None = strawberry.field(
        default=None, description="Stop once the metric reaches this value."
    )
    divergence_threshold: float | None = strawberry.field(
        default=None, description="Stop once the metric is worse than this value."
    )
    check_finite: bool | None = strawberry.field(
        default=None, description="Stop at NaN or an infinite value. Default: true for the objective, the only choice."
    )
    smoothing: float = strawberry.field(
        default=DEFAULTS["smoothing"],
        description="The weight of the past in an exponential moving average, 0 to below 1.",
    )
    plateau: bool = strawberry.field(
        default=DEFAULTS["plateau"], description="Stop what no longer improves, by the default rule."
    )
    rising: bool = strawberry.field(
        default=DEFAULTS["rising"], description="Stop what gets worse, by the default rule, if `maxSteps` is given."
    )
    aggressive: bool = strawberry.field(
        default=DEFAULTS["aggressive"],
        description="Also stop what improves by less than 1 % until `maxSteps`. Stops some runs too early.",
    )
    dry_run: bool = strawberry.field(
        default=False, description="Record what this rule would have stopped, and stop nothing."
    )


def resolved(
    asked: Sequence[RuleAsked],
    *,
    objective_metric: str | None,
    objective_mode: str | None,
    metric_modes: Mapping[str, str],
    max_steps: int | None,
    last_steps: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any] | None:
    """Return the rules as a row keeps them; None without any. Raises `Invalid`.

    objective_metric: if None, the first rule's metric is the objective. last_steps: of metrics that were reported
    before these rules were given: points up to them decide nothing.
    """
    errors: list[UserError] = []
    declared: list[Declared] = []
    for place, each in enumerate(asked):
        metric = each.metric or objective_metric
        if metric is None:
            errors.append(_error(place, "metric", "name the metric, or an objective"))
            continue
        objective_metric = objective_metric or metric
        given = objective_mode if metric == objective_metric else None
        if given is not None and each.mode is not None and each.mode != given:
            errors.append(_error(place, "mode", f"the objective {metric} is {given}, and the rule is {each.mode}"))
            continue
        mode = each.mode or given or metric_modes.get(metric) or direction(metric)
        if mode is None:
            errors.append(_error(place, "mode", f"give MIN or MAX: the name {metric} does not imply it"))
            continue
        if each.check_finite and metric != objective_metric:
            errors.append(_error(place, "checkFinite", f"stops for the objective alone, which is {objective_metric}"))
            continue
        own = each.model_dump(exclude={"metric", "mode", "check_finite", "dry_run"})
        checks = metric == objective_metric and each.check_finite is not False
        rules = StopRules(metric=metric, mode=str(mode), check_finite=checks, max_steps=max_steps, **own)
        errors += [_error(place, *_field_of(sentence)) for sentence in validate(rules)]
        # Kept as it was asked: the objective may change, and `decode` decides by what it is then.
        kept = replace(rules, check_finite=each.check_finite is not False)
        declared.append(Declared(kept, each.dry_run, last_steps.get(metric)))
    if errors:
        raise Invalid(errors)
    return encode(declared) if declared else None


_NAMES = {to_camel(each.name) for each in fields(StopRules)}


def _field_of(sentence: str) -> tuple[str | None, str]:
    """Split a sentence of `validate` at the field that it begins with."""
    word, _, rest = sentence.partition(" ")
    name = to_camel(word.strip("`:,"))
    return (name, rest) if name in _NAMES else (None, sentence)


def _error(place: int, field: str | None, message: str) -> UserError:
    path = ["stopping", str(place), *([field] if field is not None else [])]
    return UserError(code=UserErrorCode.INVALID, message=f"{'.'.join(path)}: {message}", field=path)
