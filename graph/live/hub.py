"""The tails of one graph process, and the fan-out of hints to them.

The hub holds a tail for each curve and each log that has subscribers here, and the `Changes` of those that watch all
simulations or machines. A hint ("simulation 7 has new batches") reaches each of them through `heard` or `committed`.
Where hints come from, and how other processes get theirs, is `graph.live.notifications`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from db import convergence
from db.connection import Sessions
from db.convergence import Batch
from db.notifications import Channel
from db.outage import Outage
from graph.live.changes import Changes
from graph.live.tail import CurveTail, LogTail

LOOK_AGAIN_SECONDS = float(convergence.MONEY_SECONDS)  # a hint may be lost, and money runs
POLL_SECONDS = 1.0  # without hints

T = TypeVar("T", CurveTail, LogTail)
K = TypeVar("K", int, tuple[int, int])


class Hub:
    """All tails and all watchers of one graph process."""

    def __init__(
        self,
        sessions: Sessions,
        outage: Outage | None = None,
        delivered: Callable[[float], None] = lambda _seconds: None,
        *,
        has_hints: bool = False,
    ) -> None:
        """delivered: called with the seconds that new points took to their subscribers.

        has_hints: `heard` is called for what other processes commit; otherwise all is looked at every second.
        """
        self._sessions = sessions
        self._outage = outage or Outage()
        self._delivered = delivered
        self.look_again_seconds = LOOK_AGAIN_SECONDS if has_hints else POLL_SECONDS
        self._tails: dict[int, CurveTail] = {}
        self._log_tails: dict[tuple[int, int], LogTail] = {}  # by simulation and rank
        self._watchers: dict[Channel, set[Changes]] = {Channel.SIMULATIONS: set(), Channel.MACHINES: set()}

    def committed(self, simulation_id: int, batch: Batch, *, ended: bool, logged: bool, rank: int = 0) -> None:
        """This process has committed a batch: wake its subscribers here.

        logged: it holds lines of the log, too. rank: of the member that reported it.
        """
        tail, log_tail = self._tails.get(simulation_id), self._log_tails.get((simulation_id, rank))
        if tail is not None and ended:
            tail.stir()
        elif tail is not None and batch.series:
            tail.give(batch)
        if ended:
            self._stir(self._log_tails_of(simulation_id), head=True)
        elif log_tail is not None and logged:
            log_tail.stir(head=False)

    def heard(self, channel: Channel, ids: frozenset[int] | None) -> None:
        """A hint came in; ids None: look at all."""
        for watcher in self._watchers.get(channel, ()):
            watcher.add(ids)
        if channel not in (Channel.SIMULATIONS, Channel.CONVERGENCE):
            return
        head = channel is Channel.SIMULATIONS or ids is None
        if ids is None:
            self._stir([*self._tails.values(), *self._log_tails.values()], head=head)
            return
        for simulation_id in ids:
            if tail := self._tails.get(simulation_id):
                tail.stir(head=head)
        if self._log_tails:
            self._stir([tail for (each, _), tail in self._log_tails.items() if each in ids], head=head)

    def _log_tails_of(self, simulation_id: int) -> Sequence[LogTail]:
        return [tail for (each, _), tail in self._log_tails.items() if each == simulation_id]

    @staticmethod
    def _stir(tails: Sequence[CurveTail | LogTail], *, head: bool) -> None:
        for tail in tails:
            tail.stir(head=head)

    def look_again(self) -> None:
        """Have all watchers look at everything; tails have timers of their own."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.add(None)

    @contextmanager
    def tail(self, simulation_id: int) -> Iterator[CurveTail]:
        """Share the tail of a simulation's curve with the other subscribers."""

        def make() -> CurveTail:
            return CurveTail(simulation_id, self._sessions, self._outage, self._delivered, self.look_again_seconds)

        with _shared(self._tails, simulation_id, make) as tail:
            yield tail

    @contextmanager
    def log_tail(self, simulation_id: int, rank: int = 0) -> Iterator[LogTail]:
        """Share the tail of a rank's log with the other subscribers."""

        def make() -> LogTail:
            return LogTail(
                simulation_id, self._sessions, self._outage, _not_measured, self.look_again_seconds, rank=rank
            )

        with _shared(self._log_tails, (simulation_id, rank), make) as tail:
            yield tail

    @contextmanager
    def changes(self, channel: Channel) -> Iterator[Changes]:
        """Collect the ids that change while the block runs."""
        changes = Changes()
        self._watchers[channel].add(changes)
        try:
            yield changes
        finally:
            self._watchers[channel].discard(changes)

    def subscribers(self) -> dict[str, int]:
        """The number of open subscriptions, by kind."""
        return {
            "log": sum(each.subscribers for each in self._tails.values())
            + sum(each.subscribers for each in self._log_tails.values()),
            **{channel.name.lower(): len(watchers) for channel, watchers in self._watchers.items()},
        }


@contextmanager
def _shared(tails: dict[K, T], key: K, make: Callable[[], T]) -> Iterator[T]:
    """One tail for as long as it has subscribers; another one for those that come to a broken one."""
    tail = tails.get(key)
    if tail is None or tail.is_broken:
        tail = tails[key] = make()
        tail.stir()
    tail.subscribers += 1
    try:
        yield tail
    finally:
        tail.subscribers -= 1
        if not tail.subscribers:
            if tails.get(key) is tail:
                del tails[key]
            tail.close()


def _not_measured(_seconds: float) -> None:
    """The delivery of points is what is measured."""
