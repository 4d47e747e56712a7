"""Stored checkpoints and outputs: lists of files, and the pieces that they are made of.

A piece has a row before it is uploaded (`reserve`), which names its object in the store by the row's id, and counts for
the project's quota. A list is one row for each directory and rank, replaced in one statement (`commit`) and only if all
pieces are stored: whatever is killed in between, the list before it holds. Pieces of a replaced list lose their
simulation, as those of a deleted simulation do by their foreign key; what has none is removed from the store first and
its row afterwards (`unowned`, `forget`). An object is never written again under an id, so a removal that is repeated
does no harm.

Only members of current attempts store files: the fence is that of their reports.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import LargeBinary, any_, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import CollectionAggregate

from db.attempts import Claim
from db.errors import Refusal
from db.models import Attempt, Project, StoredFiles, StoredPiece
from db.states import FileKind

GIB = 2**30
PIECE_BYTES = 8 << 20  # the longest; all pieces of a file but its last have this length
LINK = 2
MOST_RANK = 2**31 - 1
MOST_MISSING = 1_000  # that are named in an answer
SAVE_AGE = timedelta(hours=1)  # pieces of a save that takes longer may have to be sent again


class QuotaReached(Refusal):
    """The files of a project would exceed its quota."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A member that stores files: its simulation, its project, and the number of its attempt."""

    simulation_id: int
    project_id: int
    attempt: int
    rank: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that has a row."""

    id: int
    size_bytes: int
    is_stored: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a list, as it is sent and kept: a list of these fields.

    kind: 0 a file, 1 an executable one, 2 a link. digest: SHA-256 in hex; of a link, where it leads. joined: digests of
    its pieces, one behind the other, where there is more than one.
    """

    path: str
    size_bytes: int
    modified_ms: int
    kind: int
    digest: str
    joined: str

    @property
    def pieces(self) -> Sequence[str]:
        if self.kind == LINK or not self.size_bytes:
            return ()
        joined = self.joined or self.digest
        return [joined[begin : begin + 64] for begin in range(0, len(joined), 64)]

    def as_row(self) -> list[Any]:
        return [self.path, self.size_bytes, self.modified_ms, self.kind, self.digest, self.joined]


_OWNER = text(
    """
    UPDATE members AS m SET saved_at = now() FROM attempts AS a, simulations AS s
    WHERE m.attempt_id = :attempt AND m.token_digest = :token AND m.nonce = :nonce AND m.ended_at IS NULL
      AND a.id = m.attempt_id AND s.id = a.simulation_id
    RETURNING s.id, s.project_id, a.number, m.rank
    """
)
_READER = text(
    """
    SELECT s.id, s.project_id, a.number, m.rank
    FROM members AS m JOIN attempts AS a ON a.id = m.attempt_id JOIN simulations AS s ON s.id = a.simulation_id
    WHERE m.attempt_id = :attempt AND m.token_digest = :token AND m.nonce = :nonce AND m.ended_at IS NULL
    """
)


async def find_owner(
    session: AsyncSession, claim: Claim, *, stores: bool = True, commits: bool = False
) -> Owner | None:
    """Find the current member with this token and nonce.

    stores: note that it does, and lock its row. commits: lock the attempt too, so that commits of its members see each
    other: what one gives up may be what the other names.
    """
    if commits:
        await session.execute(select(Attempt.id).where(Attempt.id == claim.attempt_id).with_for_update(key_share=True))
    given = {"attempt": claim.attempt_id, "token": claim.token_digest, "nonce": claim.nonce}
    row = (await session.execute(_OWNER if stores else _READER, given)).one_or_none()
    return Owner(*row) if row is not None else None


# --- pieces ----------------------------------------------------------------------------------------------------


