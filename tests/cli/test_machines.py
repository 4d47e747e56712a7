"""`machines` and `projects`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]
ID = "TWFjaGluZTox"


def page(name: str, nodes: list[dict[str, Any]], after: str | None = None) -> dict[str, Any]:
    return {name: {"nodes": nodes, "pageInfo": {"hasNextPage": after is not None, "endCursor": after}}}


@pytest.fixture
def known(server: Any, machine: Make) -> Any:
    """A server with two machines, whose names begin alike."""
    machines = [machine(), machine(id="TWFjaGluZToy", name="bigger", state="DRAINING", labels={"zone": "eu"})]
    server.answers["Machines"] = lambda _: page("machines", machines)
    return server


@pytest.mark.parametrize("command", [["machines"], ["machines", "list"]])
def test_machines_are_listed_with_what_is_free_on_them(known: Any, run: Run, command: list[str]) -> None:
    shown = run(*command).stdout.splitlines()
    assert shown[0].split()[:2] == ["NAME", "STATE"]
    for expected in ("big", "ONLINE", "6 of 8", "16 of 32 GiB", "1 of 2 A100", "2.50 EUR"):
        assert expected in shown[1], expected
    for expected in ("bigger", "DRAINING", "zone=eu"):
        assert expected in shown[2], expected
    assert [each["name"] for each in json.loads(run(*command, "--json").stdout)] == ["big", "bigger"]


def test_states_are_filtered_by_the_server_and_a_wrong_one_gets_the_nearest_right_one(known: Any, run: Run) -> None:
    assert run("machines", "--state", "online,draining").exit_code == 0
    assert known.variables("Machines")[-1]["states"] == ["ONLINE", "DRAINING"]
    wrong = run("machines", "--state", "ofline")
    assert wrong.exit_code == 2
    assert "did you mean offline?" in wrong.stderr


def test_a_machine_is_shown_by_name_or_by_id_with_what_is_on_it(known: Any, run: Run, machine: Make) -> None:
    known.answers["Machine"] = lambda _: {"machine": {**machine(), "simulations": [{"id": "s1", "name": "train"}]}}
    for given in ("big", ID):
        shown = run("machines", "show", given)
        assert shown.exit_code == 0
        for expected in ("6 of 8 free", "1 of 2 free (A100)", "2.50 EUR an hour", "train (s1)", "createMachine"):
            assert expected in shown.stdout, expected
    assert json.loads(run("machines", "show", "big", "--json").stdout)["simulations"] == [{"id": "s1", "name": "train"}]
    assert [each["id"] for each in known.variables("Machine")] == [ID] * 3
    assert "There is no machine named bi. Similar: big, bigger." in run("machines", "show", "bi").stderr


def test_a_machine_is_added_with_what_was_given_and_no_more(known: Any, run: Run, machine: Make) -> None:
    known.answers["CreateMachine"] = lambda _: {"createMachine": {"machine": machine(), "userErrors": []}}
    made = run("machines", "add", "big", "--cpus", "8", "--memory-gib", "32", "--label", "a=b")
    assert (made.exit_code, made.stdout.strip()) == (0, ID)
    run(
        "machines", "add", "big", "--cpus", "8", "--memory-gib", "32", "--gpus", "2", "--gpu-model", "A100",
        "--price-per-hour", "2.50", "--host", "h1",
    )  # fmt: skip
    assert [each["input"] for each in known.variables("CreateMachine")] == [
        {"name": "big", "cpus": 8.0, "memoryGib": 32.0, "labels": {"a": "b"}},
        {
            "name": "big", "cpus": 8.0, "memoryGib": 32.0, "gpus": 2, "gpuModel": "A100", "pricePerHour": "2.50",
            "host": "h1",
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        (("add", "big", "--cpus", "8", "--memory-gib", "32"), "CreateMachine"),
        (("update", "big", "--cpus", "9"), "UpdateMachine"),
    ],
    ids=["add", "update"],
)
def test_notices_for_the_owner_are_printed(
    known: Any, run: Run, machine: Make, arguments: tuple[str, ...], operation: str
) -> None:
    field, notice = operation[0].lower() + operation[1:], "The host offers 3 cpus\x1b[31m together."
    known.answers[operation] = lambda _: {field: {"machine": machine(), "notices": [notice], "userErrors": []}}
    done = run("machines", *arguments)
    assert done.exit_code == 0
    assert "The host offers 3 cpus" in done.stderr
    assert "\x1b" not in done.stderr
    assert "offers" not in done.stdout
    assert "offers" not in run("machines", *arguments, "--json").stdout


def test_an_update_sends_only_changes_and_can_remove_values(known: Any, run: Run, machine: Make) -> None:
    known.answers["UpdateMachine"] = lambda _: {"updateMachine": {"machine": machine(), "userErrors": []}}
    assert run("machines", "update", "big", "--gpu-model", "", "--no-labels").exit_code == 0
    assert known.variables("UpdateMachine") == [{"input": {"id": ID, "gpuModel": None, "labels": {}}}]
    for nothing in ((), ("--no-labels", "--label", "a=b")):
        refused = run("machines", "update", "big", *nothing)
        assert refused.exit_code == 2
        assert len(known.variables("UpdateMachine")) == 1


@pytest.mark.parametrize(("command", "operation"), [("drain", "DrainMachine"), ("resume", "ResumeMachine")])
def test_a_refused_change_does_not_affect_the_others(
    known: Any, run: Run, machine: Make, command: str, operation: str
) -> None:
    field = operation[0].lower() + operation[1:]

    def answer(variables: dict[str, Any]) -> dict[str, Any]:
        if variables["input"]["id"] == ID:
            return {field: {"machine": None, "userErrors": [{"message": "Not this one.", "field": None}]}}
        return {field: {"machine": machine(id=variables["input"]["id"], name="bigger"), "userErrors": []}}

    known.answers[operation] = answer
    result = run("machines", command, "big", "bigger")
    assert result.exit_code == 6
    assert "big: Not this one." in result.stderr
    assert "bigger: ONLINE" in result.stdout


def test_names_are_looked_up_before_anything_is_deleted(known: Any, run: Run) -> None:
    known.answers["DeleteMachine"] = lambda _: {"deleteMachine": {"deletedId": ID, "userErrors": []}}
    assert run("machines", "delete", "big", "unknown").exit_code == 6
    assert known.variables("DeleteMachine") == []
    assert run("machines", "delete", "big").exit_code == 0
    assert known.variables("DeleteMachine") == [{"input": {"id": ID}}]


def test_projects_are_listed_over_all_pages(server: Any, run: Run) -> None:
    def answer(variables: dict[str, Any]) -> dict[str, Any]:
        first = variables["after"] is None
        node = {
            "id": "p1" if first else "p2",
            "name": "alpha" if first else "beta",
            "createdAt": "2026-01-01T12:00:00Z",
            "weight": "1",
            "gpuQuota": None if first else 8,
        }
        return page("projects", [node], "next" if first else None)

    server.answers["Projects"] = answer
    assert [line.split()[0] for line in run("projects").stdout.splitlines()] == ["NAME", "alpha", "beta"]
    assert [each["name"] for each in json.loads(run("projects", "--json").stdout)] == ["alpha", "beta"]
    assert [line.split()[2:4] for line in run("projects").stdout.splitlines()[1:]] == [["1", "none"], ["1", "8"]]


def test_weight_and_quota_of_a_project_are_changed(server: Any, run: Run) -> None:
    node = {"id": "p1", "name": "alpha", "createdAt": "2026-01-01T12:00:00Z", "weight": "1", "gpuQuota": None}
    server.answers["Projects"] = lambda _: page("projects", [node], None)
    changed = {**node, "weight": "2.50", "gpuQuota": 8}
    server.answers["UpdateProject"] = lambda _: {"updateProject": {"project": changed, "userErrors": []}}
    result = run("projects", "update", "alpha", "--weight", "2.5", "--gpu-quota", "8")
    assert result.stdout == "Project alpha: weight 2.5, 8 GPUs at once.\n"
    assert run("projects", "update", "alpha", "--gpu-quota", "none").exit_code == 0
    assert [each["input"] for each in server.variables("UpdateProject")] == [
        {"id": "p1", "weight": "2.5", "gpuQuota": 8},
        {"id": "p1", "gpuQuota": None},
    ]
    for wrong in ((), ("--gpu-quota", "many"), ("--gpu-quota", "-1"), ("--gpu-quota", "1.5")):
        assert run("projects", "update", "alpha", *wrong).exit_code == 2
    assert run("projects", "update", "unknown", "--weight", "2").exit_code == 6
    assert len(server.variables("UpdateProject")) == 2
