"""Replay of recorded traces: reading them, and the policies on small traces made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.replay import FOUND, POLICIES, TABLE, Outcome, Replay, entitled, means, replays, rows_of
from benchmarks.traces import Job, Trace, nodes_for, read

MURI = "job_id,num_gpu,submit_time,iterations,iteration_time\n0,4,2000,1000,100\n1,16,1000,2000,100\n"
ITP = "job_id,submission_time,duration,num_gpu\na,100,50,1\nb,50,60,12\n"


def replayed(jobs: Sequence[Job], policy: str = "this", nodes: int = 1, **options: object) -> Outcome:
    setting = replace(POLICIES[policy], **options)  # type: ignore[arg-type]  # a test's shorthand
    return Replay(Trace("made", jobs, nodes, {}), setting).run()


def ends(outcome: Outcome) -> dict[int, float | None]:
    return {each.job.id: each.ended for each in outcome.states}


def test_a_trace_of_muri_is_read_with_its_published_averages(tmp_path: Path) -> None:
    (tmp_path / "trace3.csv").write_text(MURI)
    published = "policy,metric,trace,seconds,source\nSRSF,avg_jct,trace3,12.5,x\nSRSF,makespan,trace3,9,x\n"
    (tmp_path / "published_sim_results.csv").write_text(published)
    trace = read(tmp_path / "trace3.csv")
    assert (trace.name, trace.nodes, trace.published) == ("trace3", 8, {"SRSF": 12.5})
    assert [(each.gpus, each.nodes, each.submitted) for each in trace.jobs] == [(16, 2, 1.0), (4, 1, 2.0)]
    assert trace.jobs[1].duration == pytest.approx(101.5)


def test_a_trace_of_elasticflow_gets_as_many_nodes_as_its_load_needs(tmp_path: Path) -> None:
    (tmp_path / "cluster.csv").write_text(ITP)
    trace = read(tmp_path / "cluster.csv")
    assert [(each.gpus, each.held_gpus, each.duration) for each in trace.jobs] == [(12, 16, 60.0), (1, 1, 50.0)]
    assert trace.nodes == nodes_for(trace.jobs) == 3  # 1,010 GPU-seconds in 50 s, on nodes of 8 that are 0.85 busy


def test_first_come_first_served_skips_what_does_not_fit() -> None:
    jobs = [Job(1, 6, 0, 100), Job(2, 8, 1, 10), Job(3, 2, 2, 10)]
    assert ends(replayed(jobs, "fifo")) == {1: 100, 2: 110, 3: 12}


def test_a_reservation_is_not_delayed_by_backfill() -> None:
    jobs = [Job(1, 6, 0, 100), Job(2, 8, 1, 10), Job(3, 1, 2, 98), Job(4, 1, 3, 99)]
    assert ends(replayed(jobs, "easy")) == {1: 100, 2: 110, 3: 100, 4: 209}
    assert ends(replayed(jobs, "fifo")) == {1: 100, 2: 112, 3: 100, 4: 102}


def test_the_shortest_remaining_time_comes_first_and_preempts() -> None:
    jobs = [Job(1, 8, 0, 100), Job(2, 8, 10, 20), Job(3, 8, 10, 95)]
    outcome = replayed(jobs, "srtf")
    assert ends(outcome) == {2: 30, 1: 120, 3: 215}
    assert outcome.preemptions == pytest.approx(1 / 3)


def test_of_the_shortest_service_the_number_of_gpus_is_part() -> None:
    jobs = [Job(1, 8, 0, 10), Job(2, 8, 1, 30), Job(3, 1, 1, 100)]
    assert ends(replayed(jobs, "srtf")) == {1: 10, 2: 40, 3: 140}
    assert ends(replayed(jobs, "srsf")) == {1: 10, 3: 110, 2: 140}


def test_a_declared_limit_lets_a_short_run_preempt_a_long_one_after_its_minimum() -> None:
    jobs = [Job(1, 8, 0, 100_000), Job(2, 8, 10, 100)]
    assert ends(replayed(jobs, runtime=1.0)) == {2: 400, 1: 100_100}  # 300 s, then preempted for 100


def test_a_larger_job_gets_whole_nodes_all_or_none() -> None:
    jobs = [Job(1, 1, 0, 50), Job(2, 16, 1, 10), Job(3, 8, 2, 10)]
    assert ends(replayed(jobs, "fifo", nodes=2)) == {1: 50, 3: 12, 2: 60}


def test_a_replay_is_repeatable_and_serves_each_job_once() -> None:
    jobs = [Job(n, 1 + n % 8, 37.0 * (n // 3), 50.0 + 911 * (n * n % 17)) for n in range(1, 60)]
    first, second = (replayed(jobs, nodes=2, steps=0.5, sigma=0.3, projects=3) for _ in range(2))
    assert ends(first) == ends(second)
    for state in first.states:
        assert state.ended is not None
        assert state.ended - state.job.submitted >= state.job.duration - 1e-6
    assert len(first.slowdowns()) == 3


def test_rows_compare_with_what_was_published_and_found() -> None:
    outcome = replayed([Job(1, 1, 0, 20)], "srsf")
    trace = Trace("trace3", outcome.trace.jobs, 1, {"SRSF": 10.0})
    (row,) = rows_of(replace(outcome, trace=trace))
    assert (row.case, row.ratio) == ("trace3, srsf: published average", 2.0)
    (row,) = rows_of(replace(outcome, trace=trace, setting=TABLE["fifo"]))
    assert (row.case, row.value, row.floor) == ("trace3, fifo", 2.0, FOUND["trace3"]["fifo"])
    rows = [
        each
        for name in FOUND
        for each in rows_of(replace(outcome, trace=replace(trace, name=name), setting=TABLE["fifo"]))
    ]
    (mean,) = means(rows)
    assert mean.value == pytest.approx(2.0)
    assert mean.ratio == pytest.approx(2 / 3.66, abs=0.01)


def test_the_mean_of_several_replays_is_compared_of_which_the_first_is_the_trace_as_it_is() -> None:
    trace = Trace("trace3", [Job(number, 8, 7.0 * number, 20) for number in range(1, 6)], 1, {"SRSF": 10.0})
    outcomes = [*replays(trace, TABLE["fifo"], 3)]
    assert outcomes[0].trace is trace
    for outcome in outcomes[1:]:
        moved = {job.id: job.submitted for job in outcome.trace.jobs}
        assert all(0 <= moved[job.id] - job.submitted <= 5 for job in trace.jobs)
        assert moved != {job.id: job.submitted for job in trace.jobs}
    assert [each.setting.seed for each in outcomes] == [1, 2, 3]
    values = [row.value for each in outcomes for row in rows_of(each)]
    assert len(set(values)) == 3
    (row,) = rows_of(*outcomes)
    assert row.value == pytest.approx(sum(values) / 3)
    assert row.ratio == pytest.approx(row.value / FOUND["trace3"]["fifo"])


def test_alone_on_its_share_a_project_is_served_as_a_fluid_and_its_fairness_is_against_that() -> None:
    jobs = [Job(1, 8, 0, 10), Job(2, 8, 0, 30), Job(3, 1, 5, 10)]
    assert entitled(jobs, 4) == {1: 22.5, 2: 82.5, 3: 10.0}  # the small one beside the first, at one GPU of four
    shared = replayed([Job(1, 8, 0, 100), Job(2, 8, 0, 100)], "srsf", projects=2, seed=3)
    assert len({each.project for each in shared.states}) == 2
    assert shared.fairness() == pytest.approx([0.5, 1.0])  # each would take 200 s on half of the node
