"""`costs` and `budget`: what is asked for, and the tables, CSV and hints."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
ID = "QnVkZ2V0OjE="


def sum_(amount: str, currency: str = "EUR", **given: Any) -> dict[str, Any]:
    return {
        "currency": currency, "amount": amount, "wasted": "0", "saved": "0", "attempts": 3, "simulations": 2, **given,
    }  # fmt: skip


def row(sums: dict[str, Any], **keys: Any) -> dict[str, Any]:
    none = dict.fromkeys(("project", "user", "machine", "name", "tag", "begin"))
    return {**none, **keys, "sum": sums}


def costs(*rows: dict[str, Any], totals: list[dict[str, Any]], has_prices: bool = True) -> dict[str, Any]:
    found = {"rows": list(rows), "totals": totals, "to": "2026-11-29T00:00:00Z", "hasPrices": has_prices}
    return {"costs": found}


@pytest.fixture
def known(server: Any) -> Any:
    found = costs(
        row(sum_("1234.5", wasted="0.004", saved="41"), project="vision", begin="2026-11-23T00:00:00Z"),
        row(sum_("0.0031"), project="=1+1", begin="2026-11-23T00:00:00Z"),
        totals=[sum_("1234.5031", wasted="0.004", saved="41"), sum_("7", "USD")],
    )
    project = {
        "id": "UHJvamVjdDox", "name": "vision", "createdAt": "2026-01-01T00:00:00Z", "weight": "1", "gpuQuota": None,
    }  # fmt: skip
    pages = {"hasNextPage": False, "endCursor": None}
    server.answers["Costs"] = lambda _: found
    server.answers["Projects"] = lambda _: {"projects": {"nodes": [project], "pageInfo": pages}}
    return server


def test_costs_are_a_table_of_the_groups_with_totals_of_each_currency(known: Any, run: Run) -> None:
    shown = run("costs", "--by", "project", "--week", "--from", "2026-11-01", "--project", "vision")
    assert shown.exit_code == 0, shown.stderr
    assert known.variables("Costs") == [
        {"groupBy": ["WEEK", "PROJECT"], "from": "2026-11-01T00:00:00+00:00", "to": None, "project": "UHJvamVjdDox"}
    ]
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines == [
        "WEEK PROJECT COST WASTED SAVED ATTEMPTS SIMULATIONS",
        "2026-11-23 vision 1,234.50 EUR 0.004 EUR 41.00 EUR 3 2",
        "2026-11-23 =1+1 0.0031 EUR 0.00 EUR 3 2",
        "total 1,234.50 EUR 0.004 EUR 41.00 EUR 3 2",
        "total 7.00 USD 0.00 USD 3 2",
    ]


def test_csv_has_exact_amounts_and_no_formulas(known: Any, run: Run) -> None:
    shown = run("costs", "--by", "project", "--week", "--csv").stdout
    header, first, second = csv.reader(shown.splitlines())
    assert header == ["week", "project", "currency", "amount", "wasted", "saved", "attempts", "simulations"]
    assert first == ["2026-11-23", "vision", "EUR", "1234.5", "0.004", "41", "3", "2"]
    assert second[1] == "'=1+1"
    assert [line.split(",")[0] for line in run("costs", "--csv").stdout.splitlines()] == ["currency", "EUR", "USD"]


def test_json_has_the_names_of_the_api(known: Any, run: Run) -> None:
    found = json.loads(run("costs", "--json").stdout)
    assert found["hasPrices"] is True
    assert found["rows"][0]["sum"]["wasted"] == "0.004"


def test_without_prices_there_is_a_hint_and_no_money(known: Any, run: Run, machine: Any) -> None:
    known.answers["Costs"] = lambda _: costs(totals=[sum_("0")], has_prices=False)
    shown = run("costs")
    assert shown.stdout == ""
    assert "SIMULATIONS_MACHINE_PRICE_PER_HOUR" in shown.stderr
    free = machine(pricePerHour="0")
    pages = {"hasNextPage": False, "endCursor": None}
    known.answers["Machines"] = lambda _: {"machines": {"nodes": [free], "pageInfo": pages}}
    known.answers["Machine"] = lambda _: {"machine": {**free, "simulations": []}}
    assert "EUR" not in run("machines").stdout
    assert "not set (SIMULATIONS_MACHINE_PRICE_PER_HOUR" in " ".join(run("machines", "show", "big").stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "colour"], "--by: expected one of project, user, machine, name, tag, got colour."),
        (["--day", "--month"], "--day and --month can't be combined."),
        (["--csv", "--json"], "--csv and --json can't be combined."),
        (["--from", "yesterday"], "--from: expected a date like 2026-11-01, got yesterday."),
    ],
)
def test_wrong_usage_is_reported_before_any_request(known: Any, run: Run, arguments: list[str], message: str) -> None:
    shown = run("costs", *arguments)
    assert (shown.exit_code, shown.stderr.strip()) == (2, message)
    assert known.asked == []


def budget(**changes: Any) -> dict[str, Any]:
    account = {
        "spent": "64.1", "remaining": "35.9", "percent": 64, "perHour": "2.5", "isUsedUp": False, "lastsUntil": None,
        "periodBegin": "2026-11-01T00:00:00Z", "periodEnd": "2026-12-01T00:00:00Z",
    }  # fmt: skip
    return {
        "id": ID, "period": "MONTH", "amount": "100", "currency": "EUR", "project": {"id": "p", "name": "vision"},
        "account": account, **changes,
    }  # fmt: skip


def test_budgets_are_listed_with_what_was_spent(known: Any, run: Run) -> None:
    nodes = [budget(), budget(project=None, period="TOTAL", account={**budget()["account"], "isUsedUp": True})]
    known.answers["Budgets"] = lambda _: {"budgets": {"nodes": nodes, "pageInfo": {"hasNextPage": False}}}
    lines = [" ".join(line.split()) for line in run("budget").stdout.splitlines()]
    assert lines[0] == "ID PROJECT PERIOD SPENT BUDGET USED PER HOUR NEXT PERIOD"
    assert lines[1] == f"{ID} vision month 64.10 EUR 100.00 EUR 64 % 2.50 EUR 2026-12-01"
    assert "(installation) total" in lines[2]
    assert "used up" in lines[2]
    assert run("budget", "list", "--project", "vision").exit_code == 0
    assert known.variables("Budgets")[-1]["project"] == "UHJvamVjdDox"
    assert json.loads(run("budget", "--json").stdout)[0]["account"]["perHour"] == "2.5"


def test_budgets_are_created_changed_and_deleted(known: Any, run: Run) -> None:
    known.answers["CreateBudget"] = lambda _: {"createBudget": {"budget": budget(), "userErrors": []}}
    known.answers["UpdateBudget"] = lambda _: {"updateBudget": {"budget": budget(amount="7"), "userErrors": []}}
    known.answers["DeleteBudget"] = lambda _: {"deleteBudget": {"deletedId": ID, "userErrors": []}}
    made = run("budget", "create", "100", "--project", "vision", "--period", "Month")
    assert (made.stdout.strip(), made.stderr.strip()) == (ID, "Budget of vision: 100.00 EUR each month.")
    assert known.variables("CreateBudget")[0]["input"] == {
        "amount": "100", "period": "MONTH", "project": "UHJvamVjdDox",
    }  # fmt: skip
    assert "7.00 EUR" in run("budget", "update", ID, "7").stdout
    assert run("budget", "delete", ID).stdout.strip() == f"{ID} is deleted"
    wrong = run("budget", "create", "100", "--period", "year")
    assert (wrong.exit_code, "expected one of day, week, month, total" in wrong.stderr) == (2, True)


def test_the_help_shows_examples(run: Run) -> None:
    assert "simulations budget create 500 --project vision" in run("budget", "--help").stdout
    assert "simulations costs --by project --week" in run("costs", "--help").stdout
