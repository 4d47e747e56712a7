"""What wakes subscribers: one LISTEN connection per process, and per watched simulation one shared tail of its log.

A subscriber is a cursor over the log in the database, never a queue. The tail is only what the cursors at the end of
the log share: each new batch is read once, by whoever comes first, into a bounded deque, or not at all if it was
committed by this process and follows on what is there. Whoever fell behind reads from the database in pages. Nothing is
dropped, nothing is unbounded.

With notifications switched off, or while the LISTEN connection is broken, timers make everybody look again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from random import uniform
from time import perf_counter
from typing import TypeVar

import structlog

from db import convergence
from db.connection import Sessions, driver_of
from db.convergence import START, Batch, Head
from db.notifications import Channel, Listener, listening, payload_of
from graph.errors import DATABASE_AWAY
from graph.live.broadcast import Broadcast
from graph.live.watch_leases import WatchLeases
from graph.metrics import Metrics

log = structlog.get_logger()

TAIL_BATCHES = 64  # of at most 10,000 points each: what cursors at the end of the log share
PAGE_BATCHES = 64  # how many batches whoever fell behind reads at once
COLLECT_SECONDS = 0.01  # ids committed within this time go out in one notification
POLL_SECONDS = 1.0  # without notifications
LOOK_AGAIN_SECONDS = float(convergence.MONEY_SECONDS)  # with them: a hint may be lost, and money runs
MOST_SHARED = 32  # events that subscribers of one tail share; they keep their encoded results
RETRY_SECONDS = 0.5  # while the database does not answer
MANY = 1_000  # changed ids kept per subscriber; more mean "look at all"


Shared = TypeVar("Shared")


class Pulse:
    """Wakes everybody who waits now, and nobody who comes later."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Take this before looking, then wait for it: a beat in between is not missed."""
        return self._event

    def beat(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class Tail:
    """The end of one simulation's log, shared by the subscribers that have come up to it.

    One task reads what is new, and only then wakes everybody: a thousand subscribers cost one read, and none waits
    for a lock. While the database is away, everybody waits for it.
    """

    def __init__(
        self,
        simulation_id: int,
        sessions: Sessions,
        delivered: Callable[[float], None],
        look_again_seconds: float,
    ) -> None:
        """Make one that nobody has read yet.

        delivered: called with the seconds between learning of new batches and having sent them to all subscribers.
        look_again_seconds: how long it is left alone at most.
        """
        self.simulation_id = simulation_id
        self._delivered = delivered
        self._knows_since: float | None = None  # of what was not told yet
        self._told_end: tuple[int, int] | None = None
        self.pulse = Pulse()
        self.broadcast = Broadcast()
        self.subscribers = 0
        self._sessions = sessions
        self._batches: deque[Batch] = deque()
        self._begin = START  # the cursor just before the first batch of the tail
        self._end: tuple[int, int] | None = None  # of its last; None: not read yet
        self._head: Head | None = None
        self._log_asked = True
        self._head_asked = True
        self._defect: Exception | None = None  # what the reading broke on, other than the database being away
        self._read_once = asyncio.Event()
        self._asked = 0
        self._reading: asyncio.Task[None] | None = None
        self._shared: dict[Hashable, object] = {}
        self._look_again_seconds = look_again_seconds
        self._look_again: asyncio.TimerHandle | None = None

    def stir(self, *, head: bool = True) -> None:
        """Something may be new: look, then wake everybody. Without `head`, only new batches are looked for."""
        self._log_asked = True
        self._head_asked |= head
        self._wake()

    def give(self, batch: Batch) -> None:
        """Take a batch that this process has committed as it is, if it follows on the tail's end; otherwise look."""
        if self._follows(batch):
            self._take([batch])
            self._wake()
        else:
            self.stir(head=False)

    def _wake(self) -> None:
        self._asked += 1
        if self._knows_since is None:
            self._knows_since = perf_counter()  # uvloop counts milliseconds
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._catch_up(), name=f"tail {self.simulation_id}")

    def close(self) -> None:
        """Nobody is left to be woken."""
        if self._look_again is not None:
            self._look_again.cancel()
        if self._reading is not None:
            self._reading.cancel()

    @property
    def head(self) -> Head | None:
        """Where the simulation stands, as far as the tail was read; None if there is none. After `ready`."""
        return self._head

    @property
    def is_broken(self) -> bool:
        """Whether its subscribers are told of a defect, one after the other; whoever comes now needs another one."""
        return self._defect is not None

    async def ready(self) -> None:
        """Wait until the tail has been read once."""
        await self._read_once.wait()
        self._whole_or_raise()

    def behind(self, after: tuple[int, int]) -> Sequence[Batch] | None:
        """What the tail holds behind the cursor; None if it does not reach back so far. After `ready`."""
        self._whole_or_raise()
        if after < self._begin:
            return None
        found: list[Batch] = []
        for batch in reversed(self._batches):  # from its end, where almost all cursors are
            if batch.cursor <= after:
                break
            found.append(batch)
        found.reverse()
        return found

    async def page(self, after: tuple[int, int]) -> Sequence[Batch]:
        """Some batches behind the cursor, from the database."""
        async with driver_of(self._sessions) as driver:
            return await convergence.read(driver, self.simulation_id, after, limit=PAGE_BATCHES)

    def _whole_or_raise(self) -> None:
        if self._defect is not None:
            raise self._defect

    def shared(self, key: Hashable, make: Callable[[], Shared]) -> Shared:
        """The one object that all subscribers use who would make the same from this tail."""
        made = self._shared.get(key)
        if made is None:
            if len(self._shared) >= MOST_SHARED:
                self._shared.clear()  # whoever still uses them goes on; it only costs making them once more
            made = self._shared[key] = make()
        return made  # type: ignore[return-value]  # a key is made by one caller, for one type

    async def _catch_up(self) -> None:
        answered, failing = 0, False
        while answered < self._asked:
            asked = self._asked
            try:
                await self._refresh()
            except DATABASE_AWAY as error:
                if not failing:
                    log.warning("tail_read_failed", simulation_id=self.simulation_id, error=str(error))
                failing = True
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception as defect:  # noqa: BLE001  # handed on: each subscriber's stream tells it
                self._defect = defect
            answered, failing = asked, False
            self._read_once.set()
            self.pulse.beat()
            since, self._knows_since, end = self._knows_since, None, self._end
            await self.broadcast.publish()
            if since is not None and end != self._told_end and self._told_end is not None:
                self._delivered(perf_counter() - since)
            self._told_end = end

    def _follows(self, batch: Batch) -> bool:
        """Whether nothing can lie between the tail's end and this batch, and it supersedes nothing.

        Batches of an attempt commit in the order of their numbers, so nothing is missing before the end's successor.
        In a later attempt the first points of a metric say what they supersede, which only a reading tells.
        """
        if self._end != (batch.attempt, batch.batch - 1):
            return False
        if batch.attempt == 1:
            return True
        before = self._batches[-1].metrics if self._batches else frozenset()
        return batch.metrics <= before

    def _take(self, new: Sequence[Batch]) -> None:
        """Put batches in at the end, in order; those that came in meanwhile are there already."""
        for batch in new:
            if self._end is None or batch.cursor > self._end:
                self._batches.append(batch)
                self._end = batch.cursor
        while len(self._batches) > TAIL_BATCHES:
            self._begin = self._batches.popleft().cursor

    async def _refresh(self) -> None:
        if not self._head_asked and not self._log_asked:
            return  # what is new was given
        read_head = self._head_asked
        self._log_asked = self._head_asked = False
        try:
            await self._read(read_head=read_head)
        except BaseException:
            self._log_asked, self._head_asked = True, self._head_asked or read_head
            raise

    async def _read(self, *, read_head: bool) -> None:
        head = self._head
        if read_head:
            async with self._sessions() as session:
                head = await convergence.find_head(session, self.simulation_id)
        if self._end is None:
            async with self._sessions() as session:
                self._begin = self._end = await convergence.find_end(session, self.simulation_id)
        async with driver_of(self._sessions) as driver:
            while True:
                new = await convergence.read(driver, self.simulation_id, self._end, limit=PAGE_BATCHES)
                self._take(new)
                if len(new) < PAGE_BATCHES:
                    break
        if head is None or head.replaces(self._head):
            self._head = head
            self._shared.clear()  # an event tells the state too
        if read_head:
            self._set_timer()

    def _set_timer(self) -> None:
        """Look again in a while; not when all the others do, which would hold up what is live."""
        if self._look_again is not None:
            self._look_again.cancel()
        seconds = self._look_again_seconds * uniform(0.75, 1)
        self._look_again = asyncio.get_running_loop().call_later(seconds, self.stir)


