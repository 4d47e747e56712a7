"""Latency of a small query beside requests, floods of frames and bodies that are made to stall a process.

One client in its own process repeats `{ viewer { name } }`, alone (the floor) and beside each attack, which a third
process repeats as fast as it is answered. The p99 of the small query counts: the promise is below 100 ms on two
otherwise idle cores, and the ratio is to that. The longest hold of the event loop within a minute, measured by the
process's own watchdog (`simulations_loop_hold_seconds`), is printed beside it, and the largest CPU time of a hold,
which is nearly the same on a busy machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import httpx
import orjson
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from benchmarks.database import fresh_database
from benchmarks.processes import server
from benchmarks.report import Row, publish
from benchmarks.service import free_port

VICTIM = orjson.dumps({"query": "{ viewer { name } }"})
NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
CREATE = "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } } }"
NESTED = '{ simulation(id: "x") {' + ("retryOf { id " * 14 + "}" * 14) * 25 + "} }"
WIDE = "{ simulations(first: 500) { nodes { " + " ".join(f"f{n}: name" for n in range(50)) + " id state tags } } }"
JSON = {"content-type": "application/json"}
UNKNOWN = {**JSON, "authorization": "Bearer x"}
LONGEST_SECONDS = 0.1  # what is promised of the p99
SECONDS = 5.0  # of each attack

BODIES: Mapping[str, tuple[Mapping[str, str], bytes]] = {
    "900,000 ids": (JSON, orjson.dumps({"query": NODES, "variables": {"ids": [1] * 900_000}})),
    "600,000 objects as ids": (JSON, orjson.dumps({"query": NODES, "variables": {"ids": [{}] * 600_000}})),
    "180,000 unknown fields": (
        JSON, orjson.dumps({"query": CREATE, "variables": {"input": dict.fromkeys(map(str, range(180_000)), 1)}}),
    ),
    "nested fields": (JSON, orjson.dumps({"query": NESTED})),
    "500 rows of 50 fields": (JSON, orjson.dumps({"query": WIDE})),
    "an unknown bearer": (UNKNOWN, orjson.dumps({"query": NODES, "variables": {"ids": [1] * 900_000}})),
}  # fmt: skip
FRAMES: Mapping[str, bytes] = {
    "pongs": b"\x8a\x80\0\0\0\0",
    "pings of a byte": b"\x89\x81\0\0\0\0x",
    "fragments of a byte": b"\x01\x80\0\0\0\0" + b"\0\x81\0\0\0\0x" * 99,
}


async def send_bodies(port: int, name: str, until: float) -> None:
    """Post one of the bodies again and again."""
    headers, body = BODIES[name]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                await client.post("/graphql", content=body, headers=dict(headers))


async def send_frames(port: int, name: str, until: float) -> None:
    """Open sockets, send no connection_init, and send 3 MB of frames on each."""
    flood = FRAMES[name] * (3_000_000 // len(FRAMES[name]))
    while time.monotonic() < until:
        with suppress(OSError, WebSocketException):
            async with connect(
                f"ws://127.0.0.1:{port}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None
            ) as socket:
                socket.transport.write(flood)
                await socket.wait_closed()


def attack(port: int, name: str, seconds: float) -> None:
    """Be the third process."""
    send: Callable[[int, str, float], object] = send_bodies if name in BODIES else send_frames
    uvloop.run(send(port, name, time.monotonic() + seconds))  # type: ignore[arg-type]  # both are coroutines


async def ask(port: int, seconds: float) -> list[float]:
    """How long each of the small queries took."""
    took = []
    until = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        while time.monotonic() < until:
            begun = time.monotonic()
            response = await client.post("/graphql", content=VICTIM, headers=JSON)
            response.raise_for_status()
            took.append(time.monotonic() - begun)
    return took


async def longest_hold(port: int) -> tuple[float, float]:
    """The longest hold of the loop, and the largest CPU time of one."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    values = dict(line.rsplit(maxsplit=1) for line in lines if not line.startswith("#"))
    return float(values["simulations_loop_hold_seconds"]), float(values["simulations_loop_hold_cpu_seconds"])


async def fill(port: int, rows: int) -> None:
    """Queue `rows` simulations without a planner."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        body = orjson.dumps({"query": CREATE, "variables": {"input": {"entrypoint": ["true"]}}})
        for _ in range(rows):
            (await client.post("/graphql", content=body, headers=JSON)).raise_for_status()


def p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98] if len(took) > 1 else took[0]


def measure(seconds: float, rows: int) -> list[Row]:
    found = []
    port = free_port()
    with fresh_database() as url, server("graph", port, DATABASE_URL=url, SIMULATIONS_SUBMITS_PER_MINUTE="1000000"):
        uvloop.run(fill(port, rows))
        alone = p99(uvloop.run(ask(port, seconds)))
        for name in (*BODIES, *FRAMES):
            process = multiprocessing.get_context("spawn").Process(target=attack, args=(port, name, seconds + 1))
            process.start()
            took = uvloop.run(ask(port, seconds))
            process.join()
            found.append(Row("stall", f"beside {name}: p99", p99(took), "s", alone, p99(took) / LONGEST_SECONDS))
            held, cpu = uvloop.run(longest_hold(port))
            print(
                f"{name}: {len(took)} asked, longest {max(took):.3f} s, loop held {held:.3f} s ({cpu:.3f} s of CPU)",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stall", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each attack")
    parser.add_argument("--rows", type=int, default=500)
    given = parser.parse_args()
    publish("stall", measure(given.seconds, given.rows))


if __name__ == "__main__":
    main()