async def reserve(
    session: AsyncSession, owner: Owner, wanted: Mapping[str, int], *, quota_bytes: int | None = None
) -> Mapping[str, Piece]:
    """Make rows for pieces that have none; return those of all. wanted: sizes by digest, in hex.

    Raises QuotaReached, having written nothing.
    """
    if not wanted:
        return {}
    found = await pieces_of(session, owner.simulation_id, wanted)
    new = {digest: size for digest, size in wanted.items() if digest not in found}
    if not new:
        return found
    if quota_bytes is not None:
        await _require_room(session, owner.project_id, sum(new.values()), quota_bytes)
    rows = [
        {
            "project_id": owner.project_id,
            "simulation_id": owner.simulation_id,
            "digest": bytes.fromhex(digest),
            "size_bytes": size,
        }
        for digest, size in sorted(new.items())
    ]
    await session.execute(insert(StoredPiece).values(rows).on_conflict_do_nothing())  # another rank may have the same
    return await pieces_of(session, owner.simulation_id, wanted)


async def _require_room(session: AsyncSession, project_id: int, more_bytes: int, quota_bytes: int) -> None:
    """Lock the project, so that all who reserve at once see each other."""
    name = await session.scalar(select(Project.name).where(Project.id == project_id).with_for_update(key_share=True))
    held = await held_bytes(session, project_id)
    if held + more_bytes > quota_bytes:
        raise QuotaReached(
            f"The files of project {name} may have {quota_bytes / GIB:.4g} GiB: {held / GIB:.4g} GiB are stored, and "
            f"{more_bytes / GIB:.4g} GiB more were to be."
        )


async def held_bytes(session: AsyncSession, project_id: int) -> int:
    """Return how many bytes of a project are stored or reserved."""
    total = await session.scalar(
        select(func.coalesce(func.sum(StoredPiece.size_bytes), 0)).where(
            StoredPiece.project_id == project_id, StoredPiece.simulation_id.is_not(None)
        )
    )
    return int(total or 0)


async def pieces_of(session: AsyncSession, simulation_id: int, digests: Collection[str]) -> Mapping[str, Piece]:
    """Return those of these pieces that have a row, by digest."""
    rows = await session.execute(
        select(StoredPiece.digest, StoredPiece.id, StoredPiece.size_bytes, StoredPiece.stored_at.is_not(None)).where(
            StoredPiece.simulation_id == simulation_id,
            StoredPiece.digest == _any(digests),
        )
    )
    return {row[0].hex(): Piece(row[1], row[2], row[3]) for row in rows}


def _any(digests: Collection[str]) -> CollectionAggregate[bool]:
    return any_(literal(list(map(bytes.fromhex, digests)), ARRAY(LargeBinary)))


async def note_put(session: AsyncSession, piece_id: int) -> bool:
    """Note that an object is in the store; False if its row lost its simulation meanwhile: it is to be removed."""
    statement = (
        update(StoredPiece)
        .where(StoredPiece.id == piece_id, StoredPiece.simulation_id.is_not(None))
        .values(stored_at=func.coalesce(StoredPiece.stored_at, func.now()))
        .returning(StoredPiece.id)
    )
    return await session.scalar(statement) is not None


# --- lists -----------------------------------------------------------------------------------------------------


