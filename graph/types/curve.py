"""Downsampled curves: `Simulation.convergence`, `Query.curves` of many simulations, the past of a subscription.

Points are chosen, never averaged: the first and the last, the least and the greatest, a null for each stretch that is
not finite, and in between those by which the shape is seen (MinMaxLTTB: Van Der Donckt et al., "MinMaxLTTB:
Leveraging MinMax-Preselection to Scale LTTB", IEEE VIS 2023). The numbers are worked on in a thread, and however long
a curve is, no more than `MOST_HELD` of its points are in memory.

Of a long curve of an ended simulation that is asked for as a whole, a level of `LEVEL_POINTS` is chosen first, and from
it what a client wants. The level is kept in the database (`db.curve_levels`) for the next look. An exit report that
ends a simulation has its levels made beforehand.

numpy is imported there, with the first curve: it is a tenth of what this process would import before it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession

from db import curve, curve_levels, metrics
from db.connection import Sessions
from db.convergence import Series
from db.curve import NEVER, PAGE_POINTS, Extent, Page, Points
from db.curve_levels import Level
from db.public_ids import encode
from graph.context import Info
from graph.errors import BadInput
from graph.operation.limits import MOST_POINTS
from graph.operation.selection import selects
from graph.types import cursors as cursors_of
from graph.types.ids import simulations_asked
from graph.types.scalars import Step
from policy.metric_mode import is_system
from transitions.report import MAX_METRIC_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_PAST_POINTS = 200_000  # of all curves in the past of a subscription, or in an answer
MOST_SIMULATIONS = 500  # whose curves are in one answer
MOST_HELD = 2_000_000  # some 60 MB
LEVEL_POINTS = 1_000  # of a kept level: 20 KB, 28 with elapsed seconds
LONG_POINTS = 4 * LEVEL_POINTS  # of a curve that is worth a level
MOST_LEVELS = 50  # metrics of a simulation whose levels are made beforehand
FEWEST_FOR_SHAPE = 3  # of LTTB: both ends, and one between


@strawberry.type(
    description="The points of a metric, as columns of equal length, without those that later attempts superseded."
)
class Curve:
    metric: str
    steps: list[Step] = strawberry.field(description="Rising.")
    values: list[float | None] = strawberry.field(
        description="Null where the value was not finite: one for each such stretch, as far as maxPoints allows."
    )
    elapsed: list[float] = strawberry.field(description="Seconds since the start of the point's attempt.")
    attempts: list[int] = strawberry.field(description="The number of the attempt that reported each point.")


@strawberry.type(description="The curve of a metric of one of several simulations.")
class SimulationCurve:
    simulation_id: strawberry.ID = strawberry.field(description="The id of the simulation.")
    cursor: str | None = strawberry.field(
        description="Pass it as `after` to the subscription `convergence`: it goes on behind this curve. Null without "
        "points, and with `fromStep` or `toStep`."
    )
    curve: Curve = strawberry.field(description="Its points so far.", metadata={"cost": 10})


@dataclass(frozen=True, slots=True)
class Past:
    """The points of one attempt, downsampled; `cursor` is behind its last batch as of the time of reading."""

    cursor: tuple[int, int]
    series: tuple[Series, ...]


async def of_simulation(
    info: Info, simulation_id: int, metric: str, from_step: int | None, to_step: int | None, max_points: int
) -> Curve:
    found = await thinned(
        info.context.sessions,
        simulation_id,
        metric_asked(metric),
        points_asked(max_points),
        low=from_step if from_step is not None else 0,
        high=to_step if to_step is not None else NEVER,
    )
    return _curve(metric, found)


async def of_simulations(
    info: Info,
    references: Sequence[strawberry.ID],
    metric: str,
    from_step: int | None,
    to_step: int | None,
    max_points: int,
) -> list[SimulationCurve]:
    """Read the curves of several simulations, in the order of their ids; what the viewer does not see is left out."""
    if len(references) > MOST_SIMULATIONS:
        raise BadInput(f"At most {MOST_SIMULATIONS} ids at once, got {len(references)}.")
    metric_asked(metric)
    numbers = dict.fromkeys(await simulations_asked(info, references))
    most = max(1, min(points_asked(max_points), MOST_PAST_POINTS // max(len(numbers), 1)))
    rows = await asyncio.gather(*map(info.context.loaders.simulation.load, numbers))
    seen = [row.id for row in rows if row is not None]
    timed = selects(info, "curve", "elapsed")
    low, high = from_step if from_step is not None else 0, to_step if to_step is not None else NEVER
    found, cursors = await of_many(info.context.sessions, seen, metric, most, low=low, high=high, timed=timed)
    if from_step is not None or to_step is not None:
        cursors = {}  # what lies between the range and the end of the log would be missed
    nothing = _thin([], most) if len(found) < len(seen) else None
    return [
        SimulationCurve(
            simulation_id=strawberry.ID(encode("Simulation", number)),
            cursor=cursors_of.encode(*cursors[number]) if number in cursors else None,
            curve=_curve(metric, points),
        )
        for number in seen
        if (points := found.get(number, nothing)) is not None
    ]


def metric_asked(metric: str) -> str:
    """Judge the name of a metric. Raises `BadInput`."""
    if "\0" in metric or not 0 < len(metric) <= MAX_METRIC_NAME:
        raise BadInput(f"A metric's name has 1 to {MAX_METRIC_NAME} characters, none of them NUL.")
    return metric


def points_asked(max_points: int) -> int:
    """Judge what a client wants at most. Raises `BadInput`."""
    if not 1 <= max_points <= MOST_POINTS:
        raise BadInput(f"maxPoints is from 1 to {MOST_POINTS}, got {max_points}.")
    return max_points


async def past(
    sessions: Sessions, simulation_id: int, wanted: frozenset[str] | None, max_points: int
) -> Sequence[Past]:
    """The log up to now, an element per attempt that has any, each metric with at most `max_points` points in all.

    With very many metrics they are fewer, so that all of them stay below `MOST_PAST_POINTS`.
    """
    async with sessions() as session:
        ends = await curve.ends(session, simulation_id)
        reported = await metrics.names(session, simulation_id)
        names = [name for name in reported if (not is_system(name) if wanted is None else name in wanted)]
        limit = max(1, min(max_points, MOST_PAST_POINTS // max(len(names), 1)))
        series: dict[int, list[Series]] = {attempt: [] for attempt in ends}
        for name in names:
            firsts = {part.attempt: part.first_step for part in await curve.parts(session, simulation_id, name)}
            found = await _read(session, simulation_id, name, limit, ends=ends)
            for attempt in dict.fromkeys(found.attempts.tolist()):
                points = found.take(found.attempts == attempt)
                series[attempt].append(_series(name, points, firsts[attempt] if attempt > 1 else None))
    return [Past((attempt, batch), tuple(series[attempt])) for attempt, batch in ends.items()]


async def thinned(
    sessions: Sessions, simulation_id: int, metric: str, most: int, *, low: int = 0, high: int = NEVER
) -> Points:
    """Read what stands of a metric from step `low` to `high`, both included, and choose at most `most` points."""
    async with sessions() as session:
        return await _read(session, simulation_id, metric, most, low=low, high=high)


async def of_many(
    sessions: Sessions,
    ids: Sequence[int],
    metric: str,
    most: int,
    *,
    low: int = 0,
    high: int = NEVER,
    timed: bool = True,
) -> tuple[Mapping[int, Points], Mapping[int, tuple[int, int]]]:
    """Read a metric of several simulations, at most `most` points of each: the points, and the cursors behind them.

    Short curves share statements of up to `PAGE_POINTS` points, so that a hundred of them cost a few; a long one is
    read page by page. timed: with elapsed seconds; else those of short ones are NaN.
    """
    read: dict[int, Points] = {}
    cursors: dict[int, tuple[int, int]] = {}
    thinning: asyncio.Task[Mapping[int, Points]] | None = None  # of one group, while the next one is read
    try:
        async with sessions() as session:
            # A level is of as many points as were counted: both are read of the same moment.
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            extents = await curve.extents(session, ids, metric)
            levelled = _levelled(extents, most) if low <= 0 and high == NEVER else {}
            kept = await curve_levels.find(session, metric, levelled, timed=timed) if levelled else {}
            for group in _groups({number: each.points for number, each in extents.items() if number not in kept}):
                chosen = {number: LEVEL_POINTS if number in levelled else most for number in group}
                if len(group) == 1:
                    ends = await curve.ends(session, group[0])
                    cursors[group[0]] = max(ends.items())
                    read[group[0]] = await _read(
                        session, group[0], metric, chosen[group[0]], low=low, high=high, ends=ends
                    )
                    continue
                parts = {number: extents[number].parts for number in group}
                found = await curve.whole(session, parts, metric, low=low, high=high, timed=timed)
                cursors |= {number: (pages[-1].attempt, pages[-1].last_batch) for number, pages in found.items()}
                read |= await asyncio.shield(thinning) if thinning is not None else {}
                thinning = asyncio.create_task(asyncio.to_thread(_thin_each, found, chosen))
        read |= await asyncio.shield(thinning) if thinning is not None else {}
    finally:
        if thinning is not None:  # a thread can't be interrupted: it ends within this request, whatever failed
            await asyncio.gather(thinning, return_exceptions=True)
    made = {number: Level(levelled[number], cursors[number], read[number]) for number in levelled if number in read}
    if made:
        async with sessions.begin() as session:
            await curve_levels.keep(session, metric, made, timed=timed)
    levels = {number: level.points for number, level in (*kept.items(), *made.items())}
    read |= await asyncio.to_thread(_choose_each, levels, most) if levels else {}
    return read, cursors | {number: level.cursor for number, level in kept.items()}


async def keep_levels(sessions: Sessions, simulation_id: int) -> None:
    """Make the levels of a simulation that has ended, of its own metrics: those of the system are rarely compared."""
    async with sessions() as session:
        names = await metrics.long_of_ended(session, simulation_id, LONG_POINTS)
    for name in [each for each in names if not is_system(each)][:MOST_LEVELS]:
        await of_many(sessions, [simulation_id], name, LEVEL_POINTS)


def choose(
    steps: NDArray[np.int64], values: NDArray[np.float64], most: int, *, again: bool = False
) -> NDArray[np.intp]:
    """Choose at most `most` of the points to show, as rising indices. steps: (n,), rising; values: (n,).

    again: they were chosen before, so that each that is not finite is the begin of a stretch.

    Kept, in this order as far as there is room: the last point and the first, the least value and the greatest, the
    begin of each stretch that is not finite (evenly thinned, if they would take more than half of what is left), and
    the rest for the shape of what is finite.
    """
    import numpy as np

    if len(steps) <= most:
        return np.arange(len(steps))
    finite = np.isfinite(values)
    whole = bool(finite.all())
    places = np.arange(len(steps)) if whole else np.flatnonzero(finite)
    kept = [len(steps) - 1, 0]
    if len(places):
        known = values if whole else values[places]
        kept += [int(places[np.argmin(known)]), int(places[np.argmax(known)])]
    must = np.array(list(dict.fromkeys(kept))[:most], dtype=np.intp)
    room = most - len(must)
    if room and not whole:
        begins = np.flatnonzero(~finite if again else ~finite & np.concatenate(([True], finite[:-1])))
        gaps = _thinned(np.setdiff1d(begins, must), (room + 1) // 2 if len(places) else room)
        must, room = np.concatenate((must, gaps)), room - len(gaps)
    if len(places):  # the shape has ends of its own: those that are chosen already take no room
        room += len(np.intersect1d(places[[0, -1]], must))
    if room >= FEWEST_FOR_SHAPE and len(places) > room:
        from tsdownsample import MinMaxLTTBDownsampler

        known = values if whole else values[places]
        shape = MinMaxLTTBDownsampler().downsample(  # type: ignore[no-untyped-call]  # it has no types
            steps if whole else steps[places], known, n_out=room
        )
        must = np.concatenate((must, places[shape.astype(np.intp)]))
    elif len(places) <= room:
        must = np.concatenate((must, places))
    return np.unique(must)


async def _read(
    session: AsyncSession,
    simulation_id: int,
    metric: str,
    most: int,
    *,
    low: int = 0,
    high: int = NEVER,
    ends: Mapping[int, int] | None = None,
) -> Points:
    """Read what stands of a metric, thinned to `most` points; with `ends`, only as far as those batches."""
    held: list[Points] = []
    for part in await curve.parts(session, simulation_id, metric):
        last_batch = NEVER if ends is None else ends.get(part.attempt, 0)
        async for page in curve.pages(session, simulation_id, metric, part, low=low, high=high, last_batch=last_batch):
            held.append(await asyncio.to_thread(page.unpack))
            if sum(map(len, held)) > MOST_HELD:
                held = [await asyncio.to_thread(_thin, held, MOST_HELD // 2)]
    return await asyncio.to_thread(_thin, held, most)


def _groups(counts: Mapping[int, int]) -> Iterator[Sequence[int]]:
    """Divide simulations into groups of up to `PAGE_POINTS` points; one with more than that is a group by itself."""
    group: list[int] = []
    points = 0
    for number, count in counts.items():
        if count > PAGE_POINTS:
            yield [number]
            continue
        if points + count > PAGE_POINTS:
            yield group
            group, points = [], 0
        group.append(number)
        points += count
    if group:
        yield group


def _levelled(extents: Mapping[int, Extent], most: int) -> Mapping[int, int]:
    """Select the curves that are shown from a level: how many points each has."""
    if most > LEVEL_POINTS:
        return {}
    return {number: each.points for number, each in extents.items() if each.ended and each.points >= LONG_POINTS}


def _thin_each(pages: Mapping[int, Sequence[Page]], most: Mapping[int, int]) -> Mapping[int, Points]:
    return {number: _thin([page.unpack() for page in each], most[number]) for number, each in pages.items()}


def _choose_each(levels: Mapping[int, Points], most: int) -> Mapping[int, Points]:
    return {
        number: points.take(choose(points.steps, points.values, most, again=True)) for number, points in levels.items()
    }


def _curve(metric: str, points: Points) -> Curve:
    return Curve(
        metric=metric,
        steps=points.steps.tolist(),
        values=_with_gaps(points.values),
        elapsed=points.elapsed.tolist(),
        attempts=points.attempts.tolist(),
    )


def _thin(held: Sequence[Points], most: int) -> Points:
    import numpy as np

    points = Points(
        np.concatenate([each.steps for each in held] or [np.empty(0, np.int64)]),
        np.concatenate([each.values for each in held] or [np.empty(0, np.float64)]),
        np.concatenate([each.elapsed for each in held] or [np.empty(0, np.float64)]),
        np.concatenate([each.attempts for each in held] or [np.empty(0, np.int32)]),
    )
    # Supervisors send rising steps; the choice must not fall over one that does not.
    rises = np.concatenate(([True], points.steps[1:] > np.maximum.accumulate(points.steps)[:-1]))[: len(points)]
    if not rises.all():
        points = points.take(rises)
    return points.take(choose(points.steps, points.values, most))


def _thinned(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most `most` of them, evenly."""
    import numpy as np

    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(np.intp)]


def _series(metric: str, points: Points, supersedes_from: int | None) -> Series:
    return Series(metric, points.steps.tolist(), points.values.tolist(), points.elapsed.tolist(), supersedes_from)


def _with_gaps(values: NDArray[np.float64]) -> list[float | None]:
    """GraphQL has no NaN: what is not finite is null."""
    import numpy as np

    finite = np.isfinite(values)
    listed: list[float | None] = values.tolist()
    if finite.all():
        return listed
    return [value if known else None for value, known in zip(listed, finite.tolist(), strict=True)]
