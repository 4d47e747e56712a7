"""The convergence subscription: a cursor over the log, from the client's position, live, to the end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Hashable, Sequence
from copy import copy
from decimal import Decimal
from functools import partial

import strawberry

from db.convergence import Batch, Head, joined
from db.convergence import Series as DbSeries
from graph.context import Info
from graph.errors import BadInput, NotFound
from graph.live.shared_execution import Memo, wanted_feed
from graph.live.tail import Cursor, CurveTail
from graph.types import curve
from graph.types.cursors import decode, encode
from graph.types.enums import Reason, SimulationState
from graph.types.ids import simulation_followed
from graph.types.scalars import Step
from policy.cost import cost_so_far
from policy.metric_mode import is_system
from transitions.report import MAX_METRICS

MOST_JOINED = 1_000  # points of small batches, joined into one event for a client that catches up; more save little


@strawberry.type(description="Points of one metric, as columns of equal length.")
class Series:
    metric: str
    steps: list[Step] = strawberry.field(description="Rising.")
    values: list[float | None] = strawberry.field(description="Null where the value was not finite.")
    elapsed: list[float] = strawberry.field(description="Seconds since the attempt's start.")
    supersedes_from: Step | None = strawberry.field(
        description="Set with the first points of a metric in a later attempt: points of older attempts from this step "
        "on are superseded."
    )
    stored: strawberry.Private[Sequence[float]] = ()  # values as they are

    @strawberry.field(description="What the nulls of `values` stand for, in their order: NaN, Infinity or -Infinity.")
    def not_finite(self) -> list[str]:
        return [_word_of(value) for value in self.stored if not math.isfinite(value)]


@strawberry.type(description="New points of a simulation. The last event always carries the final state.")
class ConvergenceEvent:
    cursor: str = strawberry.field(description="Pass it as `after` to resume behind this event.")
    attempt: int
    live: bool = strawberry.field(
        description="False while the subscription catches up with the past, true at the end of the log."
    )
    state: SimulationState
    reason: Reason | None = strawberry.field(description="Why it ended; null while it has not.")
    cost: Decimal = strawberry.field(description="The cost of the simulation so far, at most some seconds old.")
    series: list[Series] = strawberry.field(metadata={"size": 10})
    memo: strawberry.Private[Memo]


async def follow(
    info: Info, public_id: str, metrics: list[str] | None, after: str | None, max_points: int | None = None
) -> AsyncIterator[ConvergenceEvent]:
    """Every batch behind the cursor, and every change of state, once and in order; then it completes.

    With `max_points` and no cursor the past comes thinned, an event per attempt, and what is behind it in full.
    """
    simulation_id = await simulation_followed(info, public_id)
    if metrics is not None and len(metrics) > MAX_METRICS:
        raise BadInput(f"At most {MAX_METRICS} metrics can be asked for.")
    wanted = frozenset(metrics) if metrics is not None else None
    cursor = decode(after)
    limit = curve.points_asked(max_points) if max_points is not None else None
    feed, sessions, live = wanted_feed.get(), info.context.sessions, info.context.live
    del info  # it holds what the first event was executed with
    with live.watch_leases.watched(simulation_id), live.hub.tail(simulation_id) as tail:
        await tail.ready()
        follower = Follower(tail, cursor, wanted)
        if limit is not None and after is None:
            then = tail.head
            past = await live.outage.patiently(partial(curve.past, sessions, simulation_id, wanted, limit))
            for piece in past:
                follower.cursor = piece.cursor
                if then is not None and piece.series:
                    yield _event(piece.cursor, piece.cursor[0], then, piece.series, wanted, live=False)
        while True:
            pulse = tail.pulse.next
            news = [*await follower.next()]
            while news:
                yield news.pop(0)  # no sent event is kept while waiting for the next
            if follower.ended:
                return
            if feed is not None and feed.send is not None and follower.caught_up and not pulse.is_set():
                await tail.broadcast.join(follower, feed)
            elif follower.caught_up:
                await pulse.wait()


class Follower:
    """A subscriber's position in a log, and the last state that it was sent."""

    def __init__(self, tail: CurveTail, cursor: Cursor, wanted: frozenset[str] | None) -> None:
        self.cursor = cursor
        self.caught_up = False
        self.ended = False
        self._tail = tail
        self._wanted = wanted
        self._told: tuple[Head, bool] | None = None  # where it stands, and that this is the end of the log

    @property
    def key(self) -> Hashable:
        return (self.cursor, self._told, self._wanted)

    def copy(self) -> Follower:
        return copy(self)

    def move(self, to: Follower) -> None:
        self.cursor, self._told = to.cursor, to._told

    async def next(self) -> Sequence[ConvergenceEvent]:
        """Read the events behind the cursor: from the tail, or a page of it from the database."""
        events = self.at_hand()
        if events is None:
            head = self._tail.head  # before the page: a final one means that none is missing
            page = await self._tail.page(self.cursor)
            self.caught_up = not page
            events = self._past(head, page) if page else self._present(head, page)
        return events

    def at_hand(self) -> Sequence[ConvergenceEvent] | None:
        """Return the tail's entries behind the cursor; None if it does not reach back so far."""
        head = self._tail.head  # older than the batches, or as old: a final one means that none is missing
        batches = self._tail.behind(self.cursor)
        self.caught_up = batches is not None
        return self._present(head, batches) if batches is not None else None

    def _past(self, head: Head | None, batches: Sequence[Batch]) -> Sequence[ConvergenceEvent]:
        """Events of a cursor that is catching up: its own, not shared."""
        events = []
        for batch in joined(batches, MOST_JOINED):
            self.cursor = batch.cursor
            event = _event(self.cursor, batch.attempt, _there(head), batch.series, self._wanted, live=False)
            if event.series:
                self._told = (_there(head), False)
                events.append(event)
        return events

    def _present(self, found: Head | None, batches: Sequence[Batch]) -> Sequence[ConvergenceEvent]:
        """Events at the end of the log, where everybody gets the same."""
        events, head, wanted = [], _there(found), self._wanted
        for left, batch in enumerate(batches, 1 - len(batches)):
            self.cursor, live = batch.cursor, left == 0
            make = partial(_event, self.cursor, batch.attempt, head, batch.series, wanted, live)
            event = self._tail.shared((self.cursor, wanted, live), make)
            if event.series:
                self._told = (head, live)
                events.append(event)
        if self._told != (head, True) or head.state.is_final:
            self._told = (head, True)
            make = partial(_event, self.cursor, head.attempt, head, (), wanted, True)
            events.append(self._tail.shared((self.cursor, wanted, None), make))
            self.ended = head.state.is_final
        return events


