"""Sending one event to all subscribers that wait for it: in pieces, between which the event loop turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from graph.live.broadcast import AT_A_STRETCH, Broadcast

MANY = 5 * AT_A_STRETCH


class Place:
    """A position in a log with one event behind it."""

    ended = False
    key = "place"

    def copy(self) -> Place:
        return self

    def move(self, to: Place) -> None: ...

    def at_hand(self) -> Sequence[object]:
        return ["event"]


class Feed:
    """A transport that takes everything at once, and counts it."""

    key = "feed"

    def __init__(self) -> None:
        self.sent = 0

    def join(self, executors: object) -> None: ...

    async def text(self, event: object) -> bytes:
        return b"event"

    def write(self, text: bytes) -> bool:
        self.sent += 1
        return True


async def test_an_event_for_many_subscribers_is_sent_in_pieces_between_which_the_loop_turns() -> None:
    broadcast, feed = Broadcast(), Feed()
    place: Any = Place()
    transport: Any = feed
    waiting = [asyncio.create_task(broadcast.join(place, transport)) for _ in range(MANY)]
    await asyncio.sleep(0)
    sent_at_each_turn = [0]

    async def look() -> None:
        while True:
            sent_at_each_turn.append(feed.sent)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    try:
        await broadcast.publish()
        sent_at_each_turn.append(feed.sent)
    finally:
        for each in (looking, *waiting):
            each.cancel()
        await asyncio.gather(looking, *waiting, return_exceptions=True)

    assert feed.sent == MANY
    assert max(later - earlier for earlier, later in pairwise(sent_at_each_turn)) <= AT_A_STRETCH
