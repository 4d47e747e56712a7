"""HTTP connections as bytes: requests over the limits are refused before all of them is parsed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from typing import Any

import pytest
import uvicorn
from live import within
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from graph.http import protocol
from graph.http.protocol import JSON, Bodies, Refusal
from graph.wire.http import MAX_HEAD_BYTES, MOST_HEADERS, PIECE_BYTES, HttpWire, http_wires

Api = Any  # the fixtures of conftest.py

PATIENCE_SECONDS = 60
OWN_HEADERS = 2  # Host, and Connection
CHUNK = b"1\r\nx\r\n"


async def send(api: Api, request: bytes) -> bytes:
    """Send exactly this; the status line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.address.rpartition(":")[2]))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(request)
            return await reader.readline()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("more", [0, 1], ids=["as many as may be", "one more"])
async def test_a_head_has_so_many_headers(api: Api, more: int) -> None:
    others = b"".join(b"x-%d: y\r\n" % number for number in range(MOST_HEADERS - OWN_HEADERS + more))
    answer = await send(api, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + others + b"\r\n")
    assert answer.split()[1] == (b"431" if more else b"200")


async def test_a_body_in_chunks_of_a_byte_is_given_up_before_all_of_a_read_is_parsed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, on_body = 0, HttpWire.on_body

    def count(wire: HttpWire, body: bytes) -> None:
        nonlocal parsed
        parsed += 1
        on_body(wire, body)

    monkeypatch.setattr(HttpWire, "on_body", count)
    connections = api.server.server_state.connections
    known = set(connections)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.address.rpartition(":")[2]))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not connections - known:
            await asyncio.sleep(0)
        (wire,) = connections - known
        head = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        wire.data_received(head + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK * 1_000_000)
        await reader.read()
    writer.transport.abort()
    assert 0 < parsed <= (MAX_HEAD_BYTES + PIECE_BYTES) // (len(CHUNK) - 1) + 1


# --- a body of megabytes ----------------------------------------------------------------------------------------

BODY = os.urandom(1_048_576)
HEAD = b"PUT /piece HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)


class Collecting:
    """A server whose application collects a body and answers with its digest; `parsed`: what the parser has seen."""

    def __init__(self) -> None:
        self.bodies = Bodies()
        self.parsed = 0
        self.begun = asyncio.Event()
        self.left = asyncio.Event()
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.begun.set()
        try:
            async with self.bodies.collected(request) as content:
                digest = sha256(content).hexdigest()
        except ClientDisconnect:
            self.left.set()
        except Refusal as refusal:
            await protocol.refuse(refusal, JSON, request, send)
        else:
            await Response(digest)(scope, receive, send)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        config = uvicorn.Config(self, port=0, http=http_wires(60, 10), lifespan="off", log_config=None)  # type: ignore[arg-type]  # as in graph/server.py
        server = uvicorn.Server(config)
        server.capture_signals = nothing  # type: ignore[method-assign]  # pytest's own
        running = asyncio.create_task(server.serve())
        try:
            async with within(PATIENCE_SECONDS, "the server has started"):
                while not server.started:
                    await asyncio.sleep(0)
            self.port = server.servers[0].sockets[0].getsockname()[1]
            yield
        finally:
            server.should_exit = True
            await running


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.fixture
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collecting]:
    collecting, on_body = Collecting(), HttpWire.on_body

    def count(wire: HttpWire, body: bytes) -> None:
        collecting.parsed += len(body)
        on_body(wire, body)

    monkeypatch.setattr(HttpWire, "on_body", count)
    async with collecting.serving():
        yield collecting


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
    return (status, b"") if status != 200 else (status, await reader.readexactly(64))


@pytest.mark.parametrize("parts", [1, 7])
async def test_a_collected_body_is_whole_and_so_is_what_follows_it(collecting: Collecting, parts: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", collecting.port)
    sent = (HEAD + LENGTH + BODY) * 2 + HEAD + b"Content-Length: 3\r\n\r\nend" + HEAD + b"\r\n"
    async with asyncio.timeout(PATIENCE_SECONDS):
        for number in range(parts):
            writer.write(sent[len(sent) * number // parts : len(sent) * (number + 1) // parts])
            await writer.drain()
        for body in (BODY, BODY, b"end", b""):
            assert await answer_of(reader) == (200, sha256(body).hexdigest().encode())
    writer.close()
    await writer.wait_closed()
    assert collecting.parsed < 2 * len(BODY), "most of it has passed the parser by"


async def test_bodies_share_memory_while_there_are_others_and_give_it_back(collecting: Collecting) -> None:
    buffers = collecting.bodies._buffers
    with buffers.one() as held, buffers.one() as used:
        pass
    assert (used is held, buffers._idle) == (False, [])
    async with asyncio.timeout(PATIENCE_SECONDS):
        with buffers.one():
            reader, writer = await asyncio.open_connection("127.0.0.1", collecting.port)
            for body in (BODY, BODY[::-1]):
                writer.write(HEAD + LENGTH + body)
                assert await answer_of(reader) == (200, sha256(body).hexdigest().encode())
            assert len(buffers._idle) == 1
            with pytest.raises(RuntimeError), buffers.one():
                raise RuntimeError
            assert buffers._idle == [], "a thread may go on reading what was given up"
    writer.close()
    await writer.wait_closed()
    assert buffers._idle == []


async def test_a_body_that_is_announced_is_asked_for(collecting: Collecting) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", collecting.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        writer.write(HEAD + b"Expect: 100-continue\r\n" + LENGTH)
        assert await answer_of(reader) == (100, b"")
        writer.write(BODY)
        assert await answer_of(reader) == (200, sha256(BODY).hexdigest().encode())
    writer.close()
    await writer.wait_closed()
    assert collecting.parsed == 0


async def test_a_body_in_chunks_is_read_by_the_parser(collecting: Collecting) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", collecting.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n")
        assert await answer_of(reader) == (200, sha256(BODY).hexdigest().encode())
    writer.close()
    await writer.wait_closed()
    assert collecting.parsed == len(BODY)


async def test_a_client_that_leaves_in_the_midst_of_a_collected_body_ends_the_wait(collecting: Collecting) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", collecting.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        writer.write(HEAD + b"Expect: 100-continue\r\n" + LENGTH)
        assert await answer_of(reader) == (100, b"")
        writer.write(BODY[:-1])
        await writer.drain()
        writer.transport.abort()
        await collecting.left.wait()


async def test_a_collected_body_that_is_given_up_is_dropped(
    collecting: Collecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.http.protocol.MOST_UNFINISHED_BYTES", len(BODY) // 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", collecting.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        writer.write(HEAD + LENGTH + BODY)
        assert (await answer_of(reader))[0] == 503
        assert b"try again" in await reader.read(), "and it is closed"
    writer.close()
    assert collecting.bodies._bytes == 0
