"""Overhead of limits, costs, error masks and permissions for a small query: CPU time against a bare schema.

The floor keeps parsed and validated documents too, and has the same types and the same executor: so only the
judgement of an operation is compared, not whether its text was seen before. Both run in this process, in turns, so
that other load on the machine affects both; the median of the turns counts. At most 1.3 is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import strawberry
from strawberry.extensions import ParserCache, ValidationCache
from strawberry.schema.config import StrawberryConfig

from benchmarks.database import fresh_database
from benchmarks.report import Row, publish
from db.connection import Sessions, create_engine, session_factory
from db.events import Actor
from graph.context import Context
from graph.live.process import Live
from graph.live.shared_execution import ExecutionContext
from graph.schema import Mutation, Query, Subscription, build_schema
from graph.types.scalars import DECIMAL, POINT_COLUMNS, STEP, PointColumns, Step
from settings import Settings


@dataclass(frozen=True, slots=True)
class Operation:
    """A GraphQL operation, repeated with the same text."""

    text: str
    variables: Mapping[str, object]


CASES = {
    "who am I": Operation("{ viewer { name role } }", {}),
    "a page of projects": Operation("{ projects { nodes { id name } pageInfo { hasNextPage } } }", {}),
    "the same, with variables and a fragment": Operation(
        "query ($n: Int!, $more: Boolean! = true) { projects(first: $n) { ...page @include(if: $more) } } "
        "fragment page on ProjectConnection { nodes { id name } pageInfo { hasNextPage } }",
        {"n": 20},
    ),
}


def unguarded_schema() -> strawberry.Schema:
    """The same types and executor with Strawberry's own caches, and nothing that judges."""
    return strawberry.Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        extensions=[ParserCache, ValidationCache],
        execution_context_class=ExecutionContext,
        config=StrawberryConfig(scalar_map={Step: STEP, PointColumns: POINT_COLUMNS, Decimal: DECIMAL}),
    )


async def cpu_seconds(schema: strawberry.Schema, operation: Operation, sessions: Sessions, times: int) -> float:
    """Return the mean CPU seconds of an execution."""
    settings = Settings(database_url="postgresql://")
    live = Live.on(sessions, timedelta(seconds=settings.lease_seconds))
    gc.collect()
    begun = time.process_time()
    for _ in range(times):
        context = Context(sessions, settings, live, Actor("benchmark"))
        result = await schema.execute(operation.text, dict(operation.variables), context_value=context)
        if result.errors:
            raise RuntimeError(str(result.errors))
    return (time.process_time() - begun) / times


async def measure(url: str, turns: int, times: int) -> list[Row]:
    engine = create_engine(url, pool_size=1, application="benchmark")
    sessions = session_factory(engine)
    bare, ours = unguarded_schema(), build_schema()
    rows = []
    try:
        for case, operation in CASES.items():
            floors, values = [], []
            for _ in range(turns):
                floors.append(await cpu_seconds(bare, operation, sessions, times))
                values.append(await cpu_seconds(ours, operation, sessions, times))
            value, floor = statistics.median(values), statistics.median(floors)
            rows.append(Row("overhead", case, value * 1e6, "µs CPU", floor * 1e6, value / floor))
    finally:
        await engine.dispose()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15, help="of each schema, the median counts (default 15)")
    parser.add_argument("--times", type=int, default=200, help="executions a turn (default 200)")
    arguments = parser.parse_args()
    with fresh_database() as url:
        rows = asyncio.run(measure(url, arguments.turns, arguments.times))
    publish("overhead", rows)


if __name__ == "__main__":
    main()
