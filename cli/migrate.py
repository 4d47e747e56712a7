"""`simulations migrate`: migrate the given or the embedded database to this version.

Raises `StartFailed` with the cause as a sentence.
"""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import SQLAlchemyError

import settings as knobs
from cli.errors import ExitCode, StartFailed
from cli.progress import progress
from cli.terminal import say
from db import connection, schema
from db.embedded import server as embedded
from db.errors import DatabaseError


def migrate() -> ExitCode:
    """Migrate the database. Raises `StartFailed`."""
    try:
        settings = knobs.load()
        if settings.database_url is not None:
            with progress("Migrating the database"):
                asyncio.run(_migrate(settings.database_url))
        elif not _migrate_embedded(settings):
            return ExitCode.OK
    except (
        knobs.SettingsError,
        embedded.EmbeddedError,
        DatabaseError,
        schema.SchemaMismatch,
    ) as error:
        raise StartFailed(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise StartFailed(f"The migration failed, and nothing was changed: {reason}") from error
    say("The database's tables are those of this version.")
    return ExitCode.OK


async def _migrate(url: str) -> None:
    engine = connection.create_engine(url, pool_size=1, application="migrate")
    try:
        await connection.check_server(engine)
    finally:
        await engine.dispose()
    await schema.upgrade(url)


def _migrate_embedded(settings: knobs.Settings) -> bool:
    directory = (settings.data_dir or embedded.default_data_directory()).absolute()
    try:
        with (
            embedded.lock(directory, "a migration"),
            progress(f"Migrating the database in {directory}"),
            embedded.serve(directory) as server,
        ):
            asyncio.run(schema.upgrade(server.url))
    except embedded.AlreadyRunning as running:
        where = f" at {running.url}" if running.url else ""
        say(f"Simulations runs{where} on {directory}, and migrated its database when it started.")
        return False
    return True
