"""A trial's way over the rungs of its sweep, as the judge watches it, and the verdict under lock.

A `Climb` collects the rungs that new points have passed, with the best value until then. `prune` leaves these results
as rows, each once, and decides by those that were there before: after a restart the same curve passes the same rungs,
finds its own results, and gets the same verdict. A trial that ended before the judge had looked leaves its results when
its end is recorded (`climbed`).
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
from policy.sweep import PRUNED, Halving, Pruned, at_rung, rungs


@dataclass(frozen=True, slots=True)
class Reached:
    """Rungs that a trial has passed, each with its best value until then: infinite without a finite one."""

    metric: str
    results: Sequence[tuple[int, float]]


@dataclass(slots=True)
class Climb:
    """The rule that prunes a trial, applied to its points so far."""

    metric: str
    halving: Halving
    attempt: int = 0  # of the newest point
    step: int = -1  # likewise
    is_decided: bool = False  # no rung is left
    best: float = math.nan
    left: list[int] = field(default_factory=list)  # rungs, the next one last

    def __post_init__(self) -> None:
        self.left = list(reversed(rungs(self.halving)))
        self.is_decided = not self.left

    def renewed(self) -> Climb:
        """Return the same rule before any point."""
        return Climb(self.metric, self.halving)

    def feed(self, attempt: int, steps: Sequence[int], values: Sequence[float]) -> Reached | None:
        """Add points; return the rungs that they have passed, None for none. Steps that don't rise are left out."""
        self.attempt = attempt
        passed: list[tuple[int, float]] = []
        better = max if self.halving.mode == MAX else min
        for step, value in zip(steps, values, strict=True):
            if step <= self.step:
                continue
            self.step = step
            if math.isfinite(value):
                self.best = value if math.isnan(self.best) else better(self.best, value)
            while self.left and self.left[-1] <= step:
                passed.append((self.left.pop(), self.best if math.isfinite(self.best) else math.inf))
        self.is_decided = not self.left
        return Reached(self.metric, passed) if passed else None


async def prune(session: AsyncSession, simulation: Simulation, halving: Halving, reached: Reached) -> Pruned | None:
    """Leave a trial's results at the rungs that it has passed; return the verdict of the first that stops it.

    simulation: locked in this transaction. None: it goes on, or is no trial of a sweep.
    """
    if simulation.sweep_id is None:
        return None
    for step, value in reached.results:
        own, earlier = await sweeps.reach_rung(session, simulation.sweep_id, step, simulation.id, value)
        verdict = at_rung(halving, step, own, earlier)
        if verdict is not None:
            return verdict
    return None


async def climbed(session: AsyncSession, simulation_id: int, metric: str, halving: Halving) -> Reached | None:
    """Read the stored curve of a simulation; return the rungs that it has passed, None for none."""
    climb = Climb(metric, halving)
    passed: list[tuple[int, float]] = []
    for part in await curve.parts(session, simulation_id, metric):
        async for page in curve.pages(session, simulation_id, metric, part):
            points = await asyncio.to_thread(page.unpack)
            found = climb.feed(page.attempt, points.steps.tolist(), points.values.tolist())
            passed += found.results if found is not None else ()
    return Reached(metric, passed) if passed else None


def evidence_of(pruned: Pruned, metric: str) -> dict[str, Any]:
    """Return what the attempt and the event keep, beside what the stop saves."""
    return {"reason": PRUNED, "metric": metric, **pruned.evidence()}
