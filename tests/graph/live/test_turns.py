"""An answer of any size is executed in pieces, between which the event loop turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from graph.live.turns import FIELDS_PER_TURN, Turns, turns

Api = Any  # the fixtures of conftest.py
World = Any

ROWS = 300
MOST_IN_OBJECT = 60  # fields
FIELDS = "id name state reason priority createdAt startedAt finishedAt tags attended entrypoint"
PAGE = f"""
query ($first: Int!, $after: String) {{
  simulations(first: $first, after: $after) {{
    nodes {{
      {FIELDS} project {{ id name createdAt }} machine {{ id }} metrics {{ name }} cost {{ amount }}
      {" ".join(f"f{n}: name" for n in range(20))}
    }}
    pageInfo {{ endCursor hasNextPage }}
  }}
}}
"""


@pytest.fixture
async def spent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[int]]:
    """The fields that were executed in each turn of the loop."""
    counted, end = [0], Turns._end

    def close(self: Turns) -> None:
        counted.append(self.spent)
        end(self)

    monkeypatch.setattr(Turns, "_end", close)
    yield counted
    await asyncio.sleep(0)


async def test_a_long_list_is_executed_in_many_turns_and_is_the_same_as_in_short_pages(
    api: Api, world: World, spent: list[int]
) -> None:
    await world.fill(ROWS)
    spent.clear()
    whole = await api.data(PAGE, {"first": ROWS})
    assert len(whole["nodes"]) == ROWS
    assert len(whole["nodes"][0]) > MOST_IN_OBJECT / 2
    assert sum(spent) > ROWS * 30
    assert max(spent) <= FIELDS_PER_TURN + MOST_IN_OBJECT
    found, after = [], None
    while True:
        page = await api.data(PAGE, {"first": 20, "after": after})
        found += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert found == whole["nodes"]


async def test_operations_that_run_side_by_side_share_a_turn(api: Api, world: World, spent: list[int]) -> None:
    await world.fill(ROWS)
    spent.clear()
    answers = await asyncio.gather(*(api.data(PAGE, {"first": ROWS}) for _ in range(3)))
    assert answers[0] == answers[1] == answers[2]
    assert max(spent) <= FIELDS_PER_TURN + MOST_IN_OBJECT


async def test_a_short_operation_is_not_behind_all_turns_of_a_long_one() -> None:
    shared, done = Turns(), list[str]()

    async def execute(name: str, parts: int) -> None:
        for _ in range(parts):
            await shared.pause()
            shared.spend(FIELDS_PER_TURN)
        done.append(name)

    long, cancelled = (asyncio.create_task(execute(name, 1_000)) for name in ("long", "cancelled"))
    shorts = [asyncio.create_task(execute(f"short {number}", 2)) for number in range(5)]
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(long, *shorts)
    assert done == [*(f"short {number}" for number in range(5)), "long"]
    assert not shared._waiting


async def test_a_turn_ends_and_a_loop_that_was_closed_leaves_nothing() -> None:
    turns.spend(FIELDS_PER_TURN)
    await turns.pause()
    assert turns.spent == 0
    turns.spend(FIELDS_PER_TURN + 1)
    other = asyncio.to_thread(asyncio.run, _spent_anew())
    assert await other == 1


async def _spent_anew() -> int:
    mine = Turns()
    mine._loop = asyncio.new_event_loop()
    mine._loop.close()
    mine.spent = FIELDS_PER_TURN
    mine.spend(1)
    return mine.spent


def test_nothing_is_counted_where_no_loop_runs() -> None:
    mine = Turns()
    mine.spend(5)
    assert mine.spent == 0
