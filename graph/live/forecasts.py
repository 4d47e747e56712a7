"""Forecasts of one process: computed in a thread, one at a time, and kept until the curve has gone on.

A forecast is a function of the stored curve, the declared end and the finished runs of the same name
(`policy.forecast`), so it is kept for all viewers until the run has taken another 0.5 % of its steps. Finished curves
do not change and are kept, too: 200 windows each. Both memories are bounded, the least recently used goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from db import windows
from db.connection import Sessions
from db.states import Reason
from db.windows import WINDOWS, Finished, Windows
from policy.metric_mode import MAX
from policy.outlook import LEAST_HISTORY

if TYPE_CHECKING:
    from policy.forecast import Band, Forecast, Reach

MOST_KEPT = 1_000  # forecasts, some 3 KiB each
MOST_CURVES = 1_000  # finished ones, 30 KiB each
MOST_POINTS = 5_000_000  # that the similar runs of one forecast may have together

# A run that a rule stopped missed its target, or reached it; only a completed one says what the end would have been.
SIMILAR = (Reason.COMPLETED, Reason.STOPPING_THRESHOLD, Reason.PATIENCE_EXHAUSTED)

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a forecast is of. `max_steps` None: the end is not known."""

    simulation_id: int
    project_id: int
    name: str
    metric: str
    mode: str
    max_steps: int | None
    target: float | None


@dataclass(frozen=True, slots=True)
class Newest:
    """How far the curve is."""

    attempt: int
    step: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast, and what it rests on. All None: there is too little to say."""

    step: int  # the newest one that it has seen
    forecast: Forecast | None
    band: Band | None
    reach: Reach | None


@dataclass(frozen=True, slots=True)
class _Past:
    """A finished run: its curve, and the errors of forecasts of it, by mode and share in percent."""

    completed: bool
    curve: Windows
    scores: dict[tuple[str, int], float | None] = field(default_factory=dict)

    def score(self, mode: str, percent: int) -> float | None:
        from policy.forecast import score

        key = (mode, percent)
        if key not in self.scores:
            self.scores[key] = score(self.curve.steps, self.curve.values, mode, percent / 100, _bests(self.curve, mode))
        return self.scores[key]


class Forecasts:
    """Forecasts for the viewers of this process."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._kept: OrderedDict[Asked, tuple[tuple[int, int, bool], Outlook]] = OrderedDict()
        self._past: OrderedDict[tuple[int, str], _Past] = OrderedDict()
        self._turn = asyncio.Lock()
        self.made = 0  # not taken from memory

    async def of(self, asked: Asked, newest: Newest) -> Outlook:
        """Return the forecast for a curve that has come to `newest`."""
        version = (newest.attempt, newest.step * WINDOWS // _end(asked, newest.step), newest.ended)
        async with self._turn:
            version_kept, kept = self._kept.get(asked, (None, None))
            if kept is None or version_kept != version:
                kept = await self._make(asked, newest)
                self.made += 1
            _keep(self._kept, asked, (version, kept), MOST_KEPT)
            return kept

    async def _make(self, asked: Asked, newest: Newest) -> Outlook:
        ends = {asked.simulation_id: _end(asked, newest.step)}
        async with self._sessions() as session:
            similar = _affordable(
                await windows.similar(
                    session,
                    asked.simulation_id,
                    project_id=asked.project_id,
                    name=asked.name,
                    metric=asked.metric,
                    reasons=SIMILAR,
                )
            )
            ends |= {
                each.simulation_id: each.last_step
                for each in similar
                if (each.simulation_id, asked.metric) not in self._past
            }
            read = await windows.windows_of(session, asked.metric, ends)
        past = [self._remember(each, asked.metric, read) for each in similar]
        return await asyncio.to_thread(_outlook, asked, read.get(asked.simulation_id, Windows()), past)

    def _remember(self, run: Finished, metric: str, read: Mapping[int, Windows]) -> _Past:
        key = (run.simulation_id, metric)
        found = self._past.get(key)
        if found is None:
            found = _Past(run.reason == Reason.COMPLETED, read.get(run.simulation_id, Windows()))
        return _keep(self._past, key, found, MOST_CURVES)


def _end(asked: Asked, newest: int) -> int:
    """The step that the windows of the curve reach to."""
    return max(asked.max_steps or 0, newest, 1)


def _affordable(similar: Sequence[Finished]) -> Sequence[Finished]:
    """The newest ones, up to a number of points; none if they are too few to be of use."""
    points, found = 0, []
    for each in similar:
        points += each.points
        if points > MOST_POINTS:
            break
        found.append(each)
    return found if len(found) >= LEAST_HISTORY else ()


def _bests(curve: Windows, mode: str) -> Sequence[float]:
    """The best value of each window."""
    return curve.highs if mode == MAX else curve.lows


def _outlook(asked: Asked, curve: Windows, past: Sequence[_Past]) -> Outlook:
    from policy.forecast import band, first_reached, forecast, reach  # in the thread: numpy comes with it

    steps, values, end = curve.steps, curve.values, asked.max_steps
    if not steps:
        return Outlook(0, None, None, None)
    scores: list[float] = []
    if end is not None and end > steps[0]:
        percent = round(100 * (steps[-1] - steps[0]) / (end - steps[0]))
        scores = [each for run in past if run.completed and (each := run.score(asked.mode, percent)) is not None]
    bests = _bests(curve, asked.mode)
    found, drawn = None, None
    if end is not None:
        found = forecast(steps, values, asked.mode, end, metric=asked.metric, scores=scores, bests=bests)
        drawn = band(steps, values, asked.mode, end, metric=asked.metric, scores=scores, bests=bests)
    reached = None
    if asked.target is not None:
        target = asked.target
        similar = [first_reached(each.curve.steps, each.curve.values, asked.mode, target) for each in past]
        reached = reach(steps, values, asked.mode, target, max_steps=end, similar=similar, scores=scores, bests=bests)
    return Outlook(steps[-1], found, drawn, reached)


def _keep(memory: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> Value:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > most:
        memory.popitem(last=False)
    return value
