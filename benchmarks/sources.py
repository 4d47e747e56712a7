"""Cost of the supervisor with all sources and system metrics on, against the same supervisor with all of them off.

A whole supervisor from its archive runs a program that computes, prints, and records 20 values a second by an event
file, the named pipe and MLflow's API. Supervisor and program share one core; the service is a stub on another one. With
everything off (`metricsFrom: NONE`, no system metrics) the program prints and records the same, except that it has no
MLflow: its requests are left out of the wall time's cases. Both alternate, and medians count.
Beside the wall time the CPU time of both processes, which other work on the machine hardly changes.

At most 1.05 is promised of the wall time, and for a program that prints nothing at most 1 % of a core more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.report import Row, publish
from runner import archive

ATTEMPT = "QXR0ZW1wdDox"
RATE = 17_000  # lines for each second of the program's own work
VALUES = 20  # recorded a second, by each source
INTERVAL_SECONDS = 10.0  # of system metrics: the default
QUIET_CPU = 0.01  # CPU seconds a second that all sources may use beside a quiet program

# It computes for so many CPU seconds, prints so many lines a second and records VALUES a second.
PROGRAM = """
import http.client, json, os, struct, sys, time
seconds, rate, values = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
records, sends = sys.argv[4] == "1", sys.argv[5] == "1"
line = b"2026-11-29 06:49:12,838 INFO server: handled request %d of worker 3 in 0.25 s\\n"
def varint(number):
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])
def event(step, value):
    inner = b"\\x0a\\x08recorded\\x15" + struct.pack("<f", value)
    summary = b"\\x0a" + varint(len(inner)) + inner
    data = b"\\x09" + struct.pack("<d", time.time()) + b"\\x10" + varint(step)
    data += b"\\x2a" + varint(len(summary)) + summary
    return struct.pack("<Q", len(data)) + b"0000" + data + b"0000"
if records:
    events = open(f"events.out.tfevents.{int(time.time())}.host", "wb", buffering=0)
    report = open(os.environ["SIMULATION_REPORT"], "wb", buffering=0)
connection = None
if sends and "MLFLOW_TRACKING_URI" in os.environ:
    connection = http.client.HTTPConnection(os.environ["MLFLOW_TRACKING_URI"].rpartition("/")[2])
    headers = {"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"]}
written = step = 0
begun = time.monotonic()
while (spent := time.process_time()) < seconds:
    lines = int(spent * rate) - written
    if lines >= 170:
        os.write(1, b"".join(line % n for n in range(lines)))
        written += lines
    if spent * values >= step and (records or sends):
        if records:
            events.write(event(step, step))
            report.write(b'{"step": %d, "reported": %d}\\n' % (step, step))
        if connection is not None:
            metric = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": "sent", "value": step}
            metric |= {"timestamp": step, "step": step + 1}
            connection.request("POST", "/api/2.0/mlflow/runs/log-metric", json.dumps(metric), headers)
            connection.getresponse().read()
        step += 1
