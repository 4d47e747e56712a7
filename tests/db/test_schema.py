"""The tables through their history: up, down, compared with the models, by two at once, refused when they differ."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import schema
from db.connection import connect_raw, create_engine
from db.models import Base
from db.schema import (
    SchemaMismatch,
    check_unchanged,
    downgrade,
    migrations_directory,
    newest_revision,
    require_current,
    upgrade,
)

ROOT = Path(__file__).resolve().parents[2]
ADVISORY_LOCK = 0x53494D55  # of alembic/env.py

# What PostgreSQL knows of the tables, in its own words. Views are written in migrations only.
CATALOGUE = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
               a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation::text,
               a.attstorage::text
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d
             ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    """,
    "constraints": """
        SELECT t.conrelid::regclass::text, t.conname, t.contype::text, pg_get_constraintdef(t.oid), t.convalidated
        FROM pg_constraint t WHERE t.connamespace = 'public'::regnamespace
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "tables": """
        SELECT c.relname, c.relkind::text, c.reloptions FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S')
    """,
}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await connect_raw(url, application="test")
    try:
        yield connection
    finally:
        await connection.close()


async def catalogue(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """What there is but alembic's own table."""
    async with connected(url) as connection:
        return {
            name: sorted(
                (tuple(row) for row in await connection.fetch(statement) if row[0] != "alembic_version"), key=repr
            )
            for name, statement in CATALOGUE.items()
        }


@pytest.fixture
async def empty_engine(empty_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(empty_database_url, application="test")
    yield engine
    await engine.dispose()


async def test_the_history_goes_up_matches_the_models_goes_down_and_up_again(empty_database_url: str) -> None:
    before = await catalogue(empty_database_url)
    await upgrade(empty_database_url)
    await check_unchanged(empty_database_url)
    migrated = await catalogue(empty_database_url)

    await downgrade(empty_database_url, "base")
    assert await catalogue(empty_database_url) == before

    await upgrade(empty_database_url)
    assert await catalogue(empty_database_url) == migrated
    await check_unchanged(empty_database_url)


async def test_the_check_finds_a_column_that_the_models_do_not_have(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute("ALTER TABLE simulations ADD COLUMN forgotten text")
    with pytest.raises(CommandError):
        await check_unchanged(database_url)


async def test_the_migrated_catalogue_is_that_of_the_models(
    database_url: str, empty_database_url: str, empty_engine: AsyncEngine
) -> None:
    async with empty_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    migrated, modelled = await catalogue(database_url), await catalogue(empty_database_url)
    for name in CATALOGUE:
        assert migrated[name] == modelled[name], name
    assert {row[0] for row in migrated["tables"]} >= set(Base.metadata.tables)
    assert any("CHECK" in row[3] and "QUEUED" in row[3] for row in migrated["constraints"])


async def test_the_default_project_is_there_from_the_first_migration_on(database_url: str) -> None:
    async with connected(database_url) as connection:
        assert await connection.fetchval("SELECT array_agg(name) FROM projects") == ["default"]


async def test_migrating_what_is_current_changes_nothing(database_url: str) -> None:
    before = await catalogue(database_url)
    await upgrade(database_url)
    assert await catalogue(database_url) == before


async def test_of_two_concurrent_upgrades_one_migrates_and_the_other_finds_nothing_to_do(
    empty_database_url: str,
) -> None:
    script = "import asyncio, sys; from db.schema import upgrade; asyncio.run(upgrade(sys.argv[1]))"
    async with connected(empty_database_url) as connection:
        # Both are held at the gate until both are there: then they are let loose at the same moment.
        await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, empty_database_url, cwd=ROOT, stderr=asyncio.subprocess.PIPE
            )
            for _ in range(2)
        ]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (" + (
            "SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        async with asyncio.timeout(60):
            while await connection.fetchval(waiting) < 2:
                assert all(process.returncode is None for process in processes)
                await asyncio.sleep(0.01)
        await connection.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)
        said = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    await check_unchanged(empty_database_url)


