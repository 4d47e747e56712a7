"""Broadcast: one loop sends the next event to all subscribers that have reached the end of a log.

Waking a subscriber so that it pulls its event through its own generators costs more than sending does. A subscriber
that has caught up may therefore join here: subscribers at the same cursor, with the same selection and rights, are one
group, and each event is sent to the group in one loop. It is no queue: a subscriber that can't take an event at once,
or that is due a different event, leaves the group and goes on by its own cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator, Hashable, Sequence
from types import coroutine
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

from graph.live.shared_execution import ExecutionContext, Feed

AT_A_STRETCH = 200  # sends before others get their turn: some milliseconds

Rest = Awaitable[None]


class Place(Protocol):
    """A subscriber's position in a log: its cursor, and the state it was sent last."""

    ended: bool

    @property
    def key(self) -> Hashable:
        """Equal for subscribers that get the same events from here on."""

    def copy(self) -> Self: ...

    def move(self, to: Self) -> None: ...

    def at_hand(self) -> Sequence[object] | None:
        """The events behind this place, which moves on behind them; None if the tail does not reach back to it."""


class Subscriber:
    """A subscriber that waits for the next event, with its place; `left` is set when it has to go on by itself."""

    __slots__ = ("feed", "left", "place")

    def __init__(self, place: Place, feed: Feed) -> None:
        self.place = place
        self.feed = feed
        self.left: asyncio.Future[Rest | None] = asyncio.get_running_loop().create_future()

    @property
    def key(self) -> Hashable:
        return (self.feed.key, self.place.key)

    def release(self, rest: Rest | None = None) -> None:
        """Let it go on by itself, after the rest of a sending that had to wait."""
        if not self.left.done():
            self.left.set_result(rest)

    def take(self, texts: Sequence[bytes]) -> None:
        """Send; if that can't be done at once, it leaves."""
        rest, write = None, self.feed.write
        try:
            for number, text in enumerate(texts):
                if not write(text):
                    rest = begin(self.feed.send_all(texts[number:]))
                    break
        except Exception as gone:  # noqa: BLE001  # passed on: its own stream reports it
            if not self.left.done():
                self.left.set_exception(gone)
        if rest is not None:
            self.release(rest)


class Broadcast:
    """The subscribers that wait at the end of one log, in groups."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, set[Subscriber]] = {}
        self._executors: WeakValueDictionary[Hashable, ExecutionContext] = WeakValueDictionary()

    async def join(self, place: Place, feed: Feed) -> None:
        """Wait while events are sent to the group; return when the subscriber has to go on by itself, from `place`."""
        feed.join(self._executors)
        subscriber = Subscriber(place, feed)
        self._groups.setdefault(subscriber.key, set()).add(subscriber)
        try:
            rest = await subscriber.left
        finally:
            self._leave(subscriber)
        if rest is not None:
            await rest

    async def publish(self) -> None:
        """Send what is new to each group."""
        for key in tuple(self._groups):
            subscribers = self._groups.pop(key, None)
            if subscribers:
                await self._publish(subscribers)

    async def _publish(self, subscribers: set[Subscriber]) -> None:
        first = next(iter(subscribers))
        ahead = first.place.copy()
        try:
            events = ahead.at_hand()
            found = [await first.feed.text(event) for event in events] if events is not None else []
        except Exception:  # noqa: BLE001  # each subscriber meets the error again, and its stream reports it
            events = None
        if events is None or ahead.ended or None in found:
            for subscriber in subscribers:
                subscriber.release()
            return
        texts = [text for text in found if text is not None]
        for count, subscriber in enumerate(subscribers, 1):
            if not subscriber.left.done():
                subscriber.place.move(ahead)
                subscriber.take(texts)
            if not count % AT_A_STRETCH:
                await asyncio.sleep(0)
        subscribers.difference_update([subscriber for subscriber in subscribers if subscriber.left.done()])
        if subscribers:
            group = self._groups.setdefault(next(iter(subscribers)).key, subscribers)
            group |= subscribers

    def _leave(self, subscriber: Subscriber) -> None:
        group = self._groups.get(subscriber.key)
        if group is not None:
            group.discard(subscriber)
            if not group:
                del self._groups[subscriber.key]


def begin(work: Coroutine[Any, Any, None]) -> Rest | None:
    """Run a coroutine up to its first wait, without a task; return what is left of it, None if it is done."""
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return _rest(work, waits_for)


@coroutine
def _rest(work: Coroutine[Any, Any, None], waits_for: object) -> Generator[Any, None, None]:
    try:
        yield waits_for
    except BaseException:
        work.close()
        raise
    yield from work  # goes on where it stopped
