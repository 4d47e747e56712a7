"""Replay sweeps on TaskSet's recorded curves: `python -m benchmarks.sweep CURVES`.

Rules: sweeps of 100 configurations on 8 workers, stopped by each rule of `policy.sweep` and `policy.stopping`, beside
the figures that were published with the rules' parameters (as `benchmarks.stopping` prints them).

Samplers: sweeps of 40 trials, 4 at once, through the functions that the scheduler calls: `policy.sampling.ask` for the
parameters, `policy.sweep.at_rung` for the rungs. A configuration that was asked for is replayed by the nearest recorded
one (logarithms, each scaled to its range). The floor is a sweep of quasi-random trials, which stand for a grid of eight
parameters, each run to its end. Medians over seeds and tasks: the share of that sweep's evaluations after which the
other has found as good a value (200 %: never), and the best value in the end.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.curves import Recorded, taskset
from benchmarks.report import Row, publish
from benchmarks.stopping import SWEEPS, regret, sweeps
from policy.metric_mode import MIN
from policy.sampling import Outcome, Trial, ask
from policy.search_space import Parameter, Sampler
from policy.sweep import Halving, at_rung, rungs

TRIALS = 40
PARALLEL = 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("curves", type=Path, metavar="CURVES", help="folder of the recorded curves")
    parser.add_argument("--column", choices=("tuning", "held"), default="tuning", help="published figures to compare")
    parser.add_argument("--draws", type=int, default=30, help="sweeps drawn from each task (default 30)")
    parser.add_argument("--seeds", type=int, default=5, help="sweeps of each sampler on each task (default 5)")
    given = parser.parse_args()
    runs = list(taskset(given.curves))
    rows = list(sweeps(runs, given.draws, SWEEPS[given.column])) if given.draws else []
    rows += samplers(given.curves, runs, given.seeds) if given.seeds else []
    publish("sweep", rows)


class Task:
    """The recorded configurations of one task, found by their parameters."""

    def __init__(self, runs: Sequence[Recorded], values: np.ndarray, names: Sequence[str]) -> None:
        self.runs = runs
        self._logs = np.log10(values.astype(float))
        self._low, self._high = self._logs.min(axis=0), self._logs.max(axis=0)
        self.space = [
            Parameter(name, low=float(10**low), high=float(10**high), log=True)
            for name, low, high in zip(names, self._low, self._high, strict=True)
        ]

    def nearest(self, parameters: dict[str, object]) -> Recorded:
        asked = np.log10([float(str(parameters[each.name])) for each in self.space])
        distance = (((self._logs - asked) / (self._high - self._low)) ** 2).sum(axis=1)
        return self.runs[int(distance.argmin())]


def samplers(folder: Path, runs: Sequence[Recorded], seeds: int) -> Iterator[Row]:
    tasks = list(_tasks(folder, runs))
    floor = {(place, seed): replay(task, Sampler.QUASI_RANDOM, seed, prunes=False)
             for place, task in enumerate(tasks) for seed in range(seeds)}  # fmt: skip
    for sampler, prunes in (
        (Sampler.QUASI_RANDOM, True), (Sampler.RANDOM, True), (Sampler.TPE, False), (Sampler.TPE, True),
        (Sampler.CMA_ES, True),
    ):  # fmt: skip
        shares, lost, saved = [], [], []
        for place, task in enumerate(tasks):
            for seed in range(seeds):
                found, whole = replay(task, sampler, seed, prunes=prunes), floor[place, seed]
                best, total = whole[-1][1], whole[-1][0]
                # What it had found by then is not worse than the floor's best by more than 0.1 %.
                until = next((made for made, value in found if regret(value, best) <= 0.001), None)
                shares.append(until / total if until is not None else 2.0)
                lost.append((found[-1][1] - best) / abs(best))
                saved.append(1 - found[-1][0] / total)
        case = f"{TRIALS} trials, {sampler.value}{' and halving' if prunes else ''}"
        yield Row("sweep", f"{case}: until as good as all of them run to the end", 100 * statistics.median(shares), "%",
                  50, statistics.median(shares) / 0.5)  # fmt: skip
        yield Row("sweep", f"{case}: saved", 100 * statistics.mean(saved), "%", 50, statistics.mean(saved) / 0.5)
        yield Row("sweep", f"{case}: best, worse by", 100 * statistics.median(lost), "%", 0, statistics.median(lost))


def _tasks(folder: Path, runs: Sequence[Recorded]) -> Iterator[Task]:
    with np.load(folder / "taskset.npz") as file:
        names = [str(each) for each in file["hp_names"]]
        for place, task in enumerate(dict.fromkeys(run.problem for run in runs)):
            yield Task([run for run in runs if run.problem == task], file[f"hp_{place:02d}"], names)


def replay(task: Task, sampler: Sampler, seed: int, *, prunes: bool) -> list[tuple[int, float]]:
    """Run a sweep; return (evaluations made, best so far) after each of them. Workers have unequal speeds."""
    chance = random.Random(seed)
    plan = task.runs[0].max_steps
    rule = Halving(plan, MIN)
    results: dict[int, list[float]] = {step: [] for step in rungs(rule)} if prunes else {}
    trials: list[Trial] = []
    working: list[tuple[float, int, float, Recorded, int]] = []  # time, trial, pace, run, evaluations
    history: list[tuple[int, float]] = []
    made, best = 0, float("inf")
    while working or len(trials) < TRIALS:
        while len(trials) < TRIALS and len(working) < PARALLEL:
            now = working[0][0] if working else 0.0
            asked = ask(sampler, task.space, MIN, seed, trials)
            trials.append(Trial(len(trials), asked.parameters, notes=asked.notes))
            pace = chance.lognormvariate(0, 0.5)
            heapq.heappush(working, (now + pace, trials[-1].number, pace, task.nearest(dict(asked.parameters)), 0))
        now, number, pace, run, done = heapq.heappop(working)
        done += 1
        value = run.best(done)
        made, best = made + 1, min(best, value)
        history.append((made, best))
        verdict = None
        if done - 1 in results:
            verdict = at_rung(rule, done - 1, value, results[done - 1])
            results[done - 1].append(value)
        if verdict is None and done < len(run.values):
            heapq.heappush(working, (now + pace, number, pace, run, done))
            continue
        outcome = Outcome.PRUNED if verdict is not None else Outcome.COMPLETE
        old = trials[number]
        step = done - 1 if verdict is not None else None
        is_finite = value < float("inf")
        trials[number] = Trial(number, old.parameters, outcome if is_finite else Outcome.FAIL,
                               value if is_finite else None, step, old.notes)  # fmt: skip
    return history


if __name__ == "__main__":
    main()
