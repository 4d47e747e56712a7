"""Preemption in real processes: the process makes room, and its simulation runs again without using up a retry."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from live import BRISK, Service, eventually, number_of, service_on

from db.connection import create_engine, session_factory
from db.events import PLANNER
from transitions.preempt import preempt

# Goes on where the attempt before left off; at SIGTERM it writes down where it is, and ends with exit code 0.
TRAINING = """
import json, os, pathlib, signal, sys, time

kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "step")
step = int(kept.read_text()) if kept.exists() else 0
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
while not ended:
    step += 1
    print(json.dumps({"step": step, "loss": 1 / step}), flush=True)
    time.sleep(0.02)
    if os.environ["SIMULATION_ATTEMPT"] == "3":
        sys.exit(3)
kept.write_text(str(step))
"""


@pytest.fixture
def brisk(database_url: str) -> Iterator[Service]:
    # With a backoff of an hour, what is queued with one would never run again.
    with service_on(database_url, **{**BRISK, "SIMULATIONS_RETRY_BACKOFF_SECONDS": "3600"}) as service:
        yield service


async def preempted(service: Service, simulation: str) -> bool:
    engine = create_engine(service.database_url, application="test")
    try:
        async with session_factory(engine).begin() as session:
            return await preempt(session, number_of(simulation), PLANNER, evidence={"for": "a test"})
    finally:
        await engine.dispose()


async def has_points_of(service: Service, simulation: str, attempt: int) -> None:
    async def has_some() -> bool:
        return any(each == attempt for each, _, _ in await service.log_of(simulation, "loss"))

    await eventually(has_some, f"attempt {attempt} reports")


async def test_what_is_preempted_twice_runs_again_at_once_and_its_only_failure_is_not_retried(brisk: Service) -> None:
    await brisk.up()
    simulation = await brisk.submit(
        sys.executable, "-c", TRAINING, limits={"maxRetries": 0, "retryOn": ["EXIT_CODE", "MACHINE_LOST"]}
    )
    for attempt in (1, 2):
        await has_points_of(brisk, simulation, attempt)
        assert await preempted(brisk, simulation)

    await brisk.until(simulation, "FINISHED", "FAILED", "CANCELLED")
    shown = await brisk.show(simulation)
    assert (shown["state"], shown["reason"]) == ("FAILED", "EXIT_CODE")
    attempts = [(each["number"], each["reason"], each["exitCode"]) for each in shown["attempts"]]
    assert attempts == [(1, "PREEMPTED", 0), (2, "PREEMPTED", 0), (3, "EXIT_CODE", 3)]
    kinds = [event["kind"] for event in shown["events"]]
    assert kinds == ["QUEUED", *["STARTING", "RUNNING", "STOP_WANTED", "QUEUED"] * 2, "STARTING", "RUNNING", "FAILED"]
    # Each attempt went on from the checkpoint that the one before it wrote when it was asked to make room.
    steps = [step for _, step, _ in await brisk.log_of(simulation, "loss")]
    assert steps == list(range(1, len(steps) + 1))
