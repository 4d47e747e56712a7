"""W&B's API, as far as a run needs it: `wandb.init`, `log` and `finish` work against it unmodified.

Runs are made by the GraphQL mutation UpsertBucket; history comes by `file_stream`, as lines numbered by `offset`, so
that a repeated request changes nothing. All else is answered with an error that the client takes. Tested with wandb
0.18, 0.22 and 0.31.

The first run of an attempt is the simulation; metrics of later runs are prefixed with their names. Printed output and
system metrics that W&B sends are not used.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from runner.supervisor.sources.intake import Intake, Point

SOURCE = "W&B"
HISTORY = "wandb-history.jsonl"
FILE_STREAM = re.compile(r"/files/[^/]+/[^/]+/([^/]+)/file_stream")
MAX_RUNS = 1_000
MAX_DEPTH = 10
ENTITY = "simulations"


class Prefixes:
    """Prefixes of metrics, by run: none for the first, then the run's name."""

    def __init__(self) -> None:
        self._prefixes: dict[str, str] = {}  # by the run's id

    def of(self, run: str, shown: str) -> str:
        """Return the prefix of a run. shown: its name, which counts the first time."""
        if run not in self._prefixes and len(self._prefixes) < MAX_RUNS:
            prefix = f"{shown}/" if self._prefixes else ""
            self._prefixes[run] = f"{shown}-{run}/" if prefix in self._prefixes.values() else prefix
        return self._prefixes.get(run, f"{run}/")


class Wandb:
    """The runs of one attempt. `answer` may be called from any thread."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._lock = threading.Lock()
        self._prefixes = Prefixes()
        self._next_lines: dict[str, int] = {}

    def answer(self, path: str, body: bytes) -> Mapping[str, object] | None:
        """Carry out a POST; None: no such path. Raises ValueError for a body that is no JSON."""
        if path == "/graphql":
            document = json.loads(body)
            return self._graphql(document if isinstance(document, dict) else {})
        match = FILE_STREAM.fullmatch(path)
        if match is not None:
            document = json.loads(body)
            files = document.get("files") if isinstance(document, dict) else None
            history = files.get(HISTORY) if isinstance(files, dict) else None
            if isinstance(history, dict):
                with self._lock:
                    self._take(match.group(1), history)
            return {"exitcode": None, "limits": {}}
        return None

    def _graphql(self, document: Mapping[str, Any]) -> Mapping[str, object]:
        query, given = str(document.get("query", "")), document.get("variables")
        variables: Mapping[str, Any] = given if isinstance(given, dict) else {}
        if "upsertBucket" in query:
            return {"data": {"upsertBucket": {"bucket": self._bucket(variables), "inserted": True}}}
        if re.search(r"\bviewer\b", query) is not None:
            viewer = {"id": "simulation", "username": ENTITY, "entity": ENTITY, "flags": "{}", "email": None}
            return {"data": {"viewer": {**viewer, "teams": {"edges": []}}}}
        return {"data": None, "errors": [{"message": "not supported in a simulation"}]}

    def _bucket(self, given: Mapping[str, Any]) -> Mapping[str, object]:
        run = str(given.get("name") or given.get("id") or "run")
        shown = str(given.get("displayName") or run)
        project, entity = str(given.get("project") or "uncategorized"), str(given.get("entity") or ENTITY)
        with self._lock:
            if not self._prefixes.of(run, shown):
                tags = given.get("tags")
                shown_tags = [each for each in tags if isinstance(each, str)] if isinstance(tags, list) else []
                self._intake.describe(parameters(given.get("config")), shown_tags)
        return {
            "id": run,
            "name": run,
            "displayName": shown,
            "description": None,
            "config": "{}",
            "sweepName": None,
            "historyLineCount": 0,
            "project": {"id": project, "name": project, "entity": {"id": entity, "name": entity}},
        }

    def _take(self, run: str, history: Mapping[str, Any]) -> None:
        lines, offset = history.get("content"), history.get("offset")
        if not isinstance(lines, list) or not isinstance(offset, int):
            return
        prefix, next_line = self._prefixes.of(run, run), self._next_lines.get(run, 0)
        self._next_lines[run] = max(next_line, offset + len(lines))
        for line in lines[max(next_line - offset, 0) :]:
            try:
                values = json.loads(line)
            except (TypeError, ValueError, RecursionError):
                continue
            if isinstance(values, dict) and type(values.get("_step")) is int:
                self._intake.add(SOURCE, points(values["_step"], values, prefix))


def parameters(config: object) -> dict[str, object]:
    """Return a run's configuration by name: JSON text, where each name has an object with its `value`."""
    try:
        document = json.loads(config) if isinstance(config, str) else None
    except (ValueError, RecursionError):
        document = None
    entries = document.items() if isinstance(document, dict) else ()
    return {
        name: entry["value"]
        for name, entry in entries
        if not name.startswith("_") and isinstance(entry, dict) and "value" in entry
    }


def points(step: int, values: Mapping[str, object], prefix: str = "") -> Iterator[Point]:
    """Yield the numbers of a line of history. Nested names are joined by dots, as W&B shows them."""
    for name, value in _numbers(values, prefix, MAX_DEPTH):
        yield Point(name, step, value)


def _numbers(values: Mapping[str, object], prefix: str, depth: int) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if str(name).startswith("_"):  # W&B's own: _step, _timestamp, _runtime, _wandb
            continue
        if type(value) in (int, float):
            try:
                yield f"{prefix}{name}", float(value)  # type: ignore[arg-type]  # by its type
            except OverflowError:
                continue
        elif isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
            yield f"{prefix}{name}", math.nan if value == "NaN" else math.inf if value[0] == "I" else -math.inf
        elif isinstance(value, dict) and depth and "_type" not in value:  # with it: an image, a table
            yield from _numbers(value, f"{prefix}{name}.", depth - 1)
