"""Outages of the database, as one process sees them: noticed, logged once at each end, waited for.

An engine (`db.connection`) reports here what goes wrong with it; `watching` asks the server every second, over a
connection of its own, whether it answers at all. An outage is one warning, `database_away`, however many requests
fail, and one at its end, `database_back`.

A server that was killed ends its connections, and everything that waits for it fails at once. One that hangs (stopped,
or behind a network that drops packets) does neither: after `PATIENCE_SECONDS` of silence all connections are cut off,
so that what waits for them fails, and no new one is tried until the server answers again. So every request has an
answer within five seconds.

What is to go on after the outage waits for `answer`, or has `patiently` do that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, TypeAlias, TypeVar
from weakref import WeakSet

import asyncpg
import structlog

from db.errors import (
    DatabaseExhausted,
    DatabaseReadOnly,
    DatabaseUnavailable,
    DatabaseUnreachable,
    reason_of,
    unavailability,
)

log = structlog.get_logger()

Result = TypeVar("Result")
Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PERIOD_SECONDS = 1.0  # between two looks
AWAY_PERIOD_SECONDS = 0.25  # during an outage
PATIENCE_SECONDS = 3.0  # of silence; with a period before it still less than five
PIECES = 30  # of that patience
LAST_SECONDS = 10.0  # until a silent connection is given up for a new one: it may lead to a host that is gone
# Without failures, until an outage counts as over. A server that answers may still have a full disk: the next report
# finds that, and a supervisor that has failed often tries every five seconds.
QUIET_SECONDS = 0.5
REFUSAL_QUIET_SECONDS = 10.0


class Outage:
    """One process's knowledge of whether its database can be used. For one event loop."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._failed_at = 0.0
        self._failures = 0
        self._quiet_seconds = QUIET_SECONDS
        self._is_watched = False
        self._has_answered = False
        self._silent = False
        self._look_now = asyncio.Event()
        self._answer = asyncio.Event()
        self._connections: WeakSet[Driver] = WeakSet()
        self._opening: set[asyncio.Timeout] = set()

    @property
    def is_on(self) -> bool:
        """Whether something failed lately, and nothing has shown yet that it is over."""
        return self._began_at is not None

    def note(self, error: DatabaseUnavailable) -> None:
        """Count a failure. The first one begins the outage, and is logged."""
        self._failed_at = monotonic()
        self._failures += 1
        refuses = isinstance(error, DatabaseExhausted | DatabaseReadOnly)
        self._quiet_seconds = max(self._quiet_seconds, REFUSAL_QUIET_SECONDS if refuses else QUIET_SECONDS)
        if self._began_at is None:
            self._began_at = self._failed_at
            log.warning("database_away", reason=str(error))
        self._look_now.set()

    async def answer(self) -> None:
        """Wait for the server's next answer; where no one is watching, for as long as a look takes."""
        if self._is_watched:
            await self._answer.wait()
        else:
            await asyncio.sleep(AWAY_PERIOD_SECONDS)

    async def patiently(self, read: Callable[[], Awaitable[Result]]) -> Result:
        """Await `read()`; when the database is unavailable, wait for it and read again. Reads only."""
        while True:
            try:
                return await read()
            except DatabaseUnavailable:
                await self.answer()

    # --- connections -------------------------------------------------------------------------------------------

    async def connecting(self, connect: Callable[[], Awaitable[Driver]]) -> Driver:
        """Open a connection that is cut off when the server falls silent; at once refused while it is.

        Raises `DatabaseUnreachable` then, and what `connect` raises.
        """
        if self._silent:
            raise DatabaseUnreachable.because("no answer in time")
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._opening.add(patience)
                try:
                    connection = await connect()
                finally:
                    self._opening.discard(patience)
        except TimeoutError as error:
            raise DatabaseUnreachable.because("no answer in time") from error
        self._connections.add(connection)
        return connection

    # --- the watch ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watching(self, connect: Callable[[], Coroutine[Any, Any, Driver]]) -> AsyncIterator[None]:
        """Look after the server while the block runs. connect: opens a connection, with a time limit of its own."""
        task = asyncio.create_task(self._watch(connect), name="database watch")
        self._is_watched = True
        try:
            yield
        finally:
            self._is_watched = False
            self._heard()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, connect: Callable[[], Coroutine[Any, Any, Driver]]) -> None:
        connection: Driver | None = None

        async def opened() -> Driver:
            nonlocal connection  # at once: a watch that is cancelled now would never get it, nor close it
            connection = await connect()
            return connection

        try:
            while True:
                try:
                    if connection is None or connection.is_closed():
                        connection = await self._in_time(opened())
                    answer = await self._in_time(connection.fetchval("SHOW transaction_read_only"))
                except Exception as error:  # noqa: BLE001  # any failure means: no answer, ask again
                    found = unavailability(error, is_closed=True, connecting=True)
                    self.note(found or DatabaseUnreachable.because(reason_of(error)))
                    if connection is not None:
                        connection.terminate()
                else:
                    if answer == "on":
                        self.note(DatabaseReadOnly.because("it is read-only"))
                    self._heard()
                await self._pause()
        finally:
            if connection is not None:
                connection.terminate()

    async def _in_time(self, answer: Coroutine[Any, Any, Result]) -> Result:
        """Await the server's answer; after some seconds of silence cut all connections off, and wait on for a while.

        The seconds are counted in pieces, at most one for each turn of the event loop: a process that was stopped, or
        busy with itself, has not waited. Before the first answer of all, the server has more time.
        """
        waiting = asyncio.ensure_future(answer)
        try:
            for _ in range(PIECES if self._has_answered else 0):
                await asyncio.wait({waiting}, timeout=PATIENCE_SECONDS / PIECES)
                if waiting.done():
                    break
            else:
                if self._has_answered:
                    self.note(DatabaseUnreachable.because("no answer in time"))
                    self._cut_off()
                await asyncio.wait({waiting}, timeout=LAST_SECONDS)
            if not waiting.done():
                raise TimeoutError
            return waiting.result()
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    async def _pause(self) -> None:
        if self.is_on:
            await asyncio.sleep(AWAY_PERIOD_SECONDS)
            return
        self._look_now.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_SECONDS):
                await self._look_now.wait()

    def _heard(self) -> None:
        """The server has answered: wake what waits for that; an outage is over when nothing has failed for a while."""
        self._has_answered = True
        self._silent = False
        self._answer.set()
        self._answer = asyncio.Event()
        quiet_seconds = monotonic() - self._failed_at
        if self._began_at is not None and quiet_seconds >= self._quiet_seconds and self._is_watched:
            seconds = round(self._failed_at - self._began_at, 3)
            log.warning("database_back", seconds=seconds, failures=self._failures)
            self._began_at, self._failures, self._quiet_seconds = None, 0, QUIET_SECONDS

    def _cut_off(self) -> None:
        """End every connection to a server that hangs: what waits for them fails now."""
        self._silent = True
        while self._opening:
            self._opening.pop().reschedule(asyncio.get_running_loop().time())
        for connection in tuple(self._connections):
            connection.terminate()
