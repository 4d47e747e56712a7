"""Connections to PostgreSQL: URLs, an engine with its pool, sessions, and a bare connection.

Accepts URLs as cloud providers give them (`postgres://`, `sslmode=`, `channel_binding=`). asyncpg reads libpq's URLs
itself, so an engine and a listening connection open the same way; nothing is translated twice. No tables
here. What can go wrong with an address or a server is one of `db.errors`, whose messages never hold the password. An
engine raises `DatabaseUnavailable` in place of whatever asyncpg and SQLAlchemy raise while the database is away.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import asyncpg
import orjson
from sqlalchemy import URL, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection
from sqlalchemy.util.concurrency import greenlet_spawn

from db.array_types import Connection
from db.errors import (
    CONNECTION_FAILURES,
    DatabaseError,
    DatabaseExhausted,
    DatabaseRefused,
    DatabaseUnavailable,
    DatabaseUnreachable,
    DatabaseUrlError,
    ServerTooOld,
    reason_of,
    unavailability,
)
from db.outage import Driver, Outage

MINIMUM_MAJOR = 15  # older ones leave support; nothing here needs a newer one
CONNECT_TIMEOUT_SECONDS = 10.0
# Clouds cut an idle connection without a word, the hastiest after 4 minutes: a pooled one is replaced before that.
RECYCLE_SECONDS = 230

# Parameters of libpq that have no counterpart in asyncpg. `channel_binding` is one of them: asyncpg has no SCRAM-PLUS,
# and the clouds that write `channel_binding=require` into their URLs take SCRAM over TLS as well.
DROPPED = frozenset({
    "channel_binding", "client_encoding", "connection_limit", "fallback_application_name", "gssdelegation",
    "gssencmode", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts",
    "max_protocol_version", "min_protocol_version", "pgbouncer", "pool_timeout", "require_auth", "requirepeer",
    "sslcertmode", "sslcompression", "sslsni", "tcp_user_timeout",
})  # fmt: skip
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

EXPECTED = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
IN_PASSWORD = "Characters like @ : / ? # in a user or a password are written %40 %3A %2F %3F %23."


@dataclass(frozen=True, slots=True)
class Address:
    """A database, as asyncpg connects to it. Prints without its password."""

    dsn: str = field(repr=False)
    hosts: str  # "db.example.org:5432", "a:5432,b:5432", or the directory of a unix socket
    database: str
    application: str | None  # the name that the URL asks to be shown by
    connect_timeout_seconds: float | None
    tls: ssl.SSLContext | None = field(repr=False)  # None: as the dsn's sslmode says

    def __str__(self) -> str:
        return f"{self.hosts}/{self.database}"

    @property
    def is_socket(self) -> bool:
        """Whether the server is on this host, behind a unix socket."""
        return self.hosts.startswith("/")


def parse_url(url: str) -> Address:
    """Read a URL with libpq's parameters, of any driver (`postgresql+asyncpg://`).

    Raises `DatabaseUrlError`. An unknown parameter is sent as a setting of the connection; the server judges it.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgres", "postgresql"):
        found = f", got a URL that begins with {scheme}://" if separator and scheme.isalnum() else ""
        raise DatabaseUrlError(f"This is not the URL of a PostgreSQL database: expected {EXPECTED}{found}.")
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise DatabaseUrlError(f"The database's URL can't be read: expected {EXPECTED}. {IN_PASSWORD}") from None
    parameters = {name: value for name, value in pairs if value}
    login, _, hosts = parts.netloc.rpartition("@")
    if "@" in parts.path + parts.query or parts.fragment or not _are_hosts(hosts):
        # Whatever stands there may be a piece of the password: it is not repeated.
        raise DatabaseUrlError(
            f"The database's URL can't be read, host or port make no sense: expected {EXPECTED}. {IN_PASSWORD}"
        )
    wanted_hosts = hosts or parameters.get("host", "")
    port = parameters.get("port", "")
    if not _are_hosts(wanted_hosts) or not all(each.isdigit() for each in port.split(",") if port):
        raise DatabaseUrlError("The database's URL can't be read: its parameter host or port makes no sense.")

    timeout = _connect_timeout(parameters.pop("connect_timeout", None))
    tls = _translate_tls(parameters)
    application = parameters.pop("application_name", None)
    kept = {name: value for name, value in parameters.items() if name not in DROPPED}
    dsn = f"postgresql://{login.replace('@', '%40') + '@' if login else ''}{hosts}{parts.path}"
    return Address(
        dsn=f"{dsn}?{urlencode(kept, quote_via=quote)}" if kept else dsn,
        hosts=unquote(wanted_hosts) + (f":{port}" if port and not unquote(wanted_hosts).startswith("/") else ""),
        database=unquote(parts.path.removeprefix("/")) or parameters.get("dbname", ""),
        application=application,
        connect_timeout_seconds=timeout,
        tls=tls,
    )


