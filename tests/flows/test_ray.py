"""Simulations on a real Ray cluster: a head and two workers on this host, and a service that schedules onto them."""

from __future__ import annotations

import asyncio
import json
import secrets
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from engines import PATIENCE_SECONDS, OnRay
from gate import Gate
from lending import Lender
from live import Service, eventually, http, is_alive, kill, number_of
from observers import Watch, Witness
from ray_cluster import Cluster

pytestmark = pytest.mark.timeout(900)  # the first test that asks also starts the cluster
# Prints a point again and again until the file is there; then one more, and ends. Its checkpoint, written once, holds
# the step to go on with. The pids are of it and a descendant in a session of its own.
WORKS = """
import json, os, pathlib, subprocess, sys, time
print("pids", os.getpid(), subprocess.Popen(["sleep", "1000"], start_new_session=True).pid, flush=True)
kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "deep", "step")
step = int(kept.read_text()) if kept.exists() else 0
while not pathlib.Path(sys.argv[1]).exists():
    print(json.dumps({"step": step, "loss": 1 / (step + 1)}), flush=True)
    step += 1
    if step == 7:
        kept.parent.mkdir(exist_ok=True)
        kept.with_name("new").write_text(str(step))
        kept.with_name("new").replace(kept)
    time.sleep(0.02)
print(json.dumps({"step": step, "loss": 0}), flush=True)
"""
# A program and its module, in a directory that is sent along: how many files are there is its step.
TRAIN = """
import json, os, pathlib
from lib.model import LOSS
assert os.environ["SIMULATION_WORKDIR"] == os.getcwd()
here = [path for path in pathlib.Path().rglob("*") if path.is_file() and path.suffix != ".pyc"]
pathlib.Path("result").write_text("done")
print(json.dumps({"step": len(here), "loss": LOSS}), flush=True)
"""
IMPORTS = """
import json, os, pathlib, sys, time
import constants_of_a_test
assert os.environ["KEY"] == "a-secret-of-the-user"
print(json.dumps({"step": 0, "loss": constants_of_a_test.LOSS}), flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
"""
STORED = "SELECT EXISTS (SELECT FROM stored_files WHERE simulation_id = $1 AND kind = 'CHECKPOINT')"
CURRENT = "query ($id: ID!) { simulation(id: $id) { state machine { name } attempts { id number reason startedAt } } }"
FEW = 5
MANY = 500  # points, of some ten milliseconds each
HELLO = "mutation ($input: HelloAttemptInput!) { helloAttempt(input: $input) { verdict order { entrypoint } } }"


@dataclass
class Site:
    """A service, the cluster that it schedules onto, and a directory of signs for the programs."""

    service: Service
    engine: OnRay
    directory: Path

    @property
    def cluster(self) -> Cluster:
        return self.engine.cluster

    async def submit(self, **given: Any) -> tuple[str, Path]:
        """Queue a simulation that ends once the file is there."""
        sign = self.directory / secrets.token_hex(8)
        return await self.service.submit("python3", "-c", WORKS, str(sign), **given), sign

    async def runs(self, simulation: str, attempt: int = 1) -> str:
        """Wait for points of an attempt; the name of its machine."""

        async def has_points() -> bool:
            return any(number == attempt for number, _, _ in await self.service.log_of(simulation, "loss"))

        await eventually(has_points, f"attempt {attempt} reports")
        return str((await self.current(simulation))["machine"]["name"])

    async def goes_on(self, simulation: str) -> None:
        """Wait for more points than there are."""
        before = len(await self.service.log_of(simulation, "loss"))

        async def has_more() -> bool:
            return len(await self.service.log_of(simulation, "loss")) > before

        await eventually(has_more, "points arrive")

    async def ends_whole(self, simulation: str, sign: Path) -> None:
        """Let it end; it was one attempt, of which no point is missing."""
        sign.touch()
        shown = await self.service.finished(simulation)
        assert (shown["reason"], len(shown["attempts"])) == ("COMPLETED", 1), shown
        points = await self.service.log_of(simulation, "loss")
        assert [step for _, step, _ in points] == list(range(len(points)))
        assert points[-1][2] == 0

    async def current(self, simulation: str) -> Any:
        return (await self.service.execute(CURRENT, id=simulation))["simulation"]

    async def processes(self, simulation: str) -> list[psutil.Process]:
        """Those of its newest attempt."""
        shown = await self.service.show(simulation)
        lines = [node["text"] for node in shown["logs"]["nodes"]]
        told = [line for text in lines for line in text.splitlines() if line.startswith("pids ")]
        return [psutil.Process(int(pid)) for pid in told[-1].split()[1:]]

    async def running(self) -> list[Any]:
        return [each for each in await self.engine.jobs() if each["status"] == "RUNNING"]

    async def has_failed(self) -> bool:
        return {each["status"] for each in await self.engine.jobs()} == {"FAILED"}

    async def machines(self) -> dict[str, Any]:
        return await self.engine.machines(self.service)

    async def is_offline(self) -> bool:
        return any(each["state"] == "OFFLINE" for each in (await self.machines()).values())


