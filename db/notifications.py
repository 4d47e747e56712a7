"""Hints between processes, by Postgres' NOTIFY. A hint says where to look, never what is there.

Channels and payloads:

    simulations   "ID"           a simulation's state, reason or intent changed (sent inside the transaction)
    machines      "ID"           a machine changed (likewise)
    convergence   "ID,ID,..."    simulations with new batches, collected over some milliseconds; "*": look at all
    tokens        "ID"           a token was revoked, or a browser with it signed out: what that opened must end

Everything works, only slower, when none arrives: whoever listens also looks by timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from db.connection import connect_raw

log = structlog.get_logger()

MAX_PAYLOAD_BYTES = 7_900  # Postgres takes 8,000
EVERYTHING = "*"


class Channel(StrEnum):
    SIMULATIONS = "simulations"
    MACHINES = "machines"
    CONVERGENCE = "convergence"
    TOKENS = "tokens"


def payload_of(ids: Iterable[int]) -> str:
    """Join ids, or say "look at all" where they would not fit into one notification."""
    joined = ",".join(str(each) for each in ids)
    return joined if len(joined) <= MAX_PAYLOAD_BYTES else EVERYTHING


def ids_of(payload: str) -> frozenset[int] | None:
    """Read a payload back; None means "look at all"."""
    try:
        return frozenset(int(part) for part in payload.split(","))
    except ValueError:
        return None


async def notify(session: AsyncSession, channel: Channel, payload: str) -> None:
    """Tell everybody who listens, when the transaction commits. For rare changes: it serialises commits."""
    await session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


Heard = Callable[[Channel, frozenset[int] | None], None]

# How a connection breaks. The internal error is what asyncpg raises when it is used just as the server hangs up.
_BREAKS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Listener:
    """One connection that hears every notification of other processes, and may say some of its own.

    When it breaks it is made again, for as long as it takes; then every channel is told to "look at all", for nobody
    knows what was missed. What it says itself it does not hear: whoever says it knows.
    """

    def __init__(self, url: str, channels: Iterable[Channel], heard: Heard) -> None:
        self._url = url
        self._channels = tuple(channels)
        self._heard = heard
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._saying = asyncio.Lock()  # a connection takes one statement at a time

    async def say(self, channel: Channel, payload: str) -> None:
        """Notify at once, outside any transaction; while the connection is broken, nothing: it is only a hint."""
        async with self._saying:
            connection = self._connection
            if connection is None:
                return
            try:
                await connection.execute("SELECT pg_notify($1, $2)", channel.value, payload)
            except _BREAKS as error:
                log.debug("notify_failed", channel=channel.value, error=str(error))
                if connection.is_closed():
                    # A protocol error closes it without a word to its termination listeners; this tells them.
                    connection.terminate()

    async def run(self) -> None:
        """Listen until cancelled."""
        async for attempt in AsyncRetrying(
            wait=wait_exponential_jitter(multiplier=0.1, max=5), retry=retry_if_exception_type(_Broken)
        ):
            with attempt:
                await self._run_once()

    async def _run_once(self) -> None:
        ended = asyncio.Event()
        try:
            connection = await connect_raw(self._url)
        except _BREAKS as error:  # a TimeoutError is an OSError
            raise _Broken from error
        try:
            connection.add_termination_listener(lambda _connection: ended.set())
            own = connection.get_server_pid()

            def hear(_connection: object, pid: int, channel: str, payload: object) -> None:
                if pid != own:
                    self._heard(Channel(channel), ids_of(str(payload)))

            for channel in self._channels:
                await connection.add_listener(channel.value, hear)
            self._connection = connection
            for channel in self._channels:
                self._heard(channel, None)
            await ended.wait()
        except _BREAKS as error:
            raise _Broken from error
        finally:
            self._connection = None
            connection.terminate()
        log.warning("listen_connection_lost")
        raise _Broken


class _Broken(Exception):
    """The connection ended, or could not be made."""


@asynccontextmanager
async def listening(url: str, channels: Iterable[Channel], heard: Heard) -> AsyncIterator[Listener]:
    """Call `heard(channel, ids)` for every notification while the block runs; ids None means "look at all"."""
    listener = Listener(url, channels, heard)
    task = asyncio.create_task(listener.run(), name="listen")
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
