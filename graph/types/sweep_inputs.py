"""Inputs of the mutations of sweeps, and what is judged about several of their values together.

`inputs` judges single values, `policy.search_space` the ranges and choices, `policy.sweep` the rule that prunes.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import strawberry
from strawberry.scalars import JSON

from db.sweeps import WantedSweep
from graph.types.enums import MetricMode, SweepPruning, SweepSampler
from graph.types.inputs import Invalid
from graph.types.scalars import Step
from graph.types.simulation_inputs import CreateSimulationInput
from graph.types.stop_rules import ObjectiveInput
from graph.types.user_errors import UserError, UserErrorCode
from graph.types.variables import check_parameters
from policy import sweep
from policy.metric_mode import direction
from policy.search_space import (
    MOST_AT_ONCE,
    MOST_BYTES,
    Parameter,
    Sampler,
    as_text,
    encode,
    grid_size,
    longest,
    marks,
    mistakes,
    size_of_filled,
)
from policy.sweep import REDUCTION_FACTOR, UNKNOWN_END, Halving, Median, Pruning
from transitions.sweep import SEED


@strawberry.input(
    description="A parameter that a sweep searches: either `choices`, or the range from `low` to `high`, as in Optuna."
)
class SweepParameterInput:
    name: str = strawberry.field(description="Its name: `{lr}` in a word of the entrypoint stands for its value.")
    choices: list[JSON] | None = strawberry.field(
        default=None, description="Texts, numbers and booleans, at most 1,000: one of them is chosen."
    )
    low: float | None = strawberry.field(default=None, description="The lowest value.")
    high: float | None = strawberry.field(default=None, description="The highest value, included.")
    step: float | None = strawberry.field(default=None, description="The distance of values; default: any value.")
    log: bool = strawberry.field(default=False, description="Whether the range is searched by the logarithm.")
    integer: bool = strawberry.field(default=False, description="Whether values are whole numbers, within ±2^53.")


@strawberry.input(description="How a sweep stops trials that are worse than others at the same step.")
class SweepPruningInput:
    rule: SweepPruning | None = strawberry.field(
        default=None, description="Default: HALVING if `gracePeriod` or `simulation.limits.maxSteps` is given."
    )
    grace_period: Step | None = strawberry.field(
        default=None,
        description="The first step at which trials are compared; with MEDIAN also the steps between two comparisons. "
        "Default: 10 % of `maxSteps`.",
    )
    reduction_factor: int | None = strawberry.field(
        default=None,
        description="With HALVING, the best one of so many trials goes on, and the next comparison is at so many times "
        "the step. 2 to 100; 3 if left out.",
    )


@strawberry.input(description="A sweep to create.")
class CreateSweepInput:
    simulation: CreateSimulationInput = strawberry.field(
        description="What each trial is. Its `parameters` are the same for all; `clientKey`, `after` and `attended` "
        "are not for trials."
    )
    parameters: list[SweepParameterInput] = strawberry.field(description="What is searched: 1 to 100 parameters.")
    objective: ObjectiveInput = strawberry.field(
        description="The metric whose best value is the result of a trial. It needs a direction."
    )
    name: str | None = strawberry.field(
        default=None,
        description="Default: the simulation's. Trials are named after the simulation, or if that has no name, after "
        "the sweep, with their number: `NAME-0`.",
    )
    sampler: SweepSampler = strawberry.field(default=Sampler.TPE, description="What chooses the next parameters.")
    trials: int | None = strawberry.field(
        default=None, description="How many trials there are, 1 to 10,000. Default: all of a GRID; else it is needed."
    )
    parallel: int = strawberry.field(default=1, description="How many trials there are at once, 1 to 1,000.")
    seeds: int = strawberry.field(
        default=1,
        description="How often each set of parameters is run, 1 to 100: with the parameter `seed` from 0 on, if more "
        "than once. The result is the mean.",
    )
    seed: int | None = strawberry.field(
        default=None, description="The seed of the sampler, 0 to 2147483647. Default: a random one."
    )
    max_cost: Decimal | None = strawberry.field(
        default=None,
        description="The highest cost of all its trials together, in the installation's currency. It is never "
        "exceeded: each simulation gets its share of it as its own limit.",
    )
    patience: int | None = strawberry.field(
        default=None, description="End after so many trials in a row that were not better than the best one."
    )
    stopping_threshold: float | None = strawberry.field(
        default=None, description="End once the result of a trial reaches this value."
    )
    pruning: SweepPruningInput | None = strawberry.field(
        default=None, description="How trials are compared while they run."
    )
    client_key: str | None = strawberry.field(
        default=None, description="An idempotency key of the client: equal keys in a project create one sweep."
    )


@strawberry.input(description="The sweep to change.")
class SweepInput:
    id: strawberry.ID


@strawberry.input(
    description="The sweep to change, and what of it. What is left out stays as it is. A sweep that has ended goes on "
    "if that leaves it something to do."
)
class UpdateSweepInput:
    id: strawberry.ID
    trials: int | None = strawberry.field(default=strawberry.UNSET, description="How many trials there are.")
    parallel: int | None = strawberry.field(default=strawberry.UNSET, description="How many trials there are at once.")
    max_cost: Decimal | None = strawberry.field(
        default=strawberry.UNSET,
        description="The highest cost of all its trials together, if it has such a limit; null removes it.",
    )
    patience: int | None = strawberry.field(
        default=strawberry.UNSET, description="End after so many trials without a better one; null: never for that."
    )


# --- what is judged together -----------------------------------------------------------------------------------

_REFUSED = {
    "client_key": "a trial has no client key: give that of the sweep",
    "after": "trials can't run after other simulations",
    "attended": "trials can't be attended: each would wait for a viewer",
}


def sweep_asked(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Complete the values of a sweep: (of its template, of `WantedSweep` beside the template). Raises `Invalid`."""
    template: dict[str, Any] = {**asked["simulation"]}
    sampler = Sampler(asked.get("sampler", Sampler.TPE))
    space = tuple(Parameter(**each) for each in asked["parameters"])
    errors = [
        *(_error(("parameters", *path), sentence) for path, sentence in mistakes(space, sampler)),
        *(_error(("simulation", _camel(name)), sentence) for name, sentence in _REFUSED.items() if template.get(name)),
        *_mistakes_of_names(template, space, asked.get("seeds", 1)),
        *_mistakes_of_counts(asked),
    ]
    if errors:
        raise Invalid(errors)
    mode = _mode(asked, template)
    trials = asked.get("trials") or (grid_size(space) if sampler is Sampler.GRID else None)
    if trials is None:
        sentence = "give the number of trials, or the sampler GRID, which tries all combinations"
        raise Invalid([_error(("trials",), sentence)])
    if sampler is Sampler.GRID:
        trials = min(trials, grid_size(space))
    template |= {"objective_metric": asked["objective_metric"], "objective_mode": mode}
    pruning = _pruning(asked, template, mode)
    return template, {
        "space": encode(space),
        "sampler": sampler.value,
        "seed": asked["seed"] if "seed" in asked else secrets.randbelow(2**31),
        "objective_metric": asked["objective_metric"],
        "objective_mode": mode,
        "trials": trials,
        "target": asked.get("stopping_threshold"),
        "grace_period": pruning.grace_period if pruning is not None else None,
        "reduction_factor": pruning.reduction_factor if isinstance(pruning, Halving) else None,
        **{name: asked[name] for name in ("parallel", "seeds", "max_cost", "patience") if name in asked},
    }


