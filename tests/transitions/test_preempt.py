"""Preemption: back to the queue at once, without a retry; any stop that ends the simulation replaces it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from db import lifecycle
from db.events import Actor
from db.states import Reason
from policy.retry import Exit
from transitions.cancel import cancel
from transitions.ingest import ingest
from transitions.preempt import preempt
from transitions.report import HEARTBEAT, Report
from transitions.settle import STOPPED_EARLY, Ending, settle
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
Started = Any  # what it gives for a running simulation
OTHER = Actor("other")
BACKOFF = timedelta(seconds=5)


async def preempted(rows: Rows, simulation_id: int, **given: Any) -> bool:
    async with rows.sessions.begin() as session:
        return await preempt(session, simulation_id, OTHER, **given)


async def leave(rows: Rows, started: Started, reason: str = "PREEMPTED") -> None:
    """Its supervisor has stopped it, and reports that."""
    await ingest(rows.sessions, started.claim, Report(1, exit=Exit(None, 15, reason)), backoff=BACKOFF)


async def test_a_preempted_attempt_goes_back_to_the_queue_at_once_and_the_next_begins_without_its_intent(
    rows: Rows,
) -> None:
    started = await rows.start(await rows.simulation(max_retries=0))
    assert await preempted(rows, started.simulation_id, evidence={"for": 7})
    receipt = await ingest(rows.sessions, started.claim, HEARTBEAT, backoff=BACKOFF)
    assert receipt.stop_reason is Reason.PREEMPTED
    assert (await rows.stop_of(started.simulation_id)).reason is Reason.PREEMPTED
    await leave(rows, started)

    simulation = await rows.get(started.simulation_id)
    assert (simulation.state, simulation.reason) == ("QUEUED", None)
    assert await rows.value("SELECT queued_at - ended_at FROM simulations, attempts") == timedelta(0)
    assert await rows.stop_of(started.simulation_id) is None
    [attempt] = (await rows.snapshot(started.simulation_id))["attempts"]
    assert (attempt["reason"], attempt["stop_evidence"]) == ("PREEMPTED", {"for": 7})
    events = (await rows.snapshot(started.simulation_id))["events"][-2:]
    assert [(each["kind"], each["detail"]["reason"]) for each in events] == [
        ("STOP_WANTED", "PREEMPTED"), ("QUEUED", "PREEMPTED"),
    ]  # fmt: skip
    assert events[0]["detail"]["evidence"] == {"for": 7}

    second = await rows.start(started.simulation_id)
    assert second.number == 2
    assert (await ingest(rows.sessions, second.claim, HEARTBEAT, backoff=BACKOFF)).stop_reason is None
    assert await rows.state(started.simulation_id) == "RUNNING"


async def test_preemptions_use_up_no_retry_and_lengthen_no_backoff(rows: Rows) -> None:
    simulation_id = await rows.simulation(max_retries=1, retry_on=("EXIT_CODE",))
    for _ in range(3):
        started = await rows.start(simulation_id)
        assert await preempted(rows, simulation_id)
        await leave(rows, started)
    failed = await rows.start(simulation_id)
    await ingest(rows.sessions, failed.claim, Report(1, exit=Exit(1)), backoff=BACKOFF)
    assert await rows.state(simulation_id) == "QUEUED"
    assert await rows.value("SELECT queued_at - (SELECT max(ended_at) FROM attempts) FROM simulations") == BACKOFF
    failed = await rows.start(simulation_id)
    await ingest(rows.sessions, failed.claim, Report(1, exit=Exit(1)), backoff=BACKOFF)
    assert await rows.state(simulation_id) == "FAILED"


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.MAX_RUNTIME, Reason.UNWATCHED])
async def test_a_stop_that_ends_the_simulation_replaces_a_preemption_and_never_the_reverse(
    reason: Reason, rows: Rows
) -> None:
    started = await rows.start()
    assert await preempted(rows, started.simulation_id)
    assert not await preempted(rows, started.simulation_id)
    async with rows.sessions.begin() as session:
        assert await stop(session, started.simulation_id, reason, OTHER)
    assert not await preempted(rows, started.simulation_id)
    await leave(rows, started)  # it was stopped for the preemption, before its supervisor received the other
    simulation = await rows.get(started.simulation_id)
    assert (simulation.state.is_final, simulation.reason) == (True, reason)


async def test_a_preempted_simulation_can_be_cancelled_before_and_after_it_has_made_room(rows: Rows) -> None:
    on_machine, waiting = await rows.start(), await rows.start()
    for each in (on_machine, waiting):
        assert await preempted(rows, each.simulation_id)
    await leave(rows, waiting)
    for each in (on_machine, waiting):
        async with rows.sessions.begin() as session:
            await cancel(session, each.simulation_id, OTHER)
    assert await rows.state(waiting.simulation_id) == "CANCELLED"
    assert (await rows.stop_of(on_machine.simulation_id)).reason is Reason.CANCELLED


async def test_what_is_on_no_machine_can_not_be_preempted(rows: Rows) -> None:
    waiting, over = await rows.simulation(), await rows.start()
    await rows.end(over.simulation_id, 1)
    for simulation_id in (waiting, over.simulation_id, 999):
        assert not await preempted(rows, simulation_id)


@pytest.mark.parametrize(
    "ending", [STOPPED_EARLY, Ending(Reason.MACHINE_LOST, "Lost."), Ending(Reason.LAUNCH_ERROR, "No.")]
)
async def test_a_preempted_attempt_that_is_ended_in_another_way_goes_back_too(ending: Ending, rows: Rows) -> None:
    simulation_id = await rows.simulation(max_retries=0)
    await rows.assign(simulation_id)
    assert await preempted(rows, simulation_id)
    async with rows.sessions.begin() as session:
        simulation = await lifecycle.lock(session, simulation_id)
        assert simulation is not None
        assert await settle(session, simulation.id, 1, ending, OTHER, backoff=BACKOFF)
    assert await rows.state(simulation_id) == "QUEUED"
    assert await rows.value("SELECT reason FROM attempts") == "PREEMPTED"
