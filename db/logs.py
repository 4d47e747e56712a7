"""Log of a simulation, for each rank: output that is no point, and messages of its supervisor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, case, collate, func, insert, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import LogChunk
from db.states import LogStream

START = (0, 0, 0)
COLOURS = r"\x1b\[[0-9;:]*m"  # SGR sequences (ECMA-48 8.3.117), as supervisors leave them in a log


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of one stream, joined by line ends: the last one is without its own."""

    stream: LogStream
    text: str


async def store(
    session: AsyncSession, simulation_id: int, attempt: int, batch: int, chunks: Sequence[Chunk], *, rank: int = 0
) -> None:
    """Write the log of a batch that `attempts.accept` has accepted, in the same transaction. rank: of the member."""
    if chunks:
        await session.execute(
            insert(LogChunk),
            [
                {
                    "simulation_id": simulation_id,
                    "rank": rank,
                    "attempt": attempt,
                    "batch": batch,
                    "position": position,
                    "stream": chunk.stream,
                    "text": chunk.text,
                }
                for position, chunk in enumerate(chunks)
            ],
        )


async def find_end(session: AsyncSession, simulation_id: int, rank: int = 0) -> tuple[int, int, int]:
    """The (attempt, batch, position) of a rank's last chunk; that before all of them where there is none."""
    newest = (
        await session.execute(
            select(LogChunk.attempt, LogChunk.batch, LogChunk.position)
            .where(LogChunk.simulation_id == simulation_id, LogChunk.rank == rank)
            .order_by(LogChunk.attempt.desc(), LogChunk.batch.desc(), LogChunk.position.desc())
            .limit(1)
        )
    ).first()
    return (newest.attempt, newest.batch, newest.position) if newest is not None else START


async def read(
    session: AsyncSession,
    simulation_id: int,
    after: tuple[int, int, int],
    *,
    limit: int,
    contains: str | None = None,
    rank: int = 0,
) -> Sequence[LogChunk]:
    """At most `limit` chunks of a rank behind (attempt, batch, position), in order.

    contains: only chunks that contain this text, without regard to colours and to the case of ASCII letters.
    """
    key = tuple_(LogChunk.attempt, LogChunk.batch, LogChunk.position)
    of_rank = (LogChunk.simulation_id == simulation_id, LogChunk.rank == rank)
    statement = select(LogChunk).where(*of_rank, key > tuple_(*after))
    if contains is not None:
        statement = statement.where(_contains(contains))
    ordered = statement.order_by(LogChunk.attempt, LogChunk.batch, LogChunk.position)
    return (await session.scalars(ordered.limit(limit))).all()


def _contains(sought: str) -> ColumnElement[bool]:
    """True for chunks that contain a text. The collation "C" folds ASCII alone, in every database."""
    coloured = func.strpos(LogChunk.text, "\x1b") > 0
    shown = case((coloured, func.regexp_replace(LogChunk.text, COLOURS, "", "g")), else_=LogChunk.text)
    return func.strpos(func.lower(collate(shown, "C")), func.lower(collate(literal(sought), "C"))) > 0
