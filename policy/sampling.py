"""Parameters of the next trial, and the importance of parameters, by Optuna (ask and tell).

Each question builds a study in memory out of the trials so far and asks the sampler once. The sampler is seeded by the
sweep's seed and the number of the trial, so equal trials get equal answers in any process, and nothing but rows has to
survive a restart. What a sampler notes about a trial (Optuna's system attributes; CMA-ES keeps its state there) is kept
with the trial and given back: the notes are the service's own and never a client's, for Optuna unpickles them.

Optuna is imported by the first question: it takes half a second, which neither a start nor a client needs. A question
takes milliseconds with hundreds of trials: callers with an event loop ask in a thread.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from policy.metric_mode import MAX
from policy.search_space import Parameter, Sampler, Space, Value

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

KEPT = ("cma:",)  # beginnings of the notes that a sampler reads again
LEAST_FOR_IMPORTANCE = 4  # trials with a value: of fewer, all parameters look alike


class Outcome(StrEnum):
    """How a trial ended, in Optuna's words but for CANCELLED, which samplers are told as FAIL."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial so far. outcome None: it has not ended. step: that a pruned one came to, with `value` there."""

    number: int
    parameters: Mapping[str, Any]
    outcome: Outcome | None = None
    value: float | None = None
    step: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """Parameters of a new trial, and what its sampler noted."""

    parameters: dict[str, Value]
    notes: dict[str, Any]


def ask(sampler: Sampler, space: Space, mode: str, seed: int, trials: Sequence[Trial]) -> Asked:
    """Choose the parameters of the trial that follows these. trials: all so far, by number from 0."""
    import optuna

    assert [each.number for each in trials] == list(range(len(trials)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental arguments and rounded ranges: nothing a user could act on
        study = _study(space, mode, trials, by=_sampler(sampler, space, seed, len(trials)), as_grid=_is_grid(sampler))
        trial = study.ask({each.name: _distribution(each, as_grid=_is_grid(sampler)) for each in space})
    noted = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))[-1].system_attrs
    return Asked(
        {each.name: _value(each, trial.params[each.name], as_grid=_is_grid(sampler)) for each in space},
        {name: value for name, value in noted.items() if name.startswith(KEPT)},
    )


def importances(space: Space, mode: str, trials: Sequence[Trial]) -> Mapping[str, float]:
    """Return how much each parameter matters for the best tenth of the trials, by PED-ANOVA; the sum is 1.

    Empty if too few trials have a value. Source: Watanabe et al., "PED-ANOVA", IJCAI 2023.
    """
    ended = [each for each in trials if each.outcome is Outcome.COMPLETE]
    if len(ended) < LEAST_FOR_IMPORTANCE:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(_study(space, mode, ended), evaluator=PedAnovaImportanceEvaluator())
    return {each.name: float(found.get(each.name, 0.0)) for each in space}


def _study(
    space: Space,
    mode: str,
    trials: Sequence[Trial],
    *,
    by: optuna.samplers.BaseSampler | None = None,
    as_grid: bool = False,
) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would announce each study
    study = optuna.create_study(sampler=by, direction="maximize" if mode == MAX else "minimize")
    distributions = {each.name: _distribution(each, as_grid=as_grid) for each in space}
    study.add_trials([_frozen(each, space, distributions, as_grid=as_grid) for each in trials])
    return study


def _frozen(
    trial: Trial, space: Space, distributions: dict[str, BaseDistribution], *, as_grid: bool
) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState, create_trial

    outcome = Outcome.FAIL if trial.outcome is Outcome.CANCELLED else trial.outcome
    state = TrialState[outcome.value] if outcome is not None else TrialState.RUNNING
    seen = state is TrialState.PRUNED and trial.value is not None and trial.step is not None
    return create_trial(
        state=state,
        value=trial.value if state is TrialState.COMPLETE else None,
        params={each.name: _raw(each, trial.parameters[each.name], as_grid=as_grid) for each in space},
        distributions=distributions,
        system_attrs=dict(trial.notes),
        intermediate_values={trial.step: trial.value} if seen else None,  # type: ignore[dict-item]  # both are given
    )


def _sampler(sampler: Sampler, space: Space, seed: int, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    own = int.from_bytes(sha256(f"{seed} {number}".encode()).digest()[:4])
    match sampler:
        case Sampler.TPE:
            return optuna.samplers.TPESampler(seed=own)
        case Sampler.RANDOM:
            return optuna.samplers.RandomSampler(seed=own)
        case Sampler.CMA_ES:
            return optuna.samplers.CmaEsSampler(seed=own, warn_independent_sampling=False)
        case Sampler.GRID:  # one order for the whole sweep
            return optuna.samplers.GridSampler(
                {each.name: range(len(each.values or ())) for each in space}, seed=seed % 2**32
            )
        case Sampler.QUASI_RANDOM:
            return _quasi_random(seed % 2**32, number)


def _quasi_random(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler of scrambled Sobol points, at the point of a trial's number.

    Optuna counts the points in the study's own storage, which lives for one question here.
    """
    import optuna

    class Numbered(optuna.samplers.QMCSampler):
        def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
            return number

    return Numbered(scramble=True, seed=seed, warn_independent_sampling=False)


# --- values, and what samplers see of them ---------------------------------------------------------------------


def _is_grid(sampler: Sampler) -> bool:
    return sampler is Sampler.GRID


def _distribution(parameter: Parameter, *, as_grid: bool = False) -> BaseDistribution:
    """Choices are seen by their JSON, so that 1 and true are two; values of a step by their place."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choices is not None and not as_grid:
        return CategoricalDistribution([json.dumps(each) for each in parameter.choices])
    values = parameter.values
    if values is not None:
        return IntDistribution(0, len(values) - 1)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _value(parameter: Parameter, raw: Any, *, as_grid: bool) -> Value:
    if parameter.choices is not None and not as_grid:
        return json.loads(raw)  # type: ignore[no-any-return]  # one of the choices
    values = parameter.values
    if values is not None:
        return values[int(raw)]
    steps = parameter.steps
    return float(raw) if steps is None else steps[_place(parameter, raw, len(steps))]


def _raw(parameter: Parameter, value: Any, *, as_grid: bool) -> Any:
    if parameter.choices is not None:
        label = json.dumps(value)
        return [json.dumps(each) for each in parameter.choices].index(label) if as_grid else label
    if parameter.values is None:
        return value
    return _place(parameter, value, len(parameter.values))


def _place(parameter: Parameter, value: float, count: int) -> int:
    """Return the place of the step that is nearest to a value."""
    low, step = parameter.low or 0, parameter.step or 1
    # Of very many values a double may name the place beside: one beyond the ends would be refused.
    return min(max(round((value - low) / step), 0), count - 1)
