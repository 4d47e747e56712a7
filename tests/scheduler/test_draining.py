"""Drains with a deadline: what still runs then is preempted; drained machines that come back; changed prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import billing, events, machines
from db.events import Actor
from db.states import Reason
from policy.cost import cost_so_far
from scheduler.planner import Planner
from transitions.cancel import cancel
from transitions.settle import Ending, settle

World = Any  # the fixture of conftest.py
USER = Actor("user")
PAST = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


async def drain(world: World, machine_id: int, deadline: datetime | None = None) -> None:
    async with world.sessions.begin() as session:
        await machines.drain(session, machine_id, USER, deadline=deadline)


async def end(world: World, simulation_id: int) -> None:
    attempt = await world.attempt_of(simulation_id)
    async with world.sessions.begin() as session:
        ending = Ending(Reason.EXIT_CODE, exit_code=143)
        assert await settle(session, simulation_id, attempt.number, ending, USER, backoff=timedelta(hours=1))


async def test_what_still_runs_at_the_deadline_starts_elsewhere_and_uses_up_no_retry(
    world: World, planner: Planner
) -> None:
    first = await world.machine("m1")
    simulation_id = await world.simulation(max_retries=0)
    await planner.tick()
    await world.hello(simulation_id)
    await world.machine("m2", host="host-2")
    elsewhere = await world.simulation(cpus=4.0)
    await planner.tick()
    await world.hello(elsewhere)

    await drain(world, first, datetime.now(UTC) + timedelta(hours=1))
    await planner.tick()
    assert await world.stop_of(simulation_id) is None, "before the deadline nothing is stopped"

    await drain(world, first, PAST)
    await planner.tick()
    wanted = await world.stop_of(simulation_id)
    assert (wanted.reason, wanted.by) == (Reason.PREEMPTED, "scheduler")
    sentence = "m1 was drained until 2026-01-01 12:30 UTC."
    assert wanted.evidence == {"machine": "m1", "deadline": "2026-01-01T12:30:00+00:00", "sentence": sentence}
    assert await world.stop_of(elsewhere) is None
    await planner.tick()
    assert await world.stop_of(simulation_id) == wanted, "one intent, however many rounds"

    await end(world, simulation_id)
    [ended] = await world.attempts_of(simulation_id)
    assert (ended.reason, ended.reason_detail) == (Reason.PREEMPTED, sentence)
    assert await world.waiting(simulation_id) != "BACKOFF"
    await end(world, elsewhere)
    await planner.tick()
    attempt = await world.attempt_of(simulation_id)
    assert (attempt.number, attempt.machine_name) == (2, "m2")
    await end(world, simulation_id)
    assert await world.state(simulation_id) == "FAILED", "it has no retry, and still has none"


async def test_what_is_not_launched_yet_is_assigned_anew_at_once(world: World, planner: Planner) -> None:
    first = await world.machine("m1")
    simulation_id = await world.simulation(max_retries=0)
    await planner.tick()
    await world.machine("m2", host="host-2")
    await drain(world, first, PAST)
    await planner.tick()
    await planner.tick()
    assert [each.machine_name for each in await world.attempts_of(simulation_id)] == ["m1", "m2"]


async def test_a_cancellation_stands_and_what_may_run_only_there_waits(world: World, planner: Planner) -> None:
    machine = await world.machine("m1")
    cancelled, bound = await world.simulation(), await world.simulation(machine_id=machine, machine_name="m1")
    await planner.tick()
    for each in (cancelled, bound):
        await world.hello(each)
    async with world.sessions.begin() as session:
        await cancel(session, cancelled, USER)
    await drain(world, machine, PAST)
    await planner.tick()
    assert (await world.stop_of(cancelled)).reason is Reason.CANCELLED
    await end(world, bound)
    await planner.tick()
    assert await world.waiting(bound) == "NO_MACHINE_FITS"
    assert "draining" in (await world.wait_of(bound)).detail
    async with world.sessions.begin() as session:
        await machines.resume(session, machine, USER)
        assert (await machines.get(session, machine)).drain_deadline is None
    assert (await planner.tick()).assigned == 1


async def test_draining_again_changes_or_removes_the_deadline_and_not_the_beginning(world: World) -> None:
    machine = await world.machine("m1")
    later = datetime.now(UTC) + timedelta(hours=2)
    await drain(world, machine, later)
    async with world.sessions() as session:
        begun = await machines.drained_at(session, [machine])
    await drain(world, machine, later)
    await drain(world, machine, None)
    async with world.sessions() as session:
        assert (await machines.get(session, machine)).drain_deadline is None
        assert await machines.drained_at(session, [machine]) == begun
        found = await events.list_of(session, "Machine", machine)
    assert [each.kind for each in found] == ["JOINED", "DRAINED", "UPDATED"]


async def test_a_drained_machine_that_comes_back_is_still_drained_and_its_deadline_counts(
    world: World, planner: Planner
) -> None:
    machine = await world.machine("m1")
    simulation_id = await world.simulation()
    await planner.tick()
    await world.hello(simulation_id)
    await drain(world, machine, PAST)
    await world.execute("UPDATE machines SET heartbeat_at = NULL WHERE id = :id", id=machine)
    assert await world.machine("m1", cpus=8.0) == machine  # its engine finds it again
    waiting = await world.simulation()
    await planner.tick()
    assert (await world.stop_of(simulation_id)).reason is Reason.PREEMPTED
    assert await world.state(waiting) == "QUEUED"
    assert "draining" in (await world.wait_of(waiting)).detail


async def test_a_changed_price_counts_for_attempts_assigned_after_it(world: World, planner: Planner) -> None:
    await world.host()
    async with world.sessions.begin() as session:
        wanted = machines.Declared("part", world.host_id, 2.0, 4.0, 0, None, {}, Decimal(2))
        machine = (await machines.declare(session, wanted, USER)).id
    simulation_id = await world.simulation(cpus=1.0)
    await planner.tick()
    await world.hello(simulation_id)
    async with world.sessions.begin() as session:
        await machines.change(session, machine, {"price_per_hour": Decimal(10)}, USER)
    await drain(world, machine, PAST)
    await planner.tick()
    await world.execute("UPDATE members SET assigned_at = now() - interval '1 hour'")
    await end(world, simulation_id)
    async with world.sessions.begin() as session:
        await machines.resume(session, machine, USER)
    await planner.tick()
    found = await world.attempts_of(simulation_id)
    assert [(each.price_per_hour, each.share) for each in found] == [
        (Decimal(2), Decimal("0.5")), (Decimal(10), Decimal("0.5")),
    ]  # fmt: skip
    async with world.sessions() as session:
        held = (await billing.of_simulations(session, [simulation_id]))[simulation_id]
    assert cost_so_far(each for each in held if not each.is_open) == pytest.approx(Decimal(1), abs=Decimal("0.01"))
