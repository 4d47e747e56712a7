"""`simulations token`: create, list and revoke tokens directly in the database (the first token has no API access yet).

The database is the one of the settings, or the embedded one of the data directory, whether the service runs or not.
A token goes only to standard output, or into a file that only its owner can read.
Raises `UsageError`, `StartFailed` without a usable database, and `CommandError` if the database refuses.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

import settings as knobs
from cli import terminal
from cli.arguments import parse_duration
from cli.errors import CommandError, InUse, OutputClosed, OutputFailed, StartFailed, UsageError
from cli.terminal import clean, say, say_age
from db import connection, projects, schema, tokens
from db.embedded import server as embedded
from db.errors import DatabaseError, Refusal
from db.events import Actor
from db.models import Token
from db.states import Role

ACTOR = "command line"
PAGE = 500

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class NewToken:
    """Options of `token create`, as typed."""

    name: str
    role: str
    projects: Sequence[str] = ()
    expires_in: str | None = None
    output: Path | None = None
    if_none: bool = False


def create(wanted: NewToken) -> None:
    """Create a token and deliver it once. No token is created if the output can't be opened."""
    role = _role(wanted.role)
    names = tuple(_name(each, "--project") for each in wanted.projects)
    name = _name(wanted.name, "NAME")
    lifetime = parse_duration(wanted.expires_in) if wanted.expires_in is not None else None

    async def make(session: AsyncSession) -> tuple[Token, str] | None:
        if wanted.if_none and await tokens.any_exists(session):
            return None
        actor = _actor()
        found = [await projects.named(session, each, actor) for each in names]
        scope = frozenset(each.id for each in found) or None
        return await tokens.create(session, name, role, actor, scope=scope, lifetime=lifetime)

    with _place(wanted.output) as put:
        made = _in_database(make, makes=True)
        if made is not None:
            _give_out(made[0], made[1], put)
    if made is None:
        say("There is a token already; no other one was created.")
        return
    where = f"Stored in {wanted.output}" if wanted.output is not None else "Shown only once"
    until = f", until {made[0].expires_at:%Y-%m-%d %H:%M} UTC" if made[0].expires_at is not None else ""
    which = f"the projects {', '.join(map(clean, names))}" if names else "all projects"
    say(f"Created the token {clean(name)}: {role}, for {which}{until}. {where}; every holder has these rights.")
    say("Use it: SIMULATIONS_TOKEN=... or --token-file FILE. Revoke it: simulations token revoke NAME")


def list_all(*, as_json: bool) -> None:
    """Print all tokens, newest first, without their secrets."""

    async def read(session: AsyncSession) -> tuple[list[Token], dict[int, str]]:
        rows: list[Token] = []
        after: str | None = None
        while True:
            page = await tokens.page_all(session, first=PAGE, after=after)
            rows.extend(page.rows)
            if not page.has_next:
                break
            after = page.cursors[-1]
        wanted = {each for row in rows for each in row.project_ids or ()}
        return rows, {row.id: row.name for row in await projects.by_ids(session, wanted)}

    rows, names = _in_database(read)
    now = datetime.now(UTC)
    if as_json:
        terminal.print_json([_as_json(row, names, now) for row in rows])
    elif not rows:
        say("No tokens. Create one: simulations token create NAME --role admin")
    else:
        _print_table(rows, names, now)


def revoke(name: str) -> None:
    """Revoke the token of this name."""

    async def end(session: AsyncSession) -> Token:
        token = await tokens.find_named(session, name)
        if token is None:
            raise CommandError(f"No valid token is called {clean(name)}. See: simulations token list")
        return await tokens.revoke(session, token.id, _actor())

    _in_database(end)
    say(f"{clean(name)} is revoked: requests with it are refused, and connections opened with it are closed.")


# --- options, and delivery of the token ------------------------------------------------------------------------


def _give_out(token: Token, text: str, put: Callable[[str], None]) -> None:
    """Deliver a token; revoke it if the delivery fails."""

    async def end(session: AsyncSession) -> Token:
        return await tokens.revoke(session, token.id, _actor())

    try:
        put(text)
    except (OutputClosed, OutputFailed):
        _in_database(end)
        say(f"{clean(token.name)} was revoked at once: the token could not be delivered.")
        raise


def _role(given: str) -> Role:
    try:
        return Role(given.strip().upper())
    except ValueError:
        expected = ", ".join(role.value.lower() for role in Role)
        raise UsageError(f"--role: expected one of {expected}, got {given!r}") from None


