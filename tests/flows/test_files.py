"""Files that follow the work, in real processes: two hosts' schedulers, one store, and kill -9."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from live import BRISK, PATIENCE_SECONDS, Service, eventually, kill, number_of, part_on, service_on

from db.connection import create_engine, session_factory
from db.events import PLANNER
from transitions.preempt import preempt

DRAIN = "mutation Drain($id: ID!) { drainMachine(input: {id: $id}) { userErrors { message } } }"
FORK = """mutation ($id: ID!) {
  forkSimulation(input: {id: $id, fromCheckpoint: true}) { simulation { id } userErrors { message } }
}"""
NOTICES = "query Notices($id: ID!) { simulation(id: $id) { notices { kind advice } } }"

# Goes on from its checkpoint; writes one at SIGTERM, and at a step that its parameter names, by renaming it.
TRAINING = """
import json, os, pathlib, signal, sys, time

kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "deep", "step")
kept.parent.mkdir(exist_ok=True)
step = int(kept.read_text().split()[0]) if kept.exists() else 0
wanted = json.loads(os.environ["SIMULATION_PARAMETERS"])

def save():
    new = kept.with_name("new")
    new.write_text(f"{step} " + "x" * wanted.get("bytes", 0))
    new.replace(kept)

ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
while not ended and step < wanted["until"]:
    step += 1
    print(json.dumps({"step": step, "loss": 1 / step}), flush=True)
    if step == wanted.get("save_at"):
        save()
    time.sleep(0.02)
if ended:
    save()
"""


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[tuple[Service, Service]]:
    """A service with the machine "here", and another host with the machine "there", which is not started yet."""
    with (
        service_on(database_url, **BRISK, SIMULATIONS_MACHINE_NAME="here") as service,
        part_on(database_url, ("-m", "scheduler"), {**BRISK, "SIMULATIONS_MACHINE_NAME": "there"}) as other,
    ):
        await service.up()
        other.port = service.port
        yield service, other


async def trains(service: Service, **parameters: Any) -> str:
    return await service.submit(
        sys.executable, "-c", TRAINING, parameters={"until": 1_000_000, **parameters},
        limits={"maxRetries": 3, "retryOn": ["MACHINE_LOST"]},
    )  # fmt: skip


async def reports(service: Service, simulation: str, attempt: int, step: int = 1) -> None:
    async def has() -> bool:
        return any(each == attempt and at >= step for each, at, _ in await service.log_of(simulation, "loss"))

    await eventually(has, f"attempt {attempt} reports step {step}")


async def stored(service: Service, simulation: str, attempt: int = 1) -> None:
    question = "SELECT EXISTS (SELECT FROM stored_files WHERE simulation_id = $1 AND attempt = $2)"
    await eventually(lambda: service.says(question, number_of(simulation), attempt), f"attempt {attempt} has stored")


async def machine_of(service: Service, simulation: str, attempt: int) -> str:
    [row] = await service.fetch(
        "SELECT m.machine_name FROM members m JOIN attempts a ON a.id = m.attempt_id "
        "WHERE a.simulation_id = $1 AND a.number = $2",
        number_of(simulation), attempt,
    )  # fmt: skip
    return str(row[0])


async def joined(service: Service, name: str) -> None:
    async def has() -> bool:
        return any(each["name"] == name and each["state"] == "ONLINE" for each in await service.machines())

    await eventually(has, f"{name} is a machine")


async def test_what_is_preempted_on_one_host_goes_on_from_its_checkpoint_on_another(
    site: tuple[Service, Service],
) -> None:
    service, other = site
    await joined(service, "here")
    simulation = await trains(service)
    await reports(service, simulation, 1, step=5)
    other.start()
    await joined(service, "there")
    [here] = [each for each in await service.machines() if each["name"] == "here"]
    await service.execute(DRAIN, id=here["id"])
    engine = create_engine(service.database_url, application="test")
    try:
        async with session_factory(engine).begin() as session:
            assert await preempt(session, number_of(simulation), PLANNER, evidence={"for": "a test"})
    finally:
        await engine.dispose()
    await reports(service, simulation, 2)
    assert await machine_of(service, simulation, 1) == "here"
    assert await machine_of(service, simulation, 2) == "there"
    steps = [step for _, step, _ in await service.log_of(simulation, "loss")]
    assert steps == list(range(1, len(steps) + 1)), "no step was done twice"
    told = (await service.execute(NOTICES, id=simulation))["simulation"]["notices"]
    assert told == [], "its checkpoint was not left behind"
    await service.cancel(simulation)
    await service.until(simulation, "CANCELLED")


async def test_what_is_lost_with_its_host_goes_on_from_what_was_stored(site: tuple[Service, Service]) -> None:
    service, other = site
    await joined(service, "here")
    other.start()
    await joined(service, "there")
    [here] = [each for each in await service.machines() if each["name"] == "here"]
    await service.execute(DRAIN, id=here["id"])
    simulation = await trains(service, save_at=7)
    await stored(service, simulation)
    assert await machine_of(service, simulation, 1) == "there"
    await service.execute(
        "mutation R($id: ID!) { resumeMachine(input: {id: $id}) { userErrors { message } } }", id=here["id"]
    )
    assert other.process is not None
    other.process.kill()
    other.process.wait(PATIENCE_SECONDS)
    kill(*other.everything())
    await reports(service, simulation, 2)
    assert await machine_of(service, simulation, 2) == "here"
    first = min(step for attempt, step, _ in await service.log_of(simulation, "loss") if attempt == 2)
    assert first == 8, "the step behind the checkpoint"
    await service.cancel(simulation)
    await service.until(simulation, "CANCELLED")


async def test_a_fork_from_a_stored_checkpoint_runs_on_another_host(site: tuple[Service, Service]) -> None:
    service, other = site
    await joined(service, "here")
    old = await trains(service, save_at=7)
    await stored(service, old)
    await service.cancel(old)
    await service.until(old, "CANCELLED")
    other.start()
    await joined(service, "there")
    [here] = [each for each in await service.machines() if each["name"] == "here"]
    await service.execute(DRAIN, id=here["id"])
    made = (await service.execute(FORK, id=old))["forkSimulation"]
    assert made["userErrors"] == []
    fork = made["simulation"]["id"]
    await reports(service, fork, 1)
    assert await machine_of(service, fork, 1) == "there"
    last = max(step for _, step, _ in await service.log_of(old, "loss"))
    first = min(step for _, step, _ in await service.log_of(fork, "loss"))
    assert first == last + 1, "the step behind the checkpoint that was written at SIGTERM"
    await service.cancel(fork)
    await service.until(fork, "CANCELLED")


async def test_a_service_that_is_killed_in_an_upload_has_the_whole_checkpoint_or_none(
    site: tuple[Service, Service],
) -> None:
    service, _ = site
    await joined(service, "here")
    size = 96 << 20
    simulation = await trains(service, save_at=3, until=3, bytes=size)
    begun = "SELECT EXISTS (SELECT FROM stored_pieces WHERE stored_at IS NOT NULL)"
    await eventually(lambda: service.says(begun), "the upload has begun")
    kill(service.child("graph"))
    # Each list names pieces that are stored, at every moment.
    whole = (
        "SELECT NOT EXISTS (SELECT FROM stored_files AS f, stored_pieces AS p "
        "WHERE p.simulation_id = f.simulation_id AND p.stored_at IS NULL)"
    )
    assert await service.says(whole)
    await service.finished(simulation)
    assert await service.says(whole)
    [row] = await service.fetch("SELECT size_bytes, jsonb_array_length(entries) FROM stored_files")
    assert tuple(row) == (size + 2, 1)
