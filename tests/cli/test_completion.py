"""Shell completion: fixed words, and ids and names from the server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BREAKS = " \t\n\"'@><=;|&(:"  # bash's COMP_WORDBREAKS
PROGRAM = "from cli.__main__ import main; main()"


@pytest.fixture
def complete() -> Callable[..., tuple[int, set[str]]]:
    """Press Tab in bash and return the candidates."""

    def complete(url: str, *words: str) -> tuple[int, set[str]]:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, " ".join(["simulations", *words]), BREAKS],
            env={
                **os.environ, "SIMULATIONS_URL": url, "_SIMULATIONS_COMPLETE": "complete_quoted",
            },
            capture_output=True, text=True, cwd=ROOT, timeout=100, check=False,
        )  # fmt: skip
        assert ran.stderr == ""
        return ran.returncode, set(ran.stdout.split())

    return complete


def test_ids_names_and_words_are_completed(
    server: Any,
    simulation: Callable[..., dict[str, Any]],
    machine: Callable[..., dict[str, Any]],
    complete: Callable[..., tuple[int, set[str]]],
) -> None:
    end = {"hasNextPage": False, "endCursor": None}
    server.answers["List"] = lambda _: {"simulations": {"nodes": [simulation(id="s1")], "pageInfo": end}}
    server.answers["Machines"] = lambda _: {"machines": {"nodes": [machine()], "pageInfo": end}}
    assert complete(server.url, "show", "") == (0, {"last", "s1"})
    assert complete(server.url, "machines", "drain", "b") == (0, {"big"})
    assert complete(server.url, "list", "--state", "f") == (0, {"finished", "failed"})
    assert complete(server.url, "mach") == (0, {"machines"})


def test_an_unreachable_server_gives_no_candidates_and_no_message(
    complete: Callable[..., tuple[int, set[str]]],
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and never listening
        assert complete(f"http://127.0.0.1:{held.getsockname()[1]}", "show", "") == (0, set())
