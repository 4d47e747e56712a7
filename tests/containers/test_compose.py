"""`docker compose up --build`, tried as a user would: what is in the containers, and what happens when they end."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql.transport.exceptions import TransportError
from installation import PATIENCE_SECONDS, TOKEN, Installation
from live import ROOT, eventually, number_of

pytestmark = pytest.mark.timeout(900)

MOST_BYTES = 310_000_000  # of what the image adds to its Python base: a half are SciPy (quasi-random search) and NumPy
SERVICES = ("db", "graph", "proxy", "scheduler")
DEMO = ("python", "-m", "runner.demo", "--interval", "0.05", "--steps")
WATCHERS = 5  # of each kind
ASKERS = 6

Follow = Callable[[str, str | None], AsyncIterator[tuple[str, dict[str, Any]]]]


def examples(title: str) -> list[str]:
    """The shell commands under this title of the page about containers."""
    page = (ROOT / "docs" / "containers.md").read_text()
    section = re.search(rf"\n## {re.escape(title)}\n(.*?)(?=\n## |\Z)", page, re.DOTALL)
    assert section is not None, f"docs/containers.md has no {title!r}"
    return re.findall(r"\n```sh\n(.*?)```", section[1], re.DOTALL)


@dataclass
class Watcher:
    """Collects the points of a curve, and comes back with its cursor whenever it is cut off."""

    follow: Follow
    simulation_id: str
    points: list[tuple[int, int, float]] = field(default_factory=list)
    cut_off: int = 0
    last: dict[str, Any] = field(default_factory=dict)

    async def to_the_end(self, metric: str = "loss") -> None:
        after: str | None = None
        while not self.last or self.last["state"] not in ("FINISHED", "FAILED", "CANCELLED"):
            with suppress(TransportError, httpx.HTTPError, OSError):
                async for cursor, event in self.follow(self.simulation_id, after):
                    after, self.last = cursor, event
                    for series in event["series"]:
                        if series["metric"] == metric:
                            self.points += [
                                (event["attempt"], step, value)
                                for step, value in zip(series["steps"], series["values"], strict=True)
                            ]
            self.cut_off += 1
            assert self.cut_off < 1_000, f"nothing comes: {self.last}"
            await asyncio.sleep(0.05)


@dataclass
class Asker:
    """Asks one thing after the other, as clients do that keep their connection or don't; keeps what went wrong."""

    installation: Installation
    keeps: bool
    answers: int = 0
    failures: list[str] = field(default_factory=list)

    async def ask_until(self, over: asyncio.Event) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if self.keeps else 0)
        async with httpx.AsyncClient(timeout=30, headers=self.installation.bearer, limits=limits) as client:
            while not over.is_set():
                try:
                    answer = await client.post(
                        f"{self.installation.address}/graphql", json={"query": "{ viewer { name } }"}
                    )
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                await asyncio.sleep(0.01)
                if answer.status_code == 200 and answer.json()["data"]["viewer"]["name"] == "compose":
                    self.answers += 1
                else:
                    self.failures.append(f"{answer.status_code} {answer.text[:200]}")


async def test_a_demo_runs_to_its_end_and_its_curve_is_what_the_database_holds(installation: Installation) -> None:
    simulation = await installation.submit(*DEMO, "40")
    watcher = Watcher(installation.by_socket, simulation)
    await watcher.to_the_end()
    assert watcher.last["state"] == "FINISHED"
    assert watcher.points == installation.log_of(simulation, "loss")
    assert len(watcher.points) == 40


