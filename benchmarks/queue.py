"""Planner cost of a long queue: rounds of the leader over 1,000, 10,000 and 100,000 simulations without a machine.

They stand first in the queue, in 50 classes of equal requirements, beside ten idle machines that are too small for any
of them. Measured on the wall, planner and PostgreSQL together: a first round that reads everything;
a tick in which nothing changed; and the rate at which short simulations behind them are placed and end, two at a time,
each round by one plan. The floor is the same with 1,000 queued, of the rate the same with an empty queue.

`--skip-rates` and `--lengths` leave parts out, so that the file also runs where only `Planner.tick` and `plan` exist.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal

import psutil
import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from benchmarks.database import fresh_database
from benchmarks.processes import cpu_seconds
from benchmarks.report import Row, publish
from db import lifecycle, machines
from db.connection import create_engine, driver_of, session_factory
from db.events import PLANNER
from db.models import Attempt
from db.states import Reason
from scheduler.planner import Planner
from settings import Settings
from transitions.settle import Ending, end

Sessions = async_sessionmaker[AsyncSession]

LENGTHS = (1_000, 10_000, 100_000)
CLASSES = 50
MACHINES = 10
SHORT_ONES = 100
QUEUE = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by, cpus, priority)
    SELECT 1, 'waits', '{true}', 'benchmark', CAST(:cpus AS float8) + n % CAST(:classes AS int), :priority
    FROM generate_series(1, CAST(:count AS int)) AS n
"""


async def main(lengths: list[int], *, rates: bool, url: str) -> list[Row]:
    engine = create_engine(url, pool_size=1, application="benchmark")
    sessions = session_factory(engine)
    planner = Planner(sessions, Settings(lease_seconds=3600))
    try:
        await join_machines(sessions)
        empty = await rate(planner, sessions) if rates else 0.0
        rows: list[Row] = []
        floors: tuple[float, float] | None = None
        queued = 0
        for length in lengths:
            await fill(sessions, length - queued)
            queued = length
            planner = Planner(sessions, Settings(lease_seconds=3600))
            first = await seconds_of(sessions, planner.plan)
            for _ in range(3):
                await planner.tick()
            unchanged = statistics.median([await seconds_of(sessions, planner.tick) for _ in range(9)])
            floors = floors or (first, unchanged)
            for case, value, floor in (
                ("one plan of all", first, floors[0]),
                ("an unchanged tick", unchanged, floors[1]),
            ):
                rows.append(
                    Row("queue", f"{case}, {length:,} queued", value * 1000, "CPU ms", floor * 1000, value / floor)
                )
            if rates:
                behind = await rate(planner, sessions)
                rows.append(
                    Row("queue", f"short ones behind {length:,} queued", behind, "1/CPU s", empty, behind / empty)
                )
        return rows
    finally:
        await engine.dispose()


async def join_machines(sessions: Sessions) -> None:
    """One with two cpus, where the short ones run, and others that take only what names a label of theirs."""
    for number in range(MACHINES):
        host = f"host-{number}"
        async with driver_of(sessions) as driver:
            await machines.beat_host(driver, host, name=host, gpus=0)
        async with sessions.begin() as session:
            await machines.join(
                session, engine="local", engine_key=host, name=host, host=host, cpus=2.0, memory_gib=8.0, gpus=0,
                gpu_model=None, labels={}, price_per_hour=Decimal(number),
            )  # fmt: skip


async def fill(sessions: Sessions, count: int) -> None:
    """Queue `count` more simulations that fit on no machine, and ANALYZE as autovacuum would."""
    async with sessions.begin() as session:
        await session.execute(text(QUEUE), {"cpus": 1000, "classes": CLASSES, "count": count, "priority": 1})
    async with sessions.begin() as session:
        await session.execute(text("ANALYZE"))


async def rate(planner: Planner, sessions: Sessions) -> float:
    """Short ones placed and ended in a second: as many as have room at a time, each round by one plan."""
    async with sessions.begin() as session:
        await session.execute(text(QUEUE), {"cpus": 1, "classes": 1, "count": SHORT_ONES, "priority": 0})
    await planner.tick()  # the first of them are met here
    begun, ended = await cpu_seconds_of_both(sessions), 0
    while True:
        async with sessions() as session:
            placed = (await session.execute(select(Attempt.simulation_id).where(Attempt.ended_at.is_(None)))).all()
        if not placed:
            return ended / (await cpu_seconds_of_both(sessions) - begun)
        for (simulation_id,) in placed:
            async with sessions.begin() as session:
                await lifecycle.lock(session, simulation_id)
                await end(session, simulation_id, 1, Ending(Reason.COMPLETED), PLANNER)
        ended += len(placed)
        await planner.plan()


async def seconds_of(sessions: Sessions, work: Callable[[], Awaitable[object]]) -> float:
    begun = await cpu_seconds_of_both(sessions)
    await work()
    return await cpu_seconds_of_both(sessions) - begun


async def cpu_seconds_of_both(sessions: Sessions) -> float:
    """Of this process, and of the server's process behind its only connection."""
    async with sessions() as session:
        backend = await session.scalar(text("SELECT pg_backend_pid()"))
    return time.process_time() + cpu_seconds(psutil.Process(backend))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[*LENGTHS], metavar="N")
    parser.add_argument("--skip-rates", action="store_true")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with fresh_database() as database_url:
        publish("queue", asyncio.run(main(given.lengths, rates=not given.skip_rates, url=database_url)))
