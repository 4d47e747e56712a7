"""`doctor`: each problem is found and reported with advice, and nothing is changed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from cli import doctor_database
from cli.app import app
from cli.doctor import Level, judge_disk
from db.connection import connect_raw, create_engine
from db.embedded.data_directory import lock
from db.leader import LEADER_LOCK, Leader

ROOT = Path(__file__).parents[2]
ALIVE = "INSERT INTO coverage SELECT role, now(), now() FROM unnest('{graph,scheduler}'::text[]) AS role"

Found = dict[str, list[dict[str, str]]]
Ask = Callable[..., tuple[int, Found]]


@pytest.fixture
def execute(database_url: str) -> Callable[[str], None]:
    """Run statements on the test's database."""

    async def run(statement: str) -> None:
        engine = create_engine(database_url, pool_size=1)
        async with engine.begin() as connection:
            for each in statement.split(";"):
                await connection.execute(text(each))
        await engine.dispose()

    return lambda statement: asyncio.run(run(statement))


@pytest.fixture
def ask(database_url: str, tmp_path: Path) -> Ask:
    """Run `doctor` on the test's database; return the exit code and the findings by check."""

    def ask(**environment: str) -> tuple[int, Found]:
        given = {"DATABASE_URL": database_url, "SIMULATIONS_DATA_DIR": str(tmp_path / "data"), "PORT": "0"}
        ran = CliRunner().invoke(app, ["doctor", "--json"], env={**given, **environment})
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        told = json.loads(ran.stdout)
        assert told["ok"] is (ran.exit_code == 0)
        found: Found = {}
        for finding in told["findings"]:
            found.setdefault(finding["check"], []).append(finding)
        return ran.exit_code, found

    return ask


def only(found: Found, check: str, level: str) -> dict[str, str]:
    [finding] = [each for each in found[check] if each["level"] == level]
    return finding


def test_a_healthy_installation_has_no_finding(ask: Ask, execute: Callable[[str], None], database_url: str) -> None:
    execute(ALIVE)

    async def led() -> tuple[int, Found]:
        leader: Any = await connect_raw(database_url, application="leader")
        await leader.execute("SELECT pg_advisory_lock($1)", LEADER_LOCK)
        try:
            return await asyncio.to_thread(ask)
        finally:
            await leader.close()

    code, found = asyncio.run(led())
    assert code == 0, found
    assert {each["level"] for check in found if check != "machines" for each in found[check]} == {"ok"}, found
    assert "PostgreSQL 18" in only(found, "database", "ok")["sentence"]


def test_no_process_and_no_machine(ask: Ask) -> None:
    code, found = ask()
    assert code == 1
    assert only(found, "graph", "problem")["advice"].startswith("Start one")
    assert only(found, "scheduler", "problem")["sentence"] == "No scheduler plans."
    assert only(found, "machines", "warning")["sentence"] == "There is no machine."


def test_processes_and_a_machine_without_recent_heartbeats(ask: Ask, execute: Callable[[str], None]) -> None:
    execute(
        "INSERT INTO coverage SELECT role, now() - interval '2 h', now() - interval '1 h' "
        "FROM unnest('{graph,scheduler}'::text[]) AS role;"
        "INSERT INTO machines (name, engine, engine_key, cpus, memory_gib, heartbeat_at) "
        "VALUES ('big', 'local', 'k', 1, 1, now() - interval '1 h')"
    )
    code, found = ask()
    assert code == 1
    assert "for 1 h" in only(found, "graph", "problem")["sentence"]
    assert "The machine big has sent no heartbeat for 1 h" in only(found, "machines", "warning")["sentence"]


def test_a_hanging_leader_is_distinguished_from_none(ask: Ask, database_url: str) -> None:
    async def hanging() -> tuple[int, Found]:
        leader: Any = await connect_raw(database_url, application="leader")
        await leader.execute("SELECT pg_advisory_lock($1)", LEADER_LOCK)
        try:
            return await asyncio.to_thread(ask)
        finally:
            await leader.close()

    code, found = asyncio.run(hanging())
    assert code == 1
    assert "The scheduler that leads hangs" in only(found, "scheduler", "problem")["sentence"]


def test_a_clock_that_was_set_back_and_a_queue_that_nothing_fits(ask: Ask, execute: Callable[[str], None]) -> None:
    execute(
        "INSERT INTO coverage VALUES ('graph', now(), now() + interval '5 min'), ('scheduler', now(), now());"
        "INSERT INTO simulations (project_id, name, entrypoint, created_by, queued_at) "
        "VALUES (1, 's', '{true}', 'me', now() - interval '1 h');"
        "INSERT INTO queue_classes SELECT queue_class, 'NO_MACHINE_FITS', 'None fits.' FROM simulations"
    )
    code, found = ask()
    assert code == 1
    assert re.search(r"(4 min 5\d\.?\d* s|5 min) in the future", only(found, "clock", "problem")["sentence"]), found
    assert only(found, "queue", "warning")["sentence"].startswith("1 simulation needs a machine that does not exist")


def test_a_schema_that_is_old_or_missing(ask: Ask, execute: Callable[[str], None], empty_database_url: str) -> None:
    execute("UPDATE alembic_version SET version_num = '0001'")
    code, found = ask()
    assert code == 1
    assert only(found, "schema", "problem")["advice"] == "Stop the service everywhere, then run: simulations migrate"
    assert "graph" not in found
    code, found = ask(DATABASE_URL=empty_database_url)
    assert code == 1
    assert only(found, "schema", "problem")["advice"] == "Run: simulations migrate"


