"""Ray engine: submit to first point, against the bare Ray Jobs API; and what many attempts at once lose or leave.

Both submit the same script to the same cluster, in turns. The bare clock ends when Ray's log API shows the first line;
the service's when a subscriber has the first point. Each job is gone before the next one begins.

Then attempts that all print a curve, as many at once as wanted: each curve is read back, and Ray is asked for the jobs
that are left. A job's processes take some 100 MB and three seconds of CPU: 100 at once want ten gigabytes.

Without --address, a cluster of a head and two workers is started on this host, from the environment of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from benchmarks.report import Row, publish
from benchmarks.service import running_service

CLUSTER = Path(__file__).parents[1] / "tests" / "support" / "ray_cluster.py"
PATIENCE_SECONDS = 900.0  # in which an attempt begins or ends, a job prints, nodes become machines
PAUSE_SECONDS = 0.02  # between two questions for the log
LEAVE_SECONDS = 60.0  # for Ray to forget the last job
AT_ONCE = 20  # mutations in a request
MACHINES = "{ machines(first: 10) { nodes { state resources { cpus } } } }"
CREATE = "createSimulation(input: $input%d) { simulation { id } userErrors { message } }"
FOLLOW = """
    subscription Follow($id: ID!) { convergence(simulationId: $id) { state reason series { metric steps } } }
    """
CURVE = """
    query Curve($id: ID!, $points: Int!) {
      simulation(id: $id) {
        state
        attempts { reason reasonDetail }
        convergence(metric: "loss", maxPoints: $points) { steps }
      }
    }
    """
OPEN = """
    {
      open: simulations(states: [QUEUED, STARTING, RUNNING], first: 1) { totalCount }
      running: simulations(states: [RUNNING], first: 1) { totalCount }
    }
    """
# Prints a curve; it stays for a while, so that Ray's log is that of a job that runs.
SCRIPT = """
import json, time
for step in range({points}):
    print(json.dumps(dict(step=step, loss=1 / (step + 1))), flush=True)
    time.sleep({pause})
