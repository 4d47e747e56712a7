"""Recorded curves of training runs, for the benchmarks of stop rules and forecasts.

Three public sources in one folder, each read only if its files are there:

    deepobs_runs.csv, deepobs_epoch_curves.csv.gz      DeepOBS: losses per epoch
    taskset.npz                                        TaskSet: tasks x configurations x {train, valid, test} x points
    algoperf_runs.csv.gz, algoperf_eval_curves.csv.gz, algoperf_targets_*.json    AlgoPerf: evaluations with time

Of DeepOBS the runs with seed 42: one for each learning rate. (Nine repetitions of the best ones would weigh too much.)
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from policy.metric_mode import MAX, MIN, goes_up

LEARNS = 0.02  # a run learns if its best value is better than its first by more than this share of it
SELF_TUNING = 3  # AlgoPerf gives a run that tunes itself three times the steps


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded run. steps, values: (n,), in order; values may be NaN."""

    source: str
    problem: str
    mode: str
    max_steps: int  # the plan
    steps: Sequence[int]
    values: Sequence[float]
    hours: Sequence[float] | None = None  # since its begin, at each point
    target: float | None = None
    within: int | None = None  # points within the plan; None: those up to max_steps

    @property
    def sign(self) -> int:
        return -1 if self.mode == MAX else 1

    @property
    def learns(self) -> bool:
        """Finite throughout, and better than at its begin."""
        if not all(map(math.isfinite, self.values)):
            return False
        values = [self.sign * each for each in self.values]
        return min(values) < values[0] - LEARNS * abs(values[0])

    def cut(self) -> Recorded:
        """Without the points beyond the plan."""
        kept = self.within if self.within is not None else sum(step <= self.max_steps for step in self.steps)
        return replace(self, steps=self.steps[:kept], values=self.values[:kept])

    def best(self, until: int | None = None) -> float:
        """The best finite value of the first `until` points, oriented so that lower is better."""
        finite = [self.sign * each for each in self.values[:until] if math.isfinite(each)]
        return min(finite, default=math.inf)


def deepobs(folder: Path) -> Iterator[Recorded]:
    """Test losses, one point per epoch."""
    if not (folder / "deepobs_runs.csv").exists():
        return
    with (folder / "deepobs_runs.csv").open() as file:
        runs = {row["run"]: row for row in csv.DictReader(file) if row["seed"] == "42"}
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in _rows(folder / "deepobs_epoch_curves.csv.gz"):
        if row["run"] in runs:
            curves[row["run"]].append((int(row["epoch"]), _number(row["test_loss"])))
    for run, points in curves.items():
        steps, values = zip(*sorted(points), strict=True)
        yield Recorded("DeepOBS", runs[run]["problem"], MIN, int(runs[run]["num_epochs"]), steps, values)


def taskset(folder: Path) -> Iterator[Recorded]:
    """Validation losses."""
    if not (folder / "taskset.npz").exists():
        return
    with np.load(folder / "taskset.npz") as file:
        names = [str(each) for each in file["task_names"]]
        split = [str(each) for each in file["splits"]].index("valid")
        losses = [file[f"loss_{index:02d}"][:, split, :] for index in range(len(names))]
    for name, task in zip(names, losses, strict=True):
        steps = range(task.shape[1])
        for values in task.astype(float).tolist():
            yield Recorded("TaskSet", name, MIN, len(steps) - 1, steps, values)


def algoperf(folder: Path) -> Iterator[Recorded]:
    """Validation metrics at evaluations, with the official target of each workload.

    AlgoPerf evaluates by the clock. Steps are therefore evaluations here, and the plan of a run is the number that the
    longest run of its workload and ruleset made within the official number of training steps.
    """
    if not (folder / "algoperf_runs.csv.gz").exists():
        return
    workloads = {
        f"algoperf_{path.stem.removeprefix('algoperf_targets_')}": json.loads(path.read_text())["workloads"]
        for path in folder.glob("algoperf_targets_*.json")
    }
    runs = {row["run"]: row for row in _rows(folder / "algoperf_runs.csv.gz")}
    points: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for row in _rows(folder / "algoperf_eval_curves.csv.gz"):
        at = int(row["global_step"]), _number(row["valid_metric"]), _number(row["submission_time_s"]) / 3600
        points[row["run"]].append(at)
    found = []
    longest: dict[tuple[str, str], int] = defaultdict(int)
    for number, evaluations in points.items():
        run = runs[number]
        workload = workloads.get(run["version"], {}).get(run["workload"])
        if workload is None:
            continue
        steps, values, hours = zip(*sorted(evaluations), strict=True)
        budget = workload["step_hint"] * (SELF_TUNING if run["ruleset"] == "self_tuning" else 1)
        within = sum(step <= budget for step in steps)
        group = run["workload"], run["ruleset"]
        longest[group] = max(longest[group], within - 1)
        mode = MAX if goes_up(workload["target_metric_name"]) or goes_up(run["metrics"]) else MIN
        target = workload["validation_target_value"]
        recorded = Recorded("AlgoPerf", run["workload"], mode, 0, range(len(steps)), values, hours, target, within)
        found.append((group, recorded))
    for group, recorded in found:
        yield replace(recorded, max_steps=max(longest[group], 1))


def by_problem(curves: Iterable[Recorded]) -> dict[str, list[Recorded]]:
    found: dict[str, list[Recorded]] = defaultdict(list)
    for curve in curves:
        found[curve.problem].append(curve)
    return dict(found)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        yield from csv.DictReader(file)


def _number(text: str) -> float:
    return float(text) if text else math.nan
