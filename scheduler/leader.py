"""Leader election: the scheduler whose session holds an advisory lock of the database plans.

A cluster has a lock of its own: the scheduler that holds it looks after that cluster, wherever it runs.

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
from db.leader import LEADER_LOCK, lock_of_engine
from db.outage import Driver, Outage

log = structlog.get_logger()

ANSWER_SECONDS = 5.0  # a connection that is silent for longer counts as broken


@asynccontextmanager
async def leadership(url: str, outage: Outage | None = None, engine: str | None = None) -> AsyncIterator[Leadership]:
    """Take part in the election while the block runs; resign at its end.

    engine: the name of the one that the holder looks after; None: the holder plans.
    """
    candidate = Leadership(url, outage or Outage(), engine)
    try:
        yield candidate
    finally:
        await candidate.resign()


class Leadership:
    """One candidate. `held` is the result of the last `hold()`."""

    def __init__(self, url: str, outage: Outage, engine: str | None = None) -> None:
        self._url = url
        self._outage = outage
        self._lock = LEADER_LOCK if engine is None else lock_of_engine(engine)
        self._named = {} if engine is None else {"engine": engine}
        self._connection: Driver | None = None
        self.held = False

    async def hold(self) -> bool:
        """Try to take the lock, or check that the connection holding it still lives. Costs one round trip."""
        try:
            if self._connection is None:
                self._connection = await self._outage.connecting(partial(connect_raw, self._url, application="leader"))
            if self.held:
                await self._connection.execute("SELECT 1", timeout=ANSWER_SECONDS)
            elif await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", self._lock, timeout=ANSWER_SECONDS):
                self.held = True
                log.info("leadership_won", **self._named)
        except (*CONNECTION_FAILURES, DatabaseUnavailable) as error:
            if self.held:
                log.info("leadership_lost", error=reason_of(error), **self._named)  # an outage has its own warning
            if self._connection is None and (found := unavailability(error, is_closed=True, connecting=True)):
                self._outage.note(found)
            await self.resign()
        return self.held

    async def resign(self) -> None:
        """Close the connection, which releases the lock. `hold()` may be called again."""
        connection, self._connection, self.held = self._connection, None, False
        if connection is not None:
            connection.terminate()
