"""`plan`: machines over time as text, all pages of them, and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
NOW = "2026-11-29T12:00:00Z"


def hold(kind: str, begin: str, **given: Any) -> dict[str, Any]:
    return {
        "kind": kind, "share": "1", "preemptible": False, "begin": begin, "expectedEnd": None, "latestEnd": None,
        "simulation": {"id": "U2ltdWxhdGlvbjox", "number": 1, "name": "train"}, **given,
    }  # fmt: skip


def machine(name: str, *holds: dict[str, Any], state: str = "ONLINE") -> dict[str, Any]:
    return {"id": name, "name": name, "state": state, "holds": list(holds)}


@pytest.fixture
def known(server: Any) -> Any:
    pages = {
        None: [
            machine(
                "a", hold("RESERVED", "2026-11-29T12:30:00Z", simulation=None),
                hold("HELD", "2026-11-29T11:00:00Z", latestEnd="2026-11-29T12:30:00Z", preemptible=True),
            ),
            machine("b", hold("LEAVING", "2026-11-29T11:00:00Z", expectedEnd="2026-11-29T13:00:00Z")),
        ],
        "next": [machine("c", hold("HELD", "2026-11-29T11:00:00Z"), state="DRAINING"), machine("d")],
    }  # fmt: skip

    def answer(variables: dict[str, Any]) -> Any:
        after = variables["after"]
        turn = {"hasNextPage": after is None, "endCursor": "next" if after is None else None}
        return {"plan": {"now": NOW, "queued": 1200, "machines": {"nodes": pages[after], "pageInfo": turn}}}

    server.answers["Plan"] = answer
    return server


def test_machines_are_shown_with_what_runs_and_what_is_reserved_until_when(known: Any, run: Run) -> None:
    shown = run("plan")
    assert shown.exit_code == 0, shown.stderr
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    half, whole = 16, 32
    assert lines[:-1] == [
        "MACHINE STATE TIMELINE SIMULATION WHEN",
        f"a ONLINE {'=' * half}{'.' * half} train (#1) at most 30 min left, preemptible",
        f"{'.' * half}{':' * (half - 1)}> (of another project) reserved from {known_time('12:30')} on (in 30 min)",
        f"b ONLINE {'~' * whole} train (#1) is being stopped, about 1 h left",
        f"c DRAINING {'=' * (whole - 1)}> train (#1) end unknown",
        f"d ONLINE {'.' * whole} free",
    ]
    assert lines[-1].startswith("1,200 in the queue. The timeline begins now and ends ")


def known_time(utc: str) -> str:
    return f"{datetime.fromisoformat(f'2026-11-29T{utc}:00+00:00').astimezone():%H:%M}"


def test_json_has_the_names_of_the_api_and_all_machines(known: Any, run: Run) -> None:
    found = json.loads(run("plan", "--json").stdout)
    assert (found["queued"], [each["name"] for each in found["machines"]]) == (1200, ["a", "b", "c", "d"])
    assert found["machines"][0]["holds"][1]["latestEnd"] == "2026-11-29T12:30:00Z"


def test_without_machines_there_is_a_hint(server: Any, run: Run) -> None:
    nothing = {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    server.answers["Plan"] = lambda _: {"plan": {"now": NOW, "queued": 0, "machines": nothing}}
    assert "No machines. The scheduler of a host creates one" in run("plan").stderr


@pytest.mark.parametrize("holds", [(), (hold("HELD", "2026-11-29T11:00:00Z"),)], ids=["nothing runs", "without an end"])
def test_a_timeline_on_which_no_time_is_known_has_its_least_length(server: Any, run: Run, holds: Any) -> None:
    one = {"nodes": [machine("a", *holds)], "pageInfo": {"hasNextPage": False, "endCursor": None}}
    server.answers["Plan"] = lambda _: {"plan": {"now": NOW, "queued": 0, "machines": one}}
    shown = run("plan")
    assert shown.exit_code == 0, shown.stderr
    assert f"0 in the queue. The timeline begins now and ends 2026-11-29 {known_time('12:10')}" in shown.stdout