@pytest.mark.parametrize(
    ("environment", "check", "said"),
    [
        ({"DATABASE_URL": "mysql://x"}, "database", "not the URL of a PostgreSQL database"),
        ({"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/x"}, "database", "No PostgreSQL server answers"),
        ({"PORT": "many"}, "settings", "PORT: "),
        ({"SIMULATIONS_LEASE_SECONDS": "0"}, "settings", "SIMULATIONS_LEASE_SECONDS"),
        ({"SIMULATIONS_DATA_DIR": "/dev/null"}, "data directory", "is a file"),
        ({"HOST": "no.such.host.invalid"}, "port", "no address of this machine"),
    ],
)
def test_settings_that_can_not_be_used(ask: Ask, environment: dict[str, str], check: str, said: str) -> None:
    code, found = ask(**environment)
    assert code == 1
    finding = only(found, check, "problem")
    assert said in finding["sentence"]
    assert "secret" not in str(found)


def test_a_data_directory_that_this_user_can_not_make(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # tests may run as root, who may write anywhere
    code, found = ask(SIMULATIONS_DATA_DIR=str(tmp_path / "not" / "there"))
    assert code == 1
    assert f"may create nothing in {tmp_path}." in only(found, "data directory", "problem")["sentence"]


def test_a_taken_port_is_reported_with_its_process(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        _, found = ask(PORT=str(other.getsockname()[1]))
        assert f"pid {os.getpid()}" in only(found, "port", "problem")["sentence"]
        assert "PORT=" in only(found, "port", "problem")["advice"]


def test_the_service_is_checked_at_the_port_in_its_lock(ask: Ask, tmp_path: Path, server: Any) -> None:
    """The service was started with another PORT than this command."""

    async def ready(_: Any) -> JSONResponse:
        return JSONResponse({"status": "ready"})

    server.app.routes.append(Route("/readyz", ready))
    with lock(tmp_path / "data", server.url), socket.create_server(("127.0.0.1", 0)) as other:
        _, found = ask(PORT=str(other.getsockname()[1]))
        assert only(found, "port", "ok")["sentence"] == f"Simulations answers at {server.url}."
    with lock(tmp_path / "data", "http://127.0.0.1:1"):
        _, found = ask()
        assert "does not answer at http://127.0.0.1:1" in only(found, "port", "problem")["sentence"]


def test_a_missing_token_is_a_problem_if_a_login_is_needed(ask: Ask, execute: Callable[[str], None]) -> None:
    execute(ALIVE)
    _, found = ask(SIMULATIONS_PUBLIC_URL="https://sims.example.org")
    assert "simulations token create" in only(found, "login", "problem")["advice"]


def test_an_idle_transaction_is_found(database_url: str) -> None:
    async def look() -> list[tuple[int, str, float]]:
        from db.connection import session_factory
        from db.health_queries import forgotten

        other: Any = await connect_raw(database_url, application="psql")
        await other.execute("BEGIN")
        engine = create_engine(database_url, pool_size=1)
        try:
            async with session_factory(engine)() as session:
                return list(await forgotten(session, timedelta(0)))
        finally:
            await engine.dispose()
            await other.close()

    [(_, application, _)] = asyncio.run(look())
    assert application == "simulations-psql"


def test_nothing_is_changed(ask: Ask, tmp_path: Path) -> None:
    ask()
    assert list(tmp_path.iterdir()) == [], "not even the data directory is created"


def test_judgements() -> None:
    assert judge_disk(Path("/x"), 50, 1000, 5).level is Level.PROBLEM
    assert judge_disk(Path("/x"), 500, 1000, 5).level is Level.WARNING
    assert judge_disk(Path("/x"), 5000, 10_000, 0).level is Level.PROBLEM
    assert judge_disk(Path("/x"), 5000, 10_000, -1).level is Level.OK
    assert doctor_database.judge_clock(1.0)[1] == "ok"
    assert "1 min 13 s behind" in doctor_database.judge_clock(-73)[2]
    assert doctor_database.judge_connections(95, 100)[0][1] == "warning"
    assert doctor_database.judge_connections(10, 100) == []
    lease = timedelta(seconds=30)
    alive = doctor_database.judge_beats({"graph": 1.0, "scheduler": 1.0}, Leader(1, None, 5.0), lease)
    assert [level for _, level, _, _ in alive] == ["ok", "ok"]
    between = doctor_database.judge_beats({"graph": 1.0, "scheduler": 1.0}, None, lease)
    assert [level for _, level, _, _ in between] == ["ok", "ok", "warning"]


def test_text_output_has_a_line_for_each_finding_and_its_advice(database_url: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "cli", "doctor"],
        env={**os.environ, "DATABASE_URL": database_url, "SIMULATIONS_DATA_DIR": str(tmp_path), "PORT": "0"},
        capture_output=True, text=True, cwd=ROOT, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "ok       settings: The settings are valid.\n" in ran.stdout
    assert "PROBLEM  graph: No graph process is alive, so no report can be delivered.\n         Start one" in ran.stdout
    assert ran.stderr == ""
