"""What every test may ask for: a real PostgreSQL server, and a database of its own in it.

One server for each pytest process (each xdist worker has its own), of the binaries that the service embeds. The
schema is migrated once, into a template; a test gets a copy in some 20 milliseconds and it is dropped afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.connection import connect_raw, create_engine, session_factory
from db.embedded.server import EmbeddedServer, find_url, serve

# Nothing here outlives the tests, so nothing needs to reach the disk.
FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}

# Waits for the end of the test process, which closes the pipe, however it ends; then ends what it left behind.
GUARD = """
cat > /dev/null
for file in "$1"/*/postgres/postmaster.pid "$1"/*/*/postgres/postmaster.pid; do
    [ -f "$file" ] || continue
    pid=$(head -n 1 "$file"); sockets=$(sed -n 5p "$file")
    [ "$(readlink "/proc/$pid/cwd")" = "${file%/postmaster.pid}" ] || continue
    kill -QUIT "$pid"
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2> /dev/null && sleep 0.2; done
    rm -rf "$sockets"
done
rm -rf "$1"
"""

_numbers = itertools.count(1)


# Whoever starts the tests in the background may have these ignored, and everything they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches them."""
    for name in list(os.environ):
        if name in ("DATABASE_URL", "HOST", "PORT") or name.startswith(("SIMULATIONS_", "PG")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory with a short path that a server's own user may pass; gone at the end, however the tests end."""
    directory = Path(tempfile.mkdtemp(prefix="simulations-test-", dir="/tmp"))
    directory.chmod(0o711)
    guard = subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "guard", directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield directory
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait()


@pytest.fixture
def data_directory(scratch: Path) -> Iterator[Path]:
    """An empty data directory that an embedded server can live in (root's tmp_path is closed to the server's user)."""
    directory = Path(tempfile.mkdtemp(prefix="data-", dir=scratch))
    directory.chmod(0o711)
    yield directory
    if find_url(directory) is not None:  # left by a process that the test killed: adopt it, and stop it
        with serve(directory):
            pass
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(scratch: Path) -> Iterator[EmbeddedServer]:
    """The server that this pytest process shares among its tests: none of them may stop it."""
    with serve(scratch / "shared", settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: EmbeddedServer) -> str:
    """The name of a migrated database, to be copied and never to be connected to."""
    from db.schema import upgrade

    name = "template_migrated"
    _administer(postgres_server, f'CREATE DATABASE "{name}"')
    asyncio.run(upgrade(_url(postgres_server, name)))
    return name


@pytest.fixture
def database_url(postgres_server: EmbeddedServer, template_database: str) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    yield from _database(postgres_server, f'TEMPLATE "{template_database}"')


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedServer) -> Iterator[str]:
    """The URL of a fresh database without a table."""
    yield from _database(postgres_server, "")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, application="test")
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return session_factory(engine)


def _database(server: EmbeddedServer, like: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _administer(server, f'CREATE DATABASE "{name}" {like}')
    yield _url(server, name)
    _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _administer(server: EmbeddedServer, statement: str) -> None:
    async def execute() -> None:
        connection = await connect_raw(server.url, application="fixtures")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


def _url(server: EmbeddedServer, database: str) -> str:
    return server.url.replace("@/simulations?", f"@/{database}?")
