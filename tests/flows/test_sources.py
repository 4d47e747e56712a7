"""Kill -9 while points arrive by MLflow's API, an event file, the named pipe and printed lines.

Nothing accepted is lost or doubled, and the program does not hang: it goes on while the service is away, and ends with
its supervisor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import messages
import pytest
from live import BRISK, Service, eventually, kill

Lend = Any  # a fixture of conftest.py
METRICS = ("printed", "sent", "recorded", "reported")
PROGRAM = """
import http.client, json, os, pathlib, sys, time
sys.path.insert(0, sys.argv[2])
import messages
place = pathlib.Path(sys.argv[1])
attempt = int(os.environ["SIMULATION_ATTEMPT"])
connection = http.client.HTTPConnection(os.environ["MLFLOW_TRACKING_URI"].rpartition("/")[2])
headers = {"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"]}
output = pathlib.Path(os.environ["SIMULATION_OUTPUT_DIR"], f"attempt-{attempt}")
output.mkdir()
events = open(output / f"events.out.tfevents.{int(time.time())}.host", "wb", buffering=0)
events.write(messages.version())
report = open(os.environ["SIMULATION_REPORT"], "wb", buffering=0)
step = 0
while not (place / "finish").exists():
    metric = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": "sent", "value": step, "timestamp": step, "step": step + 1}
    print(json.dumps({"step": step, "printed": step}), flush=True)
    report.write(json.dumps({"step": step, "reported": step}).encode() + b"\\n")
    events.write(messages.event(step, messages.simple("recorded", step)))
    connection.request("POST", "/api/2.0/mlflow/runs/log-metric", json.dumps(metric), headers)
    if connection.getresponse().read() != b"{}": sys.exit(3)
    step += 1
    (place / f"accepted-{attempt}.new").write_text(str(step))
    (place / f"accepted-{attempt}.new").rename(place / f"accepted-{attempt}")
    time.sleep(0.01)
"""


class Running:
    """The program in a simulation, and what its requests were answered."""

    def __init__(self, service: Service, place: Path) -> None:
        self.service = service
        self.place = place
        self.simulation = ""

    async def submit(self) -> None:
        command = ("python", "-c", PROGRAM, str(self.place), str(Path(messages.__file__).parent))
        limits = {"maxRetries": 1, "retryOn": ["MACHINE_LOST"]}
        self.simulation = await self.service.submit(*command, limits=limits)

    def accepted(self, attempt: int = 1) -> int:
        path = self.place / f"accepted-{attempt}"
        return int(path.read_text()) if path.exists() else 0

    async def stored(self, metric: str, attempt: int = 1) -> list[float]:
        log = await self.service.log_of(self.simulation, metric)
        return [value for number, _, value in log if number == attempt]


@pytest.mark.parametrize("victims", [("graph",), ("scheduler",), ("graph", "scheduler"), ("supervisor",)])
async def test_points_of_all_sources_survive_a_kill(victims: tuple[str, ...], lend: Lend, tmp_path: Path) -> None:
    async with lend(**BRISK) as service:
        running = Running(service, tmp_path)
        await running.submit()
        await eventually(lambda: running.accepted() >= 20, "metrics are accepted")
        if victims == ("supervisor",):
            kill(*service.recorded("supervisor"))
            await eventually(lambda: running.accepted(2) >= 20, "the next attempt sends, too")
        else:
            kill(*(service.child(each) for each in victims))
            at = running.accepted()
            await eventually(lambda: running.accepted() >= at + 20, "the program goes on")
        (tmp_path / "finish").touch()
        shown = await service.finished(running.simulation)
        assert (shown["state"], shown["reason"]) == ("FINISHED", "COMPLETED")
        for attempt in range(1, len(shown["attempts"]) + 1):
            counts = {metric: await running.stored(metric, attempt) for metric in METRICS}
            for metric, values in counts.items():
                assert values == [float(step) for step in range(len(values))], f"{metric}: in order, each once"
            assert len(counts["sent"]) in (running.accepted(attempt), running.accepted(attempt) + 1)
        assert len({len(values) for values in counts.values()}) == 1, "the last attempt ended by itself"
        assert len(counts["sent"]) == running.accepted(len(shown["attempts"]))
