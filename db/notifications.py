"""Hints between processes, by Postgres' NOTIFY. A hint names what changed, never the change.

Channels and payloads:

    simulations   "ID,ID,..."    state, reason or intent of simulations changed (sent inside the transaction)
    machines      "ID"           a machine changed (likewise)
    convergence   "ID,ID,..."    simulations with new batches, collected over some milliseconds; "*": read all
    alerts        ""             an event waits for its alerts, or a delivery for its sending
    sweeps        ""             a sweep was created, changed or cancelled
    tokens        "ID"           a token was revoked, or a browser with it signed out: its streams must end

Without notifications everything works, only slower: listeners also read by timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from functools import partial

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import connect_raw
from db.errors import CONNECTION_FAILURES, DatabaseUnavailable
from db.outage import Driver, Outage

log = structlog.get_logger()

MAX_PAYLOAD_BYTES = 7_900  # Postgres takes 8,000
EVERYTHING = "*"


class Channel(StrEnum):
    SIMULATIONS = "simulations"
    MACHINES = "machines"
    CONVERGENCE = "convergence"
    ALERTS = "alerts"
    SWEEPS = "sweeps"
    TOKENS = "tokens"


def payload_of(ids: Iterable[int]) -> str:
    """Join ids, or return "look at all" if they do not fit into one notification."""
    joined = ",".join(str(each) for each in ids)
    return joined if len(joined) <= MAX_PAYLOAD_BYTES else EVERYTHING


def ids_of(payload: str) -> frozenset[int] | None:
    """Read a payload back; None means "look at all"."""
    try:
        return frozenset(int(part) for part in payload.split(","))
    except ValueError:
        return None


async def notify(session: AsyncSession, channel: Channel, payload: str) -> None:
    """Notify all listeners when the transaction commits. For rare changes: it serialises commits."""
    await session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


Heard = Callable[[Channel, frozenset[int] | None], None]


class Listener:
    """One connection that receives the notifications of other processes, and may send some.

    A broken connection is reopened, for as long as it takes; then every channel gets "look at all", as the missed
    notifications are unknown. The connection's own notifications are not received.
    """

    def __init__(self, url: str, channels: Iterable[Channel], heard: Heard, outage: Outage | None = None) -> None:
        self._url = url
        self._outage = outage or Outage()
        self._channels = tuple(channels)
        self._heard = heard
        self._connection: Driver | None = None
        self._saying = asyncio.Lock()  # a connection takes one statement at a time

    async def say(self, channel: Channel, payload: str) -> None:
        """Notify at once, outside any transaction; does nothing while the connection is broken: it is only a hint."""
        async with self._saying:
            connection = self._connection
            if connection is None:
                return
            try:
                await connection.execute("SELECT pg_notify($1, $2)", channel.value, payload)
            except CONNECTION_FAILURES as error:
                log.debug("notify_failed", channel=channel.value, error=str(error))
                if connection.is_closed():
                    # A protocol error closes it without a word to its termination listeners; this tells them.
                    connection.terminate()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            with suppress(_Broken):
                await self._run_once()
            await self._outage.answer()

    async def _run_once(self) -> None:
        ended = asyncio.Event()
        try:
            connection = await self._outage.connecting(partial(connect_raw, self._url))
        except (*CONNECTION_FAILURES, DatabaseUnavailable) as error:
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
        except CONNECTION_FAILURES as error:
            raise _Broken from error
        finally:
            self._connection = None
            connection.terminate()
        log.info("listen_connection_lost")  # a hint: an outage has its own warning
        raise _Broken


class _Broken(Exception):
    """The connection ended, or could not be made."""


@asynccontextmanager
async def listening(
    url: str, channels: Iterable[Channel], heard: Heard, outage: Outage | None = None
) -> AsyncIterator[Listener]:
    """Call `heard(channel, ids)` for every notification while the block runs; ids None means "look at all".

    outage: the process's, by which a broken connection is made again.
    """
    listener = Listener(url, channels, heard, outage)
    task = asyncio.create_task(listener.run(), name="listen")
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
