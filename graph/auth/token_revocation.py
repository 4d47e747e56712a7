"""Token revocation: closes the sockets and streams of a token or a browser's login that is no longer valid.

A request is authenticated once; a socket or a stream stays open for hours. So each registers its token, or the login of
its cookie, here while it is open, and one task checks all of them in one statement: when a
revocation or a sign-out is notified (`Channel.TOKENS`), and every few seconds, which finds expiries and lost
notifications. While the database is away nothing is closed: nothing is read either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from db import logins, tokens
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from graph.auth.viewer import Viewer

log = structlog.get_logger()

LOOK_AGAIN_SECONDS = 5.0

_Key: TypeAlias = tuple[int, bytes | None]  # a token's id, and the digest of the login if it came by a cookie


@dataclass(slots=True)
class _OpenToken:
    """One token or login, and how many hold something open with it."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    holders: int = 0


class TokenRevocation:
    """All that is open in one graph process."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._open: dict[_Key, _OpenToken] = {}
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

        For a viewer without a token the event is never set.
        """
        if viewer.token_id is None:
            yield asyncio.Event()
            return
        key = (viewer.token_id, viewer.login)
        held = self._open.setdefault(key, _OpenToken())
        held.holders += 1
        self._look.set()  # between the look that let them in and this one the token may have ended
        try:
            yield held.ended
        finally:
            held.holders -= 1
            if not held.holders and self._open.get(key) is held:
                del self._open[key]

    async def look(self) -> None:
        """Ask once, for all, which tokens and logins let in yet; end what is held open with the others."""
        asked = dict(self._open)
        by_token = {token_id for token_id, login in asked if login is None}
        by_login = {login for _, login in asked if login is not None}
        usable: frozenset[int] = frozenset()
        signed_in: frozenset[bytes] = frozenset()
        if not asked:
            return
        async with self._sessions() as session:
            if by_token:
                usable = await tokens.usable(session, by_token)
            if by_login:
                signed_in = await logins.usable(session, by_login)
        for key, held in asked.items():
            token_id, login = key
            if (token_id in usable) if login is None else (login in signed_in):
                continue
            held.ended.set()
            if self._open.get(key) is held:
                del self._open[key]
            log.info("token_ended" if login is None else "login_ended", token_id=token_id, holders=held.holders)

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
