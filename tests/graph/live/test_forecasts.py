"""Forecasts of a process: computed once for all viewers, again once the curve has gone on, and bounded in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from graph.live import forecasts
from graph.live.forecasts import Asked, Forecasts, Newest

World = Any  # the fixtures of conftest.py

ASKED = Asked(1, 1, "s", "loss", "MIN", 1_000, None)


async def start(world: World) -> Forecasts:
    supervisor = await world.running(limits={"maxSteps": 1000})
    steps = list(range(0, 500, 10))
    values = [1 / (step + 1) for step in steps]
    await supervisor.send({"loss": {"steps": steps, "values": values, "elapsed": [float(step) for step in steps]}})
    [(number, project, name)] = await world.select("SELECT id, project_id, name FROM simulations")
    assert (number, project) == (ASKED.simulation_id, ASKED.project_id), name
    return Forecasts(world.sessions)


async def test_viewers_at_once_share_one_and_the_next_is_made_when_the_curve_has_gone_on(world: World) -> None:
    made = await start(world)
    found = await asyncio.gather(*(made.of(ASKED, Newest(1, 490, ended=False)) for _ in range(20)))
    assert made.made == 1
    assert all(each is found[0] for each in found)
    assert found[0].forecast is not None
    assert await made.of(ASKED, Newest(1, 492, ended=False)) is found[0], "less than 0.5 % of the plan"
    await made.of(ASKED, Newest(1, 500, ended=False))
    assert made.made == 2
    await made.of(ASKED, Newest(2, 500, ended=False))
    assert made.made == 3, "another attempt may have superseded points"


async def test_the_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await start(world)
    monkeypatch.setattr(forecasts, "MOST_KEPT", 3)
    for target in range(5):
        await made.of(replace(ASKED, target=float(target)), Newest(1, 490, ended=False))
    assert made.made == 5
    await made.of(replace(ASKED, target=4.0), Newest(1, 490, ended=False))
    assert made.made == 5, "the newest are kept"
    await made.of(replace(ASKED, target=0.0), Newest(1, 490, ended=False))
    assert made.made == 6


async def test_curves_of_similar_runs_are_read_once_and_not_beyond_their_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await start(world)
    for _ in range(8):
        other = await world.attempt(await world.simulation(name="true"))
        await other.hello()
        await other.loss(*range(0, 1000, 10))
        await other.exit()
    asked = replace(ASKED, name="true")
    read: list[int] = []
    original = forecasts.windows.windows_of

    async def counted(session: Any, metric: str, ends: Any) -> Any:
        read.append(len(ends))
        return await original(session, metric, ends)

    monkeypatch.setattr(forecasts.windows, "windows_of", counted)
    first = await made.of(asked, Newest(1, 490, ended=False))
    assert first.forecast is not None
    assert (first.forecast.rough, first.forecast.history) == (False, 8)
    await made.of(asked, Newest(1, 500, ended=False))
    assert read == [9, 1], "finished curves do not change"

    monkeypatch.setattr(forecasts, "MOST_POINTS", 700)
    dense = await Forecasts(world.sessions).of(asked, Newest(1, 490, ended=False))
    assert dense.forecast is not None
    assert dense.forecast.rough, "seven of a hundred points each are too few runs"