with open("spent", "w") as file:
    file.write(f"{time.monotonic() - begun} {time.process_time()}")
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What the program does beside computing."""

    name: str
    lines: int = 0  # a second
    records: bool = False  # by an event file and the named pipe
    sends: bool = False  # to MLflow's API


WALL = (
    Case("a program that prints nothing"),
    Case("17,000 lines a second", lines=RATE),
    Case("17,000 lines a second, event file and pipe", lines=RATE, records=True),
)
CPU = (*WALL, Case("event file, pipe and MLflow", records=True, sends=True))


@contextmanager
def service(order: dict[str, Any]) -> Iterator[str]:
    """A stub that acknowledges every report at once."""
    expected = 1

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            nonlocal expected
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            given: dict[str, Any] = request["variables"]["input"]
            more: dict[str, Any]
            answer: dict[str, Any] = {"attempt": {"id": ATTEMPT}, "userErrors": []}
            if "helloAttempt(" in request["query"]:
                name, more = "helloAttempt", {"verdict": "CONTINUE", "order": order}
            else:
                expected = max(expected, (given.get("batch") or 0) + 1)
                name, more = "reportAttempt", {"verdict": "CONTINUE", "stopReason": None, "expectedBatch": expected}
            content = json.dumps({"data": {name: {**answer, **more}}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/graphql"
    finally:
        server.shutdown()
        server.server_close()


def spent_of(case: Case, seconds: float, *, is_on: bool, core: int, program: Path) -> tuple[float, float, float]:
    """Wall seconds of the program's loop, CPU seconds of the supervisor for each of them, and those of both in all."""
    words = [sys.executable, "-c", PROGRAM, seconds, case.lines, VALUES, int(case.records), int(case.sends)]
    order: dict[str, Any] = {
        "entrypoint": [str(word) for word in words], "environment": {}, "workingDirectory": None,
        "maxRuntimeSeconds": None, "stopGraceSeconds": 20.0, "heartbeatSeconds": 2.0, "gpuIndices": [],
        "metricsFrom": "AUTO" if is_on else "NONE",
        "systemMetricsSeconds": INTERVAL_SECONDS if is_on else 0.0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place, service(order) as url:
        directory = Path(place, "attempt")
        directory.mkdir()
        Path(place, "address").write_text(url)
        config = {
            "attempt_id": ATTEMPT, "token": "token", "address_file": f"{place}/address", "give_up_seconds": 60,
            "checkpoint_directory": f"{place}/checkpoints", "output_directory": f"{place}/output",
        }  # fmt: skip
        (directory / "config.json").write_text(json.dumps(config))
        with open(directory / "supervisor.log", "wb") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(program), str(directory)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )  # fmt: skip
        _, status, usage = os.wait4(supervisor.pid, 0)
        supervisor.returncode = os.waitstatus_to_exitcode(status)
        if supervisor.returncode != 0:
            raise RuntimeError((directory / "supervisor.log").read_text())
        wall, computed = map(float, (directory / "work" / "spent").read_text().split())
    # The usage of a process that was waited for has that of its children in it.
    spent = usage.ru_utime + usage.ru_stime
    return wall, (spent - computed) / wall, spent


def measure(turns: int, seconds: float) -> list[Row]:
    rows = []
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    if len(allowed) > 1:
        os.sched_setaffinity(0, allowed - {core})  # the stub's
    try:
        with tempfile.TemporaryDirectory() as place:
            program = archive.install(Path(place))
            for case in CPU:
                both = [
                    [spent_of(case, seconds, is_on=is_on, core=core, program=program) for is_on in (True, False)]
                    for _ in range(turns)
                ]
                (wall, cpu, spent), (wall_off, cpu_off, spent_off) = (
                    [statistics.median(turn[at][kind] for turn in both) for kind in range(3)] for at in (0, 1)
                )
                if case in WALL:
                    rows.append(Row("sources", f"one core, wall: {case.name}", wall, "s", wall_off, wall / wall_off))
                    ratio = spent / spent_off
                    rows.append(Row("sources", f"one core, CPU time: {case.name}", spent, "s", spent_off, ratio))
                rows.append(Row("sources", f"CPU: {case.name}", cpu * 1e3, "ms a second", cpu_off * 1e3, cpu / cpu_off))
                if case == WALL[0]:
                    more = max(cpu - cpu_off, 0.0)
                    case_name = f"quiet, CPU more: {case.name}"
                    rows.append(Row("sources", case_name, more * 1e3, "ms a second", QUIET_CPU * 1e3, more / QUIET_CPU))
    finally:
        os.sched_setaffinity(0, allowed)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="of each, the median counts (default 3)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of the program's own work (default 12)")
    arguments = parser.parse_args()
    publish("sources", measure(arguments.turns, arguments.seconds))


if __name__ == "__main__":
    main()
