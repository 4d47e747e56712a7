"""Columns read back as bytes: what comes out is what the log says, cut where later attempts supersede it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from db import convergence, curve
from db.convergence import Column
from db.curve import NEVER, Part

Rows = Any  # the fixture of conftest.py


async def store(rows: Rows, simulation_id: int, attempt: int, batch: int, *steps: int, metric: str = "loss") -> None:
    """Points whose value is the attempt, and whose elapsed time is a tenth of the step."""
    values = Column(list(steps), [float(attempt)] * len(steps), [step / 10 for step in steps])
    async with rows.sessions.begin() as session:
        await convergence.store(session, simulation_id, attempt, batch, {metric: values})


async def read(rows: Rows, simulation_id: int, metric: str = "loss", **given: int) -> list[tuple[int, int]]:
    """(attempt, step) of all that stands."""
    found = []
    async with rows.sessions() as session:
        for part in await curve.parts(session, simulation_id, metric):
            async for page in curve.pages(session, simulation_id, metric, part, **given):
                points = page.unpack()
                assert points.values.tolist() == points.attempts.tolist()
                assert points.elapsed.tolist() == [step / 10 for step in points.steps.tolist()]
                found += zip(points.attempts.tolist(), points.steps.tolist(), strict=True)
    return found


async def test_every_bit_of_a_number_comes_back(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    steps = [0, 2**31, 2**53]
    values = [5e-324, -0.0, math.nan]
    async with rows.sessions.begin() as session:
        columns = {"loss": Column(steps, values, [0.1 + 0.2, 1e300, 0.0])}
        await convergence.store(session, simulation_id, 1, 1, columns)
    async with rows.sessions() as session:
        [part] = await curve.parts(session, simulation_id, "loss")
        [page] = [page async for page in curve.pages(session, simulation_id, "loss", part)]
    points = page.unpack()
    assert points.steps.tolist() == steps
    assert points.values.tobytes() == np.array(values).tobytes()
    assert points.elapsed.tolist() == [0.1 + 0.2, 1e300, 0.0]
    assert points.attempts.tolist() == [1, 1, 1]


async def test_later_attempts_cut_older_ones(rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    await store(rows, other, 1, 1, 1, 2)
    await store(rows, simulation_id, 1, 1, 1, 2, 3)
    await store(rows, simulation_id, 1, 2, 4, 5, 6, 7)
    await store(rows, simulation_id, 1, 3, 8, 9)
    await store(rows, simulation_id, 2, 1, 6, 7)
    await store(rows, simulation_id, 2, 2, 3, metric="accuracy")
    await store(rows, simulation_id, 3, 1, 5, 10)
    async with rows.sessions() as session:
        assert await curve.parts(session, simulation_id, "loss") == [Part(1, 1, 9, 5), Part(3, 5, 10, None)]
    assert await read(rows, simulation_id) == [(1, 1), (1, 2), (1, 3), (1, 4), (3, 5), (3, 10)]
    assert await read(rows, simulation_id, "accuracy") == [(2, 3)]
    assert await read(rows, simulation_id, "unknown") == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, NEVER, [1, 2, 3, 4, 5, 6]), (3, 4, [3, 4]), (2, 5, [2, 3, 4, 5]), (6, NEVER, [6]), (7, NEVER, []), (4, 3, [])],
)
async def test_a_range_holds_both_of_its_steps(rows: Rows, low: int, high: int, expected: list[int]) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, 1, 2, 3)
    await store(rows, simulation_id, 1, 2, 4, 5, 6)
    assert [step for _, step in await read(rows, simulation_id, low=low, high=high)] == expected


async def test_reading_ends_with_the_batch_it_was_told(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    for batch in (1, 2, 3):
        await store(rows, simulation_id, 1, batch, batch)
    assert await read(rows, simulation_id, last_batch=2) == [(1, 1), (1, 2)]


async def test_pages_are_as_long_as_their_points_allow(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "PAGE_POINTS", 10)
    monkeypatch.setattr(curve, "FIRST_PAGE_ROWS", 2)
    simulation_id = await rows.simulation()
    for batch in range(8):
        await store(rows, simulation_id, 1, batch + 1, 2 * batch, 2 * batch + 1)
    async with rows.sessions() as session:
        [part] = await curve.parts(session, simulation_id, "loss")
        lengths = [len(page.rows) async for page in curve.pages(session, simulation_id, "loss", part)]
    assert lengths == [2, 5, 1]


async def test_the_ends_are_the_last_batches_of_each_attempt(rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    await store(rows, other, 5, 5, 1)
    async with rows.sessions() as session:
        assert await curve.ends(session, simulation_id) == {}
    await store(rows, simulation_id, 1, 3, 1)
    await store(rows, simulation_id, 1, 12, 2, metric="accuracy")
    await store(rows, simulation_id, 3, 1, 1)
    async with rows.sessions() as session:
        found = await curve.ends(session, simulation_id)
    assert list(found.items()) == [(1, 12), (3, 1)]
