"""Machines and hosts: join, declare, drain, delete, and read free resources.

Resources granted to members of current attempts are not free. GPU indices are exclusive per host: several machines may
be parts of one host, and share its GPUs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, and_, case, delete, exists, func, select, text, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.errors import NotFound, Refusal, Taken, WrongState
from db.events import Actor
from db.models import THIS_TRANSACTION, Attempt, Event, Host, Machine, Member, Simulation
from db.notifications import Channel, notify, payload_of
from db.outage import Driver
from db.pages import Ordering, Page, page
from db.states import MachineState

LOCAL = "local"
STARTABLE = "start:"  # begins the `engine_key` of what is no machine yet: its engine can start some like it
DRAINED = "DRAINED"


@dataclass(frozen=True, slots=True)
class Declared:
    """A part of a host, with the resources and the price its owner declares. Checked already."""

    name: str
    host: str | None
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: dict[str, str]
    price_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources of a machine granted to members of current attempts."""

    cpus: float
    memory_gib: float
    gpus: int
    simulation_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A host as its engine found it, and the sums of its machines that take work."""

    host: str  # its name
    cpus: float
    memory_gib: float
    offered_cpus: float
    offered_memory_gib: float
    whole: str | None  # the machine that was found, if it takes work


NOTHING = Usage(0.0, 0.0, 0, ())


@dataclass(frozen=True, slots=True)
class Filter:
    """Filter of machines; None matches any."""

    states: tuple[MachineState, ...] | None = None
    engine: str | None = None
    name_contains: str | None = None


def is_online(lease: timedelta) -> ColumnElement[bool]:
    """Whether a machine was heard of within a lease, by Postgres' clock."""
    return and_(Machine.heartbeat_at.is_not(None), Machine.heartbeat_at > func.now() - lease)


def state(lease: timedelta) -> ColumnElement[str]:
    """The state of a machine, derived from its row."""
    return case(
        (~is_online(lease), MachineState.OFFLINE.value),
        (Machine.draining, MachineState.DRAINING.value),
        else_=MachineState.ONLINE.value,
    )


# --- hosts and what engines find -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Described:
    """Resources and price of a machine, as an engine finds them."""

    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None
    labels: Mapping[str, str]
    price_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class HostState:
    """What the rows hold of a host or an engine: machines by their engine's key, and whether members are on them."""

    machines: Mapping[str, Described]
    has_members: bool
    has_launches: bool  # members that are not launched yet


# Locked in the order of ids first, as `lock_with_neighbours` does: an UPDATE locks in the order it finds them.
_BEAT_HOST = """
    WITH host AS (
        INSERT INTO hosts (id, name, gpus) VALUES ($1::text, $2::text, $3::int)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, gpus = excluded.gpus, heartbeat_at = now()
    ), locked AS (
        SELECT id FROM machines WHERE engine = 'local' AND host = $1::text ORDER BY id FOR NO KEY UPDATE
    ), beaten AS (
        UPDATE machines AS m SET heartbeat_at = CASE WHEN m.engine_key = ANY($4::text[]) THEN NULL ELSE now() END
        FROM locked WHERE m.id = locked.id
        RETURNING m.engine_key, m.cpus, m.memory_gib, m.gpus, m.gpu_model, m.labels::text AS labels, m.price_per_hour
    )
    SELECT beaten.*,
           EXISTS (SELECT FROM members WHERE host = $1::text AND ended_at IS NULL) AS has_members,
           EXISTS (
               SELECT FROM members WHERE host = $1::text AND ended_at IS NULL AND launched_at IS NULL
           ) AS has_launches
    FROM (SELECT) AS one LEFT JOIN beaten ON true
"""


async def beat_host(
    driver: Driver, host_id: str, *, name: str, gpus: int, withdrawn: Collection[str] = ()
) -> HostState:
    """Record a heartbeat of a host's scheduler process, and so of its local machines; return what the rows hold.

    withdrawn: keys of machines that the engine no longer offers: they get no new attempts and are shown as offline.
    """
    return _state_of(await driver.fetch(_BEAT_HOST, host_id, name, gpus, list(withdrawn)))


def _state_of(rows: Sequence[Any]) -> HostState:
    described = {
        row["engine_key"]: Described(
            cpus=row["cpus"],
            memory_gib=row["memory_gib"],
            gpus=row["gpus"],
            gpu_model=row["gpu_model"],
            labels=orjson.loads(row["labels"]),
            price_per_hour=row["price_per_hour"],
        )
        for row in rows
        if row["engine_key"] is not None
    }
    return HostState(described, rows[0]["has_members"], rows[0]["has_launches"])


