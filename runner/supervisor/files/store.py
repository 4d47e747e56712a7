"""Requests of a supervisor to the service's store, beside its API; pieces go through it, or where it says.

    POST files/reserve            which of these pieces are missing, and where each is to be put
    PUT  files/pieces/DIGEST      one piece
    POST files/commit             the list of a directory's files, once all pieces are stored
    POST files/kept               the newest lists
    POST files/package            the pieces of the package that the simulation starts in
    POST files/offers             where these pieces can be fetched
    GET  files/pieces/DIGEST      one piece

Each carries the attempt's token, its id and the nonce; a request to another place, whose URL is signed, carries none of
them. That place is verified by the authorities that come with its URLs, else by the system's. A piece is held as a
whole, 8 MiB at most, in memory that the caller lends. The service compares its digest with what it receives. A bucket
may not, and a mount does not, so for these the digest is compared before the piece is put.

Failures: `Unreachable`, to be tried again; `Expired`, likewise, with another offer; `Refused`, with a sentence, of the
quota or a limit; `Altered`, of bytes to be put; `Missing` and `Damaged`, of a piece; `Over`: the attempt has ended, and
stores nothing any more. A reply that is cut off is none: it says nothing of the piece.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from runner.supervisor.assignment import Assignment
from runner.supervisor.files import bucket
from runner.supervisor.files.contents import sha256
from runner.supervisor.service import Unreachable

if TYPE_CHECKING:  # imported where they are used: see `runner.supervisor.launcher`
    import http.client
    import io
    import ssl

Place = tuple[str, str, str]  # scheme; host, with its port; authorities that verify it

PIECE_BYTES = 8 << 20
PART_BYTES = 1 << 18  # sent at once
MOST_RESERVED = 500  # pieces of one request
MOST_RESERVED_BYTES = 64 << 20
MOST_OFFERED = 100  # likewise; an offer is good for an hour
ANSWER_SECONDS = 60.0
LATEST_MS = 253_402_300_799_000  # the end of the year 9999
MOST_ANSWER_BYTES = 64 << 20  # of a list


class Refused(Exception):
    """The store does not take it; the message is a sentence for the user."""


class Over(Exception):
    """The attempt has ended."""


class Altered(Refused):
    """The bytes to be put are not those of the digest."""


class Expired(Unreachable):
    """A signed URL is not taken, or not any more."""


class Missing(Exception):
    """A piece is not in the store, or is damaged there."""


class Damaged(Missing):
    """What came is not what the digest names: on the way, or in the store."""


class Reply(NamedTuple):
    """A reply; headers by their names in small letters. is_open: whether its connection can be used again.

    filled: how much of a buffer its body fills, which is in `body` otherwise.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]
    is_open: bool
    filled: int


