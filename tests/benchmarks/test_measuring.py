"""Judgement of benchmark results, and the tools of the benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from benchmarks import report
from benchmarks.__main__ import NAMES
from benchmarks.goals import GOALS, Goal, Outcome, judge
from benchmarks.processes import cpu_seconds
from benchmarks.report import Row, forget, publish, published
from benchmarks.wire import Wire


def row(benchmark: str, case: str, ratio: float) -> Row:
    return Row(benchmark, case, ratio, "s", 1.0, ratio)


def test_the_worst_row_decides_whether_a_goal_is_reached() -> None:
    goals = [
        Goal("fanout", "deliveries", r"100 points to \d+ subscribers", at_least=0.6),
        Goal("memory", "sockets", r"\d+ idle subscribers", at_most=1.5),
    ]
    rows = [
        row("fanout", "100 points to 100 subscribers", 0.59),
        row("fanout", "100 points to 300 subscribers", 0.8),
        row("fanout", "1 point to 300 subscribers", 0.1),
        row("memory", "1000 idle subscribers", 1.5),
    ]
    missed, reached = judge(goals, rows)
    assert (missed.outcome, missed.worst) == (Outcome.MISSED, rows[0])
    assert (reached.outcome, reached.worst) == (Outcome.REACHED, rows[3])


def test_what_was_not_measured_is_not_called_missed() -> None:
    assert {each.outcome for each in judge(GOALS, [])} == {Outcome.NOT_MEASURED}


@pytest.mark.parametrize(
    ("benchmark", "case"),
    [
        ("latency", "batch due to subscriber, 20 x 5/s, p99"),
        ("dispatch", "200 simulations of true"),
        ("fanout", "100 points to 1,000 subscribers"),
        ("fanout", "growth: 100 points to 1,000 subscribers, against 100"),
        ("ingest", "3 x 1,000 points a batch, 1 supervisor"),
        ("ingest", "3 x 1,000 points a batch, 32 supervisors"),
        ("ingest", "growth: a batch with 1,000,000 stored, against 1,000"),
        ("curve", "1,000,000 points in batches of 20, to 1,000"),
        ("memory", "1,000 idle subscribers"),
        ("memory", "20 that never read, 1,000,000 points: slope, against queues"),
        ("overhead", "who am I"),
        ("stall", "beside pongs: p99"),
        ("ray", "submit to first point, median"),
        ("ray", "200 attempts, 100 at once: points lost"),
        ("ray", "200 attempts, 100 at once: jobs left"),
        ("peers", "log one by one"),
        ("stopping", "TaskSet, default, N unknown, 1,748 runs that learn: regret"),
        ("stopping", "AlgoPerf, default with SLOW, 1,824 runs that learn: saved"),
        ("stopping", "DeepOBS, default, N known, all 432 runs: saved"),
        ("stopping", "DeepOBS, default, N known, all 432 runs: regret"),
        ("stopping", "sweep, halving 10 %, eta 3: saved"),
        ("stopping", "TaskSet, default, N known: mean of a point"),
        ("stopping", "the slowest of 999 evaluations"),
        ("forecast", "mean of the sources, 50% seen: error of the forecast"),
        ("forecast", "mean of the sources, 75% seen: error of the forecast"),
        ("forecast", "a refresh"),
        ("replay", "trace4_pr, srsf: published average"),
        ("replay", "trace3, half maxSteps"),
        ("replay", "geometric mean, maxRuntime"),
        ("queue", "plan, 100,000 queued x 1,000 machines, most of them busy"),
    ],
)
def test_each_claim_has_one_goal(benchmark: str, case: str) -> None:
    assert sum(each.worst is not None for each in judge(GOALS, [row(benchmark, case, 1.0)])) == 1


def test_a_median_or_what_got_through_is_no_goal() -> None:
    others = [
        row("latency", "submit to RUNNING, p99", 1.0),
        row("ingest", "3 x 1,000 points a batch, 1 supervisor, through", 1.0),
        row("fanout", "1 point to 1,000 subscribers", 1.0),
    ]
    assert {each.outcome for each in judge(GOALS, others)} == {Outcome.NOT_MEASURED}


def test_rows_are_written_for_programs_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    rows = [row("curve", "a case", 0.5)]
    publish("curve", rows)
    assert json.loads((tmp_path / "curve.json").read_text()) == [
        {"benchmark": "curve", "case": "a case", "value": 0.5, "unit": "s", "floor": 1.0, "ratio": 0.5}
    ]
    assert published("curve") == rows
    forget("curve")
    assert published("curve") == []


def test_every_benchmark_has_a_goal_and_is_run_with_the_others() -> None:
    beside_another_product = {"peers", "ray"}
    on_recorded_curves_and_traces = {"stopping", "forecast", "replay"}
    apart = beside_another_product | on_recorded_curves_and_traces | {"files"}  # which writes gibibytes to the disk
    assert {goal.benchmark for goal in GOALS} - apart == {*NAMES}
    assert all(find_spec(f"benchmarks.{name}") is not None for name in apart)
    for name in NAMES:
        assert find_spec(f"benchmarks.{name}") is not None


def test_cpu_time_is_that_of_the_process_and_not_of_the_wall() -> None:
    me = psutil.Process()
    before, own_before = cpu_seconds(me), os.times()
    while os.times().user - own_before.user < 0.1:
        sum(range(1000))
    told, own = cpu_seconds(me) - before, os.times()
    assert 0.05 < told <= own.user + own.system - own_before.user - own_before.system + 0.05


async def test_the_wire_keeps_its_connection_and_makes_a_new_one_when_the_server_closed_it() -> None:
    asked: list[bytes] = []
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        for _ in range(2 if len(connections) == 1 else 1):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            asked.append(await reader.readexactly(length))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = Wire(server.sockets[0].getsockname()[1], token="secret")
    try:
        assert await wire.post("/a", b"one", b"two") == b"ok"
        assert await wire.post("/a", b"three") == b"ok"
        await connections[0].wait_closed()
        while not wire.is_closed:
            await asyncio.sleep(0.005)
        assert await wire.post("/a", b"four") == b"ok"
    finally:
        await wire.close()
        server.close()
        await server.wait_closed()
    assert asked == [b"onetwo", b"three", b"four"]
    assert len(connections) == 2


async def test_the_wire_raises_what_the_server_refused() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 409 Conflict\r\ncontent-length: 3\r\n\r\nno!")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = Wire(server.sockets[0].getsockname()[1])
    with pytest.raises(RuntimeError, match=r"409 Conflict.*no!"):
        await wire.get("/a")
    await wire.close()
    server.close()
    await server.wait_closed()
