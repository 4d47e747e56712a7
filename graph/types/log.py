"""Logs in GraphQL: pages, and the logs subscription. A cursor is (attempt, batch, position) in the log of one rank.

Supervisors keep the colours of what a program prints (SGR sequences), and no other escape sequence. Text goes out
without any, unless colours are asked for.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Hashable, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from typing import Annotated, Self

import strawberry
from strawberry import relay

from db import logs, models
from db.convergence import Head
from graph.context import Info
from graph.errors import BadInput, NotFound
from graph.live.shared_execution import Memo, wanted_feed
from graph.live.tail import Cursor, LogTail
from graph.types import pages
from graph.types.cursors import decode_position, encode_position
from graph.types.enums import LogStream
from graph.types.ids import simulation_followed
from graph.types.inputs import MOST_MACHINES

# ECMA-48, as runner/supervisor/terminal.py has it: SGR of bounded length is the group, all others are nothing.
ESCAPES = re.compile(
    r"(\x1b\[[0-9;:]{0,48}m)|\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x1b"
)

MAX_SOUGHT = 200  # characters
NOT_IN_A_LINE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


@strawberry.type(description="Consecutive lines of one stream.")
class LogChunk:
    cursor: str = strawberry.field(description="Pass it as `after` to resume behind this chunk.")
    attempt: int
    stream: LogStream
    received_at: datetime = strawberry.field(description="When the service received it.")
    written: strawberry.Private[str]
    memo: strawberry.Private[Memo]

    @strawberry.field(
        description="Whole lines, joined by \\n: the last one is without its own, and `a\\n` is a and an empty line. "
        "A line that begins with \\r replaces the line of its stream before it: a progress bar, or the rest of a line.",
        metadata={"cost": 10},
    )
    def text(
        self,
        ansi: Annotated[
            bool, strawberry.argument(description="Keep colours: SGR sequences, ESC [ … m. No others are sent.")
        ] = False,
    ) -> str:
        if "\x1b" not in self.written:
            return self.written
        return ESCAPES.sub(r"\1" if ansi else "", self.written)

    @classmethod
    def of(cls, row: models.LogChunk, contains: str | None = None) -> Self:
        return cls(
            cursor=encode_position(row.attempt, row.batch, row.position, row.rank),
            attempt=row.attempt,
            stream=row.stream,
            received_at=row.received_at,
            written=row.text if contains is None else lines_with(contains, row.text),
            memo=Memo(),
        )


@strawberry.type(description="A log, oldest first.")
class LogConnection:
    nodes: list[LogChunk]
    page_info: relay.PageInfo


async def page_of_log(
    info: Info, simulation_id: int, first: int, after: str | None, contains: str | None, rank: int
) -> LogConnection:
    first, contains, place = pages.size(first), _searchable(contains), decode_position(after, _checked(rank))
    async with info.context.sessions() as session:
        rows = await logs.read(session, simulation_id, place, limit=first + 1, contains=contains, rank=rank)
    nodes = [LogChunk.of(row, contains) for row in rows[:first]]
    return LogConnection(
        nodes=nodes,
        page_info=relay.PageInfo(
            has_next_page=len(rows) > first,
            has_previous_page=False,
            start_cursor=nodes[0].cursor if nodes else None,
            end_cursor=nodes[-1].cursor if nodes else None,
        ),
    )


def lines_with(sought: str, text: str) -> str:
    """Keep the lines of a chunk that contain a text, as `db.logs.read` finds it. A line replaces none any more."""
    needle = sought.encode().lower()  # of bytes: ASCII alone
    lines = [line.removeprefix("\r") for line in text.split("\n")]
    return "\n".join(line for line in lines if needle in ESCAPES.sub("", line).encode().lower())


def _searchable(sought: str | None) -> str | None:
    if sought is not None and (not 0 < len(sought) <= MAX_SOUGHT or NOT_IN_A_LINE.search(sought)):
        raise BadInput(f"contains has 1 to {MAX_SOUGHT} characters, none of them a line end or another control.")
    return sought


def _checked(rank: int) -> int:
    if not 0 <= rank < MOST_MACHINES:
        raise BadInput(f"rank: 0 to {MOST_MACHINES - 1}.")
    return rank


async def follow(info: Info, public_id: str, after: str | None, rank: int) -> AsyncIterator[LogChunk]:
    """Every chunk of a rank behind the cursor, then live, to the end of the simulation; then it completes."""
    simulation_id = await simulation_followed(info, public_id)
    cursor = decode_position(after, _checked(rank))
    feed, hub = wanted_feed.get(), info.context.live.hub
    del info  # it holds what the first event was executed with
    with hub.log_tail(simulation_id, rank) as tail:
        await tail.ready()
        follower = Follower(tail, cursor)
        while True:
            pulse = tail.pulse.next
            news = [*await follower.next()]
            while news:
                yield news.pop(0)  # nothing that was sent is kept while waiting for what is next
            if follower.ended:
                return
            if feed is not None and feed.send is not None and follower.caught_up and not pulse.is_set():
                await tail.broadcast.join(follower, feed)
            elif follower.caught_up:
                await pulse.wait()


class Follower:
    """A subscriber's place in a log."""

    def __init__(self, tail: LogTail, cursor: Cursor) -> None:
        self.cursor = cursor
        self.caught_up = False
        self.ended = False
        self._tail = tail

    @property
    def key(self) -> Hashable:
        return self.cursor

    def copy(self) -> Follower:
        return copy(self)

    def move(self, to: Follower) -> None:
        self.cursor = to.cursor

    async def next(self) -> Sequence[LogChunk]:
        """Read the chunks behind the cursor: from the tail, or a page of it from the database."""
        chunks = self.at_hand()
        if chunks is None:
            head = self._tail.head  # before the page: a final one means that none is missing
            rows = await self._tail.page(self.cursor)
            self.caught_up = not rows
            self._move_behind(head, rows)
            chunks = [LogChunk.of(row) for row in rows]
        return chunks

    def at_hand(self) -> Sequence[LogChunk] | None:
        """Return the tail's entries behind the cursor; None if it does not reach back so far."""
        head = self._tail.head  # older than the chunks, or as old: a final one means that none is missing
        rows = self._tail.behind(self.cursor)
        self.caught_up = rows is not None
        if rows is None:
            return None
        self._move_behind(head, rows)
        return [self._tail.shared(self._tail.cursor_of(row), partial(LogChunk.of, row)) for row in rows]

    def _move_behind(self, head: Head | None, rows: Sequence[models.LogChunk]) -> None:
        if head is None:
            raise NotFound("There is no such simulation.")
        if rows:
            self.cursor = self._tail.cursor_of(rows[-1])
        self.ended = self.caught_up and head.state.is_final
