"""Default server of a command, which is the one of this data directory on any port; and what a request costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gql.transport.httpx import HTTPXTransport
from typer.testing import CliRunner

from cli.app import app
from cli.errors import ServerUnreachable
from cli.server import DEFAULT_URL, ask, parse_server
from db.embedded.data_directory import find_holder, lock

ROOT = Path(__file__).parents[2]


def test_the_service_of_this_data_directory_is_found_on_any_port(
    server: Any, simulation: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = {"hasNextPage": False, "endCursor": None}
    server.answers["List"] = lambda _: {"simulations": {"nodes": [simulation(name="found")], "pageInfo": end}}
    monkeypatch.delenv("SIMULATIONS_URL", raising=False)
    monkeypatch.setenv("SIMULATIONS_DATA_DIR", str(tmp_path))
    with lock(tmp_path, server.url):
        ran = CliRunner().invoke(app, ["list"])
        assert (ran.exit_code, "found" in ran.stdout) == (0, True), ran.stderr
        assert parse_server("http://elsewhere:1", None).url == "http://elsewhere:1"
        monkeypatch.setenv("SIMULATIONS_LEASE_SECONDS", "no number")  # a setting of the service, of no use to a client
        monkeypatch.setattr("db.embedded.data_directory.default_data_directory", lambda: tmp_path)
        assert parse_server(None, None).url == server.url
    assert parse_server(None, None).url == DEFAULT_URL


def test_a_directory_that_a_killed_service_left_behind_has_no_holder(tmp_path: Path) -> None:
    assert find_holder(tmp_path) is None
    (tmp_path / "lock").write_text('{"pid": 1, "url": "http://localhost:1"}')
    assert find_holder(tmp_path) is None
    (tmp_path / "lock").write_text("")
    with lock(tmp_path, "a migration"):
        holder = find_holder(tmp_path)
        assert holder is not None
        assert holder.url is None


@pytest.mark.parametrize(
    ("url", "reads"),
    [
        ("http://localhost:8000", False), ("HTTP://127.0.0.1:8000", False), ("https://localhost:8000", True),
        ("HTTPS://[::1]:8000", True), ("https://a.example", True), ("http://a.example", True),
    ],
)  # fmt: skip
def test_certificates_are_read_unless_plain_http_on_this_host(
    url: str, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    class Transport(HTTPXTransport):
        def __init__(self, *arguments: Any, verify: object, **options: Any) -> None:
            given.append(verify)
            super().__init__(*arguments, verify=verify, **options)

        def connect(self) -> None:
            raise TimeoutError

    monkeypatch.setattr("cli.server.HTTPXTransport", Transport)
    with pytest.raises(ServerUnreachable):
        ask(parse_server(url, None), "{ __typename }", {})
    assert given == [reads]


def test_a_command_parses_no_document_and_builds_no_model_before_it_needs_one() -> None:
    program = """
import graphql.language.parser
parsed = []
graphql.language.parser.Parser.parse_document = parsed.append
import cli.browse, cli.requests
from cli.answers import Answer
def below(model):
    return [model, *(each for child in model.__subclasses__() for each in below(child))]
print(parsed, [each.__name__ for each in below(Answer) if each.__pydantic_complete__], len(below(Answer)) > 20)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ran.stdout, ran.stderr) == ("[] [] True\n", "")
