"""`simulations up`: the whole service on one machine, until Ctrl-C.

In order: settings, the data directory and its lock, whatever a killed run left behind, the port, the database (its own
embedded one, migrated; or a given one, which must match), then `python -m graph` and `python -m scheduler`. Backwards
at the end. Simulations are not among the things it ends: their supervisors run on, and the next start picks them up.

Fails with `StartFailed` and its kinds, a sentence each; ends with 0 on Ctrl-C, SIGTERM and a closed terminal.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
from asyncpg.exceptions import (
    InterfaceError,
    InternalClientError,
    OperatorInterventionError,
    PostgresConnectionError,
    PostgresError,
)
from sqlalchemy.exc import SQLAlchemyError

import settings as knobs
from cli import ports, terminal
from cli.children import Child, Program, Roster, end_all, python_module
from cli.errors import ExitCode, InUse, OutputClosed, OutputFailed, StartFailed
from cli.progress import progress
from cli.signals import Signals
from cli.terminal import say
from db import connection, health_queries, require_admin_token, schema
from db.embedded import server as embedded
from db.errors import DatabaseError, DatabaseUnavailable

GRACE_SECONDS = 10.0
READY_POLL_SECONDS = 0.1
STILL_WAITING_SECONDS = 10.0
DATABASE_POLL_SECONDS = 1.0
DATABASE_PAUSE_SECONDS = 5.0
NEW_DATABASE_MIB = 200  # its files, PostgreSQL's programs for a user of its own, and the first log of changes
FULL_MIB = 100
MOST_LOSSES = 5  # of the database's server while it is prepared
# What a connection raises that was cut in the middle of something: asyncpg's own state is broken then, too.
CUT = (OSError, DatabaseUnavailable, InterfaceError, InternalClientError, PostgresConnectionError,
       OperatorInterventionError)  # fmt: skip
DATABASE_FAILURES = (SQLAlchemyError, PostgresError, *CUT)
CLOCK_SECONDS = 2.0
ROSTER = "children.json"
NOT_FOR_CHILDREN = frozenset({"SIMULATIONS_TOKEN", "SIMULATIONS_TOKEN_FILE", "SIMULATIONS_DATABASE_PASSWORD_FILE"})

PROGRAMS = (python_module("graph"), python_module("scheduler"))
BUILDER = Path(__file__).resolve().parents[1] / "web" / "build.py"  # in a checkout


class Database(Protocol):
    """The embedded server, as far as `up` watches over it."""

    def alive(self) -> bool: ...

    def restart(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where this service lives and listens."""

    data_directory: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        return ports.local_url(self.host, self.port)

    def environment(self, database_url: str) -> dict[str, str]:
        """Make the children's environment: ours, handed on, with what was found out here.

        Without the token of who started it: that is for commands, and nobody needs to find it in a process list.
        """
        return {
            **{name: value for name, value in os.environ.items() if name not in NOT_FOR_CHILDREN},
            "DATABASE_URL": database_url,
            "SIMULATIONS_DATA_DIR": str(self.data_directory),
            "HOST": self.host,
            "PORT": str(self.port),
        }


def up(*, builds_pages: bool = False) -> ExitCode:
    """Run the service until a signal ends it. Raises `StartFailed`.

    builds_pages: the dashboard's, beside it, if they are missing or older than their sources; in a checkout only.
    """
    if builds_pages and not BUILDER.is_file():
        raise StartFailed("--build is for a checkout: what is installed has its pages built.")
    builder = Program("the build of the dashboard", (sys.executable, str(BUILDER)))
    with Signals() as signals:
        try:
            _up(signals, (builder,) if builds_pages else ())
        except KeyboardInterrupt:
            say("Stopped before it was ready.")
        except knobs.SettingsError as error:
            raise StartFailed(str(error)) from error
        except embedded.AlreadyRunning as error:
            raise InUse(str(error)) from error
        except (
            embedded.EmbeddedError,
            DatabaseError,
            schema.SchemaMismatch,
            require_admin_token.NoWayIn,
        ) as error:
            raise StartFailed(str(error)) from error
    return ExitCode.OK


