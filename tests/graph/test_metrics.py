"""Metrics of a graph process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from graph.metrics import RECENT_SECONDS, SAMPLE_SECONDS, Metrics, Watchdog


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


async def test_a_sleep_that_lasts_too_long_is_a_hold() -> None:
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
