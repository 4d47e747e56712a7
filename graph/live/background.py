"""Work that no client waits for: one piece after the other, so that it never takes more than one connection.

Only for work that is as well done later, when its result is needed: pieces are dropped while many wait, while the
database is away, and when the process ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from db.errors import DatabaseUnavailable

log = structlog.get_logger()

MOST_WAITING = 1_000  # pieces
LAST_SECONDS = 2.0  # how long the end waits for the piece that has begun

Piece = Callable[[], Awaitable[None]]


class Background:
    """The background work of one graph process."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Piece] = asyncio.Queue(MOST_WAITING)
        self._is_at_work = False
        self._is_ending = False

    def add(self, piece: Piece) -> None:
        """Have this done behind what waits already, unless too much does."""
        if not self._waiting.full():
            self._waiting.put_nowait(piece)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while the block runs."""
        task = asyncio.create_task(self._work(), name="background")
        try:
            yield
        finally:
            self._is_ending = True
            if self._is_at_work:  # not cancelled in the midst of connecting: it would leave half a connection behind
                await asyncio.wait({task}, timeout=LAST_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _work(self) -> None:
        while not self._is_ending:
            piece = await self._waiting.get()
            self._is_at_work = True
            try:
                await piece()
            except DatabaseUnavailable as error:
                log.info("background_work_dropped", reason=str(error))
            except Exception:  # a defect of one piece must not end the others
                log.exception("background_work_failed")
            finally:
                self._is_at_work = False
                self._waiting.task_done()
