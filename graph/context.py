"""The context of resolvers. Made once per HTTP request and once per WebSocket, where fields run in parallel: so it
holds the session factory and no session, and its loaders keep nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry.dataloader import DataLoader

from db import (
    alert_deliveries,
    alert_targets,
    attempts,
    billing,
    budgets,
    checkpoints,
    dependencies,
    machines,
    metrics,
    newest_plan,
    notices,
    packages,
    projects,
    queue,
    running,
    simulations,
    sources,
    sweeps,
    tokens,
)
from db.attempts import Execution, StopIntent
from db.billing import Holding
from db.checkpoints import Checkpoint
from db.connection import Sessions
from db.dependencies import Edge
from db.events import UNVERIFIED, Actor
from db.machines import NOTHING, Usage
from db.metrics import Summary
from db.models import AlertTarget, Budget, Machine, Member, Package, Project, Simulation, Sweep, Token, Trial
from db.newest_plan import Place, Reservation
from db.notices import Notice
from db.projects import Scope
from db.running import Running
from db.simulations import Command
from db.sources import Source
from db.states import MachineState
from db.sweeps import Counts
from graph.auth.rate_limit import RateLimit
from graph.auth.viewer import LOOPBACK, Viewer
from graph.live.process import Live
from graph.wire.unix_user import Peer
from policy.waiting import Wait, why
from settings import Settings
from transitions.budget import Statement, statements

MOST_DEPENDENTS = 100  # of each simulation

Key = TypeVar("Key")
Row = TypeVar("Row")


@dataclass(slots=True)
class Context:
    """The viewer of a request, and the dependencies of its resolvers."""

    sessions: Sessions
    settings: Settings
    live: Live
    actor: Actor
    bearer: str | None = None  # what was sent as such: an attempt's token is judged where it is used
    connection_params: dict[str, Any] = field(default_factory=dict)
    resume_after: str | None = None  # the cursor a stream over HTTP comes back with; it wins over `after`
    submits: RateLimit | None = None  # None: no limit
    viewer: Viewer = LOOPBACK  # changed by `admit` alone
    peer: Peer | None = None  # the other end, where its Unix user may stand for an anonymous one
    _loaders: Loaders | None = field(default=None, init=False)

    @property
    def loaders(self) -> Loaders:
        """Made when they are first used: a report needs none, and there are hundreds of reports a second."""
        if self._loaders is None:
            self._loaders = Loaders(self)
        return self._loaders

    def admit(self, viewer: Viewer) -> None:
        """Set the viewer: later permission checks, reads, writes and audit records use it."""
        self.viewer = viewer
        self.actor = Actor(viewer.name, self.actor.origin)

    async def name_actor(self) -> None:
        """Put the Unix user of a local client in the place of "anonymous", marked as unverified, where it is known."""
        if self.viewer is LOOPBACK and self.peer is not None and (user := await self.peer.user()) is not None:
            self.actor = Actor(user + UNVERIFIED, self.actor.origin)

    @property
    def scope(self) -> Scope:
        """The projects that may be seen; whatever reads rows of projects is given it."""
        return self.viewer.projects

    @property
    def rights(self) -> Hashable:
        """The viewer's rights to read, as a key: two viewers may share an answer only if their keys are equal."""
        return self.viewer.role, self.viewer.projects

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.settings.lease_seconds)


Info: TypeAlias = strawberry.Info[Context, None]


class Loader(DataLoader[Key, Row]):
    """Strawberry's loader, whose batches can be given up before they begin.

    The operations of a socket share its loaders. Strawberry cancels a batch when all that wait for it were cancelled;
    one that had not begun by then would take in every later key, and never be loaded: fields that no answer comes to.
    """

    def load(self, key: Key) -> Awaitable[Row]:
        """Return the row of a key, loaded with those that other fields ask for in this turn of the event loop."""
        if self.batch is not None and all(each.future.cancelled() for each in self.batch.tasks):
            self.batch = None
        return super().load(key)


