"""CPU time of accepting a batch: supervisors report over HTTP to a real graph process, which stores the points.

What is compared is CPU time, for clients, servers and database share the machine: that of the graph process, from the
bytes of the request to those of the answer (HTTP, JSON, GraphQL, the checks, the fence, the summary, the rows), to
that of a process that writes the same columnar rows with asyncpg from numbers it has in memory, one transaction per
batch (floor.py). The rows in points/s compare what got through in the time on the wall, likewise; the client's share
of that machine is in it. Rounds of both alternate, and the median of the rounds counts.

The next rows compare batches with stop rules on with batches without (rules.py).

The last rows are growth: what a batch costs the graph process together with its connections' side in the database,
with 10^6 batches stored and with 10^3 (growth.py).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import orjson
import psutil
import uvloop

from benchmarks.attempt import Supervisor, open_attempts, points_of
from benchmarks.database import fresh_database
from benchmarks.floor import VARIANTS, Floor, floor_process
from benchmarks.growth import growth
from benchmarks.processes import cpu_seconds, server
from benchmarks.report import Row, publish
from benchmarks.rules import rules
from benchmarks.service import free_port

ROUND_SECONDS = 1.0  # about so much CPU time of the service per round
FEWEST = 32  # batches per round


async def report_all(supervisors: list[Supervisor], batches: int, variants: list[bytes]) -> None:
    """Let each supervisor report `batches` batches, one after the other."""

    async def report(supervisor: Supervisor) -> None:
        for number in range(batches):
            await supervisor.send(variants[number % len(variants)])

    async with asyncio.TaskGroup() as tasks:
        for supervisor in supervisors:
            tasks.create_task(report(supervisor))


async def ours(
    graph: psutil.Process, supervisors: list[Supervisor], batches: int, variants: list[bytes]
) -> tuple[float, float]:
    """CPU seconds of the graph process, and the wall's."""
    begun, wall = cpu_seconds(graph), time.perf_counter()
    await report_all(supervisors, batches, variants)
    return cpu_seconds(graph) - begun, time.perf_counter() - wall


async def measure_case(
    url: str, port: int, graph: psutil.Process, floor: Floor, *, count: int, metrics: int, points: int, rounds: int
) -> list[Row]:
    variants = [orjson.dumps(points_of(metrics, points)) for _ in range(VARIANTS)]
    cpu, wall, least_cpu, least_wall = [], [], [], []
    async with open_attempts(url, port, count) as supervisors:
        # The first round warms up both and determines the number of batches per round.
        trial, _ = await ours(graph, supervisors, max(1, FEWEST // count), variants)
        per_batch = trial / (max(1, FEWEST // count) * count)
        batches = max(1, round(max(FEWEST, ROUND_SECONDS / per_batch) / count))
        floor.write(writers=count, batches=max(1, FEWEST // count), metrics=metrics, points=points)
        for _ in range(rounds):
            taken = await ours(graph, supervisors, batches, variants)
            least = await asyncio.to_thread(floor.write, writers=count, batches=batches, metrics=metrics, points=points)
            cpu.append(taken[0])
            wall.append(taken[1])
            least_cpu.append(least[0])
            least_wall.append(least[1])
    case = f"{metrics} x {points:,} points a batch, {count} supervisor{'s' if count > 1 else ''}"
    sent = batches * count * metrics * points
    return [
        row(case, "points/CPU s", sent, cpu, least_cpu),
        row(f"{case}, through", "points/s", sent, wall, least_wall),
    ]


def row(case: str, unit: str, points: int, taken: list[float], least: list[float]) -> Row:
    """Rates of the median rounds; the ratio is the median of the rounds' own, each of which had its own noise."""
    ratio = statistics.median(floor / value for value, floor in zip(taken, least, strict=True))
    return Row("ingest", case, points / statistics.median(taken), unit, points / statistics.median(least), ratio)


async def measure(url: str, counts: list[int], points: list[int], metrics: int, rounds: int) -> list[Row]:
    rows = []
    port = free_port()
    with server("graph", port, DATABASE_URL=url) as graph, floor_process(url) as floor:
        for each in points:
            for count in counts:
                rows += await measure_case(
                    url, port, graph, floor, count=count, metrics=metrics, points=each, rounds=rounds
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supervisors", type=int, nargs="*", default=[1, 32], help="at once (default 1 32)")
    parser.add_argument("--points", type=int, nargs="*", default=[1, 100, 1000], help="of each metric in a batch")
    parser.add_argument("--metrics", type=int, default=3, help="in a batch (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="of each case, the median counts (default 5)")
    parser.add_argument("--stored", type=int, default=1_000_000, help="batches, for growth; 0: leave it out")
    arguments = parser.parse_args()
    with fresh_database() as url:
        rows = uvloop.run(measure(url, arguments.supervisors, arguments.points, arguments.metrics, arguments.rounds))
        rows += uvloop.run(rules(url, arguments.rounds))
        if arguments.stored:
            rows += uvloop.run(growth(url, arguments.stored, arguments.rounds))
    publish("ingest", rows)


if __name__ == "__main__":
    main()
