"""Lists of 100,000 simulations, sorted and filtered, against the plain list, newest first: CPU time of one page of 50.

Most simulations have ended, with three metrics and four parameters each, the newest of them among these; a thousand
run, and a thousand wait. PostgreSQL and resolvers count together: the CPU time of this process and of its only
connection's. Both lists are asked for in turns, with the fields of `simulations list`, and the median counts. At most
1.5 is promised. Names of metrics and parameters, which forms offer, are compared with the plain list, too. The rows
take half a minute, the lists another one; each case is printed when it is measured, and `--seconds` ends with the
cases that were.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping

from benchmarks.database import fresh_database
from benchmarks.operations import Operations
from benchmarks.report import Row, publish
from db.connection import connect_raw, create_engine, session_factory
from graph.schema import build_schema

SIMULATIONS = 100_000
FILL = """
    SET session_replication_role = replica;
    SET synchronous_commit = off;
    SET maintenance_work_mem = '256MB';
    DROP INDEX ix_simulations_text;
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, attempt, tags, parameters, created_at,
                             started_at, finished_at, final_cost)
    SELECT 1, CASE WHEN n % 1000 = 7 THEN 'vit-' ELSE 'resnet-' END || n, ARRAY['python', 'train.py', '--run', n::text],
           CASE WHEN n % 100 = 7 THEN 'ada' ELSE 'bob' END,
           CASE WHEN n <= 1000 THEN 'QUEUED' WHEN n <= 2000 THEN 'RUNNING' ELSE 'FINISHED' END,
           CASE WHEN n <= 1000 THEN 0 ELSE 1 END,
           CASE WHEN n % 1000 = 7 THEN ARRAY['all', 'lr-sweep'] ELSE ARRAY['all'] END,
           jsonb_build_object('lr', random() / 10, 'seed', n % 5, 'layers', n % 12, 'optimizer', 'adam'),
           now() - ($1 - n) * interval '1 min', now() - ($1 - n) * interval '1 min',
           CASE WHEN n > 2000 THEN now() - ($1 - n) * interval '50 s' END,
           CASE WHEN n > 2000 THEN (random() * 10)::numeric(18, 6) END
    FROM generate_series(1, $1) AS n;
    INSERT INTO parameter_values SELECT s.id, f.* FROM simulations AS s, flat_parameters(s.parameters) AS f;
    INSERT INTO attempts (simulation_id, number, assigned_at, started_at, ended_at)
    SELECT id, 1, started_at, started_at, finished_at FROM simulations WHERE attempt = 1;
    INSERT INTO members (attempt_id, machine_name, price_per_hour, share, currency, cpus, memory_gib, gpus, assigned_at,
                         ended_at)
    SELECT id, 'm', 2, 0.5, 'EUR', 1, 0, 0, assigned_at, ended_at FROM attempts;
    INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value, min_step, min_value,
                         max_step, max_value)
    SELECT id, 1, metric, 100, 1, 100, v, 90, v * 0.9, 1, v * 2
    FROM simulations, unnest('{train/loss,val/loss,val/acc}'::text[]) AS metric, LATERAL (SELECT random() + id * 0 AS v)
    WHERE attempt = 1;
    INSERT INTO results SELECT m.simulation_id, m.metric, m.last_value, m.min_value, m.max_value
    FROM metrics AS m JOIN simulations AS s ON s.id = m.simulation_id WHERE s.state = 'FINISHED';
    SET session_replication_role = origin;
    CREATE INDEX ix_simulations_text ON simulations USING gin (trigrams(simulation_text(name, entrypoint, notes)));
    VACUUM ANALYZE
