"""A real Ray cluster on this host: a head without CPUs and two workers, with a token, one for each pytest process.

The tests run on request (`make test-ray` sets REQUIRE_RAY): they take minutes and 1.5 GB of memory. Ray has an
environment of its own, for its requirements exclude ours. The nodes are processes of the address 127.0.0.1, told apart
by names, labels and ids; each has a directory for temporary files of its own, so that files on one are not on another.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import environments
import httpx
import psutil
import pytest
from live import free_port, kill
from warm import end_with_parent

LOCK = Path(__file__).with_name("clusters") / "ray.lock"
START = LOCK.with_name("start_node.py")  # waits as long as this for the node's daemon
PATIENCE_SECONDS = 240.0  # a node on a busy machine took more than one minute
PAUSE_SECONDS = 0.05  # between two looks, each of which costs the head some milliseconds
TRIES = 3
STORE_BYTES = 80_000_000  # the least that Ray takes is 75 MiB
MEMORY_BYTES = 2 << 30
WORKERS = {
    "one": (1, {"zone": "a", "simulations/price-per-hour": "1.50"}),
    "two": (2, {"zone": "b", "ray.io/node-group": "big"}),
}
# A node that was killed refuses connections, and is dead after three of them; one that is slow has its time.
BRISK = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
    # A start on a busy machine: 5, 30, 60 s and so on by default.
    "RAY_gcs_rpc_server_connect_timeout_s": "240",
    "RAY_py_gcs_connect_timeout_s": "240",
    "RAY_agent_register_timeout_ms": "240000",
    "RAY_worker_register_timeout_seconds": "240",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
    "RUNTIME_ENV_RETRY_TIMES": "1",  # each time copies the environment
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # a node outlives its head for so long: 60 by default
}


FAKE_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
NONE_OF = (  # what an autoscaler runs and copies, and requires to be named
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
)  # fmt: skip
FAKE_HEAD_ID = "f" * 51 + "00000"
AUTOSCALED = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_ID,
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
    workers: Sequence[str] = tuple(WORKERS)
    starts: Mapping[str, object] | None = None  # types of nodes that its autoscaler may start, as Ray describes them

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    def own(self, name: str) -> Path:
        """The directory for temporary files of a node."""
        return self.directory / name

    def settings(self, tables: str = "", **more: str) -> dict[str, str]:
        """Settings of a service that has this cluster and no machine of its own. more: of the cluster's table.

        tables: further ones of the file.
        """
        table = {"address": self.url, "token_file": str(self.token_file), **more}
        file = self.directory / f"clusters-{sha256((json.dumps(table) + tables).encode()).hexdigest()[:8]}.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        file.write_text("\n".join(["[test]", *lines, 'prices = { big = "7.25" }', tables]))
        return {"SIMULATIONS_LOCAL_MACHINE": "false", "SIMULATIONS_RAY_CLUSTERS": str(file)}

    def attempts(self, installation: str) -> list[Path]:
        """Where the supervisors of a service have their directories: one for each node."""
        return [self.own(name) / f"simulations-{os.getuid()}" / installation / "attempts" for name in WORKERS]

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
        self.ensure()

    def ensure(self) -> None:
        """Start each node that does not run, and wait until it has joined; the head first.

        Not from a thread that ends: its children end with it.
        """
        for name in ("head", *self.workers):
            if name in self.nodes and not self._comes_up(name):
                self.crash(name)  # what is left of it
            if name not in self.nodes:
                self._start(name)

    def _options_of_head(self) -> Sequence[str]:
        # A directory for each start: Ray takes a cluster that is named there for one that still runs.
        directory = tempfile.mkdtemp(prefix="h", dir=self.directory)
        return (
            "--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={free_port()}", f"--temp-dir={directory}", "--num-cpus=0",
            "--include-log-monitor=false",
            *(["--no-monitor"] if self.starts is None else [f"--autoscaling-config={self._autoscaling(self.starts)}"]),
        )  # fmt: skip

    def _autoscaling(self, starts: Mapping[str, object]) -> Path:
        """Write the configuration of an autoscaler whose nodes are processes here: Ray's provider for its own tests."""
        provider = {"type": "external", "module": FAKE_PROVIDER, "launch_multiple": True, "head_node_id": FAKE_HEAD_ID}
        config = {
            "cluster_name": "test", "max_workers": 2, "upscaling_speed": 1.0, "idle_timeout_minutes": 0.1,
            "provider": {**provider, "gcs_address": f"127.0.0.1:{self.port}"},
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, **starts
            },
            "head_node_type": "ray.head.default", "auth": {}, "docker": {}, "file_mounts": {},
            **{each: [] for each in NONE_OF},
        }  # fmt: skip
        file = self.directory / "autoscaling.json"  # which is YAML too
        file.write_text(json.dumps(config))
        return file

    def _options_of_worker(self, name: str) -> Sequence[str]:
        cpus, labels = WORKERS[name]
        told = ",".join(f"{key}={value}" for key, value in labels.items())
        return (
            f"--address=127.0.0.1:{self.port}", f"--num-cpus={cpus}", f"--labels={told}", "--num-gpus=0",
            f"--memory={MEMORY_BYTES}", "--include-log-monitor=false",
        )  # fmt: skip

    def begin(self, name: str) -> None:
        """Start a worker without waiting for it: `ensure` does. The one before of its name is known to be dead."""
        while name in self.living():
            time.sleep(PAUSE_SECONDS)
        self._run(name, *self._options_of_worker(name))

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

    def lose_head(self) -> None:
        """Kill the head; the workers give up soon, and Ray ends its own processes there."""
        self.crash("head")
        for name in WORKERS:
            self.nodes.pop(name).wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """Kill all nodes, workers first."""
        for name in [*reversed(self.nodes)]:
            self.crash(name)

    def _start(self, name: str) -> None:
        for _ in range(TRIES):
            if name == "head":
                self._run(name, *self._options_of_head())
            else:
                self.begin(name)
            if self._comes_up(name):
                return
            self.crash(name)
        log = (self.directory / f"{name}.log").read_text(errors="replace")
        raise AssertionError(f"the node {name} of Ray did not come up:\n{log[-3000:]}")

    def _run(self, name: str, *options: str) -> None:
        ports = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port")
        command = [
            self.python, str(START), "start", "--block", "--disable-usage-stats",
            "--node-ip-address=127.0.0.1", f"--node-name={name}", f"--object-store-memory={STORE_BYTES}", *options,
            *(f"{each}={free_port()}" for each in ports), f"--metrics-export-port={free_port()}",
        ]  # fmt: skip
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
            **BRISK,
            **({} if self.starts is None else AUTOSCALED),
            "PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "TMPDIR": str(self.own(name)),
        }
        self.own(name).mkdir(exist_ok=True)
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
            time.sleep(PAUSE_SECONDS)
        return False


@contextmanager
def started(**more: Any) -> Iterator[Cluster]:
    """A cluster while the block runs. more: fields of `Cluster`."""
    if not os.environ.get("REQUIRE_RAY"):
        pytest.skip("needs Ray, 1.5 GB of memory and some minutes: make test-ray")
    python = environments.python_of(LOCK, "REQUIRE_RAY")
    cluster = Cluster(python, Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")), **more)  # short: sockets lie below
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(cluster.directory, ignore_errors=True)


def main() -> None:
    """Start a cluster, print its address and the file with its token, and keep it until the input ends."""
    os.environ["REQUIRE_RAY"] = "1"
    with started() as cluster:
        print(json.dumps({"address": cluster.url, "token_file": str(cluster.token_file)}), flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main()