def _up(signals: Signals, errands: Sequence[Program]) -> None:
    settings = knobs.load()
    # What goes well is told in sentences here; at the level of information the log would tell it a second time.
    quiet = settings.model_copy(update={"log_level": "warning"}) if settings.log_level == "info" else settings
    knobs.configure_logs(quiet)
    place = Place(
        (settings.data_dir or embedded.default_data_directory()).absolute(),
        settings.host,
        ports.choose_port(settings.host, settings.port),
    )
    with embedded.lock(place.data_directory, place.url):
        _require_room(place.data_directory, settings)
        roster = Roster(place.data_directory / ROSTER)
        if roster.end_leftovers():
            say("Ended what an earlier run, which was killed, had left behind.")
        ports.require_free(place.host, place.port)
        with provide_database(settings, place) as (database_url, database):
            say(f"Starting {' and '.join(program.name for program in PROGRAMS)} …")
            asyncio.run(
                serve(
                    PROGRAMS,
                    place.environment(database_url),
                    ready=lambda: is_ready(ports.probe_url(place.host, place.port)),
                    announce=lambda: announce(place),
                    database=database,
                    roster=roster,
                    signals=signals,
                    errands=errands,
                )
            )
    say("Stopped. Simulations that run go on; start again to pick them up.")


@contextmanager
def provide_database(settings: knobs.Settings, place: Place) -> Iterator[tuple[str, Database | None]]:
    """Provide a database that is ready to use: its URL, and the server if it is ours to watch."""
    if settings.database_url is not None:
        asyncio.run(_require_usable(settings, settings.database_url))
        yield settings.database_url, None
        return
    first = not (place.data_directory / "postgres").exists()
    sentence = f"{'Creating' if first else 'Starting'} the database in {place.data_directory}"
    with progress(sentence) as step, embedded.serve(place.data_directory) as server:
        prepare(server, lambda: asyncio.run(_migrate(settings, server.url, step.done)))
        yield server.url, server


def prepare(server: Database, work: Callable[[], None]) -> None:
    """Do what has to be done on a database; where its server dies meanwhile, start it and do it again, a few times.

    work: may be repeated. Raises `StartFailed`.
    """
    for losses in range(MOST_LOSSES + 1):
        try:
            work()
            return
        except DATABASE_FAILURES as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0] or type(error).__name__
            # A process of the server that is killed breaks all connections while the server itself lives on.
            if server.alive() and not _was_cut(error):
                raise StartFailed(f"The database could not be prepared, and nothing was changed: {reason}") from error
            if losses == MOST_LOSSES:
                raise StartFailed(
                    f"The database's server was lost {losses + 1} times while it was prepared: {reason}. "
                    "postgres.log in the data directory has its last words."
                ) from error
            say("The database's server was lost while it was prepared; starting it again.")
            server.restart()


def _was_cut(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, CUT) or _was_cut(error.__cause__))


async def _migrate(settings: knobs.Settings, url: str, done: Callable[[], None]) -> None:
    await schema.upgrade(url)
    done()
    await _require_usable(settings, url)


def _require_room(directory: Path, settings: knobs.Settings) -> None:
    """Say that the disk is nearly full; make no database where it would not fit. Raises `StartFailed`."""
    free_mib = shutil.disk_usage(directory).free // 2**20
    if settings.database_url is None and not (directory / "postgres").exists() and free_mib < NEW_DATABASE_MIB:
        raise StartFailed(
            f"Only {free_mib} MiB are free in {directory}, and a new database needs {NEW_DATABASE_MIB}: none was "
            "made. Make room, or choose another directory with SIMULATIONS_DATA_DIR."
        )
    if free_mib < FULL_MIB:
        say(f"Only {free_mib} MiB are free in {directory}: make room before the database stops, and logs are lost.")


