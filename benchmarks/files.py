"""A checkpoint on its way to another machine: saved after the end of one simulation, and brought to the next.

    python -m benchmarks.files --size-mib 1024
    python -m benchmarks.files --files 's3://bucket?endpoint=http://127.0.0.1:8333&style=path'

A simulation writes a file of random bytes into its checkpoint directory and ends; it is FINISHED when that is stored. A
fork begins with what is stored, which its supervisor fetches as it would on another machine: here both are one, and the
network is the loopback device.

Saved: from the program's last line to FINISHED. Brought: from the request for the fork to its program's first line.
What both take without a checkpoint, in the same run, is subtracted. The floor is `curl` copying the same file from an
HTTP server of Python's standard library to a file, once; promised is half of its rate, for both ways together. The last
rows have that copy synced to the disk, as the store does with what is saved.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from gql import Client, GraphQLRequest
from gql.transport.httpx import HTTPXAsyncTransport

from benchmarks.report import Row, publish
from benchmarks.service import running_service

MIB = 1 << 20
LOOK_SECONDS = 0.25  # the moments that count are read from what the simulation and its row say
WRITE = """
import json, os, pathlib, time
kept = pathlib.Path(os.environ["SIMULATION_CHECKPOINT_DIR"], "model")
with open(kept.with_name("new"), "wb") as file:
    for _ in range(int(os.environ["SIMULATION_PARAMETER_MIB"])):
        file.write(os.urandom(1 << 20))
if kept.with_name("new").stat().st_size:
    kept.with_name("new").replace(kept)
else:
    kept.with_name("new").unlink()
print(json.dumps({"step": 1, "at": time.time()}), flush=True)
"""
BEGIN = """
import json, time
print(json.dumps({"step": 1, "at": time.time()}), flush=True)
"""
CREATE = """mutation ($input: CreateSimulationInput!) {
  createSimulation(input: $input) { simulation { id } userErrors { message } }
}"""
FORK = """mutation ($input: ForkSimulationInput!) {
  forkSimulation(input: $input) { simulation { id } userErrors { message } }
}"""
SHOW = """query ($id: ID!) {
  simulation(id: $id) { state reasonDetail finishedAt metric(name: "at") { lastValue } files(first: 1) { totalBytes } }
}"""


async def ways(address: str, size_mib: int) -> tuple[float, float]:
    """Seconds of a save and of a way back, with what both take for nothing."""
    async with Client(transport=HTTPXAsyncTransport(f"{address}/graphql", timeout=60), execute_timeout=60) as client:

        async def ask(query: str, **variables: Any) -> Any:
            return await client.execute(GraphQLRequest(query, variable_values=variables))

        async def made(query: str, name: str, **given: Any) -> str:
            payload = (await ask(query, input=given))[name]
            if payload["userErrors"]:
                raise RuntimeError(payload["userErrors"])
            return str(payload["simulation"]["id"])

        async def ended(simulation: str) -> tuple[float, Any]:
            while True:
                shown = (await ask(SHOW, id=simulation))["simulation"]
                if shown["state"] in ("FINISHED", "FAILED", "CANCELLED"):
                    break
                await asyncio.sleep(LOOK_SECONDS)
            if shown["state"] != "FINISHED":
                raise RuntimeError(shown)
            return datetime.fromisoformat(shown["finishedAt"]).timestamp(), shown

        old = await made(
            CREATE, "createSimulation", entrypoint=[sys.executable, "-c", WRITE], parameters={"mib": size_mib}
        )
        at, shown = await ended(old)
        if int(shown["files"]["totalBytes"]) != size_mib * MIB:
            raise RuntimeError(f"not stored: {shown}")
        saved = at - float(shown["metric"]["lastValue"])
        asked = time.time()
        fork = await made(
            FORK, "forkSimulation", id=old, entrypoint=[sys.executable, "-c", BEGIN], fromCheckpoint=size_mib > 0
        )
        _, shown = await ended(fork)
        return saved, float(shown["metric"]["lastValue"]) - asked


def by_curl(size_mib: int) -> tuple[float, float]:
    """Seconds of a plain copy over the loopback device to a file, and of one that is on the disk then."""
    with tempfile.TemporaryDirectory(prefix="simulations-bench-") as place:
        with open(Path(place, "model"), "wb") as file:
            for _ in range(size_mib):
                file.write(os.urandom(MIB))
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=place))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            begun = time.perf_counter()
            url = f"http://127.0.0.1:{server.server_port}/model"
            subprocess.run(["curl", "--silent", "--fail", "--output", f"{place}/copy", url], check=True)
            copied = time.perf_counter() - begun
            with open(f"{place}/copy", "rb") as copy:
                os.fsync(copy.fileno())
            return copied, time.perf_counter() - begun
        finally:
            server.shutdown()
            server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: Any) -> None:
        pass


async def measure(address: str, size_mib: int, rounds: int) -> list[Row]:
    await ways(address, 1)  # processes that run once for a host are there
    nothing, whole, floor = [], [], []
    for _ in range(rounds):
        nothing.append(await ways(address, 0))
        whole.append(await ways(address, size_mib))
        floor.append(await asyncio.to_thread(by_curl, size_mib))
    saved, brought = (median(each[way] for each in whole) - median(each[way] for each in nothing) for way in (0, 1))
    rates = {
        "saved": size_mib / saved,
        "brought": size_mib / brought,
        "saved and brought": size_mib / (saved + brought),
    }
    rows = []
    for kind, seconds in zip(("", ", curl synced"), zip(*floor, strict=True), strict=True):
        of_floor = size_mib / median(seconds)
        rows += [Row("files", case + kind, rate, "MiB/s", of_floor, rate / of_floor) for case, rate in rates.items()]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", help="SIMULATIONS_FILES; default: a directory of the service")
    given = parser.parse_args()
    if shutil.which("curl") is None:
        sys.exit("curl is missing")
    settings = {"SIMULATIONS_FILES": given.files} if given.files else {}
    with running_service(SIMULATIONS_MACHINE_NAME="host", **settings) as address:
        rows = asyncio.run(measure(address, given.size_mib, given.rounds))
    publish("files", rows)
    print(json.dumps({"store": given.files.partition("?")[0] if given.files else "directory", "mib": given.size_mib}))


if __name__ == "__main__":
    main()
