"""Parameters by Optuna's samplers: equal questions get equal answers, in any process; importance."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from policy.sampling import Outcome, Trial, ask, importances
from policy.search_space import Parameter, Sampler, Space

LR = Parameter("lr", low=1e-4, high=1e-1, log=True)
WD = Parameter("wd", low=0.1, high=0.9, step=0.1)
N = Parameter("n", low=1, high=8, integer=True)
OPT = Parameter("opt", choices=("adam", "sgd", 1, True))
SPACES: dict[Sampler, Space] = {
    Sampler.TPE: (LR, WD, N, OPT),
    Sampler.RANDOM: (LR, WD, N, OPT),
    Sampler.QUASI_RANDOM: (LR, WD, N, OPT),
    Sampler.CMA_ES: (LR, WD, N),
    Sampler.GRID: (WD, OPT),
}


def error(parameters: object) -> float:
    assert isinstance(parameters, dict)
    return abs(math.log(parameters.get("lr", 0.003) / 0.003)) + abs(parameters["wd"] - 0.3)


def search(sampler: Sampler, count: int, seed: int = 7) -> list[Trial]:
    """Trials one after the other, some pruned, some failed, the newest two not ended."""
    trials: list[Trial] = []
    for number in range(count):
        asked = ask(sampler, SPACES[sampler], "MIN", seed, trials)
        outcome = Outcome.PRUNED if number % 5 == 2 else Outcome.FAIL if number % 7 == 3 else Outcome.COMPLETE
        value = None if outcome is Outcome.FAIL else error(asked.parameters)
        ended = Trial(number, asked.parameters, outcome, value, 4 if outcome is Outcome.PRUNED else None, asked.notes)
        trials.append(Trial(number, asked.parameters, notes=asked.notes) if number >= count - 2 else ended)
    return trials


@pytest.mark.parametrize("sampler", list(Sampler))
def test_a_cancelled_trial_counts_as_a_failed_one(sampler: Sampler) -> None:
    trials = search(sampler, 16)
    as_cancelled = [
        replace(each, outcome=Outcome.CANCELLED) if each.outcome is Outcome.FAIL else each for each in trials
    ]
    assert as_cancelled != trials
    assert ask(sampler, SPACES[sampler], "MIN", 7, as_cancelled) == ask(sampler, SPACES[sampler], "MIN", 7, trials)


@pytest.mark.parametrize("sampler", [each for each in Sampler if each is not Sampler.GRID])
def test_a_range_with_a_step_that_is_searched_by_log_gives_its_steps(sampler: Sampler) -> None:
    batch = Parameter("batch", low=32, high=250, step=8, log=True, integer=True)
    scale = Parameter("scale", low=0.1, high=10, step=0.1, log=True)
    trials: list[Trial] = []
    for number in range(25):
        asked = ask(sampler, (batch, scale), "MIN", 7, trials)
        value = float(asked.parameters["batch"])
        trials.append(Trial(number, asked.parameters, Outcome.COMPLETE, value, notes=asked.notes))
    chosen = [each.parameters for each in trials]
    assert {each["batch"] for each in chosen} <= set(range(32, 249, 8))
    assert {each["scale"] for each in chosen} <= {round(0.1 * each, 1) for each in range(1, 101)}
    assert sum(each["scale"] <= 1 for each in chosen) > 5, "by log half of them; by steps a tenth"


@pytest.mark.parametrize("sampler", list(Sampler))
def test_trials_kept_as_json_give_the_next_parameters_again(sampler: Sampler) -> None:
    trials = search(sampler, 16)
    space = SPACES[sampler]
    first = ask(sampler, space, "MIN", 7, trials)
    kept = [
        Trial(each.number, json.loads(json.dumps(each.parameters)), each.outcome, each.value, each.step,
              json.loads(json.dumps(each.notes)))
        for each in trials
    ]  # fmt: skip
    assert ask(sampler, space, "MIN", 7, kept) == first
    for each in space:
        value = first.parameters[each.name]
        assert value in each.choices if each.choices is not None else (each.low or 0) <= value <= (each.high or 0)


def test_another_process_gives_the_same_parameters() -> None:
    program = (
        "import json, sys; from policy.sampling import ask; from policy.search_space import decode, Sampler\n"
        "space = decode(json.loads(sys.argv[1]))\n"
        "print(json.dumps(ask(Sampler.TPE, space, 'MIN', 7, []).parameters))"
    )
    space = json.dumps([{"name": "lr", "low": 1e-4, "high": 0.1, "log": True}])
    done = subprocess.run([sys.executable, "-c", program, space], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ask(Sampler.TPE, [LR], "MIN", 7, []).parameters
    assert done.stderr == ""


def test_another_seed_or_number_gives_others() -> None:
    first = ask(Sampler.RANDOM, [LR], "MIN", 1, [])
    assert ask(Sampler.RANDOM, [LR], "MIN", 2, []) != first
    assert ask(Sampler.RANDOM, [LR], "MIN", 1, [Trial(0, first.parameters)]).parameters != first.parameters


def test_a_grid_has_each_combination_once() -> None:
    trials: list[Trial] = []
    for number in range(36):
        trials.append(Trial(number, ask(Sampler.GRID, SPACES[Sampler.GRID], "MIN", 3, trials).parameters))
    assert len({(each.parameters["wd"], repr(each.parameters["opt"])) for each in trials}) == 9 * 4


def test_quasi_random_points_do_not_depend_on_results() -> None:
    ended = search(Sampler.QUASI_RANDOM, 6)
    open_ = [Trial(each.number, each.parameters) for each in ended]
    space = SPACES[Sampler.QUASI_RANDOM]
    assert len({each.parameters["lr"] for each in ended}) == 6, "each trial has a point of its own"
    assert ask(Sampler.QUASI_RANDOM, space, "MIN", 7, ended) == ask(Sampler.QUASI_RANDOM, space, "MIN", 7, open_)


@pytest.mark.parametrize("sampler", [Sampler.TPE, Sampler.CMA_ES])
def test_what_learns_finds_better_than_its_first_trials(sampler: Sampler) -> None:
    def values(trials: Sequence[Trial]) -> list[float]:
        return sorted(error(dict(each.parameters)) for each in trials)

    trials = search(sampler, 60)
    early, late = values(trials[:15]), values(trials[-15:])
    assert late[7] < early[7], "the medians"


def test_a_single_parameter_is_enough_for_cma_es() -> None:
    trials: list[Trial] = []
    for number in range(12):
        asked = ask(Sampler.CMA_ES, [LR], "MAX", 7, trials)
        trials.append(Trial(number, asked.parameters, Outcome.COMPLETE, float(number), notes=asked.notes))
    assert all(1e-4 <= each.parameters["lr"] <= 1e-1 for each in trials)


def test_importance_is_that_of_the_parameter_which_decides() -> None:
    trials: list[Trial] = []
    for number in range(60):
        parameters = ask(Sampler.RANDOM, [LR, N], "MAX", 5, trials).parameters
        value = -abs(math.log(parameters["lr"] / 0.003))  # type: ignore[operator]  # a number
        trials.append(Trial(number, parameters, Outcome.COMPLETE, value))
    found = importances([LR, N], "MAX", trials)
    assert math.isclose(sum(found.values()), 1)
    assert found["lr"] > 0.8
    assert importances([LR, N], "MAX", trials[:3]) == {}
    assert importances([LR, N], "MAX", []) == {}
