"""Hints from and to other processes: one LISTEN connection, and the ids of what this process has committed.

Received hints go to the hub, revoked tokens to `TokenRevocation`. Commits are collected for some milliseconds
and sent in one NOTIFY. With notifications switched off, or lost, timers make all subscribers look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from db.convergence import Batch
from db.notifications import Channel, Listener, listening, payload_of
from db.outage import Outage
from graph.live.hub import Hub

COLLECT_SECONDS = 0.01  # ids committed within this time go out in one notification


class Notifications:
    """The hints of one graph process."""

    def __init__(
        self,
        url: str | None,
        hub: Hub,
        outage: Outage,
        tokens_changed: Callable[[], None] = lambda: None,
        stored: Callable[[int], None] = lambda _points: None,
    ) -> None:
        """url: the database's; None: notifications are off.

        tokens_changed: called when a token was revoked. stored: called with the number of points of each batch.
        """
        self._url = url
        self._hub = hub
        self._outage = outage
        self._tokens_changed = tokens_changed
        self._stored = stored
        self._committed: set[int] = set()
        self._commit = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, announce and look again while the block runs."""
        async with AsyncExitStack() as stack:
            if self._url is not None:
                listener = await stack.enter_async_context(
                    listening(self._url, tuple(Channel), self.heard, self._outage)
                )
            # A group: should a task break, so does this process, and not the promise that it keeps.
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            background = [tasks.create_task(self._look_again(), name="look again")]
            if self._url is not None:
                background.append(tasks.create_task(self._announce(listener), name="announce"))
            try:
                yield
            finally:
                for task in background:
                    task.cancel()

    def heard(self, channel: Channel, ids: frozenset[int] | None) -> None:
        """A hint came in; ids None: look at all."""
        if channel is Channel.TOKENS:
            self._tokens_changed()
        else:
            self._hub.heard(channel, ids)

    def committed(self, simulation_id: int, batch: Batch, *, ended: bool, logged: bool, rank: int = 0) -> None:
        """This process has committed a batch: wake its subscribers here now, those elsewhere in a moment.

        logged: it holds lines of the log, too. rank: of the member that reported it.
        """
        self._stored(sum(len(series.steps) for series in batch.series))
        self._hub.committed(simulation_id, batch, ended=ended, logged=logged, rank=rank)
        if self._url is not None and (batch.series or logged):  # an end has its own hint, of the state
            self._committed.add(simulation_id)
            self._commit.set()

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._hub.look_again_seconds)
            self._hub.look_again()

    async def _announce(self, listener: Listener) -> None:
        while True:
            await self._commit.wait()
            await asyncio.sleep(COLLECT_SECONDS)
            self._commit.clear()
            ids, self._committed = self._committed, set()
            await listener.say(Channel.CONVERGENCE, payload_of(ids))
