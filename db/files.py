"""Stored checkpoints and outputs: lists of files, and the pieces that they are made of.

A piece has a row before it is uploaded (`reserve`), which names its object in the store by the row's id, and counts for
the project's quota. A list is one row for each directory and rank, replaced in one statement (`commit`) and only if all
pieces are stored: whatever is killed in between, the list before it holds. Pieces of a replaced list lose their
simulation, as those of a deleted simulation do by their foreign key; what has none, and is of no package (db/packages),
is removed from the store first and its row afterwards (`unowned`, `forget`). An object is never written again under an
id, so a removal that is repeated does no harm.

Only members of current attempts store files: the fence is that of their reports.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    DateTime,
    Integer,
    any_,
    column,
    delete,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

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
UNOWNED = StoredPiece.simulation_id.is_(None) & StoredPiece.package_id.is_(None)  # of no simulation and no package


class QuotaReached(Refusal):
    """The files of a project would exceed its quota."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A member that stores files: its simulation, its project, and the number of its attempt.

    fork_of: the simulation whose checkpoint its own began with.
    """

    simulation_id: int
    project_id: int
    attempt: int
    rank: int
    fork_of: int | None = None


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


@dataclass(frozen=True, slots=True)
class Listed:
    """A file, and the list that it is in."""

    kind: FileKind
    rank: int
    attempt: int
    stored_at: datetime
    entry: Entry


_OWNER = text(
    """
    UPDATE members AS m SET saved_at = now() FROM attempts AS a, simulations AS s
    WHERE m.attempt_id = :attempt AND m.token_digest = :token AND m.nonce = :nonce AND m.ended_at IS NULL
      AND a.id = m.attempt_id AND s.id = a.simulation_id
    RETURNING s.id, s.project_id, a.number, m.rank, CASE WHEN s.from_checkpoint THEN s.retry_of END
    """
)
_READER = text(
    """
    SELECT s.id, s.project_id, a.number, m.rank, CASE WHEN s.from_checkpoint THEN s.retry_of END
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
        await require_room(session, owner.project_id, sum(new.values()), quota_bytes)
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


async def require_room(session: AsyncSession, project_id: int, more_bytes: int, quota_bytes: int) -> None:
    """Lock the project, so that all who reserve at once see each other. Raises QuotaReached."""
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
            StoredPiece.project_id == project_id,
            StoredPiece.simulation_id.is_not(None) | StoredPiece.package_id.is_not(None),
        )
    )
    return int(total or 0)


# Each piece that comes or goes asks these: written out, for SQLAlchemy needs longer to build them than they take.
_PIECES_OF = text(
    """
    SELECT digest, id, size_bytes, stored_at IS NOT NULL FROM stored_pieces
    WHERE simulation_id = :simulation AND digest = ANY(:digests)
    """
)
_READABLE = text(
    """
    SELECT digest, id, size_bytes, true FROM stored_pieces
    WHERE simulation_id IN (:simulation, :fork_of) AND digest = ANY(:digests) AND stored_at IS NOT NULL
    UNION ALL
    SELECT p.digest, p.id, p.size_bytes, true FROM simulations AS s JOIN stored_pieces AS p USING (package_id)
    WHERE s.id = :simulation AND p.digest = ANY(:digests) AND p.stored_at IS NOT NULL
    """
)


async def pieces_of(session: AsyncSession, simulation_id: int, digests: Collection[str]) -> Mapping[str, Piece]:
    """Return those of these pieces that have a row, by digest."""
    given = {"simulation": simulation_id, "digests": list(map(bytes.fromhex, digests))}
    return {row[0].hex(): Piece(*row[1:]) for row in await session.execute(_PIECES_OF, given)}


async def readable_pieces(session: AsyncSession, owner: Owner, digests: Collection[str]) -> Mapping[str, Piece]:
    """Return those of these pieces that are stored and that a member may read.

    Its own, those of the checkpoint that it began with, and those of its package.
    """
    given = {
        "simulation": owner.simulation_id,
        "fork_of": owner.fork_of,
        "digests": list(map(bytes.fromhex, digests)),
    }
    return {row[0].hex(): Piece(*row[1:]) for row in await session.execute(_READABLE, given)}


async def note_puts(session: AsyncSession, ids: Collection[int]) -> None:
    """Note that objects are in the store, of those that still have an owner."""
    await session.execute(
        update(StoredPiece)
        .where(
            StoredPiece.id == any_(literal(list(ids), ARRAY(BigInteger))),
            ~UNOWNED,
            StoredPiece.stored_at.is_(None),
        )
        .values(stored_at=func.now())
    )


_NOTE_PUT = text(
    """
    UPDATE stored_pieces SET stored_at = coalesce(stored_at, now())
    WHERE id = :piece AND (simulation_id IS NOT NULL OR package_id IS NOT NULL)
    RETURNING id
    """
)


