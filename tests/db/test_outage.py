"""Outages of a real server: what an engine raises, what is logged, what is cut off, and what waits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from live import eventually
from outages import GONE, WAYS, hanging, killed, own_server, read_only
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from db.connection import check_server, create_engine, driver_of, session_factory, watching
from db.embedded.server import EmbeddedServer
from db.errors import (
    DatabaseError,
    DatabaseExhausted,
    DatabaseReadOnly,
    DatabaseUnavailable,
    DatabaseUnreachable,
)
from db.outage import Outage

WRITE = "UPDATE coverage SET beat_at = now()"


@pytest.fixture(scope="module")
def server(scratch: Path, fill: Callable[[Path], None]) -> Iterator[EmbeddedServer]:
    """For all tests of this file: each gives it back as it was."""
    with own_server(scratch / "outage", fill) as server:
        yield server


class Process:
    """What a process of the service has of its database."""

    def __init__(self, engine: AsyncEngine, outage: Outage) -> None:
        self.engine = engine
        self.outage = outage
        self.sessions = session_factory(engine)

    async def write(self) -> None:
        async with self.sessions.begin() as session:
            await session.execute(text(WRITE))

    async def write_barely(self) -> None:
        async with driver_of(self.sessions) as driver:
            await driver.execute(WRITE)

    async def works(self) -> bool:
        try:
            await self.write()
        except DatabaseUnavailable:
            return False
        return True


@asynccontextmanager
async def process_on(server: EmbeddedServer, *, watched: bool = True) -> AsyncIterator[Process]:
    outage = Outage()
    engine = create_engine(server.url, pool_size=3, application="graph", outage=outage)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        if watched:
            await stack.enter_async_context(watching(outage, server.url))
            await outage.answer()
        yield Process(engine, outage)


async def failure_of(write: Callable[[], Awaitable[None]], kind: type[DatabaseUnavailable]) -> DatabaseUnavailable:
    """What a write fails with. A pooled connection may not have noticed yet, or break just then."""
    while True:
        try:
            await write()
        except DatabaseUnavailable as error:
            if type(error) is kind or not isinstance(error, DatabaseUnreachable):
                return error


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_be_away_is_one_error_for_sessions_and_bare_connections(
    server: EmbeddedServer, way: str
) -> None:
    async with process_on(server) as process:
        await process.write()
        await process.write_barely()
        async with WAYS[way](server), asyncio.timeout(60):
            for write in (process.write, process.write_barely, process.write):
                kinds = {"read-only": DatabaseReadOnly, "out of connections": DatabaseExhausted}
                kind = kinds.get(way, DatabaseUnreachable)
                error = await failure_of(write, kind)
                assert isinstance(error, DatabaseError)
                assert type(error) is kind
        await eventually(process.works, "it works again, with whatever its pool holds")
        for _ in range(6):
            await process.write()


@pytest.mark.parametrize("way", WAYS)
async def test_an_outage_is_one_warning_and_one_at_its_end_however_much_fails(
    server: EmbeddedServer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.outage.REFUSAL_QUIET_SECONDS", 2.0)
    with capture_logs() as logged:
        async with process_on(server) as process:
            await process.write()
            async with WAYS[way](server):
                for _ in range(3):
                    results = await asyncio.gather(*(process.write() for _ in range(30)), return_exceptions=True)
                    failed = [each for each in results if each is not None]
                assert len(failed) == 30, "by then every pooled connection has noticed"
                assert all(isinstance(each, DatabaseUnavailable) for each in failed)
                assert process.outage.is_on
            await eventually(lambda: not process.outage.is_on, "the outage is over")
            await process.write()
    told = [entry for entry in logged if not entry["event"].startswith("embedded_server")]
    assert [(entry["event"], entry["log_level"]) for entry in told] == [
        ("database_away", "warning"),
        ("database_back", "warning"),
    ]
    assert told[1]["failures"] >= 30
    assert not any("exc_info" in entry for entry in logged)


async def test_what_waits_for_a_server_that_hangs_is_cut_off_and_nothing_new_is_tried(server: EmbeddedServer) -> None:
    """In statements, in the pool's queue and in connecting; and at once from then on."""
    async with process_on(server) as process:
        await process.write()
        async with hanging(server), asyncio.timeout(60):
            waiting = await asyncio.gather(*(process.write() for _ in range(10)), return_exceptions=True)
            assert [type(each) for each in waiting] == [DatabaseUnreachable] * 10
            turns = 0

            async def count_turns() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            counting = asyncio.create_task(count_turns())
            with pytest.raises(DatabaseUnreachable, match="no answer in time"):
                await process.write()
            assert turns < 1_000, "nothing was waited for"
            with pytest.raises(DatabaseUnreachable, match="No PostgreSQL server answers at"):
                await check_server(process.engine)
            counting.cancel()
        await eventually(process.works, "it works again")


