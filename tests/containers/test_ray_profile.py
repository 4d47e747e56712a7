"""`docker compose --profile ray up`: a Ray cluster beside the service, on which the README's tour runs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from installation import PATIENCE_SECONDS, RAY, Installation
from live import ROOT, eventually

pytestmark = pytest.mark.timeout(900)

MACHINES = """
{ machines(first: 10) { nodes { name engine state pricePerHour labels resources { cpus } } } }
"""


@pytest.fixture
async def installation(with_ray: Installation) -> Installation:
    """An installation whose nodes are machines."""
    await with_ray.whole()

    async def has_nodes() -> bool:
        online = {name for name, each in (await machines(with_ray)).items() if each["state"] == "ONLINE"}
        return {"ray-one", "ray-two", "docker"} <= online

    await eventually(has_nodes, "both nodes are machines", PATIENCE_SECONDS)
    return with_ray


async def machines(installation: Installation) -> dict[str, Any]:
    nodes = (await installation.execute(MACHINES))["machines"]["nodes"]
    return {each["name"]: each for each in nodes}


async def test_the_nodes_are_machines_with_what_they_were_started_with(installation: Installation) -> None:
    found = await machines(installation)
    assert {name: each["engine"] for name, each in found.items()} == {
        "docker": "local", "ray-one": "ray:ray", "ray-two": "ray:ray"
    }  # fmt: skip
    assert [found[name]["resources"]["cpus"] for name in ("ray-one", "ray-two")] == [1, 2]
    assert [float(found[name]["pricePerHour"]) for name in ("ray-one", "ray-two")] == [1.5, 3]


@pytest.mark.parametrize(("zone", "machine"), [("a", "ray-one"), ("b", "ray-two")])
async def test_the_tour_of_the_readme_runs_on_a_node(installation: Installation, zone: str, machine: str) -> None:
    simulation = await installation.submit(
        "python", "-m", "runner.demo", "--steps", "40", "--interval", "0.05",
        resources={"cpus": 0.1, "labels": {"zone": zone}},
    )  # fmt: skip
    events = [event async for _, event in installation.by_stream(simulation, None)]
    assert (events[-1]["state"], events[-1]["reason"]) == ("FINISHED", "COMPLETED")
    steps = [step for event in events for series in event["series"] if series["metric"] == "loss"
             for step in series["steps"]]  # fmt: skip
    assert steps == list(range(40))
    assert (await installation.show(simulation))["machine"]["name"] == machine


async def test_the_command_line_draws_the_curve_of_what_runs_on_either_node(
    installation: Installation, tmp_path: Path
) -> None:
    """As docs/clusters.md has it."""
    token = tmp_path / "token"
    token.write_text(installation.token)
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "cli", "submit", "--watch", "--url", installation.address, "--token-file", str(token),
         "--label", "simulations/engine=ray",
         "--", "python", "-m", "runner.demo", "--steps", "40", "--interval", "0.05"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"FINISHED \(COMPLETED\) after .* at step 39", ran.stdout), ran.stdout
    simulation = ran.stdout.split()[0]
    assert (await installation.show(simulation))["machine"]["name"] in ("ray-one", "ray-two")


async def test_a_node_that_is_killed_comes_back_and_the_simulation_ends(installation: Installation) -> None:
    simulation = await installation.submit(
        "python", "-m", "runner.demo", "--steps", "200", "--interval", "0.05",
        resources={"cpus": 0.1, "labels": {"zone": "b"}}, limits={"maxRetries": 5},
    )  # fmt: skip
    await installation.until(simulation, "RUNNING")
    [container] = installation.containers("ray-two")
    installation.kill(container)
    seen = await installation.until(simulation, "FINISHED")
    assert [each["reason"] for each in seen["attempts"]] == ["MACHINE_LOST", "COMPLETED"]
    stored = installation.log_of(simulation, "loss")
    assert [step for attempt, step, _ in stored if attempt == 2] == list(range(200))


def test_the_doctor_finds_the_cluster_well(installation: Installation) -> None:
    told = json.loads(installation.compose("exec", "ray-scheduler", "simulations", "doctor", "--json"))
    wrong = [finding for finding in told["findings"] if finding["level"] != "ok"]
    # Between containers of one host the token crosses no network.
    assert [each for each in wrong if "unencrypted" not in str(each)] == []


def test_containers_of_the_profile_may_do_little_and_hold_no_secret(installation: Installation) -> None:
    token = installation.compose("exec", "ray-head", "cat", "/var/lib/ray-secrets/token").strip()
    assert len(token) > 40
    for service in RAY:
        for container in installation.containers(service):
            inspected = installation.inspect(container)
            assert token not in str(inspected)
            assert inspected["HostConfig"]["ReadonlyRootfs"], service
            assert inspected["HostConfig"]["CapDrop"] == ["ALL"], service
            assert inspected["Config"]["User"] not in ("", "0", "root"), service
            assert not inspected["HostConfig"]["PortBindings"], service
    assert token not in installation.compose("logs")
    for service in ("ray-one", "ray-two"):
        listed = installation.compose("exec", service, "sh", "-c", "ls -R /var/lib 2>/dev/null || true")
        assert "database-password" not in listed
