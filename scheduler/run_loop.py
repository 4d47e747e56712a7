"""Loop around a unit of work: runs it by timer, and at once when woken.

An error in a round is logged once with its traceback and the loop goes on, with growing pauses, until a round succeeds,
which is logged too. An outage of the database is neither an error nor logged here (`db.outage` does that): the next
round begins when the database answers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

import structlog

from db.errors import DatabaseUnavailable
from db.outage import Outage

log = structlog.get_logger()

LONGEST_PAUSE_SECONDS = 5.0
GATHER_SECONDS = 0.05  # after a round: changes that follow closely share the next one

Work = Callable[[bool], Awaitable[bool | None]]


class Delayed:
    """Sets an event some seconds after the first of several calls: what they are about shares a round."""

    def __init__(self, wake: asyncio.Event, seconds: float) -> None:
        self._wake = wake
        self._seconds = seconds
        self._is_due = False

    def set(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        self._is_due = False
        self._wake.set()


async def keep(
    name: str, work: Work, wake: asyncio.Event, period_seconds: float, outage: Outage, *, gather_seconds: float = 0.0
) -> NoReturn:
    """Call `work(True)` once in a period, and `work(False)` in between whenever `wake` is set, until cancelled.

    Wakes during a round count as one. The loop pauses for as long as the last round took, and for `GATHER_SECONDS` at
    least, but at most a period: a flood of wakes then costs half of a core at most, and usually far less. After a round
    that returns True, which moved simulations on and may have left some behind, it pauses for `GATHER_SECONDS` only:
    with a full machine such a round is long because of what it has started, and what waits would find idle cores.

    gather_seconds: a longer pause, for work that is not urgent: what comes during it waits for its end.
    """
    clock = asyncio.get_running_loop().time
    due_at = clock()
    failures = 0
    while True:
        by_timer = clock() >= due_at
        began = clock()
        if by_timer:
            due_at = began + period_seconds
        wake.clear()
        try:
            has_advanced = await work(by_timer)
        except DatabaseUnavailable as error:
            log.debug("round_interrupted", loop=name, error=str(error))
            await outage.answer()
            due_at, pause = clock(), 0.0
        except Exception as error:  # noqa: BLE001  # any error: logged once, tried again
            failures += 1
            pause = min(period_seconds * 2 ** min(failures, 10), LONGEST_PAUSE_SECONDS)
            due_at = clock() + pause
            write = log.error if failures == 1 else log.debug
            write("round_failed", loop=name, error=str(error), again_in_seconds=pause, exc_info=failures == 1)
        else:
            if failures:
                log.info("round_succeeded_again", loop=name, failures=failures)
            failures = 0
            longest = max(clock() - began, GATHER_SECONDS, gather_seconds)
            pause = min(GATHER_SECONDS if has_advanced else longest, period_seconds)
        await asyncio.sleep(pause)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due_at):
                await wake.wait()
