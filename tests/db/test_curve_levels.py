"""Levels of curves: what is kept comes back bit by bit, of as many points as the curve has, and goes with its run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sqlalchemy import text

from db import curve_levels
from db.curve import Points
from db.curve_levels import Level
from db.simulations import delete_ended
from db.states import SimulationState

Rows = Any  # the fixture of conftest.py

POINTS = Points(
    np.array([0, 7, 2**53]), np.array([math.nan, -0.0, math.inf]), np.array([0.1 + 0.2, 1.0, 5e-324]),
    np.array([1, 1, 3], np.int32),
)  # fmt: skip


def level(of: int, points: Points = POINTS) -> Level:
    return Level(of, (3, 2**40), points)


async def keep(rows: Rows, levels: dict[int, Level], metric: str = "loss", *, timed: bool = True) -> None:
    async with rows.sessions.begin() as session:
        await curve_levels.keep(session, metric, levels, timed=timed)


async def find(rows: Rows, points: dict[int, int], metric: str = "loss", *, timed: bool = True) -> dict[int, Level]:
    async with rows.sessions() as session:
        return dict(await curve_levels.find(session, metric, points, timed=timed))


async def test_every_bit_of_a_level_comes_back(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await keep(rows, {simulation_id: level(9)})
    [(number, found)] = (await find(rows, {simulation_id: 9})).items()
    assert (number, found.of, found.cursor) == (simulation_id, 9, (3, 2**40))
    for name in ("steps", "values", "elapsed", "attempts"):
        column, kept = getattr(POINTS, name), getattr(found.points, name)
        assert (kept.dtype, kept.tobytes()) == (column.dtype, column.tobytes())


async def test_a_level_counts_only_for_the_metric_and_the_number_of_points_that_it_was_made_of(rows: Rows) -> None:
    one, other = await rows.simulation(), await rows.simulation()
    await keep(rows, {one: level(9), other: level(8)})
    assert set(await find(rows, {one: 9, other: 9})) == {one}
    assert set(await find(rows, {one: 8, other: 8})) == {other}
    assert await find(rows, {one: 9}, "accuracy") == {}
    assert await find(rows, {}) == {}


async def test_of_two_levels_the_one_of_more_points_stays(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    for of in (9, 12, 10):
        await keep(rows, {simulation_id: level(of)})
    assert [bool(await find(rows, {simulation_id: of})) for of in (9, 10, 12)] == [False, False, True]


async def test_elapsed_seconds_are_added_and_never_taken_away(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    untimed = Points(POINTS.steps, POINTS.values, np.full(3, np.nan), POINTS.attempts)
    await keep(rows, {simulation_id: level(9, untimed)}, timed=False)
    assert await find(rows, {simulation_id: 9}) == {}
    [found] = (await find(rows, {simulation_id: 9}, timed=False)).values()
    assert found.points.steps.tolist() == POINTS.steps.tolist()
    assert np.isnan(found.points.elapsed).all()
    await keep(rows, {simulation_id: level(9)})
    await keep(rows, {simulation_id: level(9, untimed)}, timed=False)
    [found] = (await find(rows, {simulation_id: 9})).values()
    assert found.points.elapsed.tolist() == POINTS.elapsed.tolist()


async def test_levels_go_with_their_simulation_and_none_is_kept_of_one_that_is_gone(rows: Rows) -> None:
    gone, other = await rows.simulation(), await rows.simulation()
    await keep(rows, {gone: level(9), other: level(9)})
    async with rows.sessions.begin() as session:
        await session.execute(
            text("UPDATE simulations SET state = :state, finished_at = now() WHERE id = :id"),
            {"state": SimulationState.CANCELLED, "id": gone},
        )
    async with rows.sessions.begin() as session:
        await delete_ended(session, gone, rows.user)
        assert [row[0] for row in await session.execute(text("SELECT simulation_id FROM curve_levels"))] == [other]
        # Amid its deletion: whatever reads it now is not held up.
        await keep(rows, {gone: level(10), other: level(10)})
    await keep(rows, {gone: level(11), other: level(11)})
    assert set(await find(rows, {gone: 10, other: 11})) == {other}
