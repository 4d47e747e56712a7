"""Input of a supervisor: the assignment written by its engine, and the order of the service.

The assignment (`config.json` in the attempt's directory) holds the settings of the machine; the order comes with the
reply to hello and holds the user's request.

The supervisor appends to the assignment, a JSON object per line, what its engine needs once it is dead: the nonce of
its hello, the identity of its child, and the exit of one that printed nothing. A file for each would cost more than
all else that a short attempt does on the disk: ext4 reuses no inode within a minute, and for each new file it looks at
all that were freed since.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FILE = "config.json"
REPORT_SPACING_SECONDS = 0.05  # 20 reports a second: a curve looks live, a busy run costs the service little
SPOOL_MEMORY_BYTES = 4 << 20  # sealed batches beyond this go to files
SPOOL_LIMIT_BYTES = 64 << 20  # and beyond this, with the disk full, reading stops


@dataclass(frozen=True)
class Assignment:
    """Id, token and paths of the attempt on this machine."""

    directory: Path
    attempt_id: str
    token: str = field(repr=False)
    address_file: Path
    checkpoint_directory: Path
    output_directory: Path
    work_directory: Path
    allowed_roots: tuple[Path, ...]
    give_up_seconds: float
    spool_memory_bytes: int
    spool_limit_bytes: int
    rank: int = 0
    world_size: int = 1
    save_seconds: float = 0.0  # for files after the child's end; 0: the service keeps none
    newest_file: Path | None = None  # number of the newest attempt whose files are on this machine
    checkpoint_source: Path | None = None  # another simulation's, of which this one begins with a copy
    begins_from_store: bool = False  # likewise, with the one that is stored
    package: str | None = None  # digest of the package of code that it starts in, in the working directory
    packages_directory: Path | None = None  # archives of packages on this machine
    visible_devices: str | None = None  # CUDA_VISIBLE_DEVICES, where the engine assigns the GPUs; None: by the order

    @classmethod
    def read(cls, directory: Path) -> Assignment:
        config = read(directory)
        source = config.get("checkpoint_source")
        return cls(
            directory=directory,
            attempt_id=config["attempt_id"],
            token=config["token"],
            address_file=directory / config["address_file"],
            checkpoint_directory=directory / config["checkpoint_directory"],
            output_directory=directory / config.get("output_directory", "output"),
            work_directory=directory / config.get("work_directory", "work"),
            allowed_roots=tuple(Path(root) for root in config.get("allowed_roots", ())),
            give_up_seconds=float(config["give_up_seconds"]),
            spool_memory_bytes=int(config.get("spool_memory_bytes", SPOOL_MEMORY_BYTES)),
            spool_limit_bytes=int(config.get("spool_limit_bytes", SPOOL_LIMIT_BYTES)),
            rank=int(config.get("rank", 0)),
            world_size=int(config.get("world_size", 1)),
            save_seconds=float(config.get("save_seconds", 0.0)),
            newest_file=directory / config["newest_file"] if "newest_file" in config else None,
            checkpoint_source=directory / source if source is not None else None,
            begins_from_store=bool(config.get("begins_from_store", False)),
            package=config.get("package"),
            packages_directory=directory / config["packages_directory"] if "packages_directory" in config else None,
            visible_devices=config.get("visible_devices"),
        )

    def assign_devices(self, order: Order) -> Order:
        """Return the order with the GPU indices of `visible_devices`; UUIDs of devices have none."""
        if self.visible_devices is None:
            return order
        named = self.visible_devices.split(",")
        return replace(order, gpu_indices=tuple(int(each) for each in named if each.strip().isdecimal()))


def write(directory: Path, config: Mapping[str, object]) -> None:
    """Write the assignment of an attempt, for the owner alone: its token is in it. Raises OSError."""
    with open(os.open(directory / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(config, file)


def append(directory: Path, fact: Mapping[str, object]) -> None:
    """Append a fact for the engine. Raises OSError."""
    descriptor = os.open(directory / FILE, os.O_WRONLY | os.O_APPEND)
    try:
        line = f"\n{json.dumps(fact)}".encode()  # on a line of its own, also behind a torn one
        if os.write(descriptor, line) < len(line):
            raise OSError("the disk is full")
    finally:
        os.close(descriptor)


def read(directory: Path) -> dict[str, Any]:
    """Read the assignment together with the facts behind it, of which one may be torn.

    Raises OSError, or ValueError for what is no assignment: a simulation can write to the file, too.
    """
    first, *facts = (directory / FILE).read_bytes().split(b"\n")
    config = json.loads(first)
    if not isinstance(config, dict):
        raise ValueError(f"{FILE} holds no object")
    for fact in facts:
        with contextlib.suppress(ValueError, TypeError):
            config.update(json.loads(fact))
    return config


@dataclass(frozen=True)
class Order:
    """The simulation to run, from the reply to hello. Both `max_*_seconds` are None without a limit."""

    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: str | None
    max_runtime_seconds: float | None
    stop_grace_seconds: float
    heartbeat_seconds: float
    gpu_indices: tuple[int, ...]
    metrics_from: str = "AUTO"  # AUTO, JSON or NONE: what the readers take points from
    metrics_patterns: tuple[str, ...] = ()
    max_cost_seconds: float | None = None
    tensorboard: tuple[str, ...] = ()  # further directories with event files, relative to the working directory
    system_metrics_seconds: float = 0.0  # interval; 0: none
    rank: int = 0
    world_size: int = 1
    addresses: tuple[str, ...] = ()  # of the members' hosts, by rank; empty for a single member
    master_port: int | None = None  # on the host of rank 0

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> Order:
        """Read the order of a hello reply. Raises ValueError, TypeError or KeyError on invalid input."""
        entrypoint, environment, gpus = raw["entrypoint"], raw["environment"] or {}, raw["gpuIndices"] or []
        directory, limit = raw["workingDirectory"], raw["maxRuntimeSeconds"]
        mode, patterns = raw.get("metricsFrom") or "AUTO", raw.get("metricsPatterns") or []
        tensorboard = raw.get("tensorboard") or []
        rank, size, addresses = raw.get("rank") or 0, raw.get("worldSize") or 1, raw.get("addresses") or []
        port = raw.get("masterPort")
        if not isinstance(entrypoint, list) or not entrypoint or not all(isinstance(word, str) for word in entrypoint):
            raise ValueError("entrypoint")
        if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
            raise ValueError("environment")
        if not isinstance(gpus, list) or not (directory is None or isinstance(directory, str)):
            raise ValueError("gpuIndices or workingDirectory")
        if not isinstance(mode, str) or not isinstance(patterns, list):
            raise ValueError("metricsFrom or metricsPatterns")
        if not isinstance(tensorboard, list) or not all(isinstance(each, str) for each in tensorboard):
            raise ValueError("tensorboard")
        if not isinstance(rank, int) or not isinstance(size, int) or not 0 <= rank < size:
            raise ValueError("rank or worldSize")
        if not isinstance(addresses, list) or not (port is None or isinstance(port, int)):
            raise ValueError("addresses or masterPort")
        return cls(
            entrypoint=tuple(entrypoint),
            environment=environment,
            working_directory=directory,
            max_runtime_seconds=_limit(limit),
            stop_grace_seconds=_seconds(raw["stopGraceSeconds"]),
            heartbeat_seconds=max(_seconds(raw["heartbeatSeconds"]), REPORT_SPACING_SECONDS),
            gpu_indices=tuple(int(index) for index in gpus),
            metrics_from=mode,
            metrics_patterns=tuple(map(str, patterns)),
            max_cost_seconds=_limit(raw.get("maxCostSeconds")),
            tensorboard=tuple(tensorboard),
            system_metrics_seconds=_seconds(raw.get("systemMetricsSeconds") or 0.0),
            rank=rank,
            world_size=size,
            addresses=tuple(map(str, addresses)),
            master_port=port,
        )


@dataclass(frozen=True)
class OrderChange:
    """Changed parts of the order, from a reply to a report. All of them hold, as times from the child's start."""

    heartbeat_seconds: float
    max_runtime_seconds: float | None
    max_cost_seconds: float | None

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> OrderChange:
        """Read the change of a reply. Raises ValueError or KeyError on invalid input."""
        return cls(
            heartbeat_seconds=max(_seconds(raw["heartbeatSeconds"]), REPORT_SPACING_SECONDS),
            max_runtime_seconds=_limit(raw["maxRuntimeSeconds"]),
            max_cost_seconds=_limit(raw["maxCostSeconds"]),
        )


def _limit(value: object) -> float | None:
    return None if value is None else _seconds(value)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no number of seconds")
    return float(value)
