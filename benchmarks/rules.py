"""Cost of a batch with stop rules on, against the same batch without: the judge reads, and ingest does not wait for it.

Two databases of one server, with a graph process each. In one of them all simulations have a rule that never decides,
and a judge runs, woken by notifications as in a scheduler. Rounds alternate, so that noise meets both. A cost is the
CPU time of the graph process and of the database's processes that serve it; the wall's time is of the same rounds, with
the judge's work in it.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import uvloop

from benchmarks.attempt import open_attempts, points_of
from benchmarks.database import another_database
from benchmarks.processes import backends, cpu_seconds, server
from benchmarks.report import Row
from benchmarks.service import free_port
from db.connection import connect_raw, create_engine, session_factory
from db.notifications import Channel, listening
from db.outage import Outage
from policy.rule_documents import Declared, encode
from policy.stopping import StopRules
from scheduler.judge import Judge
from scheduler.run_loop import keep

SUPERVISORS = 8
POINTS = 10
BATCHES = 25  # of each supervisor in a round
PAIRS = 4  # of rounds, for one of those that are asked for
RULES = StopRules("metric0", patience=2**31)
ADD = "UPDATE simulations SET stopping = $1::jsonb, objective_metric = 'metric0', objective_mode = 'MIN'"


@contextmanager
def judging(url: str) -> Iterator[None]:
    """Run the judge of a scheduler in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=_judge, args=(url,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _judge(url: str) -> None:
    uvloop.run(_judge_for_ever(url))


async def _judge_for_ever(url: str) -> None:
    outage = Outage()
    judge = Judge(session_factory(create_engine(url, application="judge", pool_size=2, outage=outage)))
    wake = asyncio.Event()

    def heard(channel: Channel, ids: frozenset[int] | None) -> None:
        if judge.hear(channel, ids):
            wake.set()

    async def work(by_timer: bool) -> None:
        if (await judge.run_once(everything=by_timer)).unfinished:
            wake.set()

    async with listening(url, (Channel.SIMULATIONS, Channel.CONVERGENCE), heard, outage):
        await keep("judge", work, wake, 1.0, outage)


async def rules(url: str, rounds: int) -> list[Row]:
    """Two rows: the CPU time of a batch without rules against that with rules, and the same of the wall's time."""
    from benchmarks.ingest import report_all  # which imports this module

    ruled_url = await another_database(url, "ruled")
    port, ruled_port = free_port(), free_port()
    variants = [orjson.dumps(points_of(1, POINTS))]
    costs: dict[str, list[float]] = {url: [], ruled_url: []}
    walls: dict[str, list[float]] = {url: [], ruled_url: []}
    with (
        server("graph", port, DATABASE_URL=url) as graph,
        server("graph", ruled_port, DATABASE_URL=ruled_url) as ruled_graph,
        judging(ruled_url),
    ):
        async with (
            open_attempts(url, port, SUPERVISORS) as plain,
            open_attempts(ruled_url, ruled_port, SUPERVISORS) as ruled,
        ):
            connection = await connect_raw(ruled_url, application="benchmark")
            await connection.execute(ADD, json.dumps(encode([Declared(RULES)])))
            sides = (url, graph, plain), (ruled_url, ruled_graph, ruled)
            await asyncio.gather(*(report_all(supervisors, BATCHES, variants) for _, _, supervisors in sides))
            for number in range(rounds * PAIRS):
                for where, process, supervisors in sides if number % 2 else sides[::-1]:
                    served = await backends(connection, ["simulations-graph"])
                    begun, wall = cpu_seconds(process, *served), time.perf_counter()
                    await report_all(supervisors, BATCHES, variants)
                    walls[where].append(time.perf_counter() - wall)
                    costs[where].append((cpu_seconds(process, *served) - begun) / (BATCHES * SUPERVISORS) * 1e3)
            await connection.close()
    case = f"with stop rules on, against without: {SUPERVISORS} supervisors, {POINTS} points a batch"
    sent = BATCHES * SUPERVISORS * POINTS
    cpu, wall = _ratio(costs[url], costs[ruled_url]), _ratio(walls[url], walls[ruled_url])
    return [
        Row("ingest", case, statistics.median(costs[ruled_url]), "CPU ms", statistics.median(costs[url]), cpu),
        Row(
            "ingest", f"{case}, through", sent / statistics.median(walls[ruled_url]), "points/s",
            sent / statistics.median(walls[url]), wall,
        ),
    ]  # fmt: skip


def _ratio(plain: list[float], ruled: list[float]) -> float:
    """The rate with rules as a part of that without: the median of the pairs of rounds."""
    return statistics.median(without / with_ for without, with_ in zip(plain, ruled, strict=True))
