"""MLflow's REST API (`/api/2.0/mlflow/`), as far as tracking needs it: metrics become points.

Tested with the clients of MLflow 2.22 and 3.17. The run of `MLFLOW_RUN_ID` is the simulation, and so is the first run
that a program creates before it has logged to that one (Lightning's logger never reads MLFLOW_RUN_ID). Metrics of other
runs are prefixed with the run's name.

A metric never gets an error: it would end the user's program. MLflow's status of a run is no outcome: the exit code is.
Artifacts go to a directory by `file://` and never through here.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from runner.supervisor.sources.intake import Intake, Point

SOURCE = "MLflow"
PATH = "/api/2.0/mlflow/"
GATHER_SECONDS = 0.25  # the longest wait for the other connections of a client that logs asynchronously
FIRST_SECONDS = 0.1  # for the first batch of a connection, as the others may be about to connect
LATELY_SECONDS = 0.5  # since its last batch, a connection counts as one of them
MAX_RUNS = 1_000
MAX_REMEMBERED = 10_000  # metrics, to recognise a repeated request; names of a run's values
EXPERIMENT = "0"  # one for all: start_run raises if the experiment of its run is another
IGNORED = frozenset({"runs/log-inputs", "runs/outputs", "runs/log-model", "runs/delete-tag", "runs/set-terminated"})
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
EXPLICIT = -1

Document = Mapping[str, Any]


class Metric(NamedTuple):
    """A logged value."""

    key: str
    value: float
    timestamp: int
    step: int


class NoSuchEndpoint(Exception):
    """The request is for nothing that is offered here; the message is for the user."""


class Run:
    """A run that the client has created, or the simulation's own."""

    def __init__(self, run_id: str, name: str, prefix: str) -> None:
        self.run_id = run_id
        self.name = name
        self.prefix = prefix
        self.status = "RUNNING"
        self.start_time = int(time.time() * 1000)
        self.end_time: int | None = None
        self.metrics: dict[str, Metric] = {}
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def step(self, metric: Metric) -> int:
        """Return a metric's step. MLflow sends 0 where none was given: zeros are counted until another step comes."""
        count = self._counts.get(metric.key, 0)
        if metric.step != 0 or count == EXPLICIT:
            self._counts[metric.key] = EXPLICIT
            return metric.step
        self._counts[metric.key] = count + 1
        return count

    def note(self, tags: Document, params: Document) -> None:
        """Keep tags and parameters, so that the client reads them back."""
        for kept, given in ((self.tags, tags), (self.params, params)):
            for name, value in given.items():
                if name in kept or len(kept) < MAX_REMEMBERED:
                    kept[name] = value


class _Batch:
    def __init__(self, run: Run, metrics: list[Metric], connection: int) -> None:
        self.run = run
        self.metrics = metrics
        self.connection = connection
        self.is_taken = False