# As `_BEAT_HOST`, for the machines of an engine that are on no host of ours.
_BEAT_ENGINE = """
    WITH locked AS (
        SELECT id FROM machines WHERE engine = $1::text ORDER BY id FOR NO KEY UPDATE
    ), beaten AS (
        UPDATE machines AS m SET heartbeat_at = CASE WHEN m.engine_key = ANY($2::text[]) THEN now() END
        FROM locked WHERE m.id = locked.id
        RETURNING m.engine_key, m.cpus, m.memory_gib, m.gpus, m.gpu_model, m.labels::text AS labels, m.price_per_hour
    ), held AS (
        SELECT launched_at FROM members
        WHERE ended_at IS NULL AND machine_id IN (SELECT id FROM machines WHERE engine = $1::text)
    )
    SELECT beaten.*, EXISTS (SELECT FROM held) AS has_members,
           EXISTS (SELECT FROM held WHERE launched_at IS NULL) AS has_launches
    FROM (SELECT) AS one LEFT JOIN beaten ON true
"""


async def beat_engine(driver: Driver, engine: str, keys: Collection[str]) -> HostState:
    """Record a heartbeat of an engine's machines, those with these keys; all others of it are offline from now on."""
    return _state_of(await driver.fetch(_BEAT_ENGINE, engine, list(keys)))


