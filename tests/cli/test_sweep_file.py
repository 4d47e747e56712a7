"""Sweep files: this service's words, W&B's and Optuna's; mistakes with their lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.errors import UsageError
from cli.submit import Submission
from cli.sweep_file import read_sweep
from cli.sweeps import sweep_input

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep.yaml"


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_sweep(str(path))


def test_a_file_is_what_the_api_takes(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        """
name: search
parameters:
  lr: {low: 1e-4, high: 0.1, log: true}
  batch: [64, 128]
  depth: 2..8
  epochs: 20
objective: {metric: val/loss, mode: MIN}
sampler: quasi-random
trials: 40
parallel: 4
max_cost: 12.5
pruning: {grace_period: 5, reduction_factor: 4}
simulation:
  entrypoint: [train, "{lr}"]
  limits: {max_runtime: 2h}
""",
    ) == {
        "name": "search",
        "parameters": [
            {"name": "lr", "low": 1e-4, "high": 0.1, "log": True},
            {"name": "batch", "choices": [64, 128]},
            {"name": "depth", "low": 2, "high": 8, "integer": True},
        ],
        "objective": {"metric": "val/loss", "mode": "MIN"},
        "sampler": "QUASI_RANDOM", "trials": 40, "parallel": 4, "maxCost": "12.5",
        "pruning": {"gracePeriod": 5, "reductionFactor": 4},
        "simulation": {
            "entrypoint": ["train", "{lr}"], "limits": {"maxRuntimeSeconds": 7200}, "parameters": {"epochs": 20},
        },
    }  # fmt: skip


def test_a_file_of_wandb_is_understood(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
program: train.py
method: bayes
metric: {name: val/acc, goal: maximize, target: 0.99}
run_cap: 20
parameters:
  lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
  layers: {min: 1, max: 4}
  dropout: {distribution: q_uniform, q: 0.1, min: 0, max: 0.5}
  opt: {values: [adam, sgd]}
  epochs: {value: 5}
early_terminate: {type: hyperband, min_iter: 3, eta: 2, s: 2}
command: ["${env}", "${interpreter}", "${program}", "${args}"]
""",
    )
    assert found["parameters"] == [
        {"name": "lr", "low": 0.0001, "high": 0.1, "log": True},
        {"name": "layers", "low": 1, "high": 4, "integer": True},
        {"name": "dropout", "step": 0.1, "low": 0, "high": 0.5, "integer": False},
        {"name": "opt", "choices": ["adam", "sgd"]},
    ]
    assert (found["sampler"], found["trials"], found["stoppingThreshold"]) == ("TPE", 20, 0.99)
    assert found["objective"] == {"metric": "val/acc", "mode": "MAX"}
    assert found["pruning"] == {"gracePeriod": 3, "reductionFactor": 2}
    assert found["simulation"] == {
        "entrypoint": [
            "python", "train.py", "--lr={lr}", "--layers={layers}", "--dropout={dropout}", "--opt={opt}",
            "--epochs={epochs}",
        ],
        "parameters": {"epochs": 5},
    }  # fmt: skip


def test_the_entity_of_wandb_is_left_out_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(tmp_path, "entity: team\nproject: vision\nname: search\nparameters: {lr: [0.1, 0.2]}\n")
    assert (found["name"], found["simulation"]) == ("search", {"project": "vision"})
    assert "sweep.yaml:1: entity: W&B's user or team, which is left out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "{distribution: q_log_uniform_values, q: 8, min: 32, max: 256}",
            {"low": 32, "high": 256, "step": 8, "log": True, "integer": True},
        ),
        (
            "{distribution: q_log_uniform_values, min: 1.5, max: 90}",
            {"low": 2, "high": 90, "step": 1, "log": True, "integer": True},
        ),
        ("{distribution: q_uniform, min: 0, max: 7.5}", {"low": 0, "high": 7.5, "step": 1, "integer": True}),
        (
            "{distribution: q_uniform, q: 0.1, min: -0.25, max: 1}",
            {"low": -0.2, "high": 1, "step": 0.1, "integer": False},
        ),
        ("{distribution: log_uniform_values, min: 1, max: 9, q: 2}", {"low": 1, "high": 9, "step": 2, "log": True}),
    ],
)
def test_quantized_ranges_of_wandb_have_the_multiples_of_their_q(
    tmp_path: Path, given: str, expected: dict[str, object]
) -> None:
    found = read(tmp_path, f"{{entrypoint: [x], parameters: {{a: {given}}}}}")
    assert found["parameters"] == [{"name": "a", **expected}]


