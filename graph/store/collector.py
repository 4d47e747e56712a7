"""Collector: removes pieces that no simulation and no package has any more from the store, and what is too old.

Every graph process runs one. Rows of pieces are deleted after the objects: a removal that is cut off in between, or
that two processes make at once, is repeated. In a store that supervisors write to themselves, an object may appear
after its row has gone: those are found once a day, and at the start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

from db import files, packages
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from graph.store.base import Store, StoreUnavailable
from graph.store.ownership import Ownership

log = structlog.get_logger()

PERIOD_SECONDS = 60.0
AT_ONCE = 200
LAST_SECONDS = 2.0  # how long the end waits for a round
UNSTORED = timedelta(days=1)  # no piece is uploaded for as long
UNCOMMITTED = timedelta(hours=1)  # after the end of a simulation
BEFORE_START = timedelta(days=1)  # what ended while no collector ran
OVERLAP = timedelta(minutes=1)
SWEEP_SECONDS = 86_400.0


class Collector:
    """The collector of one process."""

    def __init__(self, sessions: Sessions, store: Store, checkpoint_age: timedelta | None) -> None:
        self._sessions = sessions
        self._store = store
        self._ownership = Ownership(store)
        self._swept_at: float | None = None  # monotonic
        self._checkpoint_age = checkpoint_age
        self._looked_at: float | None = None  # monotonic

    async def run_once(self) -> int:
        """Remove what is to be removed; return of how many pieces. What ended is looked at once."""
        now = time.monotonic()
        within = timedelta(seconds=now - self._looked_at) + OVERLAP if self._looked_at is not None else BEFORE_START
        async with self._sessions.begin() as session:
            await packages.expire(session)
            await files.disown_unstored(session, UNSTORED)
            await files.disown_uncommitted(session, UNCOMMITTED, within=within)
            if self._checkpoint_age is not None:
                await files.expire_checkpoints(session, self._checkpoint_age)
        self._looked_at = now
        await self._ownership.require(self._sessions)
        removed = 0
        while some := await self._remove_some():
            removed += some
        if self._store.is_direct and (self._swept_at is None or now - self._swept_at >= SWEEP_SECONDS):
            removed += await self._sweep()
            self._swept_at = now
        return removed

    async def _remove_some(self) -> int:
        async with self._sessions() as session:
            ids = await files.unowned(session, AT_ONCE)
        if ids:
            await self._store.remove(ids)
            async with self._sessions.begin() as session:
                await files.forget(session, ids)
        return len(ids)

    async def _sweep(self) -> int:
        """Remove objects without a row. A row is there before its object, so an object that was listed has had one."""
        removed = 0
        async for ids in self._store.ids():
            async with self._sessions() as session:
                orphans = set(ids) - await files.known(session, ids)
            if orphans:
                await self._store.remove(orphans)
                removed += len(orphans)
        return removed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it once a minute while the block runs."""
        ending = asyncio.Event()
        task = asyncio.create_task(self._run(ending), name="collector")
        try:
            yield
        finally:
            ending.set()  # cancelled in the midst of connecting, it would leave half a connection behind
            _, unfinished = await asyncio.wait({task}, timeout=LAST_SECONDS)
            for each in unfinished:
                each.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, ending: asyncio.Event) -> None:
        is_tidy = False
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), PERIOD_SECONDS)
            if ending.is_set():
                return
            try:
                if not is_tidy:
                    await self._store.tidy()
                    is_tidy = True
                removed = await self.run_once()
                if removed:
                    log.info("stored_pieces_removed", count=removed)
            except (DatabaseUnavailable, StoreUnavailable) as error:
                log.debug("stored_pieces_not_removed", error=str(error))