# The pieces of files in a list, with their sizes. The digests of a file are decoded once (the first OFFSET keeps them
# from being so for each): a part of bytes is found at once, a part of a text by counting its characters, which takes
# minutes. The other OFFSET keeps all digests of a file out of the rows that are sorted and hashed.
_PIECES = f"""
    SELECT substring(named.digests FROM at.begin FOR 32) AS digest,
           least(
               {PIECE_BYTES}, CAST(entry ->> 1 AS bigint) - (CAST(at.begin AS bigint) - 1) / 32 * {PIECE_BYTES}
           ) AS size_bytes
    FROM jsonb_array_elements({{entries}}) AS entry
    CROSS JOIN LATERAL (
        SELECT decode(
            CASE WHEN CAST(entry ->> 3 AS integer) <> {LINK} AND CAST(entry ->> 1 AS bigint) > 0
                THEN coalesce(nullif(entry ->> 5, ''), entry ->> 4) ELSE '' END, 'hex'
        ) AS digests
        OFFSET 0
    ) AS named
    CROSS JOIN LATERAL generate_series(1, length(named.digests), 32) AS at (begin)
    OFFSET 0
"""  # noqa: S608  # constants of this module
_GIVEN = _PIECES.format(entries="CAST(:entries AS jsonb)")
_NOTE_WRITTEN = text(
    f"""
    UPDATE stored_pieces SET stored_at = now()
    WHERE simulation_id = :simulation AND stored_at IS NULL AND digest IN (SELECT digest FROM ({_GIVEN}) AS given)
    """  # noqa: S608  # constants of this module
)
_MISSING = text(
    f"""
    SELECT DISTINCT given.digest FROM ({_GIVEN}) AS given
    LEFT JOIN stored_pieces AS p ON p.simulation_id = :simulation AND p.digest = given.digest
        AND p.size_bytes = given.size_bytes AND p.stored_at IS NOT NULL
    WHERE p.id IS NULL
    LIMIT {MOST_MISSING}
    """  # noqa: S608  # constants of this module
)
# Replaces the list, and gives up pieces that it alone named; also those of saves that were given up. One statement: it
# sees the list before it.
_REPLACE = text(
    f"""
    WITH before AS (
        SELECT given.digest FROM stored_files AS f CROSS JOIN LATERAL ({_PIECES.format(entries="f.entries")}) AS given
        WHERE f.simulation_id = :simulation AND f.kind = :kind AND f.rank = :rank
    ), used AS (
        SELECT given.digest FROM stored_files AS f CROSS JOIN LATERAL ({_PIECES.format(entries="f.entries")}) AS given
        WHERE f.simulation_id = :simulation AND (f.kind <> :kind OR f.rank <> :rank)
        UNION SELECT given.digest FROM ({_GIVEN}) AS given
    ), given_up AS (
        UPDATE stored_pieces AS p SET simulation_id = NULL
        WHERE p.simulation_id = :simulation
          AND (p.digest IN (SELECT digest FROM before) OR p.created_at <= now() - CAST(:age AS interval))
          AND NOT EXISTS (SELECT FROM used WHERE used.digest = p.digest)
    )
    INSERT INTO stored_files (simulation_id, kind, rank, attempt, stored_at, size_bytes, entries)
    VALUES (:simulation, :kind, :rank, :attempt, now(), :size, CAST(:entries AS jsonb))
    ON CONFLICT (simulation_id, kind, rank) DO UPDATE SET attempt = EXCLUDED.attempt, stored_at = EXCLUDED.stored_at,
        size_bytes = EXCLUDED.size_bytes, entries = EXCLUDED.entries
    """  # noqa: S608  # constants of this module
)


async def commit(
    session: AsyncSession, owner: Owner, kind: FileKind, entries: Sequence[Entry], *, is_direct: bool = False
) -> Collection[str]:
    """Make this the list of a directory; return pieces that are not stored, and then nothing has changed.

    is_direct: its supervisor has written the pieces itself. A list may have hundreds of thousands of pieces: PostgreSQL
    takes them apart, for here they would hold up all others for a second.
    """
    given = {
        "simulation": owner.simulation_id,
        "entries": orjson.dumps([each.as_row() for each in entries]).decode(),
    }
    if is_direct:
        await session.execute(_NOTE_WRITTEN, given)
    if missing := list(await session.scalars(_MISSING, given)):
        return {each.hex() for each in missing}
    place = {"kind": kind.value, "rank": owner.rank, "attempt": owner.attempt}
    size = sum(each.size_bytes for each in entries)
    await session.execute(_REPLACE, {**given, **place, "size": size, "age": SAVE_AGE})
    return ()


