"""The live end of a simulation's curve or log, read once for all subscribers that have come up to it.

A subscriber is a cursor over rows in the database, never a queue. A tail is only what the cursors at the end share:
one task reads each new entry once into a bounded deque (or takes it without reading, if this process committed it and
it follows on what is there), and wakes the subscribers then: a thousand cost one read, and none waits for a lock. A
subscriber that fell behind reads from the database in pages. Nothing is dropped, nothing is unbounded.

While the database is away, all of them wait for it. A read that fails for another reason breaks the tail: its
subscribers are given the error, and the hub replaces it for those that come later.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from random import uniform
from time import monotonic, perf_counter
from typing import Generic, TypeAlias, TypeVar

from db import convergence, logs
from db.connection import Sessions, driver_of
from db.convergence import START, Batch, Head
from db.models import LogChunk
from db.outage import Outage
from graph.live.broadcast import Broadcast

TAIL_BATCHES = 64  # of at most 10,000 points each
PAGE_BATCHES = 64
TAIL_CHUNKS = 1_000
TAIL_CHARACTERS = 1_000_000  # of logs; the newest chunk is kept, whatever its size
PAGE_CHUNKS = 100
MOST_SHARED = 32  # events that subscribers of one tail share; they keep their encoded results

Cursor: TypeAlias = tuple[int, ...]
Entry = TypeVar("Entry")
Shared = TypeVar("Shared")


class Pulse:
    """Wakes what waits now, and nothing that comes later."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Take this before looking, then wait for it: a beat in between is not missed."""
        return self._event

    def beat(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class Tail(ABC, Generic[Entry]):
    """The shared end of the rows of one simulation. A subclass reads one kind of them."""

    def __init__(
        self,
        simulation_id: int,
        sessions: Sessions,
        outage: Outage,
        delivered: Callable[[float], None],
        look_again_seconds: float,
    ) -> None:
        """Make one that was not read yet.

        delivered: called with the seconds from knowing of new entries to having sent them to all subscribers.
        look_again_seconds: how long it is left alone at most: a hint may be lost.
        """
        self.simulation_id = simulation_id
        self.pulse = Pulse()
        self.broadcast = Broadcast()
        self.subscribers = 0
        self._sessions = sessions
        self._outage = outage
        self._delivered = delivered
        self._knows_since: float | None = None  # of entries that were not delivered yet
        self._delivered_end: Cursor | None = None
        self._entries: deque[Entry] = deque()
        self._begin: Cursor = START  # the cursor just before the first entry
        self._end: Cursor | None = None  # of the last entry; None: not read yet
        self._head: Head | None = None
        self._entries_asked = True
        self._head_asked = True
        self._defect: Exception | None = None  # why reading failed, other than an outage
        self._read_once = asyncio.Event()
        self._asked = 0
        self._reading: asyncio.Task[None] | None = None
        self._shared: dict[Hashable, object] = {}
        self._look_again_seconds = look_again_seconds
        self._look_again: asyncio.TimerHandle | None = None

    # --- what a kind of rows is ----------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def page_size() -> int:
        """The number of entries that are read at once."""

    @staticmethod
    @abstractmethod
    def cursor_of(entry: Entry) -> Cursor:
        """The cursor of a subscriber that has this entry."""

    @abstractmethod
    async def _find_end(self) -> Cursor:
        """Read the cursor of the last entry there is."""

    @abstractmethod
    async def _read_behind(self, after: Cursor) -> Sequence[Entry]:
        """Read a page of entries behind a cursor."""

    @abstractmethod
    def _is_too_long(self) -> bool:
        """True if the oldest entry has to be dropped."""

    # --- waking it -----------------------------------------------------------------------------------------------

    def stir(self, *, head: bool = True) -> None:
        """Something may be new: look, then wake all subscribers. Without `head`, only new entries are looked for."""
        self._entries_asked = True
        self._head_asked |= head
        self._wake()

    def _wake(self) -> None:
        self._asked += 1
        if self._knows_since is None:
            self._knows_since = perf_counter()  # uvloop counts milliseconds
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._catch_up(), name=f"tail {self.simulation_id}")

    def close(self) -> None:
        """The last subscriber has left."""
        if self._look_again is not None:
            self._look_again.cancel()
        if self._reading is not None:
            self._reading.cancel()

    # --- what subscribers find -----------------------------------------------------------------------------------

    @property
    def head(self) -> Head | None:
        """The state of the simulation, as far as the tail was read; None if there is none. After `ready`."""
        return self._head

    @property
    def is_broken(self) -> bool:
        """True if its read failed: subscribers get the error, and the hub makes a new tail."""
        return self._defect is not None

    async def ready(self) -> None:
        """Wait until the tail has been read once."""
        await self._read_once.wait()
        self._raise_defect()

    def behind(self, after: Cursor) -> Sequence[Entry] | None:
        """The entries behind the cursor; None if the tail does not reach back so far. After `ready`."""
        self._raise_defect()
        if after < self._begin:
            return None
        found: list[Entry] = []
        for entry in reversed(self._entries):  # from its end, where almost all cursors are
            if self.cursor_of(entry) <= after:
                break
            found.append(entry)
        found.reverse()
        return found

    async def page(self, after: Cursor) -> Sequence[Entry]:
        """Some entries behind the cursor, from the database; waits while that is away."""
        return await self._outage.patiently(lambda: self._read_behind(after))

    def _raise_defect(self) -> None:
        if self._defect is not None:
            raise self._defect

    def shared(self, key: Hashable, make: Callable[[], Shared]) -> Shared:
        """The one object for all subscribers that would make the same from this tail."""
        made = self._shared.get(key)
        if made is None:
            if len(self._shared) >= MOST_SHARED:
                self._shared.clear()  # what is in use goes on; it only costs making them once more
            made = self._shared[key] = make()
        return made  # type: ignore[return-value]  # a key is made by one caller, for one type

    # --- reading -------------------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        answered = 0
        while answered < self._asked:
            asked = self._asked
            try:
                await self._outage.patiently(self._refresh)
            except Exception as defect:  # noqa: BLE001  # handed on: it ends the stream of each subscriber
                self._defect = defect
            answered = asked
            self._read_once.set()
            self.pulse.beat()
            since, self._knows_since, end = self._knows_since, None, self._end
            await self.broadcast.publish()
            if since is not None and end != self._delivered_end and self._delivered_end is not None:
                self._delivered(perf_counter() - since)
            self._delivered_end = end

    def _take(self, new: Sequence[Entry]) -> None:
        """Put entries in at the end, in order; those that came in meanwhile are there already."""
        for entry in new:
            cursor = self.cursor_of(entry)
            if self._end is None or cursor > self._end:
                self._entries.append(entry)
                self._end = cursor
        while self._is_too_long():
            self._begin = self.cursor_of(self._entries.popleft())

    async def _refresh(self) -> None:
        if not self._head_asked and not self._entries_asked:
            return  # what is new was given
        read_head = self._head_asked
        self._entries_asked = self._head_asked = False
        try:
            await self._read(read_head=read_head)
        except BaseException:
            self._entries_asked, self._head_asked = True, self._head_asked or read_head
            raise

    async def _read(self, *, read_head: bool) -> None:
        head = self._head
        if read_head:
            async with self._sessions() as session:
                head = await convergence.find_head(session, self.simulation_id, monotonic())
        if self._end is None:
            self._begin = self._end = await self._find_end()
        while new := await self._read_behind(self._end):
            self._take(new)
            if len(new) < self.page_size():
                break
        if head is None or head.replaces(self._head):
            self._head = head
            self._shared.clear()  # an event may hold the state, too
        if read_head:
            self._set_timer()

    def _set_timer(self) -> None:
        """Look again in a while; not when all the others do, which would hold up what is live."""
        if self._look_again is not None:
            self._look_again.cancel()
        seconds = self._look_again_seconds * uniform(0.75, 1)
        self._look_again = asyncio.get_running_loop().call_later(seconds, self.stir)


