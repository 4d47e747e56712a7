"""Changed ids since a subscriber of `simulationChanged` or `machineChanged` last looked, without their content."""

from __future__ import annotations

import asyncio

MANY = 1_000  # ids kept per subscriber; more mean "look at all"


class Changes:
    """Ids that changed since a subscriber looked last; None: look at all."""

    def __init__(self) -> None:
        self.ids: set[int] | None = set()
        self.stirred = asyncio.Event()

    def add(self, ids: frozenset[int] | None) -> None:
        if ids is None or self.ids is None or len(self.ids) + len(ids) > MANY:
            self.ids = None
        else:
            self.ids |= ids
        self.stirred.set()

    async def next(self) -> set[int] | None:
        """Wait for the next change."""
        await self.stirred.wait()
        self.stirred.clear()
        ids, self.ids = self.ids, set()
        return ids
