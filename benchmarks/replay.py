"""Scheduling policy replayed on recorded traces of GPU clusters, in simulated time, through the product's `plan()`.

    python -m benchmarks.replay TRACE ... [--policy fifo|easy|srtf|srsf|this] [--declare maxSteps=0.5] [--sigma 0.3]
    python -m benchmarks.replay TRACE ... --table

TRACE is a file that `benchmarks.traces` reads. `srtf` and `srsf` know the true durations (shortest remaining time, and
times GPUs, first); on the traces of Muri they have to give the published averages within 2 percent, which shows that
the replay is right. `this` is the policy of the service. `--declare` is the share of runs that declare `maxSteps` or
`maxRuntime`; `--sigma` the spread of the error with which progress is known (lognormal), and a declared limit is 1 to 5
times the true duration. `--table` replays all columns of the table in docs/performance.md.

A figure is the average job completion time in units of the published SRSF; the floor is what was found when the policy
was chosen, and the ratio the distance from it. The order of events is chaotic: `--replays N` gives the mean of N
replays, all but the first with another seed and with arrivals that are up to five seconds later.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from benchmarks.report import Row, publish
from benchmarks.traces import GPUS_OF_NODE, Job, Trace, read
from policy.fairness import charge
from policy.learning import BINS, Counts, Learned, bin_of
from policy.matching import Machine, Requirements
from policy.plan import Plan
from policy.queue_order import Queue
from policy.schedule import plan
from policy.workload import DEFAULTS, Discipline, Knobs, Project, Run

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
LATER_SECONDS = 5.0
BASELINE = Knobs(
    max_wait_seconds=None, min_run_seconds=0, fair_share=False, reservations=0, progress_after_seconds=0,
    hysteresis_progress=1, hysteresis=1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy, and what is known to it."""

    name: str
    knobs: Knobs = DEFAULTS
    preemptible: bool = True
    steps: float = 0.0  # share of runs that declare maxSteps
    runtime: float = 0.0  # and of those that declare maxRuntime
    sigma: float = 0.0  # of the error of progress
    exact_limits: bool = False
    projects: int = 1
    seed: int = 1


POLICIES = {
    "fifo": Setting("fifo", replace(BASELINE, discipline=Discipline.ARRIVAL), preemptible=False),
    "easy": Setting(
        "easy", replace(BASELINE, discipline=Discipline.ARRIVAL, reservations=1), preemptible=False, runtime=1,
        exact_limits=True,
    ),
    "srtf": Setting("srtf", replace(BASELINE, discipline=Discipline.TIME), steps=1),
    "srsf": Setting("srsf", BASELINE, steps=1),
    "this": Setting("this"),
}  # fmt: skip
TABLE = {
    "fifo": POLICIES["fifo"],
    "nothing known": replace(POLICIES["this"], name="nothing known"),
    "half maxSteps": replace(POLICIES["this"], name="half maxSteps", steps=0.5, sigma=0.3),
    "all maxSteps": replace(POLICIES["this"], name="all maxSteps", steps=1, sigma=0.3),
    "maxRuntime": replace(POLICIES["this"], name="maxRuntime", runtime=1),
}
# Average completion time / published SRSF, found when the policy was chosen.
FOUND = {
    "trace3": {
        "fifo": 2.81, "nothing known": 1.83, "half maxSteps": 1.24, "all maxSteps": 1.09, "maxRuntime": 1.14,
    },
    "trace3_pr": {
        "fifo": 3.48, "nothing known": 1.96, "half maxSteps": 1.44, "all maxSteps": 1.09, "maxRuntime": 1.13,
    },
    "trace4": {
        "fifo": 6.21, "nothing known": 2.09, "half maxSteps": 1.44, "all maxSteps": 1.03, "maxRuntime": 1.08,
    },
    "trace4_pr": {
        "fifo": 2.96, "nothing known": 1.73, "half maxSteps": 1.38, "all maxSteps": 1.04, "maxRuntime": 1.07,
    },
}  # fmt: skip