async def test_a_migration_gives_up_on_a_locked_table_instead_of_blocking_those_behind_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[str] = []

    def hasty(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> tuple[str, Any]:
        if statement == "SET lock_timeout = '10s'":
            replaced.append(statement)
            return "SET lock_timeout = '50ms'", parameters
        return statement, parameters

    def create_hasty_engine(url: str, **given: Any) -> AsyncEngine:
        engine = create_engine(url, **given)
        event.listen(engine.sync_engine, "before_cursor_execute", hasty, retval=True)
        return engine

    before = await catalogue(database_url)
    async with connected(database_url) as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE convergence IN ACCESS SHARE MODE")  # what a mere SELECT takes
            with monkeypatch.context() as patched:
                patched.setattr(schema, "create_engine", create_hasty_engine)
                with pytest.raises(DBAPIError, match="lock timeout"):
                    await downgrade(database_url, "base")
        assert replaced
        assert await connection.fetchval("SELECT pg_try_advisory_lock($1)", ADVISORY_LOCK), "the gate was left closed"
    assert await catalogue(database_url) == before


# --- refusing what does not match ------------------------------------------------------------------------------


async def test_a_current_schema_is_accepted(engine: AsyncEngine) -> None:
    await require_current(engine)


async def test_a_database_without_tables_is_refused_with_the_command_that_makes_them(
    empty_engine: AsyncEngine,
) -> None:
    with pytest.raises(SchemaMismatch, match=r"no tables.*simulations migrate"):
        await require_current(empty_engine)


async def test_a_database_that_was_migrated_down_counts_as_one_without_tables(
    empty_database_url: str, empty_engine: AsyncEngine
) -> None:
    await upgrade(empty_database_url)
    await downgrade(empty_database_url, "base")
    with pytest.raises(SchemaMismatch, match=r"no tables.*simulations migrate"):
        await require_current(empty_engine)


async def test_an_older_schema_is_refused_with_the_command_that_mends_it(
    engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A history that goes one revision further than the database.
    versions = tmp_path / "versions"
    versions.mkdir()
    for script in (migrations_directory() / "versions").glob("*.py"):
        (versions / script.name).write_text(script.read_text())
    head = await _revision(engine)
    (versions / "9999_next.py").write_text(f'revision = "9999"\ndown_revision = "{head}"\n')
    monkeypatch.setattr(schema, "migrations_directory", lambda: tmp_path)
    with pytest.raises(SchemaMismatch, match=rf"older \({head}\).*\(9999\).*simulations migrate"):
        await require_current(engine)


async def test_a_schema_of_a_newer_version_is_refused_with_what_to_install(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = 'f00'"))
    with pytest.raises(SchemaMismatch, match=r"\(f00\) is unknown.*newer.*[Ii]nstall that version") as caught:
        await require_current(engine)
    assert "simulations migrate" not in str(caught.value)  # it would not help


async def test_a_schema_of_a_newer_version_is_migrated_neither_up_nor_down(
    engine: AsyncEngine, database_url: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = 'f00'"))
    for migration in (upgrade(database_url), downgrade(database_url, "base")):
        with pytest.raises(SchemaMismatch, match=r"\(f00\) is unknown.*newer.*[Ii]nstall that version"):
            await migration
    assert await _revision(engine) == "f00"


async def _revision(engine: AsyncEngine) -> str:
    async with engine.connect() as connection:
        return str(await connection.scalar(text("SELECT version_num FROM alembic_version")))


# --- the rest of the history -----------------------------------------------------------------------------------


async def test_the_view_shows_a_row_per_point(database_url: str) -> None:
    async with connected(database_url) as connection:
        simulation_id = await connection.fetchval(
            "INSERT INTO simulations (project_id, name, entrypoint, created_by) "
            "SELECT id, 's', '{true}', 'user' FROM projects RETURNING id"
        )
        await connection.execute(
            'INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed) '
            "VALUES ($1, 1, 1, 'loss', '{1,3}', '{0.5,NaN}', '{0.1,0.2}'), ($1, 1, 1, 'accuracy', '{1}', '{1}', '{0}')",
            simulation_id,
        )
        shown = await connection.fetch(
            "SELECT simulation_id, attempt, batch, metric, step, value::text, elapsed_seconds "
            "FROM convergence_points ORDER BY metric, step"
        )
    assert [tuple(row) for row in shown] == [
        (simulation_id, 1, 1, "accuracy", 1, "1", 0.0),
        (simulation_id, 1, 1, "loss", 1, "0.5", 0.1),
        (simulation_id, 1, 1, "loss", 3, "NaN", 0.2),
    ]


def test_the_folder_of_migrations_does_not_shadow_the_library() -> None:
    import alembic

    assert alembic.__file__ is not None
    assert ROOT not in (Path(alembic.__file__).parent, *Path(alembic.__file__).parents[:2])
    assert importlib.util.find_spec("alembic.versions") is None


def test_the_history_is_found_beside_the_code() -> None:
    assert migrations_directory() == ROOT / "alembic"


def test_the_newest_revision_is_read_from_the_names_of_the_files() -> None:
    """As alembic finds it, which takes a tenth of a process's start to import."""
    assert newest_revision() == ScriptDirectory(str(migrations_directory())).get_current_head()


def test_what_serves_does_not_import_alembic() -> None:
    program = "import sys, graph.__main__, scheduler.__main__; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
