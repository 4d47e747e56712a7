"""A way to an HTTP server on which requests meet faults: connections that are cut, replies that are lost or altered.

    proxy.meets("PUT", Cut(after=1_000))              the next PUT
    proxy.meets("GET", Truncated(at=10), times=3)     the next three

Each request has a connection of its own to the server, so that what it meets is independent of those before it. What is
signed (the host, and the headers of a signed URL) is passed on as it is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PART_BYTES = 1 << 16
SENT_ON = re.compile(rb"(?im)^connection:[^\r\n]*\r\n")


@dataclass(frozen=True)
class Cut:
    """The connection is cut when `after` bytes of the request's body have come."""

    after: int


@dataclass(frozen=True)
class Refused:
    """A reply in the server's place; is_early: before the body is read, and then the connection is reset."""

    status: int
    code: str = ""
    message: str = ""
    headers: tuple[str, ...] = ()
    is_early: bool = False
    raw: bytes = b""  # instead of all that

    @property
    def reply(self) -> bytes:
        if self.raw:
            return self.raw
        body = (
            f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode() if self.code else b""
        )
        head = [f"HTTP/1.1 {self.status} Refused", f"Content-Length: {len(body)}", "Connection: close", *self.headers]
        return "\r\n".join([*head, "", ""]).encode() + body


@dataclass(frozen=True)
class Hangs:
    """The request is read, and never answered."""


@dataclass(frozen=True)
class Unanswered:
    """The server does what is asked, and its reply is lost."""


@dataclass(frozen=True)
class Altered:
    """A byte of the request's body is changed on its way."""


@dataclass(frozen=True)
class Truncated:
    """The reply ends after `at` bytes of its body."""

    at: int


@dataclass(frozen=True)
class Spoilt:
    """A byte of the reply's body is changed on its way."""


Fault = Cut | Refused | Hangs | Unanswered | Altered | Truncated | Spoilt


@dataclass
class _Met:
    does_match: Callable[[str, str], bool]
    fault: Fault
    times: int


@dataclass
class Misbehaving:
    """The proxy. asked: method and path of each request; signed: of those by signed URLs; met: the faults."""

    host: str
    port: int
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    signed: list[tuple[str, str]] = field(default_factory=list)
    met: list[Fault] = field(default_factory=list)
    _planned: list[_Met] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _served: set[asyncio.Task[None]] = field(default_factory=set)

    def meets(self, method: str, fault: Fault, *, times: int = 1, path: str = "") -> None:
        """Let the next requests with this method, and a path that contains `path`, meet a fault."""
        self._planned.append(_Met(lambda asked, target: asked == method and path in target, fault, times))

    def behaves(self) -> None:
        """Let no request meet a fault any more."""
        self._planned.clear()

    def count(self, method: str) -> int:
        """How many requests with this method have come."""
        return sum(each == method for each, _ in self.asked)

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Misbehaving]:
        """Serve while the block runs."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            listener.close()
            for each in self._open:
                each.transport.abort()
            await asyncio.gather(*self._served, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.transport.abort() if task.cancelling() else writer.close()
            self._open.discard(writer)
            self._served.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        path, _, query = target.partition("?")
        self.asked.append((method, path))
        if "X-Amz-Signature" in query:
            self.signed.append((method, path))
        fault = self._fault(method, target)
        found = re.search(rb"(?im)^content-length: *(\d+)", head)
        length = int(found[1]) if found else 0
        if isinstance(fault, Cut | Hangs | Refused):
            await self._keep(fault, reader, writer, length)
            return
        server, to_server = await asyncio.open_connection(self.host, self.port)
        self._open.add(to_server)
        try:
            to_server.write(SENT_ON.sub(b"", head)[:-2] + b"Connection: close\r\n\r\n")
            change = _flip if isinstance(fault, Altered) else None
            sending = asyncio.create_task(_pump(reader, to_server, length, change))
            try:
                await self._reply(fault, server, writer)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            self._open.discard(to_server)
            to_server.close()

    def _fault(self, method: str, target: str) -> Fault | None:
        for each in self._planned:
            if each.times and each.does_match(method, target):
                each.times -= 1
                self.met.append(each.fault)
                return each.fault
        return None

    async def _keep(
        self, fault: Cut | Hangs | Refused, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int
    ) -> None:
        """Do what needs no server."""
        if isinstance(fault, Cut):
            await reader.readexactly(min(fault.after, length))
            writer.transport.abort()
        elif isinstance(fault, Hangs):
            while await reader.read(PART_BYTES):  # until the client gives up
                pass
        else:
            if not fault.is_early:
                await reader.readexactly(length)
            writer.write(fault.reply)
            await writer.drain()
            if fault.is_early:
                writer.transport.abort()

    async def _reply(self, fault: Fault | None, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault is None or isinstance(fault, Altered):
            await _pump(server, writer, None)
            return
        whole = await server.read()
        if isinstance(fault, Unanswered):
            writer.transport.abort()
            return
        head, _, body = whole.partition(b"\r\n\r\n")
        body = body[: fault.at] if isinstance(fault, Truncated) else _flip(body)
        writer.write(head + b"\r\n\r\n" + body)
        await writer.drain()


def _flip(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:] if content else content


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    length: int | None,
    change: Callable[[bytes], bytes] | None = None,
) -> None:
    """Pass on so many bytes, or all. change: done to the first part."""
    with suppress(OSError):
        while (length is None or length > 0) and (part := await reader.read(PART_BYTES)):
            writer.write(change(part) if change is not None else part)
            change = None
            length = length - len(part) if length is not None else None
            await writer.drain()
