"""Loaders: what they collect over a turn of the event loop, and what becomes of a batch that is given up."""

from __future__ import annotations

import asyncio

import pytest
from strawberry.dataloader import DataLoader

from graph.context import Loader

TURNS = 10  # of the event loop: a batch needs three


async def squares(numbers: list[int]) -> list[int]:
    return [number * number for number in numbers]


async def turn() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(5))
async def test_keys_asked_for_after_a_batch_was_given_up_are_loaded(turns: int) -> None:
    loader = Loader(squares, cache=False)
    given_up = asyncio.ensure_future(loader.load(1))
    for _ in range(turns):
        await asyncio.sleep(0)
    given_up.cancel()
    answers = [asyncio.ensure_future(loader.load(2))]
    await turn()
    answers.append(asyncio.ensure_future(loader.load(3)))
    await turn()
    assert [each.done() and each.result() for each in answers] == [4, 9]


async def test_keys_of_a_batch_that_is_given_up_in_part_are_loaded_together() -> None:
    loaded: list[list[int]] = []

    async def noted(numbers: list[int]) -> list[int]:
        loaded.append(numbers)
        return await squares(numbers)

    loader = Loader(noted, cache=False)
    given_up, kept = asyncio.ensure_future(loader.load(1)), asyncio.ensure_future(loader.load(2))
    given_up.cancel()
    answers = [kept, asyncio.ensure_future(loader.load(3))]
    await turn()
    assert ([each.done() and each.result() for each in answers], loaded) == ([4, 9], [[1, 2, 3]])


async def test_the_loader_of_the_library_still_needs_ours() -> None:
    """When this fails, Strawberry has mended it: `graph.context.Loader` can go."""
    loader = DataLoader(squares, cache=False)
    asyncio.ensure_future(loader.load(1)).cancel()
    await turn()
    answer = asyncio.ensure_future(loader.load(2))
    await turn()
    assert not answer.done()
