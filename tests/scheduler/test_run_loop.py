"""The loop: by timer, at once when woken, and still there after an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from db.errors import DatabaseUnreachable
from db.outage import Outage
from scheduler import run_loop
from scheduler.run_loop import Delayed, keep


@contextmanager
def _kept(
    work: Callable[[bool], Awaitable[bool | None]], wake: asyncio.Event, period_seconds: float, **more: float
) -> Iterator[None]:
    task = asyncio.create_task(keep("test", work, wake, period_seconds, Outage(), **more))
    try:
        yield
    finally:
        task.cancel()


async def test_it_works_at_once_and_then_in_every_period() -> None:
    rounds: asyncio.Queue[bool] = asyncio.Queue()
    with _kept(rounds.put, asyncio.Event(), 0.01):
        async with asyncio.timeout(60):
            assert [await rounds.get() for _ in range(3)] == [True, True, True]


async def test_a_wake_is_heeded_long_before_the_period_is_over() -> None:
    rounds: asyncio.Queue[bool] = asyncio.Queue()
    wake = asyncio.Event()
    with _kept(rounds.put, wake, 3600):
        async with asyncio.timeout(60):
            assert await rounds.get() is True
            for _ in range(3):
                wake.set()
                assert await rounds.get() is False


async def test_wakes_during_a_round_are_one() -> None:
    rounds: asyncio.Queue[bool] = asyncio.Queue()
    wake = asyncio.Event()
    first, second = asyncio.Event(), asyncio.Event()

    async def work(by_timer: bool) -> None:
        await rounds.put(by_timer)
        await (first if by_timer else second).wait()

    with _kept(work, wake, 3600):
        async with asyncio.timeout(60):
            assert await rounds.get() is True
            for _ in range(100):
                wake.set()
            first.set()
            assert await rounds.get() is False
            assert not wake.is_set()
            assert rounds.empty()


async def test_after_a_round_wakes_gather_for_a_moment_but_never_for_more_than_a_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: asyncio.Queue[float] = asyncio.Queue()
    really_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        await pauses.put(seconds)
        await really_sleep(0)

    async def work(_by_timer: bool) -> None:
        pass

    monkeypatch.setattr(run_loop, "GATHER_SECONDS", 1000.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    for period, pause in ((3600, 1000.0), (10, 10)):
        with _kept(work, asyncio.Event(), period):
            async with asyncio.timeout(60):
                assert await pauses.get() == pause


@pytest.mark.parametrize(("has_advanced", "pause"), [(False, 1000.0), (True, run_loop.GATHER_SECONDS)])
async def test_work_that_is_not_urgent_gathers_for_longer(
    monkeypatch: pytest.MonkeyPatch, has_advanced: bool, pause: float
) -> None:
    pauses: asyncio.Queue[float] = asyncio.Queue()
    really_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        await pauses.put(seconds)
        await really_sleep(0)

    async def work(_by_timer: bool) -> bool:
        return has_advanced

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with _kept(work, asyncio.Event(), 3600, gather_seconds=1000.0):
        async with asyncio.timeout(60):
            assert await pauses.get() == pause


@pytest.mark.parametrize("has_advanced", [True, False, None])
async def test_the_pause_is_as_long_as_the_round_unless_that_has_advanced_something(
    monkeypatch: pytest.MonkeyPatch, has_advanced: bool | None
) -> None:
    pauses: asyncio.Queue[float] = asyncio.Queue()
    really_sleep = asyncio.sleep
    loop = asyncio.get_running_loop()
    clock, passed = loop.time, 0.0

    async def sleep(seconds: float) -> None:
        await pauses.put(seconds)
        await really_sleep(0)

    async def work(_by_timer: bool) -> bool | None:
        nonlocal passed
        passed += 7.0
        return has_advanced

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    with _kept(work, asyncio.Event(), 3600):
        async with asyncio.timeout(60):
            pause = await pauses.get()
    assert pause == run_loop.GATHER_SECONDS if has_advanced else pause >= 7.0


async def test_an_error_is_told_once_and_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_loop, "LONGEST_PAUSE_SECONDS", 0.01)
    succeeded = asyncio.Event()
    failures = 0

    async def work(_by_timer: bool) -> None:
        nonlocal failures
        if failures < 5:
            failures += 1
            raise RuntimeError("a defect")
        succeeded.set()

    with capture_logs() as logs, _kept(work, asyncio.Event(), 0.001):
        async with asyncio.timeout(60):
            await succeeded.wait()
            while not any(entry["event"] == "round_succeeded_again" for entry in logs):
                await asyncio.sleep(0)

    told = [entry for entry in logs if entry["event"] == "round_failed"]
    assert [entry["log_level"] for entry in told] == ["error", "debug", "debug", "debug", "debug"]
    assert told[0]["error"] == "a defect"


async def test_an_outage_is_waited_out_and_told_elsewhere() -> None:
    failures = iter([DatabaseUnreachable("gone")] * 3)
    rounds: asyncio.Queue[bool] = asyncio.Queue()

    async def work(by_timer: bool) -> None:
        for failure in failures:
            raise failure
        await rounds.put(by_timer)

    with capture_logs() as logs, _kept(work, asyncio.Event(), 3600):
        async with asyncio.timeout(60):
            assert await rounds.get() is True, "the whole round is made up for"
    assert [entry["log_level"] for entry in logs] == ["debug"] * 3


async def test_what_is_called_for_several_times_is_set_once_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[tuple[float, Callable[[], None]]] = []
    wake = asyncio.Event()
    delayed = Delayed(wake, 0.25)
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "call_later", lambda seconds, call: timers.append((seconds, call)))
        for _ in range(3):
            delayed.set()
        [(seconds, call)] = timers
        assert (seconds, wake.is_set()) == (0.25, False)
        call()
        assert wake.is_set()
        delayed.set()
    assert len(timers) == 2, "what comes after it has a time of its own"
