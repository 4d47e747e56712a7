"""Pruning of trials: the rungs that a trial has reached, its stored results there, and the verdict under lock.

A rung is a step at which the trials of a sweep are compared. A `Climb` reads the points of a trial and returns the
rungs that it has passed, each with the best value until then. `prune` stores a trial's result at a rung once, as a row,
and compares it with the rows that were there before. The verdict is therefore the same after a restart: the same curve
passes the same rungs and finds its own rows. The median rule also depends on which trials have finished, so it decides
only in the transaction that stores the result. If a trial has ended before the judge read its last points, its results
are stored when its end is recorded (`climbed`, `leave`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from db import curve, sweeps
from db.models import Simulation
from policy.metric_mode import MAX
from policy.sweep import PRUNED, BelowMedian, Halving, Median, Pruned, Pruning, at_rung, below_median, rungs


@dataclass(frozen=True, slots=True)
class Reached:
    """Rungs that a trial has passed, each with the best value until then; infinity if no value was finite.

    averages: (n,), for the median rule: the mean of the finite values until then.
    """

    metric: str
    results: Sequence[tuple[int, float]]
    averages: Sequence[float] = ()


@dataclass(slots=True)
class Climb:
    """State of a pruning rule after the points of a trial so far."""

    metric: str
    pruning: Pruning
    attempt: int = 0  # of the newest point
    step: int = -1  # likewise
    is_decided: bool = False  # no rung is left
    best: float = math.nan
    total: float = 0.0  # of finite values
    count: int = 0  # likewise
    left: list[int] = field(default_factory=list)  # rungs, the next one last

    def __post_init__(self) -> None:
        self.left = list(reversed(rungs(self.pruning)))
        self.is_decided = not self.left

    def renewed(self) -> Climb:
        """Return the state of the same rule before the first point."""
        return Climb(self.metric, self.pruning)

    def feed(self, attempt: int, steps: Sequence[int], values: Sequence[float]) -> Reached | None:
        """Add points; return the rungs that they pass, or None. Points whose step does not increase are ignored."""
        self.attempt = attempt
        passed: list[tuple[int, float]] = []
        averages: list[float] = []
        better = max if self.pruning.mode == MAX else min
        for step, value in zip(steps, values, strict=True):
            if step <= self.step:
                continue
            self.step = step
            if math.isfinite(value):
                self.best = value if math.isnan(self.best) else better(self.best, value)
                self.total, self.count = self.total + value, self.count + 1
            while self.left and self.left[-1] <= step:
                passed.append((self.left.pop(), self.best if math.isfinite(self.best) else math.inf))
                averages.append(self.total / self.count if self.count else math.inf)
        self.is_decided = not self.left
        if not passed:
            return None
        return Reached(self.metric, passed, averages if isinstance(self.pruning, Median) else ())


async def prune(
    session: AsyncSession, simulation: Simulation, pruning: Pruning, reached: Reached
) -> Pruned | BelowMedian | None:
    """Store a trial's results at the rungs that it has passed; return the verdict of the first rung that stops it.

    simulation: locked in this transaction. None: the trial continues, or the simulation belongs to no sweep.
    """
    if simulation.sweep_id is None:
        return None
    if isinstance(pruning, Halving):
        for step, value in reached.results:
            own, earlier = await sweeps.reach_rung(session, simulation.sweep_id, step, simulation.id, value)
            if (pruned := at_rung(pruning, step, own, earlier)) is not None:
                return pruned
        return None
    for (step, value), average in zip(reached.results, reached.averages, strict=True):
        if not await sweeps.leave_average(session, simulation.sweep_id, step, simulation.id, value, average):
            continue
        averages = await sweeps.averages_of_finished(session, simulation.sweep_id, step)
        if (below := below_median(pruning.mode, value, averages, step=step)) is not None:
            return below
    return None


async def leave(session: AsyncSession, sweep_id: int, simulation_id: int, reached: Reached) -> None:
    """Store the results of a trial that has ended, without a verdict."""
    if reached.averages:
        for (step, value), average in zip(reached.results, reached.averages, strict=True):
            await sweeps.leave_average(session, sweep_id, step, simulation_id, value, average)
        return
    for step, value in reached.results:
        await sweeps.reach_rung(session, sweep_id, step, simulation_id, value)


async def climbed(session: AsyncSession, simulation_id: int, metric: str, pruning: Pruning) -> Reached | None:
    """Read the stored curve of a simulation; return the rungs that it has passed, or None."""
    climb = Climb(metric, pruning)
    passed: list[tuple[int, float]] = []
    averages: list[float] = []
    for part in await curve.parts(session, simulation_id, metric):
        async for page in curve.pages(session, simulation_id, metric, part):
            points = await asyncio.to_thread(page.unpack)
            found = climb.feed(page.attempt, points.steps.tolist(), points.values.tolist())
            if found is not None:
                passed += found.results
                averages += found.averages
    return Reached(metric, passed, averages) if passed else None


def evidence_of(pruned: Pruned | BelowMedian, metric: str) -> dict[str, Any]:
    """Return what the attempt and the event keep, beside what the stop saves."""
    return {"reason": PRUNED, "metric": metric, **pruned.evidence()}
