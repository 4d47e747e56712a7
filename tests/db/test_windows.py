"""Curves in windows: means as numpy gives them, without what is superseded or not finite; the runs of the same name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sqlalchemy import text

from db import windows

Rows = Any  # the fixture of conftest.py

INSERT = """
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, reason, priority, attempt, finished_at)
    SELECT 1, 'series', '{true}', 'user', 'FINISHED', 'COMPLETED', 0, 1, now() FROM generate_series(1, 45)
"""


async def store(rows: Rows, simulation: int, attempt: int, steps: list[int], values: list[float]) -> None:
    """Store batches of seven points, and their summary."""
    async with rows.sessions.begin() as session:
        for batch, begin in enumerate(range(0, len(steps), 7), 1):
            await session.execute(
                text(
                    'INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed) '
                    "VALUES (:simulation, :attempt, :batch, 'loss', :steps, :values, :values)"
                ),
                {
                    "simulation": simulation,
                    "attempt": attempt,
                    "batch": batch,
                    "steps": steps[begin : begin + 7],
                    "values": values[begin : begin + 7],
                },
            )
        await session.execute(
            text(
                "INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value) "
                "VALUES (:simulation, :attempt, 'loss', :count, :first, :last, 0)"
            ),
            {
                "simulation": simulation,
                "attempt": attempt,
                "count": len(steps),
                "first": steps[0],
                "last": steps[-1],
            },
        )


async def test_dense_points_become_means_and_sparse_ones_stay(rows: Rows) -> None:
    await rows.query(INSERT)
    dense, sparse = list(range(1000)), list(range(0, 1000, 50))
    await store(rows, 1, 1, dense, [float(step) for step in dense])
    await store(rows, 2, 1, sparse, [float(step) for step in sparse])
    async with rows.sessions() as session:
        found = await windows.windows_of(session, "loss", {1: 1000, 2: 1000, 3: 1000})
    assert list(found[1].steps) == list(range(4, 1000, 5))
    assert list(found[1].values) == [pytest.approx(step - 2) for step in range(4, 1000, 5)]
    assert (list(found[1].lows), list(found[1].highs)) == (list(range(0, 1000, 5)), list(range(4, 1000, 5)))
    assert (list(found[2].steps), list(found[2].values)) == (sparse, [float(step) for step in sparse])
    assert 3 not in found


async def test_superseded_points_and_those_that_are_not_finite_are_left_out(rows: Rows) -> None:
    await rows.query(INSERT)
    await store(rows, 1, 1, [0, 1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0, 1e300])
    await store(rows, 1, 2, [3, 4], [7.0, 8.0])
    async with rows.sessions() as session:
        found = await windows.windows_of(session, "loss", {1: 4})
    assert (list(found[1].steps), list(found[1].values)) == ([0, 3, 4], [1.0, 7.0, 8.0])


async def test_the_newest_runs_of_name_project_and_reason_with_the_metric_are_similar(rows: Rows) -> None:
    await rows.query(INSERT)
    for number in range(1, 46):
        await store(rows, number, 1, [0, 9], [1.0, 0.5])
    await rows.query("UPDATE simulations SET name = 'another' WHERE id = 45")
    await rows.query("UPDATE simulations SET reason = 'UNWATCHED' WHERE id = 44")
    await rows.query("DELETE FROM metrics WHERE simulation_id = 43")
    async with rows.sessions() as session:
        found = await windows.similar(
            session, 40, project_id=1, name="series", metric="loss", reasons=["COMPLETED", "PATIENCE_EXHAUSTED"]
        )
    assert [each.simulation_id for each in found] == [42, 41, *range(39, 2, -1)], "39 of the newest 40 have the metric"
    assert (found[0].reason, found[0].last_step, found[0].points) == ("COMPLETED", 9, 2)
