"""`/files/...` for supervisors: reserve pieces, put them, commit a list of files, read it again on another machine.

    POST /files/reserve          {"pieces": [[digest, size], ...]}       {"missing": [[digest, offer], ...]}
    PUT  /files/pieces/DIGEST    the bytes                               {}
    POST /files/commit           {"kind": ..., "files": [entry, ...]}    {"missing": [digest, ...]}
    POST /files/kept             {}                                      {"lists": [[kind, rank, attempt, files], ...]}
    POST /files/package          {}                                      {"pieces": [digest, ...]}
    POST /files/offers           {"digests": [...]}                      {"offers": [[digest, offer], ...]}
    GET  /files/pieces/DIGEST    the bytes

Authorised by an attempt's token with its id and nonce (X-Simulation-Attempt, X-Simulation-Nonce), while it is current:
410 from then on. An entry is that of db/files.py; an offer that of graph/store/base.py, {} for this address. With
offers of URLs behind a private authority go its certificates, "authorities". All that a supervisor sends is input of a
simulation: names of files are checked here, for all who read them later.

Fails with 400 and a sentence for what no supervisor sends, 404 without a store, 507 where a quota is reached or the
store is full, and 503 while database or store are away.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from http import HTTPStatus
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from db import files, packages, public_ids
from db.attempts import Claim
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from db.files import LINK, PIECE_BYTES, Entry, Owner, QuotaReached
from db.states import FileKind
from graph.auth.authenticate import Authenticator, NotAdmitted
from graph.errors import RETRY_AFTER_SECONDS
from graph.http import protocol
from graph.http.protocol import Bodies, EarlyRefusal, Refusal
from graph.store.base import BadPiece, Store, StoreUnavailable
from graph.store.ownership import Ownership
from settings import Settings

log = structlog.get_logger()

GIB = 2**30
REQUEST_SECONDS = 120.0
MOST_LIST_BYTES = 24 << 20
MOST_PIECES = 500  # of a request
LOOKED_UP = 10_000  # at once
MOST_FILES = 10_000
MOST_PATH_BYTES = 1_000
MOST_NAME_BYTES = 255
MOST_LEVELS = 50
LONGEST_NONCE = 100
MOST_FILE_BYTES = 1 << 43
LATEST_MS = 253_402_300_799_000  # the end of the year 9999
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
DIGESTS = re.compile(r"(?:[0-9a-f]{64})*", re.ASCII)


class AttemptFiles:
    """The ASGI application below `/files/`."""

    def __init__(self, store: Store | None, authenticator: Authenticator, settings: Settings) -> None:
        self._store = store
        self._ownership = Ownership(store) if store is not None else None
        self._authenticator = authenticator
        self._quota_bytes = int(settings.files_quota_gib * GIB) or None
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await self._answer(request)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            await protocol.refuse(refusal, protocol.JSON, request, send)
        except TimeoutError:
            late = Refusal(HTTPStatus.REQUEST_TIMEOUT, "That took too long.", {"Connection": "close"})
            await protocol.refuse(late, protocol.JSON, request, send)
        else:
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self._store is None or self._ownership is None:
            raise EarlyRefusal(HTTPStatus.NOT_FOUND, "This installation stores no files (SIMULATIONS_FILES=none).")
        sessions: Sessions = request.state.sessions
        try:
            claim = await self._claim(sessions, request)
            await self._ownership.require(sessions)
            if (digest := request.path_params.get("digest")) is not None:
                if not DIGEST.fullmatch(digest):
                    raise _bad("A piece is named by 64 hexadecimal digits.")
                act = self._get if request.method == "GET" else self._put
                return await act(sessions, self._store, claim, request, digest)
            given = await self._read(request)
            match request.path_params["what"]:
                case "reserve":
                    return await self._reserve(sessions, self._store, claim, given)
                case "commit":
                    return await self._commit(sessions, self._store, claim, given)
                case "kept":
                    return await self._kept(sessions, claim)
                case "package":
                    return await self._package(sessions, claim)
                case "offers":
                    return await self._offers(sessions, self._store, claim, given)
            raise EarlyRefusal(HTTPStatus.NOT_FOUND, "There is no such request.")
        except NotAdmitted as refused:
            raise EarlyRefusal(refused.status, refused.message, refused.headers) from None
        except (DatabaseUnavailable, StoreUnavailable) as error:
            if isinstance(error, StoreUnavailable):
                log.warning("store_unavailable", error=str(error))
                sentence = "The store can't be used now: `simulations doctor` finds why."
            else:
                sentence = "The database does not answer: try again in a moment."
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                sentence,
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None

    async def _claim(self, sessions: Sessions, request: Request) -> Claim:
        _, bearer = await self._authenticator.find(sessions, request)
        attempt, nonce = (request.headers.get(f"x-simulation-{each}", "") for each in ("attempt", "nonce"))
        try:
            kind, number = public_ids.decode(attempt)
        except ValueError:
            kind, number = "", 0
        if bearer is None or kind != "Attempt" or not 1 <= len(nonce) <= LONGEST_NONCE:
            raise EarlyRefusal(
                HTTPStatus.UNAUTHORIZED,
                "This needs the token of an attempt, its id and its nonce.",
                {"WWW-Authenticate": "Bearer"},
            )
        return Claim(number, sha256(bearer.encode()).digest(), nonce)

    async def _read(self, request: Request) -> Mapping[str, Any]:
        body = await self._bodies.read(request, MOST_LIST_BYTES)
        given = await asyncio.to_thread(protocol.decoded, body, "The body")
        if not isinstance(given, dict):
            raise _bad("The body is a JSON object.")
        return given

    async def _reserve(self, sessions: Sessions, store: Store, claim: Claim, given: Mapping[str, Any]) -> Response:
        wanted = _pieces(given.get("pieces"))
        if store.is_direct:  # of a save that was cut off: what had arrived is not put again
            async with sessions() as session:
                owner = _current(await files.find_owner(session, claim, stores=False))
                found = await files.pieces_of(session, owner.simulation_id, wanted)
            await self._look_up(
                sessions, store, {each.id: each.size_bytes for each in found.values() if not each.is_stored}
            )
        try:
            async with sessions() as session, session.begin():
                owner = _current(await files.find_owner(session, claim))
                found = await files.reserve(session, owner, wanted, quota_bytes=self._quota_bytes)
                missing = {each: piece for each, piece in found.items() if not piece.is_stored}
                free = await store.free_bytes() if missing else None
                if free is not None and sum(each.size_bytes for each in missing.values()) > free:
                    log.warning("store_full", free_bytes=free)
                    raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "The disk of the store has no room for more files.")
        except QuotaReached as error:
            raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, str(error)) from None
        return await asyncio.to_thread(
            lambda: _offered(
                store,
                "missing",
                [(each, store.offer_put(piece.id, each, piece.size_bytes)) for each, piece in missing.items()],
            )
        )

    async def _look_up(self, sessions: Sessions, store: Store, pieces: Mapping[int, int]) -> None:
        """Note which of these pieces supervisors have put into the store. pieces: sizes by id."""
        ids = sorted(pieces)
        for begin in range(0, len(ids), LOOKED_UP):  # a request that takes too long has got on all the same
            some = ids[begin : begin + LOOKED_UP]
            sizes = await store.sizes(some)
            if arrived := [each for each in some if sizes.get(each) == pieces[each]]:
                async with sessions() as session, session.begin():
                    await files.note_puts(session, arrived)

    async def _put(self, sessions: Sessions, store: Store, claim: Claim, request: Request, digest: str) -> Response:
        if request.method != "PUT":
            raise EarlyRefusal(HTTPStatus.METHOD_NOT_ALLOWED, "A piece is put or read.", {"Allow": "GET, PUT"})
        async with sessions() as session:
            owner = _current(await files.find_owner(session, claim, stores=False))
            piece = (await files.pieces_of(session, owner.simulation_id, [digest])).get(digest)
        if piece is None:
            raise _not_reserved()
        async with self._bodies.collected(request) as content:
            if len(content) != piece.size_bytes:
                raise _bad(f"This piece was reserved with {piece.size_bytes:,} bytes, and has {len(content):,}.")
            try:
                await store.put(piece.id, digest, content)
            except BadPiece as error:
                raise _bad(str(error)) from None
        async with sessions() as session, session.begin():
            is_current = await files.find_owner(session, claim) is not None
            is_kept = await files.note_put(session, piece.id)
        if not is_kept:  # it was given up meanwhile, and may have been removed already: not again under this id
            await store.remove([piece.id])
        if not is_current:
            raise _over()
        if not is_kept:
            raise _not_reserved()
        return _said()

    async def _get(self, sessions: Sessions, store: Store, claim: Claim, request: Request, digest: str) -> Response:
        async with sessions() as session:
            owner = _current(await files.find_owner(session, claim, stores=False))
            piece = (await files.readable_pieces(session, owner, [digest])).get(digest)
        if piece is None:
            raise EarlyRefusal(HTTPStatus.NOT_FOUND, "This piece is not stored.")
        content = store.read(piece.id, 0, piece.size_bytes)
        try:
            first = await anext(content, b"")
        except FileNotFoundError:
            log.error("stored_piece_missing", piece_id=piece.id, simulation_id=owner.simulation_id)
            raise EarlyRefusal(HTTPStatus.NOT_FOUND, "This piece is missing in the store.") from None

        async def whole() -> Any:
            yield first
            async for chunk in content:
                yield chunk

        headers = {"Content-Length": str(piece.size_bytes), "Content-Type": "application/octet-stream"}
        return StreamingResponse(whole(), headers=headers)

    async def _commit(self, sessions: Sessions, store: Store, claim: Claim, given: Mapping[str, Any]) -> Response:
        try:
            kind = FileKind(str(given.get("kind")))
        except ValueError:
            raise _bad("kind: CHECKPOINT or OUTPUT.") from None
        entries = await asyncio.to_thread(checked, given.get("files"))
        if store.is_direct:
            async with sessions() as session:
                owner = _current(await files.find_owner(session, claim, stores=False))
                pieces = await files.unstored(session, owner, entries)
            await self._look_up(sessions, store, pieces)
        async with sessions() as session, session.begin():
            owner = _current(await files.find_owner(session, claim, commits=True))
            missing = await files.commit(session, owner, kind, entries)
        return _said(missing=sorted(missing))

    async def _kept(self, sessions: Sessions, claim: Claim) -> Response:
        async with sessions() as session:
            owner = _current(await files.find_owner(session, claim, stores=False))
            lists = await files.lists_to_begin_with(session, owner)
        return _said(lists=[[each.kind.value, each.rank, attempt, each.entries] for each, attempt in lists])

    async def _package(self, sessions: Sessions, claim: Claim) -> Response:
        """Name the pieces of the package that the simulation starts in, in order."""
        async with sessions() as session:
            owner = _current(await files.find_owner(session, claim, stores=False))
            content = await packages.content_of(session, owner.simulation_id)
        if content is None:
            raise EarlyRefusal(HTTPStatus.NOT_FOUND, "This simulation has no package.")
        return _said(pieces=[digest for digest, _ in content.pieces])

    async def _offers(self, sessions: Sessions, store: Store, claim: Claim, given: Mapping[str, Any]) -> Response:
        digests = given.get("digests")
        if not isinstance(digests, list) or len(digests) > MOST_PIECES or not all(map(_is_digest, digests)):
            raise _bad(f"digests: at most {MOST_PIECES} of 64 hexadecimal digits.")
        async with sessions() as session:
            owner = _current(await files.find_owner(session, claim, stores=False))
            stored = await files.readable_pieces(session, owner, digests)
        return await asyncio.to_thread(
            lambda: _offered(store, "offers", [(each, store.offer_get(piece.id)) for each, piece in stored.items()])
        )


def checked(given: object) -> Sequence[Entry]:
    """Check a list of files. Raises `Refusal`, of which nothing is stored."""
    if not isinstance(given, list) or len(given) > MOST_FILES:
        raise _bad(f"files: a list of at most {MOST_FILES:,}.")
    entries = [_entry(each) for each in given]
    paths = {each.path for each in entries}
    if len(paths) != len(entries):
        raise _bad("files: two have one path.")
    for each in entries:
        if any(above in paths for above in _above(each.path)):
            raise _bad(f"{each.path!r} lies below another file.")
    return entries


def _entry(given: object) -> Entry:
    if not isinstance(given, list) or len(given) != 6:
        raise _bad("A file is a list of path, size, time, kind, digest and pieces.")
    path, size, modified, kind, digest, joined = given
    if not isinstance(path, str) or not is_safe(path):
        raise _bad(f"{str(path)[:200]!r} can't be the path of a stored file.")
    numbers = (size, modified, kind)
    if not all(type(each) is int for each in numbers) or not isinstance(digest, str) or not isinstance(joined, str):
        raise _bad(f"{path!r}: a field has a wrong type.")
    entry = Entry(path, size, modified, kind, digest, joined)
    if kind == LINK:
        if size or joined or not digest.isprintable() or not is_inside(path, digest):
            raise _bad(f"{path!r} is a link that leads out of its directory.")
        return entry
    is_whole = len(entry.pieces) == -(-size // PIECE_BYTES) if 0 <= size <= MOST_FILE_BYTES else False
    if kind not in (0, 1) or not is_whole or not DIGEST.fullmatch(digest) or not DIGESTS.fullmatch(joined):
        raise _bad(f"{path!r}: its kind, size and pieces don't belong together.")
    if not 0 <= modified <= LATEST_MS:
        raise _bad(f"{path!r}: its time is none.")
    return entry


def is_safe(path: str) -> bool:
    """Whether this can be the path of a file below any directory, and be shown: as runner/supervisor/files/contents."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    parts = path.split("/")
    return (
        0 < len(encoded) <= MOST_PATH_BYTES
        and len(parts) <= MOST_LEVELS
        and path.isprintable()
        and "\\" not in path
        and all(part not in ("", ".", "..") and len(part.encode()) <= MOST_NAME_BYTES for part in parts)
    )


