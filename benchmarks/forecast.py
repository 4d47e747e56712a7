"""Forecasts replayed on recorded curves: error against simple forecasts, coverage of the interval, time per refresh.

    python -m benchmarks.forecast CURVES

CURVES is a folder with the files that `benchmarks.curves` reads; runs that learn count. At 25, 50 and 75 % of each run
its best value at the end is forecast. Error: median of |forecast - best at the end| / |best at the end|; the floor is
the error of the last value, then the ratio is the forecast's to it. Coverage: how often an interval that promises 80 %
holds the value, with the rough factors, and with those of ended runs of the same problem, drawn at random.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.curves import Recorded, algoperf, by_problem, deepobs, taskset
from benchmarks.report import Row, publish
from policy.forecast import first_reached, forecast, reach, score

SHARES = (0.25, 0.5, 0.75)
HISTORIES = (8, 10, 20, 40)
SHORTEST = 20  # evaluations of a run

Simple = Callable[[Sequence[float], int], float]  # values so far, lower is better, and the length of the run


def last(values: Sequence[float], length: int) -> float:
    return values[-1]


def best(values: Sequence[float], length: int) -> float:
    return min(values)


def linear(values: Sequence[float], length: int) -> float:
    """A line through the last half."""
    half = values[len(values) // 2 :]
    if len(half) < 2:
        return values[-1]
    slope, begin = np.polyfit(range(len(half)), half, 1)
    return float(begin + slope * (length - 1 - len(values) // 2))


SIMPLE: dict[str, Simple] = {"last value": last, "best so far": best, "linear": linear}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__)
    parser.add_argument("curves", type=Path, metavar="CURVES", help="folder of the recorded curves")
    parser.add_argument("--most", type=int, default=1_000, help="runs of each source (default 1,000)")
    given = parser.parse_args()
    sources = read(given.curves, given.most)
    rows: list[Row] = []
    for source, runs in sources.items():
        rows += errors(source, runs)
    covered = [row for row in rows if "rough interval" in row.case]
    rows += mean(rows, covered)
    rows += own_history(sources)
    rows += targets(sources)
    rows.append(refresh(sources))
    publish("forecast", rows)


def read(folder: Path, most: int) -> dict[str, list[Recorded]]:
    """Runs that learn, by source; AlgoPerf's by the direction of their metric. The known end is the run's own."""
    found: dict[str, list[Recorded]] = defaultdict(list)
    for source in (deepobs, taskset, algoperf):
        for run in source(folder):
            if len(run.values) >= SHORTEST and run.learns:
                found[f"AlgoPerf {run.mode}" if run.source == "AlgoPerf" else run.source].append(run)
    return {name: random.Random(name).sample(runs, min(most, len(runs))) for name, runs in found.items()}


def seen(run: Recorded, share: float) -> int:
    now = run.steps[0] + share * (run.steps[-1] - run.steps[0])
    return sum(step <= now for step in run.steps)


def errors(source: str, runs: Sequence[Recorded]) -> Iterator[Row]:
    for share in SHARES:
        off: dict[str, list[float]] = defaultdict(list)
        held = []
        for run in runs:
            count = seen(run, share)
            made = forecast(run.steps[:count], run.values[:count], run.mode, run.steps[-1])
            if made is None:
                continue
            end = run.best()
            if end == 0:
                continue
            values = [run.sign * each for each in run.values[:count]]
            for name, simple in SIMPLE.items():
                off[name].append(abs(simple(values, len(run.values)) - end) / abs(end))
            off["forecast"].append(abs(run.sign * made.value - end) / abs(end))
            held.append(made.low <= run.sign * end <= made.high)
        middle = {name: 100 * statistics.median(each) for name, each in off.items()}
        case = f"{source}, {share:.0%} seen"
        floor = middle["last value"]
        for name, value in middle.items():
            yield Row("forecast", f"{case}: error of the {name}", value, "%", floor, value / floor if floor else 1)
        coverage = 100 * statistics.mean(held)
        yield Row("forecast", f"{case}: coverage of the rough interval", coverage, "%", 80, coverage / 80)


def mean(rows: Sequence[Row], covered: Sequence[Row]) -> Iterator[Row]:
    """Over the sources: of the ratios of errors, and of all coverages."""
    for share in SHARES:
        ratios = [row.ratio for row in rows if row.case.endswith(f"{share:.0%} seen: error of the forecast")]
        ratio = statistics.mean(ratios)
        yield Row("forecast", f"mean of the sources, {share:.0%} seen: error of the forecast", ratio, "", 1, ratio)
    value = statistics.mean(row.value for row in covered)
    yield Row("forecast", "mean of the sources: coverage of the rough interval", value, "%", 80, value / 80)


def own_history(sources: dict[str, list[Recorded]]) -> Iterator[Row]:
    """Coverage with the scores of other runs of the same problem, each drawn five times; every problem counts alike."""
    chance = random.Random(80)
    held: dict[int, list[float]] = defaultdict(list)
    for runs in sources.values():
        for problem in by_problem(runs).values():
            for share in SHARES:
                kept = problem[:150]
                scores = [score(run.steps, run.values, run.mode, share) for run in kept]
                usable = [(run, each) for run, each in zip(kept, scores, strict=True) if each is not None]
                if len(usable) <= max(HISTORIES):
                    continue
                for history in HISTORIES:
                    inside = []
                    for index, (run, _) in enumerate(usable):
                        count = seen(run, share)
                        others = [each for place, (_, each) in enumerate(usable) if place != index]
                        for _ in range(5 if len(usable) < 60 else 2):
                            made = forecast(
                                run.steps[:count], run.values[:count], run.mode, run.steps[-1],
                                scores=chance.sample(others, history),
                            )  # fmt: skip
                            assert made is not None, "it has a score, so it has a forecast"
                            inside.append(made.low <= run.sign * run.best() <= made.high)
                    held[history].append(statistics.mean(inside))
    for history, shares in held.items():
        value = 100 * statistics.mean(shares)
        yield Row("forecast", f"coverage with {history} ended runs", value, "%", 80, value / 80)


def targets(sources: dict[str, list[Recorded]]) -> Iterator[Row]:
    """How often "not before step X" and "likely not within the plan" hold, for the median of the problem's ends.

    With the rough factors, and with the scores of 20 other runs of the problem.
    """
    chance = random.Random(90)
    for history in (0, 20):
        for source, runs in sources.items():
            before, likely = [], []
            for problem in by_problem(runs).values():
                target = problem[0].sign * statistics.median(run.best() for run in problem)
                kept = problem[:100]
                for share in SHARES:
                    scores = [score(run.steps, run.values, run.mode, share) for run in kept] if history else []
                    for index, run in enumerate(kept):
                        others = [each for place, each in enumerate(scores) if place != index and each is not None]
                        if len(others) < history:
                            continue
                        count, plan = seen(run, share), run.steps[-1]
                        found = reach(
                            run.steps[:count], run.values[:count], run.mode, target,
                            max_steps=plan, scores=chance.sample(others, history),
                        )  # fmt: skip
                        if found is None or found.not_before is None:
                            continue
                        at = first_reached(run.steps, run.values, run.mode, target)
                        before.append(at is None or at >= found.not_before)
                        if found.likely_not:
                            likely.append(at is None)
            by = f"with {history} ended runs" if history else "rough"
            for name, held in (("not before", before), ("likely not", likely)):
                if held:
                    value = 100 * statistics.mean(held)
                    yield Row("forecast", f"{source}: {name}, {by}, {len(held):,} times", value, "%", 90, value / 90)


def refresh(sources: dict[str, list[Recorded]]) -> Row:
    """The median of a forecast; the best of three rounds, for the machine may be busy."""
    runs = [run for each in sources.values() for run in each[:100]]
    rounds = []
    for _ in range(3):
        taken = []
        for run in runs:
            begun = time.process_time_ns()
            forecast(run.steps[: len(run.steps) // 2], run.values[: len(run.steps) // 2], run.mode, run.steps[-1])
            taken.append((time.process_time_ns() - begun) / 1e6)
        rounds.append(statistics.median(taken))
    return Row("forecast", "a refresh", min(rounds), "ms", 0.5, min(rounds) / 0.5)


if __name__ == "__main__":
    main()
