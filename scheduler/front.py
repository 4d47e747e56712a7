"""Running simulations as the judge keeps them: their rules as applied so far, and cursors as columns.

10,000 runs with all that belongs to them are more than a processor's cache holds, and a visit to one of them takes a
microsecond. So a look for new points visits none: ids and cursors are arrays (`Front`), and only runs that have a new
point are visited, once.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from db.judged import Cursor, Judged
from policy.rule_documents import Declared
from policy.stopping import Monitor, Verdict
from scheduler.rungs import Climb


@dataclass(slots=True)
class Watch:
    """One rule of a simulation, applied to the points so far."""

    place: int
    metric: str
    declared: Declared
    monitor: Monitor
    attempt: int = 0  # of the newest point
    step: int = -1  # likewise
    is_recorded: bool = False  # it is a dry run, and its decision is kept with the simulation
    is_decided: bool = False

    @classmethod
    def of(cls, place: int, declared: Declared, *, is_recorded: bool) -> Self:
        """Apply a rule to no point yet."""
        metric = sys.intern(declared.rules.metric)  # one for all: to compare it with a row's is no visit to memory
        return cls(place, metric, declared, Monitor(declared.rules), is_recorded=is_recorded, is_decided=is_recorded)

    def renewed(self) -> Self:
        """Return the same rule before any point."""
        return self.of(self.place, self.declared, is_recorded=self.is_recorded)

    def feed(self, attempt: int, steps: Sequence[int], values: Sequence[float]) -> Verdict | None:
        """Add points until one has a verdict. Steps that don't rise are left out."""
        self.attempt, last, add = attempt, self.step, self.monitor.add
        for step, value in zip(steps, values, strict=True):
            if step <= last:
                continue
            last = step
            verdict = add(step, value)
            if verdict is not None and self._counts(verdict):
                self.step, self.is_decided = last, True
                return verdict
        self.step = last
        return None

    def _counts(self, verdict: Verdict) -> bool:
        """False for a verdict on points from before the rule was given."""
        since, attempt = self.declared.since_step, self.declared.since_attempt
        return since is None or verdict.step > since or (attempt is not None and self.attempt > attempt)


@dataclass(slots=True)
class Run:
    """A running simulation, as it is judged. place: in the front; -1: it is not there."""

    found: Judged
    watches: tuple[Watch | Climb, ...]
    place: int = -1


class Front:
    """Runs of which the points behind a cursor are to be read, as columns."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.metrics: Counter[str] = Counter()  # of their rules
        self._columns = (array("q"), array("i"), array("q"))  # id, and cursor: attempt and batch

    def add(self, run: Run, cursor: Cursor) -> None:
        """Begin to read a run that is not there, behind this cursor."""
        run.place = len(self.runs)
        self.runs.append(run)
        for column, value in zip(self._columns, (run.found.simulation_id, *cursor), strict=True):
            column.append(value)
        self.metrics.update(watch.metric for watch in run.watches)

    def remove(self, run: Run) -> None:
        """Read a run no longer, if it is there: the last one takes its place."""
        place, run.place = run.place, -1
        if place < 0:
            return
        for column in self._columns:
            column[place] = column[-1]
            column.pop()
        last = self.runs.pop()
        if last is not run:
            self.runs[place] = last
            last.place = place
        self.metrics.subtract(watch.metric for watch in run.watches)
        self.metrics += Counter()  # without those that none has

    def move(self, places: Iterable[int], attempts: Iterable[int], batches: Iterable[int]) -> None:
        """Go on behind these batches, the last one for each place."""
        _, attempt_of, batch_of = self._columns
        for place, attempt, batch in zip(places, attempts, batches, strict=True):
            attempt_of[place] = attempt
            batch_of[place] = batch

    def cursors(self, places: Sequence[int]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return ids, attempts and batches of the runs at these places."""
        ids, attempts, batches = ([column[place] for place in places] for column in self._columns)
        return ids, attempts, batches
