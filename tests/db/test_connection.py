"""Addresses as people and clouds write them, the messages when they don't work, and what a connection is set to."""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import cast, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db import connection as module
from db.connection import check_server, connect_raw, create_engine, parse_url
from db.embedded.server import EmbeddedServer, serve
from db.errors import DatabaseError, DatabaseRefused, DatabaseUnreachable, DatabaseUrlError, ServerTooOld

SECRET = "hunter2"
SSL_REQUEST = 80877103


@dataclass
class FakeServer:
    """A server that refuses TLS and login, and remembers what it was asked."""

    port: int = 0
    asked_for_tls: int = 0
    started_with: list[dict[str, str]] = field(default_factory=list)


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length, code = struct.unpack("!ii", await reader.readexactly(8))
                rest = await reader.readexactly(length - 8)
                if code == SSL_REQUEST:
                    fake.asked_for_tls += 1
                    writer.write(b"N")
                    continue
                words = rest.decode().rstrip("\0").split("\0")
                fake.started_with.append(dict(zip(words[::2], words[1::2], strict=True)))
                said = b"SFATAL\0C28P01\0Mgo away\0\0"
                writer.write(b"E" + struct.pack("!i", len(said) + 4) + said)
                await writer.drain()
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    async with server:
        yield fake


async def refusal_of(url: str) -> str:
    engine = create_engine(url, application="test")
    try:
        with pytest.raises(DatabaseError) as caught:
            await check_server(engine)
    finally:
        await engine.dispose()
    assert SECRET not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize(
    ("url", "dsn", "place"),
    [
        ("postgres://u:p@h/d", "postgresql://u:p@h/d", "h/d"),
        ("postgresql://u:p@h:6432/d", "postgresql://u:p@h:6432/d", "h:6432/d"),
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql://u:p@h/d?sslmode=require", "h/d"),
        ("postgresql+psycopg://u:p@h/d?sslmode=disable", "postgresql://u:p@h/d?sslmode=disable", "h/d"),
        (
            "postgresql://u:p@ep-1.neon.example/d?sslmode=require&channel_binding=require",
            "postgresql://u:p@ep-1.neon.example/d?sslmode=require",
            "ep-1.neon.example/d",
        ),
        ("postgresql://u:p@h/d?gssencmode=disable&pgbouncer=true&keepalives=1", "postgresql://u:p@h/d", "h/d"),
        ("postgresql://u:p@h/d?connect_timeout=3&application_name=mine", "postgresql://u:p@h/d", "h/d"),
        ("postgresql://u:p@h/d?sslmode=", "postgresql://u:p@h/d", "h/d"),
        ("postgresql:///d?host=/run/pg", "postgresql:///d?host=%2Frun%2Fpg", "/run/pg/d"),
        ("postgresql://u@%2Frun%2Fpg/d", "postgresql://u@%2Frun%2Fpg/d", "/run/pg/d"),
        ("postgresql:///d?host=h&port=6432", "postgresql:///d?host=h&port=6432", "h:6432/d"),
        ("postgresql://a:1,b:2/d?target_session_attrs=primary", "postgresql://a:1,b:2/d?target_session_attrs=primary",
         "a:1,b:2/d"),
        ("postgresql://u:p@[::1]:6432/d", "postgresql://u:p@[::1]:6432/d", "[::1]:6432/d"),
        ("postgresql://u:p@x@h/d", "postgresql://u:p%40x@h/d", "h/d"),
        ("postgresql://u:p@h/d?options=-c%20geqo%3Doff", "postgresql://u:p@h/d?options=-c%20geqo%3Doff", "h/d"),
    ],
)  # fmt: skip
def test_urls_as_the_clouds_hand_them_out_are_understood(url: str, dsn: str, place: str) -> None:
    address = parse_url(url)
    assert (address.dsn, str(address)) == (dsn, place)


def test_a_url_can_set_the_application_name_and_how_long_to_wait() -> None:
    assert parse_url("postgresql://h/d?connect_timeout=3&application_name=mine").connect_timeout_seconds == 3
    assert parse_url("postgresql://h/d?connect_timeout=0").connect_timeout_seconds is None
    assert parse_url("postgresql://h/d").connect_timeout_seconds == module.CONNECT_TIMEOUT_SECONDS
    assert parse_url("postgresql://h/d?application_name=mine").application == "mine"