class CurveTail(Tail[Batch]):
    """The end of a simulation's curve: batches of points. A cursor is (attempt, batch)."""

    @staticmethod
    def page_size() -> int:
        return PAGE_BATCHES

    @staticmethod
    def cursor_of(entry: Batch) -> Cursor:
        return entry.cursor

    def give(self, batch: Batch) -> None:
        """Take a batch that this process has committed as it is, if it follows on the tail's end; otherwise look."""
        if self._follows(batch):
            self._take([batch])
            self._wake()
        else:
            self.stir(head=False)

    def _follows(self, batch: Batch) -> bool:
        """True if `batch` directly follows the tail and replaces no older attempt's points.

        Batches of an attempt commit in the order of their numbers, so nothing is missing before the end's successor.
        In a later attempt the first points of a metric supersede older ones, from a step that only a reading shows.
        """
        if self._end != (batch.attempt, batch.batch - 1):
            return False
        if batch.attempt == 1:
            return True
        before = self._entries[-1].metrics if self._entries else frozenset()
        return batch.metrics <= before

    async def _find_end(self) -> Cursor:
        async with self._sessions() as session:
            return await convergence.find_end(session, self.simulation_id)

    async def _read_behind(self, after: Cursor) -> Sequence[Batch]:
        attempt, batch = after
        async with driver_of(self._sessions) as driver:
            return await convergence.read(driver, self.simulation_id, (attempt, batch), limit=PAGE_BATCHES)

    def _is_too_long(self) -> bool:
        return len(self._entries) > TAIL_BATCHES


class LogTail(Tail[LogChunk]):
    """The end of a rank's log: chunks of text. A cursor is (attempt, batch, position)."""

    def __init__(
        self,
        simulation_id: int,
        sessions: Sessions,
        outage: Outage,
        delivered: Callable[[float], None],
        look_again_seconds: float,
        *,
        rank: int = 0,
    ) -> None:
        super().__init__(simulation_id, sessions, outage, delivered, look_again_seconds)
        self._rank = rank

    @staticmethod
    def page_size() -> int:
        return PAGE_CHUNKS

    @staticmethod
    def cursor_of(entry: LogChunk) -> Cursor:
        return entry.attempt, entry.batch, entry.position

    async def _find_end(self) -> Cursor:
        async with self._sessions() as session:
            return await logs.find_end(session, self.simulation_id, self._rank)

    async def _read_behind(self, after: Cursor) -> Sequence[LogChunk]:
        attempt, batch, position = after
        async with self._sessions() as session:
            place = (attempt, batch, position)
            return await logs.read(session, self.simulation_id, place, limit=PAGE_CHUNKS, rank=self._rank)

    def _is_too_long(self) -> bool:
        if len(self._entries) > TAIL_CHUNKS:
            return True
        return len(self._entries) > 1 and sum(len(each.text) for each in self._entries) > TAIL_CHARACTERS
