"""Planner cost of a long queue: rounds of the leader over 1,000, 10,000 and 100,000 simulations without a machine.

First one plan of the policy alone (`policy.schedule`), for each of these lengths and 10, 100 and 1,000 machines, from
plain data: 450 classes that differ in cpus, memory, GPUs, labels, limits of price and time, of 5 projects; machines of
12 kinds. Once all machines are idle, once most are busy, with gangs and reservations. A plan sorts the queue and ends
after as many placements as the planner carries out at once; a whole plan places all that fit; "again" is a plan with a
queue that was sorted before. The goal is a second of CPU time.

Then the planner with its database. The queued ones stand first, in 50 classes of equal requirements, beside ten idle
machines that are too small for any of them. Measured is the CPU time of planner and PostgreSQL together: a first round
that reads everything; a tick in which nothing changed; and the rate at which short simulations behind them are placed
and end, two at a time, each round by one plan. The floor is the same with 1,000 queued, of the rate the same with an
empty queue.

Last, what clients ask beside a long queue: `createSimulation`, a page of the list and the overview, by CPU time of
graph and PostgreSQL, against the same with ten queued: at most 1.5 is promised. The place of the last one is shown
beside them: it is searched in the order of the queue.

`--skip-rates`, `--skip-plans`, `--skip-rounds` and `--lengths` leave parts out.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psutil
import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from benchmarks.database import fresh_database
from benchmarks.listing import LIST
from benchmarks.operations import Operations
from benchmarks.processes import cpu_seconds
from benchmarks.report import Row, publish
from db import lifecycle, machines
from db.connection import create_engine, driver_of, session_factory
from db.events import PLANNER
from db.models import Attempt
from db.states import Reason
from graph.schema import build_schema
from policy.learning import Counts, Learned
from policy.matching import Machine, Requirements
from policy.queue_order import Queue
from policy.schedule import plan
from policy.workload import Project, Run
from scheduler.planner import PLACEMENTS_AT_ONCE, Planner
from settings import Settings
from transitions.settle import Ending, end

Sessions = async_sessionmaker[AsyncSession]

LENGTHS = (1_000, 10_000, 100_000)
CLASSES = 50
MACHINES = 10
SHORT_ONES = 100
TEN = 10
TURNS, TIMES = 5, 10  # of each operation of a client
QUEUED = "{ simulations(first: 1, states: [QUEUED]) { nodes { id } } }"
ASKED = {
    "createSimulation": """
        mutation {
          createSimulation(input: {name: "new", entrypoint: ["true"], resources: {cpus: 1000}}) {
            simulation { id state }
            userErrors { message }
          }
        }
    """,
    "list": LIST,
    "overview": "{ overview { queued running cost { amount } } }",
    "place of the last": "query ($id: ID!) { simulation(id: $id) { queuePosition ahead { detail } estimatedStart } }",
}
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
        client = Operations(sessions, build_schema())
        await fill(sessions, TEN)
        few = await asked(client, planner)
        empty = await rate(planner, sessions) if rates else 0.0
        rows: list[Row] = []
        floors: tuple[float, float] | None = None
        queued = TEN
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
            for what, seconds in (await asked(client, planner)).items():
                floor = few[what]
                case = f"{what}, {length:,} queued"
                rows.append(Row("queue", case, seconds * 1000, "CPU ms", floor * 1000, seconds / floor))
        return rows
    finally:
        await engine.dispose()


# --- one plan of the policy alone ----------------------------------------------------------------------------------

ROOMS = (10, 100, 1_000)
DIFFERENT_REQUIREMENTS = 90
PROJECTS = 5
NOW = datetime(2030, 1, 1, tzinfo=UTC)
LEARNED = Learned({(): Counts((40, 20, 10, 5, *[1] * 21))})


def plans(lengths: Sequence[int]) -> Iterator[Row]:
    """One plan for each length of the queue and number of machines; the floor is the goal, a second."""
    projects = [Project(number, weight=1 + number % 3, used=100.0 * number, used_at=NOW) for number in range(PROJECTS)]
    for length in lengths:
        queue = queued_runs(length)
        for count in ROOMS:
            idle = machines_of(count)
            running, busy = all_but_a_few_busy(idle)
            for about, runs, offered in (("all idle", [], idle), ("most of them busy", running, busy)):
                kept = Queue(offered, runs=queue)
                for what, given, most in (
                    ("plan", queue, PLACEMENTS_AT_ONCE),
                    ("whole plan", queue, None),
                    ("again", kept, PLACEMENTS_AT_ONCE),
                ):
                    begun = time.process_time()
                    made = plan(
                        given, runs, offered, now=NOW, projects=projects, learned=LEARNED, currency="EUR", most=most
                    )
                    seconds = time.process_time() - begun
                    case = f"{what}, {length:,} queued x {count:,} machines, {about}"
                    print(
                        f"{case}: {seconds:.2f} CPU s, {len(made.placements):,} placed, "
                        f"{len(made.preemptions):,} preempted, {len(made.reservations)} reserved, "
                        f"{len(made.waiting):,} explained",
                        flush=True,
                    )
                    yield Row("queue", case, seconds, "CPU s", 1.0, seconds)


def queued_runs(count: int) -> Sequence[Run]:
    """Runs of about 450 classes: requirements, projects, limits."""
    chance = random.Random(1)
    asked = [
        Requirements(
            cpus=chance.choice([1.0, 2.0, 4.0, 16.0]), memory_gib=chance.choice([2.0, 8.0, 64.0]),
            gpus=chance.choice([0, 1, 1, 2, 4, 8]), gpu_model=None,
            labels=chance.choice([{}, {}, {"zone": "eu"}, {"disk": "ssd"}]), machine_id=None, machine_name=None,
            max_price_per_hour=chance.choice([None, None, Decimal(9)]),
        )
        for _ in range(DIFFERENT_REQUIREMENTS)
    ]  # fmt: skip
    runs = []
    for number in range(count):
        required = number % DIFFERENT_REQUIREMENTS
        runs.append(
            Run(
                id=number, project=number // DIFFERENT_REQUIREMENTS % PROJECTS, priority=0,
                submitted_at=NOW - timedelta(seconds=chance.randrange(80_000)), requirements=asked[required],
                machines=2 if required == 0 else 1, preemptible=required % 2 == 0,
                max_runtime_seconds=(None, 600.0, 36_000.0)[required % 3], group=required,
            )
        )  # fmt: skip
    return runs


def machines_of(count: int) -> Sequence[Machine]:
    """Machines of 12 kinds, all free."""
    return [
        Machine(
            id=number, name=f"machine-{number:05}", cpus=64.0, memory_gib=512.0, gpus=8 * (number % 3 > 0),
            gpu_model=None,
            labels=({}, {"zone": "eu"}, {"disk": "ssd"}, {"zone": "eu", "disk": "ssd"})[number % 4],
            price_per_hour=Decimal(number % 3 * 10 + 2), free_cpus=64.0, free_memory_gib=512.0,
            free_gpus=8 * (number % 3 > 0), online=True, draining=False, host=None, host_free_gpus=None,
        )
        for number in range(count)
    ]  # fmt: skip


def all_but_a_few_busy(machines: Sequence[Machine]) -> tuple[Sequence[Run], Sequence[Machine]]:
    """Eight runs on each machine but every twentieth, which take all of it; a quarter of them can be preempted."""
    running, left = [], []
    for machine in machines:
        if machine.id % 20 == 0:
            left.append(machine)
            continue
        required = Requirements(8.0, 64.0, machine.gpus // 8, None, {}, None, None, None)
        running += [
                Run(
                    id=10_000_000 + machine.id * 8 + number, project=number % PROJECTS, priority=0,
                    submitted_at=NOW - timedelta(hours=4), requirements=required, preemptible=number % 4 == 0,
                    max_runtime_seconds=None if number == 1 else 20_000.0 + 600 * number,
                    attained_seconds=7200, machine_ids=(machine.id,), started_at=NOW - timedelta(hours=2),
                )
            for number in range(8)
        ]  # fmt: skip
        left.append(replace(machine, free_cpus=0.0, free_memory_gib=0.0, free_gpus=0))
    return running, left


# --- rounds of the planner -----------------------------------------------------------------------------------------


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


async def asked(client: Operations, planner: Planner) -> dict[str, float]:
    """Median CPU seconds of each operation, in turns; each is planned by PostgreSQL at first."""
    await planner.plan()
    last = (await client.ask(QUEUED, {}))["simulations"]["nodes"][0]["id"]
    variables: dict[str, dict[str, object]] = {"place of the last": {"id": last}}
    found: dict[str, list[float]] = {each: [] for each in ASKED}
    for turn in range(TURNS + 1):
        for what, document in ASKED.items():
            seconds = await client.seconds(document, variables.get(what, {}), TIMES)
            if turn:
                found[what].append(seconds)
    return {what: statistics.median(each) for what, each in found.items()}


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
    parser.add_argument("--skip-plans", action="store_true", help="only what needs the database")
    parser.add_argument("--skip-rounds", action="store_true", help="only the plans of the policy alone")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    measured = [] if given.skip_plans else [*plans(given.lengths)]
    if not given.skip_rounds:
        with fresh_database() as database_url:
            measured += asyncio.run(main(given.lengths, rates=not given.skip_rates, url=database_url))
    publish("queue", measured)
