"""Leader election: the scheduler whose session holds an advisory lock of the database plans.

Postgres releases the lock when the connection ends, however it ends, and the next scheduler that asks gets it. A leader
that is cut off may go on planning for a moment, which does no harm, because each of a planner's changes is guarded.
The lock needs a connection of its own; a pooler that shares connections between transactions would lose it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog

from db.connection import connect_raw
from db.errors import CONNECTION_FAILURES, DatabaseUnavailable, reason_of, unavailability
from db.leader import LEADER_LOCK
from db.outage import Driver, Outage

log = structlog.get_logger()

ANSWER_SECONDS = 5.0  # a connection that is silent for longer counts as broken


@asynccontextmanager
async def leadership(url: str, outage: Outage | None = None) -> AsyncIterator[Leadership]:
    """Take part in the election while the block runs; resign at its end."""
    candidate = Leadership(url, outage or Outage())
    try:
        yield candidate
    finally:
        await candidate.resign()


class Leadership:
    """One candidate. `held` is the result of the last `hold()`."""

    def __init__(self, url: str, outage: Outage) -> None:
        self._url = url
        self._outage = outage
        self._connection: Driver | None = None
        self.held = False

    async def hold(self) -> bool:
        """Try to take the lock, or check that the connection holding it still lives. Costs one round trip."""
        try:
            if self._connection is None:
                self._connection = await self._outage.connecting(partial(connect_raw, self._url, application="leader"))
            if self.held:
                await self._connection.execute("SELECT 1", timeout=ANSWER_SECONDS)
            elif await self._connection.fetchval(
                "SELECT pg_try_advisory_lock($1)", LEADER_LOCK, timeout=ANSWER_SECONDS
            ):
                self.held = True
                log.info("leadership_won")
        except (*CONNECTION_FAILURES, DatabaseUnavailable) as error:
            if self.held:
                log.info("leadership_lost", error=reason_of(error))  # an outage has its own warning
            if self._connection is None and (found := unavailability(error, is_closed=True, connecting=True)):
                self._outage.note(found)
            await self.resign()
        return self.held

    async def resign(self) -> None:
        """Close the connection, which releases the lock. `hold()` may be called again."""
        connection, self._connection, self.held = self._connection, None, False
        if connection is not None:
            connection.terminate()
