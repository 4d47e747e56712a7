"""What Ctrl-C, SIGTERM and a closed terminal mean to `up`, which changes on the way.

While it starts: KeyboardInterrupt, once; then nothing, so that the clean-up runs through. While it serves: the first is
a wish to stop, the second a hurry. At the end: nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """The handlers, installed while the block runs. Main thread only."""

    def __init__(self) -> None:
        self._act: Callable[[], None] = self._interrupt
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        for number in NUMBERS:
            # A hangup that is ignored already was ignored by nohup. (Shells ignore SIGINT for what they start with &:
            # nobody means that.)
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def as_events(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Event, asyncio.Event]:
        """From now on, set the first event on the first signal and the second on the next."""
        stop, hurry = asyncio.Event(), asyncio.Event()

        def note() -> None:
            (hurry if stop.is_set() else stop).set()

        # Not loop.add_signal_handler: closing the loop would hand the signals back to their defaults, and a Ctrl-C
        # while the database stops would cut that short.
        def tell() -> None:
            loop.call_soon_threadsafe(note)

        self._act = tell
        return stop, hurry

    def ignore(self) -> None:
        """From now on, do nothing."""
        self._act = _nothing

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._act()

    def _interrupt(self) -> None:
        self._act = _nothing
        raise KeyboardInterrupt


def _nothing() -> None:
    return None
