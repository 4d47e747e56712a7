"""`simulations up`: run the whole service on one machine, until Ctrl-C.

Start order: settings, the data directory and its lock, processes that a killed run left behind, the port, the database
(embedded and migrated, or a given one with a matching schema), then `python -m graph` and `python -m scheduler`. The
shutdown is in reverse order. Simulations continue: their supervisors keep running, and the next start adopts them.

Raises `StartFailed` and its subclasses, with a sentence; exits with 0 on Ctrl-C, SIGTERM and a closed terminal.
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
from db.errors import CONNECTION_FAILURES, DatabaseError, DatabaseUnavailable, was_cut

GRACE_SECONDS = 10.0
READY_POLL_SECONDS = 0.1
STILL_WAITING_SECONDS = 10.0
DATABASE_POLL_SECONDS = 1.0
DATABASE_PAUSE_SECONDS = 5.0
NEW_DATABASE_MIB = 200  # its files, PostgreSQL's programs for its own user, and the first WAL
FULL_MIB = 100
MOST_LOSSES = 5  # of the database server during preparation
DATABASE_FAILURES = (SQLAlchemyError, DatabaseUnavailable, *CONNECTION_FAILURES)
CLOCK_SECONDS = 2.0
ROSTER = "children.json"
NOT_FOR_CHILDREN = frozenset({"SIMULATIONS_TOKEN", "SIMULATIONS_TOKEN_FILE", "SIMULATIONS_DATABASE_PASSWORD_FILE"})

PROGRAMS = (python_module("graph"), python_module("scheduler"))
BUILDER = Path(__file__).resolve().parents[1] / "web" / "build.py"  # in a checkout


class Database(Protocol):
    """The embedded server, as `up` monitors it."""

    def alive(self) -> bool: ...

    def restart(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Data directory and address of this service."""

    data_directory: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        return ports.local_url(self.host, self.port)

    def environment(self, database_url: str) -> dict[str, str]:
        """Make the children's environment: this process's, with the resolved settings.

        The user's SIMULATIONS_TOKEN is removed: it is for commands, and must not show in a process list.
        """
        return {
            **{name: value for name, value in os.environ.items() if name not in NOT_FOR_CHILDREN},
            "DATABASE_URL": database_url,
            "SIMULATIONS_DATA_DIR": str(self.data_directory),
            "HOST": self.host,
            "PORT": str(self.port),
        }


def up(*, builds_pages: bool = False) -> ExitCode:
    """Run the service until a signal. Raises `StartFailed`.

    builds_pages: also build the dashboard if it is missing or older than its sources; in a checkout only.
    """
    if builds_pages and not BUILDER.is_file():
        raise StartFailed("--build works only in a checkout: an installation contains the built dashboard.")
    builder = Program("the build of the dashboard", (sys.executable, str(BUILDER)))
    with Signals() as signals:
        try:
            _up(signals, (builder,) if builds_pages else ())
        except KeyboardInterrupt:
            say("Stopped before the service was ready.")
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
    # Progress is printed here; the log at level info would repeat it.
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
            say("Stopped processes that an earlier, killed run had left behind.")
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
    say("Stopped. Running simulations continue; the next start adopts them.")


@contextmanager
def provide_database(settings: knobs.Settings, place: Place) -> Iterator[tuple[str, Database | None]]:
    """Provide a ready database: its URL, and the server if it is embedded."""
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
    """Prepare a database; if its server dies meanwhile, restart it and repeat the work, a few times.

    work: repeatable. Raises `StartFailed`.
    """
    for losses in range(MOST_LOSSES + 1):
        try:
            work()
            return
        except DATABASE_FAILURES as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0] or type(error).__name__
            # A killed backend breaks all connections, although the server itself continues.
            if server.alive() and not was_cut(error):
                raise StartFailed(f"The database could not be prepared, and nothing was changed: {reason}") from error
            if losses == MOST_LOSSES:
                raise StartFailed(
                    f"The database's server was lost {losses + 1} times while it was prepared: {reason}. "
                    "See postgres.log in the data directory."
                ) from error
            say("The database's server was lost while it was prepared; starting it again.")
            server.restart()


async def _migrate(settings: knobs.Settings, url: str, done: Callable[[], None]) -> None:
    await schema.upgrade(url)
    done()
    await _require_usable(settings, url)


def _require_room(directory: Path, settings: knobs.Settings) -> None:
    """Warn if the disk is nearly full. Raises `StartFailed` if a new database would not fit."""
    free_mib = shutil.disk_usage(directory).free // 2**20
    if settings.database_url is None and not (directory / "postgres").exists() and free_mib < NEW_DATABASE_MIB:
        raise StartFailed(
            f"Only {free_mib} MiB are free in {directory}, and a new database needs {NEW_DATABASE_MIB}: none was "
            "created. Make room, or choose another directory with SIMULATIONS_DATA_DIR."
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
                    f"The database's clock was set back: a heartbeat lies {ahead:.0f} s in the future. Lost "
                    "machines and attempts are detected only after that time. See `simulations doctor`."
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
    """Keep the programs and the database running until a signal, then stop the programs.

    errands: programs that end by themselves and report their own result.
    Raises `StartFailed` if a program can't be started; all have been stopped then, too.
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
            say("Stopping … (Ctrl-C again: stop at once)")
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        killed = await end_all([*children, *once], grace_seconds, hurry)
        roster.clear()
        signals.ignore()  # the clean stop of the database is quick
    if killed:
        say(f"{' and '.join(killed)} did not stop in time and had to be killed.")
    for result in results:
        if isinstance(result, Exception):
            raise result


async def is_ready(url: str) -> bool:
    """Whether the service is ready."""
    try:
        # No proxy of the environment: the service is on this host.
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
    await asyncio.Event().wait()  # tasks of `serve` run until they are cancelled


async def _run_once(child: Child) -> None:
    await child.run_once()
    await asyncio.Event().wait()  # its end does not end the service


async def _keep_database(database: Database) -> None:
    while True:
        await asyncio.sleep(DATABASE_POLL_SECONDS)
        if database.alive():
            continue
        say("The database server has died; restarting it.")
        try:
            # In a thread: recovery may take long, and the children must be monitored meanwhile.
            await asyncio.to_thread(database.restart)
        except embedded.EmbeddedError as error:
            say(f"{error}\nRetrying in {DATABASE_PAUSE_SECONDS:g} s.")
            await asyncio.sleep(DATABASE_PAUSE_SECONDS)
        else:
            say("The database server runs again.")


def announce(place: Place) -> None:
    """Print the address and the next commands."""
    # Commands find the service of the default data directory on any port.
    where = "" if place.data_directory == embedded.default_data_directory() else f" --url {place.url}"
    with suppress(OutputClosed, OutputFailed):
        terminal.print_line(
            f"\nSimulations is ready at {place.url} (GraphiQL at {place.url}/graphql)\n"
            f"  In another terminal:  {own_command()} demo{where}\n"
            f"  To stop:              Ctrl-C; running simulations continue\n"
        )


def own_command() -> str:
    """Return the command that runs this program."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m cli"
    found = called if called.is_absolute() else Path.cwd() / called
    with suppress(ValueError):
        found = found.relative_to(Path.cwd())
    on_path = any(Path(folder) / called.name == called for folder in os.get_exec_path())
    return called.name if on_path else shlex.quote(str(found))