def create_engine(
    url: str,
    *,
    pool_size: int = 10,
    application: str = "python",
    statement_timeout: timedelta | None = None,
    outage: Outage | None = None,
) -> AsyncEngine:
    """Make an engine that connects when it is first used. Raises `DatabaseUrlError`.

    `application` shows in `pg_stat_activity`, unless the URL gives a name. With `statement_timeout` the server ends a
    longer statement, and five seconds later this side stops waiting for a server that went silent. Failures are
    noted in `outage`, which may cut connections off.
    """
    address = parse_url(url)
    settings: dict[str, str] = {}
    if statement_timeout is not None:
        settings["statement_timeout"] = str(round(statement_timeout.total_seconds() * 1000))
    patience_seconds = None if statement_timeout is None else statement_timeout.total_seconds() + 5
    failures = _Failures(outage)

    async def connect() -> Driver:
        return await _connect(address, application, settings, patience_seconds)

    async def create() -> Driver:
        try:
            return await (connect() if outage is None else outage.connecting(connect))
        except Exception as error:
            found = failures.meaning(error, is_closed=True, connecting=True)
            if found is None or found is error:
                raise
            raise found from error

    class Pool(AsyncAdaptedQueuePool):
        """SQLAlchemy's, whose exhaustion is one more way in which the database is unavailable."""

        failures: _Failures

        def connect(self) -> PoolProxiedConnection:
            try:
                return super().connect()
            except PoolTimeout as error:
                raise failures.noted(
                    DatabaseExhausted.because("all connections of this process were in use")
                ) from error

    Pool.failures = failures
    engine = create_async_engine(
        # Only shown, never connected to: `connect` does that.
        URL.create("postgresql+asyncpg", database=address.database, query={"host": address.hosts}),
        async_creator=create,
        poolclass=Pool,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # the one used last: it, its backend and what both have at hand are still in the caches
        pool_recycle=-1 if address.is_socket else RECYCLE_SECONDS,
        hide_parameters=True,  # an error is logged with its statement, and values may be environment variables
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "handle_error", failures.translate)
    return engine


class _Failures:
    """What fails with one engine, in this project's terms."""

    def __init__(self, outage: Outage | None) -> None:
        self._outage = outage

    def noted(self, found: DatabaseUnavailable) -> DatabaseUnavailable:
        if self._outage is not None:
            self._outage.note(found)
        return found

    def meaning(self, error: BaseException, *, is_closed: bool, connecting: bool = False) -> DatabaseUnavailable | None:
        """The same error as unavailability; None for any other."""
        found = error if isinstance(error, DatabaseUnavailable) else None
        found = found or unavailability(error, is_closed=is_closed, connecting=connecting)
        return self.noted(found) if found is not None else None

    def translate(self, context: ExceptionContext) -> DatabaseUnavailable | None:
        """SQLAlchemy's hook for whatever a statement, a commit or a rollback meets."""
        if isinstance(context.original_exception, DatabaseUnavailable):
            return None
        found = self.meaning(context.original_exception, is_closed=context.is_disconnect)
        if found is not None:
            # Also where the connection still lives: a session that began as read-only stays so.
            context.is_disconnect |= not isinstance(found, DatabaseExhausted)
            found.in_doubt = context.statement is None and context.execution_context is None
        return found


Sessions: TypeAlias = async_sessionmaker[AsyncSession]


def session_factory(engine: AsyncEngine) -> Sessions:
    """Make the factory that every root resolver, tick and batch opens its session from."""
    return async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def driver_of(sessions: Sessions) -> AsyncIterator[Driver]:
    """Borrow a connection from the pool that these sessions use, bare: each statement is a transaction of its own.

    For the hottest statements. A session and SQLAlchemy's execution round them cost more than the statement.
    """
    engine: AsyncEngine = sessions.kw["bind"]
    borrowed = await engine.raw_connection()
    try:
        driver = borrowed.driver_connection
        assert driver is not None
        try:
            yield driver
        except CONNECTION_FAILURES as error:
            found = _failures_of(engine).meaning(error, is_closed=driver.is_closed())
            if found is None:
                raise
            if not isinstance(found, DatabaseExhausted):
                driver.terminate()
            raise found from error
    finally:
        await greenlet_spawn(borrowed.close)


def _failures_of(engine: AsyncEngine) -> _Failures:
    return getattr(engine.pool, "failures", None) or _Failures(None)


async def connect_raw(
    url: str, *, application: str = "listen", within_seconds: float | None = None
) -> asyncpg.Connection[asyncpg.Record]:
    """Open a bare connection, for LISTEN; the caller closes it. Raises what asyncpg raises.

    within_seconds: instead of the URL's own time limit.
    """
    address = parse_url(url)
    if within_seconds is not None:
        address = replace(address, connect_timeout_seconds=within_seconds)
    return await _connect(address, application, {}, None)


def watching(outage: Outage, url: str) -> AbstractAsyncContextManager[None]:
    """Look after the server at `url` while the block runs, over a connection of its own."""
    return outage.watching(lambda: connect_raw(url, application="watch", within_seconds=CONNECT_TIMEOUT_SECONDS))


