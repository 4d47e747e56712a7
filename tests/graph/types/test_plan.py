"""The plan through the API: what holds the machines and until when, and what is reserved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import newest_plan
from db.events import PLANNER
from db.newest_plan import QueueOrder, Reservation
from db.public_ids import decode
from transitions.preempt import preempt

World = Any  # the fixture of conftest.py

PLAN = """
query ($first: Int! = 50, $after: String) {
  plan {
    now queued
    machines(first: $first, after: $after) {
      nodes { name holds { kind share preemptible begin expectedEnd latestEnd simulation { id } } }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""
WAITS = "query ($id: ID!) { simulation(id: $id) { queuePosition estimatedStart } }"
PLACE = "query ($id: ID!) { simulation(id: $id) { queuePosition ahead { rule detail simulation { id } } } }"
STOPS = "query ($id: ID!) { simulation(id: $id) { stopWanted { reason detail } } }"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_machines_are_shown_with_what_holds_them_and_until_when(world: World) -> None:
    first, second = await world.machine("a"), await world.machine("b")
    limited = await world.simulation(limits={"maxRuntimeSeconds": 3600, "maxSteps": 101}, preemptible=True)
    supervisor = await world.attempt(limited, first)
    await supervisor.hello()
    await supervisor.loss(1, 51)
    await world.select("UPDATE attempts SET started_at = now() - interval '100 seconds'")
    waits = await world.simulation()
    soon = datetime(2031, 5, 17, 9, 30, tzinfo=UTC)
    async with world.sessions.begin() as session:
        await newest_plan.write(session, QueueOrder([decode(waits)[1]], " "))
        await newest_plan.write_single(session, [Reservation(decode(waits)[1], (second,), soon)], {})

    plan = await world.api.data(PLAN)
    assert plan["queued"] == 1
    [a, b] = plan["machines"]["nodes"]
    assert [a["name"], b["name"]] == ["a", "b"]
    [held], [kept] = a["holds"], b["holds"]
    assert (held["kind"], held["simulation"], held["preemptible"]) == ("HELD", {"id": limited}, True)
    assert at(held["latestEnd"]) - at(plan["now"]) == pytest.approx(timedelta(seconds=3500), abs=timedelta(seconds=60))
    assert at(plan["now"]) < at(held["expectedEnd"]) < at(held["latestEnd"])
    assert (kept["kind"], kept["simulation"], at(kept["begin"])) == ("RESERVED", {"id": waits}, soon)
    assert (kept["share"], kept["expectedEnd"], kept["latestEnd"]) == (None, None, None)

    found = await world.api.data(WAITS, {"id": waits})
    assert (found["queuePosition"], at(found["estimatedStart"])) == (1, soon)
    running = await world.api.data(WAITS, {"id": limited})
    assert running == {"queuePosition": None, "estimatedStart": None}


async def test_each_place_says_what_is_directly_before_it_and_by_which_rule(world: World) -> None:
    first, second, gone = [await world.simulation() for _ in range(3)]
    numbers = [decode(each)[1] for each in (first, gone, second)]
    async with world.sessions.begin() as session:
        await newest_plan.write(session, QueueOrder(numbers, " PF"))
    await world.select("DELETE FROM simulations WHERE id = " + str(numbers[1]))
    assert await world.api.data(PLACE, {"id": first}) == {"queuePosition": 1, "ahead": None}
    found = await world.api.data(PLACE, {"id": second})
    detail = f"Simulation {numbers[1]} is directly before it: its project has used less of its share."
    assert found == {"queuePosition": 3, "ahead": {"rule": "FAIR_SHARE", "detail": detail, "simulation": None}}


async def test_the_plan_has_pages(world: World) -> None:
    for name in "cab":
        await world.machine(name)
    page = (await world.api.data(PLAN, {"first": 2}))["machines"]
    assert [each["name"] for each in page["nodes"]] == ["a", "b"]
    after = page["pageInfo"]["endCursor"]
    rest = (await world.api.data(PLAN, {"first": 2, "after": after}))["machines"]
    assert [each["name"] for each in rest["nodes"]] == ["c"]
    assert not rest["pageInfo"]["hasNextPage"]


async def test_a_run_that_makes_room_is_shown_with_the_sentence_of_the_decision(world: World) -> None:
    supervisor = await world.running()
    sentence = "Made room for simulation 12."
    async with world.sessions.begin() as session:
        evidence = {"for": 12, "order": "LESS_WORK", "sentence": sentence}
        assert await preempt(session, decode(supervisor.simulation_id)[1], PLANNER, evidence=evidence)

    shown = await world.api.data(STOPS, {"id": supervisor.simulation_id})
    assert shown["stopWanted"] == {"reason": "PREEMPTED", "detail": sentence}
    [machine] = (await world.api.data(PLAN))["machines"]["nodes"]
    assert [each["kind"] for each in machine["holds"]] == ["LEAVING"]
    await supervisor.send(exit={"exitCode": 0, "reason": "PREEMPTED"})
    history = "query ($id: ID!) { simulation(id: $id) { attempts { reason reasonDetail } } }"
    found = await world.api.data(history, {"id": supervisor.simulation_id})
    assert found["attempts"] == [{"reason": "PREEMPTED", "reasonDetail": sentence}]
