"""Memory of subscribers: a thousand idle ones, and some that never read.

Memory is what the graph process alone holds (USS: what would be free if it ended). The floor of a waiting subscriber
is a socket of a bare Starlette application under the same uvicorn; both have had sockets before the first look, so
that what a process takes once is in neither number.

The readers that stall open their sockets, subscribe, and read nothing more, while a million points are reported and
another subscriber reads every one. Before the first look the shared tail of the log is full (live/hub.py), so that a
flat line is flat. Its slope in bytes per point is shown against the bytes that queues would keep of each point: its
text, for each of them. They are several, for any process that moves so many objects creeps a little; one stalled
reader's queue would hide in that.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import AsyncExitStack

import orjson
import psutil
import uvloop

from benchmarks.attempt import Supervisor, open_attempt, points_of
from benchmarks.database import fresh_database
from benchmarks.processes import own_mebibytes, server
from benchmarks.report import Row, publish
from benchmarks.service import free_port
from benchmarks.subscribers import Subscribers, open_socket, subscribe, subscribed

WARM = 200  # sockets before the first look
BATCH = 1_000  # points
TAIL_BATCHES = 300  # more than the shared tail of a log holds
LOOKS = 20  # at the memory, while the points come in


async def per_socket(process: psutil.Process, port: int, path: str, size: int, simulation_id: str | None) -> float:
    """KiB per socket that waits."""
    async with subscribed(port, path, WARM, simulation_id):
        before = own_mebibytes(process)
        async with subscribed(port, path, size, simulation_id):
            return (own_mebibytes(process) - before) / size * 1024


async def stalled(process: psutil.Process, supervisor: Supervisor, port: int, readers: int, points: int) -> list[Row]:
    """The memory before and after a million points that some don't read."""
    columns = orjson.dumps(points_of(1, BATCH))
    async with AsyncExitStack() as stack:
        for _ in range(readers):
            unread = await open_socket(port, "/graphql", max_queue=1)
            stack.callback(unread.transport.abort)
            await subscribe(unread, supervisor.simulation_id)
        people = await stack.enter_async_context(subscribed(port, "/graphql", 1, supervisor.simulation_id))
        await _report(supervisor, people, columns, TAIL_BATCHES)
        seen, memory = [0], [own_mebibytes(process)]
        every = max(1, points // BATCH // LOOKS)
        for _ in range(points // BATCH // every):
            await _report(supervisor, people, columns, every)
            seen.append(seen[-1] + every * BATCH)
            memory.append(own_mebibytes(process))
    slope = statistics.linear_regression(seen, memory).slope * 2**20
    queued = len(supervisor.frame(BATCH)) / BATCH * readers
    case = f"{readers} that never read, {seen[-1]:,} points"
    return [
        Row("memory", f"{case}: after, against before", memory[-1], "MiB", memory[0], memory[-1] / memory[0]),
        Row("memory", f"{case}: slope, against queues", slope, "bytes/point", queued, slope / queued),
    ]


async def _report(supervisor: Supervisor, people: Subscribers, columns: bytes, batches: int) -> None:
    expected = people.received + batches
    for _ in range(batches):
        await supervisor.send(columns)
    await people.until(expected)


async def measure(url: str, size: int, readers: int, points: int) -> list[Row]:
    port, floor_port = free_port(), free_port()
    with server("graph", port, DATABASE_URL=url) as graph, server("benchmarks.bare", floor_port) as bare:
        async with open_attempt(url, port) as supervisor:
            await supervisor.report(1)
            value = await per_socket(graph, port, "/graphql", size, supervisor.simulation_id)
            least = await per_socket(bare, floor_port, "/socket", size, None)
            rows = [Row("memory", f"{size:,} idle subscribers", value, "KiB/socket", least, value / least)]
            return rows + await stalled(graph, supervisor, port, readers, points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1_000, help="that wait (default 1,000)")
    parser.add_argument("--stalled", type=int, default=20, help="that never read (default 20)")
    parser.add_argument("--points", type=int, default=1_000_000, help="that those don't read (default 1,000,000)")
    arguments = parser.parse_args()
    with fresh_database() as url:
        publish("memory", uvloop.run(measure(url, arguments.subscribers, arguments.stalled, arguments.points)))


if __name__ == "__main__":
    main()
