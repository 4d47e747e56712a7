"""Background work: one piece after the other, whatever becomes of one; bounded, and ended with the process."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from db.errors import DatabaseUnavailable
from graph.live import background
from graph.live.background import Background


async def test_pieces_are_done_in_order_and_one_that_fails_does_not_end_the_others() -> None:
    work, done, at_once = Background(), [], []

    async def piece(number: int, error: Exception | None = None) -> None:
        at_once.append(number)
        await asyncio.sleep(0)
        assert at_once == [number], "one at a time"
        at_once.clear()
        done.append(number)
        if error is not None:
            raise error

    with capture_logs() as logged:
        async with work.running():
            for number, error in enumerate([None, DatabaseUnavailable("it is away"), RuntimeError("a defect"), None]):
                work.add(lambda number=number, error=error: piece(number, error))
            await work._waiting.join()
    assert done == [0, 1, 2, 3]
    assert [(each["event"], each["log_level"]) for each in logged] == [
        ("background_work_dropped", "info"),
        ("background_work_failed", "error"),
    ]


async def test_what_is_too_much_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MOST_WAITING", 2)
    work, done = Background(), []

    async def piece(number: int) -> None:
        done.append(number)

    for number in range(4):
        work.add(lambda number=number: piece(number))
    async with work.running():
        await work._waiting.join()
        work.add(lambda: piece(9))
        await work._waiting.join()
    assert done == [0, 1, 9]


async def test_the_end_waits_for_the_piece_that_has_begun_and_for_no_other() -> None:
    work, done, begun, may_end = Background(), [], asyncio.Event(), asyncio.Event()

    async def first() -> None:
        begun.set()
        await may_end.wait()
        done.append("first")

    async def second() -> None:
        done.append("second")

    async with work.running():
        work.add(first)
        work.add(second)
        await begun.wait()
        asyncio.get_running_loop().call_soon(may_end.set)
    assert done == ["first"]


async def test_the_end_does_not_wait_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LAST_SECONDS", 0.0)
    work, begun = Background(), asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with work.running():
        work.add(endless)
        await begun.wait()
    assert len(asyncio.all_tasks()) == 1