async def _require_usable(settings: knobs.Settings, url: str) -> None:
    engine = connection.create_engine(url, pool_size=1, application="up")
    try:
        await connection.check_server(engine)
        await schema.require_current(engine)
        async with connection.session_factory(engine)() as session, session.begin():
            ahead = await health_queries.from_the_future(session)
            if ahead > CLOCK_SECONDS:
                say(
                    f"The database's clock was set back: a heartbeat lies {ahead:.0f} s in the future. Silence is "
                    "noticed only when that time has come. `simulations doctor` says more."
                )
            await require_admin_token.require(session, settings.read_admin_token(), why=settings.why_login)
    finally:
        await engine.dispose()


async def serve(
    programs: Sequence[Program],
    environment: Mapping[str, str],
    *,
    ready: Callable[[], Awaitable[bool]],
    announce: Callable[[], None],
    roster: Roster,
    signals: Signals,
    database: Database | None = None,
    errands: Sequence[Program] = (),
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Keep the programs and the database running until a signal comes, then end the programs.

    errands: programs that end by themselves, which say themselves how that went.
    Raises `StartFailed` when one of them can't be kept running; all have ended then, too.
    """
    stop, hurry = signals.as_events(asyncio.get_running_loop())
    children = [Child(program, environment, roster) for program in programs]
    once = [Child(program, environment, roster) for program in errands]
    stopped = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(child.keep_running(say)) for child in children]
    tasks += [asyncio.create_task(_run_once(child)) for child in once]
    tasks.append(asyncio.create_task(_announce_when_ready(children, ready, announce)))
    if database is not None:
        tasks.append(asyncio.create_task(_keep_database(database)))
    try:
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            say("Stopping … (Ctrl-C again: at once)")
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        killed = await end_all([*children, *once], grace_seconds, hurry)
        roster.clear()
        signals.ignore()  # what is left to do, the database's clean stop, is quick and worth it
    if killed:
        say(f"{' and '.join(killed)} did not stop in time and had to be killed.")
    for result in results:
        if isinstance(result, Exception):
            raise result


async def is_ready(url: str) -> bool:
    """Ask the service whether it is ready to be used."""
    try:
        # Nothing of the environment's proxies: it is on this host.
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return (await client.get(f"{url}/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


async def _announce_when_ready(
    children: Sequence[Child], ready: Callable[[], Awaitable[bool]], announce: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    told = loop.time()
    while not (await ready() and all(child.is_running for child in children)):
        if loop.time() - told > STILL_WAITING_SECONDS:
            told = loop.time()
            say("Not ready yet; still waiting …")
        await asyncio.sleep(READY_POLL_SECONDS)
    announce()
    await asyncio.Event().wait()  # all that `serve` watches goes on until it is cancelled


async def _run_once(child: Child) -> None:
    await child.run_once()
    await asyncio.Event().wait()  # nothing ends because it has ended


async def _keep_database(database: Database) -> None:
    while True:
        await asyncio.sleep(DATABASE_POLL_SECONDS)
        if database.alive():
            continue
        say("The database's server is gone; starting it again.")
        try:
            # In a thread, because recovery may take its time and the children need watching meanwhile.
            await asyncio.to_thread(database.restart)
        except embedded.EmbeddedError as error:
            say(f"{error}\nTrying again in {DATABASE_PAUSE_SECONDS:g} s.")
            await asyncio.sleep(DATABASE_PAUSE_SECONDS)
        else:
            say("The database's server runs again.")


def announce(place: Place) -> None:
    """Say where it is, and what to do with it."""
    # The command line finds the service of the usual data directory by itself, on any port.
    where = "" if place.data_directory == embedded.default_data_directory() else f" --url {place.url}"
    with suppress(OutputClosed, OutputFailed):
        terminal.print_line(
            f"\nSimulations is ready at {place.url} (GraphiQL at {place.url}/graphql)\n"
            f"  In another terminal:  {own_command()} demo{where}\n"
            f"  To stop:              Ctrl-C; simulations that run go on\n"
        )


def own_command() -> str:
    """Say how this very program is called from here."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m cli"
    found = called if called.is_absolute() else Path.cwd() / called
    with suppress(ValueError):
        found = found.relative_to(Path.cwd())
    on_path = any(Path(folder) / called.name == called for folder in os.get_exec_path())
    return called.name if on_path else shlex.quote(str(found))