class Loaders:
    """Rows by id, collected over one turn of the event loop, so that a list costs one query per kind, not one per row.

    Nothing is cached: the next question gets the next answer. What the viewer may not see is not found.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sessions = context.sessions
        self._lease = context.lease
        self.simulation: Loader[int, Simulation | None] = Loader(self._load_simulations, cache=False)
        self.command: Loader[int, Command] = Loader(self._load_commands, cache=False)
        self.attempt = Loader(self._by_ids(attempts.by_ids, Execution), cache=False)
        self.machine = Loader(self._by_ids(machines.by_ids, Machine), cache=False)
        self.stop: Loader[int, StopIntent | None] = Loader(self._load_stops, cache=False)
        self.machine_of: Loader[int, int | None] = Loader(self._load_machine_of, cache=False)
        self.wait: Loader[int, Wait | None] = Loader(self._load_waits, cache=False)
        self.dependencies: Loader[int, Sequence[Edge]] = Loader(self._load_dependencies, cache=False)
        self.dependents: Loader[int, Sequence[Edge]] = Loader(self._load_dependents, cache=False)
        self.place: Loader[int, Place | None] = Loader(self._load_places, cache=False)
        self.reservation: Loader[int, Reservation | None] = Loader(self._load_reservations, cache=False)
        self.holds: Loader[int, tuple[Sequence[Running], Sequence[Reservation], datetime]] = Loader(
            self._load_holds, cache=False
        )
        self.metrics: Loader[int, Sequence[Summary]] = Loader(self._load_metrics, cache=False)
        self.notices: Loader[int, Sequence[Notice]] = Loader(self._load_notices, cache=False)
        self.source: Loader[int, Source | None] = Loader(self._load_sources, cache=False)
        self.package: Loader[int, Package | None] = Loader(self._by_ids(packages.by_ids, Package), cache=False)
        self.checkpoint: Loader[int, Checkpoint | None] = Loader(self._load_checkpoints, cache=False)
        self.holdings: Loader[int, Sequence[Holding]] = Loader(self._load_holdings, cache=False)
        self.holdings_of_attempt: Loader[int, Sequence[Holding]] = Loader(self._load_holdings_of_attempts, cache=False)
        self.members_of_attempt: Loader[int, Sequence[Member]] = Loader(self._load_members, cache=False)
        self.project: Loader[int, Project | None] = Loader(self._load_projects, cache=False)
        self.budget: Loader[int, Budget | None] = Loader(self._load_budgets, cache=False)
        self.budget_statement: Loader[int, tuple[Statement, datetime] | None] = Loader(
            self._load_budget_statements, cache=False
        )
        self.sweep: Loader[int, Sweep | None] = Loader(self._load_sweeps, cache=False)
        self.sweep_counts: Loader[int, Counts] = Loader(self._load_sweep_counts, cache=False)
        self.sweep_cost: Loader[int, tuple[Decimal, Sequence[Holding]]] = Loader(self._load_sweep_costs, cache=False)
        self.best_trial: Loader[int, Trial | None] = Loader(self._load_best_trials, cache=False)
        self.simulations_of_trial: Loader[tuple[int, int], Sequence[int]] = Loader(
            self._load_simulations_of_trials, cache=False
        )
        self.token = Loader(self._by_ids(tokens.by_ids, Token), cache=False)
        self.alert_target: Loader[int, AlertTarget | None] = Loader(self._load_alert_targets, cache=False)
        self.open_deliveries: Loader[int, int] = Loader(self._load_open_deliveries, cache=False)
        self.usage: Loader[int, Usage] = Loader(self._load_usage, cache=False)
        self.machine_state: Loader[int, MachineState] = Loader(self._load_states, cache=False)
        self.drained_at: Loader[int, datetime | None] = Loader(self._load_drained_at, cache=False)

    def _by_ids(
        self, load: Callable[[AsyncSession, Collection[int]], Awaitable[Sequence[Row]]], _kind: type[Row]
    ) -> Callable[[list[int]], Awaitable[Sequence[Row | None]]]:
        async def by_ids(ids: list[int]) -> Sequence[Row | None]:
            async with self._sessions() as session:
                rows: Mapping[int, Row] = {getattr(row, "id"): row for row in await load(session, set(ids))}  # noqa: B009  # Row has no bound with an id
            return [rows.get(each) for each in ids]

        return by_ids

    async def _load_simulations(self, ids: list[int]) -> Sequence[Simulation | None]:
        async with self._sessions() as session:
            rows = await simulations.by_ids(session, set(ids), scope=self._context.scope)
        found = {row.id: row for row in rows}
        return [found.get(each) for each in ids]

    async def _load_commands(self, ids: list[int]) -> Sequence[Command]:
        async with self._sessions() as session:
            found = await simulations.commands(session, set(ids))
        return [found.get(each) or Command() for each in ids]

    async def _load_members(self, ids: list[int]) -> Sequence[Sequence[Member]]:
        found: dict[int, list[Member]] = {}
        async with self._sessions() as session:
            for row in await attempts.members_of(session, set(ids)):
                found.setdefault(row.attempt_id, []).append(row)
        return [found.get(each, []) for each in ids]

    async def _load_projects(self, ids: list[int]) -> Sequence[Project | None]:
        async with self._sessions() as session:
            rows = await projects.by_ids(session, set(ids), scope=self._context.scope)
        found = {row.id: row for row in rows}
        return [found.get(each) for each in ids]

    async def _load_budgets(self, ids: list[int]) -> Sequence[Budget | None]:
        async with self._sessions() as session:
            rows = await budgets.by_ids(session, set(ids), scope=self._context.scope)
        found = {row.id: row for row in rows}
        return [found.get(each) for each in ids]

    async def _load_sweeps(self, ids: list[int]) -> Sequence[Sweep | None]:
        async with self._sessions() as session:
            rows = await sweeps.by_ids(session, set(ids), scope=self._context.scope)
        found = {row.id: row for row in rows}
        return [found.get(each) for each in ids]

    async def _load_sweep_counts(self, ids: list[int]) -> Sequence[Counts]:
        async with self._sessions() as session:
            found = await sweeps.counts(session, set(ids))
        return [found.get(each) or Counts() for each in ids]

    async def _load_sweep_costs(self, ids: list[int]) -> Sequence[tuple[Decimal, Sequence[Holding]]]:
        """What has ended has cost, and what the simulations whose cost is still to be added hold."""
        async with self._sessions() as session:
            found = await sweeps.costs(session, set(ids))
            open_ids = {number for _, numbers in found.values() for number in numbers}
            held = await billing.of_simulations(session, open_ids) if open_ids else {}
        nothing: tuple[Decimal, Sequence[int]] = (Decimal(0), ())
        asked = (found.get(each, nothing) for each in ids)
        return [(ended, [each for number in numbers for each in held.get(number, ())]) for ended, numbers in asked]

    async def _load_best_trials(self, ids: list[int]) -> Sequence[Trial | None]:
        async with self._sessions() as session:
            found = await sweeps.best_trials(session, set(ids))
        return [found.get(each) for each in ids]

    async def _load_simulations_of_trials(self, places: list[tuple[int, int]]) -> Sequence[Sequence[int]]:
        async with self._sessions() as session:
            found = await sweeps.simulations_of(session, set(places))
        return [found.get(each, ()) for each in places]

    async def _load_budget_statements(self, ids: list[int]) -> Sequence[tuple[Statement, datetime] | None]:
        async with self._sessions() as session:
            rows = await budgets.by_ids(session, set(ids), scope=self._context.scope)
            now = await budgets.clock(session)
            zone = ZoneInfo(self._context.settings.time_zone)
            found = {each.budget.id: (each, now) for each in await statements(session, rows, zone, now)}
        return [found.get(each) for each in ids]

    async def _load_alert_targets(self, ids: list[int]) -> Sequence[AlertTarget | None]:
        async with self._sessions() as session:
            rows = await alert_targets.by_ids(session, set(ids), scope=self._context.scope)
        found = {row.id: row for row in rows}
        return [found.get(each) for each in ids]

    async def _load_open_deliveries(self, ids: list[int]) -> Sequence[int]:
        async with self._sessions() as session:
            found = await alert_deliveries.open_of_targets(session, set(ids))
        return [found.get(each, 0) for each in ids]

    async def _load_stops(self, ids: list[int]) -> Sequence[StopIntent | None]:
        async with self._sessions() as session:
            found = await attempts.stops_of(session, set(ids))
        return [found.get(each) for each in ids]

    async def _load_machine_of(self, ids: list[int]) -> Sequence[int | None]:
        async with self._sessions() as session:
            found = await machines.of_simulations(session, set(ids))
        return [found.get(each) for each in ids]

    async def _load_checkpoints(self, ids: list[int]) -> Sequence[Checkpoint | None]:
        async with self._sessions() as session:
            found = await checkpoints.of_simulations(session, set(ids))
        return [found.get(each) for each in ids]

    async def _load_waits(self, ids: list[int]) -> Sequence[Wait | None]:
        async with self._sessions() as session:
            found = await queue.waiting_of(session, set(ids))
        return [why(found[each]) if each in found else None for each in ids]

    async def _load_dependencies(self, ids: list[int]) -> Sequence[Sequence[Edge]]:
        async with self._sessions() as session:
            found = await dependencies.of_simulations(session, set(ids))
        return [found.get(each, ()) for each in ids]

    async def _load_dependents(self, ids: list[int]) -> Sequence[Sequence[Edge]]:
        async with self._sessions() as session:
            found = await dependencies.to_simulations(session, set(ids), most=MOST_DEPENDENTS)
        return [found.get(each, ()) for each in ids]

    async def _load_places(self, ids: list[int]) -> Sequence[Place | None]:
        async with self._sessions() as session:
            found = await newest_plan.places_of(session, set(ids))
        return [found.get(each) for each in ids]

    async def _load_reservations(self, ids: list[int]) -> Sequence[Reservation | None]:
        async with self._sessions() as session:
            found = {each.simulation_id: each for each in await newest_plan.reservations(session)}
        return [found.get(each) for each in ids]

    async def _load_holds(self, ids: list[int]) -> Sequence[tuple[Sequence[Running], Sequence[Reservation], datetime]]:
        """What runs on machines, what is reserved there, and the time."""
        async with self._sessions() as session:
            held = await running.on_machines(session, set(ids))
            kept = await newest_plan.reservations(session)
            now = await attempts.clock(session)
        return [
            (
                [each for each in held if any(place.machine_id == number for place in each.places)],
                [each for each in kept if number in each.machine_ids],
                now,
            )
            for number in ids
        ]

    async def _load_metrics(self, ids: list[int]) -> Sequence[Sequence[Summary]]:
        async with self._sessions() as session:
            found = await metrics.of_simulations(session, set(ids))
        return [found.get(each, ()) for each in ids]

    async def _load_notices(self, ids: list[int]) -> Sequence[Sequence[Notice]]:
        async with self._sessions() as session:
            found = await notices.of_simulations(session, set(ids))
        return [found.get(each, ()) for each in ids]

    async def _load_sources(self, ids: list[int]) -> Sequence[Source | None]:
        async with self._sessions() as session:
            found = await sources.of_simulations(session, set(ids))
        return [found.get(each) for each in ids]

    async def _load_holdings(self, ids: list[int]) -> Sequence[Sequence[Holding]]:
        async with self._sessions() as session:
            found = await billing.of_simulations(session, set(ids))
        return [found.get(each, ()) for each in ids]

    async def _load_holdings_of_attempts(self, ids: list[int]) -> Sequence[Sequence[Holding]]:
        async with self._sessions() as session:
            found = await billing.of_attempts(session, set(ids))
        return [found.get(each, ()) for each in ids]

    async def _load_usage(self, ids: list[int]) -> Sequence[Usage]:
        async with self._sessions() as session:
            found = await machines.usage(session, set(ids))
        return [found.get(each, NOTHING) for each in ids]

    async def _load_states(self, ids: list[int]) -> Sequence[MachineState]:
        async with self._sessions() as session:
            found = await machines.states_of(session, set(ids), self._lease)
        return [found.get(each, MachineState.OFFLINE) for each in ids]

    async def _load_drained_at(self, ids: list[int]) -> Sequence[datetime | None]:
        async with self._sessions() as session:
            found = await machines.drained_at(session, set(ids))
        return [found.get(each) for each in ids]
