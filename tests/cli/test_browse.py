"""`list` and `show`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from typer.testing import Result

from cli.terminal import say_number

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]

HOSTILE = "\x1b[31m[red]ev\u202eil\r\n\x9b2J[/red]\x07 name"
HARMLESS = "[31m[red]evil  2J[/red] name"


def page(nodes: list[dict[str, Any]], after: str | None = None) -> dict[str, Any]:
    return {
        "simulations": {"nodes": nodes, "pageInfo": {"hasNextPage": after is not None, "endCursor": after or "end"}}
    }


def test_a_list_shows_why_each_one_is_where_it_is(server: Any, run: Run, simulation: Make) -> None:
    waiting = {"reason": "MACHINES_BUSY", "detail": "All machines that fit are busy."}
    server.answers["List"] = lambda _: page([
        simulation(id="one", state="QUEUED", machine=None, waiting=waiting),
        simulation(id="two", state="FAILED", reason="EXIT_CODE", reasonDetail="It ended with exit code 3."),
        simulation(id="three", stopWanted={"reason": "CANCELLED", "by": "ada"}),
    ])  # fmt: skip
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == [
        "ID", "NAME", "BEST", "OBJECTIVE", "PROJECT", "STATE", "WHY", "MACHINE", "CHANGED",
    ]  # fmt: skip
    assert "All machines that fit are busy." in lines[1]
    assert "EXIT_CODE: It ended with exit code 3." in lines[2]
    assert "stop wanted by ada" in lines[3]
    assert "ago" in lines[3]


def test_a_list_has_the_best_value_of_the_objective_or_names_the_last_one(
    server: Any, run: Run, simulation: Make
) -> None:
    known = {"metric": "loss", "mode": "MIN", "value": 0.5, "bestValue": 0.25, "bestStep": 40}
    unknown = {"metric": "energy", "mode": None, "value": 0.5, "bestValue": None, "bestStep": None}
    server.answers["List"] = lambda _: page([simulation(objective=known), simulation(objective=unknown)])
    _, first, second = run("list").stdout.splitlines()
    assert "loss 0.25 " in first
    assert "energy 0.5 last" in second


def test_no_value_is_shown_as_an_integer_that_it_is_not() -> None:
    values = (0.999998, -1.0000004, 1.0, 2.9999999999999996, 0.25, 12345.6, float("nan"), float("inf"))
    assert [say_number(value) for value in values] == [
        "0.999998", "-1.0000004", "1", "3", "0.25", "1.235e+04", "nan", "inf",
    ]  # fmt: skip
    assert say_number(0.9999998, 6) == "0.9999998"


def test_a_hostile_name_is_shown_as_its_letters_only(server: Any, run: Run, simulation: Make) -> None:
    project = {"id": "p", "name": HOSTILE}
    server.answers["List"] = lambda _: page([simulation(name=HOSTILE, project=project, machine=project)])
    shown = run("list").stdout
    assert shown.count(HARMLESS) == 3
    assert not any((ord(character) < 32 and character != "\n") or character in "\x7f\x9b\u202e" for character in shown)
    raw = run("list", "--json").stdout
    assert json.loads(raw)[0]["name"] == HOSTILE
    assert raw.isascii()
    assert "\x1b" not in raw


def test_all_pages_are_read_with_all_and_no_more_than_the_limit_without(
    server: Any, run: Run, simulation: Make
) -> None:
    def answer(variables: dict[str, Any]) -> dict[str, Any]:
        start = int(variables["after"] or 0)
        stop = min(start + variables["first"], 250)
        nodes = [simulation(id=f"s{number}") for number in range(start, stop)]
        return page(nodes, str(stop) if stop < 250 else None)

    server.answers["List"] = answer
    assert len(json.loads(run("list", "--all", "--json").stdout)) == 250
    assert len(json.loads(run("list", "--json").stdout)) == 20
    assert len(json.loads(run("list", "--limit", "150", "--json").stdout)) == 150
    assert len(json.loads(run("list", "--limit", "9" * 30, "--json").stdout)) == 250
    assert "There are older ones" in run("list").stdout
    assert "There are older ones" not in run("list", "--all").stdout


def test_filters_reach_the_server(server: Any, run: Run) -> None:
    project = {"createdAt": "2026-01-01T12:00:00Z", "weight": "1", "gpuQuota": None}
    server.answers["Projects"] = lambda _: {
        "projects": {
            "nodes": [
                {"id": "p0", "name": "alphabet", **project},
                {"id": "p1", "name": "alpha", **project},
            ],
            "pageInfo": {"hasNextPage": False, "endCursor": "x"},
        }
    }
    server.answers["List"] = lambda _: page([])
    result = run("list", "--state", "queued,running", "--project", "alpha")
    assert result.exit_code == 0
    assert "No simulations." in result.stderr
    (asked,) = server.variables("List")
    assert (asked["states"], asked["project"]) == (["QUEUED", "RUNNING"], "p1")
    assert "There is no project named beta." in run("list", "--project", "beta").stderr


def test_show_prints_everything_except_values_of_the_environment(server: Any, run: Run, simulation: Make) -> None:
    details = simulation(
        state="FAILED", reason="MACHINE_LOST", reasonDetail="Silence.", finishedAt="2026-01-01T12:02:01Z",
        entrypoint=["python", "a b.py", HOSTILE], parameters={"rate": 0.1}, environment={"TOKEN": "secret"},
        workingDirectory="/srv", tags=["x"], priority=3, createdBy="ada", retryOf={"id": "old", "name": "train"},
        resources={
            "cpus": 2.0, "memoryGib": 8.0, "gpus": 1, "gpuModel": "A100", "labels": {"zone": "eu"}, "machine": None,
            "maxPricePerHour": "3.5",
        },
        cost={"amount": "0.1234", "currency": "EUR"},
        checkpoint={"at": "2026-01-01T12:02:00Z", "machineName": "big\x1b[2J"},
        limits={"maxRuntimeSeconds": 5400, "maxRetries": 3, "retryOn": ["MACHINE_LOST"]},
        attempts=[
            {
                "number": 1, "machineName": "big", "assignedAt": "2026-01-01T12:00:00Z", "reason": "MACHINE_LOST",
                "startedAt": "2026-01-01T12:00:01Z", "endedAt": "2026-01-01T12:02:01Z", "reasonDetail": None,
                "exitCode": None, "signal": 9, "gpuIndices": [0],
            }
        ],
        events=[{"at": "2026-01-01T12:00:00Z", "kind": "created", "actor": "ada"}],
    )  # fmt: skip
    server.answers["Details"] = lambda variables: {"simulation": details if variables["id"] == "x" else None}
    shown = run("show", "x").stdout
    for expected in (
        "train  FAILED", "MACHINE_LOST: Silence.", "python 'a b.py'", '{"rate": 0.1}', "TOKEN", "2 cpus",
        "8 GiB", "1 GPU (A100)", "zone=eu", "at most 3.50 EUR per hour", "1 h 30 min", "2 min", "signal 9", "GPU 0",
        "created", "old", "cost         0.12 EUR", "checkpoint", "ago, on big",
    ):  # fmt: skip
        assert expected in shown, expected
    assert "secret" not in shown
    assert "\x1b" not in shown
    assert json.loads(run("show", "x", "--json").stdout)["environment"] == {"TOKEN": "secret"}
    unknown = run("show", "y")
    assert unknown.exit_code == 6
    assert "There is no simulation with the number, name or id y." in unknown.stderr
