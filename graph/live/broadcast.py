"""Who has been told everything: subscribers at the end of a log, whose next event one loop sends to all.

Waking a subscriber, having it look and pull its event through its generators costs more than sending does. So whoever
waits at the end of a log may leave its place here instead: those who stand at the same place, and get the same with
the same selection and rights, are one group, told in one loop. It is no queue: whoever can't take an event at once,
or gets something else, leaves the group, and goes on by its own cursor.
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
    """Where a subscriber stands in a log: its cursor, and what it was told last."""

    ended: bool

    @property
    def key(self) -> Hashable:
        """Equal for those who will be told the same from here on."""

    def copy(self) -> Self: ...

    def move(self, to: Self) -> None: ...

    def at_hand(self) -> Sequence[object] | None:
        """The events behind this place, which moves on behind them; None if the tail does not reach back to it."""


class Member:
    """A subscriber that waits, with its place and its way out."""

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
        except Exception as gone:  # noqa: BLE001  # handed on: its own stream tells it
            if not self.left.done():
                self.left.set_exception(gone)
        if rest is not None:
            self.release(rest)


class Audience:
    """The members that wait at the end of one log."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, set[Member]] = {}
        self._executors: WeakValueDictionary[Hashable, ExecutionContext] = WeakValueDictionary()

    async def stay(self, place: Place, feed: Feed) -> None:
        """Be told what comes, until there is something to do that the group can't; `place` has moved on then."""
        feed.join(self._executors)
        member = Member(place, feed)
        self._groups.setdefault(member.key, set()).add(member)
        try:
            rest = await member.left
        finally:
            self._leave(member)
        if rest is not None:
            await rest

    async def tell(self) -> None:
        """Something is new: send it to everybody it is meant for."""
        for key in tuple(self._groups):
            members = self._groups.pop(key, None)
            if members:
                await self._tell(members)

    async def _tell(self, members: set[Member]) -> None:
        first = next(iter(members))
        ahead = first.place.copy()
        try:
            events = ahead.at_hand()
            found = [await first.feed.text(event) for event in events] if events is not None else []
        except Exception:  # noqa: BLE001  # each finds it again by itself, and its stream tells it
            events = None
        if events is None or ahead.ended or None in found:
            for member in members:
                member.release()
            return
        texts = [text for text in found if text is not None]
        for count, member in enumerate(members, 1):
            if not member.left.done():
                member.place.move(ahead)
                member.take(texts)
            if not count % AT_A_STRETCH:
                await asyncio.sleep(0)
        members.difference_update([member for member in members if member.left.done()])
        if members:
            group = self._groups.setdefault(next(iter(members)).key, members)
            group |= members

    def _leave(self, member: Member) -> None:
        group = self._groups.get(member.key)
        if group is not None:
            group.discard(member)
            if not group:
                del self._groups[member.key]


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
