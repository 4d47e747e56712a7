"""Several transfers at once, on threads that end with the process, in memory that is used again.

Not `concurrent.futures`: the interpreter waits for its threads at the end, and a request to a store that is away would
hold up the supervisor.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Callable, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Buffers:
    """Memory for pieces on their way, used again: to get a new page takes several times as long as to fill it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[memoryview] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[memoryview]:
        """Lend one. It still holds the bytes of its last use."""
        import mmap  # as `http` is: see `runner.supervisor.launcher`

        try:
            buffer = self._idle.pop()
        except IndexError:  # pages that are not written to take no memory, unlike those of a bytearray
            buffer = memoryview(mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        try:
            yield buffer
        finally:
            self._idle.append(buffer)

    def clear(self) -> None:
        """Give the memory back that is not lent."""
        self._idle.clear()


def in_order(items: Iterable[Item], act: Callable[[Item], Result], at_once: int) -> Iterator[Result]:
    """Yield `act(item)` for each item, in order, with at most `at_once` of them begun and not yet yielded.

    The first exception, in that order, is raised after those that have begun are over. Closed early, it waits for them.
    """
    pending: deque[_Call[Result]] = deque()
    try:
        for item in items:
            pending.append(_Call(act, item))
            if len(pending) >= at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for each in pending:
            each.wait()


class _Call(Generic[Result]):
    """One call in a thread of its own; where there can be no more threads, it is made at once."""

    def __init__(self, act: Callable[[Item], Result], item: Item) -> None:
        self._done: list[Result] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(
            target=self._run, args=(act, item), name="transfer", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._run(act, item)

    def _run(self, act: Callable[[Item], Result], item: Item) -> None:
        try:
            self._done.append(act(item))
        except BaseException as error:  # noqa: BLE001  # raised by `result`
            self._error = error

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def result(self) -> Result:
        self.wait()
        if self._error is not None:
            raise self._error
        return self._done.pop()
