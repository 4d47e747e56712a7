"""Schema version: migrate a database to this code's version, or refuse one that does not match.

The migrations are in `alembic/`. Errors are a `SchemaMismatch` whose message names the command that fixes it. Alembic
is imported only to migrate or to explain a mismatch, not at every start of a process: it and its
templates are a tenth of what graph imports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.connection import create_engine

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory


class SchemaMismatch(Exception):
    """The database's tables are not those of this version; the message says which command mends it."""


def migrations_directory() -> Path:
    """Find the history: `alembic/` beside `db/` in a checkout, `db/migrations` in an installed wheel.

    In this order, because an editable install may keep a stale copy of the second.
    """
    here = Path(__file__).resolve().parent
    for candidate in (here.parent / "alembic", here / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise FileNotFoundError(f"No migrations beside {here}: this installation is damaged, install it again.")


async def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up to `revision`; concurrent callers wait for one another, and the second finds nothing to do.

    Raises `SchemaMismatch`, having changed nothing, where a newer version has been at work.
    """
    from alembic import command

    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision`; data that only newer tables hold is lost."""
    from alembic import command

    await _run(url, lambda config: command.downgrade(config, revision))


async def check_unchanged(url: str) -> None:
    """Raise alembic's `CommandError` where the migrated tables differ from the models."""
    from alembic import command

    await _run(url, command.check)


async def require_current(engine: AsyncEngine) -> None:
    """Raise `SchemaMismatch` unless the database's revision is this code's newest."""
    head = await asyncio.to_thread(newest_revision)
    async with engine.connect() as connection:
        try:
            found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
        except ProgrammingError:
            found = None
    if found == head:
        return
    if found is None:
        raise SchemaMismatch("The database has no tables of Simulations yet. Run: simulations migrate")
    await asyncio.to_thread(_require_known, found)
    raise SchemaMismatch(
        f"The database's schema is older ({found}) than this version of Simulations ({head}). "
        "Stop the service everywhere, then run: simulations migrate"
    )


def newest_revision() -> str:
    """The newest revision of the history: its files are named NNNN_what.py, and NNNN is the revision."""
    return max(path.name.partition("_")[0] for path in (migrations_directory() / "versions").glob("[0-9]*_*.py"))


def _history() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(migrations_directory()))


def _require_known(found: str) -> None:
    script = _history()
    if found not in {revision.revision for revision in script.walk_revisions()}:
        raise SchemaMismatch(
            f"The database's schema ({found}) is unknown to this version of Simulations "
            f"(newest: {script.get_current_head()}): it was migrated by a newer one. Install that version here too."
        )


async def _run(url: str, action: Callable[[Config], None]) -> None:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext

    engine = create_engine(url, pool_size=1, application="migrate")

    def with_connection(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrations_directory()))
        config.attributes["connection"] = connection
        found = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()  # asking has begun a transaction
        if found is not None:
            _require_known(found)
        action(config)

    try:
        async with engine.connect() as connection:
            await connection.run_sync(with_connection)
    finally:
        await engine.dispose()
