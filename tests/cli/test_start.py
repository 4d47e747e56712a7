"""A service that is reachable from other hosts does not start without a token."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import warm
from live import free_port

from db.connection import connect_raw

ROOT = Path(__file__).parents[2]
TEXT = "sim_" + "a1-_" * 11

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[[str], list[tuple[object, ...]]]
Eventually = Callable[..., None]

ELSEWHERE = {
    "HOST=0.0.0.0": {"HOST": "0.0.0.0"},
    "SIMULATIONS_TRUSTED_PROXIES": {"SIMULATIONS_TRUSTED_PROXIES": "127.0.0.1"},
    "SIMULATIONS_PUBLIC_URL": {"SIMULATIONS_PUBLIC_URL": "https://sims.example.org"},
}


@pytest.fixture
def environment_of(database_url: str, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a process on the test's database."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SIMULATIONS_", "PG"))}

    def environment_of(**given: str) -> dict[str, str]:
        return {**plain, "DATABASE_URL": database_url, "SIMULATIONS_DATA_DIR": str(tmp_path), "PORT": "0", **given}

    return environment_of


@pytest.fixture
def run(environment_of: Callable[..., dict[str, str]]) -> Run:
    """Run a module of ours to its end."""

    def run(*arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
        return warm.run(("-m", *arguments), environment=environment_of(**given), directory=ROOT, timeout=100)

    return run


@pytest.fixture
def rows(database_url: str) -> Rows:
    """Read rows of the database."""

    async def select(statement: str) -> list[tuple[object, ...]]:
        connection: asyncpg.Connection[Any] = await connect_raw(database_url, application="test")
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return lambda statement: asyncio.run(select(statement))


@pytest.mark.parametrize(("program", "code"), [(("graph",), 2), (("cli", "up"), 1)], ids=["graph", "up"])
@pytest.mark.parametrize("named", ELSEWHERE)
def test_without_a_token_the_start_is_refused_with_advice(
    run: Run, program: tuple[str, ...], code: int, named: str
) -> None:
    ran = run(*program, **ELSEWHERE[named])
    assert ran.returncode == code
    assert named in ran.stderr
    assert "simulations token create" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_with_a_token_it_starts_and_answers_probes(
    run: Run, environment_of: Callable[..., dict[str, str]], eventually: Eventually
) -> None:
    assert run("cli", "token", "create", "me", "--role", "admin").returncode == 0
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "graph"],
        env=environment_of(HOST="0.0.0.0", PORT=str(port)), cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def is_ready() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", headers={"host": "pod-1"}).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        eventually(is_ready, "it is ready")
        refused = httpx.get(f"http://127.0.0.1:{port}/", headers={"host": "pod-1"}, timeout=60)
        assert refused.status_code == 421
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_token_of_a_file_is_an_admins_and_the_one_it_held_before_is_revoked(
    run: Run, rows: Rows, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    for text in (TEXT, TEXT, TEXT + "b"):
        file.write_text(text + "\n")
        # On a port that is taken it starts as far as that.
        with socket.create_server(("127.0.0.1", 0)) as other:
            ran = run("graph", SIMULATIONS_ADMIN_TOKEN_FILE=str(file), HOST="127.0.0.1",
                      SIMULATIONS_TRUSTED_PROXIES="127.0.0.1", PORT=str(other.getsockname()[1]))  # fmt: skip
        assert ran.returncode not in (0, 2), ran.stderr
        assert text not in ran.stderr
    assert rows("SELECT name, role, revoked_at IS NOT NULL FROM tokens ORDER BY id") == [
        ("admin token file", "ADMIN", True), ("admin token file", "ADMIN", False),
    ]  # fmt: skip
    assert rows("SELECT kind, actor FROM events WHERE object_type = 'Token' ORDER BY id") == [
        ("CREATED", "settings"), ("REVOKED", "settings"), ("CREATED", "settings"),
    ]  # fmt: skip
    file.write_text(TEXT)
    ran = run("graph", SIMULATIONS_ADMIN_TOKEN_FILE=str(file))
    assert ran.returncode == 2
    assert "revoked" in ran.stderr
    assert TEXT not in ran.stderr


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (TEXT, 0o640, "chmod 600"),
        (TEXT, 0o604, "chmod 600"),
        ("hunter2", 0o600, "expected one token"),
        ("sim_short", 0o600, "expected one token"),
        (f"{TEXT} {TEXT}", 0o600, "expected one token"),
        (None, 0o600, "can't be read"),
    ],
)
def test_an_invalid_token_file_is_reported_and_not_quoted(
    run: Run, tmp_path: Path, text: str | None, mode: int, said: str
) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    ran = run("graph", SIMULATIONS_ADMIN_TOKEN_FILE=str(file))
    assert ran.returncode == 2
    assert said in ran.stderr
    assert text is None or text not in ran.stderr


def test_compose_creates_one_admin_token_and_prints_its_place_at_every_start(
    environment_of: Callable[..., dict[str, str]], rows: Rows, tmp_path: Path
) -> None:
    """The script of `migrate`, as it stands in docker-compose.yml, with the command and the volume of here."""
    compose = (ROOT / "docker-compose.yml").read_text()
    assert "INSECURE" not in compose
    found = re.search(r"\n  migrate:\n(?:    .*\n)*? +- \|\n((?: {8}.*\n)+)", compose)
    assert found is not None
    volume, commands = tmp_path / "admin", tmp_path / "bin"
    volume.mkdir()
    commands.mkdir()
    command = commands / "simulations"
    command.write_text(f'#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -m cli "$@"\n')
    command.chmod(0o755)
    script = found[1].replace("$$", "$").replace("/var/lib/simulations-admin", str(volume))

    def start() -> str:
        environment = environment_of(PATH=f"{commands}:{os.environ['PATH']}", HOST="0.0.0.0")
        ran = subprocess.run(
            ["sh", "-euc", script], env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    told = [start(), start()]
    token = volume / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert all(f"docker compose exec graph cat {token}" in each for each in told)
    assert not any(token.read_text().strip() in each for each in told)
    assert rows("SELECT name, role FROM tokens") == [("compose", "ADMIN")]
    token.unlink()
    assert "cat" not in start(), "the token was moved elsewhere: no other one is created"
    assert rows("SELECT name FROM tokens") == [("compose",)]
    token.touch()  # killed when the database had it, and the file had not
    assert f"cat {token}" in start()
    assert token.read_text().startswith("sim_")
    assert rows("SELECT name, revoked_at IS NULL FROM tokens ORDER BY id") == [("compose", False), ("compose", True)]
