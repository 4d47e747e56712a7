"""A PostgreSQL server of the test's own, taken away in every way in which one goes away, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import psutil
from live import eventually, held, kill

from db.connection import connect_raw
from db.embedded.server import EmbeddedServer, serve
from db.outage import Driver

FEW_CONNECTIONS = 12

Away = Callable[[EmbeddedServer], AbstractAsyncContextManager[None]]


@contextmanager
def own_server(data_directory: Path, fill: Callable[[Path], None]) -> Iterator[EmbeddedServer]:
    """A migrated server that a test may stop, with few connections to give. fill: the fixture of conftest.py."""
    settings = {"fsync": "off", "max_connections": str(FEW_CONNECTIONS), "superuser_reserved_connections": "0"}
    fill(data_directory)
    with serve(data_directory, settings=settings) as server:
        yield server


@asynccontextmanager
async def killed(server: EmbeddedServer) -> AsyncIterator[None]:
    """kill -9, and a new start with the end of the block."""
    postmaster = psutil.Process(server.pid)
    with held(postmaster):  # first, so that it starts no other process meanwhile
        kill(postmaster, *postmaster.children(recursive=True))
    try:
        yield
    finally:
        await asyncio.to_thread(server.restart)


@asynccontextmanager
async def stopped(server: EmbeddedServer) -> AsyncIterator[None]:
    """A clean stop that ends all connections, and a new start."""
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.restart)


@asynccontextmanager
async def hanging(server: EmbeddedServer) -> AsyncIterator[None]:
    """SIGSTOP for all of it: connections stay, and no answer comes."""
    postmaster = psutil.Process(server.pid)
    with held(postmaster), held(*postmaster.children(recursive=True)):  # it first: it starts no other then
        yield


@asynccontextmanager
async def read_only(server: EmbeddedServer) -> AsyncIterator[None]:
    """Every session is read-only, as on a standby."""
    administrator = await connect_raw(server.url, application="test")
    try:
        await administrator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await _reload(administrator, server, "on")
        try:
            yield
        finally:
            await administrator.execute("SET default_transaction_read_only = off")
            await administrator.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await _reload(administrator, server, "off")
    finally:
        await administrator.close()


async def _reload(administrator: Driver, server: EmbeddedServer, read_only: str) -> None:
    """Wait until new sessions have it: the postmaster reads the setting, and signals the others, a moment later."""
    await administrator.execute("SELECT pg_reload_conf()")

    async def is_read() -> bool:
        try:
            connection = await connect_raw(server.url, application="test")
        except asyncpg.TooManyConnectionsError:
            return False
        try:
            return bool(await connection.fetchval("SHOW default_transaction_read_only") == read_only)
        finally:
            await connection.close()

    await eventually(is_read, f"default_transaction_read_only is {read_only}")


@asynccontextmanager
async def crowded(server: EmbeddedServer) -> AsyncIterator[None]:
    """All connections are taken, those of the service and of the test among them."""
    taken: list[asyncpg.Connection[asyncpg.Record]] = []
    try:
        while len(taken) < FEW_CONNECTIONS:
            try:
                taken.append(await connect_raw(server.url, application="test"))
            except asyncpg.TooManyConnectionsError:
                if taken:  # what was ended may be opened again before this is back
                    await taken[0].execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE backend_type = 'client backend' AND pid <> ALL ($1)",
                        [each.get_server_pid() for each in taken],
                    )
        yield
    finally:
        for each in taken:
            await each.close()


GONE: Mapping[str, Away] = {"killed": killed, "stopped": stopped, "hanging": hanging}
REFUSING: Mapping[str, Away] = {"read-only": read_only, "out of connections": crowded}
WAYS: Mapping[str, Away] = {**GONE, **REFUSING}
