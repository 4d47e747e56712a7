"""What every test may ask for: a real PostgreSQL server, a database of its own in it, and a whole service on one.

One server for each pytest process (each xdist worker has its own), of the binaries that the service embeds. The
schema is migrated once, into a template. Copies of it are lent to one test after another, emptied in between
(support/databases.py), and so are whole services (support/lending.py). The order of the tests is random within a file;
files that take long come first under `--long-first` (support/order.py).
"""

from __future__ import annotations

# ruff: noqa: E402  # the first import decides how long the others take
import gc

gc.disable()  # no collections in the midst of the imports; `pytest_sessionstart` turns it on again

import asyncio
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import compiled
import hypothesis
import memory
import pytest
from databases import COPIED, Databases, administer, url_of
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.connection import create_engine, session_factory
from db.embedded.server import EmbeddedServer, find_url, serve

if TYPE_CHECKING:
    from bucket import Server
    from lending import Lender
    from live import Service
    from ray_cluster import Cluster

pytest_plugins = ["failures", "order", "replacing", "cpu"]

# Hypothesis' limit of 200 ms an example would measure the machine. (Under CI it has none by itself.)
hypothesis.settings.register_profile("patient", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("patient")

# Nothing here outlives the tests, so nothing needs to reach the disk. A database is made and dropped for each of 1,500
# tests: with the least log of changes, and few buffers, which a drop looks through, that takes a third of the CPU.
FAST = {
    "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off",
    "wal_level": "minimal", "max_wal_senders": "0", "shared_buffers": "32MB", "io_method": "sync", "jit": "off",
    "checkpoint_timeout": "1h", "max_wal_size": "128MB",
}  # fmt: skip
FAILED = pytest.StashKey[bool]()
COLLECT_AFTER = (5_000, 4, 10)  # as in a graph process (`graph.__main__`), since tests run the API in their own

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


compiled.share()
# A shell that starts the tests in the background may ignore these signals, which all child processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
# Hundreds of Python processes are started: each would compile all of our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False  # and this one all tests, whose assertions pytest rewrites
# httpcore tries to import it for each of its locks, four or five in a request, and Python looks for a missing module in
# all directories each time: .13 ms and more.
if importlib.util.find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # how Python notes that there is none


def pytest_sessionstart() -> None:
    """Collect garbage from here on, in the controller of xdist, too, which collects no tests."""
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep thousands of tests and all modules out of every garbage collection to come."""
    gc.collect()
    gc.freeze()
    gc.enable()  # `graph.__main__`, which some tests import, turns it off


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on a test that it failed, for fixtures that hand on what it used."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own settings from the tests."""
    for name in list(os.environ):
        if name in ("DATABASE_URL", "HOST", "PORT") or name.startswith(("SIMULATIONS_", "PG")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory with a short path that a server's own user may pass; gone at the end, however the tests end."""
    directory = Path(tempfile.mkdtemp(prefix="simulations-test-", dir=memory.PLACE))
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
def ray_cluster() -> Iterator[Cluster]:
    """A real Ray cluster, started when a test first asks for it."""
    from ray_cluster import started

    with started() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[Server]:
    """A real S3 server, started when a test first asks for it."""
    from bucket import serving

    with serving() as server:
        yield server


@pytest.fixture
def bucket_url(bucket_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty part of a bucket, as SIMULATIONS_FILES has it; its credentials are in the environment."""
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    return bucket_server.place()


@pytest.fixture(scope="session")
def fill(scratch: Path) -> Callable[[Path], None]:
    """Put into a data directory what a first start makes there: a cluster, with a migrated database.

    It is a copy: initdb and the migrations, 1.5 s of CPU, run once in a pytest process; a copy takes 0.2 s, for most of
    PostgreSQL's log is zeros. Tests of a first start use an empty directory.
    """
    from db.schema import upgrade

    original = scratch / "original"
    with serve(original, settings=FAST) as server:
        asyncio.run(upgrade(server.url))

    def fill(data_directory: Path) -> None:
        data_directory.mkdir(mode=0o711, exist_ok=True)
        subprocess.run(["cp", "-a", "--sparse=always", original / "postgres", data_directory], check=True)
        for programs in original.glob("postgresql-*"):
            subprocess.run(["cp", "-al", programs, data_directory], check=True)

    return fill


@pytest.fixture
def filled_directory(data_directory: Path, fill: Callable[[Path], None]) -> Path:
    """A data directory as an earlier start left it."""
    fill(data_directory)
    return data_directory


@pytest.fixture(scope="session")
def postgres_server(scratch: Path, fill: Callable[[Path], None]) -> Iterator[EmbeddedServer]:
    """The server that this pytest process shares among its tests: none of them may stop it."""
    fill(scratch / "shared")
    with serve(scratch / "shared", settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: EmbeddedServer) -> str:
    """The name of a migrated database, to be copied and never to be connected to."""
    name = "template_migrated"
    administer(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE simulations {COPIED}')
    return name


@pytest.fixture(scope="session")
def databases(postgres_server: EmbeddedServer, template_database: str) -> Iterator[Databases]:
    """The migrated databases of this pytest process."""
    databases = Databases(postgres_server, template_database)
    yield databases
    databases.close()


@pytest.fixture
def has_failed(request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Whether the test has failed, for fixtures that hand on what it used."""
    return lambda: bool(request.node.stash.get(FAILED, False))


@pytest.fixture
def database_url(databases: Databases, has_failed: Callable[[], bool]) -> Iterator[str]:
    """The URL of a migrated database with nothing in it."""
    with databases.lend(has_failed) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedServer) -> Iterator[str]:
    """The URL of a fresh database without a table."""
    name = f"test_{next(_numbers)}"
    administer(postgres_server, f'CREATE DATABASE "{name}" {COPIED}')
    yield url_of(postgres_server, name)
    administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, application="test")
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return session_factory(engine)


@pytest.fixture(scope="module")
def lender(databases: Databases, fill: Callable[[Path], None]) -> Iterator[Lender]:
    """The services of a file's tests, each on a database of its own; idle ones would go on taking CPU."""
    from lending import Lender

    lender = Lender(databases.lend, fill)
    yield lender
    lender.close()


@pytest.fixture
def lend(lender: Lender, has_failed: Callable[[], bool]) -> Callable[..., AbstractAsyncContextManager[Service]]:
    """Borrow a service that is up: `async with lend(**settings) as service`."""
    return partial(lender.lend, failed=has_failed)
