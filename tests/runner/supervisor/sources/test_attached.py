"""Sources of an attempt: a supervisor and a child as real processes, with requests and files but without a tracker."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from messages import event, simple, version

REQUESTS = """
import json, os, urllib.request
def post(path, body, host=None):
    request = urllib.request.Request(os.environ["MLFLOW_TRACKING_URI"] + path, json.dumps(body).encode())
    request.add_header("Authorization", "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"])
    with urllib.request.urlopen(request) as response:
        return json.load(response)
def log(key, value, step):
    post("/api/2.0/mlflow/runs/log-metric", {"run_id": os.environ["MLFLOW_RUN_ID"], "key": key, "value": value,
        "timestamp": step, "step": step})
"""


def event_file(values: dict[str, float]) -> bytes:
    return version() + event(3, *(simple(tag, value) for tag, value in values.items()))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def test_metrics_sent_and_printed_are_one_curve(service: Any, supervise: Any) -> None:
    code = (
        REQUESTS + "for step in range(5):\n log('sent', step, step); print(json.dumps({'step': step, 'printed': step}))"
    )
    assert supervise(code).wait() == 0
    expected = [(step, float(step)) for step in range(5)]
    assert (service.points("sent"), service.points("printed")) == (expected, expected), service.logs


def test_event_files_are_read_from_the_working_output_and_given_directories(
    service: Any, supervise: Any, tmp_path: Path
) -> None:
    code = f"""
import os, pathlib, time
name = f"events.out.tfevents.{{int(time.time())}}.host"
places = {{"working": pathlib.Path("runs/x"), "output": pathlib.Path(os.environ["SIMULATION_OUTPUT_DIR"], "y"),
    "given": pathlib.Path("../../elsewhere")}}
for metric, content in {[(m, event_file({m: 1.0})) for m in ("working", "output", "given")]!r}:
    places[metric].mkdir(parents=True); (places[metric] / name).write_bytes(content)
"""
    assert supervise(code, tensorboard=["../../elsewhere"]).wait() == 0
    stored = {metric.rpartition("/")[2] for batch in service.stored for metric in batch.get("points", ())}
    assert stored == {"working", "output", "given"}


def test_a_file_is_read_while_the_simulation_runs(service: Any, supervise: Any) -> None:
    code = f"""
import os, pathlib, time
pathlib.Path("runs").mkdir()
pathlib.Path(f"runs/events.out.tfevents.{{int(time.time())}}.host").write_bytes({event_file({"loss": 0.5})!r})
time.sleep(1000)
"""
    started = supervise(code)
    service.wait(lambda: service.points("loss") == [(3, 0.5)])
    service.verdict = "STOP"
    assert started.wait() == 0


def test_a_short_child_costs_neither_a_thread_nor_a_wait(service: Any, supervise: Any) -> None:
    supervise(entrypoint=["sh", "-c", "echo threads $(ls /proc/$PPID/task | wc -l)"]).wait()
    # The reader, and the reporter if the shell took longer than 50 ms to start.
    assert service.log("STDOUT") in ("threads 1", "threads 2")


def test_the_loopback_server_ends_with_the_child(service: Any, supervise: Any, tmp_path: Path) -> None:
    code = (
        REQUESTS
        + f"""
log("loss", 1.0, 1)
with open({str(tmp_path / "port")!r}, "w") as file:
    file.write(os.environ["MLFLOW_TRACKING_URI"].rpartition(":")[2])
"""
    )
    assert supervise(code).wait() == 0
    assert service.points("loss") == [(1, 1.0)]
    port = int((tmp_path / "port").read_text())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_descendant_may_send_its_last_values_after_the_childs_end(
    service: Any, supervise: Any, tmp_path: Path
) -> None:
    code = (
        REQUESTS
        + f"""
import http.client, sys, time
address = os.environ["MLFLOW_TRACKING_URI"].removeprefix("http://")
if os.fork():
    while not os.path.exists({str(tmp_path / "connected")!r}): time.sleep(0.01)
    os._exit(0)