async def succeed(session: AsyncSession, engine: str, engine_key: str, name: str, *, beside: bool) -> bool:
    """Give the row of a vanished machine to the one that came in its place, of the same name but with another key.

    False while members hold the vanished one: what they ran may still run there. True if there is none.

    beside: what to return while the one of the same name is online. A node that was restarted joins before the engine
    finds the one before it dead; if both live, they are two machines.
    """
    vanished = await session.scalar(
        select(Machine)
        .where(Machine.engine == engine, Machine.name == name, Machine.engine_key != engine_key)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if vanished is None:
        return True
    if vanished.heartbeat_at is not None:
        return beside
    held = select(Member.id).where(Member.machine_id == vanished.id, Member.ended_at.is_(None)).limit(1)
    if await session.scalar(held) is not None:
        return False
    vanished.engine_key = engine_key
    await session.flush()
    return True


def is_startable(engine_key: str) -> bool:
    """Whether a key names no machine, but what its engine can start."""
    return engine_key.startswith(STARTABLE)


async def withdraw(session: AsyncSession, engine: str, engine_key: str) -> None:
    """Delete what an engine can't start any more."""
    found = await session.scalar(select(Machine.id).where(Machine.engine == engine, Machine.engine_key == engine_key))
    if found is not None:
        await delete_idle(session, found, events.PLANNER)


async def startable(session: AsyncSession, engine: str) -> Sequence[Machine]:
    """List what an engine can start, but for what was drained."""
    found = select(Machine).where(Machine.engine == engine, ~Machine.draining, Machine.engine_key.startswith(STARTABLE))
    return (await session.scalars(found.order_by(Machine.id))).all()


async def live_hosts(session: AsyncSession, lease: timedelta) -> frozenset[str]:
    """List the hosts whose scheduler process beat within a lease."""
    return frozenset((await session.scalars(select(Host.id).where(Host.heartbeat_at > func.now() - lease))).all())


async def join(
    session: AsyncSession,
    *,
    engine: str,
    engine_key: str,
    name: str,
    host: str | None,
    cpus: float,
    memory_gib: float,
    gpus: int,
    gpu_model: str | None,
    labels: Mapping[str, str],
    price_per_hour: Decimal,
) -> int:
    """Register a machine that an engine found, or can start (`STARTABLE`), or update its row. Returns its id.

    A name that another machine has already gets the engine's key behind it.
    """
    beat = None if is_startable(engine_key) else func.now()
    found = {"cpus": cpus, "memory_gib": memory_gib, "gpus": gpus, "gpu_model": gpu_model, "host": host}
    refreshed = await session.scalar(
        update(Machine)
        .where(Machine.engine == engine, Machine.engine_key == engine_key)
        .values(**found, labels=dict(labels), price_per_hour=price_per_hour, heartbeat_at=beat)
        .returning(Machine.id)
        .execution_options(synchronize_session=False)
    )
    if refreshed is not None:
        return refreshed
    taken = await session.scalar(select(Machine.id).where(Machine.name == name))
    machine_id: int | None = await session.scalar(
        insert(Machine)
        .values(
            engine=engine,
            engine_key=engine_key,
            name=name if taken is None else f"{name}-{engine_key[:8]}",
            labels=dict(labels),
            price_per_hour=price_per_hour,
            heartbeat_at=beat,
            **found,
        )
        .returning(Machine.id)
    )
    assert machine_id is not None
    await events.record(session, "JOINED", events.PLANNER, "Machine", machine_id, detail={"name": name})
    await notify(session, Channel.MACHINES, str(machine_id))
    return machine_id


# --- what their owners do --------------------------------------------------------------------------------------


async def declare(session: AsyncSession, wanted: Declared, actor: Actor) -> Machine:
    """Make a machine out of a part of a host: the only one, or the one that is named.

    Raises `Taken` for a name in use, `NotFound` for an unknown host, `Refusal` if there are several and none is named.
    """
    host = await _host(session, wanted.host)
    try:
        async with session.begin_nested():
            machine = Machine(
                name=wanted.name, engine=LOCAL, engine_key=f"declared:{wanted.name}", host=host.id, declared=True,
                cpus=wanted.cpus, memory_gib=wanted.memory_gib, gpus=wanted.gpus, gpu_model=wanted.gpu_model,
                labels=wanted.labels, price_per_hour=wanted.price_per_hour, heartbeat_at=host.heartbeat_at,
            )  # fmt: skip
            session.add(machine)
            await session.flush()
    except IntegrityError as error:
        raise Taken(f"Another machine is called {wanted.name!r}.", field="name") from error
    await events.record(session, "CREATED", actor, "Machine", machine.id, detail={"name": machine.name})
    await notify(session, Channel.MACHINES, str(machine.id))
    return machine


async def change(
    session: AsyncSession, machine_id: int, values: Mapping[str, object], actor: Actor, *, kind: str = "UPDATED"
) -> Machine:
    """Set columns of a machine. Attempts on it go on as they are, billed by what it was at their assignment.

    Raises `NotFound`; `Taken` for a name in use; `WrongState` if an engine owns what is to be changed.
    """
    machine = await get(session, machine_id, lock=True)
    owned = {"cpus", "memory_gib", "gpus", "gpu_model", "labels", "price_per_hour"} & values.keys()
    if owned and not machine.declared:
        raise WrongState(
            f"{machine.name} was found by the engine {machine.engine}, which says what it has: only machines made by "
            "createMachine can be changed.",
            field="id",
        )
    before = {name: getattr(machine, name) for name in values}
    try:
        async with session.begin_nested():
            for name, value in values.items():
                setattr(machine, name, value)
            if "name" in values and machine.declared:
                machine.engine_key = f"declared:{machine.name}"
            await session.flush()
    except IntegrityError as error:
        raise Taken("Another machine has this name.", field="name") from error
    detail = {name: str(value) for name, value in values.items() if before[name] != value}
    if detail:
        await events.record(session, kind, actor, "Machine", machine.id, detail=detail)
        await notify(session, Channel.MACHINES, str(machine.id))
    return machine


async def drain(session: AsyncSession, machine_id: int, actor: Actor, *, deadline: datetime | None = None) -> Machine:
    """Drain a machine: no new attempts; running ones go on until the deadline, if there is one."""
    is_drained = (await get(session, machine_id, lock=True)).draining
    values = {"draining": True, "drain_deadline": deadline}
    return await change(session, machine_id, values, actor, kind="UPDATED" if is_drained else DRAINED)


async def resume(session: AsyncSession, machine_id: int, actor: Actor) -> Machine:
    """End the draining of a machine."""
    return await change(session, machine_id, {"draining": False, "drain_deadline": None}, actor, kind="RESUMED")


@dataclass(frozen=True, slots=True)
class Overstayer:
    """An attempt that is still on a drained machine after the deadline, and has no stop intent."""

    simulation_id: int
    number: int
    machine: str
    deadline: datetime


_OVERSTAYERS = text(
    """
    SELECT a.simulation_id, a.number, min(m.name), min(m.drain_deadline)
    FROM machines AS m JOIN members AS held ON held.machine_id = m.id AND held.ended_at IS NULL
    JOIN attempts AS a ON a.id = held.attempt_id
    WHERE m.draining AND m.drain_deadline <= now() AND a.stop_wanted_at IS NULL
    GROUP BY a.simulation_id, a.number ORDER BY a.simulation_id
    """
)


async def find_overstayers(session: AsyncSession) -> Sequence[Overstayer]:
    """Find what still runs on drained machines after their deadlines."""
    return [Overstayer(*row) for row in await session.execute(_OVERSTAYERS)]


async def delete_idle(session: AsyncSession, machine_id: int, actor: Actor) -> None:
    """Delete a machine on which nothing runs. A machine that its engine still finds comes back.

    Raises `NotFound`; `WrongState` while attempts are open on it.
    """
    # Those that may run only there lose the reference with it: they are locked before the machine, as everywhere.
    await session.execute(
        select(Simulation.id)
        .where(Simulation.machine_id == machine_id)
        .order_by(Simulation.id)
        .with_for_update(key_share=True)
    )
    machine = await get(session, machine_id, lock=True)
    busy = await session.scalar(select(func.count()).where(Member.machine_id == machine_id, Member.ended_at.is_(None)))
    if busy:
        raise WrongState(
            f"{busy} simulation(s) are on {machine.name}: drain it and wait, or cancel them first.", field="id"
        )
    # The queue learns of it: what a simulation requires is not what it was.
    await session.execute(
        update(Simulation)
        .where(Simulation.machine_id == machine_id)
        .values(machine_id=None, queued_xid=THIS_TRANSACTION)
        .execution_options(synchronize_session=False)
    )
    await session.execute(delete(Machine).where(Machine.id == machine_id))
    await events.record(session, "DELETED", actor, "Machine", machine_id, detail={"name": machine.name})
    await notify(session, Channel.MACHINES, str(machine_id))


# --- reading ---------------------------------------------------------------------------------------------------


async def has_cluster(session: AsyncSession) -> bool:
    """Whether any machine is, or was, a node of a cluster."""
    return bool(await session.scalar(select(exists().where(Machine.engine != LOCAL))))


async def get(session: AsyncSession, machine_id: int, *, lock: bool = False, field: str = "id") -> Machine:
    """Get a machine. Raises `NotFound`. The lock is the last in the order: simulation, attempt, member, machine."""
    statement = select(Machine).where(Machine.id == machine_id)
    if lock:
        statement = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    machine = await session.scalar(statement)
    if machine is None:
        raise NotFound("There is no such machine.", field=field)
    return machine


async def by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[Machine]:
    return (await session.scalars(select(Machine).where(Machine.id.in_(ids)))).all()


async def of_simulations(session: AsyncSession, ids: Collection[int]) -> Mapping[int, int]:
    """The machine of each simulation's newest attempt; simulations without one are left out."""
    rows = await session.execute(
        select(Attempt.simulation_id, Member.machine_id)
        .join(Simulation, (Simulation.id == Attempt.simulation_id) & (Simulation.attempt == Attempt.number))
        .join(Member, (Member.attempt_id == Attempt.id) & (Member.rank == 0))
        .where(Simulation.id.in_(ids), Member.machine_id.is_not(None))
    )
    return {int(simulation_id): int(machine_id or 0) for simulation_id, machine_id in rows}


async def find_offer(session: AsyncSession, host_id: str | None) -> Offer | None:
    """What a host has and what its machines offer; None if it was never found what it has."""
    host = await session.get(Host, host_id) if host_id is not None else None
    if host is None:
        return None
    rows = (await session.scalars(select(Machine).where(Machine.host == host_id, Machine.engine == LOCAL))).all()
    found = next((row for row in rows if not row.declared), None)
    if found is None:
        return None
    open_to_work = [row for row in rows if not row.draining and row.heartbeat_at is not None]
    return Offer(
        host=host.name,
        cpus=found.cpus,
        memory_gib=found.memory_gib,
        offered_cpus=sum(row.cpus for row in open_to_work),
        offered_memory_gib=sum(row.memory_gib for row in open_to_work),
        whole=found.name if found in open_to_work else None,
    )


async def has_prices(session: AsyncSession) -> bool:
    """Whether any machine has a price."""
    return await session.scalar(select(Machine.id).where(Machine.price_per_hour > 0).limit(1)) is not None


async def every(session: AsyncSession) -> Sequence[Machine]:
    return (await session.scalars(select(Machine).order_by(Machine.id))).all()


async def page_matching(
    session: AsyncSession, wanted: Filter, lease: timedelta, *, descending: bool, first: int, after: str | None
) -> Page[Machine]:
    """One page of the machines that match, by name."""
    order = Ordering((Machine.name, Machine.id), descending)
    return await page(session, _matching(select(Machine), wanted, lease), order, first=first, after=after)


async def count_matching(session: AsyncSession, wanted: Filter, lease: timedelta) -> int:
    """Count the matching machines; called only when a client selects the count."""
    return int((await session.scalars(_matching(select(func.count(Machine.id)), wanted, lease))).one())


def _matching(statement: Select[Any], wanted: Filter, lease: timedelta) -> Select[Any]:
    if wanted.states is not None:
        statement = statement.where(state(lease).in_([each.value for each in wanted.states]))
    if wanted.engine is not None:
        statement = statement.where(Machine.engine == wanted.engine)
    if wanted.name_contains is not None:
        statement = statement.where(Machine.name.icontains(wanted.name_contains, autoescape=True))
    return statement


async def states_of(session: AsyncSession, ids: Collection[int], lease: timedelta) -> Mapping[int, MachineState]:
    """State of each machine, by Postgres' clock."""
    rows = await session.execute(select(Machine.id, state(lease)).where(Machine.id.in_(ids)))
    return {machine_id: MachineState(value) for machine_id, value in rows}


async def drained_at(session: AsyncSession, ids: Collection[int]) -> Mapping[int, datetime]:
    """When each was drained last; machines that never were are left out."""
    rows = await session.execute(
        select(Event.object_id, func.max(Event.at))
        .where(Event.object_type == "Machine", Event.object_id.in_(ids), Event.kind == DRAINED)
        .group_by(Event.object_id)
    )
    return {int(machine_id or 0): at for machine_id, at in rows}


async def usage(session: AsyncSession, ids: Collection[int]) -> Mapping[int, Usage]:
    """Usage of each of these machines; idle machines are left out."""
    # One look-up for each member, whatever the statistics say: merged with the primary key, it reads all that ended.
    of = select(Attempt.simulation_id).where(Attempt.id == Member.attempt_id).limit(1).lateral("of")
    rows = await session.execute(
        select(
            Member.machine_id,
            func.sum(Member.cpus),
            func.sum(Member.memory_gib),
            func.sum(Member.gpus),
            func.array_agg(of.c.simulation_id),
        )
        .join(of, true())
        .where(Member.ended_at.is_(None), Member.machine_id.in_(ids))
        .group_by(Member.machine_id)
    )
    return {
        int(row[0] or 0): Usage(float(row[1]), float(row[2]), int(row[3]), tuple(sorted(set(row[4])))) for row in rows
    }


async def free_gpu_indices(session: AsyncSession, hosts: Collection[str]) -> Mapping[str, tuple[int, ...]]:
    """The GPU indices that no open attempt holds, per host.

    A host has as many as were found on it, or as its owner declared if that is more: declared machines are believed.
    """
    rows = await session.execute(
        text(
            """
            SELECT h.id,
                   greatest(h.gpus, (SELECT coalesce(sum(gpus), 0) FROM machines WHERE host = h.id AND declared)),
                   ARRAY(SELECT unnest(m.gpu_indices) FROM members m WHERE m.host = h.id AND m.ended_at IS NULL)
            FROM hosts h WHERE h.id = ANY(:hosts)
            """
        ),
        {"hosts": list(hosts)},
    )
    return {host: tuple(sorted(set(range(int(count))) - set(taken))) for host, count, taken in rows}


async def lock_with_neighbours(session: AsyncSession, ids: Collection[int]) -> Sequence[Machine]:
    """Lock machines, and the others on their hosts: what is free on one depends on them all. In the order of ids.

    Returns those of `ids` that exist, read under the lock.
    """
    hosts = select(Machine.host).where(Machine.id.in_(ids), Machine.host.is_not(None)).scalar_subquery()
    locked = await session.scalars(
        select(Machine)
        .where(Machine.id.in_(ids) | Machine.host.in_(hosts))
        .order_by(Machine.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    wanted = frozenset(ids)
    return [each for each in locked if each.id in wanted]


async def notify_all(session: AsyncSession, ids: Sequence[int]) -> None:
    """Notify of changes of these machines."""
    if ids:
        await notify(session, Channel.MACHINES, payload_of(ids))


async def _host(session: AsyncSession, name: str | None) -> Host:
    statement = select(Host).order_by(Host.heartbeat_at.desc())
    if name is not None:
        host = await session.scalar(statement.where((Host.id == name) | (Host.name == name)))
        if host is None:
            raise NotFound(f"No scheduler runs on a host called {name!r}.", field="host")
        return host
    hosts = (await session.scalars(statement)).all()
    if not hosts:
        raise Refusal("No scheduler has started yet, so there is no host to make a machine of.", field="host")
    if len(hosts) > 1:
        names = ", ".join(host.name for host in hosts[:10])
        raise Refusal(f"There are several hosts: say which one ({names}).", field="host")
    return hosts[0]
