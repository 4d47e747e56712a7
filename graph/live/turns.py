"""Turns of the event loop, shared by all operations of a process: each executes so many fields in one, and no more.

A field takes some 6 us, and an operation may have 10,000 objects with dozens of fields each: executed at a stretch they
would hold the process for seconds. Executors count what they execute (`spend`); where they can wait, between the rows
of a long list and around resolvers that wait anyway, they let the loop turn when the count of this turn is used up
(`pause`). What is counted is work, not time, so a test sees the same on any machine.
"""

from __future__ import annotations

import asyncio
from collections import deque

FIELDS_PER_TURN = 2_000  # 12 ms


class Turns:
    """The fields that were executed in this turn of the loop, and who waits for the next one, first come, first served.

    Without an order of arrival, a long operation would always be ahead of a short one that waits beside it.
    """

    def __init__(self) -> None:
        self.spent = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # in which the end of the turn is announced
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._admitting: asyncio.AbstractEventLoop | None = None  # in which those that wait are admitted, one by one

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
        """Wait until a turn has room, behind those that wait already."""
        loop = asyncio.get_running_loop()
        add = self._waiting.append
        while self.is_over and self._loop is loop:
            room = loop.create_future()
            add(room)
            await room
            add = self._waiting.appendleft  # an operation that did not wait may have been faster

    def _end(self) -> None:
        self._loop, self.spent = None, 0
        loop = asyncio.get_running_loop()
        if self._admitting is not loop:
            self._admitting = loop
            self._admit()

    def _admit(self) -> None:
        """Let the first that waits go on; the next one once that has executed its part, if there is room left."""
        loop = asyncio.get_running_loop()
        while self._waiting and not self.is_over:
            room = self._waiting.popleft()
            if room.get_loop() is loop and not room.done():  # neither of a loop that was closed, nor cancelled
                room.set_result(None)
                loop.call_soon(self._admit)
                return
        self._admitting = None


turns = Turns()
