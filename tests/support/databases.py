"""Databases that are lent to one test after another: copies of the template, emptied in between, dropped when in doubt.

A copy and its drop take 20 to 30 ms of PostgreSQL's CPU in memory (memory.py), and 200 to 400 on a disk (hundreds of
files); what its backends have to read anew comes on top. Emptying one takes 10. It is dropped if the test failed, or if
it changed the catalogue (tables, indexes, functions, statistics) or settings of the database. A table that has grown to
more pages than PostgreSQL assumes of a small one begins with a new file: else plans could differ.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import asyncpg

from db.connection import connect_raw
from db.embedded.server import EmbeddedServer
from db.outage import Driver

T = TypeVar("T")

COPIED = "STRATEGY file_copy"  # without a log of each page: a third of the CPU in memory
LONGEST = "120s"  # of a statement: one that waits for a process that is stopped would wait for ever
MOST_PAGES = 10  # of a table, as PostgreSQL assumes of one that was never vacuumed

ALONE = """
SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
CATALOGUE = """
SELECT (SELECT (count(*), max(xmin::text::bigint)) FROM pg_class)::text,
       (SELECT (count(*), max(xmin::text::bigint)) FROM pg_attribute)::text,
       (SELECT (count(*), max(xmin::text::bigint)) FROM pg_constraint)::text,
       (SELECT (count(*), max(xmin::text::bigint)) FROM pg_trigger)::text,
       (SELECT (count(*), max(xmin::text::bigint)) FROM pg_index)::text,
       (SELECT (count(*), max(xmin::text::bigint)) FROM pg_attrdef)::text,
       (SELECT (count(*), max(xmin::text::bigint)) FROM pg_proc WHERE oid >= 16384)::text,
       (SELECT (count(*), max(xmin::text::bigint)) FROM pg_statistic)::text,
       (SELECT count(*) FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
        WHERE d.datname = current_database() OR s.setrole <> 0)::text,
       (SELECT (datconnlimit, datallowconn) FROM pg_database WHERE datname = current_database())::text
"""
TABLES = """
SELECT oid::regclass::text, pg_relation_size(oid) + coalesce(pg_relation_size(nullif(reltoastrelid, 0)), 0)
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
SEQUENCES = "SELECT quote_ident(sequencename), start_value, last_value FROM pg_sequences WHERE schemaname = 'public'"


class Databases:
    """The migrated databases of one pytest process.

    Each keeps one connection, by which it is emptied: a new one takes longer than the emptying, for its backend begins
    with nothing in its caches. They live in an event loop that runs only meanwhile.
    """

    def __init__(self, server: EmbeddedServer, template: str) -> None:
        self._server = server
        self._template = template
        self._numbers = itertools.count(1)
        self._waiting: list[str] = []
        self._lock = threading.Lock()  # services are borrowed in threads
        self._loop = asyncio.new_event_loop()
        self._connections: dict[str, Driver] = {}
        self._catalogues: dict[str, tuple[str, ...]] = {}
        self._restore = self._on(template, _describe)
        self._disconnect(template)  # nothing may be connected to what is copied

    @contextmanager
    def lend(self, failed: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Lend the URL of a database that is as the template. failed: whether the test that had it did."""
        with self._lock:
            name = self._waiting.pop() if self._waiting else self._create()
        try:
            yield url_of(self._server, name)
        except BaseException:
            with self._lock:
                self._drop(name)
            raise
        with self._lock:
            if not failed() and self._empty(name):
                self._waiting.append(name)
            else:
                self._drop(name)

    def close(self) -> None:
        """Close all connections."""
        for name in list(self._connections):
            self._disconnect(name)
        self._loop.close()

    def _create(self) -> str:
        name = f"lent_{next(self._numbers)}"
        self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{self._template}" {COPIED}')
        self._catalogues[name] = self._on(name, _catalogue)
        return name

    def _drop(self, name: str) -> None:
        self._disconnect(name)
        self._administer(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _empty(self, name: str) -> bool:
        """Make it as the template; False if it can't be."""
        try:
            return self._on(name, partial(self._emptied, name))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return False

    async def _emptied(self, name: str, connection: Driver) -> bool:
        await connection.execute(ALONE)
        if await _catalogue(connection) != self._catalogues[name]:
            return False
        sizes: dict[str, int] = {row[0]: row[1] for row in await connection.fetch(TABLES)}
        grown = [table for table, size in sizes.items() if size > MOST_PAGES * 8192]
        await connection.execute(
            (f"TRUNCATE {', '.join(grown)} CASCADE;" if grown else "")
            + "SET session_replication_role = replica;"  # no foreign keys to look up
            + "".join(f"DELETE FROM {table};" for table, size in sizes.items() if size and table not in grown)
            + self._restore
        )
        if grown:
            self._catalogues[name] = await _catalogue(connection)  # the tables are in other files
        return True

    def _administer(self, statement: str) -> None:
        self._on("simulations", partial(_execute, statement))

    def _on(self, name: str, work: Callable[[Driver], Awaitable[T]]) -> T:
        return self._loop.run_until_complete(self._work_on(name, work))

    async def _work_on(self, name: str, work: Callable[[Driver], Awaitable[T]]) -> T:
        connection = self._connections.get(name)
        if connection is None or not await _answers(connection):  # a test may end all connections to its database
            connection = self._connections[name] = await _connect(url_of(self._server, name))
        return await work(connection)

    def _disconnect(self, name: str) -> None:
        connection = self._connections.pop(name, None)
        if connection is not None:
            self._loop.run_until_complete(connection.close())


async def _connect(url: str) -> Driver:
    connection = await connect_raw(url, application="fixtures")
    await connection.execute(f"SET statement_timeout = '{LONGEST}'")
    return connection


async def _answers(connection: Driver) -> bool:
    try:
        await connection.execute("SELECT 1")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return False
    return True


async def _execute(statement: str, connection: Driver) -> None:
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        error.add_note(statement)
        raise


async def _catalogue(connection: Driver) -> tuple[str, ...]:
    [row] = await connection.fetch(CATALOGUE)
    return tuple(row)


async def _describe(connection: Driver) -> str:
    """Statements that bring the rows and sequences of the template back."""
    restore = []
    for table, size in await connection.fetch(TABLES):
        rows = await connection.fetchval(f"SELECT json_agg(t)::text FROM {table} AS t") if size else None
        if rows is not None:
            escaped = rows.replace("'", "''")
            restore.append(
                f"INSERT INTO {table} OVERRIDING SYSTEM VALUE "
                f"SELECT * FROM json_populate_recordset(NULL::{table}, '{escaped}');"
            )
    for sequence, start, last in await connection.fetch(SEQUENCES):
        restore.append(f"SELECT setval('{sequence}', {start if last is None else last}, {last is not None});")
    return "".join(restore)


def administer(server: EmbeddedServer, statement: str) -> None:
    """Execute a statement that concerns whole databases."""

    async def execute() -> None:
        connection = await _connect(server.url)
        try:
            await _execute(statement, connection)
        finally:
            await connection.close()

    asyncio.run(execute())


def url_of(server: EmbeddedServer, database: str) -> str:
    return server.url.replace("@/simulations?", f"@/{database}?")