async def test_a_browser_signs_in_at_the_address_that_was_published(installation: Installation) -> None:
    page = {"Origin": installation.address, "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    async with httpx.AsyncClient(base_url=installation.address, headers=page) as client:
        assert (await client.post("/graphql", json={"query": "{ viewer { name } }"})).status_code == 401
        signed_in = await client.post("/session", json={"token": installation.token})
        assert signed_in.json()["role"] == "ADMIN"
        asked = await client.post("/graphql", json={"query": "{ viewer { name } }"})
        assert asked.json()["data"] == {"viewer": {"name": "compose"}}
        stranger = await client.post("/session", json={"token": "x"}, headers={"Origin": "http://evil.example"})
        assert stranger.status_code == 403
    [[origin]] = installation.select("SELECT origin FROM events WHERE kind = 'SIGNED_IN' ORDER BY id DESC LIMIT 1")
    proxies = installation.inspect(installation.containers("proxy")[0])["NetworkSettings"]["Networks"].values()
    assert origin in {network["Gateway"] for network in proxies}, "what clients say of themselves does not count"


def test_containers_may_do_little_and_hold_no_secret(installation: Installation) -> None:
    secrets = [installation.token]
    secrets.append(installation.compose("exec", "db", "cat", "/var/lib/simulations-secrets/database-password").strip())
    assert all(len(secret) > 40 for secret in secrets)
    told = ""
    for service in (*SERVICES, "migrate", "password"):
        for container in installation.containers(service):
            inspected = installation.inspect(container)
            told += str(inspected) + installation.run("docker", "history", "--no-trunc", inspected["Image"])
            assert inspected["HostConfig"]["ReadonlyRootfs"], service
            assert inspected["HostConfig"]["CapDrop"] == ["ALL"], service
            assert inspected["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"], service
            assert inspected["Config"]["User"] not in ("", "0", "root"), service
            kept = [mount["Name"] for mount in inspected["Mounts"] if mount["Type"] == "volume"]
            assert all(name.startswith(f"{installation.project}_") for name in kept), service
            ports = [each for bound in (inspected["HostConfig"]["PortBindings"] or {}).values() for each in bound]
            wanted = [{"HostIp": "127.0.0.1", "HostPort": str(installation.port)}] if service == "proxy" else []
            assert ports == wanted, service
    assert not [secret for secret in secrets if secret in told + installation.compose("logs")]
    tools = (
        "for tool in gcc cc ld make git npm node postgres; do command -v $tool || true; done; find / -name '*pgserver*'"
    )
    assert installation.compose("exec", "graph", "sh", "-c", f"{tools} 2>/dev/null || true") == ""
    for service in SERVICES:
        said = installation.compose("exec", service, "sh", "-c", "touch /x 2>&1 || id -u")
        assert "Read-only" in said, service
        assert said.split()[-1] != "0", service


@pytest.mark.parametrize("service", ["graph", "scheduler"])
def test_the_doctor_finds_everything_well_where_it_is(installation: Installation, service: str) -> None:
    told = json.loads(installation.compose("exec", service, "simulations", "doctor", "--json"))
    assert [finding for finding in told["findings"] if finding["level"] != "ok"] == []


def test_the_image_adds_little_to_its_base(installation: Installation) -> None:
    base = re.findall(r"^FROM (\S+) AS service$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0]
    size, of_base = (
        int(installation.run("docker", "image", "inspect", "--format", "{{.Size}}", image))
        for image in (f"{installation.project}-service", base)
    )
    assert size - of_base < MOST_BYTES


async def test_a_rolling_restart_loses_no_request_and_no_point(installation: Installation) -> None:
    """Subscribers by WebSocket and by SSE, and others that ask all the time, through the restart as documented."""
    simulation = await installation.submit(*DEMO, "100000")
    await installation.until(simulation, "RUNNING")
    follows: list[Follow] = [installation.by_socket, installation.by_stream] * WATCHERS
    watchers = [Watcher(follow, simulation) for follow in follows]
    askers = [Asker(installation, keeps=bool(number % 2)) for number in range(ASKERS)]
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for watcher in watchers:
            tasks.create_task(watcher.to_the_end())
        asking = [tasks.create_task(asker.ask_until(over)) for asker in askers]
        await eventually(lambda: all(watcher.points for watcher in watchers), "everybody watches", PATIENCE_SECONDS)
        [restart] = examples("Restart without a gap")
        await asyncio.to_thread(installation.run, "bash", "-euc", restart)
        over.set()
        await asyncio.wait(asking)
        await installation.cancel(simulation)
    stored = installation.log_of(simulation, "loss")
    assert [step for _, step, _ in stored] == list(range(len(stored)))
    assert all(watcher.points == stored for watcher in watchers)
    assert all(watcher.last["state"] == "CANCELLED" for watcher in watchers)
    assert all(watcher.cut_off > 1 for watcher in watchers), "every graph was restarted, so everybody was cut off"
    assert sum(asker.answers for asker in askers) > 100
    sys.stdout.write(f"{sum(asker.answers for asker in askers)} answers\n")
    assert [failure for asker in askers for failure in asker.failures] == []


@pytest.mark.parametrize("service", SERVICES)
async def test_who_is_killed_comes_back_and_the_simulation_ends(installation: Installation, service: str) -> None:
    simulation = await installation.submit(*DEMO, "200", limits={"maxRetries": 5})
    await installation.until(simulation, "RUNNING")
    watcher = Watcher(installation.by_socket, simulation)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watcher.to_the_end())
        await eventually(lambda: len(watcher.points) > 5, "points arrive", PATIENCE_SECONDS)
        for container in installation.containers(service):
            await asyncio.to_thread(installation.kill, container)
    assert watcher.last["state"] == "FINISHED"
    seen = await installation.show(simulation)
    # What runs on this host runs in the scheduler's container, and dies with it.
    assert len(seen["attempts"]) == (2 if service == "scheduler" else 1)
    assert watcher.points == installation.log_of(simulation, "loss")
    assert [step for attempt, step, _ in watcher.points if attempt == len(seen["attempts"])] == list(range(200))


async def test_restarting_each_service_is_survived(installation: Installation) -> None:
    for service in SERVICES:
        await asyncio.to_thread(installation.compose, "restart", service)
        await installation.whole()
        simulation = await installation.submit(*DEMO, "10")
        assert (await installation.until(simulation, "FINISHED"))["reason"] == "COMPLETED"


async def test_what_is_scaled_down_is_asked_no_more(installation: Installation) -> None:
    over = asyncio.Event()
    asker = Asker(installation, keeps=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asker.ask_until(over))
        await asyncio.to_thread(installation.compose, "up", "--detach", "--scale", "graph=1", "--no-recreate")
        await eventually(lambda: asker.answers > 50, "answers come", PATIENCE_SECONDS)
        over.set()
    assert asker.failures == []
    await asyncio.to_thread(installation.up, "--no-recreate")


async def test_data_survive_down_and_up(installation: Installation) -> None:
    simulation = await installation.submit(*DEMO, "20")
    before = await installation.until(simulation, "FINISHED")
    stored, token = installation.log_of(simulation, "loss"), installation.token
    await asyncio.to_thread(installation.compose, "down")
    await asyncio.to_thread(installation.up)
    await installation.whole()
    assert installation.token == token
    assert await installation.show(simulation) == before
    assert installation.log_of(simulation, "loss") == stored
    again = await installation.submit(*DEMO, "20")
    assert (await installation.until(again, "FINISHED"))["machine"] == before["machine"]


async def test_a_backup_makes_a_new_installation_what_the_old_one_was(
    installation: Installation, tmp_path: Path
) -> None:
    dump, restore, pack, renew = examples("Backup and restore")
    simulation = await installation.submit(*DEMO, "20")
    before = await installation.until(simulation, "FINISHED")
    stored = installation.log_of(simulation, "loss")
    installation.run("bash", "-euc", dump, directory=tmp_path)
    installation.compose("stop", "scheduler")
    installation.run("bash", "-euc", pack, directory=tmp_path)
    with tarfile.open(tmp_path / "scheduler.tar.gz") as archive:
        assert "./host-id" in archive.getnames()

    installation.compose("down", "--volumes")
    installation.run("bash", "-euc", restore, directory=tmp_path)
    await installation.until(simulation, "FINISHED")  # with the token of before: a dump has the digests
    assert await installation.show(simulation) == before
    assert installation.log_of(simulation, "loss") == stored
    assert number_of(await installation.submit(*DEMO, "1")) > 1_000_000, "no id is given out twice"

    installation.compose("down")
    installation.run("docker", "volume", "rm", f"{installation.project}_secrets")
    installation.run("bash", "-euc", renew, directory=tmp_path)
    installation.compose("up", "--detach")
    assert (await installation.until(simulation, "FINISHED")) == before
    installation.compose("down", "--volumes")
    installation.up()


def test_the_token_is_where_the_readme_says(installation: Installation) -> None:
    assert f"docker compose exec graph cat {TOKEN}" in (ROOT / "README.md").read_text()