def test_words_of_optuna_are_understood(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "{n_trials: 9, n_jobs: 3, direction: maximize, objective: score, entrypoint: [x], parameters: "
        "{a: {type: IntDistribution, low: 1, high: 5}, b: {type: CategoricalDistribution, choices: [1, 2]}}}",
    )
    assert (found["trials"], found["parallel"], found["objective"]) == (9, 3, {"metric": "score", "mode": "MAX"})
    assert found["parameters"] == [
        {"name": "a", "low": 1, "high": 5, "integer": True}, {"name": "b", "choices": [1, 2]},
    ]  # fmt: skip
    assert found["simulation"] == {"entrypoint": ["x"]}


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("TPESampler", "TPE"), ("RandomSampler", "RANDOM"), ("GridSampler", "GRID"), ("QMCSampler", "QUASI_RANDOM"),
        ("CmaEsSampler", "CMA_ES"),
    ],
)  # fmt: skip
def test_names_of_optunas_samplers_are_understood(tmp_path: Path, sampler: str, expected: str) -> None:
    assert read(tmp_path, f"{{sampler: {sampler}, entrypoint: [x], parameters: {{a: 1..5}}}}")["sampler"] == expected


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [
        ("MedianPruner", {"rule": "MEDIAN"}), ("NopPruner", {"rule": "NONE"}), ("HyperbandPruner", {"rule": "HALVING"}),
        ("{type: MedianPruner, n_warmup_steps: 5}", {"rule": "MEDIAN", "gracePeriod": 5}),
        (
            "{name: SuccessiveHalvingPruner, min_resource: 3, reduction_factor: 4}",
            {"rule": "HALVING", "gracePeriod": 3, "reductionFactor": 4},
        ),
    ],
)  # fmt: skip
def test_names_of_optunas_pruners_are_understood(tmp_path: Path, pruner: str, expected: object) -> None:
    found = read(tmp_path, f"{{study_name: s, pruner: {pruner}, entrypoint: [x], parameters: {{a: 1..5}}}}")
    assert (found["name"], found["pruning"]) == ("s", expected)


