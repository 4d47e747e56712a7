"""Budgets in real processes: a budget of a cent; fifty starts of two schedulers that are killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from live import Service, eventually, kill, part_on, service_on

SETTINGS = {
    "SIMULATIONS_TICK_SECONDS": "0.3", "SIMULATIONS_HEARTBEAT_SECONDS": "0.5", "SIMULATIONS_STOP_GRACE_SECONDS": "5",
    "SIMULATIONS_LOCAL_MACHINE": "false",
}  # fmt: skip
SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
ONE_CPU: dict[str, Any] = {"resources": {"cpus": 1}}
SCHEDULER = ("-m", "scheduler")


@pytest.fixture
def priced(database_url: str) -> Iterator[Service]:
    with service_on(database_url, **SETTINGS) as service:
        yield service


async def machine(service: Service, cpus: int, price_per_cpu: int) -> None:
    await eventually(lambda: service.says("SELECT count(*) > 0 FROM hosts"), "a host is known")
    [[host]] = await service.fetch("SELECT id FROM hosts LIMIT 1")
    wanted = {"name": "m", "cpus": cpus, "memoryGib": 1, "pricePerHour": str(cpus * price_per_cpu), "host": host}
    made = await service.execute(
        "mutation ($input: CreateMachineInput!) { createMachine(input: $input) { userErrors { message } } }",
        input=wanted,
    )
    assert made["createMachine"]["userErrors"] == []


async def budget(service: Service, amount: str) -> Any:
    """A budget of the project `default`, for ever."""
    found = await service.execute("{ projects(first: 100) { nodes { id name } } }")
    project = next(each["id"] for each in found["projects"]["nodes"] if each["name"] == "default")
    made = await service.execute(
        "mutation ($input: CreateBudgetInput!) "
        "{ createBudget(input: $input) { budget { id } userErrors { message } } }",
        input={"project": project, "amount": amount, "period": "TOTAL"},
    )
    assert made["createBudget"]["userErrors"] == []
    return made["createBudget"]["budget"]["id"]


async def spent(service: Service, budget_id: str) -> Decimal:
    found = await service.execute("query ($id: ID!) { budget(id: $id) { account { spent } } }", id=budget_id)
    return Decimal(found["budget"]["account"]["spent"])


async def test_a_budget_of_a_cent_stops_what_it_must_and_lets_the_rest_wait(priced: Service) -> None:
    await priced.up()
    # The reserve of 5.8 s costs 0.64 cents; what obeys at once needs little of it, which leaves time to a busy machine.
    await machine(priced, cpus=4, price_per_cpu=4)
    budget_id = await budget(priced, "0.01")
    first = await priced.submit(*SLEEP, **ONE_CPU, name="first")
    await priced.until(first, "RUNNING", "FAILED")
    others = [await priced.submit(*SLEEP, **ONE_CPU, name=f"other {number}") for number in range(2)]
    elsewhere = await priced.submit(*SLEEP, **ONE_CPU, name="elsewhere", project="another")

    await priced.until(first, "FAILED")

    shown = await priced.show(first)
    assert (shown["reason"], len(shown["attempts"])) == ("BUDGET_EXHAUSTED", 1)
    [stop] = [each for each in shown["events"] if each["kind"] == "STOP_WANTED"]
    assert stop["detail"]["reason"] == "BUDGET_EXHAUSTED"
    assert "The total budget of project default is used up" in stop["detail"]["evidence"]["sentence"]
    waiting = "query ($id: ID!) { simulation(id: $id) { state waiting { reason detail } } }"
    for each in others:
        seen: list[Any] = []

        async def waits(each: str = each, seen: list[Any] = seen) -> bool:
            seen.append((await priced.execute(waiting, id=each))["simulation"])
            return "is used up" in str(seen[-1]["waiting"])

        await eventually(waits, "it waits with its reason")
        assert (seen[-1]["state"], seen[-1]["waiting"]["reason"]) == ("QUEUED", "BUDGET_EXHAUSTED")
    await priced.until(elsewhere, "RUNNING")
    assert 0 < await spent(priced, budget_id) <= Decimal("0.01")


async def test_fifty_starts_two_schedulers_and_kill_9_overspend_by_no_more_than_the_reserve(database_url: str) -> None:
    """Each costs a cent a second and ignores SIGTERM; the budget pays for the reserve of six of them."""
    reserve_seconds = Decimal("5.8")
    amount = Decimal("0.01") * reserve_seconds * 6 + Decimal("0.002")
    with service_on(database_url, **SETTINGS) as service, part_on(database_url, SCHEDULER, SETTINGS) as second:
        await service.up()
        await machine(service, cpus=50, price_per_cpu=36)
        budget_id = await budget(service, str(amount))
        second.start()
        await eventually(lambda: service.says("SELECT count(*) = 2 FROM hosts"), "a second scheduler")
        await asyncio.gather(*[service.submit(*STUBBORN, **ONE_CPU, name=f"s{number}") for number in range(50)])
        await eventually(lambda: service.says("SELECT count(*) > 0 FROM members"), "some start")
        kill(service.child("scheduler"))  # the leader: it was first; the other one takes over
        ended = "SELECT bool_and(ended_at IS NOT NULL) FROM members"
        await eventually(lambda: service.says(ended), "all that started end")

        [[started]] = await service.fetch("SELECT count(*) FROM members")
        assert 1 <= started <= 6
        assert 0 < await spent(service, budget_id) <= amount + Decimal("0.01") * reserve_seconds * started
        states = await service.fetch("SELECT state, reason, count(*) FROM simulations GROUP BY 1, 2 ORDER BY 1")
        assert [tuple(row) for row in states] == [
            ("FAILED", "BUDGET_EXHAUSTED", started), ("QUEUED", None, 50 - started),
        ]  # fmt: skip