"""


@dataclass(frozen=True, slots=True)
class Ray:
    """A cluster, by its REST API."""

    address: str
    token: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def first_line_seconds(self, script: str) -> float:
        """Submit a job; return the seconds until its log has a line."""
        name = f"bare-{secrets.token_hex(8)}"
        body = {
            "submission_id": name,
            "entrypoint": f"exec python3 -c {shlex.quote(script)}",
            "entrypoint_num_cpus": 0.1,
        }
        async with httpx.AsyncClient(base_url=self.address, headers=self.headers, timeout=30, trust_env=False) as ray:
            begun = time.perf_counter()
            (await ray.post("/api/jobs/", json=body)).raise_for_status()
            while True:
                answer = await ray.get(f"/api/jobs/{name}/logs")
                if answer.status_code == 200 and '"loss"' in answer.json()["logs"]:
                    taken = time.perf_counter() - begun
                    break
                if time.perf_counter() - begun > PATIENCE_SECONDS:
                    raise RuntimeError(f"the job {name} printed nothing: {answer.text[:1000]}")
                await asyncio.sleep(PAUSE_SECONDS)
            while (await ray.get(f"/api/jobs/{name}")).json()["status"] in ("PENDING", "RUNNING"):
                await asyncio.sleep(PAUSE_SECONDS)
        return taken

    async def jobs_left(self) -> int:
        """Return how many jobs of services are left, after some time to forget them."""
        async with httpx.AsyncClient(base_url=self.address, headers=self.headers, timeout=30, trust_env=False) as ray:
            deadline = time.perf_counter() + LEAVE_SECONDS
            while True:
                listed = (await ray.get("/api/jobs/")).raise_for_status().json()
                left = [each for each in listed if (each["submission_id"] or "").startswith("sim-")]
                if not left or time.perf_counter() > deadline:
                    return len(left)
                await asyncio.sleep(1)


class Service:
    """The service, as its users use it."""

    def __init__(self, address: str) -> None:
        transport = HTTPXAsyncTransport(f"{address}/graphql", timeout=PATIENCE_SECONDS)
        self._submitting = Client(transport=transport, execute_timeout=PATIENCE_SECONDS)  # while all jobs start
        self._following = f"{address.replace('http', 'ws')}/graphql"

    async def ask(self, query: str, **variables: Any) -> Any:
        async with self._submitting as session:
            return await session.execute(GraphQLRequest(query, variable_values=variables))

    @retry(retry=retry_if_exception_type(TransportQueryError), wait=wait_fixed(5), stop=stop_after_attempt(20))
    async def read(self, query: str, **variables: Any) -> Any:
        """Ask a query, again where the service gave it up: beside many jobs that start it may get no CPU for long."""
        return await self.ask(query, **variables)

    async def is_ready(self) -> float:
        """Wait until the nodes are machines; return how many CPUs they have."""
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while True:
            nodes = (await self.ask(MACHINES))["machines"]["nodes"]
            if nodes and all(each["state"] == "ONLINE" for each in nodes):
                return float(sum(each["resources"]["cpus"] for each in nodes))
            if time.perf_counter() > deadline:
                raise RuntimeError(f"the cluster's nodes are no machines: {nodes}")
            await asyncio.sleep(0.1)

    async def submit(self, count: int, script: str, cpus: float) -> list[str]:
        ids: list[str] = []
        given = {"entrypoint": ["python3", "-c", script], "resources": {"cpus": cpus}}
        while len(ids) < count:
            numbers = range(min(AT_ONCE, count - len(ids)))
            declared = ", ".join(f"$input{number}: CreateSimulationInput!" for number in numbers)
            fields = " ".join(f"c{number}: {CREATE % number}" for number in numbers)
            made = await self.ask(
                f"mutation Submit({declared}) {{ {fields} }}", **{f"input{number}": given for number in numbers}
            )
            if any(each["userErrors"] for each in made.values()):
                raise RuntimeError(str(made))
            ids += [made[f"c{number}"]["simulation"]["id"] for number in numbers]
        return ids

    async def first_point_seconds(self, script: str) -> float:
        """Submit a simulation; return the seconds until a subscriber has a point. Returns at its end."""
        begun = time.perf_counter()
        [simulation] = await self.submit(1, script, 0.1)
        taken = None
        async with Client(transport=WebsocketsTransport(self._following)) as session:
            request = GraphQLRequest(FOLLOW, variable_values={"id": simulation})
            async for event in session.subscribe(request):
                if taken is None and event["convergence"]["series"]:
                    taken = time.perf_counter() - begun
        if taken is None:
            raise RuntimeError(f"no point of {simulation} arrived")
        return taken

    async def lost_of(self, count: int, script: str, points: int, cpus: float) -> tuple[int, int, int]:
        """Run so many.

        Returns: how many of their points are not stored, how many ran at once at most, how many began anew.
        """
        ids = await self.submit(count, script, cpus)
        most = 0
        seen, moved_at = (count, 0), time.perf_counter()
        while (shown := await self.read(OPEN))["open"]["totalCount"]:
            now = shown["open"]["totalCount"], shown["running"]["totalCount"]
            most = max(most, now[1])
            if now != seen:
                seen, moved_at = now, time.perf_counter()
                print(f"{count - now[0]} of {count} ended, {now[1]} running", file=sys.stderr, flush=True)
            elif time.perf_counter() - moved_at > PATIENCE_SECONDS:
                raise RuntimeError(f"{now[0]} of {count} have not ended, {now[1]} are running; {most} ran at once")
            await asyncio.sleep(0.5)
        stored = again = 0
        for each in ids:
            shown = (await self.read(CURVE, id=each, points=points))["simulation"]
            if len(shown["attempts"]) > 1 or shown["state"] != "FINISHED":
                print(f"{each}: {shown['state']}, {shown['attempts']}", file=sys.stderr, flush=True)
            again += len(shown["attempts"]) > 1
            stored += len(shown["convergence"]["steps"])
        return points * count - stored, most, again


@contextmanager
def cluster(address: str | None, token_file: Path | None) -> Iterator[tuple[str, Path | None]]:
    """The address of a cluster and the file with its token; one is started if none is named."""
    if address is not None:
        yield address, token_file
        return
    with subprocess.Popen([sys.executable, str(CLUSTER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            started = json.loads(process.stdout.readline() or "null")
            if started is None:
                raise RuntimeError("no cluster was started")
            yield started["address"], Path(started["token_file"])
        finally:
            process.stdin.close()


async def measure(ray: Ray, address: str, arguments: argparse.Namespace) -> list[Row]:
    service = Service(address)
    cpus = await service.is_ready()
    rows = await compare(ray, service, arguments.rounds) if arguments.rounds else []
    if arguments.attempts:
        count, points = arguments.attempts, arguments.points
        case = f"{count} attempts, {arguments.concurrent} at once"
        begun = time.perf_counter()
        many = SCRIPT.format(points=points, pause=arguments.pause)
        lost, most, again = await service.lost_of(count, many, points, cpus / arguments.concurrent)
        print(f"{case}: {time.perf_counter() - begun:.0f} s, {most} at once at most")
        left = await ray.jobs_left()
        rows += [
            Row("ray", f"{case}: points lost", lost, "points", count * points, lost / (count * points)),
            Row("ray", f"{case}: begun anew", again, "attempts", count, again / count),
            Row("ray", f"{case}: jobs left", left, "jobs", count, left / count),
        ]
    return rows


async def compare(ray: Ray, service: Service, rounds: int) -> list[Row]:
    """Measure submit to first point, in turns."""
    one = SCRIPT.format(points=1, pause=1)
    await ray.first_line_seconds(one)  # what is started once
    await service.first_point_seconds(one)
    bare, ours = [], []
    for _ in range(rounds):
        bare.append(await ray.first_line_seconds(one))
        ours.append(await service.first_point_seconds(one))
    print("bare:", *(f"{each:.2f}" for each in bare), "s; ours:", *(f"{each:.2f}" for each in ours), "s")
    value, floor = statistics.median(ours), statistics.median(bare)
    return [Row("ray", "submit to first point, median", value, "s", floor, value / floor)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=7, help="of submit to first point; the median counts (default 7; 0: none)"
    )
    parser.add_argument("--attempts", type=int, default=200, help="that print a curve (default 200; 0: none)")
    parser.add_argument("--concurrent", type=int, default=100, help="of them at once (default 100)")
    parser.add_argument("--points", type=int, default=100, help="of each curve (default 100)")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two points (default 0.1)")
    parser.add_argument("--address", help="of the dashboard of a cluster that runs")
    parser.add_argument("--token-file", type=Path, help="with the token of that cluster")
    arguments = parser.parse_args()
    with (
        cluster(arguments.address, arguments.token_file) as (url, token_file),
        tempfile.NamedTemporaryFile("w", suffix=".toml") as clusters,
    ):
        table = {"address": url, **({"token_file": str(token_file)} if token_file else {})}
        clusters.write("\n".join(["[bench]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]))
        clusters.flush()
        ray = Ray(url, token_file.read_text().strip() if token_file else None)
        with running_service(SIMULATIONS_LOCAL_MACHINE="false", SIMULATIONS_RAY_CLUSTERS=clusters.name) as address:
            publish("ray", asyncio.run(measure(ray, address, arguments)))


if __name__ == "__main__":
    main()