def test_the_systems_certificates_verify_the_servers_name() -> None:
    address = parse_url("postgresql://h/d?sslmode=verify-full&sslrootcert=system")
    assert address.tls is not None
    assert address.tls.check_hostname
    assert address.dsn == "postgresql://h/d"


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"host=h password={SECRET}",
        f"mysql://u:{SECRET}@h/d",
        f"sqlite:///{SECRET}",
        f"https://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}/x@h/d",
        f"postgresql://u:12/{SECRET}@h/d",
        f"postgresql://u:12?{SECRET}@h/d",
        f"postgresql://u:12#{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h:port/d",
        f"postgresql://u:{SECRET}@[::1/d",
        f"postgresql://u:{SECRET}@h/d?sslmode",
        f"postgresql://u:{SECRET}@h/d?sslmode=on",
        f"postgresql://u:{SECRET}@h/d?connect_timeout=soon",
        f"postgresql://u:{SECRET}@/d?host=h&port=x",
    ],
)
def test_what_is_no_url_of_postgresql_is_refused_without_printing_the_password(url: str) -> None:
    with pytest.raises(DatabaseUrlError) as caught:
        parse_url(url)
    assert SECRET not in str(caught.value)
    assert "expected" in str(caught.value) or "makes no sense" in str(caught.value)
    assert caught.value.__cause__ is None


async def test_neither_an_address_nor_an_engine_prints_the_password() -> None:
    url = f"postgresql://u:{SECRET}@h/d"
    assert SECRET not in repr(parse_url(url))
    engine = create_engine(url, application="test")
    assert SECRET not in f"{engine!r} {engine.url!r}"
    await engine.dispose()


@pytest.mark.parametrize(
    ("query", "asked_for_tls", "logins"),
    [("sslmode=disable", 0, 1), ("sslmode=prefer", 1, 1), ("", 1, 1), ("sslmode=require", 1, 0), ("ssl=true", 1, 0)],
)
async def test_sslmode_decides_whether_a_password_may_travel_in_the_clear(
    query: str, asked_for_tls: int, logins: int
) -> None:
    async with fake_server() as fake:
        told = await refusal_of(f"postgresql://u:{SECRET}@127.0.0.1:{fake.port}/d?{query}")
    assert (fake.asked_for_tls, len(fake.started_with)) == (asked_for_tls, logins)
    assert told.startswith("DatabaseRefused" if logins else "DatabaseUnreachable")
    assert f"127.0.0.1:{fake.port}/d" in told


async def test_a_connection_starts_with_its_name_and_utc_and_what_the_url_asks_for() -> None:
    async with fake_server() as fake:
        url = f"postgresql://u@127.0.0.1:{fake.port}/d?sslmode=disable&options=-c%20geqo%3Doff&channel_binding=require"
        await refusal_of(url)
        await refusal_of(f"{url}&application_name=mine")
    first, second = fake.started_with
    assert (first["application_name"], second["application_name"]) == ("simulations-test", "mine")
    assert (first["timezone"], first["options"]) == ("UTC", "-c geqo=off")
    assert "channel_binding" not in first


async def test_an_unreachable_server_is_reported_with_host_and_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused for sure
        port = taken.getsockname()[1]
        told = await refusal_of(f"postgresql://u:{SECRET}@127.0.0.1:{port}/d")
    assert told.startswith(f"DatabaseUnreachable: No PostgreSQL server answers at 127.0.0.1:{port}/d: ")
    assert "Check DATABASE_URL" in told


async def test_a_server_that_never_says_a_word_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        told = await refusal_of(f"postgresql://u@127.0.0.1:{port}/d?connect_timeout=1&sslmode=disable")
    assert "no answer in time" in told


async def test_a_missing_socket_is_told_with_its_directory(tmp_path: Path) -> None:
    told = await refusal_of(f"postgresql:///d?host={tmp_path}")
    assert told.startswith(f"DatabaseUnreachable: No PostgreSQL server answers at {tmp_path}/d: ")


async def test_a_database_that_does_not_exist_is_named(postgres_server: EmbeddedServer) -> None:
    told = await refusal_of(postgres_server.url.replace("@/simulations", "@/nowhere"))
    assert told.startswith("DatabaseRefused: ")
    assert 'database "nowhere" does not exist' in told


