"""Floods of frames of any kind: counted, parsed in pieces, and closed with 1008."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from graph.wire.websocket import (
    FRAMES_AT_ONCE,
    FRAMES_BEFORE,
    FRAMES_PER_SECOND,
    FRAMES_PER_TURN,
    PIECE_BYTES,
    FrameBudget,
    Wire,
)

Api = Any  # the fixtures of conftest.py

PATIENCE_SECONDS = 60
INIT = '{"type": "connection_init"}'
FEWEST_BYTES = 6  # of a frame from a client: two of its head, four of its mask
MOST_IN_PIECE = PIECE_BYTES // FEWEST_BYTES + 1
PONG = b"\x8a\x80\0\0\0\0"
START = b"\x01\x80\0\0\0\0"
FLOODS = {
    "pongs": (b"", PONG),
    "pings": (b"", b"\x89\x80\0\0\0\0"),
    "pings of a byte": (b"", b"\x89\x81\0\0\0\0x"),
    "empty continuations": (START, b"\0\x80\0\0\0\0"),
    "continuations of a byte": (START, b"\0\x81\0\0\0\0x"),
    "empty messages": (b"", b"\x81\x80\0\0\0\0"),
    "messages in two": (b"", START + b"\x80\x80\0\0\0\0"),
}
MANY = 500_000


@dataclass(slots=True)
class Turns:
    """The frames that were parsed in each turn of the loop in which some were."""

    frames: list[int] = field(default_factory=list)
    number: int = 0
    _last: int = -1

    def count(self, frames: int) -> None:
        if self._last != self.number:
            self.frames.append(0)
        self._last = self.number
        self.frames[-1] += frames


@pytest.fixture
async def turns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Turns]:
    """Count what each turn of the event loop parses."""
    counted, handle_events = Turns(), Wire.handle_events

    def tick() -> None:
        counted.number += 1
        ticking.append(asyncio.get_running_loop().call_soon(tick))
        del ticking[:-1]

    ticking = [asyncio.get_running_loop().call_soon(tick)]

    def handle(wire: Wire) -> None:
        counted.count(len(wire.conn.events))
        handle_events(wire)

    monkeypatch.setattr(Wire, "handle_events", handle)
    yield counted
    ticking[-1].cancel()


@asynccontextmanager
async def opened(api: Api, *, initiated: bool = True) -> AsyncIterator[tuple[ClientConnection, Wire]]:
    """A socket, and the server's end of it."""
    connections = api.server.server_state.connections
    before = set(connections)
    async with connect(
        api.socket_address, subprotocols=[Subprotocol("graphql-transport-ws")], compression=None, proxy=None
    ) as socket:
        if initiated:
            await socket.send(INIT)
            assert await receive(socket) == {"type": "connection_ack"}
        (wire,) = (each for each in connections - before if isinstance(each, Wire))
        yield socket, wire


async def receive(socket: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return json.loads(await socket.recv())


async def closing(socket: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


@pytest.mark.parametrize("initiated", [False, True], ids=["before connection_init", "after it"])
@pytest.mark.parametrize(("first", "frame"), FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_of_frames_is_ended_with_1008_after_few_of_them(
    api: Api,
    turns: Turns,
    first: bytes,
    frame: bytes,
    initiated: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("graph.wire.websocket.FRAMES_PER_SECOND", 0)  # however long the machine takes
    async with opened(api, initiated=initiated) as (socket, wire):
        turns.frames.clear()
        wire.data_received(first + frame * MANY)  # in one read, larger than any that a transport makes
        ends = {(1008, "Too many frames.")}
        if "messages" in request.node.callspec.id:  # the first of them is a mistake, too, if it is taken before the end
            ends.add((4400, "WebSocket message must be valid JSON"))
        assert await closing(socket) in ends
    assert max(turns.frames) <= FRAMES_PER_TURN + MOST_IN_PIECE
    assert sum(turns.frames) <= (FRAMES_AT_ONCE if initiated else FRAMES_BEFORE) + MOST_IN_PIECE


async def test_a_flood_on_the_wire_reaches_no_limit_of_memory_and_disturbs_no_other_socket(
    api: Api, turns: Turns
) -> None:
    async with opened(api) as (other, _), opened(api, initiated=False) as (socket, wire):
        turns.frames.clear()
        socket.transport.write(PONG * MANY)
        assert await closing(socket) == (1008, "Too many frames.")
        assert len(wire._unparsed) == 0
        await other.send('{"type": "ping"}')
        assert await receive(other) == {"type": "pong"}
    assert sum(turns.frames) <= FRAMES_BEFORE + MOST_IN_PIECE + 2


async def test_messages_that_arrive_together_are_answered_one_turn_after_the_other(api: Api, turns: Turns) -> None:
    message = b'{"type": "ping"}'
    frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    async with opened(api) as (socket, wire):
        turns.frames.clear()
        wire.data_received(frame * 1_000)
        for _ in range(1_000):
            assert await receive(socket) == {"type": "pong"}
    assert max(turns.frames) <= PIECE_BYTES // len(frame) + 1
    assert sum(turns.frames) >= 1_000


async def test_a_message_in_a_thousand_pieces_arrives_whole(api: Api) -> None:
    text = json.dumps({"id": "1", "type": "subscribe", "payload": {"query": "{ __typename }" + " " * 60_000}})
    step = len(text) // 1_000 + 1
    parts = [text[begin : begin + step] for begin in range(0, len(text), step)]
    async with opened(api) as (socket, _):
        await socket.send(parts)
        assert (await receive(socket))["payload"]["data"] == {"__typename": "Query"}


async def test_what_follows_a_close_is_not_parsed(api: Api, turns: Turns) -> None:
    async with opened(api) as (socket, wire):
        turns.frames.clear()
        wire.data_received(b"\x83\x80\0\0\0\0" + PONG * MANY)  # an opcode that is none
        assert (await closing(socket))[0] == 1002
    assert sum(turns.frames) <= MOST_IN_PIECE


def test_a_budget_is_fixed_until_the_peer_is_admitted_and_then_grows_by_the_second() -> None:
    now = 0.0
    budget = FrameBudget(lambda: now)
    assert budget.spend(FRAMES_BEFORE)
    now = 1_000.0
    assert not budget.spend(1), "time alone earns nothing before connection_init"
    budget.admit()
    assert budget.spend(FRAMES_AT_ONCE)
    assert not budget.spend(1)
    budget.admit()
    assert not budget.spend(0), "a second time changes nothing"
    now += 1.0
    assert budget.spend(FRAMES_PER_SECOND - 1)
    assert not budget.spend(1)
    now += 1_000.0
    assert budget.spend(FRAMES_AT_ONCE)
    assert not budget.spend(1), "no more is saved up"
