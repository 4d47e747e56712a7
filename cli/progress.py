"""Progress of slow work: a spinner on a terminal, a line elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.text import Text

from cli import terminal
from cli.terminal import say


class Step:
    """A running step; `done` ends its spinner, or prints a line."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self._is_done = False

    def done(self) -> None:
        """End the step; idempotent."""
        if not self._is_done:
            self._is_done = True
            self._finish()


@contextmanager
def progress(sentence: str) -> Iterator[Step]:
    """Show a running step: a spinner on a terminal, a line elsewhere."""
    console = terminal.stderr()
    if not console.is_terminal:
        say(f"{sentence} …")
        yield Step(lambda: None)
        return
    status = console.status(Text(f"{sentence} …"))
    step = Step(status.stop)
    status.start()
    try:
        yield step
    finally:
        step.done()