async def test_a_wrong_password_is_told_as_such(data_directory: Path) -> None:
    rules = data_directory / "rules"
    rules.write_text("local all simulations trust\nlocal all all scram-sha-256\n")
    with serve(data_directory, settings={"fsync": "off", "hba_file": str(rules)}) as server:
        owner = await connect_raw(server.url)
        await owner.execute("CREATE ROLE other LOGIN PASSWORD 'right'")
        await owner.close()
        url = server.url.replace("//simulations@", f"//other:{SECRET}@")
        assert 'refuses the login: password authentication failed for user "other"' in await refusal_of(url)
        engine = create_engine(url.replace(SECRET, "right"))
        await check_server(engine)
        await engine.dispose()


async def test_an_unknown_parameter_is_judged_by_the_server(postgres_server: EmbeddedServer) -> None:
    told = await refusal_of(f"{postgres_server.url}&colour=blue")
    assert told.startswith("DatabaseRefused: ")
    assert '"colour"' in told


async def test_a_server_that_is_too_old_is_told_with_both_versions(
    postgres_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINIMUM_MAJOR", 99)
    engine = create_engine(postgres_server.url)
    with pytest.raises(ServerTooOld, match=r"is version 18\.\d+.*; Simulations needs 99 or newer"):
        await check_server(engine)
    await engine.dispose()


async def test_connections_that_broke_in_the_pool_say_nothing_of_the_server(empty_database_url: str) -> None:
    """Their ends are sent at the very moment of asking, so no side can have noticed."""
    engine = create_engine(empty_database_url, pool_size=3)
    async with engine.connect() as one, engine.connect() as other, engine.connect() as third:
        pids = [int(str(await each.scalar(text("SELECT pg_backend_pid()")))) for each in (one, other, third)]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    await check_server(engine)
    await engine.dispose()


async def test_a_session_speaks_utc_shows_its_name_and_reads_json(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url, application="graph", statement_timeout=timedelta(seconds=7))
    async with engine.connect() as connection:
        for setting, expected in {
            "TimeZone": "UTC",
            "application_name": "simulations-graph",
            "statement_timeout": "7s",
        }.items():
            assert await connection.scalar(text(f"SHOW {setting}")) == expected
        given = {"ä": [1, 2.5, None]}
        assert await connection.scalar(select(cast(given, JSONB))) == given
    await engine.dispose()


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url, statement_timeout=timedelta(milliseconds=50))
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="statement timeout"):
            await connection.execute(text("SELECT pg_sleep(60)"))
    await engine.dispose()


async def test_connections_that_the_server_has_closed_are_replaced_unnoticed(
    engine: AsyncEngine, database_url: str
) -> None:
    held = [await engine.connect() for _ in range(3)]
    drivers = [(await each.get_raw_connection()).driver_connection for each in held]
    for each in held:
        await each.close()
    gone = [asyncio.Event() for _ in drivers]
    for driver, event in zip(drivers, gone, strict=True):
        assert isinstance(driver, asyncpg.Connection)
        driver.add_termination_listener(lambda _connection, event=event: event.set())
    other = await connect_raw(database_url)
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'simulations-test'"
    )
    await other.close()
    await asyncio.gather(*(event.wait() for event in gone))
    for _ in range(5):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_listening_connection_hears(database_url: str, sessions: async_sessionmaker[AsyncSession]) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    listener = await connect_raw(database_url)
    await listener.add_listener("news", lambda *arguments: heard.put_nowait(arguments[3]))
    async with sessions.begin() as session:
        await session.execute(text("SELECT pg_notify('news', 'hello')"))
    assert await heard.get() == "hello"
    await listener.close()


async def test_an_error_shows_its_statement_and_no_value(sessions: async_sessionmaker[AsyncSession]) -> None:
    """It is logged; and a value may be an environment variable of a simulation."""
    async with sessions() as session:
        with pytest.raises(DBAPIError) as raised:
            await session.execute(text("INSERT INTO nowhere VALUES (:value)"), {"value": "hunter2"})
    assert "INSERT INTO nowhere" in str(raised.value)
    assert "hunter2" not in f"{raised.value}{raised.value!r}"


async def test_the_template_brings_the_migrated_tables(sessions: async_sessionmaker[AsyncSession]) -> None:
    async with sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_the_errors_are_one_family() -> None:
    family = {DatabaseUrlError, DatabaseUnreachable, DatabaseRefused, ServerTooOld}
    assert all(issubclass(each, DatabaseError) for each in family)
