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

    @property
    def piece_sizes(self) -> Mapping[str, int]:
        """The size of each piece by its digest."""
        return {
            digest: min(PIECE_BYTES, self.size_bytes - number * PIECE_BYTES)
            for number, digest in enumerate(self.pieces)
        }

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


async def note_stored(session: AsyncSession, simulation_id: int, digests: Collection[str]) -> None:
    """Note that these pieces are in the store."""
    await session.execute(
        update(StoredPiece)
        .where(
            StoredPiece.simulation_id == simulation_id,
            StoredPiece.digest == _any(digests),
            StoredPiece.stored_at.is_(None),
        )
        .values(stored_at=func.now())
    )


# --- lists -----------------------------------------------------------------------------------------------------


async def commit(session: AsyncSession, owner: Owner, kind: FileKind, entries: Sequence[Entry]) -> Collection[str]:
    """Make this the list of a directory; return the pieces that are not stored, and then nothing has changed."""
    wanted = {digest: size for entry in entries for digest, size in entry.piece_sizes.items()}
    found = await pieces_of(session, owner.simulation_id, wanted)
    missing = {
        digest
        for digest, size in wanted.items()
        if digest not in found or not found[digest].is_stored or found[digest].size_bytes != size
    }
    if missing:
        return missing
    lists = await lists_of(session, owner.simulation_id)
    before: set[str] = set()
    kept = set(wanted)
    for each in lists:
        digests = {digest for entry in entries_of(each) for digest in entry.pieces}
        if (each.kind, each.rank) == (kind, owner.rank):
            before = digests
        else:
            kept |= digests
    values = {
        "attempt": owner.attempt,
        "stored_at": func.now(),
        "size_bytes": sum(each.size_bytes for each in entries),
        "entries": [each.as_row() for each in entries],
    }
    key = {"simulation_id": owner.simulation_id, "kind": kind, "rank": owner.rank}
    await session.execute(
        insert(StoredFiles).values(**key, **values).on_conflict_do_update(index_elements=list(key), set_=values)
    )
    await _disown(session, owner.simulation_id, before - kept)
    held = await session.scalar(select(func.count()).where(StoredPiece.simulation_id == owner.simulation_id))
    if (held or 0) > len(kept):  # of saves that were given up, or of another member's that is under way
        await session.execute(_UNUSED, {"ids": [owner.simulation_id], "age": SAVE_AGE})
    return ()


async def _disown(session: AsyncSession, simulation_id: int, digests: Collection[str]) -> None:
    if digests:
        await session.execute(
            update(StoredPiece)
            .where(
                StoredPiece.simulation_id == simulation_id,
                StoredPiece.digest == _any(digests),
            )
            .values(simulation_id=None)
        )


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
# The digests of a file are decoded once (OFFSET keeps them from being so for each): a part of bytes is found at once,
# a part of a text by counting its characters, which took minutes for a file of 1 TiB.
_UNUSED = text(
    """
    WITH used AS (
        SELECT DISTINCT f.simulation_id, substring(named.digests FROM at.begin FOR 32) AS digest
        FROM stored_files AS f
        CROSS JOIN LATERAL jsonb_array_elements(f.entries) AS entry
        CROSS JOIN LATERAL (
            SELECT decode(
                CASE WHEN (entry ->> 3)::integer <> 2 AND (entry ->> 1)::bigint > 0
                    THEN coalesce(nullif(entry ->> 5, ''), entry ->> 4) ELSE '' END, 'hex'
            ) AS digests
            OFFSET 0
        ) AS named
        CROSS JOIN LATERAL generate_series(1, length(named.digests), 32) AS at (begin)
        WHERE f.simulation_id = ANY(:ids)
    )
    UPDATE stored_pieces AS p SET simulation_id = NULL
    WHERE p.simulation_id = ANY(:ids) AND p.created_at <= now() - CAST(:age AS interval)
      AND NOT EXISTS (SELECT FROM used WHERE used.simulation_id = p.simulation_id AND used.digest = p.digest)
    """
)


async def expire_checkpoints(session: AsyncSession, age: timedelta) -> int:
    """Delete the lists of checkpoints of simulations that ended so long ago; return of how many."""
    expired = set(await session.scalars(_EXPIRE, {"age": age}))
    if expired:
        await session.execute(_UNUSED, {"ids": sorted(expired), "age": timedelta(0)})
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
        await session.execute(_UNUSED, {"ids": ids, "age": timedelta(0)})
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
