"""Importance of a sweep's parameters: computed in a thread, one at a time, and kept until another trial has ended.

Bounded: the least recently used goes first. The computation is Optuna's (`policy.sampling.importances`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping

from db import sweeps
from db.connection import Sessions
from db.models import Sweep
from policy.sampling import Outcome, Trial, importances
from policy.search_space import decode

MOST_KEPT = 200  # sweeps, a number for each parameter


class Importances:
    """Importances for the viewers of this process."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._kept: OrderedDict[int, tuple[int, Mapping[str, float]]] = OrderedDict()
        self._turn = asyncio.Lock()
        self.made = 0  # not taken from memory

    async def of(self, sweep: Sweep) -> Mapping[str, float]:
        """Return the importance of each parameter; empty while too few trials are complete."""
        async with self._turn:
            async with self._sessions() as session:
                counts = (await sweeps.counts(session, [sweep.id])).get(sweep.id)
            complete = counts.by_outcome.get(Outcome.COMPLETE, 0) if counts is not None else 0
            version, kept = self._kept.get(sweep.id, (None, {}))
            if version != complete:
                async with self._sessions() as session:
                    rows = await sweeps.history(session, sweep.id)
                trials = [
                    Trial(row.number, row.parameters, Outcome(row.outcome), row.value)
                    for row in rows
                    if row.outcome == Outcome.COMPLETE
                ]
                kept = await asyncio.to_thread(importances, decode(sweep.space), sweep.objective_mode, trials)
                self.made += 1
            self._kept[sweep.id] = complete, kept
            self._kept.move_to_end(sweep.id)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return kept