def test_distributions_as_optuna_writes_them_in_json_are_understood(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
entrypoint: [x]
parameters:
  lr: {name: FloatDistribution, attributes: {step: null, low: 0.001, high: 0.1, log: true}}
  depth: {name: IntDistribution, attributes: {log: false, step: 2, low: 1, high: 5}}
  opt: {name: CategoricalDistribution, attributes: {choices: [adam, sgd]}}
""",
    )
    assert found["parameters"] == [
        {"name": "lr", "low": 0.001, "high": 0.1, "log": True},
        {"name": "depth", "low": 1, "high": 5, "step": 2, "log": False, "integer": True},
        {"name": "opt", "choices": ["adam", "sgd"]},
    ]


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        read(
            tmp_path,
            """parameters:
  lr: {distribution: normal, mu: 0}
  b: {distribution: normal}
sampler: annealing
speed: 3
simulation:
  entrypoint: train.py
""",
        )
    lines = str(told.value).splitlines()
    assert [line.rpartition("sweep.yaml:")[2].partition(": ")[0] for line in lines] == ["2", "4", "5", "7"]
    assert "parameters.lr: the distribution normal is not supported; known are uniform" in lines[0]
    assert "expected a list of words" in lines[3]
    with pytest.raises(UsageError, match="normal is not supported"):
        read(tmp_path, "parameters: {b: {distribution: normal}}")
    with pytest.raises(UsageError, match="expected a mapping"):
        read(tmp_path, "[1]")
    with pytest.raises(UsageError, match="expected one document"):
        read(tmp_path, "a: 1\n---\nb: 2")


def test_the_example_is_a_sweep() -> None:
    found = read_sweep(str(EXAMPLE))
    assert found["objective"] == {"metric": "accuracy", "mode": "MAX"}
    simulation = found["simulation"]
    assert isinstance(simulation, dict)
    assert simulation["workingDirectory"] == str(EXAMPLE.parent)


def test_the_rule_that_prunes_is_a_word_or_has_parts(tmp_path: Path) -> None:
    base = "parameters: {lr: [1, 2]}\nobjective: val/loss\nsimulation: {entrypoint: [t]}\npruning: "
    for given, expected in (
        ("median", {"rule": "MEDIAN"}), ("none", {"rule": "NONE"}), ("false", {"rule": "NONE"}),
        ("Halving", {"rule": "HALVING"}), ("{rule: median, n_warmup_steps: 7}", {"rule": "MEDIAN", "gracePeriod": 7}),
    ):  # fmt: skip
        assert read(tmp_path, base + given)["pruning"] == expected
    with pytest.raises(UsageError, match="expected halving, median or none"):
        read(tmp_path, base + "hyperband")


def test_samplers_and_pruners_of_optuna_have_settings(tmp_path: Path) -> None:
    base = "{entrypoint: [x], parameters: {a: 1..5}, "
    found = read(tmp_path, base + "sampler: {type: TPESampler, seed: 3}, pruner: {type: median, n_warmup_steps: 5}}")
    assert (found["sampler"], found["seed"]) == ("TPE", 3)
    assert found["pruning"] == {"rule": "MEDIAN", "gracePeriod": 5}
    assert "sampler" not in read(tmp_path, base + "sampler: {seed: 3}}")
    for order in ("seed: 4, sampler: {type: TPESampler, seed: 3}}", "sampler: {type: TPESampler, seed: 3}, seed: 4}"):
        assert read(tmp_path, base + order)["seed"] == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "sampler: {type: TPESampler, multivariate: true}",
            "sampler.multivariate: not supported; a sampler has type and seed",
        ),
        (
            "pruner: {type: MedianPruner, n_startup_trials: 5}",
            "pruner.n_startup_trials: not supported; pruning has rule (or type), grace_period (or n_warmup_steps,",
        ),
        ("pruner: {type: PatientPruner}", "pruner: expected one of halving, median, none"),
        (
            "command: python train.py --lr {lr}",
            'command: expected a list of words, for no shell reads it: ["python", "train.py", "--lr", "{lr}"]',
        ),
        (
            "parameters: {optimizer: {parameters: {lr: {min: 0, max: 1}}}}",
            "parameters.optimizer.parameters: nested parameters are not supported",
        ),
        (
            "parameters: {a: {values: [1, 2], probabilities: [0.1, 0.9]}}",
            "parameters.a.probabilities: not supported: all choices are equally likely",
        ),
        (
            "parameters: {a: {mu: 0, sigma: 1, distribution: normal}}",
            "parameters.a: the distribution normal is not supported; known are uniform",
        ),
    ],
)
def test_what_others_have_and_sweeps_have_not_is_refused_once(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(UsageError) as told:
        read(tmp_path, given)
    (line,) = str(told.value).splitlines()
    assert said in line


def test_a_rule_without_a_first_step_is_refused_in_the_words_of_files_and_options(tmp_path: Path) -> None:
    def wanted(text: str, grace_period: int | None = None, **options: Any) -> Any:
        file = read(tmp_path, f"{{parameters: {{a: 1..5}}, objective: loss, pruner: MedianPruner, {text}}}")
        return sweep_input(
            Submission(command=["x"], **options), [], file, objective=None, sampler=None, options={}, pruning=None,
            grace_period=grace_period, reduction_factor=None,
        )  # fmt: skip

    with pytest.raises(UsageError, match=r"Pruning by median needs .*--grace-period N .*max_steps: N"):
        wanted("")
    assert wanted("", grace_period=3)["pruning"] == {"rule": "MEDIAN", "gracePeriod": 3}
    assert wanted("", max_steps=9)["pruning"] == {"rule": "MEDIAN"}
    assert wanted("simulation: {limits: {max_steps: 9}}")["pruning"] == {"rule": "MEDIAN"}
