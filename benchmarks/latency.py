"""Latency for the user: from submit to RUNNING, and from a printed line to its point at a subscriber.

The floor of both is what starting a bare Python process takes in the same run (a supervisor and a child are two).

Then the same under a steady load, many simulations that report several times a second, against the same path in bare
Starlette and asyncpg: steady.py says how.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

import uvloop
from gql import Client, GraphQLRequest
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

from benchmarks.database import fresh_database
from benchmarks.report import Row, publish
from benchmarks.service import running_service
from benchmarks.steady import measure_steady, quantiles

CREATE = """
    mutation Submit($entrypoint: [String!]!) {
      createSimulation(input: { entrypoint: $entrypoint, resources: { cpus: 0.1 } }) {
        simulation { id }
        userErrors { message }
      }
    }
    """
FOLLOW = """
    subscription Follow($id: ID!) {
      convergence(simulationId: $id) { state reason series { metric values } }
    }
    """
# Prints the wall clock as a metric: the subscriber, on the same machine, subtracts it from its own.
CLOCK = """
import json, time
for step in range({points}):
    print(json.dumps(dict(step=step, printed=time.time())))
    time.sleep({pause})
"""


async def measure(address: str, runs: int, points: int) -> tuple[list[float], list[float]]:
    """Seconds to RUNNING of each run, and seconds to the subscriber of each point."""
    to_running: list[float] = []
    to_subscriber: list[float] = []
    entrypoint = [sys.executable, "-c", CLOCK.format(points=points, pause=0.1)]
    http = HTTPXAsyncTransport(f"{address}/graphql")
    socket = WebsocketsTransport(f"{address.replace('http', 'ws')}/graphql")
    async with Client(transport=http) as submitting, Client(transport=socket) as following:
        for _ in range(runs):
            begun = time.perf_counter()
            created = await submitting.execute(GraphQLRequest(CREATE, variable_values={"entrypoint": entrypoint}))
            simulation = created["createSimulation"]["simulation"]
            if simulation is None:
                raise RuntimeError(json.dumps(created))
            running = False
            async for event in following.subscribe(GraphQLRequest(FOLLOW, variable_values={"id": simulation["id"]})):
                now = time.time()
                curve = event["convergence"]
                if not running and curve["state"] == "RUNNING":
                    running = True
                    to_running.append(time.perf_counter() - begun)
                for series in curve["series"]:
                    to_subscriber.extend(now - printed for printed in series["values"])
            if curve["state"] != "FINISHED":
                raise RuntimeError(f"{curve['state']}: {curve['reason']}")
    return to_running, to_subscriber


def bare_process_seconds(runs: int) -> list[float]:
    """What starting a bare Python process takes."""
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
        taken.append(time.perf_counter() - begun)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="simulations, one after the other (default 20)")
    parser.add_argument("--points", type=int, default=20, help="points that each prints (default 20)")
    parser.add_argument("--seconds", type=float, default=3, help="of steady load in a round (default 3)")
    parser.add_argument("--rounds", type=int, default=10, help="of steady load (default 10)")
    arguments = parser.parse_args()
    with running_service() as address:
        floor = statistics.median(bare_process_seconds(arguments.runs))
        to_running, to_subscriber = asyncio.run(measure(address, arguments.runs, arguments.points))
    rows = []
    for case, sample in (("submit to RUNNING", to_running), ("line printed to subscriber", to_subscriber)):
        cuts = quantiles(sample)
        for name, value in ((f"{case}, median", cuts[49]), (f"{case}, p99", cuts[98])):
            rows.append(Row("latency", name, value, "s", floor, value / floor))
    with fresh_database() as url:
        rows += uvloop.run(measure_steady(url, arguments.seconds, arguments.rounds))
    publish("latency", rows)


if __name__ == "__main__":
    main()
