"""Array types that a connection need not look up: as PostgreSQL has them, and no statement is sent for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from db.array_types import ARRAYS, KNOWN
from db.connection import connect_raw
from db.outage import Driver

OF_SERVER = """
SELECT oid::int, typname::text AS name, typelem::int AS elemtype, typtype AS kind, typdelim::text AS elemdelim,
       typnamespace::regnamespace::text AS ns
FROM pg_type WHERE oid = ANY($1::oid[])
"""


@pytest.fixture
async def driver(database_url: str) -> AsyncIterator[Driver]:
    driver = await connect_raw(database_url)
    yield driver
    await driver.close()


@asynccontextmanager
async def sent_by(driver: Driver) -> AsyncIterator[list[str]]:
    """Every statement that is executed meanwhile, those of asyncpg itself among them."""
    sent: list[str] = []

    def note(record: asyncpg.connection.LoggedQuery) -> None:
        sent.append(record.query)

    driver.add_query_logger(note)
    yield sent
    driver.remove_query_logger(note)
    await driver.execute("SELECT")  # loggers are called a turn of the loop later


async def test_the_types_are_as_the_server_has_them(driver: Driver) -> None:
    found = {row["oid"]: dict(row) for row in await driver.fetch(OF_SERVER, list(KNOWN))}
    assert found == {oid: {name: row[name] for name in found[oid]} for oid, row in KNOWN.items()}
    named = await driver.fetch("SELECT (name || '[]')::regtype::oid::int FROM unnest($1::text[]) AS name", [*ARRAYS])
    assert [oid for (oid,) in named] == list(ARRAYS.values())


@pytest.mark.parametrize("name", ["text", "int8"])
async def test_an_array_is_sent_and_read_by_one_statement(driver: Driver, name: str) -> None:
    given = ["a", None, '"{,}'] if name == "text" else [1, None, 2**62]
    statement = f"SELECT $1::{name}[]"
    async with sent_by(driver) as sent:
        assert await driver.fetchval(statement, given) == given
    assert sent == [statement]


async def test_arrays_of_every_such_type_come_and_go(driver: Driver) -> None:
    for name in ARRAYS:
        values = await driver.fetchval(f"SELECT ARRAY[NULL, NULL]::{name}[]")
        assert values == [None, None], name
        assert await driver.fetchval(f"SELECT $1::{name}[]", [[None], [None]]) == [[None], [None]], name


async def test_any_other_type_is_still_looked_up(driver: Driver) -> None:
    await driver.execute("CREATE TYPE pg_temp.mood AS ENUM ('low', 'high')")
    statement = "SELECT ARRAY['low']::pg_temp.mood[], ARRAY['a']"
    async with sent_by(driver) as sent:
        assert tuple(await driver.fetchrow(statement) or ()) == (["low"], ["a"])
    assert len(sent) > 1
    assert sent[-1] == statement
