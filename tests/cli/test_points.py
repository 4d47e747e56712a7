"""`simulations curve`: points as CSV and JSON, through retries and lost connections."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from typer.testing import Result

import cli.resuming

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]
HEAD = "metric,step,value,elapsed_seconds,attempt"


@pytest.fixture
def stored(server: Any, simulation: Make) -> Any:
    """A server with one simulation."""
    server.answers["Simulation"] = lambda variables: {"simulation": simulation(id=variables["id"])}
    return server


def plays(*events: dict[str, Any]) -> Callable[[object], AsyncIterator[Any]]:
    async def stream(_: object) -> AsyncIterator[Any]:
        for each in events:
            yield each

    return stream


def past(made: dict[str, Any], not_finite: tuple[str, ...] = ()) -> dict[str, Any]:
    """An event that is not at the end of the log, with what its nulls stand for."""
    event = made["convergence"]
    event["live"] = False
    for series in event["series"]:
        series["notFinite"] = list(not_finite)
    return made


def test_points_are_printed_as_csv_with_what_is_not_finite(stored: Any, run: Run, event: Make) -> None:
    values = {0: 2.0, 1: None, 2: None, 9007199254740993: None}
    stored.streams["Points"] = plays(
        past(event("a", {"val/loss": values}), ("NaN", "Infinity", "-Infinity")),
        event("b", {"val/loss": {9007199254740995: 1e-23}}),
    )
    result = run("curve", "x")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:4] == [
        HEAD, "val/loss,0,2.0,0.0,1", "val/loss,1,NaN,0.5,1", "val/loss,2,Infinity,1.0,1",
    ]  # fmt: skip
    assert [row["value"] for row in csv.DictReader(io.StringIO(result.stdout))][-2:] == ["-Infinity", "1e-23"]
    assert "9007199254740993,-Infinity" in result.stdout
    assert stored.variables("Points") == [{"id": "x", "metrics": None, "after": None, "maxPoints": None}]
    assert run("curve", "x", "--csv").stdout == result.stdout


def test_points_as_json_are_a_line_each(stored: Any, run: Run, event: Make) -> None:
    stored.streams["Points"] = plays(past(event("a", {"loss": {0: 2.0, 1: None}}), ("Infinity",)), event("b"))
    result = run("curve", "x", "--json", "--metric", "loss", "--max-points", "50")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"metric": "loss", "step": 0, "value": 2.0, "elapsed": 0.0, "attempt": 1},
        {"metric": "loss", "step": 1, "value": "Infinity", "elapsed": 0.5, "attempt": 1},
    ]
    assert stored.variables("Points") == [{"id": "x", "metrics": ["loss"], "after": None, "maxPoints": 50}]


def test_what_a_later_attempt_superseded_is_left_out(stored: Any, run: Run, event: Make) -> None:
    stored.streams["Points"] = plays(
        past(event("a", {"loss": {0: 9.0, 1: 8.0, 2: 7.0}})),
        event("b", {"loss": {1: 5.0}}, attempt=2, supersedes_from=1),
    )
    assert run("curve", "x").stdout.splitlines() == [HEAD, "loss,0,9.0,0.0,1", "loss,1,5.0,0.5,2"]


def test_a_lost_connection_repeats_and_loses_nothing(
    stored: Any, run: Run, event: Make, cut: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.resuming, "LONGEST_PAUSE_SECONDS", 0.01)

    async def stream(variables: dict[str, Any]) -> AsyncIterator[Any]:
        if variables["after"] is None:
            yield past(event("a", {"loss": {0: 2.0}}))
            raise cut
        yield event("b", {"loss": {1: 1.0}})

    stored.streams["Points"] = stream
    result = run("curve", "x", "--max-points", "5")
    assert result.stdout.splitlines() == [HEAD, "loss,0,2.0,0.0,1", "loss,1,1.0,0.5,1"]
    assert [each["maxPoints"] for each in stored.variables("Points")] == [5, None]


def test_names_from_outside_are_data(stored: Any, run: Run, event: Make) -> None:
    hostile = '=cmd|"calc",\x1b[2J\u202e\u2066\n<b>'
    stored.streams["Points"] = plays(event("a", {hostile: {0: 1.0}}))
    [_, row] = csv.reader(io.StringIO(run("curve", "x").stdout))
    assert row[0] == """'=cmd|"calc",[2J <b>"""


def test_nothing_and_a_metric_that_there_is_not(stored: Any, run: Run, event: Make) -> None:
    stored.streams["Points"] = plays(event("a"))
    result = run("curve", "x")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{HEAD}\n", "No points yet.\n")
    result = run("curve", "x", "--metric", "los")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "los: no points of this metric." in result.stderr
    result = run("curve", "x", "--csv", "--json")
    assert result.exit_code == 2


def test_an_unknown_simulation_is_a_sentence(stored: Any, run: Run) -> None:
    stored.answers["Simulation"] = lambda _: {"simulation": None}
    result = run("curve", "unknown")
    assert result.exit_code == 6
    assert "There is no simulation with the number, name or id unknown." in result.stderr
