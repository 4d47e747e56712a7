"""Where a preempted simulation goes on: on the host of its checkpoint, or elsewhere from zero; and fast machines."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import files, lifecycle, notices
from db.attempts import Claim
from db.events import Actor
from db.running import every
from db.states import FileKind, Reason
from scheduler.planner import Planner
from transitions.begin import hello
from transitions.preempt import preempt
from transitions.settle import Ending, settle

World = Any  # the fixture of conftest.py
USER = Actor("user")


@pytest.fixture
def planner(world: World) -> Planner:
    """With a lease of an hour: a busy machine may take longer for a test than half a minute."""
    return Planner(world.sessions, world.settings.model_copy(update={"lease_seconds": 3600.0}))


async def settled(world: World, simulation_id: int, reason: Reason = Reason.COMPLETED) -> None:
    number = (await world.attempt_of(simulation_id)).number
    async with world.sessions.begin() as session:
        await lifecycle.lock(session, simulation_id)
        assert await settle(session, simulation_id, number, Ending(reason), USER, backoff=timedelta(0))


async def ran(world: World, planner: Planner, simulation_id: int, since: timedelta) -> None:
    """It starts, and has been running for so long."""
    await planner.plan()
    await world.hello(simulation_id)
    await world.execute(
        "UPDATE attempts SET started_at = now() - CAST(:since AS interval), "
        "assigned_at = now() - CAST(:since AS interval) WHERE simulation_id = :id AND ended_at IS NULL",
        since=since, id=simulation_id,
    )  # fmt: skip


async def preempted(world: World, planner: Planner, **given: Any) -> int:
    """A simulation that ran for an hour on the only machine, "home", and was preempted for one that runs there now."""
    await world.machine("home", host="host-1", cpus=1.0)
    simulation_id = await world.simulation("long", max_runtime=timedelta(days=2), preemptible=True, **given)
    await ran(world, planner, simulation_id, timedelta(hours=1))
    async with world.sessions.begin() as session:
        await preempt(session, simulation_id, USER, evidence={})
    await world.simulation("other", priority=1)
    await settled(world, simulation_id, Reason.PREEMPTED)
    await planner.plan()
    await world.machine("away", host="host-2", cpus=1.0)
    return int(simulation_id)


async def test_it_waits_for_the_host_of_its_checkpoint_although_another_one_is_free(
    world: World, planner: Planner
) -> None:
    simulation_id = await preempted(world, planner)
    alike = await world.simulation("alike", cpus=2.0)
    assert (await planner.plan()).assigned == 0
    wait = await world.wait_of(simulation_id)
    assert wait.reason == "MACHINES_BUSY"
    assert wait.detail.startswith("Waits for room on the host of home, where its checkpoint is: ")
    assert "do 1 h of work again" in wait.detail
    assert "checkpoint" not in (await world.wait_of(alike)).detail, "of its own, not of others"

    other = simulation_id + 1
    await settled(world, other)
    assert (await planner.plan()).assigned == 1
    attempt = await world.attempt_of(simulation_id)
    assert (attempt.number, attempt.machine_name) == (2, "home")
    assert (await world.get(simulation_id)).attained >= timedelta(hours=1), "its progress counts"
    async with world.sessions() as session:
        assert await notices.of_simulations(session, [simulation_id]) == {}


async def test_one_whose_checkpoint_is_stored_goes_on_wherever_there_is_room(world: World, planner: Planner) -> None:
    """Stored by the last attempt: by the one before it would be older than what is on the host."""
    await world.machine("home", host="host-1", cpus=1.0)
    simulation_id = await world.simulation("long", max_runtime=timedelta(days=2), preemptible=True)
    await ran(world, planner, simulation_id, timedelta(hours=1))
    attempt = await world.attempt_of(simulation_id)
    async with world.sessions.begin() as session:
        owner = await files.find_owner(session, Claim(attempt.id, attempt.token_digest, "nonce"))
        assert owner is not None
        assert await files.commit(session, owner, FileKind.CHECKPOINT, []) == ()
    async with world.sessions() as session:
        [running] = await every(session)
    assert running.stored_at is not None, "and until then little would be lost"
    async with world.sessions.begin() as session:
        await preempt(session, simulation_id, USER, evidence={})
    await world.simulation("other", priority=1)
    await settled(world, simulation_id, Reason.PREEMPTED)
    await planner.plan()
    await world.machine("away", host="host-2", cpus=1.0)
    assert (await planner.plan()).assigned == 1
    attempt = await world.attempt_of(simulation_id)
    assert (attempt.number, attempt.machine_name) == (2, "away")
    assert (await world.get(simulation_id)).attained >= timedelta(hours=1), "its progress counts"
    async with world.sessions() as session:
        assert await notices.of_simulations(session, [simulation_id]) == {}


async def test_one_that_has_waited_as_long_as_it_ran_begins_from_zero_elsewhere_and_says_so(
    world: World, planner: Planner
) -> None:
    simulation_id = await preempted(world, planner)
    newcomer = await world.simulation("as-it-is", cpus=1.0, priority=-1)
    assert (await planner.plan()).assigned == 1, "one without a checkpoint takes the free machine"
    await settled(world, newcomer)
    await world.execute(
        "UPDATE simulations SET queued_at = now() - interval '61 minutes' WHERE id = :id", id=simulation_id
    )
    planner.forget()
    assert (await planner.plan()).assigned == 1
    attempt = await world.attempt_of(simulation_id)
    assert (attempt.number, attempt.machine_name) == (2, "away")
    row = await world.get(simulation_id)
    assert (row.attained, row.steps_done) == (timedelta(0), None)
    async with world.sessions() as session:
        [notice] = (await notices.of_simulations(session, [simulation_id]))[simulation_id]
    assert (notice.kind, notice.advice) == (
        "CHECKPOINT_LEFT_BEHIND", "Its checkpoint is on the host of home: this attempt begins from zero.",
    )  # fmt: skip
    await world.hello(simulation_id)
    attempt = await world.attempt_of(simulation_id)
    async with world.sessions.begin() as session:
        greeting = await hello(session, Claim(attempt.id, attempt.token_digest, "nonce"))
    assert greeting.limits.max_runtime == timedelta(days=2), "and has its whole time"


async def test_a_machine_on_which_such_runs_were_faster_is_chosen_though_it_costs_more(world: World) -> None:
    settings = world.settings.model_copy(update={"lease_seconds": 3600.0})
    planner = Planner(world.sessions, settings)
    slow = await world.machine("slow", cpus=2.0, price_per_hour=Decimal(2))
    fast = await world.machine("fast", host="host-2", cpus=4.0, price_per_hour=Decimal(6))
    for machine_id, last in ((slow, 101), (fast, 901)):
        measured = await world.simulation("train", machine_id=machine_id)
        await ran(world, planner, measured, timedelta(minutes=10))
        await world.execute(
            "INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value) "
            "VALUES (:id, 1, 'loss', 2, 1, :last, 0.1)", id=measured, last=last,
        )  # fmt: skip
        await settled(world, measured)
    first, second = await world.simulation("train", cpus=2.0), await world.simulation("else", cpus=2.0)
    assert (await planner.plan()).assigned == 2
    machines = [(await world.attempt_of(each)).machine_name for each in (first, second)]
    assert machines == ["fast", "slow"], "half of 6 an hour, nine times as fast, against 2 an hour"
    again = Planner(world.sessions, settings)
    await settled(world, first)
    third = await world.simulation("train", cpus=2.0)
    assert (await again.plan()).assigned == 1
    assert (await world.attempt_of(third)).machine_name == "fast", "and a planner that begins to lead has read it too"
