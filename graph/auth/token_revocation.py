"""What is held open in this process with a token, and how it learns that the token lets in no more.

A request asks once; a socket or a stream stays for hours. So each leaves its token here while it is open, and one task
asks the database for all of them at once: when a revocation is told, and every few seconds, which is how an expiry,
and a revocation that was not heard, are found. While the database is away nothing is ended: nothing is read either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from db import tokens
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from graph.auth.viewer import Viewer

log = structlog.get_logger()

LOOK_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class _OpenToken:
    """One token, and how many hold something open with it."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    holders: int = 0


class TokenRevocation:
    """All that is open in one graph process."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._open: dict[int, _OpenToken] = {}
        self._look = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the tokens while the block runs."""
        # A group: should the task break, so does this process, and not the promise that it keeps.
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._watch(), name="revocation")
            try:
                yield
            finally:
                task.cancel()

    def stir(self) -> None:
        """Look now: a token was revoked, or something may have been missed."""
        self._look.set()

    @contextmanager
    def open(self, viewer: Viewer) -> Iterator[asyncio.Event]:
        """Hold something open for a viewer while the block runs; the event is set when it has to be closed.

        Whoever came in without a token is never told to leave.
        """
        if viewer.token_id is None:
            yield asyncio.Event()
            return
        held = self._open.setdefault(viewer.token_id, _OpenToken())
        held.holders += 1
        self._look.set()  # between the look that let them in and this one the token may have ended
        try:
            yield held.ended
        finally:
            held.holders -= 1
            if not held.holders and self._open.get(viewer.token_id) is held:
                del self._open[viewer.token_id]

    async def look(self) -> None:
        """Ask once, for all, which tokens let in yet; tell the holders of the others."""
        asked = dict(self._open)
        if not asked:
            return
        async with self._sessions() as session:
            usable = await tokens.usable(session, asked.keys())
        for token_id in asked.keys() - usable:
            asked[token_id].ended.set()
            if self._open.get(token_id) is asked[token_id]:
                del self._open[token_id]
            log.info("token_ended", token_id=token_id, holders=asked[token_id].holders)

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._look.wait()
            self._look.clear()
            try:
                await self.look()
            except DatabaseUnavailable as error:
                log.debug("tokens_not_checked", error=str(error))