"""
LIST = """
query ($filter: SimulationFilter, $orderBy: SimulationOrder, $after: String) {
  simulations(first: 50, filter: $filter, orderBy: $orderBy, after: $after) {
    nodes {
      id number name state reason reasonDetail attended createdAt startedAt finishedAt
      objective { metric mode value bestValue bestStep } waiting { reason detail } stopWanted { reason by }
      project { id name } machine { id name }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""
NAMES = "query ($contains: String!) { names(contains: $contains) { metrics { name direction } parameters } }"
BEST = {"field": "BEST", "name": "val/loss"}
SWEEP = {"tags": ["lr-sweep"]}


def where(name: str, comparison: str, value: object) -> dict[str, object]:
    return {"parameters": [{"name": name, "comparison": comparison, "value": value}]}


CASES: Mapping[str, Mapping[str, object]] = {
    "by the best of a metric": {"orderBy": BEST},
    "by the last of a metric": {"orderBy": {"field": "LAST", "name": "val/acc"}},
    "by a parameter": {"orderBy": {"field": "PARAMETER", "name": "lr"}},
    "by cost": {"orderBy": {"field": "COST"}},
    "by start": {"orderBy": {"field": "STARTED_AT"}},
    "by end": {"orderBy": {"field": "FINISHED_AT"}},
    "where lr<1e-3 (1 %)": {"filter": where("lr", "LT", 1e-3)},
    "where lr>1e-3 (99 %)": {"filter": where("lr", "GT", 1e-3)},
    "of a tag (0.1 %)": {"filter": SWEEP},
    "of a tag (all)": {"filter": {"tags": ["all"]}},
    "of a user (1 %)": {"filter": {"createdBy": "ada"}},
    "named vit* (0.1 %)": {"filter": {"name": "vit*"}},
    "with a text (0.1 %)": {"filter": {"text": "VIT-"}},
    "with a text (none)": {"filter": {"text": "no such text"}},
    "by the best of a tag": {"orderBy": BEST, "filter": SWEEP},
    "by the best where lr<1e-3": {"orderBy": BEST, "filter": where("lr", "LT", 1e-3)},
    "names of metrics and parameters": {"contains": ""},
}


async def fill(url: str, count: int) -> None:
    connection = await connect_raw(url, application="benchmark")
    try:
        for statement in FILL.split(";"):
            await connection.execute(statement.replace("$1", str(count)))
    finally:
        await connection.close()


async def measure(url: str, count: int, turns: int, times: int, seconds: float, only: str) -> list[Row]:
    begun = time.monotonic()
    await fill(url, count)
    print(f"{count:,} simulations are there after {time.monotonic() - begun:.0f} s.", flush=True)
    engine = create_engine(url, pool_size=1, application="benchmark")
    bench = Operations(session_factory(engine), build_schema())
    rows = []
    try:
        plain: Mapping[str, object] = {}
        cases = dict(CASES)
        end = (await bench.ask(LIST, cases["by the best of a metric"]))["simulations"]["pageInfo"]["endCursor"]
        cases["by the best of a metric, behind a cursor"] = {"orderBy": BEST, "after": end}
        await bench.seconds(LIST, plain, 8)  # each statement is planned anew at first
        for case, variables in cases.items():
            if only not in case:
                continue
            if time.monotonic() - begun > seconds:
                print(f"Not measured within {seconds:.0f} s: {case} and what follows.", flush=True)
                break
            document = NAMES if "contains" in variables else LIST
            await bench.seconds(document, variables, 6)
            pairs = [
                (await bench.seconds(LIST, plain, times), await bench.seconds(document, variables, times))
                for _ in range(turns)
            ]
            floor, value = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append(Row("listing", f"{count:,} {case}", value * 1000, "CPU ms", floor * 1000, value / floor))
            print(f"{case}: {value * 1000:.1f} ms, {value / floor:.2f} of the plain list", flush=True)
    finally:
        await engine.dispose()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listing", description=__doc__)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--turns", type=int, default=3, help="of each list, the median counts (default 3)")
    parser.add_argument("--times", type=int, default=10, help="pages a turn (default 10)")
    parser.add_argument("--seconds", type=float, default=300, help="begin no other case after these (default 300)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains this")
    given = parser.parse_args()
    with fresh_database() as url:
        publish(
            "listing", asyncio.run(measure(url, given.simulations, given.turns, given.times, given.seconds, given.only))
        )


if __name__ == "__main__":
    main()
