"""A simulation run again from the checkpoint of another one, in real processes."""

from __future__ import annotations

from typing import Any

from live import Service

# Goes on from the number in its checkpoint, and writes the next one.
COUNTS = """
import json, os, pathlib
kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "deep", "count")
count = int(kept.read_text()) if kept.exists() else 0
print(json.dumps({"step": 1, "count": count}), flush=True)
kept.parent.mkdir(exist_ok=True)
kept.write_text(str(count + 1))
"""
FORK = """
mutation ($input: ForkSimulationInput!) {
  forkSimulation(input: $input) { simulation { id } userErrors { message } }
}
"""
COUNT = """
query ($id: ID!) { simulation(id: $id) { metric(name: "count") { lastValue } } }
"""


async def fork(service: Service, simulation: str, *, from_checkpoint: bool = True) -> str:
    given = {"id": simulation, "fromCheckpoint": from_checkpoint}
    made = (await service.execute(FORK, input=given))["forkSimulation"]
    assert made["userErrors"] == [], made
    return str(made["simulation"]["id"])


async def counted(service: Service, simulation: str) -> Any:
    assert (await service.finished(simulation))["state"] == "FINISHED"
    return (await service.execute(COUNT, id=simulation))["simulation"]["metric"]["lastValue"]


async def test_forks_begin_with_copies_and_change_nothing_of_the_old_one(brisk: Service) -> None:
    old = await brisk.submit("python", "-c", COUNTS)
    assert await counted(brisk, old) == 0
    first, second = await fork(brisk, old), await fork(brisk, old)
    assert [await counted(brisk, each) for each in (first, second)] == [1, 1]
    assert await counted(brisk, await fork(brisk, first)) == 2
    assert await counted(brisk, await fork(brisk, old, from_checkpoint=False)) == 0

    bare = await brisk.submit("true")
    assert (await brisk.finished(bare))["state"] == "FINISHED"
    refused = (await brisk.execute(FORK, input={"id": bare, "fromCheckpoint": True}))["forkSimulation"]
    assert refused["simulation"] is None
    assert "It has no checkpoint" in refused["userErrors"][0]["message"]
