"""GraphQL over HTTP: parses requests as that specification and RFC 9110 require.

An invalid request is a `Refusal`: a status, a sentence, and the headers that go with the status. Its body is JSON
in the shape of a GraphQL result. Executing and streaming are not done here.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from graph.http import decoding
from graph.live.shared_execution import dumps
from graph.live.turns import turns

RESULT = "application/graphql-response+json"
JSON = "application/json"  # what clients asked for before there was RESULT; its status is 200 where RESULT says 400
EVENTS = "text/event-stream"
METHODS = "GET, POST"
MAX_BODY_BYTES = 2 * 1_048_576  # a report has at most half of it; createSimulation far less
LONG_BODY_BYTES = 65_536
BYTES_PER_FIELD = 512  # parsed in the time of a field (live/turns.py): 2 MiB take 30 ms at most
MOST_STREAM_BYTES = 262_144  # of a subscription: it is kept for as long as that lasts
MOST_PARAMETERS = 8  # of a Content-Type: each costs Python some calls, and 60,000 fit into a head
COLLECTED_BYTES = 8 * 1_048_576  # a piece of a file
MOST_UNFINISHED_BYTES = 256 * 1_048_576  # of all bodies that are on their way into a process
AGAIN_SECONDS = 1
LINGER_SECONDS = 5.0  # for the rest of a body that is not wanted: closed at once, its sender would miss the answer
CODES = {
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.TOO_MANY_REQUESTS: "RATE_LIMITED",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
}  # as in results
NEVER_STORED = {"Cache-Control": "no-store", "Vary": "Accept"}


class Refusal(Exception):
    """A request that gets no result, with its HTTP status."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}

    def response(self, media_type: str) -> Response:
        """Say it as a GraphQL result would."""
        error = {"message": self.message, "extensions": {"code": CODES.get(self.status, self.status.name)}}
        return json_response({"errors": [error]}, media_type, self.status, self.headers)


