"""Several simulations in one file, `--after`, notes, `pause` and `resume`, drains with a deadline."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cli.arguments import parse_deadline
from cli.errors import UsageError
from cli.submission_file import read_submissions

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]

LIST = """
- name: prep
  entrypoint: [prep]
  client_key: prep
- name: train
  entrypoint: [train]
  notes: |
    second
    line
  after: ["U2ltdWxhdGlvbjo5:any", {client_key: prep}, {index: 0, condition: failure}]
"""
DOCUMENTS = "name: prep\nentrypoint: [prep]\n---\nname: train\nentrypoint: [train]\n---\n"


@pytest.fixture
def accepting(server: Any, simulation: Make) -> Any:
    """A server that accepts every submission."""
    made = [simulation(id=f"s{number}", state="QUEUED", machine=None) for number in range(2)]
    server.answers["CreateAll"] = lambda _: {"createSimulations": {"simulations": made, "userErrors": []}}
    server.answers["Create"] = lambda _: {"createSimulation": {"simulation": made[0], "userErrors": []}}
    for name, field in (("Pause", "pauseSimulation"), ("Resume", "resumeSimulation")):
        server.answers[name] = lambda _, field=field: {field: {"simulation": made[0], "userErrors": []}}
    return server


@pytest.fixture
def order(tmp_path: Path) -> Callable[[str], str]:
    def order(text: str) -> str:
        (tmp_path / "order.yaml").write_text(text)
        return str(tmp_path / "order.yaml")

    return order


@pytest.mark.parametrize("text", [LIST, DOCUMENTS])
def test_a_list_and_several_documents_are_submitted_together(
    accepting: Any, run: Run, order: Callable[[str], str], text: str
) -> None:
    result = run("submit", "--file", order(text), "--tag", "night", "--client-key", "all")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "s0\ns1\n"
    (sent,) = accepting.variables("CreateAll")
    assert sent["input"]["clientKey"] == "all"
    found = sent["input"]["simulations"]
    assert [(each["name"], each["tags"]) for each in found] == [("prep", ["night"]), ("train", ["night"])]
    if text == LIST:
        assert found[1]["after"] == [
            {"simulation": "U2ltdWxhdGlvbjo5", "condition": "ANY"},
            {"clientKey": "prep"},
            {"index": 0, "condition": "FAILURE"},
        ]
        assert found[1]["notes"] == "second\nline\n"
    as_json = run("submit", "--file", order(text), "--json")
    assert [each["id"] for each in json.loads(as_json.stdout)] == ["s0", "s1"]


def test_a_mapping_is_one_and_a_list_of_one_is_a_list(order: Callable[[str], str]) -> None:
    assert read_submissions(order("entrypoint: [a]")) == {"entrypoint": ["a"]}
    assert read_submissions(order("---\nentrypoint: [a]\n...\n")) == {"entrypoint": ["a"]}
    assert read_submissions(order("- entrypoint: [a]")) == [{"entrypoint": ["a"]}]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("- entrypoint: [a]\n- nmae: b\n  entrypoint: [b]", 2, "1.nmae: unknown key; did you mean name?"),
        ("entrypoint: [a]\n---\nentrypoint: b c", 3, 'no shell reads it: ["b", "c"]'),
        ("- entrypoint: [a]\n- 7", 2, "expected a mapping"),
        ("entrypoint: [a]\n---\n- b", 3, "expected a mapping"),
        ("[]", 1, "expected at least one simulation"),
        ("- entrypoint: [a]\n  after: [ID:soon]", 2, "expected one of success, failure, any, got 'soon'"),
        ("- entrypoint: [a]\n  after: [{simulaton: x}]", 2, "did you mean after.simulation?"),
        ("- entrypoint: [a]\n  depends_on: [x]", 2, "did you mean after?"),
    ],
)
def test_mistakes_name_their_line(order: Callable[[str], str], text: str, line: int, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_submissions(order(text))
    told = str(refused.value)
    assert f":{line}: " in told
    if "after.simulation" not in words:
        assert words in told


def test_what_makes_no_sense_for_several_is_refused_before_anything_is_sent(
    accepting: Any, run: Run, order: Callable[[str], str]
) -> None:
    path = order(LIST)
    assert run("submit", "--file", path, "--wait").exit_code == 2
    assert run("submit", "--file", path, "--watch").exit_code == 2
    assert run("submit", "--file", path, "--", "other").exit_code == 2
    assert (
        "Simulation 2 of the file has no entrypoint"
        in run("submit", "--file", order("- entrypoint: [a]\n- name: b")).stderr
    )
    assert accepting.variables("CreateAll") == []


def test_errors_of_one_are_told_with_its_index(accepting: Any, run: Run, order: Callable[[str], str]) -> None:
    error = {"message": "simulations.1.entrypoint: too short", "field": ["simulations", "1", "entrypoint"]}
    accepting.answers["CreateAll"] = lambda _: {"createSimulations": {"simulations": [], "userErrors": [error]}}
    result = run("submit", "--file", order(LIST))
    assert result.exit_code == 6
    assert "simulations.1.entrypoint" in result.stderr


def test_after_and_notes_reach_the_server(accepting: Any, run: Run, simulation: Make) -> None:
    newest = {"nodes": [simulation(id="new")], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    accepting.answers["List"] = lambda _: {"simulations": newest}
    result = run("submit", "--after", "last", "--after", "abc:failure", "--notes", "why", "--", "train")
    assert result.exit_code == 0, result.stderr
    (sent,) = accepting.variables("Create")
    assert sent["input"]["after"] == [{"simulation": "new"}, {"simulation": "abc", "condition": "FAILURE"}]
    assert sent["input"]["notes"] == "why"
    for wrong in ("", ":any", "abc:soon"):
        assert run("submit", "--after", wrong, "--", "train").exit_code == 2


def test_simulations_are_paused_and_resumed(accepting: Any, run: Run) -> None:
    assert run("pause", "s0", "s1").exit_code == 0
    assert run("resume", "s0").exit_code == 0
    assert accepting.variables("Pause") == [{"input": {"id": "s0"}}, {"input": {"id": "s1"}}]
    assert accepting.variables("Resume") == [{"input": {"id": "s0"}}]


def test_a_deadline_is_a_time_or_a_time_from_now() -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(parse_deadline(text))

    now = datetime.now(UTC)
    assert timedelta(0) <= at("90m") - now - timedelta(minutes=90) < timedelta(minutes=1)
    assert timedelta(0) <= at(" NOW ") - now < timedelta(minutes=1)
    assert at("2026-11-30T08:00+02:00") == datetime(2026, 11, 30, 6, tzinfo=UTC)
    assert at("2026-11-30T08:00") == datetime(2026, 11, 30, 8).astimezone()  # local time is meant
    for wrong in ("", "soon", "-5m", "0s", "2026-13-01", "99999999999d", "0001-01-01T00:00+14:00"):
        with pytest.raises(UsageError, match="--deadline"):
            parse_deadline(wrong)
