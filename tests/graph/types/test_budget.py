"""Budgets through the API: created, changed, deleted, listed; who sees and changes them; their accounts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from db.public_ids import encode

World = Any  # the fixture of conftest.py

FIELDS = """
  id period amount currency createdBy project { name }
  account { spent remaining percent perHour isUsedUp lastsUntil periodBegin periodEnd }
"""
ERRORS = "userErrors { code message field }"
CREATE = f"mutation ($input: CreateBudgetInput!) {{ createBudget(input: $input) {{ budget {{ {FIELDS} }} {ERRORS} }} }}"
UPDATE = f"mutation ($input: UpdateBudgetInput!) {{ updateBudget(input: $input) {{ budget {{ {FIELDS} }} {ERRORS} }} }}"
DELETE = f"mutation ($id: ID!) {{ deleteBudget(input: {{id: $id}}) {{ deletedId {ERRORS} }} }}"
LIST = f"query ($project: ID) {{ budgets(project: $project) {{ nodes {{ {FIELDS} }} edges {{ cursor }} }} }}"
SHOW = f"query ($id: ID!) {{ budget(id: $id) {{ {FIELDS} }} node(id: $id) {{ id ... on Budget {{ amount }} }} }}"
DEFAULT = encode("Project", 1)


async def made(world: World, **given: Any) -> Any:
    payload = await world.api.data(CREATE, {"input": {"amount": "100", **given}})
    assert payload["userErrors"] == [], payload
    return payload["budget"]


async def test_a_budget_has_an_account_of_its_current_period(world: World) -> None:
    budget = await made(world, project=DEFAULT, amount="12.50")
    assert (budget["period"], budget["amount"], budget["currency"]) == ("MONTH", "12.5", "USD")
    assert budget["project"] == {"name": "default"}
    account = budget["account"]
    assert (account["spent"], account["remaining"], account["percent"]) == ("0", "12.5", 0)
    assert (account["perHour"], account["isUsedUp"], account["lastsUntil"]) == ("0", False, None)
    begin, end = (datetime.fromisoformat(account[key]) for key in ("periodBegin", "periodEnd"))
    assert begin <= datetime.now(UTC) < end
    assert begin.day == end.day == 1

    await world.running()
    await world.select("UPDATE members SET price_per_hour = 360, assigned_at = now() - interval '5 s'")
    shown = await world.api.execute(SHOW, {"id": budget["id"]})
    account = shown["data"]["budget"]["account"]
    assert Decimal("0.5") <= Decimal(account["spent"]) < 12
    assert Decimal(account["remaining"]) == Decimal("12.5") - Decimal(account["spent"])
    assert account["perHour"] == "360"
    assert datetime.fromisoformat(account["lastsUntil"]) > datetime.now(UTC)
    assert shown["data"]["node"] == {"id": budget["id"], "amount": "12.5"}


async def test_a_project_has_one_budget_for_each_period(world: World) -> None:
    await made(world, project=DEFAULT)
    await made(world)
    await made(world, project=DEFAULT, period="DAY")
    for given, sentence in (
        ({"project": DEFAULT}, "This project has a budget for this period: change that one."),
        ({}, "The installation has a budget for this period: change that one."),
    ):
        payload = await world.api.data(CREATE, {"input": {"amount": "1", **given}})
        assert payload["budget"] is None
        assert payload["userErrors"] == [{"code": "TAKEN", "message": sentence, "field": ["period"]}]
    found = await world.api.data(LIST)
    assert [(each["project"], each["period"]) for each in found["nodes"]] == [
        ({"name": "default"}, "MONTH"), (None, "MONTH"), ({"name": "default"}, "DAY"),
    ]  # fmt: skip
    assert len((await world.api.data(LIST, {"project": DEFAULT}))["nodes"]) == 2


async def test_bad_input_is_a_user_error(world: World) -> None:
    for given, field in (
        ({"amount": "-1"}, ["amount"]),
        ({"amount": "0.0000001"}, ["amount"]),
        ({"amount": "NaN"}, ["amount"]),
        ({"amount": "1", "project": encode("Machine", 1)}, ["project"]),
        ({"amount": "1", "project": encode("Project", 99)}, ["project"]),
    ):
        payload = await world.api.data(CREATE, {"input": given})
        assert [each["field"] for each in payload["userErrors"]] == [field], given
    missing = encode("Budget", 99)
    for payload in (
        await world.api.data(UPDATE, {"input": {"id": missing, "amount": "1"}}),
        await world.api.data(DELETE, {"id": missing}),
    ):
        assert payload["userErrors"] == [{"code": "NOT_FOUND", "message": "There is no such budget.", "field": ["id"]}]


async def test_a_changed_budget_is_open_again_and_a_deleted_one_is_gone(world: World) -> None:
    budget = await made(world, amount="0")
    assert budget["account"]["isUsedUp"]
    assert budget["account"]["percent"] == 100
    changed = await world.api.data(UPDATE, {"input": {"id": budget["id"], "amount": "7"}})
    assert (changed["budget"]["amount"], changed["budget"]["account"]["isUsedUp"]) == ("7", False)
    assert (await world.api.data(DELETE, {"id": budget["id"]}))["deletedId"] == budget["id"]
    assert (await world.api.data(LIST))["nodes"] == []
    again = await made(world, amount="1")
    events = await world.api.data("query ($id: ID!) { budget(id: $id) { events { kind actor detail } } }", again)
    assert [(each["kind"], each["detail"]["amount"]) for each in events["events"]] == [("CREATED", "1.000000")]
    kinds = await world.select("SELECT kind FROM events WHERE object_type = 'Budget' ORDER BY id")
    assert [kind for (kind,) in kinds] == ["CREATED", "UPDATED", "DELETED", "CREATED"]
