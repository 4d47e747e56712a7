"""Recorded curves as benchmarks read them, and stop rules and sweeps replayed on them, on small curves made by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.curves import Recorded, algoperf, by_problem, deepobs, taskset
from benchmarks.stopping import RULES, everything, hours, regret, replay, stop, sweeps
from policy.stopping import Rule

FALLS = [1.0, 0.6, 0.4, 0.3, 0.25, *([0.26, 0.27] * 23)]  # its best is the fifth of 51
PUBLISHED = dict.fromkeys(
    (
        "patience 10", "median rule", "halving 10 %, eta 3", "halving 10 %, eta 2", "halving 6 %, eta 3",
        "halving 10 %, eta 3, and patience 10",
    ),
    (50.0, 0.1),
)  # fmt: skip


def write(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([header.split(","), *rows])
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def run(values: Sequence[float], **options: object) -> Recorded:
    recorded = {"source": "TaskSet", "problem": "p", "mode": "MIN", "max_steps": len(values) - 1, **options}
    return Recorded(steps=range(len(values)), values=values, **recorded)  # type: ignore[arg-type]


def test_a_folder_without_files_has_no_curves(tmp_path: Path) -> None:
    assert [*deepobs(tmp_path), *taskset(tmp_path), *algoperf(tmp_path)] == []


def test_one_run_of_deepobs_for_each_learning_rate(tmp_path: Path) -> None:
    write(tmp_path / "deepobs_runs.csv", "run,problem,seed,num_epochs", [["1", "quad", 42, 2], ["2", "quad", 43, 2]])
    points = [["1", 1, 0.5], ["1", 0, 1.0], ["1", 2, ""], ["2", 0, 1.0]]
    write(tmp_path / "deepobs_epoch_curves.csv.gz", "run,epoch,test_loss", points)
    (found,) = deepobs(tmp_path)
    assert (found.problem, found.max_steps, found.steps) == ("quad", 2, (0, 1, 2))
    assert found.values[:2] == (1.0, 0.5)
    assert math.isnan(found.values[2])
    assert not found.learns


def test_validation_losses_of_taskset(tmp_path: Path) -> None:
    losses = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    names = {"task_names": np.array(["rnn"]), "splits": np.array(["train", "valid", "test"])}
    np.savez(tmp_path / "taskset.npz", loss_00=losses, **names)
    first, second = taskset(tmp_path)
    assert (first.problem, first.max_steps, first.values) == ("rnn", 3, [4.0, 5.0, 6.0, 7.0])
    assert second.values == [16.0, 17.0, 18.0, 19.0]


def test_evaluations_of_algoperf_with_plan_and_target(tmp_path: Path) -> None:
    header = "run,version,ruleset,workload,metrics"
    runs = [
        ["1", "algoperf_v05", "external_tuning", "wmt", "accuracy"],
        ["2", "algoperf_v05", "external_tuning", "wmt", "accuracy"],
        ["3", "algoperf_v05", "self_tuning", "wmt", "accuracy"],
        ["4", "algoperf_v05", "external_tuning", "unlisted", "accuracy"],
    ]
    write(tmp_path / "algoperf_runs.csv.gz", header, runs)
    points = [
        *(["1", step, 3_600 * at, at] for at, step in enumerate((1, 50, 100, 150))),
        *(["2", step, 3_600 * at, at] for at, step in enumerate((1, 60))),
        *(["3", step, 3_600 * at, at] for at, step in enumerate((1, 100, 200, 299))),
        ["4", 1, 1, 1],
    ]
    write(tmp_path / "algoperf_eval_curves.csv.gz", "run,global_step,submission_time_s,valid_metric", points)
    targets = {"workloads": {"wmt": {"step_hint": 100, "validation_target_value": 3, "target_metric_name": "bleu"}}}
    (tmp_path / "algoperf_targets_v05.json").write_text(json.dumps(targets))
    first, second, third = algoperf(tmp_path)
    assert (first.mode, first.target, first.max_steps, second.max_steps, third.max_steps) == ("MAX", 3, 2, 2, 3)
    assert first.values == (0.0, 1.0, 2.0, 3.0)
    assert first.cut().values == (0.0, 1.0, 2.0)
    assert third.cut().values == third.values
    assert first.hours == (0.0, 1.0, 2.0, 3.0)


def test_a_run_learns_if_it_is_finite_and_improves() -> None:
    assert run([1.0, 0.9]).learns
    assert not run([1.0, 0.99]).learns
    assert not run([1.0, 0.5, math.inf]).learns
    assert run([0.5, 0.6], mode="MAX").learns


def test_regret_is_relative_to_the_best_of_the_full_run() -> None:
    assert regret(0.5, 0.5) == 0
    assert regret(0.55, 0.5) == pytest.approx(0.1)
    assert regret(-0.9, -1.0) == pytest.approx(0.1)
    assert regret(math.inf, 0.5) == 1


def test_what_is_left_at_the_stop_is_saved() -> None:
    flat = run(FALLS)
    last, verdict = stop(flat, RULES["patience 10"](flat))
    assert last == 14
    assert verdict is not None
    late = run([*FALLS[:-1], 0.125])
    outcome = replay([flat, late], RULES["patience 10"])
    assert outcome.saved == pytest.approx(100 * 36 / 50)
    assert outcome.regret == pytest.approx(100 * (0 + 1) / 2)
    assert outcome.rules == {Rule.PATIENCE: 2}


def test_runs_that_diverge_count_among_all_runs() -> None:
    rows = {row.case: row.value for row in everything([run(FALLS), run([1.0, math.nan, *[math.nan] * 49])])}
    assert rows["TaskSet, default, N known, all 2 runs: saved"] == pytest.approx(100 * (50 - 30 + 49) / 100)
    assert rows["TaskSet, default, N known, all 2 runs: regret"] == 0


def test_hours_after_the_stop_are_saved() -> None:
    timed = run(FALLS, hours=[float(n) for n in range(51)], target=0.4)
    by_rule, with_target = hours([timed])
    assert (by_rule.value, by_rule.floor) == (50 - 19, 50)
    assert with_target.value == 50 - 2


def test_a_sweep_gives_each_rule_its_share() -> None:
    task = [run([1.0, *(1.0 - pace * n / 5_000 for n in range(50))]) for pace in range(1, 101)]
    rows = {row.case: row.value for row in sweeps(task, 2, PUBLISHED)}
    assert rows["sweep, halving 10 %, eta 3: regret"] < 10
    assert 50 < rows["sweep, halving 10 %, eta 3: saved"] < 90
    assert rows["sweep, patience 10: saved"] == 0  # every trial improves at each point
    assert rows["sweep, halving 10 %, eta 2: saved"] < rows["sweep, halving 10 %, eta 3: saved"]


def test_problems_are_kept_apart() -> None:
    assert {name: len(runs) for name, runs in by_problem([run([1.0]), run([1.0], problem="q")]).items()} == {
        "p": 1,
        "q": 1,
    }