def json_response(
    content: Mapping[str, object],
    media_type: str,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A result as JSON in UTF-8, which no cache keeps: the next moment may have another one."""
    return Response(
        dumps(content),
        status_code=status,
        headers={"Content-Type": f"{media_type}; charset=utf-8", **NEVER_STORED, **(headers or {})},
    )


class EarlyRefusal(Refusal):
    """The same, said before the body has been read to its end."""


@dataclass(frozen=True, slots=True)
class Accept:
    """The media types that a client takes, with the weight it gives to each (RFC 9110, section 12.5.1)."""

    weights: Mapping[str, float]
    is_get: bool

    @classmethod
    def of(cls, request: Request) -> Self:
        return cls(weights_of(request.headers.getlist("accept")) or {"*/*": 1.0}, request.method == "GET")

    @property
    def json(self) -> str | None:
        """The type of a result for this client; None if it takes none. Wildcards mean the older one."""
        result, older = self._weight_of(RESULT), self._weight_of(JSON)
        if not result and not older:
            return None
        return RESULT if result >= older and self._names(RESULT) else JSON

    @property
    def events(self) -> bool:
        """True if a stream is accepted. A POST must name it: `*/*` there is of clients that would wait for ever."""
        return self._weight_of(EVENTS) > 0 and (self.is_get or self._names(EVENTS))

    @property
    def names_events(self) -> bool:
        return self._names(EVENTS)

    @property
    def names_html(self) -> bool:
        return self._names("text/html")

    def _names(self, media_type: str) -> bool:
        return self.weights.get(media_type, 0.0) > 0

    def _weight_of(self, media_type: str) -> float:
        for known in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):  # the most specific one counts
            if known in self.weights:
                return self.weights[known]
        return 0.0


def weights_of(headers: list[str]) -> dict[str, float]:
    """The media types of an Accept header, with their weights (RFC 9110, section 12.4.2)."""
    weights: dict[str, float] = {}
    for part in ",".join(headers).split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name:
            weights[name] = max(weights.get(name, 0.0), _weight(parameters))
    return weights


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 1.0
            return weight if 0 <= weight <= 1 else 1.0
    return 1.0


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, well-formed as far as HTTP can tell."""

    query: str
    variables: dict[str, object] | None
    name: str | None
    extensions: dict[str, object] | None
    size_bytes: int


class Bodies:
    """Limit of the request bodies that a process is reading: a client could hold one for the whole time of a request.

    When their sum exceeds the limit, the body that began first is given up: an ordinary client needs milliseconds to
    send one.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._held: dict[asyncio.Timeout, int] = {}  # what has come so far of each, the oldest first
        self._buffers = Buffers()

    async def read(self, request: Request, most_bytes: int) -> bytes:
        """Read one to its end. Raises `Refusal`."""
        async with self._patience() as grow:
            return await _body(request, most_bytes, grow)

    @asynccontextmanager
    async def collected(self, request: Request) -> AsyncIterator[bytes | memoryview]:
        """Read one of at most `COLLECTED_BYTES` to its end, past ASGI's messages if the connection can do that.

        What is yielded is overwritten after the block. Raises `Refusal`.
        """
        collect = getattr(request.state, "collect", None)
        length = request.headers.get("content-length", "")
        if collect is None or not length.isdecimal() or int(length) > COLLECTED_BYTES:
            yield await self.read(request, COLLECTED_BYTES)
            return
        with self._buffers.one() as buffer:
            async with self._patience() as grow:
                collected = collect(buffer, grow)
                content = await (_body(request, COLLECTED_BYTES, grow) if collected is None else collected)
            yield content

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[Callable[[int], None]]:
        """Count a body as held while the block runs, which calls the yielded function with each part's size.

        Raises `Refusal`.
        """
        try:
            async with asyncio.timeout(None) as patience:
                self._held[patience] = 0
                try:
                    yield lambda size: self._grow(patience, size)
                finally:
                    self._forget(patience)
        except TimeoutError:
            raise EarlyRefusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "More is arriving at once than this process can hold: try again.",
                {"Retry-After": str(AGAIN_SECONDS)},
            ) from None

    def _grow(self, patience: asyncio.Timeout, size: int) -> None:
        self._held[patience] = self._held.get(patience, 0) + size
        self._bytes += size
        while self._bytes > MOST_UNFINISHED_BYTES:
            oldest = next(iter(self._held))
            self._forget(oldest)
            oldest.reschedule(asyncio.get_running_loop().time())

    def _forget(self, patience: asyncio.Timeout) -> None:
        self._bytes -= self._held.pop(patience, 0)


class Buffers:
    """Memory for bodies that are collected, used again while there are others: to get a new page takes several times as
    long as to fill it.
    """

    def __init__(self) -> None:
        self._lent = 0
        self._idle: list[memoryview] = []

    @contextmanager
    def one(self) -> Iterator[memoryview]:
        """Lend one of `COLLECTED_BYTES`. It still holds the bytes of its last use."""
        if self._idle:
            buffer = self._idle.pop()
        else:  # begins with a page, and takes no memory before it is filled
            buffer = memoryview(mmap.mmap(-1, COLLECTED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._lent += 1
        try:
            yield buffer
            self._idle.append(buffer)  # not after an exception: a thread may go on reading it
        finally:
            self._lent -= 1
            if not self._lent:
                self._idle.clear()


async def read(request: Request, bodies: Bodies) -> Operation:
    """The operation that a request carries. Raises `Refusal`; `ClientDisconnect` if the client has left."""
    if request.method == "GET":
        address: bytes = request.scope["query_string"]
        return _operation(_of_address(address), len(address))
    _require_json(request)
    body = await bodies.read(request, MAX_BODY_BYTES)
    if len(body) >= LONG_BODY_BYTES:  # else parsing is too short to be counted
        await turns.pause()
        turns.spend(len(body) // BYTES_PER_FIELD)
    return _operation(decoded(body, "The body"), len(body))


async def read_json(request: Request, *, most_bytes: int) -> object:
    """Read a body, which is JSON and says so. Raises `Refusal`."""
    _require_json(request)
    return decoded(await _body(request, most_bytes), "The body")


async def refuse(refusal: Refusal, media_type: str, request: Request, send: Send) -> None:
    """Say why there is no result. Said early: what comes of the body within a moment is dropped, then it is closed."""
    response = refusal.response(media_type)
    if not isinstance(refusal, EarlyRefusal):
        await response(request.scope, request.receive, send)
        return
    response.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await request.receive()).get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _of_address(query_string: bytes) -> dict[str, object]:
    try:
        given = parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "The address is not valid UTF-8.") from None
    values: dict[str, object] = dict(given)
    for name in ("variables", "extensions"):
        if text := values.pop(name, None):
            values[name] = decoded(str(text).encode(), f"`{name}`")
    values["operationName"] = values.get("operationName") or None
    return values


def _require_json(request: Request) -> None:
    # Not by the standard library's parser for mail: it takes seconds for a parameter of semicolons.
    media_type, *parameters = request.headers.get("content-type", "").lower().split(";", MOST_PARAMETERS + 1)
    named = (parameter.strip().partition("=") for parameter in parameters)
    charsets = {value.strip('"') for name, _, value in named if name == "charset"}
    is_json = media_type.strip() == JSON and charsets <= {"utf-8", "utf8"}
    if not is_json or len(parameters) > MOST_PARAMETERS:
        raise EarlyRefusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send the request as JSON in UTF-8, with Content-Type: {JSON}."
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise EarlyRefusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send the body as it is, not compressed.",
            {"Accept-Encoding": "identity"},
        )


async def _body(request: Request, most_bytes: int, grow: Callable[[int], None] = lambda _size: None) -> bytes:
    """The whole body; at most `most_bytes` and a chunk are held. grow: called with each chunk's size."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise _too_large(most_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most_bytes:
                raise _too_large(most_bytes)
            grow(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        chunks.clear()  # else the error's traceback holds them, too: for as long as its answer takes


def _too_large(most_bytes: int) -> EarlyRefusal:
    return EarlyRefusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has at most {most_bytes:,} bytes; nothing of it was done."
    )


def decoded(text: bytes, what: str) -> object:
    """Parse what a client sent as JSON. Raises `Refusal`."""
    try:
        return decoding.loads(text)
    except decoding.TooDense as error:
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{error}; nothing of it was done.") from None
    except orjson.JSONDecodeError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{what} is not valid JSON: {error}.") from None


def _operation(given: object, size_bytes: int) -> Operation:
    if isinstance(given, list):
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            "Batches are not taken: send each operation in a request of its own, on the same connection if you like.",
        )
    if not isinstance(given, dict):
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "A request is a JSON object with `query`, `variables` and `operationName`."
        )
    query, name = given.get("query"), given.get("operationName")
    if not isinstance(query, str) or not query:
        raise Refusal(HTTPStatus.BAD_REQUEST, "`query` must be a string with an operation in it.")
    if not isinstance(name, str | None):
        raise Refusal(HTTPStatus.BAD_REQUEST, "`operationName` must be a string or null.")
    return Operation(query, _object(given, "variables"), name, _object(given, "extensions"), size_bytes)


def _object(given: dict[str, object], name: str) -> dict[str, object] | None:
    value = given.get(name)
    if not isinstance(value, dict | None):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"`{name}` must be a JSON object or null.")
    return value
