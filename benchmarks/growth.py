"""Growth of the cost of a batch with the number of stored batches: equal reports into a small and a big log.

Two databases of one server, with a graph process each; one is filled by SQL. Rounds alternate, so that noise meets
both. A cost is the CPU time of the graph process and of the database's processes that serve it.
"""

from __future__ import annotations

import statistics

import orjson

from benchmarks.attempt import Supervisor, open_attempts, points_of
from benchmarks.database import another_database
from benchmarks.processes import backends, cpu_seconds, server
from benchmarks.report import Row
from benchmarks.service import free_port
from db.connection import connect_raw

SUPERVISORS = 8
POINTS = 10
FEW = 1_000
BATCHES = 40  # of each supervisor in a round
FILL = """
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT s, 1, b, 'metric0', $3::bigint[], $4::float8[], $5::float8[]
    FROM generate_series(1, $2::bigint) AS b, unnest($1::bigint[]) AS s
"""  # in the order in which they would have come in
ADVANCE = "UPDATE members SET next_batch = $2 WHERE attempt_id = ANY($1)"


async def fill(url: str, supervisors: list[Supervisor], stored: int) -> None:
    """Store as many batches as if the supervisors had reported them."""
    each = stored // len(supervisors)
    column = points_of(1, POINTS)["metric0"]
    connection = await connect_raw(url, application="benchmark")
    try:
        simulations = [supervisor.simulation_number for supervisor in supervisors]
        await connection.execute(FILL, simulations, each, column["steps"], column["values"], column["elapsed"])
        await connection.execute(ADVANCE, [supervisor.attempt_number for supervisor in supervisors], each + 1)
        await connection.execute("VACUUM ANALYZE convergence")  # else its turn would come while we measure
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    for supervisor in supervisors:
        supervisor.batch = each


async def growth(url: str, many: int, rounds: int) -> list[Row]:
    """One row: the cost of a batch with `many` stored, against that with a thousand."""
    from benchmarks.ingest import report_all  # which imports this module

    big_url = await another_database(url)
    port, big_port = free_port(), free_port()
    variants = [orjson.dumps(points_of(1, POINTS))]
    costs: list[float] = []
    big_costs: list[float] = []
    with (
        server("graph", port, DATABASE_URL=url) as graph,
        server("graph", big_port, DATABASE_URL=big_url) as big_graph,
    ):
        async with (
            open_attempts(url, port, SUPERVISORS) as small,
            open_attempts(big_url, big_port, SUPERVISORS) as big,
        ):
            await fill(url, small, FEW)
            await fill(big_url, big, many)
            await report_all(small, BATCHES, variants)  # opens the connections, and warms up
            await report_all(big, BATCHES, variants)
            for _ in range(rounds):
                for where, process, supervisors, into in (
                    (url, graph, small, costs),
                    (big_url, big_graph, big, big_costs),
                ):
                    connection = await connect_raw(where, application="benchmark")
                    served = await backends(connection, ["simulations-graph"])
                    await connection.close()
                    begun = cpu_seconds(process, *served)
                    await report_all(supervisors, BATCHES, variants)
                    into.append((cpu_seconds(process, *served) - begun) / (BATCHES * SUPERVISORS) * 1e3)
    ratio = statistics.median(big_cost / cost for big_cost, cost in zip(big_costs, costs, strict=True))
    case = f"growth: a batch with {many:,} stored, against {FEW:,}"
    return [Row("ingest", case, statistics.median(big_costs), "CPU ms", statistics.median(costs), ratio)]