class Mlflow:
    """The runs of one attempt. `answer` may be called from any thread."""

    def __init__(self, intake: Intake, run_id: str, name: str, artifacts: Path) -> None:
        self._intake = intake
        self._artifacts = artifacts
        self._changed = threading.Condition()
        self._own = Run(run_id, name, "")
        self._runs = {run_id: self._own}
        self._is_used = False  # the simulation's run has got metrics, or is another run's
        self._pending: list[_Batch] = []
        self._loggers: dict[tuple[str, int], float] = {}  # run and connection: the last batch
        self._remembered: OrderedDict[tuple[str, str], int] = OrderedDict()  # and the connection it came by
        self._models = 0

    def answer(self, method: str, path: str, query: str, body: bytes, connection: int) -> Document:
        """Carry out a request. Raises NoSuchEndpoint, or ValueError for a body that is no JSON object."""
        given = json.loads(body) if body else {name: values[-1] for name, values in parse_qs(query).items()}
        if not isinstance(given, dict):
            raise ValueError("a JSON object is expected")
        name = path[len(PATH) :]
        if name in ("runs/log-metric", "runs/log-batch"):
            return self._log(name, given, connection)
        with self._changed:
            if name == "runs/get":
                return {"run": self._shown(self._find(given))}
            if name == "runs/create":
                return {"run": self._shown(self._create(given))}
            if name == "runs/update":
                return {"run_info": self._info(self._update(given))}
            if name == "runs/log-parameter":
                self._note(self._find(given, is_logging=True), {}, {_text(given, "key"): _text(given, "value")})
                return {}
            if name == "runs/set-tag":
                self._note(self._find(given, is_logging=True), {_text(given, "key"): _text(given, "value")}, {})
                return {}
            if name == "logged-models" or name.startswith("logged-models/"):
                return {"model": self._model(name, given)}
        if name in ("experiments/get-by-name", "experiments/get"):
            return {"experiment": self._experiment(_text(given, "experiment_name") or "Default")}
        if name == "experiments/create":
            return {"experiment_id": EXPERIMENT}
        if name in IGNORED:
            return {}
        raise NoSuchEndpoint(f"{method} {path} is not offered inside a simulation")

    def forget(self, connection: int) -> None:
        """Note the end of a connection: no other waits for it."""
        with self._changed:
            for key in [key for key in self._loggers if key[1] == connection]:
                del self._loggers[key]
            self._changed.notify_all()

    # --- metrics ---

    def _log(self, name: str, given: Document, connection: int) -> Document:
        metrics = _metrics([given] if name == "runs/log-metric" else given.get("metrics"))
        self._intake.wait_for_room()
        with self._changed:
            run = self._find(given, is_logging=True)
            self._note(run, _pairs(given.get("tags")), _pairs(given.get("params")))
            if metrics:
                batch = _Batch(run, metrics, connection)
                if name == "runs/log-metric":
                    self._take([batch])
                else:
                    self._gather(batch)
        return {}

    def _gather(self, batch: _Batch) -> None:
        """Take a batch together with those of the client's other connections.

        An asynchronous client sends consecutive values over up to ten connections, each of which waits for its answer:
        when all of them wait, their values are put in order. A client with one connection waits once, for its first.
        """
        run_id = batch.run.run_id
        self._pending.append(batch)
        now = time.monotonic()
        is_first = (run_id, batch.connection) not in self._loggers
        until = now + (FIRST_SECONDS if is_first else GATHER_SECONDS)
        self._loggers[run_id, batch.connection] = now
        while not batch.is_taken:
            waiting = [each for each in self._pending if each.run is batch.run]
            others = sum(1 for (run, _), at in self._loggers.items() if run == run_id and at > now - LATELY_SECONDS)
            left = until - time.monotonic()
            if (len(waiting) >= others and not is_first) or left <= 0:
                self._pending = [each for each in self._pending if each.run is not batch.run]
                self._take(waiting)
                self._changed.notify_all()
            else:
                self._changed.wait(left)

    def _take(self, batches: list[_Batch]) -> None:
        run = batches[0].run
        fresh = [
            metric
            for batch in batches
            for metric in batch.metrics
            if not self._is_repeated(run, metric, batch.connection)
        ]
        fresh.sort(key=lambda metric: (metric.step, metric.timestamp))
        self._is_used = self._is_used or run is self._own
        for metric in fresh:
            if metric.key in run.metrics or len(run.metrics) < MAX_REMEMBERED:
                run.metrics[metric.key] = metric
        self._intake.add(SOURCE, [Point(run.prefix + each.key, run.step(each), each.value) for each in fresh])
        for batch in batches:
            batch.is_taken = True

    def _is_repeated(self, run: Run, metric: Metric, connection: int) -> bool:
        """Whether the same metric came by another connection: a client that got no answer sends again by a new one."""
        key = (run.run_id, repr(metric))  # as text: NaN is not equal to itself
        earlier = self._remembered.get(key)
        if earlier is None:
            self._remembered[key] = connection
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return earlier is not None and earlier != connection

    # --- runs ---

    def _find(self, given: Document, *, is_logging: bool = False) -> Run:
        run_id = _text(given, "run_id") or _text(given, "run_uuid") or self._own.run_id
        run = self._runs.get(run_id)
        if run is not None:
            return run
        if is_logging and len(self._runs) < MAX_RUNS:
            return self._add(run_id, "")
        if is_logging:
            return self._own
        raise NoSuchEndpoint(f"Run {run_id} is not of this simulation")

    def _create(self, given: Document) -> Run:
        tags = _pairs(given.get("tags"))
        name = _text(given, "run_name") or str(tags.get(NAME_TAG, ""))
        run_id = f"{self._own.run_id[:24]}{len(self._runs):08x}"
        if self._is_used or PARENT_TAG in tags:
            run = self._add(run_id, name)
        else:
            self._is_used = True
            run = self._runs[run_id] = Run(run_id, name or self._own.name, "")
        self._note(run, tags, {})
        return run

    def _note(self, run: Run, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """Keep tags and parameters; those of the simulation's own runs are its own, but for MLflow's tags."""
        run.note(tags, params)
        if not run.prefix and (tags or params):
            shown = [f"{name}={value}" for name, value in tags.items() if not name.startswith("mlflow.")]
            self._intake.describe(params, shown)

    def _add(self, run_id: str, name: str) -> Run:
        name = name or f"run-{len(self._runs)}"
        taken = {run.prefix for run in self._runs.values()}
        prefix = f"{name}/" if f"{name}/" not in taken else f"{name}-{len(self._runs)}/"
        self._runs[run_id] = Run(run_id, name, prefix)
        return self._runs[run_id]

    def _update(self, given: Document) -> Run:
        run = self._find(given)
        run.status = _text(given, "status") or run.status
        end_time = given.get("end_time")
        run.end_time = int(end_time) if isinstance(end_time, (int, float)) else run.end_time
        return run

    def _shown(self, run: Run) -> Document:
        return {
            "info": self._info(run),
            "data": {
                "metrics": [
                    {"key": each.key, "value": _plain(each.value), "timestamp": each.timestamp, "step": each.step}
                    for each in run.metrics.values()
                ],
                "params": [{"key": key, "value": value} for key, value in run.params.items()],
                "tags": [{"key": key, "value": value} for key, value in run.tags.items()],
            },
            "inputs": {},
        }

    def _info(self, run: Run) -> Document:
        info: dict[str, object] = {
            "run_id": run.run_id,
            "run_uuid": run.run_id,
            "experiment_id": EXPERIMENT,
            "run_name": run.name,
            "user_id": "simulation",
            "status": run.status,
            "start_time": run.start_time,
            "lifecycle_stage": "active",
            "artifact_uri": (self._artifacts / run.run_id if run.prefix else self._artifacts).as_uri(),
        }
        if run.end_time is not None:
            info["end_time"] = run.end_time
        return info

    def _experiment(self, name: str) -> Document:
        return {
            "experiment_id": EXPERIMENT,
            "name": name,
            "artifact_location": self._artifacts.as_uri(),
            "lifecycle_stage": "active",
        }

    def _model(self, path: str, given: Document) -> Document:
        """Describe a logged model as ready: `log_model` writes its files itself, and autolog needs the answer."""
        model_id = path.split("/")[1] if "/" in path else ""
        if not model_id:
            self._models += 1
            model_id = f"m-{self._own.run_id[:24]}{self._models:08x}"
        now = int(time.time() * 1000)
        return {
            "info": {
                "model_id": model_id,
                "experiment_id": EXPERIMENT,
                "name": _text(given, "name") or "model",
                "artifact_uri": (self._artifacts / "models" / model_id).as_uri(),
                "creation_timestamp_ms": now,
                "last_updated_timestamp_ms": now,
                "status": "LOGGED_MODEL_READY",
                "source_run_id": _text(given, "source_run_id") or self._own.run_id,
            },
            "data": {},
        }


def _metrics(raw: object) -> list[Metric]:
    found = []
    for each in raw if isinstance(raw, list) else []:
        try:
            value = float(each["value"])  # text for NaN and the infinities
            found.append(Metric(str(each["key"]), value, int(each.get("timestamp") or 0), int(each.get("step") or 0)))
        except (TypeError, ValueError, KeyError, OverflowError, AttributeError):
            continue  # never an error for a metric
    return found


def _pairs(raw: object) -> dict[str, str]:
    pairs: Iterable[object] = raw if isinstance(raw, list) else []
    return {_text(each, "key"): _text(each, "value") for each in pairs if isinstance(each, dict)}


def _text(given: Document, name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else "" if value is None else str(value)


def _plain(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