async def find_list(session: AsyncSession, simulation_id: int, kind: FileKind, rank: int) -> StoredFiles | None:
    """Read the newest list of one directory."""
    if rank > MOST_RANK:
        return None
    return await session.get(StoredFiles, (simulation_id, kind, rank))


async def lists_of(session: AsyncSession, simulation_id: int) -> Sequence[StoredFiles]:
    """Read the newest lists of a simulation, by kind and rank."""
    statement = select(StoredFiles).where(StoredFiles.simulation_id == simulation_id)
    rows = await session.scalars(
        statement.order_by(StoredFiles.kind, StoredFiles.rank).execution_options(populate_existing=True)
    )
    return rows.all()


def entries_of(row: StoredFiles) -> Sequence[Entry]:
    """The files of a list, by path."""
    return [Entry(*each) for each in row.entries]


# --- what goes -------------------------------------------------------------------------------------------------

# Pieces that were reserved and never stored, and those of lists that are too old.
_EXPIRE = text(
    """
    DELETE FROM stored_files AS f USING simulations AS s
    WHERE f.simulation_id = s.id AND f.kind = 'CHECKPOINT' AND s.finished_at < now() - CAST(:age AS interval)
    RETURNING f.simulation_id
    """
)
_UNUSED = text(
    f"""
    WITH used AS (
        SELECT DISTINCT f.simulation_id, given.digest
        FROM stored_files AS f CROSS JOIN LATERAL ({_PIECES.format(entries="f.entries")}) AS given
        WHERE f.simulation_id = ANY(:ids)
    )
    UPDATE stored_pieces AS p SET simulation_id = NULL
    WHERE p.simulation_id = ANY(:ids)
      AND NOT EXISTS (SELECT FROM used WHERE used.simulation_id = p.simulation_id AND used.digest = p.digest)
    """  # noqa: S608  # constants of this module
)


async def expire_checkpoints(session: AsyncSession, age: timedelta) -> int:
    """Delete the lists of checkpoints of simulations that ended so long ago; return of how many."""
    expired = set(await session.scalars(_EXPIRE, {"age": age}))
    if expired:
        await session.execute(_UNUSED, {"ids": sorted(expired)})
    return len(expired)


async def disown_unstored(session: AsyncSession, age: timedelta) -> None:
    """Give up pieces that were reserved so long ago and never stored."""
    await session.execute(
        update(StoredPiece)
        .where(StoredPiece.stored_at.is_(None), StoredPiece.created_at < func.now() - age)
        .values(simulation_id=None)
    )


async def disown_uncommitted(session: AsyncSession, age: timedelta, *, within: timedelta) -> int:
    """Give up pieces that no list names, of simulations that ended `age` ago and up to `within` before; return of how
    many simulations.
    """
    ids = list(await session.scalars(_ENDED, {"age": age, "within": within}))
    if ids:
        await session.execute(_UNUSED, {"ids": ids})
    return len(ids)


_ENDED = text(
    """
    SELECT s.id FROM simulations AS s
    WHERE s.finished_at BETWEEN now() - CAST(:age AS interval) - CAST(:within AS interval)
        AND now() - CAST(:age AS interval)
      AND EXISTS (SELECT FROM stored_pieces AS p WHERE p.simulation_id = s.id)
    """
)


async def unowned(session: AsyncSession, most: int) -> Sequence[int]:
    """Return ids of pieces to be removed from the store; other processes skip them until the transaction ends."""
    rows = await session.scalars(
        select(StoredPiece.id)
        .where(StoredPiece.simulation_id.is_(None))
        .order_by(StoredPiece.id)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    return rows.all()


async def forget(session: AsyncSession, ids: Collection[int]) -> None:
    """Delete the rows of pieces that the store has removed."""
    await session.execute(delete(StoredPiece).where(StoredPiece.id.in_(ids), StoredPiece.simulation_id.is_(None)))
