"""Changes of a simulation: once, with their event, with the order of what runs, and never its state."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import lifecycle
from db.errors import WrongState
from policy.rule_documents import Declared, encode
from policy.stopping import StopRules
from transitions.update import update

Rows = Any  # the fixture of conftest.py

GRACE = timedelta(seconds=10)
RULES = encode([Declared(StopRules("loss", patience=3), since_step=4)])


async def change(rows: Rows, simulation_id: int, **asked: Any) -> Any:
    async with rows.sessions.begin() as session:
        simulation = await lifecycle.lock(session, simulation_id)
        return await update(session, simulation, asked, rows.user, stop_grace=GRACE)


async def amended(rows: Rows, simulation_id: int) -> Any:
    return await rows.value("SELECT amended FROM attempts WHERE simulation_id = :id", id=simulation_id)


async def test_before_its_hello_an_attempt_has_no_order_to_change(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await rows.assign(simulation_id)
    await change(rows, simulation_id, stopping=RULES)
    assert await amended(rows, simulation_id) is None


async def test_a_running_attempt_gets_all_that_holds_by_then(rows: Rows) -> None:
    started = await rows.start()
    await change(rows, started.simulation_id, name="other", tags=("x",))
    assert await amended(rows, started.simulation_id) is None, "its order has none of that"
    await change(rows, started.simulation_id, max_runtime=timedelta(hours=1))
    expected = {"is_judged": False, "max_runtime_seconds": 3600.0, "max_cost_seconds": None}
    assert await amended(rows, started.simulation_id) == expected
    await change(rows, started.simulation_id, stopping=RULES, max_cost=Decimal(1))
    found = await amended(rows, started.simulation_id)
    assert (found["is_judged"], found["max_runtime_seconds"]) == (True, 3600.0)
    assert 9000 < found["max_cost_seconds"] <= 3600 / 0.375 - 10, "what waited for its hello and the grace are paid"
    receipt = await rows.report(started, None)
    assert receipt.amended == found


async def test_the_same_change_again_records_nothing_and_rules_count_from_where_they_did(rows: Rows) -> None:
    started = await rows.start()
    await change(rows, started.simulation_id, stopping=RULES, priority=2)
    before = await rows.snapshot(started.simulation_id)
    again = encode([Declared(StopRules("loss", patience=3), since_step=99)])
    await change(rows, started.simulation_id, stopping=again, priority=2)
    assert await rows.snapshot(started.simulation_id) == before
    [row] = before["simulation"]
    assert (row["stopping_revision"], row["state"]) == (1, "RUNNING")


async def test_a_priority_brings_a_queued_one_before_the_planner_again(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    [before] = (await rows.snapshot(simulation_id))["simulation"]
    await change(rows, simulation_id, tags=("x",), notes="a note")
    [noted] = (await rows.snapshot(simulation_id))["simulation"]
    await change(rows, simulation_id, priority=9)
    [after] = (await rows.snapshot(simulation_id))["simulation"]
    assert before["queued_xid"] == noted["queued_xid"] < after["queued_xid"]


async def test_a_new_name_of_a_queued_one_is_planned_anew_since_its_work_is_learned_by_its_name(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    [before] = (await rows.snapshot(simulation_id))["simulation"]
    await change(rows, simulation_id, name="renamed")
    [after] = (await rows.snapshot(simulation_id))["simulation"]
    assert before["queued_xid"] < after["queued_xid"]
    assert before["learning_class"] != after["learning_class"]


async def test_an_ended_one_changes_its_name_and_nothing_that_it_was_judged_by(rows: Rows) -> None:
    started = await rows.start()
    await rows.end(started.simulation_id, started.number)
    assert (await change(rows, started.simulation_id, name="kept")).name == "kept"
    with pytest.raises(WrongState):
        await change(rows, started.simulation_id, stopping=RULES)
