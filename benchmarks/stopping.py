"""Stop rules replayed on recorded curves: compute saved and regret, per source and rule, and the time per point.

    python -m benchmarks.stopping CURVES

CURVES is a folder with the files that `benchmarks.curves` reads. Saved: the share of evaluations not made, pooled over
runs. Regret: best value seen at the stop / best value of the full run - 1, the best checkpoint kept; the mean over
runs. Rules are those that the scheduler's judge calls (`policy.stopping`, `policy.sweep`), with their defaults.

The floor of a figure is what was published for it in docs/performance.md; the ratio is the distance from it in units of
what is allowed: 1.5 points saved and 0.15 regret for single runs, 2 and 0.15 for sweeps. For the time per point the
ratio is time / 2 us, and 20 us for the slowest one.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.curves import Recorded, algoperf, by_problem, deepobs, taskset
from benchmarks.report import Row, publish
from policy import sweep
from policy.stopping import Monitor, Rule, StopRules, Verdict

METRIC = "objective"
SHORTEST = 20  # evaluations of an AlgoPerf run: shorter ones are crashes and restarts, not runs to stop

Ruled = Callable[[Recorded], StopRules]

RULES: dict[str, Ruled] = {
    "patience 10": lambda run: StopRules(METRIC, run.mode, patience=10),
    "patience 20": lambda run: StopRules(METRIC, run.mode, patience=20),
    "patience 30": lambda run: StopRules(METRIC, run.mode, patience=30),
    "default, N known": lambda run: StopRules(METRIC, run.mode, max_steps=run.max_steps),
    "default with SLOW": lambda run: StopRules(METRIC, run.mode, max_steps=run.max_steps, aggressive=True),
    "default, N unknown": lambda run: StopRules(METRIC, run.mode),
}

# Published: (saved, regret) in percent. Tuning: the data that parameters were chosen on; held: other problems of the
# same sources, which were only measured.
SINGLE = {
    "tuning": {
        ("DeepOBS", "patience 10"): (25.6, 7.47), ("DeepOBS", "patience 20"): (15.4, 1.41),
        ("DeepOBS", "patience 30"): (11.4, 1.25), ("DeepOBS", "default, N known"): (16.9, 0.63),
        ("DeepOBS", "default with SLOW"): (21.5, 0.81), ("DeepOBS", "default, N unknown"): (16.4, 0.74),
        ("TaskSet", "patience 10"): (23.3, 0.68), ("TaskSet", "patience 20"): (11.5, 0.24),
        ("TaskSet", "patience 30"): (5.1, 0.08), ("TaskSet", "default, N known"): (18.8, 0.13),
        ("TaskSet", "default with SLOW"): (28.4, 0.41), ("TaskSet", "default, N unknown"): (13.5, 0.04),
        ("AlgoPerf", "patience 10"): (32.7, 1.45), ("AlgoPerf", "patience 20"): (23.3, 0.58),
        ("AlgoPerf", "patience 30"): (18.1, 0.36), ("AlgoPerf", "default, N known"): (21.5, 0.77),
        ("AlgoPerf", "default with SLOW"): (25.6, 0.78), ("AlgoPerf", "default, N unknown"): (23.8, 0.64),
    },
    "held": {
        ("DeepOBS", "patience 10"): (59.1, 4.76), ("DeepOBS", "patience 20"): (46.0, 1.72),
        ("DeepOBS", "patience 30"): (35.8, 0.99), ("DeepOBS", "default, N known"): (33.5, 1.20),
        ("DeepOBS", "default with SLOW"): (34.8, 1.30), ("DeepOBS", "default, N unknown"): (45.2, 1.67),
        ("TaskSet", "patience 10"): (29.4, 0.67), ("TaskSet", "patience 20"): (15.0, 0.31),
        ("TaskSet", "patience 30"): (7.1, 0.09), ("TaskSet", "default, N known"): (22.3, 0.11),
        ("TaskSet", "default with SLOW"): (32.5, 0.35), ("TaskSet", "default, N unknown"): (17.0, 0.03),
        ("AlgoPerf", "patience 10"): (16.0, 2.17), ("AlgoPerf", "patience 20"): (8.3, 0.31),
        ("AlgoPerf", "patience 30"): (6.5, 0.13), ("AlgoPerf", "default, N known"): (8.3, 0.59),
        ("AlgoPerf", "default with SLOW"): (13.1, 0.66), ("AlgoPerf", "default, N unknown"): (8.5, 0.96),
    },
}  # fmt: skip
SWEEPS = {
    "tuning": {
        "patience 10": (52.0, 0.26), "median rule": (49.6, 0.09), "halving 10 %, eta 3": (73.0, 0.17),
        "halving 10 %, eta 2": (69.4, 0.04), "halving 6 %, eta 3": (79.4, 0.24),
        "halving 10 %, eta 3, and patience 10": (79.0, 0.40),
    },
    "held": {
        "patience 10": (51.4, 0.11), "median rule": (49.9, 0.05), "halving 10 %, eta 3": (72.2, 0.08),
        "halving 10 %, eta 2": (68.5, 0.03), "halving 6 %, eta 3": (79.0, 0.26),
        "halving 10 %, eta 3, and patience 10": (78.6, 0.18),
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopping", description=__doc__)
    parser.add_argument("curves", type=Path, metavar="CURVES", help="folder of the recorded curves")
    parser.add_argument("--column", choices=("tuning", "held"), default="tuning", help="published figures to compare")
    parser.add_argument("--draws", type=int, default=30, help="sweeps drawn from each task (default 30)")
    given = parser.parse_args()
    sources = [list(deepobs(given.curves)), list(taskset(given.curves)), list(algoperf(given.curves))]
    rows: list[Row] = []
    for runs in sources:
        if runs:
            rows += single(runs, SINGLE[given.column])
            rows += everything(runs)
            rows += hours(runs)
    if sources[1]:
        rows += sweeps(sources[1], given.draws, SWEEPS[given.column])
    rows += [row for runs in sources if runs for row in cost(runs)]
    rows.append(slowest())
    publish("stopping", rows)


# --- single runs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """Runs replayed with one rule."""

    saved: float  # percent
    regret: float  # percent
    rules: dict[Rule, int]


def single(runs: Sequence[Recorded], published: dict[tuple[str, str], tuple[float, float]]) -> Iterator[Row]:
    """Runs that learn, cut at their plan."""
    learning = [run for run in (each.cut() for each in runs if len(each.values) >= SHORTEST) if run.learns]
    source = runs[0].source
    for name, ruled in RULES.items():
        outcome = replay(learning, ruled)
        case = f"{source}, {name}, {len(learning):,} runs that learn"
        yield from compared(case, outcome, published[source, name], 1.5)


def everything(runs: Sequence[Recorded]) -> Iterator[Row]:
    """All runs, those that diverge or never learn included."""
    cut = [run for run in (each.cut() for each in runs) if len(run.values) > 1 and math.isfinite(run.best())]
    for name in ("default, N known", "default, N unknown"):
        outcome = replay(cut, RULES[name])
        case = f"{runs[0].source}, {name}, all {len(cut):,} runs"
        yield Row("stopping", f"{case}: saved", outcome.saved, "%", 38, outcome.saved / 38)
        yield Row("stopping", f"{case}: regret", outcome.regret, "%", 0.6, outcome.regret / 0.6)


def replay(runs: Sequence[Recorded], ruled: Ruled) -> Outcome:
    left = planned = 0
    regrets = []
    rules: dict[Rule, int] = {}
    for run in runs:
        last, verdict = stop(run, ruled(run))
        left += len(run.values) - 1 - last
        planned += len(run.values) - 1
        regrets.append(regret(run.best(last + 1), run.best()))
        if verdict is not None:
            rules[verdict.rule] = rules.get(verdict.rule, 0) + 1
    return Outcome(100 * left / planned, 100 * statistics.mean(regrets), rules)


def stop(run: Recorded, rules: StopRules) -> tuple[int, Verdict | None]:
    """Return the index of the last point that the run makes, and the verdict there."""
    monitor = Monitor(rules)
    for index, (step, value) in enumerate(zip(run.steps, run.values, strict=True)):
        verdict = monitor.add(step, value)
        if verdict is not None:
            return index, verdict
    return len(run.values) - 1, None


def regret(seen: float, best: float) -> float:
    if seen <= best:
        return 0.0
    return (seen - best) / abs(best) if best and math.isfinite(seen) else 1.0


def compared(case: str, outcome: Outcome, published: tuple[float, float], points: float) -> Iterator[Row]:
    saved, lost = published
    by = ", ".join(f"{count:,} {rule.value}" for rule, count in sorted(outcome.rules.items()))
    print(f"{case}: saved {outcome.saved:.1f} %, regret {outcome.regret:.2f} %{f' ({by})' if by else ''}", flush=True)
    yield Row("stopping", f"{case}: saved", outcome.saved, "%", saved, abs(outcome.saved - saved) / points)
    yield Row("stopping", f"{case}: regret", outcome.regret, "%", lost, abs(outcome.regret - lost) / 0.15)


def hours(runs: Sequence[Recorded]) -> Iterator[Row]:
    """Machine-hours saved where time was recorded, by the default with and without the official target.

    Runs aren't cut at their plan here, and N is unknown: a run with a target is judged so.
    """
    timed = [(run, run.hours) for run in runs if run.hours is not None and len(run.values) >= SHORTEST]
    if not timed:
        return
    total = sum(passed[-1] for _, passed in timed)
    for name, with_target in (("default", False), ("default and target", True)):
        left = 0.0
        for run, passed in timed:
            last, _ = stop(run, StopRules(METRIC, run.mode, stopping_threshold=run.target if with_target else None))
            left += passed[-1] - passed[last]
        yield Row("stopping", f"{runs[0].source}, {name}: machine-hours saved", left, "h", total, left / total)


# --- sweeps ----------------------------------------------------------------------------------------------------

CONFIGURATIONS = 100
WORKERS = 8

Stops = Callable[["Trial"], bool]


@dataclass(slots=True)
class Trial:
    """One configuration of a sweep, and how far it is."""

    run: Recorded
    pace: float  # seconds per evaluation
    made: int = 0  # evaluations

    @property
    def step(self) -> int:
        return self.run.steps[self.made - 1]


def sweeps(runs: Sequence[Recorded], draws: int, published: dict[str, tuple[float, float]]) -> Iterator[Row]:
    """Sweeps of 100 configurations on 8 workers of unequal speed. Steps are evaluations, the first one is step 1."""
    tasks = by_problem(replace(run, steps=range(1, len(run.steps) + 1)) for run in runs)
    print(f"{draws} sweeps of {CONFIGURATIONS} from each of {len(tasks)} tasks", flush=True)
    for name, build in SWEEP_RULES.items():
        saved, lost = [], []
        for number, task in enumerate(tasks.values()):
            for draw in range(draws):
                chance = random.Random(f"{number} {draw}")
                drawn = chance.sample(task, min(CONFIGURATIONS, len(task)))
                made, best = run_sweep(drawn, build(drawn[0].max_steps), chance)
                saved.append(1 - made / sum(len(run.values) - 1 for run in drawn))
                lost.append(regret(best, min(run.best() for run in drawn)))
        outcome = Outcome(100 * statistics.mean(saved), 100 * statistics.mean(lost), {})
        yield from compared(f"sweep, {name}", outcome, published[name], 2)


def run_sweep(drawn: Sequence[Recorded], stops: Stops, chance: random.Random) -> tuple[int, float]:
    """Return the evaluations made after each trial's first, and the best value found."""
    waiting = [Trial(run, chance.lognormvariate(0, 0.5)) for run in reversed(drawn)]
    working: list[tuple[float, int, Trial]] = []
    made, best, count = 0, math.inf, 0
    for _ in range(min(WORKERS, len(waiting))):
        trial = waiting.pop()
        heapq.heappush(working, (trial.pace, count := count + 1, trial))
    while working:
        now, _, trial = heapq.heappop(working)
        trial.made += 1
        made += trial.made > 1
        if trial.made == len(trial.run.values) or stops(trial):
            best = min(best, trial.run.best(trial.made))
            if not waiting:
                continue
            trial = waiting.pop()
        heapq.heappush(working, (now + trial.pace, count := count + 1, trial))
    return made, best


