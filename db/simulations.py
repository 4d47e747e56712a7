"""Simulations: create, find, delete. Lists are in `listing`, changes of state in `transitions`.

Every function that finds a simulation takes a `scope`: simulations of other projects are not found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import ARRAY, Text, any_, delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from db import costs, events, lifecycle
from db.errors import NotFound, Taken, WrongState
from db.events import Actor
from db.models import Machine, Simulation, Trial
from db.notifications import Channel, notify, payload_of
from db.projects import Scope, within
from db.states import FINAL_STATES, MetricsFrom, Reason


@dataclass(frozen=True, slots=True)
class Wanted:
    """A requested simulation: validated, units as in the table. Its defaults are those of the API."""

    project_id: int
    name: str
    entrypoint: tuple[str, ...]
    entrypoint_template: tuple[str, ...] | None = None  # before parameters were filled in; None: none were
    parameters: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    cpus: float = 1.0
    memory_gib: float = 0.0
    gpus: int = 0
    gpu_model: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    machine_id: int | None = None
    machine_name: str | None = None
    max_price_per_hour: Decimal | None = None
    machines: int = 1
    priority: int = 0
    max_runtime: timedelta | None = None
    max_cost: Decimal | None = None
    max_steps: int | None = None
    max_retries: int = 3
    retry_on: tuple[str, ...] = (Reason.MACHINE_LOST.value,)
    retry_of: int | None = None
    from_checkpoint: bool = False  # begins with a copy of the checkpoint of `retry_of`
    metric_modes: dict[str, str] = field(default_factory=dict)  # MetricMode by metric; MIN may be left out
    metrics_from: MetricsFrom = MetricsFrom.AUTO
    metrics_patterns: tuple[str, ...] = ()  # regular expressions with named groups
    objective_metric: str | None = None
    objective_mode: str | None = None  # MetricMode; None: by the metric's name
    stopping: dict[str, Any] | None = None  # policy.rule_documents
    tensorboard: tuple[str, ...] = ()  # further directories with event files
    system_metrics_seconds: float | None = None  # 0: none; None: as the installation
    attended: bool = False
    attended_grace: timedelta = timedelta(minutes=1)  # means something only where it is attended
    preemptible: bool = False
    alert_target_ids: tuple[int, ...] | None = None  # None: the defaults of its project
    sweep_id: int | None = None
    trial: int | None = None
    package_id: int | None = None
    package_source: dict[str, Any] | None = None  # what its user says of the package: name, commit, dirty
    runtime_env: dict[str, Any] | None = None  # handed through to Ray

    def digest(self, after: Sequence[object] = ()) -> bytes:
        """Hash of the content requested under a client key, to detect different content. after: what it runs after."""
        left_out = ("machine_name", "package_source")  # the package says it all: its commit may be another one by now
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        if not self.metric_modes:  # digests that are kept were made before there were any
            del content["metric_modes"]
        if self.metrics_from is MetricsFrom.AUTO:  # likewise
            del content["metrics_from"]
        if not self.metrics_patterns:
            del content["metrics_patterns"]
        if self.system_metrics_seconds is None:
            del content["system_metrics_seconds"]
        if not self.tensorboard:
            del content["tensorboard"]
        if self.machines == 1:
            del content["machines"]
        if not self.attended:
            del content["attended"], content["attended_grace"]
        if not self.preemptible:
            del content["preemptible"]
        if not self.from_checkpoint:
            del content["from_checkpoint"]
        for name in (
            "entrypoint_template",
            "max_cost",
            "max_steps",
            "objective_metric",
            "objective_mode",
            "stopping",
            "alert_target_ids",
            "notes",
            "sweep_id",
            "trial",
            "package_id",
            "runtime_env",
        ):
            if content[name] is None:  # likewise
                del content[name]
        if after:
            content["after"] = list(after)
        return sha256(orjson.dumps(content, default=str, option=orjson.OPT_SORT_KEYS)).digest()


MAX_TAGS = 50
MAX_RECORDED = 1_000  # parameters that programs recorded
LISTS = ("entrypoint", "tags", "retry_on", "metrics_patterns", "tensorboard")  # tuples of `Wanted`


@dataclass(frozen=True, slots=True)
class Asked:
    """A simulation to create. after: what it runs after, as requested; path: of its input, before names of fields."""

    wanted: Wanted
    client_key: str | None = None
    after: Sequence[object] = ()
    path: str = ""


@dataclass(frozen=True, slots=True)
class Created:
    """The simulation of a request. is_new: False if its client key had created it before."""

    row: Simulation
    is_new: bool


async def create(session: AsyncSession, wanted: Wanted, actor: Actor, *, client_key: str | None = None) -> Simulation:
    """Queue a simulation. The same key with the same content returns the existing one.

    Raises `Taken` for the same key with other content, `NotFound` for a machine that was deleted meanwhile.
    """
    [created] = await create_all(session, [Asked(wanted, client_key)], actor)
    return created.row


async def create_all(session: AsyncSession, asked: Sequence[Asked], actor: Actor) -> Sequence[Created]:
    """Queue simulations, in this order; several of them need client keys. Errors: as of `create`."""
    await _hold_machines(session, asked)
    digests = [each.wanted.digest(each.after) for each in asked]
    inserted = await session.scalars(
        _INSERT, [_values(each, digest, actor) for each, digest in zip(asked, digests, strict=True)]
    )
    new = {(row.project_id, row.client_key): row for row in inserted}
    missing = [key for each in asked if (key := (each.wanted.project_id, each.client_key)) not in new]
    existing = await _find_keyed(session, missing)
    found = []
    for each, digest in zip(asked, digests, strict=True):
        key = (each.wanted.project_id, each.client_key)
        if key not in new and existing[key].client_digest != digest:
            raise Taken(
                f"The client key {each.client_key!r} was used in this project for another simulation "
                f"({existing[key].name}): use a new key for new content.",
                field=f"{each.path}clientKey",
            )
        found.append(Created(new[key], True) if key in new else Created(existing[key], False))
    rows = [each.row for each in found if each.is_new]
    if rows:
        recorded = [events.Recorded(row.id, row.project_id, {"name": row.name}) for row in rows]
        await events.record_all(session, "QUEUED", actor, "Simulation", recorded)
        await notify(session, Channel.SIMULATIONS, payload_of([row.id for row in rows]))
    return found


_INSERT = insert(Simulation).on_conflict_do_nothing(index_elements=["project_id", "client_key"]).returning(Simulation)


def _values(asked: Asked, digest: bytes, actor: Actor) -> dict[str, Any]:
    values = {name: getattr(asked.wanted, name) for name in Wanted.__dataclass_fields__}
    values |= {name: list(values[name]) for name in LISTS}
    if asked.wanted.alert_target_ids is not None:
        values["alert_target_ids"] = list(asked.wanted.alert_target_ids)
    return {
        **values, "created_by": actor.name, "client_key": asked.client_key, "client_digest": digest,
        "dependencies_left": len(asked.after),
    }  # fmt: skip


async def used_key(session: AsyncSession, project_id: int, keys: Sequence[str]) -> str | None:
    """Return one of these client keys that was used in the project; None if none was."""
    return await session.scalar(
        select(Simulation.client_key)
        .where(Simulation.project_id == project_id, Simulation.client_key == any_(literal(list(keys), ARRAY(Text))))
        .limit(1)
    )


async def _find_keyed(
    session: AsyncSession, keys: Sequence[tuple[int, str | None]]
) -> Mapping[tuple[int, str | None], Simulation]:
    if not keys:
        return {}
    rows = await session.scalars(
        select(Simulation).where(
            Simulation.project_id.in_({project_id for project_id, _ in keys}),
            Simulation.client_key.in_({key for _, key in keys}),
        )
    )
    return {(row.project_id, row.client_key): row for row in rows}


async def _hold_machines(session: AsyncSession, asked: Sequence[Asked]) -> None:
    """Keep named machines from being deleted until the simulations that name them are committed.

    The lock is the foreign key's own, taken before it would fail. It comes before no other: the simulations are new.
    """
    named = {each.wanted.machine_id for each in asked if each.wanted.machine_id is not None}
    if not named:
        return
    statement = select(Machine.id).where(Machine.id.in_(named)).order_by(Machine.id)
    held = frozenset(await session.scalars(statement.with_for_update(read=True, key_share=True)))
    for each in asked:
        if each.wanted.machine_id is not None and each.wanted.machine_id not in held:
            raise NotFound("There is no such machine.", field=f"{each.path}resources.machine")


async def get(session: AsyncSession, simulation_id: int, *, scope: Scope = None) -> Simulation:
    return seen(await find(session, simulation_id), scope)


async def find(session: AsyncSession, simulation_id: int, *, scope: Scope = None) -> Simulation | None:
    found = await session.get(Simulation, simulation_id, populate_existing=True)
    return found if found is not None and (scope is None or found.project_id in scope) else None


def seen(simulation: Simulation | None, scope: Scope) -> Simulation:
    """Raises `NotFound` for one that does not exist, or not within the scope."""
    if simulation is None or (scope is not None and simulation.project_id not in scope):
        raise NotFound("There is no such simulation.", field="id")
    return simulation


# What may be long, up to 64 KiB each, and lists hardly ever show; `commands` reads it.
WITHOUT_COMMANDS = tuple(
    defer(column, raiseload=True)
    for column in (
        Simulation.entrypoint,
        Simulation.entrypoint_template,
        Simulation.parameters,
        Simulation.recorded_parameters,
        Simulation.environment,
    )
)
_COMMANDS = text(
    """
    SELECT id, entrypoint, recorded_parameters || parameters AS parameters,
           ARRAY(SELECT jsonb_object_keys(environment)) AS variables, entrypoint_template
    FROM simulations WHERE id = ANY(:ids)
    """
).columns(
    Simulation.id, Simulation.entrypoint, Simulation.parameters, entrypoint_template=ARRAY(Text), variables=ARRAY(Text)
)


@dataclass(frozen=True, slots=True)
class Command:
    """Command of a simulation, with the names of its variables only: their values never leave the database.

    parameters: those given, and those recorded under other names. template: before parameters were filled in, if any.
    """

    entrypoint: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Sequence[str] = ()
    template: Sequence[str] | None = None


async def commands(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Command]:
    """Read the commands of these simulations, by id."""
    rows = await session.execute(_COMMANDS, {"ids": list(ids)})
    return {row.id: Command(row.entrypoint, row.parameters, row.variables, row.entrypoint_template) for row in rows}


async def record(
    session: AsyncSession, simulation: Simulation, parameters: Mapping[str, object], tags: Collection[str]
) -> None:
    """Add parameters and tags that its program recorded, as far as there is room. The simulation must be locked."""
    if parameters:
        recorded = {**simulation.recorded_parameters, **parameters}
        simulation.recorded_parameters = dict(list(recorded.items())[:MAX_RECORDED])
    if tags:
        simulation.tags = list(dict.fromkeys((*simulation.tags, *tags)))[: max(MAX_TAGS, len(simulation.tags))]
    await session.flush()


async def by_ids(session: AsyncSession, ids: Collection[int], *, scope: Scope = None) -> Sequence[Simulation]:
    """Those that there are, without their commands."""
    statement = (
        select(Simulation)
        .options(*WITHOUT_COMMANDS)
        .where(Simulation.id.in_(ids), within(Simulation.project_id, scope))
    )
    return (await session.scalars(statement)).all()


def repetition(old: Simulation) -> Wanted:
    """What is requested to repeat a simulation."""
    wanted = {name: getattr(old, name) for name in Wanted.__dataclass_fields__}
    wanted |= {name: tuple(wanted[name]) for name in LISTS}
    for name in ("alert_target_ids", "entrypoint_template"):
        if wanted[name] is not None:
            wanted[name] = tuple(wanted[name])
    return Wanted(**{**wanted, "retry_of": old.id, "from_checkpoint": False})


async def delete_ended(session: AsyncSession, simulation_id: int, actor: Actor, *, scope: Scope = None) -> None:
    """Delete an ended simulation with its attempts, curve and log.

    Its cost stays, and its events, by which hosts remove its files.

    Raises `NotFound`, and `WrongState` while it has not ended.
    """
    locked = await lifecycle.lock(session, simulation_id)
    await costs.keep(session, simulation_id)
    if locked is not None and locked.state.is_final and await _is_open_trial(session, locked, scope):
        raise WrongState("The result of its trial is not yet noted by its sweep: try again in a moment.", field="id")
    gone = await session.execute(
        delete(Simulation)
        .where(Simulation.id == simulation_id, Simulation.state.in_(FINAL_STATES), within(Simulation.project_id, scope))
        .returning(Simulation.project_id, Simulation.name, Simulation.alert_target_ids)
    )
    row = gone.one_or_none()
    if row is None:
        simulation = await get(session, simulation_id, scope=scope)
        raise WrongState(f"It is {simulation.state.value}: cancel it first, then delete it.", field="id")
    detail: dict[str, Any] = {"name": row.name}
    if row.alert_target_ids is not None:  # for alerts that are still to be written
        detail["alertTargetIds"] = row.alert_target_ids
    await events.record(
        session, "DELETED", actor, "Simulation", simulation_id, project_id=row.project_id, detail=detail
    )
    await notify(session, Channel.SIMULATIONS, str(simulation_id))


async def _is_open_trial(session: AsyncSession, simulation: Simulation, scope: Scope) -> bool:
    """Whether it is of a trial that has not ended: until then it is the only record of that trial's result."""
    if simulation.sweep_id is None or (scope is not None and simulation.project_id not in scope):
        return False
    place = Trial.sweep_id == simulation.sweep_id, Trial.number == simulation.trial
    return await session.scalar(select(Trial.number).where(*place, Trial.outcome.is_(None))) is not None


async def recent(
    session: AsyncSession, period: timedelta, *, limit: int = 1000, scope: Scope = None
) -> Sequence[Simulation]:
    """What has not ended, and what ended within the period: the newest, without their commands."""
    return (
        await session.scalars(
            select(Simulation)
            .options(*WITHOUT_COMMANDS)
            .where(
                Simulation.state.not_in(FINAL_STATES) | (Simulation.finished_at > func.now() - period),
                within(Simulation.project_id, scope),
            )
            .order_by(Simulation.id.desc())
            .limit(limit)
        )
    ).all()
