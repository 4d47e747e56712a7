"""Minimal HTTP/1.1 client with little CPU cost: one keep-alive connection, answers with a Content-Length.

A load of thousands of requests would otherwise be a measurement of the client, which shares the machine with the
server. What it sends is ordinary HTTP (RFC 9112).
"""

from __future__ import annotations

import asyncio


class Wire:
    """One connection to 127.0.0.1; one request at a time."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port = port
        self._head = (
            f"Host: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            + (f"Authorization: Bearer {token}\r\n" if token else "")
            + "Content-Length: "
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, *body: bytes) -> bytes:
        """Send the parts of a body and return the answer's. Raises RuntimeError unless it is a 200."""
        length = sum(map(len, body))
        return await self._ask([b"POST %s HTTP/1.1\r\n%s%d\r\n\r\n" % (path.encode(), self._head, length), *body])

    async def get(self, path: str) -> bytes:
        """Return the body of an answer. Raises RuntimeError unless it is a 200."""
        return await self._ask([b"GET %s HTTP/1.1\r\n%s0\r\n\r\n" % (path.encode(), self._head)])

    @property
    def is_closed(self) -> bool:
        """Whether there is no connection now; the next request makes one."""
        return self._streams is None or self._streams[0].at_eof()

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()
            self._streams = None

    async def _ask(self, parts: list[bytes]) -> bytes:
        if self.is_closed:  # a server closes what was idle for long
            await self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.writelines(parts)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        content = await reader.readexactly(content_length(head))
        if head.split(b" ", 2)[1] != b"200":
            raise RuntimeError(f"{head.decode()!r}: {content[:500].decode()}")
        return content


def content_length(head: bytes) -> int:
    """Find the length of the body in the head of an answer."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"an answer without a length: {head.decode()!r}")
