"""CPU time of a delivery: batches of points to many WebSocket subscribers of one simulation.

The floor sends the very same text to the same number of sockets from a bare Starlette application, with a loop over
`send_text`. Both servers run the same uvicorn; what is compared is deliveries per second of the server's CPU time,
because clients and server share the machine. The batches are taken in by another graph process, so that what storing
them costs (see ingest) is not counted; the notification, one read per batch and its encoding are. Rounds of both
alternate, and the median of the rounds counts.

Both send at the same rate. The process that stores a batch collects notifications for a hundredth of a second, so a
graph process sleeps before each batch; after a sleep the same loop takes about twice as long as in continuous sending.
The floor therefore pauses equally long before it sends. Its rate in a tight loop, which no process that waits for
batches can reach, is shown in addition for the fewest subscribers.

The last rows are growth: what a delivery costs with the most subscribers, against what it costs with the fewest.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Awaitable, Callable

import psutil
import uvloop

from benchmarks.attempt import open_attempt
from benchmarks.database import fresh_database
from benchmarks.processes import cpu_seconds, server
from benchmarks.report import Row, publish
from benchmarks.service import free_port
from benchmarks.subscribers import Subscribers, subscribed
from benchmarks.wire import Wire
from graph.live.notifications import COLLECT_SECONDS

DELIVERIES = 10_000  # per round, about: some hundred milliseconds of CPU time
FEWEST = 10  # batches per round


async def cost(
    process: psutil.Process, say: Callable[[], Awaitable[object]], people: Subscribers, size: int, batches: int
) -> float:
    """CPU seconds per delivery of the process that delivers. Each batch waits until the one before has arrived."""
    begun, received = cpu_seconds(process), people.received
    for _ in range(batches):
        await say()
        received += size
        await people.until(received)
    return (cpu_seconds(process) - begun) / (size * batches)


async def measure(sizes: list[int], sample_points: list[int], rounds: int, url: str) -> list[Row]:
    rows = []
    graph_port, ingest_port, floor_port = free_port(), free_port(), free_port()
    wire = Wire(floor_port)
    with (
        server("graph", graph_port, DATABASE_URL=url) as graph,
        server("graph", ingest_port, DATABASE_URL=url),
        server("benchmarks.bare", floor_port) as bare,
    ):
        for points in sample_points:
            costs: dict[int, float] = {}
            for size in sizes:
                batches = max(FEWEST, DELIVERIES // size)
                async with (
                    open_attempt(url, ingest_port) as supervisor,
                    subscribed(graph_port, "/graphql", size, supervisor.simulation_id) as people,
                    subscribed(floor_port, "/socket", size, None) as bare_people,
                ):

                    async def report() -> None:
                        await supervisor.report(points)  # noqa: B023  # called in this turn of the loop only

                    async def send_at_once() -> bytes:
                        return await wire.post("/send")

                    async def send() -> bytes:
                        await asyncio.sleep(COLLECT_SECONDS)
                        return await send_at_once()  # likewise

                    await wire.post("/text", supervisor.frame(points).encode())
                    await cost(graph, report, people, size, 3)
                    await cost(bare, send, bare_people, size, 3)
                    taken, least, hot = [], [], []
                    for _ in range(rounds):
                        taken.append(await cost(graph, report, people, size, batches))
                        least.append(await cost(bare, send, bare_people, size, batches))
                        if size == min(sizes):
                            hot.append(await cost(bare, send_at_once, bare_people, size, batches))
                costs[size] = statistics.median(taken)
                ratio = statistics.median(floor / value for value, floor in zip(taken, least, strict=True))
                case = f"{points} point{'s' if points > 1 else ''} to {size:,} subscribers"
                floor = 1 / statistics.median(least)
                rows.append(Row("fanout", case, 1 / costs[size], "deliveries/CPU s", floor, ratio))
                if hot:
                    value = 1 / statistics.median(hot)
                    rows.append(
                        Row(
                            "fanout",
                            f"the floor in a tight loop, {case}",
                            value,
                            "deliveries/CPU s",
                            floor,
                            value / floor,
                        )
                    )
            few, many = min(sizes), max(sizes)
            if few < many:
                case = f"growth: {points} point{'s' if points > 1 else ''} to {many:,} subscribers, against {few:,}"
                value, base = costs[many] * 1e6, costs[few] * 1e6
                rows.append(Row("fanout", case, value, "CPU us/delivery", base, value / base))
    await wire.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--points", type=int, nargs="*", default=[1, 20, 100], help="in a batch (default 1 20 100)")
    parser.add_argument("--rounds", type=int, default=3, help="of each case, the median counts (default 3)")
    arguments = parser.parse_args()
    with fresh_database() as url:
        publish("fanout", uvloop.run(measure(arguments.subscribers, arguments.points, arguments.rounds, url)))


if __name__ == "__main__":
    main()
