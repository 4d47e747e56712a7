"""Subscription simulationChanged: the newest state of simulations, as hints about them come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Hashable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from db import attempts, models, queue, simulations
from db.attempts import StopIntent
from db.notifications import Channel
from graph.context import Info
from graph.types.enums import SimulationState
from graph.types.ids import number_asked, simulation_followed
from graph.types.simulation import Simulation
from policy.waiting import Wait, why

RECENT = timedelta(minutes=10)


async def changed(info: Info, public_id: str | None, project: str | None) -> AsyncIterator[Simulation]:
    """The newest state of each simulation that changed, from now on. What was missed is read again by the client."""
    number = await simulation_followed(info, public_id) if public_id is not None else None
    project_id = number_asked(project, "Project") if project is not None else None
    shown: dict[int, tuple[object, ...]] = {}
    live = info.context.live

    async def read(
        ids: Collection[int] | None,
    ) -> tuple[Sequence[models.Simulation], Mapping[int, Wait | None], Mapping[int, StopIntent]]:
        async with info.context.sessions() as session:
            rows = await (
                simulations.by_ids(session, ids, scope=info.context.scope)
                if ids is not None
                else simulations.recent(session, RECENT, scope=info.context.scope)
            )
            queued = [row.id for row in rows if row.state is SimulationState.QUEUED]
            waits = {key: why(each) for key, each in (await queue.waiting_of(session, queued)).items()}
            return rows, waits, await attempts.stops_of(session, [row.id for row in rows])

    with live.hub.changes(Channel.SIMULATIONS) as changes:
        while True:
            ids = await changes.next()
            if number is not None:
                ids = {number} if ids is None or number in ids else set()
            rows, waits, stops = await live.outage.patiently(partial(read, ids))
            for row in sorted(rows, key=lambda row: row.id):
                face = (row.state, row.reason, _face(waits.get(row.id)), row.attempt, stops.get(row.id), _declared(row))
                if (project_id is None or row.project_id == project_id) and shown.get(row.id) != face:
                    shown[row.id] = face
                    if len(shown) > 10_000:
                        shown.pop(next(iter(shown)))
                    yield Simulation.of(row)


def _declared(row: models.Simulation) -> tuple[object, ...]:
    """What updateSimulation and dry runs change."""
    limits = (row.max_runtime, row.max_cost, row.max_steps, row.max_retries, row.retry_on)
    return (row.name, row.tags, row.notes, row.priority, row.preemptible, row.stopping_revision, row.would_stop, limits)


def _face(wait: Wait | None) -> Hashable:
    """The fields of which a change is sent to subscribers; not the seconds that are left of a backoff."""
    return None if wait is None else (wait.reason, wait.until or wait.detail)