class Changes:
    """Which ids changed since a subscriber looked last; None: look at all."""

    def __init__(self) -> None:
        self.ids: set[int] | None = set()
        self.stirred = asyncio.Event()

    def add(self, ids: frozenset[int] | None) -> None:
        if ids is None or self.ids is None or len(self.ids) + len(ids) > MANY:
            self.ids = None
        else:
            self.ids |= ids
        self.stirred.set()

    async def next(self) -> set[int] | None:
        """Wait for the next change."""
        await self.stirred.wait()
        self.stirred.clear()
        ids, self.ids = self.ids, set()
        return ids


class Hub:
    """All tails and all watchers of one graph process."""

    def __init__(
        self,
        sessions: Sessions,
        watch_leases: WatchLeases | None = None,
        tokens_changed: Callable[[], None] = lambda: None,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._sessions = sessions
        self._tokens_changed = tokens_changed
        self._watch_leases = watch_leases
        self._tails: dict[int, Tail] = {}
        self._watchers: dict[Channel, set[Changes]] = {Channel.SIMULATIONS: set(), Channel.MACHINES: set()}
        self._committed: set[int] = set()
        self._commit = asyncio.Event()
        self._announces = False
        self._look_again_seconds = POLL_SECONDS

    @asynccontextmanager
    async def running(self, url: str | None) -> AsyncIterator[None]:
        """Listen on the database at `url` while the block runs; None: notifications are off, look by timer."""
        self._announces = url is not None
        self._look_again_seconds = LOOK_AGAIN_SECONDS if self._announces else POLL_SECONDS
        async with asyncio.TaskGroup() as tasks:
            if url is None:
                background = [tasks.create_task(self._poll())]
                yield
            else:
                async with listening(url, tuple(Channel), self.heard) as listener:
                    background = [
                        tasks.create_task(self._poll()),
                        tasks.create_task(self._announce(listener)),
                    ]
                    yield
            for task in background:
                task.cancel()

    def committed(self, simulation_id: int, batch: Batch, *, ended: bool) -> None:
        """A batch was committed by this process: wake its subscribers here now, those elsewhere in a moment."""
        self._metrics.stored(sum(len(series.steps) for series in batch.series))
        tail = self._tails.get(simulation_id)
        if tail is not None and batch.series and not ended:
            tail.give(batch)
        elif tail is not None:
            tail.stir(head=ended)
        if self._announces:
            self._committed.add(simulation_id)
            self._commit.set()

    def heard(self, channel: Channel, ids: frozenset[int] | None) -> None:
        """A hint came in; ids None: look at all."""
        for watcher in self._watchers.get(channel, ()):
            watcher.add(ids)
        if channel is Channel.TOKENS:
            self._tokens_changed()
        elif channel is not Channel.MACHINES:
            for simulation_id in ids if ids is not None else self._tails:
                if tail := self._tails.get(simulation_id):
                    tail.stir(head=channel is not Channel.CONVERGENCE or ids is None)

    @contextmanager
    def tail(self, simulation_id: int) -> Iterator[Tail]:
        """Share the tail of a simulation's log with whoever else watches it."""
        tail = self._tails.get(simulation_id)
        if tail is None or tail.is_broken:
            tail = Tail(simulation_id, self._sessions, self._metrics.delivered, self._look_again_seconds)
            self._tails[simulation_id] = tail
            tail.stir()
        tail.subscribers += 1
        try:
            yield tail
        finally:
            tail.subscribers -= 1
            if not tail.subscribers:
                if self._tails.get(simulation_id) is tail:
                    del self._tails[simulation_id]
                tail.close()

    def subscribers(self) -> dict[str, int]:
        """How many subscriptions run, by what they are of."""
        return {
            "log": sum(tail.subscribers for tail in self._tails.values()),
            **{channel.name.lower(): len(watchers) for channel, watchers in self._watchers.items()},
        }

    def watched(self, simulation_id: int) -> AbstractContextManager[None]:
        """Somebody watches this simulation while the block runs: an attended one runs only then."""
        return self._watch_leases.watched(simulation_id) if self._watch_leases is not None else nullcontext()

    @contextmanager
    def changes(self, channel: Channel) -> Iterator[Changes]:
        """Collect the ids that change while the block runs."""
        changes = Changes()
        self._watchers[channel].add(changes)
        try:
            yield changes
        finally:
            self._watchers[channel].discard(changes)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._look_again_seconds)
            for watchers in self._watchers.values():
                for watcher in watchers:
                    watcher.add(None)

    async def _announce(self, listener: Listener) -> None:
        while True:
            await self._commit.wait()
            await asyncio.sleep(COLLECT_SECONDS)
            self._commit.clear()
            ids, self._committed = self._committed, set()
            await listener.say(Channel.CONVERGENCE, payload_of(ids))
