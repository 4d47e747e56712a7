"""Which of several schedulers plans: the one whose session holds an advisory lock of the database.

Postgres lets go of the lock when the connection ends, however it ends, and the next scheduler that asks gets it. A
leader that is cut off may believe in itself for a moment longer: that does no harm, what a planner does is guarded.
Needs a connection of its own; a pooler that shares connections between transactions would give the lock away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from db.connection import connect_raw
from db.leader import LEADER_LOCK

log = structlog.get_logger()

ANSWER_SECONDS = 5.0  # a connection that is silent for longer counts as broken
BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


@asynccontextmanager
async def leadership(url: str) -> AsyncIterator[Leadership]:
    """Take part in the election while the block runs; at its end the next one may lead."""
    candidate = Leadership(url)
    try:
        yield candidate
    finally:
        await candidate.resign()


class Leadership:
    """One candidate. `held` is what the last `hold()` found."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self.held = False

    async def hold(self) -> bool:
        """Ask for the lock, or make sure that the connection which holds it still lives. Costs one round trip."""
        try:
            if self._connection is None:
                self._connection = await connect_raw(self._url, application="leader")
            if self.held:
                await self._connection.execute("SELECT 1", timeout=ANSWER_SECONDS)
            elif await self._connection.fetchval(
                "SELECT pg_try_advisory_lock($1)", LEADER_LOCK, timeout=ANSWER_SECONDS
            ):
                self.held = True
                log.info("leadership_won")
        except BROKEN as error:
            if self.held:
                log.warning("leadership_lost", error=str(error) or type(error).__name__)
            await self.resign()
        return self.held

    async def resign(self) -> None:
        """Close the connection, and with it let go of the lock. Asking again is allowed."""
        connection, self._connection, self.held = self._connection, None, False
        if connection is not None:
            connection.terminate()