def _mistakes_of_names(template: Mapping[str, Any], space: Sequence[Parameter], seeds: int) -> Iterator[UserError]:
    fixed: Mapping[str, Any] = template.get("parameters", {})
    searched = {each.name for each in space}
    for place, each in enumerate(space):
        if each.name in fixed:
            yield _error(("parameters", place, "name"), f"{each.name!r} is a parameter of the simulation too")
    own = {SEED} if seeds > 1 else set()
    for name in own & (searched | fixed.keys()):
        yield _error(("seeds",), f"with several seeds, {name!r} is the number of the seed: rename the parameter")
    known = searched | fixed.keys() | own
    for place, name in marks(template["entrypoint"]):
        if name not in known:
            yield _error(
                ("simulation", "entrypoint", place),
                f"{{{name}}} is no parameter of this sweep; if it is meant as text, write {{{{{name}}}}}",
            )
    sizes = {
        **{name: len(as_text(value).encode()) for name, value in fixed.items()},
        **{each.name: longest(each) for each in space},
    }
    if size_of_filled(template["entrypoint"], sizes) > MOST_BYTES:
        yield _error(("simulation", "entrypoint"), f"has more than {MOST_BYTES:,} bytes with its parameters")
    try:
        check_parameters({**fixed, **dict.fromkeys(searched | own, 0)})
    except ValueError as error:
        yield _error(("parameters",), str(error))


