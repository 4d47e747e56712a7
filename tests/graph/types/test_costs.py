"""Costs through the API: groups, totals, times, and what is refused. What is added up: tests/db/test_costs.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

World = Any  # the fixture of conftest.py

COSTS = """
query ($groupBy: [CostGroup!], $from: DateTime, $to: DateTime, $project: ID) {
  costs(groupBy: $groupBy, from: $from, to: $to, project: $project) {
    rows { project user machine name tag begin sum { currency amount wasted saved attempts simulations } }
    totals { currency amount wasted saved attempts simulations }
    to hasPrices
  }
}
"""


async def bill(world: World, price: int = 10) -> None:
    """Everything that was assigned so far cost an hour's price, yesterday."""
    await world.select(
        "UPDATE members SET price_per_hour = :price, assigned_at = now() - interval '25 h', "
        "ended_at = now() - interval '24 h'", price=price,
    )  # fmt: skip


async def test_costs_are_grouped_and_have_totals(world: World) -> None:
    await world.running(name="a", tags=["x", "y"])
    await world.running(name="b", project="other")
    await bill(world)
    found = await world.api.data(COSTS, {"groupBy": ["PROJECT", "TAG"]})
    total = {"currency": "USD", "amount": "20", "wasted": "0", "saved": "0", "attempts": 2, "simulations": 2}
    assert found["totals"] == [total]
    rows = [
        (each["project"], each["tag"], each["name"], each["begin"], each["sum"]["amount"]) for each in found["rows"]
    ]
    assert rows == [
        ("default", "x", None, None, "10"), ("default", "y", None, None, "10"), ("other", None, None, None, "10"),
    ]  # fmt: skip
    assert found["hasPrices"] is True
    ungrouped = await world.api.data(COSTS)
    assert (ungrouped["rows"], ungrouped["totals"]) == ([], [total])


async def test_each_attempt_has_its_cost(world: World) -> None:
    supervisor = await world.running()
    await bill(world)
    await world.select("UPDATE members SET share = 0.5")
    query = "query ($id: ID!) { simulation(id: $id) { attempts { cost { amount currency perHour } } cost { amount } } }"
    found = await world.api.data(query, {"id": supervisor.simulation_id})
    assert found["attempts"] == [{"cost": {"amount": "5", "currency": "USD", "perHour": "0"}}]
    assert found["cost"]["amount"] == "5"


async def test_a_time_without_an_offset_is_utc(world: World) -> None:
    await world.running()
    await bill(world)
    half = (datetime.now(UTC) - timedelta(hours=24.5)).replace(tzinfo=None, microsecond=0)
    found = await world.api.data(COSTS, {"from": half.isoformat(), "groupBy": ["DAY"]})
    assert 4.9 < sum(float(each["sum"]["amount"]) for each in found["rows"]) < 5.1
    assert all(datetime.fromisoformat(each["begin"]).hour == 0 for each in found["rows"])


async def test_without_prices_it_is_said(world: World) -> None:
    await world.running()
    found = await world.api.data(COSTS)
    assert found["hasPrices"] is False
    await world.machine("dear", price_per_hour=1)
    assert (await world.api.data(COSTS))["hasPrices"] is True


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"groupBy": ["DAY", "MONTH"]}, "groupBy takes one of DAY, WEEK and MONTH at most."),
        ({"from": "2026-03-02T00:00:00Z", "to": "2026-03-02T00:00:00Z"}, "from must be before to."),
    ],
)
async def test_what_makes_no_sense_is_refused(world: World, variables: Any, sentence: str) -> None:
    assert (await world.api.error(COSTS, variables))["message"] == sentence


async def test_more_groups_than_an_answer_holds_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.costs.MOST_ROWS", 1)
    await world.running(name="a", tags=["x", "y"])
    await bill(world)
    error = await world.api.error(COSTS, {"groupBy": ["TAG"]})
    assert "choose a shorter time or fewer groups" in error["message"]
