"""Many WebSockets in one process, which only count what arrives: the subscribers of fanout and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from benchmarks.processes import allow_open_files

QUERY = """
subscription Curve($id: ID!) {
  convergence(simulationId: $id) { cursor attempt live state reason series { metric steps values elapsed } }
}
"""
SUBPROTOCOL = Subprotocol("graphql-transport-ws")
PONG = '{"type":"pong"}'
MOST_OF_A_PING = 40  # characters; what is longer is no ping, and is not looked into


class Subscribers:
    """Counts what all of them received together."""

    def __init__(self) -> None:
        self.received = 0
        self._arrived = asyncio.Event()
        self._wanted = 0
        self._closed = ""  # why, if it was

    async def until(self, count: int) -> None:
        """Wait until so many messages in all have arrived. Raises RuntimeError if a socket was closed."""
        self._wanted = count
        while self.received < count:
            if self._closed:
                raise RuntimeError(f"a subscriber's socket was closed: {self._closed}")
            self._arrived.clear()
            await self._arrived.wait()

    async def read(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosedError):
            async for message in socket:
                if await answered(socket, message):
                    continue
                self.received += 1
                if self.received >= self._wanted:
                    self._arrived.set()
        self._closed = f"{socket.close_code} {socket.close_reason}"
        self._arrived.set()


async def answered(socket: ClientConnection, message: str | bytes) -> bool:
    """Whether it was a ping of graphql-transport-ws, answered now: it is no delivery."""
    if len(message) > MOST_OF_A_PING or orjson.loads(message).get("type") != "ping":
        return False
    await socket.send(PONG)
    return True


async def open_socket(port: int, path: str, *, max_queue: int | None = 16) -> ClientConnection:
    """A WebSocket to this machine. max_queue: frames kept unread here before the reading stops."""
    return await connect(
        f"ws://127.0.0.1:{port}{path}",
        subprotocols=[SUBPROTOCOL],
        compression=None,
        ping_interval=None,
        max_queue=max_queue,
        max_size=None,
    )


async def subscribe(socket: ClientConnection, simulation_id: str) -> None:
    """Follow a simulation's convergence, and take the first event, its state."""
    await socket.send(orjson.dumps({"type": "connection_init"}).decode())
    await socket.recv()
    message = {"id": "1", "type": "subscribe", "payload": {"query": QUERY, "variables": {"id": simulation_id}}}
    await socket.send(orjson.dumps(message).decode())
    first = orjson.loads(await socket.recv())
    if first["type"] != "next" or first["payload"].get("errors"):
        raise RuntimeError(str(first))


@asynccontextmanager
async def subscribed(port: int, path: str, size: int, simulation_id: str | None) -> AsyncIterator[Subscribers]:
    """So many open sockets, subscribed if a simulation is given; each is read."""
    allow_open_files()
    sockets: list[ClientConnection] = []
    people = Subscribers()
    readers: list[asyncio.Task[None]] = []
    try:
        for _ in range(size):
            socket = await open_socket(port, path)
            sockets.append(socket)
            if simulation_id is not None:
                await subscribe(socket, simulation_id)
        readers = [asyncio.create_task(people.read(socket)) for socket in sockets]
        yield people
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for socket in sockets:
            socket.transport.abort()
