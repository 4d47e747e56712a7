"""Watch leases: which attended simulations have subscribers in this process, recorded in the database.

A resolver puts `watched` round a subscription; `WatchLeases` counts. A task takes a lease (`db.watch_leases`) on each
attended simulation that has subscribers here, within milliseconds of the first, and renews all of them in one
statement, as often as the process beats. The lease ends with the last subscriber; after a crash it runs out.

While the database is away the task tries again and then writes the present state: a subscriber that came and left
during the outage is never recorded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import structlog

from db import watch_leases
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from policy.retry import beat_period, coverage_gap

log = structlog.get_logger()

COLLECT_SECONDS = 0.01  # who comes and leaves within this time goes into one transaction
RETRY_SECONDS = 0.5  # while the database does not answer
LAST_WORD_SECONDS = 2.0  # how long the end waits for the leases to be ended


class WatchLeases:
    """The subscribers of one graph process, by simulation."""

    def __init__(self, sessions: Sessions, lease: timedelta) -> None:
        """lease: of attempts; those of watchers are as short as the silence in which a graph process still covers."""
        self.name = uuid4().hex  # of this watcher: each start of a process is another one
        self._sessions = sessions
        self._lease = coverage_gap(lease)
        self._period_seconds = beat_period(lease).total_seconds()
        self._subscribers: Counter[int] = Counter()
        self._leaseless = set[int]()  # have subscribers, need no lease: not attended, or ended
        self._held = set[int]()  # a lease was taken, as far as the database has said so
        self._perhaps_held = set[int]()  # or has not said so: to be ended when the last subscriber leaves
        self._changed = asyncio.Event()
        self._is_ending = False

    @contextmanager
    def watched(self, simulation_id: int) -> Iterator[None]:
        """Count a subscriber of this simulation while the block runs."""
        self._subscribers[simulation_id] += 1
        if self._subscribers[simulation_id] == 1:
            self._changed.set()
        try:
            yield
        finally:
            self._subscribers[simulation_id] -= 1
            if not self._subscribers[simulation_id]:
                del self._subscribers[simulation_id]
                self._leaseless.discard(simulation_id)
                if simulation_id in self._perhaps_held:
                    self._changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the leases while the block runs, and end them with it."""
        task = asyncio.create_task(self._keep(), name="watch leases")
        try:
            yield
        finally:
            self._is_ending = True  # not cancelled in the midst of connecting: it would leave half a connection behind
            self._changed.set()
            _, unfinished = await asyncio.wait({task}, timeout=LAST_WORD_SECONDS)
            for each in unfinished:
                each.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run_once(self, *, renew: bool) -> None:
        """Tell the database who has come and who has left; with `renew`, that all others are still here."""
        wanted = self._subscribers.keys() - self._leaseless if not self._is_ending else set[int]()
        left = self._perhaps_held - wanted
        asked = wanted if renew else wanted - self._held
        if not asked and not left:
            return
        self._perhaps_held |= asked
        async with self._sessions() as session, session.begin():
            await watch_leases.leave(session, self.name, left)
            kept = await watch_leases.keep(session, self.name, asked, self._lease)
            await watch_leases.announce(session, kept - self._held)
        gone = left | (asked - kept)
        self._perhaps_held -= gone
        self._held = (self._held | kept) - gone
        self._leaseless |= (asked - kept) & self._subscribers.keys()

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        due_at, failing, ended = clock(), False, False
        while not ended:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    await self._changed.wait()
                    await asyncio.sleep(COLLECT_SECONDS)
            self._changed.clear()
            renew = clock() >= due_at
            ended = self._is_ending  # this round is the last one
            try:
                await self.run_once(renew=renew)
                failing = False
            except DatabaseUnavailable as error:  # the outage has its own warning (db/outage.py)
                log.debug("watchers_not_told", error=str(error))
                due_at = clock() + min(RETRY_SECONDS, self._period_seconds)
            except Exception as error:  # any error: leases that are not renewed stop simulations that are watched
                if not failing:
                    log.warning("watchers_not_told", error=str(error), exc_info=True)
                failing, due_at = True, clock() + min(RETRY_SECONDS, self._period_seconds)
            else:
                if renew:
                    due_at = clock() + self._period_seconds
