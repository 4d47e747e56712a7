"""What a delivery costs the server: batches of points to many WebSocket subscribers of one simulation.

The floor sends the very same text to the same number of sockets from a bare Starlette application, with a loop over
`send_text`. Both servers run the same uvicorn; what is compared is deliveries per second of the server's CPU time,
because clients and server share the machine. The batches are taken in by another graph process, so that what storing
them costs (see ingest) is not counted; hearing of them, reading each once and encoding it is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import orjson
import psutil
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.attempt import Supervisor, open_attempt
from benchmarks.database import fresh_database
from benchmarks.report import Row, publish
from benchmarks.service import free_port

QUERY = """
subscription Curve($id: ID!) {
  convergence(simulationId: $id) { cursor attempt live state reason series { metric steps values elapsed } }
}
"""
SUBPROTOCOL = "graphql-transport-ws"


class Crowd:
    """Many sockets in one process, which only count what arrives."""

    def __init__(self) -> None:
        self.received = 0
        self.sample = ""
        self._arrived = asyncio.Event()
        self._wanted = 0

    async def until(self, count: int) -> None:
        """Wait until so many messages in all have arrived."""
        self._wanted = count
        while self.received < count:
            self._arrived.clear()
            await self._arrived.wait()

    async def read(self, socket: ClientConnection) -> None:
        async for message in socket:
            self.received += 1
            if self.received >= self._wanted:
                self._arrived.set()
            if self.received == 1 or self.received == self._wanted:
                self.sample = str(message)


@asynccontextmanager
async def crowd(port: int, path: str, size: int, subscription: dict[str, str] | None) -> AsyncIterator[Crowd]:
    """So many open sockets, subscribed if a subscription is given."""
    sockets = []
    for _ in range(size):
        socket = await connect(
            f"ws://127.0.0.1:{port}{path}", subprotocols=[SUBPROTOCOL], compression=None, ping_interval=None
        )
        if subscription is not None:
            await socket.send(orjson.dumps({"type": "connection_init"}).decode())
            await socket.recv()
            message = {"id": "1", "type": "subscribe", "payload": {"query": QUERY, "variables": subscription}}
            await socket.send(orjson.dumps(message).decode())
            await socket.recv()  # the state, at once
        sockets.append(socket)
    people = Crowd()
    readers = [asyncio.create_task(people.read(socket)) for socket in sockets]
    try:
        yield people
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for socket in sockets:
            socket.transport.abort()


@contextmanager
def server(arguments: list[str], port: int, **environment: str) -> Iterator[psutil.Process]:
    """A server process that answers at /healthz."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "PORT": str(port), "HOST": "127.0.0.1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(15)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def ours(
    process: psutil.Process, supervisor: Supervisor, port: int, size: int, points: int, batches: int
) -> float:
    """Deliveries per CPU second of the graph process that delivers."""
    subscription = {"id": supervisor.simulation_id}
    async with crowd(port, "/graphql", size, subscription) as people:
        await supervisor.report(points)
        await people.until(size)
        begun, received = cpu_seconds(process), people.received
        for _ in range(batches):
            await supervisor.report(points)
            received += size
            await people.until(received)
        return size * batches / (cpu_seconds(process) - begun)


async def floor(process: psutil.Process, text: str, port: int, size: int, batches: int) -> float:
    """Deliveries per CPU second of a bare loop."""
    async with crowd(port, "/socket", size, None) as people, httpx.AsyncClient() as client:
        await client.post(f"http://127.0.0.1:{port}/text", content=text)
        await client.post(f"http://127.0.0.1:{port}/send")
        await people.until(size)
        begun, received = cpu_seconds(process), people.received
        for _ in range(batches):
            await client.post(f"http://127.0.0.1:{port}/send")
            received += size
            await people.until(received)
        return size * batches / (cpu_seconds(process) - begun)


async def measure(sizes: list[int], sample_points: list[int], batches: int, url: str) -> list[Row]:
    rows = []
    graph_port, ingest_port, floor_port = free_port(), free_port(), free_port()
    with (
        server(["graph"], graph_port, DATABASE_URL=url) as graph,
        server(["graph"], ingest_port, DATABASE_URL=url),
        server(["benchmarks.bare"], floor_port) as bare,
    ):
        for points in sample_points:
            for size in sizes:
                async with open_attempt(url, ingest_port) as supervisor:
                    value = await ours(graph, supervisor, graph_port, size, points, batches)
                    text = supervisor.frame(points)
                    base = await floor(bare, text, floor_port, size, batches)
                case = f"{points} points to {size} subscribers"
                rows.append(Row("fanout", case, value, "deliveries/CPU s", base, value / base))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--points", type=int, nargs="*", default=[1, 20, 100])
    parser.add_argument("--batches", type=int, default=30)
    arguments = parser.parse_args()
    with fresh_database() as url:
        publish("fanout", asyncio.run(measure(arguments.subscribers, arguments.points, arguments.batches, url)))


if __name__ == "__main__":
    main()
