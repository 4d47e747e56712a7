"""Turns of the event loop, shared by all operations of a process: each executes so many fields in one, and no more.

A field takes some 6 us, and an operation may have 10,000 objects with dozens of fields each: executed at a stretch they
would hold the process for seconds. Executors count what they execute (`spend`); where they can wait, between the rows
of a long list and around resolvers that wait anyway, they let the loop turn when the count of this turn is used up
(`pause`). What is counted is work, not time, so a test sees the same on any machine.
"""

from __future__ import annotations

import asyncio

FIELDS_PER_TURN = 2_000  # 12 ms


class Turns:
    """The fields that were executed in this turn of the loop."""

    def __init__(self) -> None:
        self.spent = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # in which the end of the turn is announced

    def spend(self, fields: int) -> None:
        """Count fields that are about to be executed. Outside of any loop nothing is held up, and nothing counted."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if loop is not self._loop:
            self._loop, self.spent = loop, 0
            loop.call_soon(self._end)
        self.spent += fields

    @property
    def is_over(self) -> bool:
        """True if this turn has no room for another field."""
        return self.spent >= FIELDS_PER_TURN

    async def pause(self) -> None:
        """Wait until a turn has room."""
        while self.is_over:  # noqa: ASYNC110  # each turn is one, an event would cost one more
            await asyncio.sleep(0)

    def _end(self) -> None:
        self._loop, self.spent = None, 0


turns = Turns()
