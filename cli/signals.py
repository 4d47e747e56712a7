"""Signal handling of `up`: Ctrl-C, SIGTERM and a closed terminal, by phase.

Start: the first signal raises KeyboardInterrupt, later ones are ignored, so that the clean-up completes. Serving: the
first requests a graceful stop, the second an immediate one. Shutdown: ignored.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Context manager that installs the handlers. Main thread only."""

    def __init__(self) -> None:
        self._act: Callable[[], None] = self._interrupt
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        for number in NUMBERS:
            # SIGHUP that is already ignored: keep it, this is nohup. (Shells also ignore SIGINT for background jobs,
            # which is no wish of the user: it is handled.)
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def as_events(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Event, asyncio.Event]:
        """From now on, the first signal sets the first event, the next signal the second event."""
        stop, hurry = asyncio.Event(), asyncio.Event()

        def note() -> None:
            (hurry if stop.is_set() else stop).set()

        # Not loop.add_signal_handler: closing the loop would restore the default handlers, and a Ctrl-C during the
        # database's shutdown would interrupt it.
        def tell() -> None:
            loop.call_soon_threadsafe(note)

        self._act = tell
        return stop, hurry

    def ignore(self) -> None:
        """From now on, ignore signals."""
        self._act = _nothing

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._act()

    def _interrupt(self) -> None:
        self._act = _nothing
        raise KeyboardInterrupt


def _nothing() -> None:
    return None
