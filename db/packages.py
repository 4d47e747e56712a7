"""Packages: directories of code that users have packed, each an archive in pieces that the store has (db/files).

A package belongs to a project and is named by the SHA-256 of its archive. Its row exists from the first byte of the
upload on, so that its pieces have an owner and count for the quota; `find` returns it once it was stored as a whole
(`finish`). An upload that was cut off is given up, at the latest after `UNFINISHED`.

A package stays while a simulation starts in it, or a sweep that may begin another trial. What is used no more is
deleted after `UNUSED`. A transaction that refers to a package notes its use first (`find`, `note_used`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, exists, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import files
from db.errors import Refusal
from db.files import Piece
from db.models import Package, Project, Simulation, StoredPiece

UNFINISHED = timedelta(hours=1)  # no upload takes as long
UNUSED = timedelta(days=1)  # for the next submission of the same directory
NOTED = timedelta(hours=1)  # how exact `used_at` is
MOST_UPLOADS = 8  # of a project at once
MOST_UNUSED = (
    200  # of a project that no simulation starts in: without a quota, they could fill the disk within `UNUSED`
)


class TooManyUploads(Refusal):
    """Too many packages of a project are being uploaded."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a package consists of: its pieces in order, with their digests in hex."""

    digest: str
    size_bytes: int
    pieces: Sequence[tuple[str, Piece]]


async def find(session: AsyncSession, project_id: int, digest: str) -> Package | None:
    """Find a package that is stored, and note that it is used: it is not deleted within this transaction."""
    mine = (Package.project_id == project_id) & (Package.digest == bytes.fromhex(digest))
    mine &= Package.stored_at.is_not(None)
    await session.execute(
        update(Package)
        .where(mine, Package.used_at < func.now() - NOTED)
        .values(used_at=func.now())
        .execution_options(synchronize_session=False)
    )
    return await session.scalar(select(Package).where(mine).execution_options(populate_existing=True))


async def note_used(session: AsyncSession, package_id: int) -> bool:
    """Note that a package is used; False if it was deleted."""
    statement = update(Package).where(Package.id == package_id).values(used_at=func.now()).returning(Package.id)
    return await session.scalar(statement.execution_options(synchronize_session=False)) is not None


async def by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[Package]:
    """Those that there are."""
    return (await session.scalars(select(Package).where(Package.id.in_(ids)))).all()


# --- an upload -------------------------------------------------------------------------------------------------


async def begin(
    session: AsyncSession, project_id: int, digest: str, size_bytes: int, created_by: str, *, quota_bytes: int | None
) -> int:
    """Make the row of an upload; return its id. Raises QuotaReached, TooManyUploads."""
    await session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
    running = await session.scalar(
        select(func.count()).where(
            Package.project_id == project_id,
            Package.stored_at.is_(None),
            Package.created_at > func.now() - UNFINISHED,
        )
    )
    if (running or 0) >= MOST_UPLOADS:
        raise TooManyUploads(f"{MOST_UPLOADS} packages of this project are being uploaded: try again in a moment.")
    used = exists().where(Simulation.package_id == Package.id)
    unused = await session.scalar(
        select(func.count()).where(Package.project_id == project_id, Package.stored_at.is_not(None), ~used)
    )
    if (unused or 0) >= MOST_UNUSED:
        raise TooManyUploads(
            f"No simulation starts in {MOST_UNUSED} packages of this project: they are removed a day after their use."
        )
    if quota_bytes is not None:
        await files.require_room(session, project_id, size_bytes, quota_bytes)
    made: int | None = await session.scalar(
        insert(Package)
        .values(project_id=project_id, digest=bytes.fromhex(digest), size_bytes=size_bytes, created_by=created_by)
        .returning(Package.id)
    )
    assert made is not None
    return made


