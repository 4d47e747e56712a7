"""What an attempt needs before its child starts, read from the store: however long that takes, and however often the
store is away meanwhile.

An outage costs the requests that it met, not all that came before; it may last `give_up_seconds` from the last success
on. What is missing in the store is looked up anew a few times, for the list that names it may have been replaced. A
piece that comes damaged is fetched again a few times first: it may have been damaged on the way.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from typing import Callable, TypeVar

from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.files.attached import Abandoned
from runner.supervisor.files.lanes import Buffers, in_order
from runner.supervisor.files.store import MOST_OFFERED, PIECE_BYTES, Damaged, Missing, Over, Refused, Store
from runner.supervisor.service import Backoff, Unreachable

Result = TypeVar("Result")
Take = Callable[[memoryview], None]

AT_ONCE = 4  # pieces of 8 MiB, which are in memory meanwhile
LONGEST_PAUSE_SECONDS = 5.0
LOCK_SECONDS = 0.2
MOST_TRIES = 4  # to read what is there
MOST_DAMAGED = 4  # a piece that comes damaged each time is so in the store


class Fetch:
    """The fetch of one attempt. what: the beginning of sentences; gone: a sentence for what the store has lost."""

    def __init__(
        self, store: Store, what: str, gone: str, *, give_up_at: float, is_abandoned: Callable[[], bool]
    ) -> None:
        """give_up_at: how long the store may be away (monotonic); as long again after each piece."""
        self._store = store
        self._what = what
        self._gone = gone
        self.patience_seconds = give_up_at - time.monotonic()
        self._give_up_at = give_up_at
        self._is_abandoned = is_abandoned

    def check(self) -> None:
        """Raise Abandoned if the attempt is to end."""
        if self._is_abandoned():
            raise Abandoned

    def persist(self, act: Callable[[], Result]) -> Result:
        """Do something that asks the store, until it succeeds.

        Raises `runner.supervisor.child.Refused` where trying again can't help, and Abandoned.
        """
        backoff = Backoff(LONGEST_PAUSE_SECONDS)
        tries = 0
        while True:
            self.check()
            try:
                return act()
            except Missing as error:
                tries += 1
                if tries == MOST_TRIES:
                    raise NotStarted(self._gone) from None
                time.sleep(backoff.failed(f"a piece is missing: {error}"))
            except Unreachable as error:
                if time.monotonic() > self._give_up_at:
                    raise NotStarted(f"{self._what} can't be read: {str(error).rstrip('.')}.") from None
                time.sleep(backoff.failed(str(error)))
            except Refused as error:
                raise NotStarted(f"{self._what} can't be read: {error}") from None
            except Over:
                raise Abandoned from None

    def pieces(self, wanted: Sequence[tuple[str, Take]]) -> None:
        """Fetch pieces by their digests, several at once; each is handed to its function, in its thread.

        The memory of a piece is used again when its function returns. Raises what `Store.fetch` and the functions do,
        and Abandoned.
        """
        digests = [digest for digest, _ in wanted]

        buffers = Buffers(PIECE_BYTES)

        def fetch(number: int) -> None:
            digest, take = wanted[number]
            with buffers.one() as buffer:
                take(self._piece(digest, buffer, digests[number + 1 : number + 1 + MOST_OFFERED]))

        for _ in in_order(range(len(wanted)), fetch, AT_ONCE):
            self._give_up_at = time.monotonic() + self.patience_seconds

    def _piece(self, digest: str, buffer: memoryview, following: Sequence[str]) -> memoryview:
        backoff = Backoff(LONGEST_PAUSE_SECONDS)
        damaged = 0
        while True:
            self.check()
            try:
                content = self._store.fetch(digest, buffer, following)
            except Damaged:
                damaged += 1
                if damaged == MOST_DAMAGED:
                    raise
                time.sleep(backoff.failed("a piece came damaged"))
            except Unreachable as error:
                if time.monotonic() > self._give_up_at:
                    raise
                time.sleep(backoff.failed(str(error)))
            else:
                backoff.succeeded()
                return content

    def lock(self, descriptor: int, most_seconds: float) -> bool:
        """Lock a file that other attempts of this host use; False if the one that has it does nothing for so long.

        It shows that it goes on by the file's time or size. Raises Abandoned.
        """
        seen, since = None, 0.0
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            self.check()
            now, status = time.monotonic(), os.fstat(descriptor)
            if (sign := (status.st_mtime_ns, status.st_size)) != seen:
                seen, since = sign, now
            elif now - since > most_seconds:
                return False
            time.sleep(LOCK_SECONDS)


def write_at(descriptor: int, content: memoryview, offset: int) -> None:
    """Write all of it to a place in a file."""
    while content:
        done = os.pwrite(descriptor, content, offset)
        content, offset = content[done:], offset + done
