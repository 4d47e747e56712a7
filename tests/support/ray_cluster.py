"""A real Ray cluster on this host: a head without CPUs and two workers, with a token, one for each pytest process.

The tests run on request (`make test-ray` sets REQUIRE_RAY): they take minutes and 1.5 GB of memory. Ray has an
environment of its own, for its requirements exclude ours. The nodes are processes of the address 127.0.0.1, told apart
by names, labels and ids.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import environments
import httpx
import psutil
import pytest
from live import free_port, kill
from warm import end_with_parent

LOCK = Path(__file__).with_name("clusters") / "ray.lock"
PATIENCE_SECONDS = 240.0  # a node on a busy machine took more than one minute
TRIES = 3  # Ray gives up a node that takes 30 s
STORE_BYTES = 80_000_000  # the least that Ray takes is 75 MiB
MEMORY_BYTES = 2 << 30
WORKERS = {  # few CPUs: for each, Ray starts a Python worker at once, which costs three seconds of CPU
    "one": (1, {"zone": "a", "simulations/price-per-hour": "1.50"}),
    "two": (2, {"zone": "b", "ray.io/node-group": "big"}),
}
# A node that was killed refuses connections, and is dead after three of them; one that is slow has its time.
BRISK = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Cluster:
    """A cluster that runs; `nodes` are the processes of `ray start`, by the node's name."""

    python: str
    directory: Path
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the cluster itself."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(f"{self.url}{path}", params=parameters, headers=headers, timeout=30, trust_env=False)
        return answer.raise_for_status().json()

    def living(self) -> Mapping[str, str]:
        """The ids of the living nodes by their names, as the cluster sees them."""
        rows = self.get("/api/v0/nodes", detail="1", limit="1000")["data"]["result"]["result"]
        return {row["node_name"]: row["node_id"] for row in rows if row["state"] == "ALIVE"}

    def start(self) -> None:
        """Start the head, then the workers one after another: two at once may time out. Raises AssertionError."""
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(self.token)
        self._start(
            "head",
            "--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={free_port()}", f"--temp-dir={self.directory}/ray", "--num-cpus=0",
            "--no-monitor", "--include-log-monitor=false",
        )  # fmt: skip
        for name in WORKERS:
            self.add(name)

    def add(self, name: str) -> None:
        """Start a worker and wait until it has joined. Not from a thread that ends, whose children end with it."""
        cpus, labels = WORKERS[name]
        told = ",".join(f"{key}={value}" for key, value in labels.items())
        self._start(
            name, f"--address=127.0.0.1:{self.port}", f"--num-cpus={cpus}", f"--labels={told}", "--num-gpus=0",
            f"--memory={MEMORY_BYTES}", "--include-log-monitor=false",
        )  # fmt: skip

    def crash(self, name: str) -> None:
        """Kill all processes of a node at once, with the jobs on it, as if its machine had lost its power."""
        started = self.nodes.pop(name)
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            first = psutil.Process(started.pid)
            others = first.children(recursive=True)
            kill(first, *others)
            psutil.wait_procs(others, timeout=PATIENCE_SECONDS)
        started.wait(PATIENCE_SECONDS)

    def lose_daemon(self, name: str) -> None:
        """Kill a node's raylet alone, after which Ray ends its own processes there."""
        started = self.nodes.pop(name)
        for process in psutil.Process(started.pid).children(recursive=True):
            if process.name() == "raylet":
                process.kill()
        started.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Kill all nodes, workers first."""
        for name in [*reversed(self.nodes)]:
            self.crash(name)

    def _start(self, name: str, *options: str) -> None:
        for _ in range(TRIES):
            self._run(name, *options)
            if self._comes_up(name):
                return
            self.crash(name)
        log = (self.directory / f"{name}.log").read_text(errors="replace")
        raise AssertionError(f"the node {name} of Ray did not come up:\n{log[-3000:]}")

    def _run(self, name: str, *options: str) -> None:
        ports = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port")
        command = [
            self.python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
            "--node-ip-address=127.0.0.1", f"--node-name={name}", f"--object-store-memory={STORE_BYTES}", *options,
            *(f"{each}={free_port()}" for each in ports), f"--metrics-export-port={free_port()}",
        ]  # fmt: skip
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
            **BRISK,
            "PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
        }
        with (self.directory / f"{name}.log").open("ab") as log:
            self.nodes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.directory,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip

    def _comes_up(self, name: str) -> bool:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.nodes[name].poll() is None:
            with suppress(httpx.HTTPError, LookupError, TypeError, ValueError):
                if name in self.living():
                    return True
            time.sleep(0.05)
        return False


@contextmanager
def started() -> Iterator[Cluster]:
    """A cluster while the block runs."""
    if not os.environ.get("REQUIRE_RAY"):
        pytest.skip("needs Ray, 1.5 GB of memory and some minutes: make test-ray")
    python = environments.python_of(LOCK, "REQUIRE_RAY")
    cluster = Cluster(python, Path(tempfile.mkdtemp(prefix="simulations-ray-", dir="/tmp")))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(cluster.directory, ignore_errors=True)
