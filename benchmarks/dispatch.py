"""Short simulations per second: 200 of `true`, all queued before the clock starts, until the last is FINISHED.

Each requests a hundredth of a CPU, so that all may run at once. The machine is draining while they are created; the
clock starts when it is resumed. One simulation has run before, so that processes started once per host are running.

The floor: as many starts of a bare interpreter (`python -I -S -c pass`) in the same run, also all at once, until the
last was waited for. This is the least that one supervisor per simulation would cost without a launcher.

The CPU time of each process per simulation is printed as well, because the rate depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

import psutil
from gql import Client, GraphQLRequest
from gql.transport.httpx import HTTPXAsyncTransport

from benchmarks.processes import cpu_seconds
from benchmarks.report import Row, publish
from benchmarks.service import running_service

LOOK_SECONDS = 0.1  # each poll costs the service CPU time
CREATE = """
    mutation { createSimulation(input: { entrypoint: ["true"], resources: { cpus: 0.01 } }) { userErrors { message } } }
    """
OPEN = "{ simulations(first: 1, states: [QUEUED, STARTING, RUNNING]) { totalCount } }"
ROLES = ("graph", "scheduler", "PostgreSQL", "launcher", "supervisors")
LOST = "{ simulations(first: 1, states: [FAILED, CANCELLED]) { totalCount } }"
MACHINES = "{ machines(first: 10) { nodes { id } } }"
DRAIN = "mutation Drain($id: ID!) { drainMachine(input: { id: $id }) { userErrors { message } } }"
RESUME = "mutation Resume($id: ID!) { resumeMachine(input: { id: $id }) { userErrors { message } } }"


async def ours(address: str, count: int, rounds: int) -> tuple[list[float], dict[str, float]]:
    """Seconds from the first that may start to the last that is FINISHED, of each round; CPU seconds of all rounds."""
    taken: list[float] = []
    spent: dict[str, float] = defaultdict(float)
    async with Client(transport=HTTPXAsyncTransport(f"{address}/graphql", timeout=60), execute_timeout=60) as client:

        async def ask(query: str, **variables: Any) -> Any:
            return await client.execute(GraphQLRequest(query, variable_values=variables))

        async def all_are_over() -> None:
            while (await ask(OPEN))["simulations"]["totalCount"]:
                await asyncio.sleep(LOOK_SECONDS)

        await ask(CREATE)
        await all_are_over()
        [machine] = (await ask(MACHINES))["machines"]["nodes"]
        for _ in range(rounds):
            await ask(DRAIN, id=machine["id"])
            for _ in range(count):
                await ask(CREATE)
            before, begun = cpu_by_role(), time.perf_counter()
            await ask(RESUME, id=machine["id"])
            await all_are_over()
            taken.append(time.perf_counter() - begun)
            for role, seconds in cpu_by_role().items():
                spent[role] += seconds - before.get(role, 0.0)
        if lost := (await ask(LOST))["simulations"]["totalCount"]:
            raise RuntimeError(f"{lost} simulations did not finish")
    return taken, spent


def cpu_by_role() -> dict[str, float]:
    """CPU seconds so far of the service's processes, by what they are.

    Supervisors and simulations count when their launcher has reaped them, as its children.
    """
    spent: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        try:
            name, command = process.name(), process.cmdline()
            role = "PostgreSQL" if name == "postgres" else name if name == "launcher" else command[-1]
            if role not in ROLES:
                continue
            spent[role] += cpu_seconds(process)
            if role == "launcher":
                times = process.cpu_times()
                spent["supervisors"] += times.children_user + times.children_system
        except (psutil.NoSuchProcess, IndexError):
            continue  # it has ended
    return spent


def bare(count: int) -> float:
    """Seconds to start as many interpreters and to wait for all of them."""
    begun = time.perf_counter()
    started = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "pass"]) for _ in range(count)]
    for process in started:
        if process.wait() != 0:
            raise RuntimeError(f"a bare interpreter ended with {process.returncode}")
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="simulations in a round (default 200)")
    parser.add_argument("--rounds", type=int, default=3, help="the middle one counts (default 3)")
    arguments = parser.parse_args()
    with running_service() as address:
        taken, spent = asyncio.run(ours(address, arguments.count, arguments.rounds))
        floors = [bare(arguments.count) for _ in range(arguments.rounds)]
    value, floor = (arguments.count / sorted(each)[len(each) // 2] for each in (taken, floors))
    total = arguments.count * arguments.rounds
    print("CPU ms per simulation:", ", ".join(f"{role} {spent[role] / total * 1000:.1f}" for role in ROLES))
    publish("dispatch", [Row("dispatch", f"{arguments.count} simulations of true", value, "1/s", floor, value / floor)])


if __name__ == "__main__":
    main()
