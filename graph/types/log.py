"""The log as clients see it: pages of it, and the live end of it. A cursor is (attempt, batch, position)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Self

import strawberry
from strawberry import relay

from db import convergence, logs, models
from graph.context import Info
from graph.errors import NotFound
from graph.types import pages
from graph.types.cursors import decode_position, encode
from graph.types.enums import LogStream
from graph.types.ids import number_asked


@strawberry.type(description="A stretch of one stream.")
class LogChunk:
    cursor: str = strawberry.field(description="Pass it as `after` to go on behind this chunk.")
    attempt: int
    stream: LogStream
    text: str = strawberry.field(
        description="Whole lines, joined by \\n: the last one is without its own, and `a\\n` is a and an empty line."
    )
    received_at: datetime = strawberry.field(description="When the service got it.")

    @classmethod
    def of(cls, row: models.LogChunk) -> Self:
        return cls(
            cursor=encode(row.attempt, row.batch, row.position),
            attempt=row.attempt,
            stream=row.stream,
            text=row.text,
            received_at=row.received_at,
        )


@strawberry.type(description="A log, oldest first.")
class LogConnection:
    nodes: list[LogChunk]
    page_info: relay.PageInfo


async def page_of_log(info: Info, simulation_id: int, first: int, after: str | None) -> LogConnection:
    first = pages.size(first)
    async with info.context.sessions() as session:
        rows = await logs.read(session, simulation_id, decode_position(after), limit=first + 1)
    nodes = [LogChunk.of(row) for row in rows[:first]]
    return LogConnection(
        nodes=nodes,
        page_info=relay.PageInfo(
            has_next_page=len(rows) > first,
            has_previous_page=False,
            start_cursor=nodes[0].cursor if nodes else None,
            end_cursor=nodes[-1].cursor if nodes else None,
        ),
    )


async def follow(info: Info, public_id: str, after: str | None) -> AsyncIterator[LogChunk]:
    """Every chunk behind the cursor, then live, to the end of the simulation; then it completes."""
    simulation_id = number_asked(public_id, "Simulation")
    cursor = decode_position(after)
    with info.context.hub.tail(simulation_id) as tail:
        while True:
            pulse = tail.pulse.next
            async with info.context.sessions() as session:
                head = await convergence.find_head(session, simulation_id)
                rows = await logs.read(session, simulation_id, cursor, limit=100)
            if head is None:
                raise NotFound("There is no such simulation.")
            for row in rows:
                cursor = (row.attempt, row.batch, row.position)
                yield LogChunk.of(row)
            if not rows:
                if head.state.is_final:
                    return
                await pulse.wait()