def _mistakes_of_counts(asked: Mapping[str, Any]) -> Iterator[UserError]:
    if asked.get("parallel", 1) * asked.get("seeds", 1) > MOST_AT_ONCE:
        yield _error(("parallel",), f"with its seeds, there would be more than {MOST_AT_ONCE:,} simulations at once")


def _mode(asked: Mapping[str, Any], template: Mapping[str, Any]) -> str:
    metric = asked["objective_metric"]
    own = template.get("objective_metric")
    if own is not None and own != metric:
        raise Invalid([_error(("simulation", "objective"), f"the objective of the sweep is {metric}: leave it out")])
    mode = asked.get("objective_mode") or template.get("objective_mode") or template.get("metric_modes", {}).get(metric)
    mode = mode or direction(metric)
    if mode is None:
        raise Invalid([_error(("objective", "mode"), f"give MIN or MAX: the name {metric} does not imply it")])
    return str(MetricMode(mode))


def _pruning(asked: Mapping[str, Any], template: Mapping[str, Any], mode: str) -> Pruning | None:
    rule, grace, max_steps = asked.get("pruning_rule"), asked.get("grace_period"), template.get("max_steps")
    if rule is SweepPruning.NONE or (rule is None and grace is None and max_steps is None):
        if grace is not None or asked.get("reduction_factor") is not None:
            raise Invalid([_error(("pruning",), "without a rule, gracePeriod and reductionFactor mean nothing")])
        return None
    if grace is None:
        if max_steps is None:
            raise Invalid([_error(("pruning", "gracePeriod"), "give it, or simulation.limits.maxSteps")])
        grace = max(math.ceil(max_steps * sweep.FIRST_RUNG), 1)
        if grace >= max_steps:
            return None  # a plan of one step has no rungs
    most = max_steps or UNKNOWN_END
    pruning: Pruning
    if rule is SweepPruning.MEDIAN:
        if asked.get("reduction_factor") is not None:
            raise Invalid([_error(("pruning", "reductionFactor"), "belongs to HALVING: the median rule has none")])
        pruning = Median(most, mode, grace)
    else:
        pruning = Halving(most, mode, grace, asked.get("reduction_factor") or REDUCTION_FACTOR)
    if problems := sweep.validate(pruning):
        raise Invalid([_error(("pruning",), each) for each in problems])
    return pruning


def wanted_sweep(template: Any, name: str, values: Mapping[str, Any]) -> WantedSweep:
    """Put the parts together. template: the `db.simulations.Wanted` of a trial."""
    return WantedSweep(template=template, name=name, **values)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.title() for each in rest)


def _error(path: Sequence[str | int], message: str) -> UserError:
    words = [str(each) for each in path]
    return UserError(code=UserErrorCode.INVALID, message=f"{'.'.join(words)}: {message}", field=words)
