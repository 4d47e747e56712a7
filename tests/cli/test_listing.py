"""`list`: sort keys, comparisons and times as they are typed, and the columns that they bring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cli.errors import UsageError
from cli.listing import Filters, parse_moment, parse_sort, parse_where

Run = Callable[..., Result]
Make = Callable[..., dict[str, Any]]
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SWEEP: dict[str, Any] = {
    "id": "w9", "number": 9, "name": "search", "state": "RUNNING", "reason": None, "reasonDetail": None,
    "sampler": "TPE", "seed": 1, "parameters": [], "objective": {"metric": "loss", "mode": "MIN"}, "parallel": 1,
    "seeds": 1, "maxCost": None, "patience": None, "project": {"id": "p1", "name": "default"},
    "counts": {"planned": 1, "queued": 0, "running": 1, "complete": 0, "pruned": 0, "failed": 0},
    "cost": {"amount": "0", "currency": "USD", "perHour": "0"}, "best": None, "estimatedEnd": None,
    "entrypoint": ["train"], "createdBy": "ada", "createdAt": "2026-11-29T10:00:00Z", "endedAt": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ("val/loss", {"field": "BEST", "name": "val/loss"}),
        ("acc:max", {"field": "BEST", "name": "acc", "mode": "MAX"}),
        ("a:b:MIN", {"field": "BEST", "name": "a:b", "mode": "MIN"}),
        ("a:b", {"field": "BEST", "name": "a:b"}),
        ("loss:last", {"field": "LAST", "name": "loss"}),
        ("param:lr", {"field": "PARAMETER", "name": "lr", "direction": "ASC"}),
        ("cost", {"field": "COST", "direction": "DESC"}),
        ("Finished", {"field": "FINISHED_AT", "direction": "DESC"}),
        ("name", {"field": "NAME", "direction": "ASC"}),
        (None, {"field": "CREATED_AT", "direction": "DESC"}),
    ],
)
def test_sort_keys(given: str | None, order: dict[str, Any]) -> None:
    assert parse_sort(given, reverse=False).as_order() == order


@pytest.mark.parametrize(
    ("given", "direction"),
    [("acc:max", "ASC"), ("loss:min", "DESC"), ("param:lr", "DESC"), ("cost", "ASC"), (None, "ASC")],
)
def test_reverse_turns_an_order_round(given: str | None, direction: str) -> None:
    assert parse_sort(given, reverse=True).direction == direction


@pytest.mark.parametrize(("given", "reverse"), [("", False), ("param:", False), ("loss", True), ("loss:last", True)])
def test_sort_keys_that_are_none(given: str, reverse: bool) -> None:
    with pytest.raises(UsageError):
        parse_sort(given, reverse=reverse)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("lr<1e-3", ("lr", "LT", 0.001)),
        ("lr <= 2", ("lr", "LE", 2)),
        ("optimizer.name=adam", ("optimizer.name", "EQ", "adam")),
        ("on==true", ("on", "EQ", True)),
        ('seed!="7"', ("seed", "NE", "7")),
        ("lr=nan", ("lr", "EQ", "nan")),
        ("optimizer='adam'", ("optimizer", "EQ", "adam")),
        ("seed='7'", ("seed", "EQ", "7")),
        ("note=it's", ("note", "EQ", "it's")),
        ("date>2026-01", ("date", "GT", "2026-01")),
        ('lr<"inf"', ("lr", "LT", "inf")),
        ("a=b=c", ("a", "EQ", "b=c")),
        ("big>9007199254740993", ("big", "GT", 9007199254740993)),
    ],
)
def test_comparisons(given: str, expected: tuple[str, str, object]) -> None:
    found = parse_where(given)
    assert (found["name"], found["comparison"], found["value"]) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("lr<1e-3, optimizer=adam", [("lr", 0.001), ("optimizer", "adam")]),
        ("lr>0,lr<1,n!=2", [("lr", 0), ("lr", 1), ("n", 2)]),
        ("note=a,b", [("note", "a,b")]),
        ('note="a, b=c", n=1', [("note", "a, b=c"), ("n", 1)]),
    ],
)
def test_several_comparisons_with_commas_between_them(given: str, expected: list[tuple[str, object]]) -> None:
    found: Any = Filters(where=[given]).as_filter(NOW)
    assert [(each["name"], each["value"]) for each in found["parameters"]] == expected


@pytest.mark.parametrize("given", ["", "lr", "<1", "lr<", "lr=[1]", "lr=null", "lr={}", "lr<1, n="])
def test_comparisons_that_are_none(given: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        Filters(where=[given]).as_filter(NOW)


@pytest.mark.parametrize("given", ["lr<<3", "lr=>3", "lr=!3", "lr===3", "lr < <3", "lr<>3", "n=1, lr>>3"])
def test_two_operators_in_a_row_are_none_and_the_message_says_how_to_compare_with_one(given: str) -> None:
    with pytest.raises(UsageError, match=r"give one of <, <=, >, >=, =, !=, or quote a value .*3\"'"):
        Filters(where=[given]).as_filter(NOW)
    assert parse_where('lr<"<3"') == {"name": "lr", "comparison": "LT", "value": "<3"}
    assert parse_where("a=b=c")["value"] == "b=c"


@pytest.mark.parametrize(("reason", "goes_on"), [(None, True), ("COMPLETED", False)])
def test_a_sweep_whose_trials_are_cancelled_goes_on_and_that_is_said(
    server: Any, run: Run, simulation: Make, reason: str | None, goes_on: bool
) -> None:
    nodes = [simulation(id="s1", number=1, name="search-0", state="RUNNING")]
    server.answers["List"] = lambda _: {
        "simulations": {"nodes": nodes, "pageInfo": {"hasNextPage": False, "endCursor": None}}
    }
    server.answers["Sweep"] = lambda _: {"sweep": {**SWEEP, "reason": reason, "importances": []}}
    server.answers["Cancel"] = lambda _: {"cancelSimulation": {"simulation": nodes[0], "userErrors": []}}
    result = run("cancel", "--sweep", "9", "--yes")
    assert result.exit_code == 0
    assert ("Sweep 9 goes on: it may begin other trials." in result.stderr) is goes_on
    assert ("simulations sweep cancel 9" in result.stderr) is goes_on


@pytest.mark.parametrize("given", ["lr>0.001 lr<0.1", "lr>0.001 and lr<0.1", "lr>0.001 AND lr < 0.1"])
def test_comparisons_without_a_comma_are_refused_with_one(given: str) -> None:
    with pytest.raises(UsageError, match=r"commas between them: 'lr>0\.001, lr ?< ?0\.1'"):
        parse_where(given)
    assert parse_where("note=a b=c")["value"] == "a b=c"


@pytest.mark.parametrize("given", ["lr<inf", "lr>-Infinity", "lr>=nan"])
def test_the_order_of_a_number_that_is_not_finite_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="--where: lr can be compared with a finite number"):
        parse_where(given)


@pytest.fixture
def in_india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_india")
def test_dates_and_times_without_an_offset_are_local_as_those_that_are_printed() -> None:
    assert parse_moment("--since", "2026-11-01", NOW) == "2026-11-01T00:00:00+05:30"
    assert parse_moment("--since", "2026-11-30 15:27:24", NOW) == "2026-11-30T15:27:24+05:30"
    assert parse_moment("--since", "2026-11-01T00:00Z", NOW) == "2026-11-01T00:00:00+00:00"
    with pytest.raises(UsageError, match="7d or 12h"):
        parse_moment("--since", "0001-01-01", NOW)


def test_times_are_dates_or_durations_before_now() -> None:
    assert parse_moment("--since", "7d", NOW) == "2026-11-22T12:00:00+00:00"
    assert parse_moment("--since", "2026-11-01T00:00Z", NOW) == "2026-11-01T00:00:00+00:00"
    assert parse_moment("--since", "2026-11-01T10:00+02:00", NOW) == "2026-11-01T10:00:00+02:00"
    assert parse_moment("--since", None, NOW) is None
    for given in ("yesterday", "-1d", "99999d", ""):
        if given == "99999d":
            assert (parse_moment("--since", given, NOW) or "").startswith("1753-")
            continue
        with pytest.raises(UsageError, match="7d or 12h"):
            parse_moment("--since", given, NOW)
    assert Filters().as_filter(NOW) is None


def test_what_is_asked_for_is_what_was_typed(server: Any, run: Run, simulation: Make) -> None:
    objective = {"metric": "val/loss", "mode": "MIN", "value": 0.5, "bestValue": 0.25, "bestStep": 40}
    metric = {"name": "loss", "lastValue": 3.0, "bestValue": 2.0, "minValue": 2.0, "maxValue": 4.0}
    nodes = [simulation(number=108, objective=objective, metric=metric), simulation(number=7, metric=None)]
    end = {"hasNextPage": False, "endCursor": None}
    server.answers["List"] = lambda _: {"simulations": {"nodes": nodes, "pageInfo": end}}
    ran = run(
        "list", "--sort", "loss", "--limit", "5", "--tag", "lr-sweep", "--where", "lr<1e-3", "--name", "vit*",
        "--since", "2026-11-01T00:00Z", "--user", "ada", "--state", "finished", "--text", "train.py", "--any-tag", "a",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    [asked] = server.variables("List")
    assert asked["orderBy"] == {"field": "BEST", "name": "loss"}
    assert (asked["metric"], asked["hasMetric"], asked["first"], asked["states"]) == ("loss", True, 6, ["FINISHED"])
    assert asked["filter"] == {
        "text": "train.py", "name": "vit*", "tags": ["lr-sweep"], "anyTags": ["a"], "createdBy": "ada",
        "createdFrom": "2026-11-01T00:00:00+00:00",
        "parameters": [{"name": "lr", "comparison": "LT", "value": 0.001}],
    }  # fmt: skip
    head, first, second = ran.stdout.splitlines()
    assert head.split()[:4] == ["ID", "NAME", "loss", "BEST"]
    assert first.split()[:5] == ["108", "train", "2", "val/loss", "0.25"]
    assert second.split()[:3] == ["7", "train", "default"]


def test_last_is_the_newest_sweep(server: Any, run: Run) -> None:
    end = {"hasNextPage": False, "endCursor": None}
    server.answers["Sweeps"] = lambda _: {"sweeps": {"nodes": [SWEEP], "pageInfo": end}}
    server.answers["List"] = lambda _: {"simulations": {"nodes": [], "pageInfo": end}}
    assert run("list", "--sweep", "last").exit_code == 0
    [asked] = server.variables("List")
    assert asked["filter"] == {"sweep": SWEEP["id"]}
    server.answers["Sweeps"] = lambda _: {"sweeps": {"nodes": [], "pageInfo": end}}
    assert "There is no sweep yet." in run("list", "--sweep", "last").stderr


@pytest.mark.parametrize(
    ("arguments", "head", "cell"),
    [
        (("--sort", "param:lr"), "lr", "0.1"),
        (("--sort", "cost"), "COST", "1.50"),
        (("--sort", "loss:last"), "loss", "3"),
        (("--sort", "loss:max"), "loss", "4"),
    ],
)
def test_what_a_list_is_sorted_by_has_a_column(
    server: Any, run: Run, simulation: Make, arguments: tuple[str, ...], head: str, cell: str
) -> None:
    metric = {"name": "loss", "lastValue": 3.0, "bestValue": 2.0, "minValue": 2.0, "maxValue": 4.0}
    node = simulation(metric=metric, parameter=0.1, cost={"amount": "1.5", "currency": "EUR"})
    end = {"hasNextPage": False, "endCursor": None}
    server.answers["List"] = lambda _: {"simulations": {"nodes": [node], "pageInfo": end}}
    lines = run("list", *arguments).stdout.splitlines()
    assert lines[0].split()[2] == head
    assert lines[1].split()[2] == cell


def test_wrong_values_end_before_a_request(server: Any, run: Run) -> None:
    for arguments in (("--where", "lr"), ("--since", "soon"), ("--sort", ""), ("--sort", "loss", "--reverse")):
        ran = run("list", *arguments)
        assert ran.exit_code == 2
        assert arguments[-1 if arguments[-1] == "--reverse" else 0] in ran.stderr
    assert server.asked == []


def test_a_metric_without_a_direction_is_refused_in_the_words_of_the_option(
    server: Any, run: Run, refuse: type[Exception]
) -> None:
    said = ["orderBy.mode: the name 'a/b,c' does not imply whether lower or higher is better", "Not now."]

    def answer(_: object) -> Any:
        raise refuse(said.pop(0))

    server.answers["List"] = answer
    ran = run("list", "--sort", "a/b,c")
    assert ran.exit_code == 2
    assert "write --sort 'a/b,c:min', 'a/b,c:max' or 'a/b,c:last'" in " ".join(ran.stderr.split())
    assert "orderBy" not in ran.stderr
    assert "Not now." in run("list", "--sort", "a/b,c").stderr


def test_samplers_are_shown_as_the_option_takes_them(server: Any, run: Run) -> None:
    end = {"hasNextPage": False, "endCursor": None}
    sweeps = [{**SWEEP, "sampler": "QUASI_RANDOM"}, {**SWEEP, "sampler": "CMA_ES"}]
    server.answers["Sweeps"] = lambda _: {"sweeps": {"nodes": sweeps, "pageInfo": end}}
    lines = run("sweep", "list").stdout.splitlines()
    assert ["quasi-random" in lines[1], "cma-es" in lines[2]] == [True, True]


@pytest.mark.parametrize(
    ("command", "note"),
    [
        (["train.py", "--lr={lr}", "--wd", "{wd}"], None),
        (["bash", "-c", 'train.py --lr "$SIMULATION_PARAMETER_LR"'], None),
        (["train.py", "--wd={wd}"], "lr is not in the command: the program gets it only in"),
        (["train.py"], "lr, wd are not in the command: the program gets them only in"),
        (["train.py", "--lr", "0.1", "--wd={wd}"], "Braces put a value into the command: train.py --lr '{lr}'"),
    ],
)
def test_searched_parameters_that_are_not_in_the_command_are_pointed_out(
    server: Any, run: Run, command: list[str], note: str | None
) -> None:
    """Trials of a program that does not read them from its environment are all the same."""
    server.answers["CreateSweep"] = lambda _: {"createSweep": {"sweep": SWEEP, "userErrors": []}}
    result = run("sweep", "-p", "lr=0.1..1.0", "-p", "wd=0,0.1", "--objective", "loss", "--", *command)
    assert result.stdout.strip() == "9", result.stderr
    assert ("Note:" in result.stderr) is (note is not None)
    assert (note or "") in " ".join(result.stderr.split())


def test_a_cancelled_sweep_shows_no_failed_trials(server: Any, run: Run) -> None:
    end = {"hasNextPage": False, "endCursor": None}
    counts = {"planned": 3, "queued": 0, "running": 0, "complete": 1, "pruned": 0, "failed": 0, "cancelled": 2}
    found = {**SWEEP, "state": "CANCELLED", "counts": counts, "endedAt": SWEEP["createdAt"], "importances": []}
    trial = {
        "number": 0, "state": "CANCELLED", "parameters": {}, "value": None, "spread": None, "step": None,
        "begunAt": SWEEP["createdAt"], "endedAt": SWEEP["createdAt"], "finalCost": "0", "simulations": [],
    }  # fmt: skip
    edges = [{"cursor": "c", "node": trial}]
    server.answers["Sweep"] = lambda _: {"sweep": found}
    server.answers["SweepTrials"] = lambda _: {"sweep": {"trials": {"edges": edges, "nodes": [trial], "pageInfo": end}}}
    result = run("sweep", "show", "w9")
    assert "3/3 trials (2 cancelled)" in result.stdout, result.stderr
    assert "cancelled" in result.stdout.splitlines()[-1]
    assert "failed" not in result.stdout


def test_a_range_with_a_step_that_is_searched_by_log_is_exported_without_the_step(
    server: Any, run: Run, tmp_path: Path
) -> None:
    """Optuna has no distribution with both."""
    batch = {"name": "batch", "choices": None, "low": 32, "high": 250, "step": 8, "log": True, "integer": True}
    trial = {
        "number": 0, "state": "COMPLETE", "parameters": {"batch": 40}, "value": 0.5, "spread": None, "step": None,
        "begunAt": SWEEP["createdAt"], "endedAt": SWEEP["createdAt"], "finalCost": "0", "simulations": [],
    }  # fmt: skip
    page_info = {"hasNextPage": False, "endCursor": None}
    trials = {"edges": [{"cursor": "c", "node": trial}], "nodes": [trial], "pageInfo": page_info}
    server.answers["Sweep"] = lambda _: {"sweep": {**SWEEP, "parameters": [batch]}}
    server.answers["SweepTrials"] = lambda _: {"sweep": {"trials": trials}}
    result = run("sweep", "export", "w9", str(tmp_path / "study.db"))
    assert result.stderr.startswith("Wrote 1 trial of #9 "), result.stderr
