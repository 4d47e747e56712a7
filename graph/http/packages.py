"""`/packages` and `/packages/DIGEST?project=NAME`: packages of code on their way into the store; and their download.

    GET  /packages                                  {"mostBytes": N}
    HEAD /packages/DIGEST?project=NAME              200: it is stored, and stays for a day at least; 404: it is not
    PUT  /packages/DIGEST?project=NAME              the archive, with its Content-Length; 201
    GET  /files/SIMULATION/package                  the archive of a simulation's package

An upload needs the role that submits simulations, in this project; a download a viewer of the simulation's project, by
token or cookie as at `/graphql`. What is in an archive is looked at by the supervisor that unpacks it, and nowhere
here: it is served as an attachment in a sandbox.

A body is cut into pieces as it comes, so a process holds at most a piece of each upload. It becomes a package in one
transaction, once its bytes are all stored and are those of the digest; before that nothing finds it. What is left of an
upload that was cut off goes with the next round of the collector.

Fails with a status and a sentence, as `/graphql`: 404 without a store, 411 and 413 for the length, 400 for bytes of
another digest, 408 for silence, 429 and 503 for too many uploads at once, 507 where the quota is reached or the store
is full.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from db import files, packages, projects, public_ids, simulations
from db.connection import Sessions
from db.errors import DatabaseUnavailable, NotFound
from db.events import Actor
from db.files import PIECE_BYTES, QuotaReached
from db.packages import Content, TooManyUploads
from graph.auth.authenticate import Authenticator, NotAdmitted
from graph.auth.rate_limit import RateLimit, client_of
from graph.auth.viewer import Viewer
from graph.errors import RETRY_AFTER_SECONDS, Forbidden, Unauthenticated
from graph.http import protocol
from graph.http.protocol import EarlyRefusal, Refusal
from graph.operation.permissions import READ, RUN, require
from graph.store.base import BadPiece, Store, StoreUnavailable
from graph.store.ownership import Ownership
from settings import Settings

log = structlog.get_logger()

MIB = 2**20
GIB = 2**30
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
LONGEST_NAME = 200  # of a project
SILENCE_SECONDS = 30.0  # between two parts of a body
UPLOAD_SECONDS = 1_800.0  # the longest upload; its row is given up after an hour
MOST_UPLOADS = 16  # of a process at once, each with a piece in memory
POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"


class Packages:
    """The ASGI application."""

    def __init__(self, store: Store | None, authenticator: Authenticator, settings: Settings) -> None:
        self._store = store
        self._ownership = Ownership(store) if store is not None else None
        self._authenticator = authenticator
        self._most_bytes = int(settings.package_mib * MIB)
        self._quota_bytes = int(settings.files_quota_gib * GIB) or None
        self._uploads = 0
        self._begun = RateLimit(settings.submits_per_minute)  # a package is for a submission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            await protocol.refuse(refusal, protocol.JSON, request, send)
        else:
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self._store is None or self._ownership is None:
            raise EarlyRefusal(HTTPStatus.NOT_FOUND, "This installation stores no files (SIMULATIONS_FILES=none).")
        sessions: Sessions = request.state.sessions
        try:
            viewer, _ = await self._authenticator.find(sessions, request)
            if "simulation" in request.path_params:
                require(viewer, READ)
                return await self._download(sessions, self._store, viewer, request)
            require(viewer, RUN)
            if "digest" not in request.path_params:
                return _said(mostBytes=self._most_bytes)
            digest, project = _digest_in(request), _project_in(request)
            if request.method == "PUT":
                await self._ownership.require(sessions)
                return await self._upload(sessions, self._store, viewer, request, digest, project)
            return await self._find(sessions, viewer, digest, project)
        except NotAdmitted as refused:
            raise EarlyRefusal(refused.status, refused.message, refused.headers) from None
        except Unauthenticated as error:
            raise EarlyRefusal(HTTPStatus.UNAUTHORIZED, error.message, {"WWW-Authenticate": "Bearer"}) from None
        except Forbidden as error:
            raise EarlyRefusal(HTTPStatus.FORBIDDEN, error.message) from None
        except NotFound as error:
            raise EarlyRefusal(HTTPStatus.NOT_FOUND, error.message) from None
        except (DatabaseUnavailable, StoreUnavailable) as error:
            if isinstance(error, StoreUnavailable):
                log.warning("store_unavailable", error=str(error))
            raise EarlyRefusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database or the store does not answer: try again in a moment.",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None

    async def _find(self, sessions: Sessions, viewer: Viewer, digest: str, project: str) -> Response:
        async with sessions.begin() as session:
            row = await projects.find_named(session, project, scope=viewer.projects)
            found = await packages.find(session, row.id, digest) if row is not None else None
        if found is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "This package is not stored in the project.")
        return _said()

    # --- an upload -------------------------------------------------------------------------------------------------

    async def _upload(
        self, sessions: Sessions, store: Store, viewer: Viewer, request: Request, digest: str, project: str
    ) -> Response:
        size = self._announced(request)
        if self._uploads >= MOST_UPLOADS:
            raise _busy("More packages are being uploaded than this process can hold: try again in a moment.")
        client = request.client.host if request.client else ""
        if wait := self._begun.take(viewer.token_id or client_of(client), 1):
            raise EarlyRefusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"At most {self._begun.per_minute:,} packages may be uploaded in a minute.",
                {"Retry-After": str(math.ceil(wait))},
            )
        self._uploads += 1
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                await self._take(sessions, store, viewer, request, digest, project, size)
        except TimeoutError:
            raise EarlyRefusal(HTTPStatus.REQUEST_TIMEOUT, "The upload took too long, or nothing came of it.") from None
        finally:
            self._uploads -= 1
        return _said(HTTPStatus.CREATED, digest=digest, sizeBytes=size)

    def _announced(self, request: Request) -> int:
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()) or len(length) > 18:
            raise EarlyRefusal(HTTPStatus.LENGTH_REQUIRED, "An upload needs its Content-Length.")
        size = int(length)
        if size > self._most_bytes:
            raise EarlyRefusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"A package has at most {self._most_bytes / MIB:.4g} MiB (SIMULATIONS_PACKAGE_MIB), and this has "
                f"{size / MIB:,.4g}.",
            )
        if not size:
            raise EarlyRefusal(HTTPStatus.BAD_REQUEST, "A package is an archive, and this is empty.")
        return size

    async def _take(
        self, sessions: Sessions, store: Store, viewer: Viewer, request: Request, digest: str, project: str, size: int
    ) -> None:
        """Store a body as a package. Raises `Refusal`, TimeoutError, ClientDisconnect; then nothing is left of it."""
        actor = Actor(viewer.name, request.client.host if request.client else None)
        free = await store.free_bytes()
        if free is not None and size > free:
            log.warning("store_full", free_bytes=free)
            raise EarlyRefusal(HTTPStatus.INSUFFICIENT_STORAGE, "The disk of the store has no room for this package.")
        try:
            async with sessions.begin() as session:
                project_id = (await projects.named(session, project, actor, scope=viewer.projects)).id
                package_id = await packages.begin(
                    session, project_id, digest, size, viewer.name, quota_bytes=self._quota_bytes
                )
        except QuotaReached as error:
            raise EarlyRefusal(HTTPStatus.INSUFFICIENT_STORAGE, str(error)) from None
        except TooManyUploads as error:
            raise EarlyRefusal(
                HTTPStatus.TOO_MANY_REQUESTS, str(error), {"Retry-After": str(RETRY_AFTER_SECONDS)}
            ) from None
        is_done = False
        try:
            await self._receive(sessions, store, request, package_id, project_id, digest, size)
            async with sessions.begin() as session:
                is_done = await packages.finish(session, package_id)
            if not is_done:
                raise _given_up()
        finally:
            if not is_done:
                with suppress(DatabaseUnavailable):  # then the collector gives it up, after an hour
                    async with sessions.begin() as session:
                        await packages.give_up(session, package_id)
        log.info("package_stored", digest=digest, size_bytes=size, project_id=project_id, by=viewer.name)

    async def _receive(
        self,
        sessions: Sessions,
        store: Store,
        request: Request,
        package_id: int,
        project_id: int,
        digest: str,
        size: int,
    ) -> None:
        whole = sha256()
        received = 0
        buffer = bytearray()
        stream = request.stream()
        while received < size:
            async with asyncio.timeout(SILENCE_SECONDS):
                chunk = await anext(stream, b"")
            if not chunk:
                break  # the end of the body is an empty part too
            received += len(chunk)
            buffer += chunk
            while len(buffer) >= PIECE_BYTES or (buffer and received >= size):
                content = bytes(buffer[:PIECE_BYTES])
                del buffer[:PIECE_BYTES]
                await asyncio.to_thread(whole.update, content)
                await self._store_piece(sessions, store, package_id, project_id, content)
        if received != size:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{size:,} bytes were announced, and {received:,} came.")
        if whole.hexdigest() != digest:
            raise Refusal(HTTPStatus.BAD_REQUEST, "The bytes are not those of the digest: pack and send them again.")

    async def _store_piece(
        self, sessions: Sessions, store: Store, package_id: int, project_id: int, content: bytes
    ) -> None:
        digest = (await asyncio.to_thread(sha256, content)).hexdigest()
        try:
            async with sessions.begin() as session:
                piece_id = await packages.add_piece(
                    session, package_id, project_id, digest, len(content), quota_bytes=self._quota_bytes
                )
        except QuotaReached as error:
            raise EarlyRefusal(HTTPStatus.INSUFFICIENT_STORAGE, str(error)) from None
        if piece_id is None:
            raise _given_up()
        try:
            await store.put(piece_id, digest, content)
        except BadPiece as error:
            raise EarlyRefusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        async with sessions.begin() as session:
            is_kept = await files.note_put(session, piece_id)
        if not is_kept:  # it may have been removed already: not again under this id
            await store.remove([piece_id])
            raise _given_up()

    # --- a download ------------------------------------------------------------------------------------------------

    async def _download(self, sessions: Sessions, store: Store, viewer: Viewer, request: Request) -> Response:
        try:
            type_name, number = public_ids.decode(request.path_params["simulation"])
        except ValueError:
            raise _not_found() from None
        async with sessions() as session:
            simulation = await simulations.find(session, number, scope=viewer.projects)
            if type_name != "Simulation" or simulation is None:
                raise _not_found()
            content = await packages.content_of(session, number)
            name = str((simulation.package_source or {}).get("name") or "package")
        if content is None:
            raise _not_found()
        file_name = quote(f"{name}-{content.digest[:12]}.tar", safe="")
        headers = {
            "ETag": f'"{content.digest}"',
            "Content-Length": str(content.size_bytes),
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename*=UTF-8''{file_name}",
            "Content-Security-Policy": POLICY,
            "Cache-Control": "private, no-cache",
        }
        if request.method == "HEAD":
            return Response(headers=headers)
        parts = _read(store, content)
        try:
            first = await anext(parts, b"")
        except FileNotFoundError:
            log.error("stored_piece_missing", simulation_id=number)
            raise Refusal(HTTPStatus.NOT_FOUND, "A part of this package is missing in the store.") from None
        return StreamingResponse(_behind(first, parts), headers=headers)


async def _read(store: Store, content: Content) -> AsyncIterator[bytes]:
    for _, piece in content.pieces:
        async for chunk in store.read(piece.id, 0, piece.size_bytes):
            yield chunk


async def _behind(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _digest_in(request: Request) -> str:
    digest: str = request.path_params["digest"]
    if not DIGEST.fullmatch(digest):
        raise EarlyRefusal(HTTPStatus.BAD_REQUEST, "A package is named by 64 hexadecimal digits.")
    return digest


def _project_in(request: Request) -> str:
    """The name of the project, as createSimulation takes it."""
    given = request.query_params.getlist("project") or [projects.DEFAULT]
    name = given[0].strip()
    if len(given) > 1 or not 0 < len(name) <= LONGEST_NAME or not _is_text(name):
        raise EarlyRefusal(HTTPStatus.BAD_REQUEST, f"project: one name of 1 to {LONGEST_NAME} characters.")
    return name


def _is_text(name: str) -> bool:
    """Whether it has no control characters and no bytes that are no UTF-8, as names of projects are."""
    return not any(each < " " or "\x7f" <= each < "\xa0" or "\ud800" <= each <= "\udfff" for each in name)


def _not_found() -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "There is no such package.")


def _given_up() -> Refusal:
    return EarlyRefusal(HTTPStatus.CONFLICT, "This upload was given up: send it again.")


def _busy(sentence: str) -> Refusal:
    return EarlyRefusal(HTTPStatus.SERVICE_UNAVAILABLE, sentence, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _said(status: HTTPStatus = HTTPStatus.OK, **content: Any) -> Response:
    given: Mapping[str, object] = content
    return protocol.json_response(given, protocol.JSON, status)
