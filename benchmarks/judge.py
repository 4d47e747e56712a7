"""CPU time of judging, and the time from the point that decides to SIGTERM at the child.

The judge's rounds run in this process, over simulations with the default rule that are filled in by SQL and get a
batch each a second. Its CPU time and that of its database connections are added up, for they work for nothing else
meanwhile; the floor is the rules alone, fed the same points from memory. The batches are written between the rounds:
how long that takes is not the judge's.

The last row runs whole services: children that print a NaN and wait to be stopped, one after the other, the service
with its default settings. Each measures by its own clock, from its line to its SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import time

import httpx
import psutil
import uvloop

from benchmarks.database import fresh_database
from benchmarks.report import Row, publish
from benchmarks.service import running_service
from db.connection import connect_raw, create_engine, session_factory
from policy.rule_documents import Declared, encode
from policy.stopping import Monitor, StopRules
from scheduler.judge import Judge

RULES = StopRules("val/loss")
BAR_US = 10.0  # of CPU time for a point, whatever else is in its batch
FILL = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, attempt, objective_metric, objective_mode,
                             stopping)
    SELECT 1, 's' || n, '{true}', 'user', 'RUNNING', 1, 'val/loss', 'MIN', $2::jsonb
    FROM generate_series(1, $1::integer) AS n
"""
WRITE = """
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT s.id, 1, $1, 'val/loss', $2, $3, $3 FROM simulations AS s
"""
CHILD = """
import json, os, signal, sys, time
def stop(*_):
    print("delay", time.monotonic() - begun, flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
for step in range(20):
    print(json.dumps({"step": step, "val/loss": 1.0}), flush=True)
    time.sleep(0.05)
time.sleep(float(sys.argv[1]))
begun = time.monotonic()
print(json.dumps({"step": 20, "val/loss": float("nan")}), flush=True)
while True: signal.pause()
"""
CREATE = (
    "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } "
    "userErrors { message } } }"
)
SHOW = "query ($id: ID!) { simulation(id: $id) { state logs(first: 100) { nodes { stream text } } } }"


def value(step: int) -> float:
    """A curve on which no rule decides: it improves, with some noise."""
    return 10.0 / math.sqrt(1 + step) + 0.01 * math.sin(step)


def cpu_of(processes: list[psutil.Process]) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes)


async def rounds(url: str, runs: int, points: int, seconds: int) -> list[Row]:
    """Judge so many batches of each simulation."""
    writer = await connect_raw(url, application="writer")
    engine = create_engine(url, application="judge", pool_size=2)
    judge = Judge(session_factory(engine))
    await writer.execute(FILL, runs, json.dumps(encode([Declared(RULES)])))
    await writer.execute("ANALYZE simulations")
    taken: list[float] = []
    try:
        await judge.run_once()
        pids = await writer.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'simulations-judge'")
        servers = [psutil.Process(row["pid"]) for row in pids]
        for second in range(seconds):
            steps = list(range(second * points, (second + 1) * points))
            await writer.execute(WRITE, second + 1, steps, [value(step) for step in steps])
            if second == 2:
                await writer.execute("ANALYZE convergence")
            begun = time.process_time() + cpu_of(servers)
            summary = await judge.run_once()
            taken.append(time.process_time() + cpu_of(servers) - begun)
            if (summary.points, summary.stopped) != (runs * points, 0):
                raise RuntimeError(f"the judge missed something: {summary}")
    finally:
        await writer.close()
        await engine.dispose()
    whole, floor = statistics.median(taken), alone(runs, points, seconds)
    each = runs * points
    case = f"{runs:,} runs, {points} points each a second"
    return [
        Row("judge", f"{case}: CPU s a second", whole, "s", floor, whole / floor),
        Row("judge", f"{case}: a point", whole / each * 1e6, "us", floor / each * 1e6, whole / floor),
        Row(
            "judge", f"{case}: a point, of {BAR_US:g} us", whole / each * 1e6, "us", BAR_US, whole / each * 1e6 / BAR_US
        ),
    ]


def alone(runs: int, points: int, seconds: int) -> float:
    """CPU seconds of the rules alone, for one second of a hundredth of the runs."""
    monitors = [Monitor(RULES) for _ in range(max(runs // 100, 1))]
    taken = []
    for second in range(seconds):
        steps = range(second * points, (second + 1) * points)
        values = [value(step) for step in steps]
        begun = time.process_time()
        for monitor in monitors:
            monitor.extend(steps, values)
        taken.append(time.process_time() - begun)
    return statistics.median(taken) / len(monitors) * runs


async def delays(address: str, count: int, at_once: int) -> list[float]:
    """Seconds from the point that decides to SIGTERM, of each child."""
    free = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:

        async def ask(query: str, **variables: object) -> dict[str, dict[str, object]]:
            answer = await client.post("/graphql", json={"query": query, "variables": variables})
            data: dict[str, dict[str, object]] = answer.json()["data"]
            return data

        async def one(number: int) -> float:
            async with free:
                given = {
                    "entrypoint": ["python", "-c", CHILD, str(0.037 * (number % 27))], "resources": {"cpus": 0.1},
                    "stopping": [{"metric": "val/loss"}],
                }  # fmt: skip
                made: object = (await ask(CREATE, input=given))["createSimulation"]["simulation"]
                simulation_id = made["id"] if isinstance(made, dict) else None
                while True:
                    await asyncio.sleep(0.2)
                    shown = (await ask(SHOW, id=simulation_id))["simulation"]
                    if shown["state"] in ("FINISHED", "FAILED", "CANCELLED"):
                        break
                logs = shown["logs"]
                nodes = logs["nodes"] if isinstance(logs, dict) else []
                said = " ".join(chunk["text"] for chunk in nodes if chunk["stream"] == "STDOUT").split()
                return float(said[said.index("delay") + 1])

        return list(await asyncio.gather(*(one(number) for number in range(count))))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="simulations with rules (default 10,000)")
    parser.add_argument("--points", type=int, nargs="*", default=[1, 10], help="in a batch (default 1 10)")
    parser.add_argument("--seconds", type=int, default=10, help="batches of each simulation (default 10)")
    parser.add_argument("--stops", type=int, default=100, help="children that are stopped; 0: leave it out")
    parser.add_argument("--at-once", type=int, default=2, help="of those children (default 2)")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for points in arguments.points:
        with fresh_database() as url:
            rows += uvloop.run(rounds(url, arguments.runs, points, arguments.seconds))
    if arguments.stops:
        with running_service() as address:
            found = uvloop.run(delays(address, arguments.stops, arguments.at_once))
        case = f"from the point to SIGTERM, {len(found)} runs"
        for name, share in (("median", 0.5), ("p99", 0.99)):
            rows.append(Row("judge", f"{case}, {name}", percentile(found, share), "s", 1.0, percentile(found, share)))
    publish("judge", rows)


if __name__ == "__main__":
    main()
