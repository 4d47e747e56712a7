"""`cancel`, `delete`, `tag`, `pause`, `resume`: simulations that are named, or chosen by a filter after a question."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parents[2]
VERBS = {"Cancel": "cancelSimulation", "Pause": "pauseSimulation", "Resume": "resumeSimulation",
         "Update": "updateSimulation", "Delete": "deleteSimulation"}  # fmt: skip


@pytest.fixture
def found(server: Any, simulation: Make) -> list[dict[str, Any]]:
    """The simulations that match any filter; the second one refuses every change."""
    waiting = {"reason": "PAUSED", "detail": "It is paused."}
    nodes = [
        simulation(id="s1", number=1, name="one", state="RUNNING"),
        simulation(id="s2", number=2, name="two", state="QUEUED"),
        simulation(id="s3", number=3, name="three", state="QUEUED", waiting=waiting),
    ]
    server.answers["List"] = lambda _: {
        "simulations": {"nodes": nodes, "pageInfo": {"hasNextPage": False, "endCursor": None}}
    }

    def answer(field: str) -> Callable[[Any], Any]:
        def change(variables: Any) -> Any:
            refused = [{"message": "It can't be.", "field": ["id"]}] if variables["input"]["id"] == "s2" else []
            return {field: {"simulation": simulation(id=variables["input"]["id"]), "userErrors": refused}}

        return change

    for name, field in VERBS.items():
        server.answers[name] = answer(field)
    return nodes


def test_a_filter_chooses_as_list_does_and_only_what_the_command_is_for(found: Any, server: Any, run: Run) -> None:
    filters = ["--project", "default", "--where", "lr<1, n=2", "--tag", "a", "--name", "vit*", "--state", "queued"]
    server.answers["Projects"] = lambda _: {
        "projects": {
            "nodes": [
                {"id": "p1", "name": "default", "weight": "1", "gpuQuota": None, "createdAt": "2026-01-01T12:00:00Z"}
            ],
            "pageInfo": {"hasNextPage": False, "endCursor": None},
        }
    }
    run("list", *filters)
    run("cancel", *filters, "--yes")
    listed, cancelled = server.variables("List")
    assert {**cancelled, "first": 0} == {**listed, "first": 0}
    assert listed["states"] == ["QUEUED"]
    assert len(listed["filter"]["parameters"]) == 2
    for command, states in (
        (["cancel"], ["QUEUED", "STARTING", "RUNNING"]),
        (["delete"], ["FINISHED", "FAILED", "CANCELLED"]),
        (["pause"], ["QUEUED"]),
        (["cancel", "--state", "running,failed"], ["RUNNING"]),
    ):
        run(*command, "--user", "ada", "--yes")
        assert server.variables("List")[-1]["states"] == states, command
    refused = run("delete", "--state", "running", "--yes")
    assert refused.exit_code == 2
    assert "delete is for simulations that are finished, failed, cancelled" in refused.stderr


def test_all_that_match_are_changed_what_waits_first_and_refusals_are_named(found: Any, server: Any, run: Run) -> None:
    result = run("cancel", "--user", "ada", "--yes")
    assert [each["input"]["id"] for each in server.variables("Cancel")] == ["s2", "s3", "s1"]
    assert result.exit_code == 6
    assert "#2 two: It can't be." in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_only_paused_ones_are_resumed(found: Any, server: Any, run: Run) -> None:
    assert run("resume", "--user", "ada", "--yes").exit_code == 0
    assert [each["input"]["id"] for each in server.variables("Resume")] == ["s3"]


def test_tags_are_added_and_removed(found: Any, server: Any, run: Run) -> None:
    assert run("tag", "s1", "s3", "--add", "best", "--add", "b", "--remove", "todo").exit_code == 0
    change = {"addTags": ["best", "b"], "removeTags": ["todo"]}
    assert server.variables("Update") == [{"input": {"id": each, **change}} for each in ("s1", "s3")]
    assert run("tag", "--user", "ada", "--add", "x", "--yes").exit_code == 6
    assert len(server.variables("Update")) == 5
    nothing = run("tag", "s1")
    assert nothing.exit_code == 2
    assert "--add TAG or --remove TAG" in nothing.stderr


def test_without_a_terminal_what_would_be_asked_needs_yes(found: Any, server: Any, run: Run, simulation: Make) -> None:
    result = run("cancel", "--user", "ada")
    assert result.exit_code == 2
    assert "3 simulations to cancel. Add --yes" in result.stderr
    server.answers["Details"] = lambda _: {"simulation": None}
    assert run("delete", "s9").exit_code == 6  # there is none
    assert (server.variables("Cancel"), server.variables("Delete")) == ([], [])
    assert run("delete", "s1", "--yes").stdout == "s1 is deleted\n"
    assert run("cancel", "s1").exit_code == 0  # named, it needs no question


def test_what_can_not_be_deleted_is_said_before_the_question(found: Any, server: Any, run: Run, details: Make) -> None:
    states = {"s1": "RUNNING", "s2": "QUEUED", "s3": "FINISHED"}
    server.answers["Details"] = lambda variables: {
        "simulation": details(id=variables["id"], state=states[variables["id"]])
    }
    result = run("delete", "s1", "s2")
    assert (result.exit_code, result.stderr) == (
        6,
        "s1: It is RUNNING: cancel it first, then delete it.\ns2: It is QUEUED: cancel it first, then delete it.\n",
    )
    others = run("delete", "s1", "s3")
    assert others.exit_code == 2
    assert others.stderr.startswith("s1: It is RUNNING: cancel it first")
    assert "1 simulation to delete with curves, logs and files. Add --yes" in others.stderr
    assert server.variables("Delete") == []


@pytest.mark.parametrize("given", [[], ["s1", "--user", "ada"]])
@pytest.mark.parametrize("command", ["cancel", "delete", "pause", "resume", "tag --add x"])
def test_either_simulations_or_a_filter(found: Any, server: Any, run: Run, command: str, given: list[str]) -> None:
    result = run(*command.split(), *given, "--yes")
    assert result.exit_code == 2
    assert "Give the simulations to" in result.stderr
    assert server.asked == []


def test_nothing_that_matches_is_said(server: Any, run: Run) -> None:
    server.answers["List"] = lambda _: {
        "simulations": {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    }
    result = run("cancel", "--user", "ada")
    assert (result.exit_code, result.stderr) == (0, "There is no simulation to cancel among those that match.\n")


@pytest.mark.parametrize(
    ("answer", "code", "changed", "end"),
    [(b"y\n", 6, 3, ""), (b"\n", 6, 0, "Nothing was cancelled."), (b"\x04", 6, 0, "Nothing was cancelled.")],
)
def test_the_question_of_a_terminal_shows_what_is_meant(
    found: Any, server: Any, answer: bytes, code: int, changed: int, end: str
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "cancel", "--user", "ada", "--url", server.url],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer)
    _, said = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code, said
    assert said.startswith("#2  two: QUEUED\n#3  three: QUEUED\n#1  one: RUNNING\nCancel 3 simulations? [y/N] "), said
    assert end in said
    assert len(server.variables("Cancel")) == changed
