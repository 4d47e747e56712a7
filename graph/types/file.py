"""Stored files of a simulation in GraphQL. Their bytes are at `SimulationFile.url`: graph/http/file_download.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote

import strawberry
from strawberry import relay

from db import files
from db.errors import InvalidCursor
from db.files import LINK, Listed
from db.pages import pack, unpack
from db.public_ids import encode
from graph.context import Info
from graph.errors import BadInput
from graph.types import pages
from graph.types.enums import FileKind
from graph.types.scalars import Step


@strawberry.type(description="A stored file of a simulation: a checkpoint, or an output.")
class SimulationFile:
    kind: FileKind = strawberry.field(description="The directory that it is in.")
    rank: int = strawberry.field(description="Of the member that stored it; 0 for a simulation on one machine.")
    path: str = strawberry.field(description="Relative to its directory.")
    size_bytes: Step = strawberry.field(description="0 for a link.")
    modified_at: datetime | None = strawberry.field(description="When the program wrote it; null for a link.")
    stored_at: datetime = strawberry.field(description="When the list that it is in was stored.")
    attempt: int = strawberry.field(description="The number of the attempt that stored it.")
    digest: str | None = strawberry.field(description="SHA-256 of its bytes, in hexadecimal; null for a link.")
    link: str | None = strawberry.field(description="Of a symbolic link: where it leads, relative to its directory.")
    url: str = strawberry.field(
        description="Its address on this service, relative to the service's root. Takes Range; needs the same login."
    )

    @classmethod
    def of(cls, simulation_id: int, row: Listed) -> Self:
        entry = row.entry
        is_link = entry.kind == LINK
        path = quote(entry.path)
        return cls(
            kind=row.kind,
            rank=row.rank,
            path=entry.path,
            size_bytes=Step(entry.size_bytes),
            modified_at=None if is_link else datetime.fromtimestamp(entry.modified_ms / 1000, UTC),
            stored_at=row.stored_at,
            attempt=row.attempt,
            digest=None if is_link else entry.digest,
            link=entry.digest if is_link else None,
            url=f"/files/{quote(encode('Simulation', simulation_id), safe='')}/{row.kind.value}/{row.rank}/{path}",
        )


@strawberry.type(description="Stored files, by kind, rank and path.")
class FileConnection:
    nodes: list[SimulationFile]
    page_info: relay.PageInfo
    total_count: int = strawberry.field(description="The number of files on all pages.")
    total_bytes: Step = strawberry.field(description="The size of all of them together.")


async def page_of_files(
    info: Info, simulation_id: int, first: int, after: str | None, kind: FileKind | None
) -> FileConnection:
    first, behind = pages.size(first), _key(after)
    async with info.context.sessions() as session:
        found = await files.page(session, simulation_id, kind, behind, first + 1)
        count, size_bytes = await files.totals(session, simulation_id, kind)
    nodes = [SimulationFile.of(simulation_id, row) for row in found[:first]]
    keys = [(row.kind.value, row.rank, row.entry.path) for row in found[:first]]
    return FileConnection(
        nodes=nodes,
        page_info=relay.PageInfo(
            has_next_page=len(found) > first,
            has_previous_page=False,
            start_cursor=pack(keys[0]) if keys else None,
            end_cursor=pack(keys[-1]) if keys else None,
        ),
        total_count=count,
        total_bytes=Step(size_bytes),
    )


def _key(cursor: str | None) -> tuple[str, int, str] | None:
    if cursor is None:
        return None
    try:
        kind, rank, path = unpack(cursor)
    except (ValueError, InvalidCursor):
        kind = rank = path = None
    if not (isinstance(kind, str) and isinstance(rank, int) and isinstance(path, str)):
        raise BadInput("This cursor does not belong here: pass one that this field gave out.")
    return kind, rank, path
