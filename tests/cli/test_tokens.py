"""`simulations token`: created in the database, shown once, and sent by every command that uses a server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import warm
from typer.testing import CliRunner, Result

from cli.app import app
from db import tokens
from db.connection import connect_raw, create_engine, session_factory
from db.embedded import server as embedded
from db.models import Token

Run = Callable[..., Result]

TOKEN = re.compile(r"sim_[A-Za-z0-9_-]{43}")


@pytest.fixture
def token(database_url: str) -> Run:
    """Run `simulations token ...` on a migrated database."""

    def token(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, ["token", *arguments], env={"DATABASE_URL": database_url, **environment})

    return token


def found(url: str, text: str) -> Token | None:
    """Find the token for a secret."""

    async def find() -> Token | None:
        engine = create_engine(url, pool_size=1, application="test")
        try:
            async with session_factory(engine)() as session:
                return await tokens.find(session, text)
        finally:
            await engine.dispose()

    return asyncio.run(find())


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    async def select() -> list[tuple[Any, ...]]:
        connection: asyncpg.Connection[Any] = await connect_raw(url, application="test")
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(select())


def test_the_first_admin_token_is_printed_once_and_nothing_else_is_on_stdout(token: Run, database_url: str) -> None:
    made = token("create", "me", "--role", "admin")
    assert made.exit_code == 0, made.stderr
    text = made.stdout.strip()
    assert TOKEN.fullmatch(text)
    assert "Created the token me: ADMIN, for all projects" in made.stderr
    assert text not in made.stderr
    row = found(database_url, text)
    assert row is not None
    assert (row.name, row.role, row.project_ids, row.expires_at) == ("me", "ADMIN", None, None)
    ((kind, actor, origin),) = rows(database_url, "SELECT kind, actor, origin FROM events WHERE object_type = 'Token'")
    assert (kind, actor) == ("CREATED", "command line")
    assert "@" in origin


def test_a_token_is_for_the_projects_and_the_time_that_are_named(token: Run, database_url: str) -> None:
    made = token(
        "create", "ci", "--role", "Operator", "--project", "vision", "--project", "default", "--expires-in", "30d"
    )
    assert made.exit_code == 0, made.stderr
    assert "for the projects vision, default, until " in made.stderr
    row = found(database_url, made.stdout.strip())
    assert row is not None
    projects = dict(rows(database_url, "SELECT id, name FROM projects"))
    assert sorted(projects[each] for each in row.project_ids or ()) == ["default", "vision"]
    assert row.expires_at is not None
    assert abs(row.expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(hours=1)


def test_a_file_gets_the_token_for_its_owner_only_and_stdout_nothing(
    token: Run, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    made = token("create", "me", "--role", "admin", "--output", str(path))
    assert made.exit_code == 0, made.stderr
    assert made.stdout == ""
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(path) in made.stderr
    assert path.read_text().strip() not in made.stderr
    assert found(database_url, path.read_text().strip()) is not None


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere", "no directory"])
def test_nothing_is_overwritten_and_no_token_is_made_for_nowhere(
    token: Run, database_url: str, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "token"
    if kind == "a file":
        path.write_text("precious")
    elif kind == "a link to nowhere":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path = tmp_path / "missing" / "token"
    made = token("create", "me", "--role", "admin", "--output", str(path))
    assert made.exit_code == 2
    assert "--output" in made.stderr
    assert not (tmp_path / "elsewhere").exists()
    assert kind != "a file" or path.read_text() == "precious"
    assert rows(database_url, "SELECT name FROM tokens") == []


def test_a_file_in_which_no_token_was_put_is_taken_away_again(token: Run, tmp_path: Path) -> None:
    assert token("create", "me", "--role", "admin").exit_code == 0
    path = tmp_path / "token"
    refused = token("create", "me", "--role", "admin", "--output", str(path))
    assert refused.exit_code == 6
    assert "Another token is called 'me'" in refused.stderr
    assert not path.exists()


@pytest.mark.parametrize("where", ["standard output", "a file"])
def test_a_token_that_can_not_be_written_is_revoked(database_url: str, tmp_path: Path, where: str) -> None:
    path = tmp_path / "token"
    output = ["--output", str(path)] if where == "a file" else []

    def leave_no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    with Path("/dev/full").open("w") as full:
        made = subprocess.run(
            [sys.executable, "-m", "cli", "token", "create", "me", "--role", "admin", *output],
            env={**os.environ, "DATABASE_URL": database_url}, stdout=full, stderr=subprocess.PIPE, text=True,
            preexec_fn=leave_no_room, timeout=100, check=False,
        )  # fmt: skip
    assert made.returncode == 6
    assert "can't be written" in made.stderr
    assert "me was revoked at once" in made.stderr
    assert "Traceback" not in made.stderr
    assert not path.exists()
    assert rows(database_url, "SELECT name FROM tokens WHERE revoked_at IS NULL") == []


def test_with_if_none_a_second_token_is_not_made(token: Run, tmp_path: Path, database_url: str) -> None:
    path = tmp_path / "token"
    wanted = ("create", "me", "--role", "admin", "--if-none", "--output", str(path))
    assert token(*wanted).exit_code == 0
    kept = path.read_text()
    path.rename(tmp_path / "kept")
    again = token(*wanted)
    assert again.exit_code == 0
    assert "There is a token already" in again.stderr
    assert not path.exists()
    assert found(database_url, kept.strip()) is not None


BAD = {
    "no role": (["me"], "--role"),
    "an unknown role": (["me", "--role", "root"], "--role: expected one of viewer, operator, admin"),
    "an empty name": ([" ", "--role", "admin"], "NAME: expected 1 to 200 letters"),
    "a name that draws": (["\x1b[2J", "--role", "admin"], "NAME: expected"),
    "a bad project": (["me", "--role", "admin", "--project", "a\nb"], "--project: expected"),
    "a bad duration": (["me", "--role", "admin", "--expires-in", "soon"], "expected a duration"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_invalid_options_are_reported_and_create_no_token(
    token: Run, database_url: str, arguments: list[str], said: str
) -> None:
    made = token("create", *arguments)
    assert made.exit_code == 2
    assert said in made.stderr
    assert "\x1b[2J" not in made.stderr
    assert rows(database_url, "SELECT name FROM tokens") == []


def test_a_revoked_token_is_refused_and_the_list_shows_the_state_of_each(token: Run, database_url: str) -> None:
    assert token("list").stderr.startswith("No tokens.")
    texts = {
        name: token("create", name, "--role", "viewer", "--project", "default").stdout.strip()
        for name in ("old", "good", "late")
    }
    rows(database_url, "UPDATE tokens SET expires_at = now() WHERE name = 'late'")
    revoked = token("revoke", "old")
    assert revoked.exit_code == 0, revoked.stderr
    assert found(database_url, texts["old"]) is None
    assert token("revoke", "old").exit_code == 6
    assert "No valid token is called unknown" in token("revoke", "unknown").stderr

    shown = token("list").stdout
    listed = {line.split()[0]: line.split()[1:4] for line in shown.splitlines()[1:]}
    assert listed == {
        "late": ["EXPIRED", "VIEWER", "default"],
        "good": ["VALID", "VIEWER", "default"],
        "old": ["REVOKED", "VIEWER", "default"],
    }
    as_json = token("list", "--json").stdout
    assert [(each["name"], each["standing"], each["projects"]) for each in json.loads(as_json)] == [
        ("late", "EXPIRED", ["default"]), ("good", "VALID", ["default"]), ("old", "REVOKED", ["default"]),
    ]  # fmt: skip
    assert not any(text in shown + as_json for text in texts.values())


def test_a_database_that_was_not_migrated_is_a_sentence(token: Run, empty_database_url: str) -> None:
    made = token("create", "me", "--role", "admin", DATABASE_URL=empty_database_url)
    assert made.exit_code == 1
    assert "simulations migrate" in made.stderr
    assert made.stdout == ""


def test_a_database_that_is_not_there_is_a_sentence_without_its_password(token: Run) -> None:
    made = token("list", DATABASE_URL="postgresql://u:secret@127.0.0.1:1/x")
    assert made.exit_code == 1
    assert "No PostgreSQL server answers" in made.stderr
    assert "secret" not in made.stderr


def test_the_embedded_database_is_used_whether_it_runs_or_not(data_directory: Path) -> None:
    environment = {**os.environ, "SIMULATIONS_DATA_DIR": str(data_directory)}

    def token(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = ("-m", "cli", "token", *arguments)
        return warm.run(words, environment=environment, directory=Path.cwd(), timeout=100)

    for looking in (("list",), ("revoke", "first")):
        nothing = token(*looking)
        assert nothing.returncode == 1
        assert f"There is no database in {data_directory} yet." in nothing.stderr
        assert not (data_directory / "postgres").exists()
    made = token("create", "first", "--role", "admin")  # the first command ever: creates the database too
    assert made.returncode == 0, made.stderr
    assert TOKEN.fullmatch(made.stdout.strip()), "nothing else may be on stdout"
    assert embedded.find_url(data_directory) is None
    with embedded.lock(data_directory, "http://localhost:1234"):
        starting = token("list")
        assert starting.returncode == 3
        assert "already running at http://localhost:1234" in starting.stderr
        with embedded.serve(data_directory) as server:
            assert token("create", "second", "--role", "viewer").returncode == 0
            assert found(server.url, made.stdout.strip()) is not None
            assert [each["name"] for each in json.loads(token("list", "--json").stdout)] == ["second", "first"]


# --- tokens of commands that talk to a server ------------------------------------------------------------------


@pytest.fixture
def listing(server: Any) -> Any:
    server.answers["List"] = lambda _: {
        "simulations": {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    }
    return server


@pytest.mark.parametrize("how", ["option", "variable", "both"])
def test_a_token_out_of_a_file_is_sent_as_a_bearer(listing: Any, run: Run, tmp_path: Path, how: str) -> None:
    path = tmp_path / "token"
    path.write_text("of-the-file\n")
    environment = {"option": {}, "variable": {"SIMULATIONS_TOKEN_FILE": str(path)}, "both": {"SIMULATIONS_TOKEN": "x"}}
    arguments = ["list"] if how == "variable" else ["list", "--token-file", str(path)]
    assert run(*arguments, env=environment[how]).exit_code == 0
    assert listing.headers[-1]["authorization"] == "Bearer of-the-file"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read: No such file"), ("", "is empty"), ("ä", "can't be read"), ("a\nb", "line breaks")],
)
def test_a_file_without_a_token_is_reported_before_any_request(
    listing: Any, run: Run, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    result = run("list", "--token-file", str(path))
    assert result.exit_code == 2
    assert said in result.stderr
    assert listing.headers == []