def halving(max_steps: int, grace_period: int, reduction_factor: int) -> Stops:
    rule = sweep.Halving(max_steps, grace_period=grace_period, reduction_factor=reduction_factor)
    results: dict[int, list[float]] = {step: [] for step in sweep.rungs(rule)}

    def stops(trial: Trial) -> bool:
        before = trial.run.steps[trial.made - 2] if trial.made > 1 else None
        for rung in sweep.crossed(rule, before, trial.step):
            value = trial.run.best(trial.made)
            verdict = sweep.at_rung(rule, rung, value, results[rung])
            results[rung].append(value)
            if verdict is not None:
                return True
        return False

    return stops


def patience(max_steps: int) -> Stops:
    monitors: dict[int, Monitor] = {}

    def stops(trial: Trial) -> bool:
        monitor = monitors.setdefault(id(trial), Monitor(StopRules(METRIC, patience=10)))
        return monitor.add(trial.step, trial.run.values[trial.made - 1]) is not None

    return stops


def median_rule(max_steps: int) -> Stops:
    finished: list[list[float]] = []  # running averages of trials that were not stopped

    def stops(trial: Trial) -> bool:
        index = trial.made - 1
        if index >= 5 and sweep.below_median(
            trial.run.mode, trial.run.best(trial.made), [averages[index] for averages in finished]
        ):
            return True
        if trial.made == len(trial.run.values) - 1:  # its last evaluation follows, whatever the rule says now
            total, averages = 0.0, []
            for count, value in enumerate(trial.run.values, 1):
                total += value
                averages.append(total / count)
            finished.append(averages)
        return False

    return stops