async def test_a_process_that_was_asleep_itself_takes_no_server_for_silent(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.outage.PERIOD_SECONDS", 0.0)  # so that it falls asleep while it asks
    monkeypatch.setattr("db.outage.PATIENCE_SECONDS", 1.0)
    nap = f"kill -STOP {os.getpid()}; sleep 2; kill -CONT {os.getpid()}"
    with capture_logs() as logged:
        async with process_on(server) as process:
            sleeper = await asyncio.create_subprocess_exec("sh", "-c", nap, start_new_session=True)
            await sleeper.wait()
            await process.write()
    assert [entry for entry in logged if entry["event"] == "database_away"] == []


async def test_a_process_that_is_busy_with_itself_takes_no_server_for_silent(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer takes several turns of the event loop; they are longer than all of the patience together."""
    monkeypatch.setattr("db.outage.PERIOD_SECONDS", 0.0)
    monkeypatch.setattr("db.outage.PATIENCE_SECONDS", 0.5)
    loop, is_busy = asyncio.get_running_loop(), True

    def work() -> None:
        until = monotonic() + 0.25
        while monotonic() < until:
            pass
        if is_busy:
            loop.call_soon(work)

    with capture_logs() as logged:
        async with process_on(server) as process:
            await process.write()
            borrowed = await process.engine.connect()
            work()
            for _ in range(3):
                await process.outage.answer()
            is_busy = False
            assert await borrowed.scalar(text("SELECT 42")) == 42
            await borrowed.close()
    assert [entry for entry in logged if entry["event"] == "database_away"] == []


@pytest.mark.parametrize("way", GONE)
async def test_reads_are_patient_and_come_back_with_the_server(server: EmbeddedServer, way: str) -> None:
    async with process_on(server) as process:

        async def read() -> Any:
            async with process.sessions() as session:
                return await session.scalar(text("SELECT 42"))

        await read()
        async with GONE[way](server):
            await eventually(lambda: process.outage.is_on, "the watch notices by itself")
            reading = [asyncio.create_task(process.outage.patiently(read)) for _ in range(5)]
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable):
                    await read()
            assert not any(each.done() for each in reading)
        async with asyncio.timeout(60):
            assert await asyncio.gather(*reading) == [42] * 5


async def test_where_nothing_watches_the_patient_look_for_themselves(server: EmbeddedServer) -> None:
    async with process_on(server, watched=False) as process:
        async with killed(server):
            with pytest.raises(DatabaseUnavailable):
                await process.write()
            writing = asyncio.create_task(process.outage.patiently(process.write))
        async with asyncio.timeout(60):
            await writing


async def test_a_watch_that_ends_as_its_connection_opens_closes_it() -> None:
    """The watch is cancelled in the very turn of the loop in which the connection is there."""
    asked, go = asyncio.Event(), asyncio.Event()
    closed: list[object] = []

    async def connect() -> Any:
        asked.set()
        await go.wait()
        return SimpleNamespace(terminate=lambda: closed.append("it"), is_closed=lambda: False)

    async with Outage().watching(connect):
        await asked.wait()
        go.set()
    assert closed == ["it"]


async def test_a_commit_that_the_server_did_not_survive_is_in_doubt_and_a_statement_is_not(
    server: EmbeddedServer,
) -> None:
    async with process_on(server) as process, process.sessions() as session:
        await session.execute(text(WRITE))
        async with killed(server):
            with pytest.raises(DatabaseUnavailable) as of_commit:
                await session.commit()
            with pytest.raises(DatabaseUnavailable) as of_statement:
                await process.write()
    assert of_commit.value.in_doubt
    assert not of_statement.value.in_doubt


async def test_a_session_that_began_as_read_only_is_not_used_again(server: EmbeddedServer) -> None:
    async with process_on(server) as process:
        async with read_only(server):
            await process.engine.dispose()
            with pytest.raises(DatabaseReadOnly):
                await process.write()
        await eventually(process.works, "a new connection is made, which may write")


async def test_other_errors_stay_what_they_are(server: EmbeddedServer) -> None:
    async with process_on(server) as process:
        async with process.sessions() as session:
            with pytest.raises(DBAPIError, match="nowhere"):
                await session.execute(text("SELECT * FROM nowhere"))
        async with process.sessions() as session:
            with pytest.raises(IntegrityError):
                await session.execute(text("INSERT INTO projects (name) VALUES ('default')"))
        async with driver_of(process.sessions) as driver:
            with pytest.raises(asyncpg.UndefinedTableError):
                await driver.execute("SELECT * FROM nowhere")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with driver_of(process.sessions) as driver:
                await driver.execute("SELECT 1 / 0")
        assert not process.outage.is_on
