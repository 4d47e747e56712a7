"""Time to read a curve: 1,000,000 points of one metric, downsampled to 1,000, and all of them to a subscriber.

The floor is reading the same rows with asyncpg, which makes Python's numbers of them and does nothing more. All are
wall time, and all wait for the same server. Thinning is what `Simulation.convergence` runs; a subscriber gets its
points over a WebSocket, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import orjson
from asyncpg import Connection, Record
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from websockets.asyncio.client import ClientConnection

from benchmarks.database import fresh_database
from benchmarks.processes import server
from benchmarks.report import Row, publish
from benchmarks.service import free_port
from benchmarks.subscribers import QUERY, answered, open_socket
from db import convergence
from db.connection import connect_raw, create_engine, session_factory
from db.convergence import Column
from db.public_ids import encode
from graph.types.curve import thinned

SHOWN = 1_000
FLOOR = """
    SELECT attempt, batch, steps, "values", elapsed FROM convergence
    WHERE simulation_id = $1 AND metric = $2 ORDER BY attempt, batch
"""
CREATE = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by)
    SELECT id, 'benchmark', '{true}', 'benchmark' FROM projects RETURNING id
"""


async def fill(sessions: async_sessionmaker[AsyncSession], simulation_id: int, points: int, batch: int) -> None:
    """Store a noisy decay in batches of `batch` points."""
    for begin in range(0, points, 100_000):
        async with sessions.begin() as session:
            for first in range(begin, min(begin + 100_000, points), batch):
                steps = range(first, first + batch)
                values = [1 / (1 + step / 10_000) + random.gauss(0, 0.01) for step in steps]
                column = Column(list(steps), values, [step * 0.05 for step in steps])
                await convergence.store(session, simulation_id, 1, first // batch + 1, {"loss": column})


async def seconds(read: Callable[[], Awaitable[int]], runs: int, expected: int) -> float:
    """The median; each run must return as many points as expected."""
    taken = []
    for _ in range(runs):
        gc.collect()
        begun = time.perf_counter()
        found = await read()
        taken.append(time.perf_counter() - begun)
        if found > expected or found < expected * 0.9:
            raise RuntimeError(f"{found} points instead of {expected}")
    return statistics.median(taken)


async def everything(socket: ClientConnection, simulation_id: str) -> int:
    """Subscribe from the beginning to the end of the stored events; return the number of points."""
    variables = {"id": simulation_id}
    message = {"id": str(uuid4()), "type": "subscribe", "payload": {"query": QUERY, "variables": variables}}
    await socket.send(orjson.dumps(message).decode())
    found = 0
    while True:
        text = await socket.recv()
        if await answered(socket, text):
            continue
        event = orjson.loads(text)["payload"]["data"]["convergence"]
        found += sum(len(series["steps"]) for series in event["series"])
        if event["live"]:
            await socket.send(orjson.dumps({"id": message["id"], "type": "complete"}).decode())
            return found


async def measure(url: str, points: int, runs: int) -> list[Row]:
    engine = create_engine(url, pool_size=1, application="benchmark")
    sessions = session_factory(engine)
    raw: Connection[Record] = await connect_raw(url, application="benchmark")
    rows = []
    port = free_port()
    with server("graph", port, DATABASE_URL=url):
        socket = await open_socket(port, "/graphql")
        await socket.send('{"type": "connection_init"}')
        await socket.recv()
        for batch in (20, 1_000):
            simulation_id = await raw.fetchval(CREATE)
            await fill(sessions, simulation_id, points, batch)
            await raw.execute("ANALYZE convergence")

            async def floor(simulation_id: int = simulation_id) -> int:
                return sum(len(row["steps"]) for row in await raw.fetch(FLOOR, simulation_id, "loss"))

            async def ours(simulation_id: int = simulation_id) -> int:
                return len(await thinned(sessions, simulation_id, "loss", SHOWN))

            least = await seconds(floor, runs, points)
            taken = await seconds(ours, runs, SHOWN)
            case = f"{points:,} points in batches of {batch:,}, to {SHOWN:,}"
            rows.append(Row("curve", case, taken, "s", least, taken / least))

            async def all_of_it(simulation_id: int = simulation_id) -> int:
                return await everything(socket, encode("Simulation", simulation_id))

            taken = await seconds(all_of_it, runs, points)
            case = f"{points:,} points in batches of {batch:,}, to a subscriber"
            rows.append(Row("curve", case, taken, "s", least, taken / least))
        await socket.close()
    await raw.close()
    await engine.dispose()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000, help="how long the curve is (default 1,000,000)")
    parser.add_argument("--runs", type=int, default=5, help="of each, the median counts (default 5)")
    arguments = parser.parse_args()
    with fresh_database() as url:
        rows = asyncio.run(measure(url, arguments.points, arguments.runs))
    publish("curve", rows)


if __name__ == "__main__":
    main()
