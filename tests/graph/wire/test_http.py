"""HTTP connections as bytes: requests over the limits are refused before all of them is parsed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from graph.wire.http import MAX_HEAD_BYTES, MOST_HEADERS, PIECE_BYTES, HttpWire

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