def is_inside(path: str, target: str) -> bool:
    """Whether a link at this path leads to another path below the same directory."""
    if not target or target.startswith("/"):
        return False
    return is_safe(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))


def _above(path: str) -> Sequence[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _pieces(given: object) -> Mapping[str, int]:
    if not isinstance(given, list) or len(given) > MOST_PIECES:
        raise _bad(f"pieces: at most {MOST_PIECES} pairs of digest and size.")
    wanted: dict[str, int] = {}
    for each in given:
        if not isinstance(each, list) or len(each) != 2 or not _is_digest(each[0]):
            raise _bad("A piece is a digest of 64 hexadecimal digits, and its size.")
        if type(each[1]) is not int or not 1 <= each[1] <= PIECE_BYTES:
            raise _bad(f"A piece has 1 to {PIECE_BYTES:,} bytes.")
        wanted[each[0]] = each[1]
    return wanted


def _is_digest(given: object) -> bool:
    return isinstance(given, str) and DIGEST.fullmatch(given) is not None


def _current(owner: Owner | None) -> Owner:
    if owner is None:
        raise _over()
    return owner


def _over() -> Refusal:
    return EarlyRefusal(HTTPStatus.GONE, "This attempt is over: it stores nothing any more.")


def _not_reserved() -> Refusal:
    return EarlyRefusal(HTTPStatus.NOT_FOUND, "This piece was not reserved.")


def _bad(sentence: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, sentence)


def _offered(store: Store, name: str, offers: Sequence[tuple[str, Mapping[str, object]]]) -> Response:
    authorities = store.authorities() if offers else ""
    return _said(**{name: offers}, **({"authorities": authorities} if authorities else {}))


def _said(**content: object) -> Response:
    return protocol.json_response(content, protocol.JSON)
