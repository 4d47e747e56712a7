"""`simulations curve`: the points of a simulation so far, as comma-separated values or lines of JSON.

They come by the subscription that `watch` uses, so that a lost connection neither loses nor repeats a point, and what a
later attempt superseded is left out. Values stay what they are: NaN, Infinity and -Infinity are words in both forms.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice

from gql.client import AsyncClientSession

from cli.answers import FINAL_STATES, ConvergenceEvent, Series
from cli.documents import POINTS
from cli.errors import ExitCode, ServerRefused
from cli.resuming import Resuming
from cli.server import Server, prepare, read_answer
from cli.terminal import clean, formula_safe, say, stdout

HEAD = ("metric", "step", "value", "elapsed_seconds", "attempt")
LINES_AT_ONCE = 10_000


@dataclass(slots=True)
class Columns:
    """All points of one metric, 28 bytes each. `steps` increase."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    elapsed: array[float] = field(default_factory=lambda: array("d"))
    attempts: array[int] = field(default_factory=lambda: array("l"))

    def add(self, attempt: int, series: Series) -> None:
        """Append new points, after dropping the superseded ones."""
        if series.supersedes_from is not None:
            kept = bisect_left(self.steps, series.supersedes_from)
            for column in (self.steps, self.values, self.elapsed, self.attempts):
                del column[kept:]
        not_finite = iter(series.not_finite)
        self.steps.extend(series.steps)
        self.values.extend(float(next(not_finite, "nan")) if value is None else value for value in series.values)
        self.elapsed.extend(series.elapsed)
        self.attempts.extend([attempt] * len(series.steps))


def curve(
    server: Server, simulation_id: str, metrics: Sequence[str], *, max_points: int | None, as_json: bool
) -> ExitCode:
    """Print the points of a simulation so far; metrics: only these. Raises `CommandError`."""
    past = Past(server, simulation_id, metrics, max_points)
    try:
        asyncio.run(past.run())
    except KeyboardInterrupt:
        say("Interrupted.")
        return ExitCode.INTERRUPTED
    if missing := [name for name in metrics if name not in past.metrics]:
        raise ServerRefused(f"{', '.join(map(clean, missing))}: no points of this metric.")
    lines = json_lines(past.metrics) if as_json else csv_lines(past.metrics)
    console = stdout()
    while some := "".join(islice(lines, LINES_AT_ONCE)):
        console.write(some)
    if not past.metrics:
        say("No points yet.")
    return ExitCode.OK


class Past(Resuming):
    """The `convergence` subscription, up to the newest point."""

    def __init__(self, server: Server, simulation_id: str, metrics: Sequence[str], max_points: int | None) -> None:
        super().__init__(server, simulation_id, say)
        self.metrics: dict[str, Columns] = {}
        self._wanted = list(metrics) or None
        self._max_points = max_points
        self._cursor: str | None = None

    async def follow(self, session: AsyncClientSession) -> None:
        await self.now(session)
        self.accepted()
        thinned = self._max_points if self._cursor is None else None
        state = None
        wanted = {"id": self._id, "metrics": self._wanted, "after": self._cursor, "maxPoints": thinned}
        async with aclosing(session.subscribe(prepare(POINTS, wanted))) as events:
            async for answer in events:
                event = read_answer(ConvergenceEvent, answer.get("convergence"))
                self._cursor, state = event.cursor, event.state
                self.came()
                for series in event.series:
                    self.metrics.setdefault(series.metric, Columns()).add(event.attempt, series)
                if event.live:
                    return
        if state not in FINAL_STATES:
            raise self.ended_early()


def csv_lines(metrics: dict[str, Columns]) -> Iterator[str]:
    """Write a line for each point, and a header (RFC 4180, as on the page)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in _with_head(metrics):
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def json_lines(metrics: dict[str, Columns]) -> Iterator[str]:
    """Write an object for each point; JSON has no numbers that are not finite."""
    for name, columns in metrics.items():
        for step, value, elapsed, attempt in _rows(columns):
            point = {"metric": name, "step": step, "value": value if math.isfinite(value) else word_of(value),
                     "elapsed": elapsed, "attempt": attempt}  # fmt: skip
            yield json.dumps(point) + "\n"


def word_of(value: float) -> str:
    """The number as the service, the page and JavaScript write it."""
    if math.isnan(value):
        return "NaN"
    return repr(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _with_head(metrics: dict[str, Columns]) -> Iterator[Iterable[object]]:
    yield HEAD
    for name, columns in metrics.items():
        for step, value, elapsed, attempt in _rows(columns):
            yield formula_safe(name), step, word_of(value), elapsed, attempt


def _rows(columns: Columns) -> Iterator[tuple[int, float, float, int]]:
    return zip(columns.steps, columns.values, columns.elapsed, columns.attempts, strict=True)
