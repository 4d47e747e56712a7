"""`/files/SIMULATION/KIND/RANK/PATH`: one stored file of a simulation, for people and programs.

Requires a viewer of its project, by token or cookie as at `/graphql`. A file is data of a simulation, which may be
hostile: it is always an attachment, of a type that no browser executes, in a sandbox without any rights. Pictures of
four kinds have their own type, so that a page of ours may show them.

A Range of bytes gets 206; a part of a file that was replaced meanwhile is refused by If-Range or If-Match (the ETag is
the file's digest). Bytes are read from the store while they are sent: memory does not grow with the file. Fails with a
status and a sentence, as `/graphql`; once the first byte was sent, by the end of the connection.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from urllib.parse import quote

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from db import files, public_ids, simulations
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from db.files import LINK, PIECE_BYTES, Entry, Piece
from db.states import FileKind
from graph.auth.authenticate import Authenticator, NotAdmitted
from graph.errors import RETRY_AFTER_SECONDS, Forbidden, Unauthenticated
from graph.http import protocol
from graph.http.protocol import Refusal
from graph.operation.permissions import READ, require
from graph.store.base import Store, StoreUnavailable

log = structlog.get_logger()

PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"
RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
MOST_LINKS = 8  # one behind the other


class FileDownload:
    """The ASGI application."""

    def __init__(self, store: Store | None, authenticator: Authenticator) -> None:
        self._store = store
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Refusal as refusal:
            response = refusal.response(protocol.JSON)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        sessions: Sessions = request.state.sessions
        try:
            viewer, _ = await self._authenticator.find(sessions, request)
            require(viewer, READ)
            entry, pieces = await self._find(sessions, request, viewer.projects)
            return await self._serve(request, entry, pieces)
        except NotAdmitted as refused:
            raise Refusal(refused.status, refused.message, refused.headers) from None
        except Unauthenticated as error:
            raise Refusal(HTTPStatus.UNAUTHORIZED, error.message, {"WWW-Authenticate": "Bearer"}) from None
        except Forbidden as error:
            raise Refusal(HTTPStatus.FORBIDDEN, error.message) from None
        except (DatabaseUnavailable, StoreUnavailable) as error:
            if isinstance(error, StoreUnavailable):
                log.warning("store_unavailable", error=str(error))
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database or the store does not answer: try again in a moment.",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None

    async def _find(
        self, sessions: Sessions, request: Request, scope: frozenset[int] | None
    ) -> tuple[Entry, Mapping[str, Piece]]:
        given = request.path_params
        try:
            type_name, number = public_ids.decode(given["simulation"])
            kind, rank = FileKind(given["kind"].upper()), given["rank"]
        except ValueError:
            raise _not_found() from None
        if type_name != "Simulation" or self._store is None or "\0" in given["path"]:
            raise _not_found()
        async with sessions() as session:
            if await simulations.find(session, number, scope=scope) is None:
                raise _not_found()
            entry = await _followed(session, (number, kind, rank), given["path"])
            if entry is None:
                raise _not_found()
            return entry, await files.pieces_of(session, number, set(entry.pieces))

    async def _serve(self, request: Request, entry: Entry, pieces: Mapping[str, Piece]) -> Response:
        etag = f'"{entry.digest}"'
        headers = {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Last-Modified": format_datetime(datetime.fromtimestamp(entry.modified_ms / 1000, UTC), usegmt=True),
            "Content-Type": PICTURES.get(posixpath.splitext(entry.path)[1].lower(), "application/octet-stream"),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(posixpath.basename(entry.path), safe='')}",
            "Content-Security-Policy": POLICY,
            "Cache-Control": "private, no-cache",
        }
        if (wanted := request.headers.get("if-match")) is not None and wanted not in ("*", etag):
            raise Refusal(HTTPStatus.PRECONDITION_FAILED, "This file was replaced by another one.")
        if etag in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        begin, end, status = 0, entry.size_bytes, HTTPStatus.OK
        if "range" in request.headers and request.headers.get("if-range", etag) == etag:
            part = _part(request.headers["range"], entry.size_bytes)
            if part is None:
                raise Refusal(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    f"This file has {entry.size_bytes:,} bytes.",
                    {"Content-Range": f"bytes */{entry.size_bytes}"},
                )
            if part != (0, entry.size_bytes) or entry.size_bytes:
                (begin, end), status = part, HTTPStatus.PARTIAL_CONTENT
                headers["Content-Range"] = f"bytes {begin}-{end - 1}/{entry.size_bytes}"
        headers["Content-Length"] = str(end - begin)
        if request.method == "HEAD" or begin == end:
            return Response(status_code=status, headers=headers)
        content = self._read(entry, pieces, begin, end)
        try:
            first = await anext(content)
        except (FileNotFoundError, KeyError):
            log.error("stored_piece_missing", path=entry.path)
            raise Refusal(HTTPStatus.NOT_FOUND, "A part of this file is missing in the store.") from None
        return StreamingResponse(_behind(first, content), status_code=status, headers=headers)

    async def _read(self, entry: Entry, pieces: Mapping[str, Piece], begin: int, end: int) -> AsyncIterator[bytes]:
        assert self._store is not None
        named: Sequence[str] = entry.pieces
        for number in range(begin // PIECE_BYTES, -(-end // PIECE_BYTES)):
            offset = number * PIECE_BYTES
            piece = pieces[named[number]]
            async for chunk in self._store.read(piece.id, max(begin - offset, 0), min(end - offset, piece.size_bytes)):
                yield chunk


async def _behind(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _followed(session: AsyncSession, listed: tuple[int, FileKind, int], path: str) -> Entry | None:
    """Return the file at a path of a list, or where links there lead to."""
    for _ in range(MOST_LINKS):
        entry = await files.find_entry(session, *listed, path)
        if entry is None or entry.kind != LINK:
            return entry
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.digest))
    return None


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Return begin and end of the part that a Range asks for; all of it for one that is not understood."""
    found = RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return 0, size
    first, last = found.groups()
    if not first:
        return (max(size - int(last), 0), size) if int(last) and size else None
    begin = int(first)
    end = min(int(last) + 1, size) if last else size
    if last and int(last) < begin:
        return 0, size
    return (begin, end) if begin < size else None


def _not_found() -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "There is no such file.")
