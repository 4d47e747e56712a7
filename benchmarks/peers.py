"""Comparison with an MLflow tracking server: logging points, and reading a curve.

Both keep their points in a database of the same PostgreSQL server, both are asked over HTTP by one client that waits
for each answer, and what is compared is points per second by the clock on the wall, in turns. MLflow runs as
`mlflow server` with its own defaults, is given its points by runs/log-batch (1,000 at a time, its limit) and
runs/log-metric (one by one), and read by metrics/get-history. The service is given them by reportAttempt and read by
Simulation.convergence.

`floor` is MLflow's number here, and the ratio how many times that the service does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import orjson
import uvloop

from benchmarks.attempt import Supervisor, open_attempt, points_of
from benchmarks.database import another_database, fresh_database
from benchmarks.processes import end, server, wait_for
from benchmarks.report import Row, publish
from benchmarks.service import free_port
from benchmarks.wire import Wire

METRIC = "metric0"
BATCH = 1_000
READ = 20_000
API = "/api/2.0/mlflow"
CURVE = """
query Curve($id: ID!, $metric: String!, $points: Int!) {
  simulation(id: $id) { convergence(metric: $metric, maxPoints: $points) { steps values elapsed } }
}
"""


Work = Callable[[], Awaitable[object]]


class Service:
    """This service, as its supervisors and readers use it."""

    def __init__(self, supervisor: Supervisor, port: int) -> None:
        self._supervisor = supervisor
        self._wire = Wire(port)

    async def log(self, first: int, points: int) -> None:
        await self._supervisor.send(orjson.dumps(points_of(1, points, first)))

    async def read(self) -> int:
        variables = {"id": self._supervisor.simulation_id, "metric": METRIC, "points": READ}
        answer = orjson.loads(await self._wire.post("/graphql", orjson.dumps({"query": CURVE, "variables": variables})))
        if answer.get("errors"):
            raise RuntimeError(str(answer["errors"]))
        return len(answer["data"]["simulation"]["convergence"]["values"])

    async def close(self) -> None:
        await self._wire.close()


class Mlflow:
    """A tracking server, by its REST API."""

    def __init__(self, port: int) -> None:
        self._wire = Wire(port)
        self._run = ""

    async def begin(self) -> None:
        """Create the run that everything is logged to."""
        experiment = await self._post("/experiments/create", {"name": "benchmark"})
        run = await self._post("/runs/create", {"experiment_id": experiment["experiment_id"]})
        self._run = run["run"]["info"]["run_id"]

    async def log(self, first: int, points: int) -> None:
        column = points_of(1, points, first)[METRIC]
        now = round(time.time() * 1000)
        rows = [
            {"key": METRIC, "value": value, "timestamp": now, "step": step}
            for step, value in zip(column["steps"], column["values"], strict=True)
        ]
        if points == 1:
            await self._post("/runs/log-metric", {"run_id": self._run, **rows[0]})
        else:
            await self._post("/runs/log-batch", {"run_id": self._run, "metrics": rows})

    async def read(self) -> int:
        found, token = 0, ""
        while True:
            page = orjson.loads(
                await self._wire.get(
                    f"{API}/metrics/get-history?run_id={self._run}&metric_key={METRIC}"
                    f"&max_results=25000&page_token={quote(token)}"
                )
            )
            found += len(page.get("metrics", ()))
            token = page.get("next_page_token", "")
            if not token:
                return found

    async def close(self) -> None:
        await self._wire.close()

    async def _post(self, path: str, body: dict[str, object]) -> dict[str, dict[str, dict[str, str]]]:
        answer: dict[str, dict[str, dict[str, str]]] = orjson.loads(
            await self._wire.post(f"{API}{path}", orjson.dumps(body))
        )
        return answer


@contextmanager
def tracking_server(program: str, url: str, port: int) -> Iterator[None]:
    """Run `mlflow server` on a database of the server at `url`, while the block runs."""
    store = url.replace("postgresql://", "postgresql+psycopg2://", 1)
    directory = Path(tempfile.mkdtemp(prefix="simulations-bench-", dir="/tmp"))
    log = (directory / "mlflow.log").open("wb")
    process = subprocess.Popen(
        [
            program, "server", "--backend-store-uri", store, "--artifacts-destination", str(directory / "artifacts"),
            "--host", "127.0.0.1", "--port", str(port),
        ],
        env={**os.environ, "PATH": f"{Path(program).parent}:{os.environ.get('PATH', '')}"},
        cwd=directory, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield
    except RuntimeError:
        print((directory / "mlflow.log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        end(process)
        shutil.rmtree(directory, ignore_errors=True)


async def compare(case: str, points: int, work: Sequence[tuple[Work, Work]]) -> Row:
    """Points per second of the median piece of work. work: pairs, ours and theirs, done in turns."""
    ours, theirs = [], []
    for our, their in work:
        ours.append(await _seconds(our))
        theirs.append(await _seconds(their))
    value, floor = points / statistics.median(ours), points / statistics.median(theirs)
    return Row("peers", case, value, "points/s", floor, value / floor)


async def measure(url: str, program: str, singles: int, reads: int) -> list[Row]:
    port, peer_port = free_port(), free_port()
    peer_url = await another_database(url, "mlflow", migrated=False)
    with server("graph", port, DATABASE_URL=url), tracking_server(program, peer_url, peer_port):
        async with open_attempt(url, port) as supervisor:
            ours, theirs = Service(supervisor, port), Mlflow(peer_port)
            await theirs.begin()

            def log(first: int, points: int) -> tuple[Work, Work]:
                return partial(ours.log, first, points), partial(theirs.log, first, points)

            batches = [log(first, BATCH) for first in range(0, READ, BATCH)]
            alone = [log(READ + number, 1) for number in range(singles)]
            rows = [await compare(f"log batches of {BATCH:,}", BATCH, batches)]
            found = (await ours.read(), await theirs.read())  # opens what a first reading opens
            if found != (READ, READ):
                raise RuntimeError(f"of {READ} points, so many came back: {found}")
            rows.append(await compare(f"read {READ:,} points", READ, [(ours.read, theirs.read)] * reads))
            rows.append(await compare("log one by one", 1, alone))
            await ours.close()
            await theirs.close()
    return rows


async def _seconds(work: Work) -> float:
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlflow", default="mlflow", help="the program (default: the one on the PATH)")
    parser.add_argument("--singles", type=int, default=100, help="points logged one by one (default 100)")
    parser.add_argument("--reads", type=int, default=5, help="of the whole curve, the median counts (default 5)")
    arguments = parser.parse_args()
    program = shutil.which(arguments.mlflow)
    if program is None:
        sys.exit("There is no mlflow here: `make bench-peers` installs it into an environment of its own.")
    with fresh_database() as url:
        publish("peers", uvloop.run(measure(url, program, arguments.singles, arguments.reads)))


if __name__ == "__main__":
    main()
