"""Simulations on a real Ray cluster: a head and two workers on this host, and a service that schedules onto them."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from live import Service, eventually, http, is_alive, kill
from ray_cluster import Cluster

from db.connection import create_engine, session_factory
from db.installation import identify

pytestmark = pytest.mark.timeout(900)  # the first test that asks also starts the cluster
PATIENCE_SECONDS = 120  # a job of Ray starts a Python worker first
SETTINGS = {
    "SIMULATIONS_LOCAL_MACHINE": "false",
    "SIMULATIONS_LEASE_SECONDS": "10",  # Ray itself may take a core for seconds
    "SIMULATIONS_HEARTBEAT_SECONDS": "0.5",
    "SIMULATIONS_RETRY_BACKOFF_SECONDS": "0.1",
}
# Prints a point again and again until the file is there; then one more, and ends. The pids are of it and a descendant
# in a session of its own.
WORKS = """
import json, os, pathlib, subprocess, sys, time
print("pids", os.getpid(), subprocess.Popen(["sleep", "1000"], start_new_session=True).pid, flush=True)
step = 0
while not pathlib.Path(sys.argv[1]).exists():
    print(json.dumps({"step": step, "loss": 1 / (step + 1)}), flush=True)
    step += 1
    time.sleep(0.02)
print(json.dumps({"step": step, "loss": 0}), flush=True)
"""
MACHINES = "{ machines(first: 10) { nodes { id name engine state labels pricePerHour resources { cpus memoryGib } } } }"
CURRENT = "query ($id: ID!) { simulation(id: $id) { state machine { name } attempts { id number reason startedAt } } }"
HELLO = "mutation ($input: HelloAttemptInput!) { helloAttempt(input: $input) { verdict order { entrypoint } } }"


@dataclass
class Site:
    """A service, the cluster that it schedules onto, and a directory of signs for the programs."""

    service: Service
    cluster: Cluster
    directory: Path
    prefix: str  # of the names of the service's jobs

    async def submit(self, **given: Any) -> tuple[str, Path]:
        """Queue a simulation that ends once the file is there."""
        sign = self.directory / secrets.token_hex(8)
        return await self.service.submit("python3", "-c", WORKS, str(sign), **given), sign

    async def runs(self, simulation: str, attempt: int = 1) -> str:
        """Wait for points of an attempt; the name of its machine."""

        async def has_points() -> bool:
            return any(number == attempt for number, _, _ in await self.service.log_of(simulation, "loss"))

        await eventually(has_points, f"attempt {attempt} reports", PATIENCE_SECONDS)
        return str((await self.current(simulation))["machine"]["name"])

    async def current(self, simulation: str) -> Any:
        return (await self.service.execute(CURRENT, id=simulation))["simulation"]

    async def processes(self, simulation: str) -> list[psutil.Process]:
        """Those of its newest attempt."""
        shown = await self.service.show(simulation)
        lines = [node["text"] for node in shown["logs"]["nodes"]]
        told = [line for text in lines for line in text.splitlines() if line.startswith("pids ")]
        return [psutil.Process(int(pid)) for pid in told[-1].split()[1:]]

    def jobs(self) -> list[Any]:
        """Those of the service."""
        return [
            each for each in self.cluster.get("/api/jobs/") if (each["submission_id"] or "").startswith(self.prefix)
        ]

    async def running(self) -> list[Any]:
        return [each for each in await asyncio.to_thread(self.jobs) if each["status"] == "RUNNING"]

    async def has_failed(self) -> bool:
        return {each["status"] for each in await asyncio.to_thread(self.jobs)} == {"FAILED"}

    async def has_no_job(self) -> bool:
        return not await asyncio.to_thread(self.jobs)

    async def machines(self) -> dict[str, Any]:
        nodes = (await self.service.execute(MACHINES))["machines"]["nodes"]
        return {node["name"]: node for node in nodes}

    async def has_both(self) -> bool:
        machines = await self.machines()
        return {name for name, each in machines.items() if each["state"] == "ONLINE"} == {"test-one", "test-two"}


@pytest.fixture
async def site(lend: Any, ray_cluster: Cluster, tmp_path: Path) -> AsyncIterator[Site]:
    clusters = ray_cluster.directory / "clusters.toml"
    clusters.write_text(
        f'[test]\naddress = "{ray_cluster.url}"\ntoken_file = "{ray_cluster.token_file}"\n'
        f'directory = "{ray_cluster.directory}"\nprices = {{ big = "7.25" }}\n'
    )
    async with lend(**SETTINGS, SIMULATIONS_RAY_CLUSTERS=str(clusters)) as service:
        site = Site(service, ray_cluster, tmp_path, f"sim-{await _installation(service)}-")
        await eventually(site.has_both, "both nodes are machines", PATIENCE_SECONDS)
        yield site
        await eventually(site.has_no_job, "no job is left after any test", PATIENCE_SECONDS)


async def _installation(service: Service) -> str:
    engine = create_engine(service.database_url, pool_size=1)
    try:
        async with session_factory(engine)() as session:
            return await identify(session)
    finally:
        await engine.dispose()


async def test_a_simulation_runs_on_the_node_that_it_wants(site: Site) -> None:
    machines = await site.machines()
    assert {each["engine"] for each in machines.values()} == {"ray:test"}
    assert [float(machines[name]["pricePerHour"]) for name in ("test-one", "test-two")] == [1.5, 7.25]
    assert [machines[name]["resources"]["cpus"] for name in ("test-one", "test-two")] == [1, 2]
    for wanted, name in (
        ({"labels": {"zone": "b"}}, "test-two"),
        ({"machine": machines["test-one"]["id"]}, "test-one"),
    ):
        simulation, sign = await site.submit(resources={"cpus": 0.5, "memoryGib": 0.25, **wanted})
        assert await site.runs(simulation) == name
        [job] = await site.running()
        assert job["metadata"]["node"] == site.cluster.living()[name.removeprefix("test-")]
        sign.touch()
        shown = await site.service.finished(simulation)
        assert (shown["state"], shown["reason"]) == ("FINISHED", "COMPLETED"), shown
        points = await site.service.log_of(simulation, "loss")
        assert [step for _, step, _ in points] == list(range(len(points)))
        assert points[-1][2] == 0


async def test_the_token_that_the_cluster_shows_opens_nothing_after_hello(site: Site) -> None:
    simulation, sign = await site.submit(environment={"KEY": "a-secret-of-the-user"})
    await site.runs(simulation)
    [job] = await site.running()
    assert "a-secret-of-the-user" not in json.dumps(job)
    shown = json.loads(job["runtime_env"]["env_vars"]["SIMULATIONS_LAUNCH"])
    given = {"attemptId": shown["attempt_id"], "nonce": "of-a-thief"}
    answer = await _as(site.service, shown["token"], HELLO, given)
    assert answer["helloAttempt"] == {"verdict": "OVER", "order": None}
    report = "mutation ($input: ReportAttemptInput!) { reportAttempt(input: $input) { verdict } }"
    answer = await _as(site.service, shown["token"], report, {**given, "batch": 1, "exit": {"exitCode": 0}})
    assert answer["reportAttempt"] == {"verdict": "OVER"}
    assert (await site.current(simulation))["state"] == "RUNNING"
    sign.touch()
    assert (await site.service.finished(simulation))["reason"] == "COMPLETED"


async def test_a_cancelled_job_ends_with_all_its_processes(site: Site) -> None:
    simulation, _ = await site.submit()
    await site.runs(simulation)
    processes = await site.processes(simulation)
    assert len(processes) == 2
    await site.service.cancel(simulation)
    assert (await site.service.finished(simulation))["state"] == "CANCELLED"
    await eventually(lambda: not any(map(is_alive, processes)), "they are gone")


async def test_neither_the_api_nor_the_scheduler_need_to_live(site: Site) -> None:
    simulation, sign = await site.submit()
    await site.runs(simulation)
    kill(site.service.child("graph"), site.service.child("scheduler"))
    await site.service.whole()
    before = len(await site.service.log_of(simulation, "loss"))

    async def goes_on() -> bool:
        return len(await site.service.log_of(simulation, "loss")) > before

    await eventually(goes_on, "points arrive again")
    sign.touch()
    shown = await site.service.finished(simulation)
    assert (shown["reason"], len(shown["attempts"])) == ("COMPLETED", 1), shown
    points = await site.service.log_of(simulation, "loss")
    assert [step for _, step, _ in points] == list(range(len(points)))


async def test_what_ran_on_a_node_that_crashed_runs_again_on_the_other(site: Site) -> None:
    simulation, sign = await site.submit(limits={"maxRetries": 1})
    first = await site.runs(simulation)
    name, machine = first.removeprefix("test-"), (await site.machines())[first]["id"]
    site.cluster.crash(name)
    try:
        second = await site.runs(simulation, 2)
        assert {first, second} == {"test-one", "test-two"}
        assert (await site.machines())[first]["state"] == "OFFLINE"
    finally:
        site.cluster.add(name)
    sign.touch()
    shown = await site.service.finished(simulation)
    assert shown["reason"] == "COMPLETED", shown
    assert [each["reason"] for each in shown["attempts"]] == ["MACHINE_LOST", "COMPLETED"]
    await eventually(site.has_both, "the node is back", PATIENCE_SECONDS)
    assert (await site.machines())[first]["id"] == machine


async def test_a_simulation_outlives_the_daemon_of_its_node(site: Site) -> None:
    """Ray says FAILED, which proves nothing: the supervisor goes on and reports."""
    simulation, sign = await site.submit(resources={"cpus": 0.5, "labels": {"zone": "a"}})
    assert await site.runs(simulation) == "test-one"
    site.cluster.lose_daemon("one")
    try:

        async def is_offline() -> bool:
            return bool((await site.machines())["test-one"]["state"] == "OFFLINE")

        await eventually(is_offline, "its node is gone", PATIENCE_SECONDS)
        await eventually(site.has_failed, "Ray has given the job up", PATIENCE_SECONDS)
        before = len(await site.service.log_of(simulation, "loss"))

        async def goes_on() -> bool:
            return len(await site.service.log_of(simulation, "loss")) > before

        await eventually(goes_on, "it still reports")
        sign.touch()
        shown = await site.service.finished(simulation)
        assert (shown["reason"], len(shown["attempts"])) == ("COMPLETED", 1), shown
    finally:
        site.cluster.add("one")


async def test_the_members_of_a_gang_meet_across_nodes(site: Site) -> None:
    simulation, sign = await site.submit(machines=2, resources={"cpus": 0.5})
    await site.runs(simulation)
    jobs = await site.running()
    assert {each["metadata"]["node"] for each in jobs} == {site.cluster.living()[name] for name in ("one", "two")}
    sign.touch()
    assert (await site.service.finished(simulation))["reason"] == "COMPLETED"


async def _as(service: Service, token: str, query: str, given: dict[str, object]) -> Any:
    """Execute with a bearer."""
    async with http() as client:
        answer = await client.post(
            f"{service.address}/graphql",
            json={"query": query, "variables": {"input": given}},
            headers={"Authorization": f"Bearer {token}"},
        )
    body = answer.json()
    assert "errors" not in body, body
    return body["data"]
