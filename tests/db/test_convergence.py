"""The convergence log: what goes in comes out, by cursor and exactly once."""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import convergence
from db.billing import Holding
from db.connection import driver_of
from db.convergence import START, Batch, Column, Head, Series
from db.states import Reason, SimulationState

Rows = Any  # the fixture of conftest.py


def column(*points: tuple[int, float], elapsed: float = 0.5) -> Column:
    return Column([step for step, _ in points], [value for _, value in points], [elapsed] * len(points))


async def store(rows: Rows, simulation_id: int, attempt: int, batch: int, **columns: Column) -> None:
    async with rows.sessions.begin() as session:
        await convergence.store(session, simulation_id, attempt, batch, columns)


async def read(rows: Rows, simulation_id: int, after: tuple[int, int] = START, *, limit: int = 100) -> list[Batch]:
    async with driver_of(rows.sessions) as driver:
        return list(await convergence.read(driver, simulation_id, after, limit=limit))


async def supersessions(rows: Rows, simulation_id: int) -> list[tuple[tuple[int, int], str, int]]:
    """Where something is superseded: (cursor, metric, first step)."""
    return [
        (batch.cursor, series.metric, series.supersedes_from)
        for batch in await read(rows, simulation_id)
        for series in batch.series
        if series.supersedes_from is not None
    ]


async def test_a_batch_comes_back_as_it_was_stored(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(
        rows, simulation_id, 1, 1,
        loss=Column([1, 2, 5], [0.5, 0.25, 1e-300], [0.0, 0.1, 12.75]), accuracy=Column([2], [0.1 + 0.2], [0.1]),
    )  # fmt: skip
    assert await read(rows, simulation_id) == [
        Batch(
            1,
            1,
            (
                Series("accuracy", [2], [0.1 + 0.2], [0.1], None),
                Series("loss", [1, 2, 5], [0.5, 0.25, 1e-300], [0.0, 0.1, 12.75], None),
            ),
        )
    ]


@pytest.mark.parametrize("last", [0.0, math.inf, math.nan])
async def test_doubles_come_back_as_the_same_bits(rows: Rows, last: float) -> None:
    values = [
        5e-324,
        -5e-324,
        sys.float_info.max,
        -sys.float_info.max,
        -0.0,
        0.1,
        1 / 3,
        1e22,
        123456789012345680.0,
        last,
    ]
    steps = [*range(len(values) - 1), 2**53]
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=Column(steps, values, [0.1] * len(values)))
    (batch,) = await read(rows, simulation_id)
    assert list(map(float.hex, batch.series[0].values)) == list(map(float.hex, values))
    assert batch.series[0].steps == steps


async def test_columns_whose_sum_is_too_large_for_a_double_come_back_as_they_were(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=Column([1, 2], [1.7e308, 1.7e308], [0.0, 0.0]))
    (batch,) = await read(rows, simulation_id)
    assert batch.series[0].values == [1.7e308, 1.7e308]


async def test_values_that_are_not_finite_come_back_as_they_are(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, math.nan), (2, math.inf), (3, -math.inf), (4, -0.0)))
    [batch] = await read(rows, simulation_id)
    nan, infinity, negative, zero = batch.series[0].values
    assert math.isnan(nan)
    assert (infinity, negative) == (math.inf, -math.inf)
    assert math.copysign(1, zero) == -1


async def test_steps_far_beyond_32_bits_come_back_exactly(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    steps = [0, 2**31 - 1, 2**31, 2**32 + 1, 2**53 - 1, 2**53]
    await store(rows, simulation_id, 1, 1, loss=column(*[(step, 1.0) for step in steps]))
    [batch] = await read(rows, simulation_id)
    assert list(batch.series[0].steps) == steps


async def test_a_batch_without_points_leaves_nothing_and_its_number_may_be_missing(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, 1.0)))
    await store(rows, simulation_id, 1, 2)  # it carried only a log
    await store(rows, simulation_id, 1, 3, loss=column((2, 1.0)))
    assert [batch.cursor for batch in await read(rows, simulation_id)] == [(1, 1), (1, 3)]


