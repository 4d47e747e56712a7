"""Sharing a machine in real processes: a long run makes room and goes on, a small project gets its share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from live import BRISK, Service, eventually, service_on

# Goes on where the attempt before left off; at SIGTERM it writes down where it is. The second attempt comes to the end.
TRAINING = """
import json, os, pathlib, signal, sys, time

kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "step")
step = int(kept.read_text()) if kept.exists() else 0
last = step + 20 if os.environ["SIMULATION_ATTEMPT"] != "1" else 10**9
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
while not ended and step < last:
    step += 1
    print(json.dumps({"step": step, "loss": 1 / step}), flush=True)
    time.sleep(0.02)
kept.write_text(str(step))
"""
SHORT = (sys.executable, "-c", "import json; print(json.dumps({'step': 1, 'loss': 1}))")
SECOND = (sys.executable, "-c", "import time; time.sleep(1.5)")
ONE_CPU: dict[str, Any] = {"cpus": 1}


@pytest.fixture
def shared(database_url: str) -> Iterator[Service]:
    settings = {**BRISK, "SIMULATIONS_LOCAL_MACHINE": "false", "SIMULATIONS_MIN_RUN_SECONDS": "0"}
    with service_on(database_url, **settings) as service:
        yield service


async def machine(service: Service) -> None:
    """A machine of one cpu."""
    await eventually(lambda: service.says("SELECT count(*) > 0 FROM hosts"), "a host is known")
    made = await service.execute(
        "mutation ($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }",
        input={"name": "m", "cpus": 1, "memoryGib": 1},
    )
    assert made["createMachine"]["userErrors"] == []


async def test_a_long_run_makes_room_for_a_short_one_and_goes_on_from_its_checkpoint(shared: Service) -> None:
    await shared.up()
    await machine(shared)
    long = await shared.submit(
        sys.executable, "-c", TRAINING, name="long", resources=ONE_CPU, preemptible=True,
        limits={"maxRetries": 0, "maxRuntimeSeconds": 200_000},
    )  # fmt: skip

    async def reports() -> bool:
        return bool(await shared.log_of(long, "loss"))

    await eventually(reports, "it reports")
    short = await shared.submit(*SHORT, name="short", resources=ONE_CPU, limits={"maxRuntimeSeconds": 60})
    assert (await shared.finished(short))["state"] == "FINISHED"
    await shared.until(long, "FINISHED", "FAILED", "CANCELLED")

    shown = await shared.show(long)
    assert shown["state"] == "FINISHED"
    first, second = shown["attempts"]
    assert (first["reason"], second["reason"]) == ("PREEMPTED", "COMPLETED")
    assert first["reasonDetail"].startswith("Made room for simulation ")
    assert "GPU-hours are expected of it" in first["reasonDetail"]
    steps = [step for _, step, _ in await shared.log_of(long, "loss")]
    assert steps == list(range(1, len(steps) + 1)), "the curve has no gap"
    kinds = [event["kind"] for event in shown["events"]]
    assert kinds == ["QUEUED", "STARTING", "RUNNING", "STOP_WANTED", "QUEUED", "STARTING", "RUNNING", "FINISHED"]


async def test_a_small_project_gets_its_share_beside_a_big_one(shared: Service) -> None:
    await shared.up()
    await machine(shared)
    wanted = {"entrypoint": list(SECOND), "resources": ONE_CPU}
    big = await shared.submit_many([{**wanted, "name": f"big-{number}", "project": "big"} for number in range(10)])
    await shared.until(big[0], "RUNNING", "FINISHED")
    small = await shared.submit_many([{**wanted, "name": f"small-{number}", "project": "small"} for number in range(2)])
    for each in [*big, *small]:
        await shared.until(each, "FINISHED")

    rows = await shared.fetch(
        "SELECT p.name FROM attempts AS a JOIN simulations AS s ON s.id = a.simulation_id "
        "JOIN projects AS p ON p.id = s.project_id ORDER BY a.assigned_at, a.id"
    )
    order = [row[0] for row in rows]
    last = len(order) - order[::-1].index("small")
    assert order[last:].count("big") >= 4, order