@dataclass(frozen=True)
class Entry:
    """A file of a list: `pieces` by their digests, in order; link: where a link leads, "" for a file."""

    path: str
    size: int = 0
    modified_ns: int = 0
    is_executable: bool = False
    digest: str = ""
    pieces: tuple[str, ...] = ()
    link: str = ""

    def wired(self) -> list[Any]:
        """As it is sent and kept: pieces are named only where they are several."""
        kind = 2 if self.link else int(self.is_executable)
        pieces = "".join(self.pieces) if len(self.pieces) > 1 else ""
        modified = min(max(self.modified_ns // 1_000_000, 0), LATEST_MS)
        return [self.path, self.size, modified, kind, self.link or self.digest, pieces]

    @classmethod
    def read(cls, raw: Sequence[Any]) -> Entry:
        """The reverse. Raises ValueError or TypeError."""
        path, size, modified, kind, named, pieces = raw
        if kind == 2:
            return cls(str(path), link=str(named))
        joined = str(pieces) or (str(named) if size else "")
        split = tuple(joined[begin : begin + 64] for begin in range(0, len(joined), 64))
        return cls(str(path), int(size), int(modified) * 1_000_000, bool(kind), str(named), split)


@dataclass(frozen=True)
class Kept:
    """The newest list of one directory of one rank, by which attempt it was committed."""

    kind: str
    rank: int
    attempt: int
    entries: tuple[Entry, ...]


class Store:
    """Client of the store, for several threads at once."""

    def __init__(self, assignment: Assignment, nonce: str) -> None:
        self._assignment = assignment
        self._headers = {
            "Authorization": f"Bearer {assignment.token}",
            "X-Simulation-Attempt": assignment.attempt_id,
            "X-Simulation-Nonce": nonce,
        }
        self._lock = threading.Lock()
        self._idle: dict[Place, list[http.client.HTTPConnection]] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}  # by authorities; made once: it takes longer than a handshake
        self._authorities = ""  # of signed URLs
        self._asking = threading.Lock()
        self._offers: Mapping[str, Mapping[str, Any]] = {}

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            idle = [each for connections in self._idle.values() for each in connections]
            self._idle.clear()
        for each in idle:
            each.close()

    def reserve(self, pieces: Mapping[str, int]) -> dict[str, Mapping[str, Any]]:
        """Ask for room for pieces with these sizes; return where each that is missing is to be put."""
        answer = self._ask("reserve", {"pieces": list(map(list, pieces.items()))})
        missing = answer.get("missing")
        if not isinstance(missing, list):
            raise Unreachable("an answer without `missing`")
        self._authorities = str(answer.get("authorities") or "")
        return {str(digest): offer for digest, offer in missing}

    def put(self, digest: str, content: memoryview, offer: Mapping[str, Any]) -> None:
        """Store one piece where the service offered it. Raises Altered."""
        if "path" in offer or "url" in offer:
            _require(content, digest)
        if "path" in offer:
            _write(Path(str(offer["path"])), content)
        elif "url" in offer:
            self._send("PUT", str(offer["url"]), content, dict(offer.get("headers") or {}), is_signed=True)
        else:
            try:
                self._send("PUT", self._address(f"pieces/{digest}"), content, self._headers)
            except Refused:
                _require(content, digest)
                raise

    def commit(self, kind: str, entries: Sequence[Entry]) -> list[str]:
        """Make this the list of a directory; return the pieces that are missing, and then it is not."""
        answer = self._ask("commit", {"kind": kind, "files": [each.wired() for each in entries]})
        return [str(each) for each in answer.get("missing") or ()]

    def kept(self) -> list[Kept]:
        """Read the newest lists of the simulation."""
        lists = self._ask("kept", {}).get("lists")
        try:
            return [
                Kept(str(kind), int(rank), int(attempt), tuple(Entry.read(each) for each in files))
                for kind, rank, attempt, files in lists  # type: ignore[union-attr]  # a TypeError then
            ]
        except (ValueError, TypeError) as error:
            raise Unreachable(f"lists that make no sense: {error}") from None

    def package(self) -> list[str]:
        """Read the pieces of the simulation's package, in order. Raises Missing where there is none."""
        pieces = self._ask("package", {}).get("pieces")
        if not isinstance(pieces, list):
            raise Unreachable("an answer without `pieces`")
        return [str(each) for each in pieces]

    def fetch(self, digest: str, buffer: memoryview, following: Sequence[str] = ()) -> memoryview:
        """Read one piece into a buffer; return the part that holds it. Raises Missing where it is not there.

        following: about to be read too.
        """
        is_old = digest in self._offers
        try:
            return self._fetch(digest, buffer, following)
        except Expired:
            if not is_old:
                raise
            return self._fetch(digest, buffer, following)

    def _fetch(self, digest: str, buffer: memoryview, following: Sequence[str]) -> memoryview:
        with self._asking:
            if digest not in self._offers:
                asked = list(dict.fromkeys((digest, *following[: MOST_OFFERED - 1])))
                answer = self._ask("offers", {"digests": asked})
                offers = answer.get("offers")
                self._authorities = str(answer.get("authorities") or "")
                self._offers = {str(each): offer for each, offer in offers} if isinstance(offers, list) else {}
            offer = self._offers.get(digest)
        try:
            if offer is None:
                raise Missing(digest)
            if "path" in offer:
                with open(str(offer["path"]), "rb", buffering=0) as file:
                    size = _fill(buffer, file)
            elif "url" in offer:
                size = self._send("GET", str(offer["url"]), None, {}, buffer, is_signed=True).filled
            else:
                size = self._send("GET", self._address(f"pieces/{digest}"), None, self._headers, buffer).filled
            content = buffer[:size]
            if sha256(content).hexdigest() != digest:
                raise Damaged(digest)
        except FileNotFoundError:
            self._offers = {}
            raise Missing(digest) from None
        except OSError as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from None
        except (Missing, Unreachable):  # an offer may have run out
            self._offers = {}
            raise
        return content

    def _ask(self, name: str, given: Mapping[str, object]) -> Mapping[str, Any]:
        headers = {**self._headers, "Content-Type": "application/json"}
        reply = self._send("POST", self._address(name), memoryview(json.dumps(given).encode()), headers).body
        try:
            answer = json.loads(reply)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unreachable(f"no answer to files/{name}: {reply[:100]!r}")
        return answer

    def _address(self, name: str) -> str:
        """Where the store is: beside the API, whose address may change."""
        try:
            address = self._assignment.address_file.read_text().strip()
        except OSError as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from None
        return f"{address.rpartition('/')[0]}/files/{name}"

    def _send(
        self,
        method: str,
        url: str,
        content: memoryview | None,
        headers: Mapping[str, str],
        buffer: memoryview | None = None,
        *,
        is_signed: bool = False,
    ) -> Reply:
        """Send a request, twice if the connection was an old one; return a good reply.

        buffer: filled with its body. is_signed: the URL is, and leads to the bucket.
        """
        import http.client
        import ssl

        try:
            place = _place(url, self._authorities if is_signed else "")
            connection, is_new = self._take(place)
            try:
                reply = self._exchange(connection, method, url, content, headers, buffer)
            except (ConnectionError, http.client.HTTPException):
                if is_new:
                    raise
                connection = self._connect(place)
                reply = self._exchange(connection, method, url, content, headers, buffer)
        except ssl.SSLCertVerificationError as error:
            advice = ". Name its authority's file as ca in SIMULATIONS_FILES." if is_signed else ""
            raise Unreachable(
                f"the certificate of {place[1]} can't be verified: {error.verify_message}{advice}"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from None
        if reply.is_open:
            with self._lock:
                self._idle.setdefault(place, []).append(connection)
        if reply.status < 300:
            return reply
        raise _failure_of_bucket(reply) if is_signed else _failure(reply)

    def _take(self, place: Place) -> tuple[http.client.HTTPConnection, bool]:
        """Take a connection that is not in use, else a new one; True if it is new."""
        with self._lock:
            if idle := self._idle.get(place):
                return idle.pop(), False
        return self._connect(place), True

    def _connect(self, place: Place) -> http.client.HTTPConnection:
        import http.client
        import ssl

        scheme, host, authorities = place
        parts = urlsplit(f"{scheme}://{host}")
        assert parts.hostname is not None
        if scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_SECONDS)
        with self._lock:
            context = self._contexts.get(authorities)
            if context is None:
                context = self._contexts[authorities] = ssl.create_default_context(cadata=authorities or None)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=ANSWER_SECONDS, context=context)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: str,
        content: memoryview | None,
        headers: Mapping[str, str],
        buffer: memoryview | None,
    ) -> Reply:
        """Send a request; return the reply."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = dict(headers)
        if content is not None:
            sent["Content-Length"] = str(len(content))
        body = _parts(content) if content is not None else None
        is_open = False
        try:
            is_sent = True
            try:
                connection.request(method, target, body=body, headers=sent)
            except (BrokenPipeError, ConnectionResetError):
                if connection.sock is None:
                    raise
                is_sent = False  # a refusal may have come before all of the body was read: it has the reason
            with connection.getresponse() as response:  # it has the socket for itself where the connection is to close
                filled, most = 0, MOST_ANSWER_BYTES
                if buffer is not None and response.status < 300:
                    filled, most = _fill(buffer, response), 0
                answer = response.read(most + 1)
                if len(answer) > most:
                    raise ValueError("the reply is too long")
                if response.length:  # http.client takes an end for the end of the body
                    raise ConnectionAbortedError("the reply was cut off")
            if not is_sent and response.status < 300:
                raise ConnectionResetError("a request was cut off")
            is_open = is_sent and not response.will_close
            named = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, answer, named, is_open, filled)
        finally:
            if not is_open:
                connection.close()


def _require(content: memoryview, digest: str) -> None:
    if sha256(content).hexdigest() != digest:
        raise Altered(digest)


def _place(url: str, authorities: str) -> Place:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url[:100]!r} is no address")
    return parts.scheme, parts.netloc, authorities


def _parts(content: memoryview) -> Iterator[memoryview]:
    """Split a body: the time limit of a connection is for each part that is sent."""
    for begin in range(0, len(content), PART_BYTES):
        yield content[begin : begin + PART_BYTES]


def _fill(buffer: memoryview, source: io.RawIOBase | http.client.HTTPResponse) -> int:
    """Read until the buffer is full, or to the end; return how much it is."""
    filled = 0
    while count := source.readinto(buffer[filled:]):
        filled += count
    return filled


def _failure(reply: Reply) -> Exception:
    sentence = ""
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        sentence = str(json.loads(reply.body)["errors"][0]["message"])
    if reply.status == 410:
        return Over()
    if reply.status == 404:
        return Missing(sentence)
    if reply.status in (400, 413, 507):
        return Refused(sentence or f"The store answered with {reply.status}.")
    return Unreachable(f"status {reply.status}: {sentence or reply.body[:100]!r}")


def _failure_of_bucket(reply: Reply) -> Exception:
    """A bucket's refusal. A 404 without its code is that of a proxy, and says nothing of the piece."""
    code = bucket.code_of(reply.body)
    if reply.status == 404 and code == "NoSuchKey":
        return Missing(code)
    advice = bucket.advice(reply.status, reply.body, reply.headers)
    answered = f"status {reply.status} {code}".rstrip()
    if reply.status in (400, 401, 403) and code not in (*bucket.DAMAGED, "RequestTimeout"):
        return Expired(f"the bucket does not take a signed URL: {answered}. {advice}")
    return Unreachable(f"the bucket answered with {answered}. {advice}")


def _write(path: Path, content: memoryview) -> None:
    """Write a piece on a shared mount: it appears there as a whole, or not."""
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise Unreachable(f"{type(error).__name__}: {error}") from None