async def test_a_hundred_metrics_and_ten_thousand_points_in_a_batch_come_back_in_the_order_of_names(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    columns = {f"metric {n:03}": column(*[(step, n / 7) for step in range(100)]) for n in range(100)}
    await store(rows, simulation_id, 1, 1, **columns)
    [batch] = await read(rows, simulation_id)
    assert [series.metric for series in batch.series] == sorted(columns)
    assert sum(len(series.values) for series in batch.series) == 10_000


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_by_cursor_bring_every_batch_once_and_in_order(limit: int, rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    written = [(1, 1), (1, 2), (1, 10), (2, 1), (2, 2), (10, 1)]
    for attempt, batch in written:
        await store(rows, simulation_id, attempt, batch, loss=column((1, 1.0)), accuracy=column((1, 1.0)))
        await store(rows, other, attempt, batch, loss=column((9, 9.0)))
    seen: list[Batch] = []
    after = START
    while page := await read(rows, simulation_id, after, limit=limit):
        assert len(page) <= limit
        seen += page
        after = page[-1].cursor
    assert [batch.cursor for batch in seen] == written
    assert {len(batch.series) for batch in seen} == {2}
    assert {step for batch in seen for series in batch.series for step in series.steps} == {1}


async def test_a_cursor_shows_what_is_behind_it_and_nothing_else(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    for cursor in ((1, 1), (1, 2), (2, 1)):
        await store(rows, simulation_id, *cursor, loss=column((1, 1.0)))
    for after, expected in {
        (0, 0): [(1, 1), (1, 2), (2, 1)],
        (1, 1): [(1, 2), (2, 1)],
        (1, 99): [(2, 1)],
        (2, 1): [],
        (9, 0): [],
    }.items():
        assert [batch.cursor for batch in await read(rows, simulation_id, after)] == expected, after


async def test_the_end_is_the_cursor_of_the_newest_batch(rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    ends = []
    for cursor in (None, (1, 9), (1, 10), (2, 1)):
        if cursor:
            await store(rows, simulation_id, *cursor, loss=column((1, 1.0)))
        async with rows.sessions() as session:
            ends.append(await convergence.find_end(session, simulation_id))
            assert await convergence.find_end(session, other) == START
    assert ends == [START, (1, 9), (1, 10), (2, 1)]


async def test_the_head_says_where_the_simulation_stands(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions() as session:
        assert await convergence.find_head(session, 999) is None
        assert await convergence.find_head(session, started.simulation_id) == Head(1, SimulationState.RUNNING, None)
    await rows.end(started.simulation_id, 1, Reason.COMPLETED)
    async with rows.sessions() as session:
        head = await convergence.find_head(session, started.simulation_id)
    assert head == Head(1, SimulationState.FINISHED, Reason.COMPLETED)


def test_a_head_replaces_one_whose_money_is_half_as_old_as_it_may_be_and_only_while_money_runs() -> None:
    def head(read_at: float, *, open: bool = True, price: int = 1) -> Head:
        holding = Holding(Decimal(price), Decimal(1), "USD", timedelta(0), open)
        return Head(1, SimulationState.RUNNING, None, (holding,), read_at)

    half = convergence.MONEY_SECONDS / 2
    assert head(7 + half).replaces(head(7))
    assert not head(6.9 + half).replaces(head(7))
    assert not head(7 + half, open=False).replaces(head(7, open=False))
    assert not head(7 + half, price=0).replaces(head(7, price=0))
    assert head(7).replaces(None)


# --- after a retry ---------------------------------------------------------------------------------------------


async def test_the_first_attempt_supersedes_nothing(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, 1.0)))
    await store(rows, simulation_id, 1, 2, loss=column((2, 1.0)), accuracy=column((2, 1.0)))
    assert await supersessions(rows, simulation_id) == []


async def test_each_later_attempt_supersedes_from_the_first_step_of_each_metric(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    await store(rows, simulation_id, 1, 1, loss=column((1, 1.0), (2, 1.0), (3, 1.0)), accuracy=column((1, 1.0)))
    await store(rows, simulation_id, 2, 1, loss=column((2, 1.0), (3, 1.0)))
    await store(rows, simulation_id, 2, 2, loss=column((4, 1.0)), accuracy=column((3, 1.0)))
    await store(rows, simulation_id, 2, 3, loss=column((5, 1.0)), accuracy=column((4, 1.0)))
    await store(rows, simulation_id, 3, 1, loss=column((1, 1.0)), norm=column((7, 1.0)))
    assert await supersessions(rows, simulation_id) == [
        ((2, 1), "loss", 2),
        ((2, 2), "accuracy", 3),
        ((3, 1), "loss", 1),
        ((3, 1), "norm", 7),
    ]


async def test_what_supersedes_does_not_depend_on_where_a_page_begins(rows: Rows) -> None:
    simulation_id, other = await rows.simulation(), await rows.simulation()
    await store(rows, other, 2, 1, loss=column((1, 1.0)))  # another simulation's first batch
    for batch in (1, 2, 3):
        await store(rows, simulation_id, 2, batch, loss=column((batch, 1.0)))
    assert [
        series.supersedes_from
        for after in (START, (2, 1), (2, 2))
        for batch in await read(rows, simulation_id, after, limit=1)
        for series in batch.series
    ] == [1, None, None]