@dataclass(slots=True)
class State:
    """A job during the replay; seconds of simulated time."""

    job: Job
    project: int
    error: float | None  # progress is known times this; None: maxSteps is not declared
    limit: float | None
    attained: float = 0.0
    started: float | None = None
    first_started: float | None = None
    ended: float | None = None
    machine_ids: tuple[int, ...] = ()
    preemptions: int = 0
    attempt: int = 0

    def attained_at(self, now: float) -> float:
        return self.attained if self.started is None else self.attained + now - self.started


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a replay."""

    trace: Trace
    setting: Setting
    states: Sequence[State]
    plans: int
    cpu_seconds: float

    @property
    def mean_completion(self) -> float:
        return statistics.fmean(completion(each) for each in self.states)

    @property
    def preemptions(self) -> float:
        return sum(each.preemptions for each in self.states) / len(self.states)

    def waits_of_largest(self) -> Sequence[float]:
        """Return the times without progress of the jobs with the most GPUs."""
        most = max(each.job.gpus for each in self.states)
        return [completion(each) - each.job.duration for each in self.states if each.job.gpus == most]

    def slowdowns(self) -> Sequence[float]:
        """Return for each project the sum of its completion times in units of its durations, the best first."""
        took, needed = Counter[int](), Counter[int]()
        for each in self.states:
            took[each.project] += completion(each)  # type: ignore[assignment]
            needed[each.project] += each.job.duration  # type: ignore[assignment]
        return sorted(took[each] / needed[each] for each in took)

    def fairness(self) -> Sequence[float]:
        """Return the finish-time fairness of each project, the best first: at most 1 if sharing costs it nothing.

        Its mean completion time, in units of what it would have with its share of the GPUs to itself. Source: Mahajan
        and others, "Themis: Fair and Efficient GPU Cluster Scheduling", NSDI 2020. A slowdown by its durations says
        nothing of a share: a project that asks for more than its part has to wait for it under any fair policy.
        """
        found = []
        gpus = self.trace.nodes * GPUS_OF_NODE / self.setting.projects
        for project in range(self.setting.projects):
            own = [each for each in self.states if each.project == project]
            alone = entitled([each.job for each in own], gpus)
            if own:
                found.append(sum(map(completion, own)) / sum(alone[each.job.id] for each in own))
        return sorted(found)


def entitled(jobs: Sequence[Job], gpus: float) -> Mapping[int, float]:
    """Return the completion time of each job on so many GPUs alone, shortest remaining service first.

    As a fluid: a job takes any part of its GPUs, so no room is lost to fragments.
    """
    arrivals = sorted(jobs, key=lambda job: (job.submitted, job.id), reverse=True)
    left: dict[int, float] = {}
    by_id = {job.id: job for job in jobs}
    found: dict[int, float] = {}
    now = 0.0
    while arrivals or left:
        rates: dict[int, float] = {}
        free = gpus
        for number in sorted(left, key=lambda each: (left[each], each)):
            rates[number] = min(by_id[number].held_gpus, free)
            free -= rates[number]
            if free <= 0:
                break
        ends = min(((now + left[each] / rate, each) for each, rate in rates.items()), default=(math.inf, 0))
        then = min(ends[0], arrivals[-1].submitted if arrivals else math.inf)
        for number, rate in rates.items():
            left[number] -= rate * (then - now)
        now = then
        if ends[0] <= now:
            del left[ends[1]]
            found[ends[1]] = now - by_id[ends[1]].submitted
        while arrivals and arrivals[-1].submitted <= now:
            job = arrivals.pop()
            left[job.id] = job.duration * job.held_gpus
    return found


def completion(state: State) -> float:
    assert state.ended is not None
    return state.ended - state.job.submitted


@dataclass(slots=True)
class Replay:
    """One replay of a trace."""

    trace: Trace
    setting: Setting
    now: float = 0.0
    states: dict[int, State] = field(default_factory=dict)
    running: dict[int, State] = field(default_factory=dict)
    learned: Learned = field(default_factory=Learned)
    plans: int = 0
    _free: list[int] = field(default_factory=list)
    _queue: Queue = field(init=False)
    _machines: list[Machine] = field(default_factory=list)
    _ends: list[tuple[float, int, int]] = field(default_factory=list)
    _projects: dict[int, Project] = field(default_factory=dict)
    _ended: dict[object, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * BINS))
    _charged: float = 0.0

    def run(self) -> Outcome:
        """Replay all jobs, from event to event."""
        begun = time.process_time()
        self._prepare()
        arrivals = list(reversed(self.trace.jobs))
        wake = math.inf
        while arrivals or self.running:
            next_end = self._next_end()
            self.now = min(arrivals[-1].submitted if arrivals else math.inf, next_end, wake)
            self._charge()
            while self._next_end() <= self.now:
                self._end(self.states[heapq.heappop(self._ends)[1]])
            while arrivals and arrivals[-1].submitted <= self.now:
                self._queue.add(self._as_run(self.states[arrivals.pop().id]))
            wake = self._plan() if len(self._queue) else math.inf
        if len(self._queue):
            raise RuntimeError(f"{len(self._queue)} jobs of {self.trace.name} never started")
        states = list(self.states.values())
        return Outcome(self.trace, self.setting, states, self.plans, time.process_time() - begun)

    def _prepare(self) -> None:
        chance = random.Random(self.setting.seed)
        weights = [1 / (number + 1) for number in range(self.setting.projects)]
        for job in self.trace.jobs:
            error = math.exp(chance.gauss(0, 1) * self.setting.sigma)
            stretch = 1.0 if self.setting.exact_limits else chance.uniform(1, 5)
            self.states[job.id] = State(
                job,
                project=chance.choices(range(self.setting.projects), weights)[0],
                error=error if chance.random() < self.setting.steps else None,
                limit=job.duration * stretch if chance.random() < self.setting.runtime else None,
            )
        self._free = [GPUS_OF_NODE] * self.trace.nodes
        if self.setting.projects > 1:
            self._projects = {each: Project(each) for each in range(self.setting.projects)}
        self._machines = [
            Machine(
                id=number, name=f"node-{number:04}", cpus=64, memory_gib=512, gpus=GPUS_OF_NODE, gpu_model=None,
                labels={}, price_per_hour=Decimal(GPUS_OF_NODE), free_cpus=64, free_memory_gib=512,
                free_gpus=GPUS_OF_NODE,
                online=True, draining=False, host=None, host_free_gpus=None,
            )
            for number in range(self.trace.nodes)
        ]  # fmt: skip
        self._queue = Queue(self._machines, self.setting.knobs)

    def _next_end(self) -> float:
        """Return when the next attempt ends; those that were preempted do not."""
        while self._ends and self.states[self._ends[0][1]].attempt != self._ends[0][2]:
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else math.inf

    def _end(self, state: State) -> None:
        self._leave(state)
        state.attained = state.job.duration
        state.ended = self.now
        number = bin_of(state.job.duration * state.job.held_gpus)
        for each in ((), state.job.gpus):
            self._ended[each][number] += 1
        self.learned = Learned(self._history())

    def _history(self) -> dict[object, Counts]:
        unfinished: dict[object, list[int]] = defaultdict(lambda: [0] * BINS)
        for state in self.states.values():
            if state.ended is None and state.attempt and (attained := state.attained_at(self.now)) > 0:
                number = bin_of(attained * state.job.held_gpus)
                unfinished[()][number] += 1
                unfinished[state.job.gpus][number] += 1
        return {each: Counts(self._ended[each], unfinished[each]) for each in {*self._ended, *unfinished}}

    def _plan(self) -> float:
        """Plan, carry it out, and return when to plan again."""
        machines = [
            each if each.free_gpus == free else replace(each, free_gpus=free)
            for each, free in zip(self._machines, self._free, strict=True)
        ]
        result = plan(
            self._queue, [self._as_run(each) for each in self.running.values()], machines,
            now=BEGIN + timedelta(seconds=self.now), projects=self._projects.values(), learned=self.learned,
            knobs=self.setting.knobs, explain=False,
        )  # fmt: skip
        self.plans += 1
        self._carry_out(result)
        return math.inf if result.next_at is None else max((result.next_at - BEGIN).total_seconds(), self.now + 1e-3)

    def _carry_out(self, result: Plan) -> None:
        for preemption in result.preemptions:
            state = self.states[preemption.run_id]
            state.attained = state.attained_at(self.now)
            state.preemptions += 1
            self._leave(state)
            self._queue.add(self._as_run(state))
        for placement in result.placements:
            state = self.states[placement.run_id]
            self._queue.remove(placement.run_id)
            state.started = self.now
            state.first_started = self.now if state.first_started is None else state.first_started
            state.machine_ids = tuple(each.machine_id for each in placement.members)
            state.attempt += 1
            for machine_id in state.machine_ids:
                self._free[machine_id] -= min(state.job.gpus, GPUS_OF_NODE)
                if self._free[machine_id] < 0:
                    raise RuntimeError(f"node {machine_id} is overcommitted")
            self.running[state.job.id] = state
            heapq.heappush(self._ends, (self.now + state.job.duration - state.attained, state.job.id, state.attempt))

    def _leave(self, state: State) -> None:
        for machine_id in state.machine_ids:
            self._free[machine_id] += min(state.job.gpus, GPUS_OF_NODE)
        state.machine_ids, state.started = (), None
        state.attempt += 1
        del self.running[state.job.id]

    def _charge(self) -> None:
        if self._projects:
            held = Counter[int]()
            for state in self.running.values():
                held[state.project] += state.job.held_gpus
            at, half_life = BEGIN + timedelta(seconds=self.now), self.setting.knobs.half_life_seconds
            for each, gpus in held.items():
                amount = gpus * (self.now - self._charged)
                self._projects[each] = charge(self._projects[each], amount, at, half_life)
        self._charged = self.now

    def _as_run(self, state: State) -> Run:
        job, attained = state.job, state.attained_at(self.now)
        return Run(
            id=job.id,
            project=state.project,
            priority=0,
            submitted_at=BEGIN + timedelta(seconds=job.submitted),
            requirements=REQUIREMENTS[min(job.gpus, GPUS_OF_NODE)],
            machines=job.nodes,
            preemptible=self.setting.preemptible,
            max_steps=None if state.error is None else job.duration,
            max_runtime_seconds=state.limit,
            attained_seconds=attained,
            steps_done=attained,
            steps_per_second=None if state.error is None else 1 / state.error,
            lineage=(job.gpus,),
            group=min(job.gpus, GPUS_OF_NODE),
            machine_ids=state.machine_ids,
            started_at=None if state.started is None else BEGIN + timedelta(seconds=state.started),
        )


REQUIREMENTS = {gpus: Requirements(0, 0, gpus, None, {}, None, None, None) for gpus in range(1, GPUS_OF_NODE + 1)}


def replays(trace: Trace, setting: Setting, count: int) -> Iterator[Outcome]:
    """Replay a trace so many times: as it is, then each time with another seed and later arrivals."""
    yield Replay(trace, setting).run()
    for seed in range(setting.seed + 1, setting.seed + count):
        yield Replay(later(trace, seed), replace(setting, seed=seed)).run()


def later(trace: Trace, seed: int) -> Trace:
    """Return a trace with each arrival up to `LATER_SECONDS` later."""
    chance = random.Random(seed)
    jobs = [replace(job, submitted=job.submitted + chance.uniform(0, LATER_SECONDS)) for job in trace.jobs]
    return replace(trace, jobs=sorted(jobs, key=lambda job: (job.submitted, job.id)))


def rows_of(*outcomes: Outcome) -> Iterator[Row]:
    """Compare the mean of some replays with what was published, and with what was found when the policy was chosen."""
    trace, name = outcomes[0].trace, outcomes[0].setting.name
    mean = statistics.fmean(each.mean_completion for each in outcomes)
    if name in ("srtf", "srsf") and name.upper() in trace.published:
        published = trace.published[name.upper()]
        yield Row("replay", f"{trace.name}, {name}: published average", mean, "s", published, mean / published)
    elif "SRSF" in trace.published:
        figure = mean / trace.published["SRSF"]
        found = FOUND.get(trace.name, {}).get(name, figure)
        yield Row("replay", f"{trace.name}, {name}", figure, "x SRSF", found, figure / found)
    else:
        yield Row("replay", f"{trace.name}, {name}: average", mean, "s", mean, 1)


def show(outcome: Outcome) -> None:
    """Print what the table leaves out."""
    waits, slowdowns, fairness = outcome.waits_of_largest(), outcome.slowdowns(), outcome.fairness()
    hours = sum(each.job.held_gpus * each.job.duration for each in outcome.states) / 3600
    published = outcome.trace.published
    against = ", ".join(
        f"{outcome.mean_completion / published[name]:.3f} x {name}"
        for name in ("Tiresias_L", "themis", "SRSF")
        if name in published
    )
    print(
        f"{outcome.trace.name}, {outcome.setting.name}: average {outcome.mean_completion:,.0f} s"
        + (f" = {against}" if against else "")
        + f"; {len(waits)} largest jobs wait {statistics.fmean(waits):,.0f} s, at most {max(waits):,.0f}"
        f"; {outcome.preemptions:.2f} preemptions a run; slowdown {slowdowns[-1]:.2f} of the worst-off project, "
        f"{slowdowns[0]:.2f} of the best; finish-time fairness {fairness[-1]:.2f} and {fairness[0]:.2f}; "
        f"{hours:,.0f} GPU-hours"
        f"; {outcome.plans:,} plans, {1000 * outcome.cpu_seconds / max(outcome.plans, 1):.2f} CPU ms each",
        flush=True,
    )


def means(rows: Sequence[Row]) -> Iterator[Row]:
    """Geometric means over the traces that the figures were found on."""
    for name in TABLE:
        figures = [row for row in rows if row.case in {f"{trace}, {name}" for trace in FOUND}]
        if len(figures) == len(FOUND):
            mean, found = (
                statistics.geometric_mean(getattr(row, each) for row in figures) for each in ("value", "floor")
            )
            yield Row("replay", f"geometric mean, {name}", mean, "x SRSF", found, mean / found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traces", type=Path, nargs="+", metavar="TRACE")
    parser.add_argument("--policy", choices=POLICIES, default="this")
    parser.add_argument("--table", action="store_true", help="all columns of the table in docs/performance.md")
    parser.add_argument("--declare", nargs="+", default=[], metavar="WHAT=SHARE", help="maxSteps=0.5 maxRuntime=1")
    parser.add_argument("--sigma", type=float, default=0.3)
    parser.add_argument("--not-preemptible", action="store_true")
    parser.add_argument("--projects", type=int, default=1, help="with unequal numbers of runs, and equal weights")
    parser.add_argument("--no-fair-share", action="store_true")
    parser.add_argument("--max-wait", type=float, default=86_400, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replays", type=int, default=1, metavar="N", help="the mean of so many")
    given = parser.parse_args()
    settings = list(TABLE.values()) if given.table else [_setting(given)]
    rows: list[Row] = []
    for path in given.traces:
        trace = read(path)
        for setting in settings:
            outcomes = []
            for outcome in replays(trace, setting, given.replays):
                show(outcome)
                outcomes.append(outcome)
            rows += rows_of(*outcomes)
    publish("replay", [*rows, *means(rows)])


def _setting(given: argparse.Namespace) -> Setting:
    setting = replace(POLICIES[given.policy], seed=given.seed, projects=given.projects)
    if given.policy != "this":
        return setting
    declared = dict(each.split("=", 1) for each in given.declare)
    if unknown := declared.keys() - {"maxSteps", "maxRuntime"}:
        raise SystemExit(f"--declare takes maxSteps and maxRuntime, not {', '.join(sorted(unknown))}")
    steps, runtime = (float(declared.get(each, 0)) for each in ("maxSteps", "maxRuntime"))
    knobs = replace(setting.knobs, fair_share=not given.no_fair_share, max_wait_seconds=given.max_wait)
    name = ", ".join([*given.declare, *(["not preemptible"] if given.not_preemptible else [])]) or "this"
    return replace(
        setting, name=name, knobs=knobs, preemptible=not given.not_preemptible, steps=steps, runtime=runtime,
        sigma=given.sigma,
    )  # fmt: skip


if __name__ == "__main__":
    main()
