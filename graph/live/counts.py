"""Counts of simulations by state of one process, kept for a moment where there are so many that counting takes long.

PostgreSQL counts row by row: 100,000 queued ones are 9 ms of its CPU time, twice that of the rest of the overview,
which every open dashboard asks for again and again. Small counts are read each time, so they are exact.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping

from db.states import SimulationState

MANY = 10_000  # simulations that have not ended; below, a count takes less than a millisecond
KEPT_SECONDS = 5.0
MOST_KEPT = 1_000  # sets of projects, the least recently counted goes first

Counted = Mapping[SimulationState, int]


class Counts:
    """Counts by what is counted: the projects, or all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, Counted]] = OrderedDict()

    async def of(self, key: Hashable, count: Callable[[], Awaitable[Counted]]) -> Counted:
        """Return a count: a large one may be `KEPT_SECONDS` old."""
        known = self._kept.get(key)
        if known is not None and self._clock() - known[0] < KEPT_SECONDS:
            return known[1]
        self._kept.pop(key, None)
        counted = await count()
        if sum(counted.values()) >= MANY:
            self._kept[key] = self._clock(), counted
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return counted
