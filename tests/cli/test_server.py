"""Default server of a command: the one of this data directory, on any port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.server import DEFAULT_URL, parse_server
from db.embedded.data_directory import find_holder, lock


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
