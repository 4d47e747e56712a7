"""A TCP proxy before a service: it passes connections on, or, once it is shut, ends all and refuses new ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Gate:
    """The proxy; it counts what it refuses."""

    port: int = 0
    port_behind: int | None = None  # of the service; None: shut
    refused: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """A gate while the block runs; shut until it is given a port."""
        gate = cls()
        server = await asyncio.start_server(gate._pass, "127.0.0.1", 0)
        try:
            gate.port = server.sockets[0].getsockname()[1]
            yield gate
        finally:
            gate.shut()
            server.close()
            await server.wait_closed()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """End all connections, and refuse new ones."""
        self.port_behind = None
        for each in self._open:
            each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.port_behind is None:
            self.refused += 1
            writer.transport.abort()
            return
        behind: asyncio.StreamWriter | None = None
        try:
            back, behind = await asyncio.open_connection("127.0.0.1", self.port_behind)
            self._open |= {writer, behind}
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, behind))
                tasks.create_task(_copy(back, writer))
        except OSError:
            self.refused += 1
        finally:
            for each in (writer, behind):
                if each is not None:
                    each.transport.abort()
                    self._open.discard(each)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
