"""A real autoscaler of Ray, whose nodes are processes here: the service makes it start one, and uses it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from live import BRISK, eventually
from ray_cluster import started

pytestmark = pytest.mark.timeout(900)

BIG = {
    "big": {
        "resources": {"CPU": 3, "object_store_memory": 80_000_000},
        "labels": {"zone": "c", "ray.io/node-group": "big"},  # the latter is given by providers of nodes on machines
        "node_config": {},
        "min_workers": 0,
        "max_workers": 2,
    }
}
STARTS = """
[test.starts.big]
cpus = 3
memory_gib = 2
labels = { zone = "c" }
most = 1
"""
WAITS = """
import json, pathlib, sys, time
print(json.dumps({"step": 0, "loss": 1}), flush=True)
while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.05)
"""
MACHINES = "{ machines(first: 10) { nodes { name state startable labels pricePerHour } } }"
SHOWN = """
query ($id: ID!) { simulation(id: $id) { state waiting { reason detail } machine { name labels pricePerHour } } }
"""


async def test_a_node_is_started_for_what_fits_no_machine_that_runs_and_ends_when_it_is_idle(
    lend: Any, tmp_path: Path
) -> None:
    with started(workers=(), starts=BIG) as cluster:
        async with lend(**BRISK, **cluster.settings(STARTS)) as service:

            async def machines() -> list[Any]:
                return list((await service.execute(MACHINES))["machines"]["nodes"])

            async def lists_the_kind() -> bool:
                return [(each["name"], each["state"], each["startable"]) for each in await machines()] == [
                    ("test-big", "OFFLINE", True)
                ]

            async def jobs() -> list[Any]:
                return [each for each in cluster.get("/api/jobs/") if (each["submission_id"] or "").startswith("sim-")]

            async def shown(simulation: str) -> Any:
                return (await service.execute(SHOWN, id=simulation))["simulation"]

            await eventually(lists_the_kind, "what can be started is listed")
            dear = await service.submit("true", resources={"cpus": 2.5, "maxPricePerHour": "1"})
            fits = await service.submit("python3", "-c", WAITS, str(tmp_path / "end"), resources={"cpus": 2.5})
            await service.until(fits, "RUNNING")
            found = await shown(fits)
            assert found["machine"]["labels"]["zone"] == "c"
            assert Decimal(found["machine"]["pricePerHour"]) == Decimal("7.25")
            assert "machines_wanted" in service.log
            assert (await shown(dear))["waiting"]["reason"] == "NO_MACHINE_FITS"
            (tmp_path / "end").touch()
            assert (await service.finished(fits))["reason"] == "COMPLETED"
            await service.cancel(dear)

            async def is_idle() -> bool:
                return not await jobs() and {each["state"] for each in await machines()} == {"OFFLINE"}

            await eventually(is_idle, "Ray has ended the node, and no job is left")
