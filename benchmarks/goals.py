"""Goals of the benchmarks and their judgement: the final table of `python -m benchmarks`.

A goal selects rows by a pattern of their case, and the worst row decides. A goal without rows (benchmark not run, or
run with other sizes) is "not measured", which differs from "missed".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from rich.console import Console
from rich.table import Table

from benchmarks.report import Row

FLAT = 1.25  # a cost that grows by less counts as flat: noise is most of it


class Outcome(Enum):
    REACHED = "[green]reached[/green]"
    MISSED = "[red]missed[/red]"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of the ratio of some rows."""

    benchmark: str
    about: str
    cases: str  # a pattern that the whole case matches
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A goal, the worst of its rows and what that means."""

    goal: Goal
    outcome: Outcome
    worst: Row | None


GOALS = (
    Goal("latency", "p99 of 20 x 5 batches/s", r"batch due to subscriber, .*p99", at_most=2),
    Goal("dispatch", "200 simulations of true", r"200 simulations of true", at_least=0.35),
    Goal("fanout", "deliveries of 100 points", r"100 points to [\d,]+ subscribers", at_least=0.6),
    Goal("fanout", "growth to 1,000 subscribers", r"growth: .*", at_most=FLAT),
    Goal("ingest", "batches of 1,000 points", r"\d+ x 1,000 points a batch, \d+ supervisors?", at_least=0.5),
    Goal("ingest", "batches with stop rules on", r"with stop rules on, .* points a batch", at_least=0.95),
    Goal("ingest", "growth to 1,000,000 batches", r"growth: .*", at_most=FLAT),
    Goal("curve", "1,000,000 points to 1,000", r"1,000,000 points .* to 1,000", at_most=1.5),
    Goal("listing", "lists of 100,000 simulations", r"100,000 (by|where|of|named|with) .*", at_most=1.5),
    Goal("judge", "10,000 runs, 10 points a second each", r"[\d,]+ runs, 10 points .*: CPU s .*", at_most=7),
    Goal("judge", "a point in 10 us", r"[\d,]+ runs, .*: a point, of 10 us", at_most=1),
    Goal("judge", "from a point to the stop, p99", r"from the point to SIGTERM, .*p99", at_most=1),
    Goal("queue", "an unchanged tick, 100,000 queued", r"an unchanged tick, .*", at_most=4),
    Goal("queue", "short ones behind 100,000", r"short ones behind .*", at_least=0.5),
    Goal("queue", "100,000 queued x 1,000 machines in a second", r"plan, 100,000 queued x 1,000 .*", at_most=1),
    Goal("replay", "SRTF and SRSF as published", r".*: published average", at_most=1.02),
    Goal("replay", "each trace as found", r"trace\w+, (?!.*: published).*", at_most=1.1),
    Goal("replay", "geometric means as found", r"geometric mean, .*", at_most=1.05),
    Goal("memory", "idle subscribers", r"[\d,]+ idle subscribers", at_most=1.5),
    Goal("memory", "readers that stall, slope", r".*never read.*slope.*", at_most=0.1),
    Goal("overhead", "small queries", r".*", at_most=1.3),
    Goal("lines", "a line without a metric, 3 us", r"no metric: .*", at_most=1),
    Goal("lines", "a line that may hold one, 20 us", r"candidate: .*", at_most=1),
    Goal("lines", "program and reader on one core", r"one core: .*", at_most=1.05),
    Goal("sources", "all sources on, one core", r"one core, wall: .*", at_most=1.05),
    Goal("sources", "beside a quiet program, 1 % of a core", r"quiet, CPU more: .*", at_most=1),
    Goal("stall", "p99 of a small query in 100 ms", r"beside .*: p99", at_most=1),
    Goal("chart", "redraw of 100,000 points in a frame", r"100,000 points, median redraw in a frame", at_most=1),
    Goal("chart", "redraw of 100 runs in a frame", r"100 runs .*, median redraw in a frame", at_most=1),
    Goal("chart", "CPU of a redraw of 100 runs, at most uPlot's", r"100 runs .*, CPU of a redraw", at_most=1),
    Goal("chart", "first picture of 100 runs in a second", r"100 runs .*, first picture", at_most=1),
    Goal("chart", "the same at the first look at them", r"100 runs .*, first picture at the first look", at_most=1),
    Goal("stopping", "default: saved and regret as published", r".*, default.* runs that learn: .*", at_most=1),
    Goal("stopping", "all of DeepOBS, N known: saved", r"DeepOBS, default, N known, all .*: saved", at_least=1),
    Goal("stopping", "all of DeepOBS, N known: regret", r"DeepOBS, default, N known, all .*: regret", at_most=1),
    Goal("stopping", "sweeps: saved and regret as published", r"sweep, .*", at_most=1),
    Goal("stopping", "a point in 2 us, 20 us at worst", r".*mean of a point|the slowest of .*", at_most=1),
    Goal("forecast", "error, 25 % and 50 % seen", r"mean of .*, (25|50)% seen: error of the forecast", at_most=0.65),
    Goal("forecast", "error, 75 % seen", r"mean of .*, 75% seen: error of the forecast", at_most=1.1),
    Goal("forecast", "least coverage of the rough interval", r".* seen: coverage of the rough .*", at_least=0.74 / 0.8),
    Goal("forecast", "most coverage of the rough interval", r".* seen: coverage of the rough .*", at_most=0.93 / 0.8),
    Goal("forecast", "least coverage with ended runs", r"coverage with [1-9]\d ended runs", at_least=0.77 / 0.8),
    Goal("forecast", "most coverage with ended runs", r"coverage with [1-9]\d ended runs", at_most=0.83 / 0.8),
    Goal("forecast", "a refresh in 0.5 ms", r"a refresh", at_most=1),
    Goal("files", "saved and brought, half of curl's copy", r"saved and brought", at_least=0.5),
    Goal("ray", "submit to first point, bare Ray Jobs API", r"submit to first point, .*", at_most=1.25),
    Goal("ray", "200 attempts, 100 at once: nothing lost or left", r".* at once: (points lost|jobs left)", at_most=0),
    Goal("peers", "MLflow: ingest and reading back", r".*", at_least=20),
)


def judge(goals: Iterable[Goal], rows: Sequence[Row]) -> list[Judgement]:
    """Hold each goal against the worst row that it is about."""
    return [_judge(goal, [row for row in rows if _is_about(goal, row)]) for goal in goals]


def _is_about(goal: Goal, row: Row) -> bool:
    return goal.benchmark == row.benchmark and re.fullmatch(goal.cases, row.case) is not None


def _judge(goal: Goal, rows: Sequence[Row]) -> Judgement:
    if not rows:
        return Judgement(goal, Outcome.NOT_MEASURED, None)
    if goal.at_least is not None:
        worst = min(rows, key=lambda row: row.ratio)
        reached = worst.ratio >= goal.at_least
    else:
        worst = max(rows, key=lambda row: row.ratio)
        reached = goal.at_most is not None and worst.ratio <= goal.at_most
    return Judgement(goal, Outcome.REACHED if reached else Outcome.MISSED, worst)


def show(judgements: Iterable[Judgement]) -> None:
    """Print them as a table."""
    table = Table(title="goals")
    for heading in ("benchmark", "goal", "ratio", "worst", "", "in the case"):
        table.add_column(heading, justify="right" if heading == "worst" else "left")
    for each in judgements:
        worst = (f"{each.worst.ratio:.3g}", each.worst.case) if each.worst is not None else ("", "")
        goal = each.goal
        table.add_row(goal.benchmark, goal.about, goal.bound, worst[0], each.outcome.value, worst[1])
    Console().print(table)
