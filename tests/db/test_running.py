"""What runs as a plan sees it, and the progress that a preempted simulation takes back to the queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import running
from db.convergence import Column
from db.running import Place, Running
from db.states import Reason
from transitions.ingest import ingest
from transitions.preempt import preempt
from transitions.report import Report

Rows = Any  # the fixture of conftest.py
BACKOFF = timedelta(seconds=5)


async def every(rows: Rows) -> Sequence[Running]:
    async with rows.sessions() as session:
        return await running.every(session)


async def report(rows: Rows, started: Any, batch: int, **steps: list[int]) -> None:
    points = {
        name.replace("__", "/"): Column(taken, [1.0] * len(taken), [0.0] * len(taken)) for name, taken in steps.items()
    }
    await ingest(rows.sessions, started.claim, Report(batch, points=points), backoff=BACKOFF)


async def began(rows: Rows, simulation_id: int, seconds: float) -> None:
    """Its current attempt began so long ago."""
    await rows.query(
        "UPDATE attempts SET started_at = now() - CAST(:ago AS interval) "
        "WHERE simulation_id = :id AND ended_at IS NULL",
        ago=timedelta(seconds=seconds), id=simulation_id,
    )  # fmt: skip


async def test_what_runs_is_read_with_what_it_holds(rows: Rows) -> None:
    first, second = await rows.machine(), await rows.machine()
    waits = await rows.simulation()
    started = await rows.start(
        await rows.simulation(preemptible=True, max_steps=100, max_runtime=timedelta(hours=1)), machine_id=first
    )
    other = await rows.start(machine_id=second)

    found = await every(rows)
    assert [each.id for each in found] == [started.simulation_id, other.simulation_id], f"not {waits}"
    [one, _] = found
    assert (one.preemptible, one.max_steps, one.max_runtime) == (True, 100, timedelta(hours=1))
    assert (one.places, one.stop_reason, one.stop_for) == ((Place(first, Decimal("0.25")),), None, None)
    assert one.rate == pytest.approx(1.5 * 0.25)
    async with rows.sessions() as session:
        assert [each.id for each in await running.on_machines(session, [second])] == [other.simulation_id]
    await rows.end(other.simulation_id, 1)
    assert [each.id for each in await every(rows)] == [started.simulation_id]


async def test_steps_are_those_of_the_objective_else_of_any_metric_of_its_own(rows: Rows) -> None:
    plain = await rows.start()
    judged = await rows.start(await rows.simulation(objective_metric="val"))
    for started in (plain, judged):
        await report(rows, started, 1, loss=[1, 2, 30], val=[10, 20], system__cpu=[1_700_000_000])
        await began(rows, started.simulation_id, 10)

    [one, two] = await every(rows)
    assert (one.steps_done, two.steps_done) == (30, 20)
    assert one.step_rate == pytest.approx(2.9, rel=0.2)
    assert two.step_rate == pytest.approx(1.0, rel=0.2)


async def test_without_points_there_are_no_steps_and_no_rate(rows: Rows) -> None:
    await rows.start()
    [one] = await every(rows)
    assert (one.steps_done, one.step_rate) == (None, None)


async def test_a_preempted_run_takes_its_progress_back_to_the_queue(rows: Rows) -> None:
    started = await rows.start(await rows.simulation(max_steps=100))
    await report(rows, started, 1, loss=[1, 11])
    await began(rows, started.simulation_id, 100)
    async with rows.sessions.begin() as session:
        await preempt(session, started.simulation_id, rows.user, evidence={"for": 7})
        assert await running.leaving_for(session, {7, 8}) == {(started.simulation_id, 7)}
    [leaves] = await every(rows)
    assert (leaves.stop_reason, leaves.stop_for) == ("PREEMPTED", 7)
    await rows.end(started.simulation_id, 1, Reason.PREEMPTED, retry_after=timedelta(0))

    row = await rows.get(started.simulation_id)
    assert row.attained.total_seconds() == pytest.approx(100, abs=60)
    assert (row.steps_done, row.step_rate) == (11, pytest.approx(0.1, rel=0.6))
    again = await rows.start(started.simulation_id)
    await began(rows, started.simulation_id, 50)
    await rows.end(started.simulation_id, again.number, Reason.PREEMPTED, retry_after=timedelta(0))
    row = await rows.get(started.simulation_id)
    assert row.attained.total_seconds() == pytest.approx(150, abs=60)
    assert (row.steps_done, row.step_rate) == (11, pytest.approx(0.1, rel=0.6)), "this attempt reported no step"


async def test_a_run_that_failed_or_was_lost_begins_anew(rows: Rows) -> None:
    started = await rows.start()
    await report(rows, started, 1, loss=[1, 11])
    await rows.end(started.simulation_id, 1, Reason.PREEMPTED, retry_after=timedelta(0))
    await rows.start(started.simulation_id)
    await rows.end(started.simulation_id, 2, Reason.MACHINE_LOST, retry_after=timedelta(0))
    row = await rows.get(started.simulation_id)
    assert (row.attained, row.steps_done, row.step_rate) == (timedelta(0), None, None)
