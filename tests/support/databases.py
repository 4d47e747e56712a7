"""Databases that are lent to one test after another: copies of the template, emptied in between, dropped when in doubt.

A copy and its drop take 200 to 400 ms of PostgreSQL's CPU (hundreds of files), emptying one takes 20. It is dropped
if the test failed, if it changed the catalogue (tables, indexes, functions, statistics) or settings of the database, or
if a table has grown to more pages than PostgreSQL assumes of a small one: then plans could differ.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from db.connection import connect_raw
from db.embedded.server import EmbeddedServer
from db.outage import Driver

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class Original:
    """The template: its catalogue, and statements that bring its rows and sequences back."""

    catalogue: tuple[str, ...]
    restore: str


class Databases:
    """The migrated databases of one pytest process."""

    def __init__(self, server: EmbeddedServer, template: str) -> None:
        self._server = server
        self._template = template
        self._numbers = itertools.count(1)
        self._waiting: list[str] = []
        self._original = asyncio.run(self._on(template, _describe))

    @contextmanager
    def lend(self, failed: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Lend the URL of a database that is as the template. failed: whether the test that had it did."""
        name = self._waiting.pop() if self._waiting else self._create()
        try:
            yield url_of(self._server, name)
        except BaseException:
            self._drop(name)
            raise
        if not failed() and self._empty(name):
            self._waiting.append(name)
        else:
            self._drop(name)

    def _create(self) -> str:
        name = f"lent_{next(self._numbers)}"
        administer(self._server, f'CREATE DATABASE "{name}" TEMPLATE "{self._template}"')
        return name

    def _drop(self, name: str) -> None:
        administer(self._server, f'DROP DATABASE "{name}" WITH (FORCE)')

    def _empty(self, name: str) -> bool:
        """Make it as the template; False if it can't be."""
        try:
            return asyncio.run(self._on(name, self._emptied))
        except (asyncpg.PostgresError, OSError):
            return False

    async def _emptied(self, connection: Driver) -> bool:
        await connection.execute(ALONE)
        tables = await connection.fetch(TABLES)
        if any(size > MOST_PAGES * 8192 for _, size in tables):
            return False
        if tuple(await connection.fetchrow(CATALOGUE)) != self._original.catalogue:
            return False
        await connection.execute(
            "SET session_replication_role = replica;"  # no foreign keys to look up
            + "".join(f"DELETE FROM {table};" for table, size in tables if size)
            + self._original.restore
        )
        return True

    async def _on(self, name: str, work: Callable[[Driver], Awaitable[T]]) -> T:
        connection = await connect_raw(url_of(self._server, name), application="fixtures")
        try:
            return await work(connection)
        finally:
            await connection.close()


async def _describe(connection: Driver) -> Original:
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
    return Original(tuple(await connection.fetchrow(CATALOGUE)), "".join(restore))


def administer(server: EmbeddedServer, statement: str) -> None:
    """Execute a statement that concerns whole databases."""

    async def execute() -> None:
        connection = await connect_raw(server.url, application="fixtures")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


def url_of(server: EmbeddedServer, database: str) -> str:
    return server.url.replace("@/simulations?", f"@/{database}?")