def _name(given: str, option: str) -> str:
    name = given.strip()
    if not 1 <= len(name) <= 200 or clean(name) != name:
        raise UsageError(f"{option}: expected 1 to 200 letters without control characters, got {clean(given)!r}")
    return name


def _actor() -> Actor:
    """Return the actor for the history: the user of this process, at this host."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Actor(ACTOR, f"{user}@{socket.gethostname()}")


@contextmanager
def _place(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Open the output before the token is created; remove the file if no token was written."""
    if path is None:
        yield terminal.print_line
        return
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"--output: {path} exists already, and is not overwritten.") from None
    except OSError as error:
        raise UsageError(f"--output: {path} can't be written: {error.strerror}") from None
    written = False

    def put(text: str) -> None:
        nonlocal written
        try:
            os.write(file, f"{text}\n".encode())
            os.fsync(file)
        except OSError as error:
            raise OutputFailed(f"--output: {path} can't be written: {error.strerror}") from None
        written = True

    try:
        yield put
    finally:
        os.close(file)
        if not written:
            with suppress(OSError):
                path.unlink()


# --- the database ----------------------------------------------------------------------------------------------


def _in_database(action: Callable[[AsyncSession], Awaitable[Result]], *, makes: bool = False) -> Result:
    """Run `action` in one transaction. makes: create the embedded database if it does not exist."""
    try:
        with _database_url(makes=makes) as url:
            return asyncio.run(_run(url, action))
    except embedded.AlreadyRunning as running:
        raise InUse(str(running)) from running
    except (knobs.SettingsError, embedded.EmbeddedError, DatabaseError, schema.SchemaMismatch) as error:
        raise StartFailed(str(error)) from error
    except Refusal as refusal:
        raise CommandError(refusal.message) from refusal
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise StartFailed(f"The database failed: {reason}") from error


@contextmanager
def _database_url(*, makes: bool) -> Iterator[str]:
    settings = knobs.load()
    if settings.database_url is not None:
        yield settings.database_url
        return
    directory = (settings.data_dir or embedded.default_data_directory()).absolute()
    running = embedded.find_url(directory)
    if running is not None:
        yield running
        return
    if not makes and not (directory / "postgres").exists():
        raise StartFailed(
            f"There is no database in {directory} yet. `simulations up` creates it; if it is elsewhere, set "
            "SIMULATIONS_DATA_DIR or DATABASE_URL."
        )
    knobs.configure_logs(settings.model_copy(update={"log_level": "warning"}))  # to stderr: stdout holds only the token
    with embedded.lock(directory, "a command about tokens"), embedded.serve(directory) as server:
        asyncio.run(schema.upgrade(server.url))  # like `up`: this may be the first command ever
        yield server.url


async def _run(url: str, action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    engine = connection.create_engine(url, pool_size=1, application="token")
    try:
        await connection.check_server(engine)
        await schema.require_current(engine)
        async with connection.session_factory(engine)() as session, session.begin():
            return await action(session)
    finally:
        await engine.dispose()


# --- output of tokens ------------------------------------------------------------------------------------------


def _standing(row: Token, now: datetime) -> str:
    if row.revoked_at is not None:
        return "REVOKED"
    return "EXPIRED" if row.expires_at is not None and row.expires_at <= now else "VALID"


def _projects(row: Token, names: dict[int, str]) -> list[str] | None:
    return [names.get(each, str(each)) for each in row.project_ids] if row.project_ids is not None else None


def _as_json(row: Token, names: dict[int, str], now: datetime) -> dict[str, object]:
    moments = {
        "createdAt": row.created_at, "expiresAt": row.expires_at, "revokedAt": row.revoked_at,
        "lastUsedAt": row.last_used_at,
    }  # fmt: skip
    return {
        "name": row.name,
        "standing": _standing(row, now),
        "role": row.role.value,
        "projects": _projects(row, names),
        "createdBy": row.created_by,
        **{name: moment.isoformat() if moment is not None else None for name, moment in moments.items()},
    }


def _print_table(rows: Sequence[Token], names: dict[int, str], now: datetime) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAME", "STANDING", "ROLE", "PROJECTS", "CREATED", "LAST USED", "EXPIRES"):
        table.add_column(title, overflow="fold")
    for row in rows:
        scope = _projects(row, names)
        table.add_row(
            clean(row.name),
            _standing(row, now),
            row.role.value,
            clean(", ".join(scope)) if scope is not None else "all",
            f"{say_age(row.created_at, now)} by {clean(row.created_by)}",
            say_age(row.last_used_at, now) if row.last_used_at is not None else "never",
            f"{row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at is not None else "never",
        )
    terminal.stdout().print(table)