async def add_piece(
    session: AsyncSession, package_id: int, project_id: int, digest: str, size_bytes: int, *, quota_bytes: int | None
) -> int | None:
    """Make the row of the next piece; return its id, None if the upload was given up. Raises QuotaReached."""
    if quota_bytes is not None:
        await files.require_room(session, project_id, size_bytes, quota_bytes)
    mine = select(Package.id).where(Package.id == package_id, Package.stored_at.is_(None))
    if await session.scalar(mine.with_for_update(read=True, key_share=True)) is None:
        return None
    made: int | None = await session.scalar(
        insert(StoredPiece)
        .values(project_id=project_id, package_id=package_id, digest=bytes.fromhex(digest), size_bytes=size_bytes)
        .returning(StoredPiece.id)
    )
    return made


async def finish(session: AsyncSession, package_id: int) -> bool:
    """Make an upload a package, or give it up if the same one is stored already; False if it is not complete."""
    row = await session.get(Package, package_id, populate_existing=True)
    if row is None:
        return False
    # Two uploads of the same package see each other.
    await session.execute(select(Project.id).where(Project.id == row.project_id).with_for_update(key_share=True))
    if await find(session, row.project_id, row.digest.hex()) is not None:
        await give_up(session, package_id)
        return True
    stored = await session.scalar(
        select(func.coalesce(func.sum(StoredPiece.size_bytes), 0)).where(
            StoredPiece.package_id == package_id, StoredPiece.stored_at.is_not(None)
        )
    )
    if stored != row.size_bytes:
        return False
    finished = await session.scalar(
        update(Package)
        .where(Package.id == package_id)
        .values(stored_at=func.now(), used_at=func.now())
        .returning(Package.id)
        .execution_options(synchronize_session=False)
    )
    return finished is not None


async def give_up(session: AsyncSession, package_id: int) -> None:
    """Delete the row of an upload; its pieces go with the next round of the collector. Idempotent."""
    await session.execute(delete(Package).where(Package.id == package_id, Package.stored_at.is_(None)))


# --- to read it ------------------------------------------------------------------------------------------------


async def content_of(session: AsyncSession, simulation_id: int) -> Content | None:
    """Read what the package of a simulation consists of; None if it has none."""
    row = await session.scalar(
        select(Package).join(Simulation, Simulation.package_id == Package.id).where(Simulation.id == simulation_id)
    )
    if row is None:
        return None
    found = await session.execute(
        select(StoredPiece.digest, StoredPiece.id, StoredPiece.size_bytes)
        .where(StoredPiece.package_id == row.id, StoredPiece.stored_at.is_not(None))
        .order_by(StoredPiece.id)
    )
    pieces = [(digest.hex(), Piece(piece_id, size, True)) for digest, piece_id, size in found]
    return Content(row.digest.hex(), row.size_bytes, pieces)


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Package]:
    """Read the packages of simulations, by the simulations' ids."""
    rows = await session.execute(
        select(Simulation.id, Package).join(Package, Package.id == Simulation.package_id).where(Simulation.id.in_(ids))
    )
    return {row[0]: row[1] for row in rows}


# --- what goes -------------------------------------------------------------------------------------------------

# A transaction that refers to one holds a lock on it, or has noted its use: then this one skips it.
_EXPIRE = text(
    """
    DELETE FROM packages WHERE id IN (
        SELECT p.id FROM packages AS p
        WHERE (p.stored_at IS NULL AND p.created_at < now() - CAST(:unfinished AS interval))
           OR (p.stored_at IS NOT NULL AND p.used_at < now() - CAST(:unused AS interval)
               AND NOT EXISTS (SELECT FROM simulations AS s WHERE s.package_id = p.id)
               AND NOT EXISTS (SELECT FROM sweeps AS w WHERE w.package_id = p.id AND w.ended_at IS NULL))
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id
    """
)


async def expire(session: AsyncSession) -> int:
    """Delete uploads that were cut off, and packages that none needs any more; return of how many."""
    return len((await session.execute(_EXPIRE, {"unfinished": UNFINISHED, "unused": UNUSED})).all())
