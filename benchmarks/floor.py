"""Floor process of ingest: writes columnar rows with asyncpg, one transaction per batch.

Reads requests from stdin, one line of JSON each, and answers each line with its own CPU time. The points are numbers in
memory before the clock starts; each writer has a connection of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import asyncpg
import orjson
import uvloop
from asyncpg import Connection, Record

from benchmarks.attempt import points_of

STORE = """
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
CREATE = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by)
    SELECT id, 'benchmark', '{true}', 'benchmark' FROM projects RETURNING id
"""
VARIANTS = 8  # different batches, written in turn


class Floor:
    """The process, as the benchmark sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def write(self, *, writers: int, batches: int, metrics: int, points: int) -> tuple[float, float]:
        """Let so many writers write so many batches each; its CPU seconds and the wall's."""
        order = {"writers": writers, "batches": batches, "metrics": metrics, "points": points}
        orders, answers = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        orders.write(orjson.dumps(order) + b"\n")
        orders.flush()
        answer = orjson.loads(answers.readline())
        return answer["cpu"], answer["wall"]


@contextmanager
def floor_process(url: str) -> Iterator[Floor]:
    """Run it while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.floor"],
        env={**os.environ, "DATABASE_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    with process:
        yield Floor(process)
        cast("IO[bytes]", process.stdin).close()


async def write(
    connection: Connection[Record],
    simulation_id: int,
    first: int,
    batches: int,
    variants: list[list[tuple[object, ...]]],
) -> None:
    for batch in range(first, first + batches):
        rows = [(simulation_id, 1, batch, *row) for row in variants[batch % len(variants)]]
        async with connection.transaction():
            await connection.executemany(STORE, rows)


async def main() -> None:
    connections: list[Connection[Record]] = []
    written: dict[Connection[Record], tuple[int, int]] = {}  # its simulation, and how many batches that has
    for line in sys.stdin:
        order = orjson.loads(line)
        while len(connections) < order["writers"]:
            connection = await asyncpg.connect(os.environ["DATABASE_URL"])
            connections.append(connection)
            written[connection] = (await connection.fetchval(CREATE), 0)
        batches = order["batches"]
        variants: list[list[tuple[object, ...]]] = [
            [
                (metric, each["steps"], each["values"], each["elapsed"])
                for metric, each in points_of(order["metrics"], order["points"]).items()
            ]
            for _ in range(VARIANTS)
        ]
        begun, wall = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for connection in connections[: order["writers"]]:
                simulation_id, before = written[connection]
                written[connection] = (simulation_id, before + batches)
                tasks.create_task(write(connection, simulation_id, before + 1, batches, variants))
        taken = {"cpu": time.process_time() - begun, "wall": time.perf_counter() - wall}
        sys.stdout.buffer.write(orjson.dumps(taken) + b"\n")
        sys.stdout.buffer.flush()
    for connection in connections:
        await connection.close()


if __name__ == "__main__":
    uvloop.run(main())