def _there(head: Head | None) -> Head:
    if head is None:
        raise NotFound("There is no such simulation.")
    return head


def _event(
    cursor: Cursor,
    attempt: int,
    head: Head,
    columns: Sequence[DbSeries],
    wanted: frozenset[str] | None,
    live: bool,
) -> ConvergenceEvent:
    series = [
        Series(
            metric=column.metric,
            steps=column.steps,  # type: ignore[arg-type]  # a Sequence of ints: strawberry serialises any
            values=_finite(column.values),
            elapsed=column.elapsed,  # type: ignore[arg-type]  # likewise
            supersedes_from=Step(column.supersedes_from) if column.supersedes_from is not None else None,
            stored=column.values,
        )
        for column in columns
        if (not is_system(column.metric) if wanted is None else column.metric in wanted)
    ]
    return ConvergenceEvent(
        cursor=encode(*cursor),
        attempt=attempt,
        live=live,
        state=head.state,
        reason=head.reason,
        cost=cost_so_far(head.holdings),
        series=series,
        memo=Memo(),
    )


def _word_of(value: float) -> str:
    """A value that is not finite, as JavaScript and many readers of CSV write it."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _finite(values: Sequence[float]) -> list[float | None]:
    """GraphQL has no NaN: what is not finite is null."""
    if all(map(math.isfinite, values)):
        return values  # type: ignore[return-value]  # not copied: almost every batch is finite
    return [value if math.isfinite(value) else None for value in values]