def either(first: Stops, second: Stops) -> Stops:
    return lambda trial: first(trial) | second(trial)


SWEEP_RULES: dict[str, Callable[[int], Stops]] = {
    "patience 10": patience,
    "median rule": median_rule,
    "halving 10 %, eta 3": lambda plan: halving(plan, plan // 10, 3),
    "halving 10 %, eta 2": lambda plan: halving(plan, plan // 10, 2),
    "halving 6 %, eta 3": lambda plan: halving(plan, plan * 6 // 100, 3),
    "halving 10 %, eta 3, and patience 10": lambda plan: either(halving(plan, plan // 10, 3), patience(plan)),
}


# --- time ------------------------------------------------------------------------------------------------------


def cost(runs: Sequence[Recorded]) -> Iterator[Row]:
    """Microseconds of CPU per point, until the stop; the best of three rounds, for the machine may be busy."""
    cut = [run.cut() for run in runs]
    for name in ("default, N known", "default, N unknown"):
        rounds = []
        for _ in range(3):
            begun, points = time.process_time(), 0
            for run in cut:
                monitor = Monitor(RULES[name](run))
                for step, value in zip(run.steps, run.values, strict=True):
                    points += 1
                    if monitor.add(step, value) is not None:
                        break
            rounds.append(1e6 * (time.process_time() - begun) / points)
        yield Row("stopping", f"{runs[0].source}, {name}: mean of a point", min(rounds), "us", 2, min(rounds) / 2)


def slowest() -> Row:
    """The slowest of 999 evaluations of a noisy curve that recovers for ever, so that no rule ends it.

    Of each evaluation the fastest of seven rounds counts: the machine may be busy.
    """
    chance = random.Random(7)
    values = [1.0, 0.0, *((n + 5) ** -0.5 * (1 + chance.gauss(0, 0.02)) for n in range(997))]
    fastest = [math.inf] * len(values)
    for _ in range(7):
        monitor = Monitor(StopRules(METRIC))
        for index, value in enumerate(values):
            begun = time.perf_counter_ns()
            monitor.add(index, value)
            fastest[index] = min(fastest[index], (time.perf_counter_ns() - begun) / 1_000)
    return Row("stopping", "the slowest of 999 evaluations", max(fastest), "us", 20, max(fastest) / 20)


if __name__ == "__main__":
    main()
