"""What projects used and how long runs took: the same by one look at all of it as by many at what is new."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import attempts, lifecycle, projects, running
from db.events import Actor
from db.states import Reason
from policy.workload import Project
from scheduler.planner import Planner
from scheduler.queue_memory import lineage_of
from scheduler.record import Record
from settings import Settings
from transitions.settle import Ending, settle

World = Any  # the fixture of conftest.py
USER = Actor("user")
WEEK = timedelta(days=7)


def patient(world: World) -> Settings:
    """A lease of an hour: a busy machine may take longer for a test than half a minute."""
    settings: Settings = world.settings.model_copy(update={"lease_seconds": 3600.0})
    return settings


async def ended(world: World, planner: Planner, hours: float, ago: timedelta = timedelta(0), **given: Any) -> int:
    """A simulation that ran for so many hours, and ended so long ago."""
    simulation_id = await world.simulation(**given)
    await planner.plan()
    await world.hello(simulation_id)
    number = (await world.attempt_of(simulation_id)).number
    async with world.sessions.begin() as session:
        await lifecycle.lock(session, simulation_id)
        assert await settle(session, simulation_id, number, Ending(Reason.COMPLETED), USER, backoff=timedelta(0))
    for table, column in (("attempts", "simulation_id"), ("members", "attempt_id")):
        which = "= :id" if table == "attempts" else "IN (SELECT id FROM attempts WHERE simulation_id = :id)"
        began = ", started_at = now() - CAST(:begin AS interval)" if table == "attempts" else ""
        await world.execute(
            f"UPDATE {table} SET ended_at = now() - CAST(:ago AS interval), "
            f"assigned_at = now() - CAST(:begin AS interval){began} WHERE {column} {which}",
            ago=ago, begin=ago + timedelta(hours=hours), id=simulation_id,
        )  # fmt: skip
    return int(simulation_id)


async def read(world: World, record: Record) -> tuple[dict[int, float], Any]:
    async with world.sessions() as session:
        now = await attempts.clock(session)
        await record.bring_up_to_date(session, now)
        held = await running.every(session)
    return {each.id: each.used for each in record.projects([Project(1)], held, now, {})}, record.learned(())


async def test_use_is_price_times_share_and_decays(world: World) -> None:
    planner, record = Planner(world.sessions, patient(world)), Record(WEEK)
    await world.machine(cpus=4.0, price_per_hour=Decimal(8))
    assert (await read(world, record))[0] == {1: 0.0}
    await ended(world, planner, 2.0)
    now = (await read(world, record))[0][1]
    assert now == pytest.approx(8 / 4 * 2 * 3600, rel=0.02)  # a quarter of the machine, in currency x seconds / hour
    await ended(world, planner, 2.0, WEEK)
    assert (await read(world, Record(WEEK)))[0][1] == pytest.approx(now * 1.5, rel=0.02)
    runs = await world.simulation()
    assert (await planner.plan()).assigned == 1
    await world.execute(
        "UPDATE attempts SET assigned_at = now() - interval '2 hours' WHERE simulation_id = :id", id=runs
    )
    assert (await read(world, Record(WEEK)))[0][1] == pytest.approx(now * 2.5, rel=0.02), "what runs counts, too"


async def test_what_has_ended_since_counts_once_and_as_in_a_look_at_all(world: World) -> None:
    planner, record = Planner(world.sessions, patient(world)), Record(WEEK)
    await world.machine(cpus=4.0)
    await read(world, record)
    for _ in range(3):
        await ended(world, planner, 0.01, name="short")
        await read(world, record)
    await read(world, record)
    step_by_step, learned = await read(world, record)
    at_once, afresh = await read(world, Record(WEEK))
    assert step_by_step == pytest.approx(at_once, rel=0.01)
    row = await world.get(1)
    lineage = lineage_of(row.project_id, "short", row.learning_class)
    assert learned.values(lineage) == afresh.values(lineage)
    assert learned.value(lineage, 0.0) < learned.value((), 0.0) < Record(WEEK).learned(()).value((), 0.0)


async def test_a_weight_counts_also_of_a_project_of_which_nothing_waits(world: World) -> None:
    planner, record = Planner(world.sessions, patient(world)), Record(WEEK)
    await world.machine(cpus=4.0)
    await world.execute("INSERT INTO projects (name, weight) VALUES ('runs', 3), ('ran', 5)")
    async with world.sessions() as session:
        weights = await projects.weights(session)
    runs, ran = sorted(weights, key=lambda each: weights[each])
    await ended(world, planner, 1.0, project_id=ran)
    await world.simulation(project_id=runs)
    await planner.plan()
    async with world.sessions() as session:
        now = await attempts.clock(session)
        await record.bring_up_to_date(session, now)
        found = record.projects([Project(1)], await running.every(session), now, weights)
    assert {each.id: each.weight for each in found} == {1: 1.0, runs: 3.0, ran: 5.0}