async def note_put(session: AsyncSession, piece_id: int) -> bool:
    """Note that an object is in the store; False if its row lost its owner meanwhile: it is to be removed."""
    return await session.scalar(_NOTE_PUT, {"piece": piece_id}) is not None


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
_UNSTORED = text(
    f"""
    SELECT id, size_bytes FROM stored_pieces
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


async def unstored(session: AsyncSession, owner: Owner, entries: Sequence[Entry]) -> Mapping[int, int]:
    """Return the pieces of a list that were reserved and are not known to be stored: sizes by id."""
    given = {"simulation": owner.simulation_id, "entries": _rows_of(entries)}
    return {row[0]: row[1] for row in await session.execute(_UNSTORED, given)}


async def commit(session: AsyncSession, owner: Owner, kind: FileKind, entries: Sequence[Entry]) -> Collection[str]:
    """Make this the list of a directory; return pieces that are not stored, and then nothing has changed.

    A list may have hundreds of thousands of pieces: PostgreSQL takes them apart, for here they would hold up all others
    for a second.
    """
    given = {"simulation": owner.simulation_id, "entries": _rows_of(entries)}
    if missing := list(await session.scalars(_MISSING, given)):
        return {each.hex() for each in missing}
    place = {"kind": kind.value, "rank": owner.rank, "attempt": owner.attempt}
    size = sum(each.size_bytes for each in entries)
    await session.execute(_REPLACE, {**given, **place, "size": size, "age": SAVE_AGE})
    return ()


def _rows_of(entries: Sequence[Entry]) -> str:
    return orjson.dumps([each.as_row() for each in entries]).decode()


_ENTRY = text(
    """
    SELECT entry FROM stored_files AS f CROSS JOIN LATERAL jsonb_array_elements(f.entries) AS entry
    WHERE f.simulation_id = :simulation AND f.kind = :kind AND f.rank = :rank AND entry ->> 0 = :path
    LIMIT 1
    """
).columns(column("entry", JSONB))


async def find_entry(session: AsyncSession, simulation_id: int, kind: FileKind, rank: int, path: str) -> Entry | None:
    """Find one file of the newest list of one directory."""
    if rank > MOST_RANK:
        return None
    given = {"simulation": simulation_id, "kind": kind.value, "rank": rank, "path": path}
    found = await session.scalar(_ENTRY, given)
    return Entry(*found) if found is not None else None


async def checkpoint_attempt(session: AsyncSession, simulation_id: int) -> int | None:
    """Return the number of the newest attempt that has stored a checkpoint."""
    of_this = (StoredFiles.simulation_id == simulation_id) & (StoredFiles.kind == FileKind.CHECKPOINT)
    return await session.scalar(select(func.max(StoredFiles.attempt)).where(of_this))


async def lists_of(session: AsyncSession, simulation_id: int) -> Sequence[StoredFiles]:
    """Read the newest lists of a simulation, by kind and rank."""
    statement = select(StoredFiles).where(StoredFiles.simulation_id == simulation_id)
    rows = await session.scalars(
        statement.order_by(StoredFiles.kind, StoredFiles.rank).execution_options(populate_existing=True)
    )
    return rows.all()


async def lists_to_begin_with(session: AsyncSession, owner: Owner) -> Sequence[tuple[StoredFiles, int]]:
    """Read what a member begins with, each list with its attempt's number: 0 for the checkpoint of the simulation that
    its own was forked from, until it has one.
    """
    lists = [(each, each.attempt) for each in await lists_of(session, owner.simulation_id)]
    if owner.fork_of is None or any(each.kind is FileKind.CHECKPOINT for each, _ in lists):
        return lists
    of_other = await lists_of(session, owner.fork_of)
    return [*lists, *((each, 0) for each in of_other if each.kind is FileKind.CHECKPOINT)]


# In the order of the cursor: paths by their bytes.
_PAGE = text(
    """
    SELECT f.kind, f.rank, f.attempt, f.stored_at, entry
    FROM stored_files AS f CROSS JOIN LATERAL jsonb_array_elements(f.entries) AS entry
    WHERE f.simulation_id = :simulation AND (CAST(:kind AS text) IS NULL OR f.kind = :kind)
      AND (CAST(:rank AS integer) IS NULL OR (f.kind, f.rank, (entry ->> 0) COLLATE "C") > (:last, :rank, :path))
    ORDER BY f.kind, f.rank, (entry ->> 0) COLLATE "C"
    LIMIT :most
    """
).columns(
    column("kind", StoredFiles.kind.type), column("rank", Integer), column("attempt", Integer),
    column("stored_at", DateTime(timezone=True)), column("entry", JSONB),
)  # fmt: skip
_TOTALS = text(
    """
    SELECT coalesce(sum(jsonb_array_length(entries)), 0)::bigint, coalesce(sum(size_bytes), 0)::bigint
    FROM stored_files WHERE simulation_id = :simulation AND (CAST(:kind AS text) IS NULL OR kind = :kind)
    """
)


async def page(
    session: AsyncSession, simulation_id: int, kind: FileKind | None, after: tuple[str, int, str] | None, most: int
) -> Sequence[Listed]:
    """Read files by kind, rank and path, behind one. PostgreSQL takes the lists apart: they may have 10,000 files."""
    last, rank, path = after or (None, None, None)
    given = {"simulation": simulation_id, "kind": kind.value if kind else None, "last": last, "rank": rank}
    rows = await session.execute(_PAGE, {**given, "path": path, "most": most})
    return [Listed(row.kind, row.rank, row.attempt, row.stored_at, Entry(*row.entry)) for row in rows]


async def totals(session: AsyncSession, simulation_id: int, kind: FileKind | None) -> tuple[int, int]:
    """Return how many files are stored, and their size."""
    row = (await session.execute(_TOTALS, {"simulation": simulation_id, "kind": kind.value if kind else None})).one()
    return row[0], row[1]


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
        .values(simulation_id=None, package_id=None)
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
    """Return ids of pieces to be removed from the store; such a piece never gets a simulation again."""
    rows = await session.scalars(select(StoredPiece.id).where(UNOWNED).order_by(StoredPiece.id).limit(most))
    return rows.all()


async def known(session: AsyncSession, ids: Collection[int]) -> set[int]:
    """Return those of these ids that have a row."""
    given = any_(literal(list(ids), ARRAY(BigInteger)))
    return set(await session.scalars(select(StoredPiece.id).where(StoredPiece.id == given)))


async def forget(session: AsyncSession, ids: Collection[int]) -> None:
    """Delete the rows of pieces that the store has removed."""
    await session.execute(delete(StoredPiece).where(StoredPiece.id.in_(ids), UNOWNED))
