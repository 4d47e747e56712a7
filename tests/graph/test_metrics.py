"""Metrics of a graph process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from graph.app import Application
from graph.metrics import IDLE_CPU_SECONDS, IDLE_SECONDS, RECENT_SECONDS, SAMPLE_SECONDS, Metrics, Watchdog


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_longest_hold_of_a_minute_is_shown_and_then_forgotten() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    assert watchdog.longest_seconds() == 0.0
    for at, seconds in ((0.0, 0.3), (10.0, 0.1), (20.0, 0.2), (30.0, 0.05)):
        clock.now = at
        watchdog.note(seconds)
    assert watchdog.longest_seconds() == 0.3
    clock.now = RECENT_SECONDS + 1
    assert watchdog.longest_seconds() == 0.2, "the longest of those that are left"
    clock.now = RECENT_SECONDS + 21
    assert watchdog.longest_seconds() == 0.05
    clock.now = 2 * RECENT_SECONDS
    assert watchdog.longest_seconds() == 0.0


def test_the_watchdog_keeps_few_of_many_looks() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    for number in range(10_000):
        clock.now = number * SAMPLE_SECONDS
        watchdog.note(number % 7 / 1_000)
    assert len(watchdog.held) <= 7


async def test_a_timer_that_is_late_is_a_hold() -> None:
    times: Iterator[float] = iter([0.0, 5.0 + SAMPLE_SECONDS])
    clock = Clock()
    seen = asyncio.Event()

    def tell() -> float:
        clock.now = next(times, clock.now)
        if clock.now:
            seen.set()
        return clock.now

    watchdog = Watchdog(tell)
    async with watchdog.running(), asyncio.timeout(60):
        await seen.wait()
        while not watchdog.held:
            await asyncio.sleep(0)
    assert watchdog.longest_seconds() == 5.0


class Timers:
    """Stands in for the loop's timers: notes what is asked for, and goes off when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pauses: list[float] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self.call_later)

    def call_later(self, seconds: float, go_off: Callable[[], None]) -> Timers:
        self.pauses.append(seconds)
        self.go_off = go_off
        return self

    def cancel(self) -> None:
        self.go_off = lambda: None


async def test_a_loop_without_work_is_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, cpu = Timers(monkeypatch), Clock()
    async with Watchdog(Clock(), cpu).running():
        for worked in (0, IDLE_CPU_SECONDS / 2, 2 * IDLE_CPU_SECONDS, 0):
            cpu.now += worked
            timers.go_off()
    assert timers.pauses == [SAMPLE_SECONDS, IDLE_SECONDS, IDLE_SECONDS, SAMPLE_SECONDS, IDLE_SECONDS]


async def test_what_the_first_request_after_a_pause_holds_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, clock, cpu = Timers(monkeypatch), Clock(), Clock()
    watchdog = Watchdog(clock, cpu)
    async with watchdog.running():
        timers.go_off()
        assert timers.pauses[-1] == IDLE_SECONDS
        watchdog.stir()
        watchdog.stir()  # another one, while it is looked at closely
        assert timers.pauses == [SAMPLE_SECONDS, IDLE_SECONDS, SAMPLE_SECONDS]
        clock.now = cpu.now = SAMPLE_SECONDS + 0.06
        timers.go_off()
    assert watchdog.longest_seconds() == pytest.approx(0.06)
    watchdog.stir()
    assert len(timers.pauses) == 4, "nothing is looked at after the end"


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_each_request_and_each_message_is_looked_at_closely(kind: str) -> None:
    metrics, looks = Metrics(), []
    metrics.watchdog.stir = lambda: looks.append(kind)  # type: ignore[method-assign]
    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def echo(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        await receive()

    application = Application(metrics=metrics)
    application.middleware_stack = echo
    await application({"type": kind}, receive, echo)
    assert len(looks) == {"http": 1, "websocket": 3}[kind]


def test_the_cpu_time_of_a_hold_is_measured_beside_it() -> None:
    watchdog = Watchdog(Clock())
    watchdog.note(0.3, 0.002)  # the machine ran something else
    watchdog.note(0.04, 0.06)  # busy before the hold, too
    assert (watchdog.longest_seconds(), watchdog.longest_cpu_seconds()) == (0.3, 0.04)


def test_the_longest_hold_is_among_the_metrics() -> None:
    metrics = Metrics()
    metrics.watchdog.note(1.5, 0.25)
    assert metrics.registry.get_sample_value("simulations_loop_hold_seconds") == 1.5
    assert metrics.registry.get_sample_value("simulations_loop_hold_cpu_seconds") == 0.25
