"""Recorded jobs of GPU clusters, for the replay of the scheduling policy.

Two public formats, told apart by their columns; a name that ends in .gz is unpacked:

    Muri        job_id, num_gpu, submit_time (ms), iterations, iteration_time (ms)      8 nodes of 8 GPUs
    ElasticFlow job_id, submission_time (s), duration (s), num_gpu      as many nodes as give a load of 0.85

A job of up to 8 GPUs runs on one node, a larger one on whole nodes. `published_sim_results.csv` beside a trace of Muri
holds average job completion times of other policies.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GPUS_OF_NODE = 8
MURI_NODES = 8
MURI_SLOWDOWN = 1.015  # of an iteration, in Muri's simulator
LOAD = 0.85


@dataclass(frozen=True, slots=True)
class Job:
    """One recorded job; seconds."""

    id: int
    gpus: int
    submitted: float
    duration: float

    @property
    def nodes(self) -> int:
        """Members, each on a node of its own."""
        return max(math.ceil(self.gpus / GPUS_OF_NODE), 1)

    @property
    def held_gpus(self) -> int:
        return self.gpus if self.gpus <= GPUS_OF_NODE else self.nodes * GPUS_OF_NODE


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs by their time of submission, and the cluster they ran on. `published`: average completion times, seconds."""

    name: str
    jobs: Sequence[Job]
    nodes: int
    published: Mapping[str, float]


def read(path: Path) -> Trace:
    """Read a trace."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    name = path.name.split(".")[0]
    is_muri = bool(rows) and "iterations" in rows[0]
    jobs = [_of_muri(number, row) if is_muri else _of_elasticflow(number, row) for number, row in enumerate(rows, 1)]
    jobs = sorted((job for job in jobs if job.duration > 0 and job.gpus > 0), key=lambda job: (job.submitted, job.id))
    return Trace(name, jobs, MURI_NODES if is_muri else nodes_for(jobs), _published(path.parent, name))


def nodes_for(jobs: Sequence[Job]) -> int:
    """Return how many nodes give the load of 0.85, or have room for the largest job."""
    span = max(job.submitted for job in jobs) - min(job.submitted for job in jobs)
    work = sum(job.held_gpus * job.duration for job in jobs)
    return max(math.ceil(work / span / GPUS_OF_NODE / LOAD) if span > 0 else 1, *(job.nodes for job in jobs))


def _of_muri(number: int, row: Mapping[str, str]) -> Job:
    duration = float(row["iterations"]) * float(row["iteration_time"]) * MURI_SLOWDOWN / 1000
    return Job(number, int(row["num_gpu"]), float(row["submit_time"]) / 1000, duration)


def _of_elasticflow(number: int, row: Mapping[str, str]) -> Job:
    return Job(number, int(row["num_gpu"]), float(row["submission_time"]), float(row["duration"]))


def _published(folder: Path, name: str) -> Mapping[str, float]:
    path = folder / "published_sim_results.csv"
    if not path.exists():
        return {}
    rows = csv.DictReader(io.StringIO(path.read_text()))
    return {row["policy"]: float(row["seconds"]) for row in rows if row["trace"] == name and row["metric"] == "avg_jct"}