@pytest.fixture(scope="module")
def used(ray_cluster: Cluster, lender: Lender) -> Iterator[list[Site]]:
    """What the tests of this file have used: at the end, the cluster has no job of a service that still runs.

    A service takes some seconds to forget a job, which are not waited for after each test.
    """
    sites: list[Site] = []
    yield sites
    asyncio.run(lender.wake())
    for each in sites:
        if each.service.process is not None and each.service.process.poll() is None:
            asyncio.run(eventually(each.engine.has_no_job, "no job is left", PATIENCE_SECONDS))


@pytest.fixture
async def site(lend: Any, ray_cluster: Cluster, used: list[Site], tmp_path: Path) -> AsyncIterator[Site]:
    engine = OnRay(ray_cluster)
    async with lend(**engine.settings) as service:
        await engine.adopt(service)
        used.append(Site(service, engine, tmp_path))
        yield used[-1]
        await engine.restore(service, forgotten=False)


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
        await site.ends_whole(simulation, sign)


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
    await site.goes_on(simulation)
    await site.ends_whole(simulation, sign)


async def test_what_ran_on_a_node_that_crashed_goes_on_from_its_checkpoint_on_the_other(site: Site) -> None:
    """The nodes share no directory: the checkpoint comes from the service's store."""
    simulation, sign = await site.submit(limits={"maxRetries": 1})
    first = await site.runs(simulation)
    machine = (await site.machines())[first]["id"]
    await site.service.in_time_says("the checkpoint is stored", STORED, number_of(simulation))
    site.cluster.crash(first.removeprefix("test-"))
    second = await site.runs(simulation, 2)
    assert {first, second} == {"test-one", "test-two"}
    assert (await site.machines())[first]["state"] == "OFFLINE"
    again = [step for number, step, _ in await site.service.log_of(simulation, "loss") if number == 2]
    assert again[0] == 7
    sign.touch()
    shown = await site.service.finished(simulation)
    assert shown["reason"] == "COMPLETED", shown
    assert [each["reason"] for each in shown["attempts"]] == ["MACHINE_LOST", "COMPLETED"]
    site.cluster.ensure()
    await site.engine.is_whole(site.service)
    assert (await site.machines())[first]["id"] == machine


async def test_a_simulation_outlives_the_daemon_of_its_node(site: Site) -> None:
    """Ray says FAILED, which proves nothing: the supervisor goes on and reports."""
    simulation, sign = await site.submit(resources={"cpus": 0.5, "labels": {"zone": "a"}})
    assert await site.runs(simulation) == "test-one"
    site.cluster.lose_daemon("one")
    await eventually(site.is_offline, "its node is gone")
    await eventually(site.has_failed, "Ray has given the job up")
    await site.goes_on(simulation)
    await site.ends_whole(simulation, sign)


async def test_a_simulation_outlives_the_head_and_the_cluster_that_comes_back_takes_the_next(site: Site) -> None:
    """The new head has no memory: no job, and other nodes under the same names."""
    simulation, sign = await site.submit()
    first = await site.runs(simulation)
    site.cluster.lose_head()
    await eventually(lambda: "engine_away" in site.service.log, "the outage is noticed")
    await site.goes_on(simulation)
    site.cluster.ensure()
    assert await site.engine.jobs() == []
    await eventually(site.is_offline, "the node on which it was is gone")
    await site.goes_on(simulation)
    await site.ends_whole(simulation, sign)
    await site.engine.is_whole(site.service)
    simulation, sign = await site.submit(resources={"cpus": 0.5, "machine": (await site.machines())[first]["id"]})
    assert await site.runs(simulation) == first
    await site.ends_whole(simulation, sign)


