"""Preemption in the leader's round: who makes room for whom, once, and what both are told."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from db import lifecycle, newest_plan, projects
from db.events import Actor
from db.states import Reason
from scheduler import planner as planner_module
from scheduler.planner import Planner
from settings import Settings
from transitions.settle import Ending, settle
from transitions.update import update

World = Any  # the fixture of conftest.py
USER = Actor("user")
SHORT = timedelta(minutes=1)
LONG = timedelta(days=2)


def patient(world: World) -> Settings:
    """A lease of an hour: a busy machine may take longer for a test than half a minute."""
    settings: Settings = world.settings.model_copy(update={"lease_seconds": 3600.0})
    return settings


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, patient(world))


async def running(world: World, planner: Planner, *, since: timedelta = timedelta(hours=1), **given: Any) -> int:
    """A simulation that has been running for so long."""
    simulation_id = await world.simulation(**{"max_runtime": LONG, "preemptible": True, **given})
    await planner.plan()
    await world.hello(simulation_id)
    await world.execute(
        "UPDATE attempts SET started_at = now() - CAST(:since AS interval) WHERE simulation_id = :id",
        since=since, id=simulation_id,
    )  # fmt: skip
    return int(simulation_id)


async def leave(world: World, simulation_id: int) -> None:
    """Its supervisor has stopped it."""
    number = (await world.attempt_of(simulation_id)).number
    async with world.sessions.begin() as session:
        await lifecycle.lock(session, simulation_id)
        ending = Ending(Reason.PREEMPTED)
        assert await settle(session, simulation_id, number, ending, USER, backoff=timedelta(hours=1))


async def test_a_long_run_makes_room_for_a_short_one_and_goes_on_after_it(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    long = await running(world, planner)
    short = await world.simulation("short", max_runtime=SHORT)

    assert (await planner.plan()).preempted == 1

    stop = await world.stop_of(long)
    assert (stop.reason, stop.by, stop.evidence["for"], stop.evidence["order"]) == (
        "PREEMPTED", "scheduler", short, "LESS_WORK",
    )  # fmt: skip
    assert stop.evidence["sentence"].startswith(f"Made room for simulation {short}: ")
    assert await world.state(short) == "QUEUED"
    wait = await world.wait_of(short)
    assert (wait.reason, wait.detail) == ("MACHINES_BUSY", f"Starts on m1 when simulation {long} has stopped.")
    other = await world.simulation("other", max_runtime=timedelta(hours=1))
    again = await planner.tick()
    assert (again.preempted, again.assigned) == (0, 0), "it is on its way, and its room is the short one's"

    await leave(world, long)
    assert (await planner.plan()).assigned == 1
    assert [await world.state(each) for each in (long, short, other)] == ["QUEUED", "STARTING", "QUEUED"]
    [attempt] = await world.attempts_of(long)
    assert (attempt.reason, attempt.reason_detail) == ("PREEMPTED", stop.evidence["sentence"])
    async with world.sessions() as session:
        places = await newest_plan.places_of(session, [other, long])
        assert {each: found.place for each, found in places.items()} == {other: 1, long: 2}
    row = await world.get(long)
    assert row.attained >= timedelta(minutes=50), "its progress counts"


@pytest.mark.parametrize(
    "given", [{"preemptible": False}, {"since": timedelta(seconds=100)}, {"priority": 1}], ids=lambda given: str(given)
)
async def test_what_may_not_be_preempted_is_not(world: World, planner: Planner, given: dict[str, Any]) -> None:
    await world.machine(cpus=1.0)
    long = await running(world, planner, **given)
    await world.simulation("short", max_runtime=SHORT)
    assert (await planner.plan()).preempted == 0
    assert await world.stop_of(long) is None


async def test_what_is_changed_to_be_preemptible_makes_room_at_the_next_change(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    long = await running(world, planner, preemptible=False)
    await world.simulation("short", max_runtime=SHORT)
    await planner.plan()
    await world.execute("UPDATE simulations SET preemptible = true WHERE id = :id", id=long)
    await world.simulation("another", max_runtime=SHORT)
    assert (await planner.plan()).preempted == 1


async def test_a_change_of_what_runs_is_planned_for_without_any_other_change(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    long = await running(world, planner, preemptible=False)
    await world.simulation("short", max_runtime=SHORT)
    await planner.plan()
    async with world.sessions.begin() as session:
        row = await lifecycle.lock(session, long)
        await update(session, row, {"preemptible": True}, USER, stop_grace=timedelta(seconds=1))
    assert (await planner.plan()).preempted == 1


async def test_a_preemption_that_the_world_has_overtaken_is_not_carried_out(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.machine(cpus=1.0)
    long = await running(world, planner)
    short = await world.simulation("short", max_runtime=SHORT)
    judged, loop = planner_module.plan, asyncio.get_running_loop()

    def plan(*arguments: Any, **named: Any) -> Any:
        found = judged(*arguments, **named)
        asyncio.run_coroutine_threadsafe(world.cancel(short), loop).result()
        return found

    monkeypatch.setattr(planner_module, "plan", plan)
    summary = await planner.plan()
    assert (summary.preempted, summary.refused) == (0, 1)
    assert await world.stop_of(long) is None


async def test_two_planners_at_once_make_room_once_and_never_place_twice(world: World, planner: Planner) -> None:
    await world.machine("m1", cpus=1.0)
    await world.machine("m2", host="host-2", cpus=1.0)
    longs = [await running(world, planner), await running(world, planner)]
    short = await world.simulation("short", max_runtime=SHORT)
    rivals = [Planner(world.sessions, patient(world)) for _ in range(4)]

    summaries = await asyncio.gather(*(each.plan() for each in rivals))
    assert sum(each.preempted for each in summaries) == 1
    [left] = [each for each in longs if await world.stop_of(each) is not None]
    await leave(world, left)
    summaries = await asyncio.gather(*(each.plan() for each in rivals))
    assert sum(each.assigned for each in summaries) == 1
    assert len(await world.attempts_of(short)) == 1
    assert await world.state(left) == "QUEUED"


async def test_of_equal_runs_that_of_the_project_which_has_used_less_is_first(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0, price_per_hour=Decimal(1))
    await world.execute("INSERT INTO projects (name) VALUES ('small')")
    async with world.sessions() as session:
        small = (await session.execute(text("SELECT id FROM projects WHERE name = 'small'"))).scalar_one()
    busy = await running(world, planner, preemptible=False)
    first = await world.simulation("big")
    second = await world.simulation("small", project_id=small)
    await planner.plan()
    async with world.sessions() as session:
        places = await newest_plan.places_of(session, [first, second])
        assert {each: found.place for each, found in places.items()} == {second: 1, first: 2}
        assert places[first].ahead_id == second
    number = (await world.attempt_of(busy)).number
    async with world.sessions.begin() as session:
        await lifecycle.lock(session, busy)
        assert await settle(session, busy, number, Ending(Reason.COMPLETED), USER, backoff=timedelta(0))
    await planner.plan()
    assert [await world.state(each) for each in (first, second)] == ["QUEUED", "STARTING"]
    assert (await planner.plan()).preempted == 0


async def test_another_weight_changes_the_order_without_any_other_change(world: World, planner: Planner) -> None:
    for name in ("m1", "m2"):
        await world.machine(name, host=name, cpus=1.0, price_per_hour=Decimal(1))
    await world.execute("INSERT INTO projects (name, weight) VALUES ('other', 2)")
    async with world.sessions() as session:
        other = (await session.execute(text("SELECT id FROM projects WHERE name = 'other'"))).scalar_one()
    await running(world, planner, preemptible=False)
    await running(world, planner, preemptible=False, project_id=other)
    first = await world.simulation("first")
    second = await world.simulation("second", project_id=other)

    async def order() -> list[int]:
        async with world.sessions() as session:
            places = await newest_plan.places_of(session, [first, second])
        return sorted(places, key=lambda each: places[each].place)

    await planner.plan()
    assert await order() == [second, first], "its project has used as much, and has twice the weight"
    async with world.sessions.begin() as session:
        default = (await session.execute(text("SELECT id FROM projects WHERE name = 'default'"))).scalar_one()
        await projects.change(session, default, {"weight": Decimal(10)}, USER)
    await planner.plan()
    assert await order() == [first, second]


async def test_a_reservation_is_written_down_with_the_time_at_which_it_begins(world: World, planner: Planner) -> None:
    await world.machine(cpus=2.0)
    await running(world, planner, preemptible=False, max_runtime=timedelta(hours=3))
    wide = await world.simulation("wide", cpus=2.0, max_runtime=SHORT)
    gap = await world.simulation("gap", max_runtime=timedelta(hours=12))
    await planner.plan()
    async with world.sessions() as session:
        [kept, *_] = await newest_plan.reservations(session)
    assert kept.simulation_id == wide
    assert await world.waiting(gap) == "RESERVED"
    await world.cancel(wide)
    await world.cancel(gap)
    await planner.plan()
    async with world.sessions() as session:
        assert await newest_plan.reservations(session) == []