child = os.getppid()
connection = http.client.HTTPConnection(address)
connection.connect()
open({str(tmp_path / "connected")!r}, "w")
while os.getppid() == child: time.sleep(0.005)
body = {{"run_id": os.environ["MLFLOW_RUN_ID"], "key": "last", "value": 1.0, "timestamp": 1, "step": 1}}
connection.request("POST", "/api/2.0/mlflow/runs/log-metric", json.dumps(body),
    {{"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"]}})
"""
    )
    assert supervise(code).wait() == 0
    assert service.points("last") == [(1, 1.0)]


def test_what_the_user_has_set_up_is_left_alone(service: Any, supervise: Any) -> None:
    own = {"MLFLOW_TRACKING_URI": "http://mine", "WANDB_API_KEY": "mine", "HTTPS_PROXY": "x", "http_proxy": "http://p"}
    supervise("import os, json; print('env', json.dumps(dict(os.environ)))", environment=own).wait()
    given = json.loads(service.log("STDOUT").removeprefix("env "))
    assert {name: given[name] for name in own} == own
    assert {"MLFLOW_RUN_ID", "MLFLOW_TRACKING_TOKEN", "WANDB_BASE_URL"}.isdisjoint(given)
    assert given["NO_PROXY"] == "127.0.0.1"


def test_with_metrics_none_there_is_no_source(service: Any, supervise: Any) -> None:
    code = f"""
import os, pathlib, time
print([name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))])
pathlib.Path(f"events.out.tfevents.{{int(time.time())}}.host").write_bytes({event_file({"loss": 0.5})!r})
"""
    supervise(code, metricsFrom="NONE").wait()
    assert service.log("STDOUT") == "[]"
    assert service.points("loss") == []


def test_each_attempt_has_a_secret_of_its_own_and_the_log_does_not_hold_it(service: Any, supervise: Any) -> None:
    secrets = []
    for _ in range(2):
        service.stored.clear()
        started = supervise("import os; print(os.environ['MLFLOW_TRACKING_TOKEN'], os.environ['WANDB_API_KEY'])")
        started.wait()
        mlflow, wandb = service.log("STDOUT").split()
        assert mlflow == wandb
        assert mlflow not in started.complaints
        secrets.append(mlflow)
    assert len(set(secrets)) == 2
    assert {len(secret) for secret in secrets} == {40}


def test_accepted_metrics_outlive_a_kill_of_the_supervisor(service: Any, supervise: Any, tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost: it is in the spool, from which the host's loop delivers it."""
    service.misbehave = lambda name, given: (503, b"") if name == "reportAttempt" else None
    code = (
        REQUESTS
        + f"""
for step in range(100_000):
    log("loss", float(step), step)
    with open({str(tmp_path / "accepted")!r}, "a") as file:
        file.write(f"{{step}}\\n")
"""
    )
    started = supervise(code)
    accepted = tmp_path / "accepted"
    deadline = time.monotonic() + 60
    while not accepted.exists() or accepted.read_text().count("\n") < 50:
        assert time.monotonic() < deadline, started.complaints
    started.process.kill()
    started.process.wait()
    started.kill()
    acknowledged = [int(line) for line in accepted.read_text().splitlines()]
    spooled = [
        entry[2]
        for file in sorted(started.directory.glob("*.jsonl"))
        for line in file.read_text().splitlines()
        for entry in json.loads(line)
        if entry[0] == "point"
    ]
    assert spooled[: len(acknowledged)] == acknowledged
    assert len(spooled) <= len(acknowledged) + 1  # the one that was not answered


def test_a_repeated_report_doubles_nothing(service: Any, supervise: Any) -> None:
    answers = iter([(503, b""), None] * 1_000)
    service.misbehave = lambda name, given: next(answers) if name == "reportAttempt" else None
    service.stores_first = True
    supervise(REQUESTS + "for step in range(50): log('loss', step, step)").wait()
    assert service.points("loss") == [(step, float(step)) for step in range(50)]


def test_a_child_that_does_not_start_leaves_no_listener(service: Any, supervise: Any) -> None:
    started = supervise(entrypoint=["no-such-command"])
    assert started.wait() == 0
    assert service.exit["reason"] == "LAUNCH_ERROR"
    assert "Traceback" not in started.complaints