async def test_a_supervisor_that_is_cut_off_loses_no_point(
    lend: Any, ray_cluster: Cluster, used: list[Site], tmp_path: Path
) -> None:
    async with Gate.open() as gate:
        engine = OnRay(ray_cluster, SIMULATIONS_LEASE_SECONDS="60", api_url=f"{gate.address}/graphql")
        async with lend(**engine.settings) as service:
            gate.port_behind = service.port
            await engine.adopt(service)
            used.append(Site(service, engine, tmp_path))
            witness = Witness.on(service)
            witness.permit("speak")
            simulation = await service.submit(*witness.command)
            watch = Watch.of(service, simulation)
            await watch.has_received(FEW)
            gate.shut()
            await witness.has_said(MANY)
            await eventually(lambda: gate.refused >= FEW, "it has tried to report")
            stored = len(await service.log_of(simulation, "loss"))
            assert stored < witness.said - MANY / 2
            gate.port_behind = service.port
            await witness.has_said(FEW)
            witness.permit("finish")
            await watch.to_the_end()
            shown = await service.show(simulation)
            assert (shown["reason"], len(shown["attempts"])) == ("COMPLETED", 1), shown
            steps = [step for _, step, _ in watch.received("loss")]
            assert steps == list(range(witness.notes("printed")[0]))
            await engine.restore(service, forgotten=False)


async def test_the_members_of_a_gang_meet_across_nodes(site: Site) -> None:
    simulation, sign = await site.submit(machines=2, resources={"cpus": 0.5})
    await site.runs(simulation)
    jobs = await site.running()
    assert {each["metadata"]["node"] for each in jobs} == {site.cluster.living()[name] for name in ("one", "two")}
    sign.touch()
    assert (await site.service.finished(simulation))["reason"] == "COMPLETED"


async def test_a_gang_ends_whole_with_one_of_its_nodes_and_begins_again_when_there_are_two(site: Site) -> None:
    simulation, sign = await site.submit(machines=2, resources={"cpus": 0.5}, limits={"maxRetries": 1})
    await site.runs(simulation)
    supervisors = site.service.recorded("supervisor")
    assert len(supervisors) == 2
    site.cluster.crash("one")
    await eventually(lambda: not any(map(is_alive, supervisors)), "the other member has ended too")
    assert (await site.current(simulation))["state"] == "QUEUED"
    site.cluster.ensure()
    await site.runs(simulation, 2)
    sign.touch()
    shown = await site.service.finished(simulation)
    assert [each["reason"] for each in shown["attempts"]] == ["MACHINE_LOST", "COMPLETED"]


async def test_code_that_is_sent_along_is_on_each_node(site: Site, tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "lib").mkdir(parents=True)
    (code / "train.py").write_text(TRAIN)
    (code / "lib" / "model.py").write_text("LOSS = 0.25\n")
    simulations = {}
    for zone in ("a", "b"):
        words = ("submit", "--workdir", str(code), "--cpus", "0.5", "--label", f"zone={zone}")
        simulations[zone], said = await site.service.cli(*words, "--", "python3", "train.py")
        assert ("uploaded" if zone == "a" else "stored already") in said
    for zone, machine in (("a", "test-one"), ("b", "test-two")):
        shown = await site.service.finished(simulations[zone])
        assert shown["reason"] == "COMPLETED", shown
        assert (await site.current(simulations[zone]))["machine"]["name"] == machine
        assert await site.service.log_of(simulations[zone], "loss") == [(1, 2, 0.25)]


async def test_a_runtime_environment_has_its_packages_and_hides_its_variables_from_the_cluster(site: Site) -> None:
    given = {"pip": [_wheel(site.directory)], "env_vars": {"KEY": "a-secret-of-the-user"}}
    sign = site.directory / "sign"
    simulation = await site.service.submit("python", "-c", IMPORTS, str(sign), runtimeEnv=given)
    await site.runs(simulation)
    [job] = await site.running()
    assert job["runtime_env"]["pip"] == given["pip"]
    assert "a-secret-of-the-user" not in json.dumps(job)
    sign.touch()
    assert (await site.service.finished(simulation))["reason"] == "COMPLETED"
    assert await site.service.log_of(simulation, "loss") == [(1, 0, 0.125)]


async def test_a_runtime_environment_that_can_not_be_built_ends_the_attempt_before_it_starts(site: Site) -> None:
    given = {"pip": [str(site.directory / "missing-1-py3-none-any.whl")]}
    simulation = await site.service.submit("python", "-c", "", runtimeEnv=given, limits={"maxRetries": 0})
    shown = await site.service.finished(simulation)
    assert (shown["state"], [each["reason"] for each in shown["attempts"]]) == ("FAILED", ["LAUNCH_ERROR"]), shown


def _wheel(directory: Path) -> str:
    """Make a package with one module, which needs no network to be installed; its path."""
    path = directory / "constants_of_a_test-1-py3-none-any.whl"
    about = "constants_of_a_test-1.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("constants_of_a_test.py", "LOSS = 0.125\n")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: constants-of-a-test\nVersion: 1\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return str(path)


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
