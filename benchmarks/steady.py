"""A steady load: simulations that each report some batches a second, and a subscriber of each.

Latency of a batch from its due time to its receipt by the subscriber, over the whole path: report, commit, hub,
WebSocket. A batch that has to wait for the answer to the one before counts from when it was due, not from when it was
sent. The floor is the same path without GraphQL (bare.py), under the same load: the batch with the same durability in
one transaction, then straight to the subscriber. Both take turns of some seconds, and the quantiles are those of all
batches of all turns: other load on the machine affects both, and one bad second does not decide.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from websockets.asyncio.client import ClientConnection

from benchmarks.attempt import Supervisor, open_attempts, points_of
from benchmarks.processes import server
from benchmarks.report import Row
from benchmarks.service import free_port
from benchmarks.subscribers import answered, open_socket, subscribe
from benchmarks.wire import Wire

SIMULATIONS = 20
PER_SECOND = 5
METRICS = 3
POINTS = 10  # of each metric in a batch
WARM_SECONDS = 2
Report = Callable[[bytes], Awaitable[object]]


@dataclass(slots=True)
class Path:
    """One simulation's way: how it reports, and the socket of its subscriber."""

    report: Report
    socket: ClientConnection
    find_series: Callable[[bytes], list[dict[str, list[int]]]]
    sent: int = 0
    due: dict[int, float] = field(default_factory=dict)  # by the first step of a batch
    taken: list[float] = field(default_factory=list)  # seconds

    async def send(self, begin: float, period: float, batches: int) -> None:
        """Report a batch whenever one is due."""
        for number in range(batches):
            columns = orjson.dumps(points_of(METRICS, POINTS, self.sent * POINTS))
            due = begin + number * period
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
                due = time.perf_counter()  # the loop wakes to the millisecond, and when this process gets its turn
            self.due[self.sent * POINTS] = due
            self.sent += 1
            await self.report(columns)

    async def receive(self, batches: int) -> None:
        """Receive `batches` batches."""
        while batches:
            message = await self.socket.recv(decode=False)
            now = time.perf_counter()  # not the loop's own clock: uvloop's stands still within a turn of the loop
            series = [] if await answered(self.socket, message) else self.find_series(message)
            if series:
                self.taken.append(now - self.due.pop(series[0]["steps"][0]))
                batches -= 1


async def run(paths: list[Path], seconds: float) -> list[float]:
    """Return the latencies of all batches that are due within `seconds`."""
    period = 1 / PER_SECOND
    batches = max(1, round(seconds * PER_SECOND))
    begin = time.perf_counter() + 0.05
    for path in paths:
        path.taken.clear()
    async with asyncio.timeout(seconds + 60), asyncio.TaskGroup() as tasks:
        for number, path in enumerate(paths):
            tasks.create_task(path.receive(batches))
            tasks.create_task(path.send(begin + number * period / len(paths), period, batches))
    return [taken for path in paths for taken in path.taken]


@asynccontextmanager
async def our_paths(url: str, port: int) -> AsyncIterator[list[Path]]:
    """Through a graph process."""
    async with open_attempts(url, port, SIMULATIONS) as supervisors:
        paths = []
        for supervisor in supervisors:
            socket = await open_socket(port, "/graphql")
            await subscribe(socket, supervisor.simulation_id)
            paths.append(Path(supervisor.send, socket, _of_event))
        yield paths
        await _close(path.socket for path in paths)


@asynccontextmanager
async def bare_paths(url: str, graph_port: int, port: int) -> AsyncIterator[list[Path]]:
    """Through the floor. The graph process only opens the attempts."""
    async with open_attempts(url, graph_port, SIMULATIONS) as supervisors:
        wires = [Wire(port) for _ in supervisors]
        paths = []
        for wire, supervisor in zip(wires, supervisors, strict=True):
            socket = await open_socket(port, f"/follow/{supervisor.simulation_number}")
            paths.append(Path(_bare_report(wire, supervisor), socket, _of_batch))
        yield paths
        await _close(path.socket for path in paths)
        for wire in wires:
            await wire.close()


async def measure_steady(url: str, seconds: float, rounds: int) -> list[Row]:
    """Median and p99 of all rounds together."""
    port, floor_port = free_port(), free_port()
    taken: list[float] = []
    least: list[float] = []
    gc.collect()
    gc.freeze()  # or this process would look through all it has once a second, while batches wait to be received
    with (
        server("graph", port, DATABASE_URL=url),
        server("benchmarks.bare", floor_port, DATABASE_URL=url),
    ):
        async with our_paths(url, port) as ours, bare_paths(url, port, floor_port) as bare:
            await run(ours, WARM_SECONDS)
            await run(bare, WARM_SECONDS)
            for _ in range(rounds):
                taken += await run(ours, seconds)
                least += await run(bare, seconds)
    rows = []
    for index, name in ((49, "median"), (98, "p99")):
        value, floor = quantiles(taken)[index], quantiles(least)[index]
        case = f"batch due to subscriber, {SIMULATIONS} x {PER_SECOND}/s, {name}"
        rows.append(Row("latency", case, value * 1e3, "ms", floor * 1e3, value / floor))
    return rows


def quantiles(sample: list[float]) -> list[float]:
    """The 99 cuts between hundredths."""
    return statistics.quantiles(sample, n=100, method="inclusive")


def _of_event(message: bytes) -> list[dict[str, list[int]]]:
    frame = orjson.loads(message)
    if frame["type"] != "next" or frame["payload"].get("errors"):
        raise RuntimeError(message.decode())
    series: list[dict[str, list[int]]] = frame["payload"]["data"]["convergence"]["series"]
    return series


def _of_batch(message: bytes) -> list[dict[str, list[int]]]:
    series: list[dict[str, list[int]]] = orjson.loads(message)["series"]
    return series


def _bare_report(wire: Wire, supervisor: Supervisor) -> Report:
    begin = b'{"attempt":%d,"batch":' % supervisor.attempt_number
    batches = iter(range(1, 2**31))

    async def report(columns: bytes) -> None:
        await wire.post("/report", begin, b'%d,"points":' % next(batches), columns, b"}")

    return report


async def _close(sockets: Iterable[ClientConnection]) -> None:
    for socket in sockets:
        socket.transport.abort()
