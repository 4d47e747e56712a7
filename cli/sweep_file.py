"""`sweep --file`: sweeps in YAML, in this service's words, in those of W&B, or in those of Optuna.

    simulation: {entrypoint: [python, train.py, "--lr={lr}"], resources: {gpus: 1}, ...}   as a submission file
    parameters: {lr: {low: 1e-4, high: 0.1, log: true}, batch: [64, 128], epochs: 5}
    objective: {metric: val/loss, mode: MIN}
    sampler, trials, parallel, seeds, seed, max_cost, patience, stopping_threshold, pruning: {...}, name, project

W&B: program, command, method, metric: {name, goal, target}, parameters: {lr: {distribution, min, max, q, value,
values}}, run_cap, early_terminate: {min_iter, eta}; its entity is left out, with a note. Optuna: n_trials, n_jobs,
direction, study_name, pruner, and the names of its samplers, pruners and distributions (`type: FloatDistribution`, or
with `attributes` as in its JSON); `sampler: {type: TPESampler, seed: 3}`, `pruner: {type: MedianPruner,
n_warmup_steps: 5}`.
All mistakes are reported at once, each with its line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from cli import terminal
from cli.errors import UsageError
from cli.search import PRUNING, SAMPLERS, parse_parameter
from cli.submission_file import Mistake, Place, Tree, argv, completed_submission, read_tree, say

WORDS = {  # of others, in those of the API
    "n_trials": "trials", "run_cap": "trials", "n_jobs": "parallel", "method": "sampler", "metric": "objective",
    "early_terminate": "pruning", "command": "entrypoint", "max_trials": "trials", "pruner": "pruning",
    "study_name": "name",
}  # fmt: skip
ENTITY = "entity"  # W&B's: the user or team whose project it is
KNOWN = {
    "simulation", "parameters", "objective", "sampler", "trials", "parallel", "seeds", "seed", "max_cost", "patience",
    "stopping_threshold", "pruning", "name", "project", "client_key", "entrypoint", "program", "direction",
    "description",
}  # fmt: skip
OPTUNA_SAMPLERS = {
    "tpesampler": "TPE", "randomsampler": "RANDOM", "gridsampler": "GRID", "qmcsampler": "QUASI_RANDOM",
    "cmaessampler": "CMA_ES",
}  # fmt: skip
OPTUNA_PRUNERS = {
    "medianpruner": "MEDIAN", "successivehalvingpruner": "HALVING", "hyperbandpruner": "HALVING", "noppruner": "NONE",
}  # fmt: skip
PRUNERS = {rule.lower(): rule for rule in PRUNING} | OPTUNA_PRUNERS
DIRECTIONS = {"minimize": "MIN", "maximize": "MAX", "min": "MIN", "max": "MAX"}
LOG = ("log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values")
QUANTIZED = ("q_uniform", "q_log_uniform_values")
OPTUNA_DISTRIBUTIONS = ("FloatDistribution", "IntDistribution", "CategoricalDistribution")
UNIFORM = ("uniform", "q_uniform", "int_uniform", "constant", "categorical", *LOG)
PARTS = {  # of a parameter, in W&B's and in Optuna's words
    "min": "low", "max": "high", "q": "step", "values": "choices", "low": "low", "high": "high", "step": "step",
    "choices": "choices", "log": "log", "integer": "integer", "value": "value", "distribution": "distribution",
    "type": "distribution", "name": "distribution",
}  # fmt: skip


PRUNING_PARTS: Mapping[str, str | None] = {  # None: W&B's, without a meaning here
    "grace_period": "gracePeriod", "min_iter": "gracePeriod", "min_resource": "gracePeriod",
    "n_warmup_steps": "gracePeriod", "reduction_factor": "reductionFactor", "eta": "reductionFactor", "s": None,
    "max_iter": None, "strict": None,
}  # fmt: skip
NOT_SUPPORTED = {  # of a parameter of W&B
    "parameters": "nested parameters are not supported: give each a line of its own, like `optimizer.lr: {min: ...}`",
    "probabilities": "not supported: all choices are equally likely at first",
}


class _Mistake(ValueError):
    """What is wrong at a place of the file."""

    def __init__(self, place: Place, sentence: str) -> None:
        super().__init__(sentence)
        self.place = place


def read_sweep(path: str) -> dict[str, object]:
    """Read a file as a CreateSweepInput, except machines, which stay names. Raises `UsageError`: a line per mistake."""
    tree, given = read_tree(path)
    problems = [sentence for _, sentence in sorted(tree.problems)]
    if not isinstance(given, dict):
        raise UsageError("\n".join(problems) or say(tree.name, 1, (), "expected a mapping with `parameters:`"))
    made: dict[str, object] = {}
    if ENTITY in given:
        told = "W&B's user or team, which is left out: the sweep belongs to the project."
        terminal.say(f"Note: {say(tree.name, tree.line((ENTITY,)), (ENTITY,), told)}", style="yellow")
    for name, value in given.items():
        if name == ENTITY:
            continue
        try:
            _take(made, str(name), value)
        except _Mistake as mistake:
            place = (name, *mistake.place)
            problems.append(say(tree.name, tree.line(place), place, str(mistake)))
    try:
        made["simulation"] = _simulation(made, tree, path)
    except UsageError as error:
        problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    return made


def _take(made: dict[str, object], given: str, value: Any) -> None:
    name = WORDS.get(given, given)
    if name not in KNOWN:
        raise _Mistake((), f"is not a key of a sweep file; known are {', '.join(sorted(KNOWN))}")
    match name:
        case "parameters":
            made["parameters"] = list(_parameters(made, value))
        case "objective":
            _objective(made, value)
        case "direction":
            made["direction"] = _word(value, DIRECTIONS)
        case "sampler":
            _sampler(made, value)
        case "pruning":
            made["pruning"] = _pruning(value)
        case "entrypoint":
            try:
                made[name] = argv(value)
            except Mistake as mistake:
                raise _Mistake((), str(mistake)) from None
        case "max_cost":
            made["maxCost"] = str(value)
        case "stopping_threshold":
            made["stoppingThreshold"] = value
        case "client_key":
            made["clientKey"] = value
        case "description":
            made["notes"] = value
        case _:
            made[name] = value


def _parameters(made: dict[str, object], given: Any) -> Iterator[dict[str, object]]:
    if not isinstance(given, dict):
        raise _Mistake((), "expected a mapping like {lr: {low: 0.001, high: 0.1, log: true}}")
    fixed: dict[str, object] = {}
    for name, value in given.items():
        found = _parameter(str(name), value)
        if "value" in found:
            fixed[str(name)] = found["value"]
        else:
            yield {"name": str(name), **found}
    made["fixed"] = fixed


def _parameter(name: str, value: Any) -> Mapping[str, object]:
    if isinstance(value, list):
        return {"choices": value}
    if isinstance(value, str):
        try:
            return parse_parameter(name, value)
        except UsageError as error:
            raise _Mistake((name,), str(error).removeprefix(f"--parameter {name}: ")) from None
    if not isinstance(value, dict):
        return {"value": value}
    made: dict[str, object] = {}
    attributes = value.get("attributes")
    if isinstance(attributes, dict):  # Optuna's JSON, in which no step is null
        value = {key: inner for key, inner in ({**value, **attributes}).items() if key != "attributes"}
        value = {key: inner for key, inner in value.items() if inner is not None}
    kind = next((value[part] for part in ("distribution", "type", "name") if part in value), None)
    if kind is not None and str(kind) not in (*OPTUNA_DISTRIBUTIONS, *UNIFORM):
        raise _Mistake((name,), f"the distribution {kind} is not supported; known are {', '.join(UNIFORM)}")
    for part, inner in value.items():
        if part not in PARTS:
            raise _Mistake((name, part), NOT_SUPPORTED.get(part, f"expected one of {', '.join(PARTS)}"))
        made[PARTS[part]] = inner
    made.pop("distribution", None)
    if kind is not None:
        _of_distribution(str(kind), made)
    elif {"low", "high"} <= made.keys() and all(isinstance(made[each], int) for each in ("low", "high")):
        made.setdefault("integer", isinstance(made.get("step", 1), int))  # as W&B guesses it
    return made


def _of_distribution(kind: str, made: dict[str, object]) -> None:
    if kind in LOG:
        made["log"] = True
    if kind in QUANTIZED:
        _quantize(made)
    if kind in ("IntDistribution", "int_uniform"):
        made["integer"] = True


def _quantize(made: dict[str, object]) -> None:
    """Let a range have multiples of `q` only, as W&B has; `q` is 1 there if it is left out."""
    low, step = made.get("low"), made.setdefault("step", 1)
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in (low, step)) or not step:
        return  # the service says what is wrong
    q = Decimal(str(step))
    least = (Decimal(str(low)) / q).to_integral_value(ROUND_CEILING) * q
    made["low"] = int(least) if least == int(least) else float(least)
    made["integer"] = isinstance(step, int)


def _objective(made: dict[str, object], value: Any) -> None:
    if isinstance(value, str):
        name, _, way = value.partition(":")
        made["objective"] = {"metric": name, **({"mode": _word(way, DIRECTIONS)} if way else {})}
        return
    if not isinstance(value, dict):
        raise _Mistake((), "expected {metric: val/loss, mode: MIN}")
    unknown = value.keys() - {"metric", "name", "mode", "goal", "target"}
    if unknown:
        raise _Mistake((str(min(unknown, key=str)),), "expected metric and mode, or name and goal")
    mode = value.get("mode", value.get("goal"))
    made["objective"] = {
        "metric": value.get("metric", value.get("name")),
        **({"mode": _word(mode, DIRECTIONS)} if mode is not None else {}),
    }
    if "target" in value:
        made["stoppingThreshold"] = value["target"]


def _sampler(made: dict[str, object], value: Any) -> None:
    if isinstance(value, dict):
        if unknown := value.keys() - {"type", "name", "seed"}:
            raise _Mistake((min(unknown, key=str),), "not supported; a sampler has type and seed")
        if value.get("seed") is not None:
            made.setdefault("seed", value["seed"])
        if not value.keys() & {"type", "name"}:
            return
        value = value.get("type", value.get("name"))
    made["sampler"] = _word(value, SAMPLERS | OPTUNA_SAMPLERS)


def _pruning(value: Any) -> dict[str, object]:
    if value is False:
        return {"rule": "NONE"}
    if isinstance(value, str) and value.lower() in PRUNERS:
        return {"rule": PRUNERS[value.lower()]}
    if not isinstance(value, dict):
        raise _Mistake((), "expected halving, median or none, or {grace_period: STEP, reduction_factor: 3}")
    made: dict[str, object] = {}
    for part, inner in value.items():
        if part in ("rule", "type", "name"):
            if str(inner).lower() != "hyperband":  # W&B's only one: with min_iter, halving
                made["rule"] = _word(inner, PRUNERS)
        elif part not in PRUNING_PARTS:
            raise _Mistake(
                (part,),
                "not supported; pruning has rule (or type), grace_period (or n_warmup_steps, min_resource, min_iter) "
                "and reduction_factor (or eta)",
            )
        elif (known := PRUNING_PARTS[part]) is not None:
            made[known] = inner
    return made


def _simulation(made: dict[str, object], tree: Tree, path: str) -> dict[str, object]:
    """Put the template together: `simulation`, the keys beside it, and W&B's program and command."""
    section = made.pop("simulation", {})
    simulation: dict[str, Any] = dict(section) if isinstance(section, dict) else {}
    fixed: Any = made.pop("fixed", {})
    command: Any = made.pop("entrypoint", None)
    program = made.pop("program", None)
    if program is not None or isinstance(command, list):
        searched: Any = made.get("parameters", [])
        names = [str(each["name"]) for each in searched] + list(fixed)
        default = ["python", "${program}", "${args}"] if program is not None else []
        simulation["entrypoint"] = [*_expanded(command or default, str(program or ""), names)]
    if fixed:
        simulation["parameters"] = {**simulation.get("parameters", {}), **fixed}
    for name in ("project", "notes"):
        if name in made:
            simulation.setdefault(name, made.pop(name))
    direction = made.pop("direction", None)
    if direction is not None and isinstance(objective := made.get("objective"), dict):
        objective.setdefault("mode", direction)
    return completed_submission(simulation, tree, path, within=("simulation",))


def _expanded(command: list[Any], program: str, names: list[str]) -> Iterator[str]:
    """Replace W&B's macros."""
    for word in map(str, command):
        match word:
            case "${env}" | "/usr/bin/env":
                continue
            case "${interpreter}":
                yield "python"
            case "${program}":
                yield program
            case "${args}":
                yield from (f"--{name}={{{name}}}" for name in names)
            case "${args_no_hyphens}":
                yield from (f"{name}={{{name}}}" for name in names)
            case _:
                yield word


def _word(value: Any, known: Mapping[str, str]) -> str:
    found = known.get(str(value).strip().lower().replace("_", "-"))
    if found is None:
        raise _Mistake((), f"expected one of {', '.join(known)}, got {value!r}")
    return found