async def check_server(engine: AsyncEngine) -> None:
    """Raise a `DatabaseError` unless a server new enough answers and lets us in."""
    place = f"{engine.url.query.get('host') or 'this host'}/{engine.url.database}"
    try:
        try:
            found, number = await _version_of(engine)
        except _BrokenConnection:  # one of the pool's, perhaps, which says little of the server: ask by a new one
            await engine.dispose()
            found, number = await _version_of(engine)
    except _BrokenConnection as broken:
        raise _explain(broken.error, place) from broken.error
    except (DatabaseUnavailable, DBAPIError) as error:
        raise _explain(error, place) from error
    if number // 10_000 < MINIMUM_MAJOR:
        raise ServerTooOld(
            f"The PostgreSQL server at {place} is version {found}; Simulations needs {MINIMUM_MAJOR} or newer. "
            "Upgrade it, or set DATABASE_URL to another server."
        )


class _BrokenConnection(Exception):
    """There was a connection, and it failed."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


async def _version_of(engine: AsyncEngine) -> tuple[str, int]:
    async with engine.connect() as connection:
        try:
            found = str(await connection.scalar(text("SHOW server_version")))
            return found, int(str(await connection.scalar(text("SHOW server_version_num"))))
        except (DatabaseUnavailable, DBAPIError) as error:
            raise _BrokenConnection(error) from error


def _explain(error: BaseException, place: str) -> DatabaseError:
    unavailable = error if isinstance(error, DatabaseUnavailable) else None
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig  # SQLAlchemy wraps its own error, which wraps asyncpg's
    elif isinstance(error, DatabaseUnavailable) and error.__cause__ is not None:
        error = error.__cause__
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return DatabaseRefused(
                f"The PostgreSQL server at {place} refuses the login: {reason_of(error)}. "
                "Check user and password in DATABASE_URL."
            )
        case asyncpg.InvalidCatalogNameError():
            return DatabaseRefused(
                f"The PostgreSQL server at {place} has no such database: {reason_of(error)}. "
                "Create it (createdb), or correct the name at the end of DATABASE_URL."
            )
    if isinstance(unavailable, DatabaseExhausted):
        return DatabaseExhausted(f"The PostgreSQL server at {place} refuses the connection: {reason_of(error)}.")
    if isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.CannotConnectNowError):
        return DatabaseRefused(f"The PostgreSQL server at {place} refuses the connection: {reason_of(error)}.")
    return DatabaseUnreachable(
        f"No PostgreSQL server answers at {place}: {reason_of(error)}. "
        "Check DATABASE_URL, and that the server runs and can be reached from here."
    )


async def _connect(
    address: Address, application: str, settings: Mapping[str, str], patience_seconds: float | None
) -> Driver:
    # Nothing else goes into every connection's start: a pooler in between refuses settings it does not track.
    name = address.application or f"simulations-{application}"
    return await asyncpg.connect(
        address.dsn,
        timeout=address.connect_timeout_seconds,  # type: ignore[arg-type]  # the stubs forget None: no limit
        command_timeout=patience_seconds,
        connection_class=Connection,
        ssl=address.tls,
        server_settings={"application_name": name, "timezone": "UTC", **settings},
    )


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    # asyncpg has noticed by itself when the server hung up. Asking costs nothing, where pool_pre_ping costs each
    # transaction a round trip; the pool then replaces all connections of that time.
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _are_hosts(hosts: str) -> bool:
    """Whether this is empty, or hosts with numeric ports, separated by commas."""
    for each in hosts.split(",") if hosts else []:
        name, colon, port = each.rpartition("]") if each.startswith("[") else each.partition(":")
        port = port.removeprefix(":") if each.startswith("[") else port
        if not name or (colon == ":" and not port.isdigit()) or (port and not port.isdigit()):
            return False
    return True


def _connect_timeout(given: str | None) -> float | None:
    """libpq's connect_timeout: seconds; zero and below wait for ever."""
    if given is None:
        return CONNECT_TIMEOUT_SECONDS
    try:
        seconds = int(given)
    except ValueError:
        raise DatabaseUrlError("connect_timeout in the database's URL: expected a number of seconds.") from None
    return float(seconds) if seconds > 0 else None


def _translate_tls(parameters: dict[str, str]) -> ssl.SSLContext | None:
    """Take what asyncpg would not understand out of the parameters: `ssl=`, and libpq's `sslrootcert=system`."""
    mode = parameters.pop("ssl", None)
    if mode and "sslmode" not in parameters:
        parameters["sslmode"] = {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(mode, mode)
    if parameters.get("sslmode", SSL_MODES[0]) not in SSL_MODES:
        raise DatabaseUrlError(f"sslmode in the database's URL: expected one of {', '.join(SSL_MODES)}.")
    if parameters.get("sslrootcert") != "system":
        return None
    del parameters["sslrootcert"]
    parameters.pop("sslmode", None)
    return ssl.create_default_context()
