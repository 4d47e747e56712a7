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


def test_metrics_and_tags_are_completed_and_never_what_would_be_an_option(
    server: Any, complete: Callable[..., tuple[int, set[str]]]
) -> None:
    nodes = [
        {"tags": ["sweep", "$(id)", "--url=http://elsewhere", "a\nb"], "metrics": [{"name": "val/loss"}]},
        {"tags": ["sweep", "nightly"], "metrics": [{"name": "val/loss"}, {"name": "-x"}, {"name": "acc"}]},
    ]
    end = {"hasNextPage": False, "endCursor": None}
    server.answers["Words"] = lambda _: {"simulations": {"nodes": nodes, "pageInfo": end}}
    assert complete(server.url, "list", "--tag", "s") == (0, {"sweep"})
    assert complete(server.url, "list", "--tag", "a") == (0, set())
    assert complete(server.url, "list", "--sort", "c") == (0, {"cost", "created"})
    assert complete(server.url, "list", "--sort", "v") == (0, {"val/loss"})
    assert complete(server.url, "watch", "--metric", "") == (0, {"val/loss", "acc"})
