"""What is held (paused, or waiting for others) in the planner: no candidate, a sentence, an arrival when released."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from db.events import Actor
from db.simulations import repetition
from db.states import Reason
from policy.dependencies import DependencyCondition
from scheduler.planner import Planner
from transitions.pause import pause, resume
from transitions.settle import Ending, settle
from transitions.submit import After, Submission, submit

World = Any  # the fixture of conftest.py
USER = Actor("user")


@pytest.fixture
def planner(world: World) -> Planner:
    return Planner(world.sessions, world.settings)


async def after(world: World, *others: int, condition: DependencyCondition = DependencyCondition.SUCCESS) -> int:
    example = await world.get(others[0])
    async with world.sessions.begin() as session:
        links = [After(condition, simulation_id=each) for each in others]
        wanted = repetition(example)
        [row] = await submit(session, [Submission(wanted, after=links)], USER)
        return row.id


async def end(world: World, simulation_id: int, reason: Reason = Reason.COMPLETED) -> None:
    attempt = await world.attempt_of(simulation_id)
    async with world.sessions.begin() as session:
        assert await settle(session, simulation_id, attempt.number, Ending(reason), USER, backoff=timedelta(0))


async def change(world: World, verb: Any, simulation_id: int) -> None:
    async with world.sessions.begin() as session:
        await verb(session, simulation_id, USER)


async def test_a_dependent_gets_its_machine_in_the_round_after_the_end(world: World, planner: Planner) -> None:
    await world.machine()
    first = await world.simulation("prep")
    second, third = await after(world, first), await after(world, first)
    assert (await planner.plan()).assigned == 1
    wait = await world.wait_of(second)
    assert (wait.reason, wait.detail) == ("DEPENDENCY", "It waits for the success of prep, which is STARTING.")
    assert (await planner.plan()).assigned == 0
    await end(world, first)
    assert (await planner.plan()).assigned == 2
    assert [await world.state(each) for each in (second, third)] == ["STARTING", "STARTING"]


async def test_a_paused_one_keeps_others_waiting_for_nothing(world: World, planner: Planner) -> None:
    await world.machine(cpus=1.0)
    first, second = await world.simulation("first"), await world.simulation("second")
    await change(world, pause, first)
    assert (await planner.plan()).assigned == 1
    assert await world.state(second) == "STARTING"
    wait = await world.wait_of(first)
    assert (wait.reason, wait.detail) == ("PAUSED", "It is paused: it is planned again when it is resumed.")
    await end(world, second)
    assert (await planner.plan()).assigned == 0
    await change(world, resume, first)
    assert (await planner.plan()).assigned == 1


async def test_a_pause_between_the_judgement_and_the_assignment_wins(
    world: World, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.machine()
    first, second = await world.simulation("first"), await world.simulation("second")
    carry_out = planner._execution.carry_out

    async def paused(*given: Any) -> Any:
        await change(world, pause, first)
        return await carry_out(*given)

    monkeypatch.setattr(planner._execution, "carry_out", paused)
    summary = await planner.plan()
    assert (summary.assigned, summary.refused) == (1, 1)
    assert [await world.state(each) for each in (first, second)] == ["QUEUED", "STARTING"]


async def test_a_paused_dependent_waits_for_both(world: World, planner: Planner) -> None:
    await world.machine()
    first = await world.simulation("prep")
    second = await after(world, first, condition=DependencyCondition.ANY)
    await change(world, pause, second)
    await planner.plan()
    assert await world.waiting(second) == "PAUSED"
    await change(world, resume, second)
    assert await world.waiting(second) == "DEPENDENCY"
    await change(world, pause, second)
    await end(world, first, Reason.EXIT_CODE)
    assert (await planner.plan()).assigned == 0
    await change(world, resume, second)
    assert (await planner.plan()).assigned == 1
