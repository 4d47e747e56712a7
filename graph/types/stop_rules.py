"""Objective and stop rules as asked for: inputs, and the rules as a row keeps them.

`resolved` completes what was asked: a rule's metric is the objective's unless it names one, its mode the one that was
given or the name implies. `policy.stopping.validate` judges the result; each mistake becomes a user error that names
its field. What the rules decide is the judge's (`scheduler.judge`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import strawberry
from pydantic.alias_generators import to_camel

from db.models import Simulation as Row
from graph.types.enums import MetricMode
from graph.types.inputs import Invalid, RuleAsked
from graph.types.scalars import Step
from graph.types.user_errors import UserError, UserErrorCode
from policy.metric_mode import direction
from policy.rule_documents import Declared, decode, encode
from policy.stopping import StopRules, validate

DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(StopRules) if each.default is not MISSING}


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


def of_new(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stop rules of a new simulation, and the objective that follows from them. Raises `Invalid`."""
    rules = asked.get("stopping", ())
    stopping = resolved(
        rules,
        objective_metric=asked.get("objective_metric"),
        objective_mode=asked.get("objective_mode"),
        metric_modes=asked.get("metric_modes", {}),
        max_steps=asked.get("max_steps"),
    )
    if stopping is None:
        return {"stopping": None}
    first = stopping["rules"][0]
    mode = asked.get("objective_mode")
    return {"stopping": stopping, "objective_metric": asked.get("objective_metric") or first["metric"]} | (
        {"objective_mode": first["mode"]} if mode is None and "objective_metric" not in asked else {}
    )


def of_change(row: Row, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, with the rules as a row keeps them. Raises `Invalid`."""
    rules = asked.get("stopping")
    if asked.get("objective_metric", row.objective_metric) != row.objective_metric and "objective_mode" not in asked:
        asked = {**asked, "objective_mode": None}  # that of the metric before says nothing about this one
    if rules is None:
        if row.max_steps is not None and asked.get("max_steps", row.max_steps) is None:
            _require_no_plan(row)
        return {**asked, **_of_first_rule(asked, row.stopping)}
    metric = asked.get("objective_metric", row.objective_metric)
    stopping = resolved(
        rules,
        objective_metric=metric,
        objective_mode=asked.get("objective_mode", row.objective_mode if metric == row.objective_metric else None),
        metric_modes=row.metric_modes,
        max_steps=asked.get("max_steps", row.max_steps),
    )
    return {**asked, "stopping": stopping, **_of_first_rule({"objective_metric": metric}, stopping)}


def _of_first_rule(asked: Mapping[str, Any], stopping: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The objective where none is asked for: rules are about one."""
    if stopping is None or asked.get("objective_metric", "") is not None:
        return {}
    first = stopping["rules"][0]
    return {"objective_metric": first["metric"], "objective_mode": first["mode"]}


def _require_no_plan(row: Row) -> None:
    """Raise `Invalid` if a rule of the row would have no effect without `maxSteps`."""
    for each in decode(row.stopping, objective=row.objective_metric, max_steps=None):
        for sentence in validate(each.rules):
            field = ["limits", "maxSteps"]
            message = f"limits.maxSteps: change the stop rule of {each.rules.metric}, too: {sentence}"
            raise Invalid([UserError(code=UserErrorCode.INVALID, message=message, field=field)])


def resolved(
    asked: Sequence[RuleAsked],
    *,
    objective_metric: str | None,
    objective_mode: str | None,
    metric_modes: Mapping[str, str],
    max_steps: int | None,
) -> dict[str, Any] | None:
    """Return the rules as a row keeps them; None without any. Raises `Invalid`.

    objective_metric: if None, the first rule's metric is the objective.
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
        declared.append(Declared(kept, each.dry_run))
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
