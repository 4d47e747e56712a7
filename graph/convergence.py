"""The convergence subscription: a cursor over the log, from where the client says, live, to the end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from functools import partial

import strawberry

from db.convergence import Head
from db.convergence import Series as DbSeries
from graph import curve
from graph.context import Info
from graph.cursors import decode, encode
from graph.errors import BadInput, NotFound
from graph.ids import number_asked
from graph.scalars import MAX_METRICS, Step
from graph.sharing import Memo
from graph.terms import Reason, SimulationState
from policy.cost import cost_so_far


@strawberry.type(description="Points of one metric, as columns of equal length.")
class Series:
    metric: str
    steps: list[Step] = strawberry.field(description="Rising.")
    values: list[float | None] = strawberry.field(description="Null where the value was not finite.")
    elapsed: list[float] = strawberry.field(description="Seconds since the attempt's start.")
    supersedes_from: Step | None = strawberry.field(
        description="Set with the first points of a metric in a later attempt: what older attempts said from this step "
        "on is void."
    )


@strawberry.type(description="What is new on a curve. The last event always carries the final state.")
class ConvergenceEvent:
    cursor: str = strawberry.field(description="Pass it as `after` to go on behind this event.")
    attempt: int
    live: bool = strawberry.field(description="Whether this is the end of the log, not the past being caught up with.")
    state: SimulationState
    reason: Reason | None = strawberry.field(description="Why it ended; null before.")
    cost: Decimal = strawberry.field(description="What the simulation has cost so far, some seconds ago at most.")
    series: list[Series]
    memo: strawberry.Private[Memo]


async def follow(
    info: Info, public_id: str, metrics: list[str] | None, after: str | None, max_points: int | None = None
) -> AsyncIterator[ConvergenceEvent]:
    """Every batch behind the cursor, and every change of state, once and in order; then it completes.

    With `max_points` and no cursor the past comes thinned, an event per attempt, and what is behind it in full.
    """
    simulation_id = number_asked(public_id, "Simulation")
    if metrics is not None and len(metrics) > MAX_METRICS:
        raise BadInput(f"At most {MAX_METRICS} metrics can be asked for.")
    wanted = frozenset(metrics) if metrics is not None else None
    cursor = decode(after)
    limit = curve.points_asked(max_points) if max_points is not None else None
    told: tuple[Head, bool] | None = None  # where it stands, and that this is the end of the log
    with info.context.hub.tail(simulation_id) as tail:
        if limit is not None and after is None:
            then = await tail.head()
            for piece in await curve.past(info.context.sessions, simulation_id, wanted, limit):
                cursor = piece.cursor
                if then is not None and piece.series:
                    yield _event(cursor, piece.cursor[0], then, piece.series, wanted, live=False)
        while True:
            pulse = tail.pulse.next
            head, batches, more = await tail.read(cursor)
            if head is None:
                raise NotFound("There is no such simulation.")
            for position, batch in enumerate(batches):
                cursor = batch.cursor
                live = not more and position == len(batches) - 1
                make = partial(_event, cursor, batch.attempt, head, batch.series, wanted, live)
                # At the end of the log everybody gets the same; the past is everybody's own.
                event = make() if more else tail.shared((cursor, wanted, live), make)
                if event.series:
                    told = (head, live)
                    yield event
            if more:
                continue
            if told != (head, True) or head.state.is_final:
                told = (head, True)
                make = partial(_event, cursor, head.attempt, head, (), wanted, True)
                yield tail.shared((cursor, wanted, None), make)
            if head.state.is_final:
                return
            await pulse.wait()


def _event(
    cursor: tuple[int, int],
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
        )
        for column in columns
        if wanted is None or column.metric in wanted
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


def _finite(values: Sequence[float]) -> list[float | None]:
    """GraphQL has no NaN: what is not finite is null."""
    if all(map(math.isfinite, values)):
        return values  # type: ignore[return-value]  # not copied: almost every batch is finite
    return [value if math.isfinite(value) else None for value in values]
