"""Machines in GraphQL: the type, its list, its mutations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Self

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry import relay
from strawberry.scalars import JSON

from db import errors, machines, models
from db.notifications import Channel
from graph.context import Info
from graph.errors import refusals_told
from graph.types import pages
from graph.types.enums import MachineState
from graph.types.ids import number_asked, number_of
from graph.types.inputs import DrainAsked, Invalid, MachineAsked, MachineChanged, check
from graph.types.plan import Hold
from graph.types.simulation import Simulation
from graph.types.user_errors import UserError, user_error
from policy.offer import notice_of


@strawberry.type(description="The resources of a machine.")
class Resources:
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None


@strawberry.type(description="The free resources of a machine.")
class Free:
    cpus: float
    memory_gib: float
    gpus: int


@strawberry.type(description="A machine that runs simulations, several at once as far as its resources allow.")
class Machine(relay.Node):
    id: relay.NodeID[int]
    row: strawberry.Private[models.Machine]
    name: str
    engine: str = strawberry.field(description="The engine that starts attempts on it: local.")
    host: str | None = strawberry.field(description="The id of the host that it is a part of.")
    declared: bool = strawberry.field(
        description="True if it was created by createMachine, false if its engine found it."
    )
    resources: Resources
    labels: JSON = strawberry.field(description="An object of strings, which requirements can match.")
    price_per_hour: Decimal = strawberry.field(description="The price of the whole machine.")
    startable: bool = strawberry.field(
        description="True if it is not there: its cluster starts machines like it when something fits on them only."
    )
    draining: bool = strawberry.field(description="True from drainMachine until resumeMachine.")
    drain_deadline: datetime | None = strawberry.field(
        description="When what still runs there returns to the queue; null: never."
    )
    heartbeat_at: datetime | None = strawberry.field(description="When its last report or heartbeat arrived.")
    created_at: datetime

    @strawberry.field(description="The currency of this installation's prices (ISO 4217).")
    def currency(self, info: Info) -> str:
        return info.context.settings.currency

    @strawberry.field
    async def state(self, info: Info) -> MachineState:
        return await info.context.loaders.machine_state.load(self.row.id)

    @strawberry.field(description="When it was drained; null if it is not.")
    async def draining_since(self, info: Info) -> datetime | None:
        return await info.context.loaders.drained_at.load(self.row.id) if self.row.draining else None

    @strawberry.field(description="The resources that no simulation holds.")
    async def free(self, info: Info) -> Free:
        used = await info.context.loaders.usage.load(self.row.id)
        return Free(
            cpus=round(max(0.0, self.row.cpus - used.cpus), 6),
            memory_gib=round(max(0.0, self.row.memory_gib - used.memory_gib), 6),
            gpus=max(0, self.row.gpus - used.gpus),
        )

    @strawberry.field(description="The simulations that are on it now.", metadata={"size": 10})
    async def simulations(self, info: Info) -> list[Simulation]:
        used = await info.context.loaders.usage.load(self.row.id)
        rows = await info.context.loaders.simulation.load_many(list(used.simulation_ids))
        return [Simulation.of(row) for row in rows if row is not None]

    @strawberry.field(
        description="What holds it now, by the time of assignment, and what it is reserved for, by the time from "
        "which.",
        metadata={"size": 8},
    )
    async def holds(self, info: Info) -> list[Hold]:
        held, kept, now = await info.context.loaders.holds.load(self.row.id)
        runs = [Hold.of(each, self.row.id, now) for each in held]
        reserved = [Hold.reserved(each) for each in kept]
        return [*sorted(runs, key=lambda each: each.begin), *sorted(reserved, key=lambda each: each.begin)]

    @classmethod
    def of(cls, row: models.Machine) -> Self:
        return cls(
            id=row.id, row=row, name=row.name, engine=row.engine, host=row.host, declared=row.declared,
            resources=Resources(
                cpus=row.cpus, memory_gib=row.memory_gib, gpus=row.gpus, gpu_model=row.gpu_model
            ),
            labels=JSON(row.labels), price_per_hour=row.price_per_hour, draining=row.draining,
            drain_deadline=row.drain_deadline, startable=machines.is_startable(row.engine_key),
            heartbeat_at=row.heartbeat_at, created_at=row.created_at,
        )  # fmt: skip


@strawberry.type(description="Machines, by name.")
class MachineConnection:
    wanted: strawberry.Private[machines.Filter]
    edges: list[pages.Edge[Machine]]
    nodes: list[Machine]
    page_info: relay.PageInfo

    @strawberry.field(description="The number of rows on all pages.", metadata={"cost": 10})
    async def total_count(self, info: Info) -> int:
        async with info.context.sessions() as session:
            return await machines.count_matching(session, self.wanted, info.context.lease)


# --- queries ---------------------------------------------------------------------------------------------------


async def find(info: Info, number: int) -> Machine | None:
    row = await info.context.loaders.machine.load(number)
    return Machine.of(row) if row is not None else None


async def page(
    info: Info, wanted: machines.Filter, *, descending: bool, first: int, after: str | None
) -> MachineConnection:
    with refusals_told():
        async with info.context.sessions() as session:
            found = await machines.page_matching(
                session, wanted, info.context.lease, descending=descending, first=pages.size(first), after=after
            )
    edges, nodes, page_info = pages.edges(found, Machine.of)
    return MachineConnection(wanted=wanted, edges=edges, nodes=nodes, page_info=page_info)


# --- mutations -------------------------------------------------------------------------------------------------


@strawberry.input(description="A machine to be created as a part of a scheduler's host.")
class CreateMachineInput:
    name: str
    cpus: float
    memory_gib: float
    gpus: int = 0
    gpu_model: str | None = None
    labels: JSON | None = strawberry.field(default=strawberry.UNSET, description="An object of strings.")
    price_per_hour: Decimal = strawberry.field(default=Decimal(0), description="The price of the whole machine.")
    host: str | None = strawberry.field(
        default=None, description="The host's id or name; optional if there is only one."
    )


@strawberry.input(description="Changes of a machine; omitted or null fields stay. Running attempts keep their price.")
class UpdateMachineInput:
    id: strawberry.ID
    name: str | None = strawberry.UNSET
    cpus: float | None = strawberry.UNSET
    memory_gib: float | None = strawberry.UNSET
    gpus: int | None = strawberry.UNSET
    gpu_model: str | None = strawberry.field(default=strawberry.UNSET, description="Null: unknown.")
    labels: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object of strings, which replaces all labels."
    )
    price_per_hour: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="The price of the whole machine."
    )


@strawberry.input(description="The machine to change.")
class MachineInput:
    id: strawberry.ID


@strawberry.input(description="The machine to drain, and until when what runs there may go on.")
class DrainMachineInput:
    id: strawberry.ID
    deadline: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When what still runs there is stopped and returns to the queue, without using up a retry; a time "
        "in the past: at once. At most a year ahead. Without one, what runs goes on to its end.",
    )


@strawberry.type(description="The machine, or errors.")
class MachinePayload:
    machine: Machine | None = None
    user_errors: list[UserError] = strawberry.field(default_factory=list)
    notices: list[str] = strawberry.field(
        default_factory=list,
        description="Warnings about a change that was made, as sentences. For example: the machines of a "
        "host offer more together than it has.",
    )


@strawberry.type(description="The id of the deleted object, or errors.")
class DeleteMachinePayload:
    deleted_id: strawberry.ID | None = strawberry.field(default=None, description="Null if it was not deleted.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def create(info: Info, given: CreateMachineInput) -> MachinePayload:
    try:
        asked = check(MachineAsked, given)
        wanted = machines.Declared(
            name=asked.name, host=asked.host, cpus=asked.cpus, memory_gib=asked.memory_gib, gpus=asked.gpus,
            gpu_model=asked.gpu_model, labels=asked.labels, price_per_hour=asked.price_per_hour,
        )  # fmt: skip
        async with info.context.sessions() as session, session.begin():
            return await _done(session, await machines.declare(session, wanted, info.context.actor))
    except Invalid as invalid:
        return MachinePayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return MachinePayload(user_errors=[user_error(refusal)])


async def update(info: Info, given: UpdateMachineInput) -> MachinePayload:
    try:
        number = number_of(given.id, "Machine")
        asked = check(MachineChanged, given)
        values = {name: getattr(asked, name) for name in asked.model_fields_set}
        async with info.context.sessions() as session, session.begin():
            return await _done(session, await machines.change(session, number, values, info.context.actor))
    except Invalid as invalid:
        return MachinePayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return MachinePayload(user_errors=[user_error(refusal)])


async def _done(session: AsyncSession, row: models.Machine) -> MachinePayload:
    offer = await machines.find_offer(session, row.host)
    notice = notice_of(offer) if offer is not None else None
    return MachinePayload(machine=Machine.of(row), notices=[notice] if notice is not None else [])


async def drain(info: Info, given: DrainMachineInput) -> MachinePayload:
    try:
        number = number_of(given.id, "Machine")
        deadline = check(DrainAsked, given).deadline
        async with info.context.sessions() as session, session.begin():
            row = await machines.drain(session, number, info.context.actor, deadline=deadline)
            return MachinePayload(machine=Machine.of(row))
    except Invalid as invalid:
        return MachinePayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return MachinePayload(user_errors=[user_error(refusal)])


async def resume(info: Info, public_id: str) -> MachinePayload:
    try:
        number = number_of(public_id, "Machine")
        async with info.context.sessions() as session, session.begin():
            return MachinePayload(machine=Machine.of(await machines.resume(session, number, info.context.actor)))
    except errors.Refusal as refusal:
        return MachinePayload(user_errors=[user_error(refusal)])


async def delete(info: Info, public_id: str) -> DeleteMachinePayload:
    try:
        number = number_of(public_id, "Machine")
        async with info.context.sessions() as session, session.begin():
            await machines.delete_idle(session, number, info.context.actor)
        return DeleteMachinePayload(deleted_id=strawberry.ID(public_id))
    except errors.Refusal as refusal:
        return DeleteMachinePayload(user_errors=[user_error(refusal)])


# --- subscription ----------------------------------------------------------------------------------------------


async def changed(info: Info, public_id: str | None) -> AsyncIterator[Machine]:
    """The newest state of each machine that changed, from now on."""
    number = number_asked(public_id, "Machine") if public_id is not None else None
    shown: dict[int, tuple[object, ...]] = {}
    live = info.context.live

    async def read(ids: Collection[int] | None) -> tuple[Sequence[models.Machine], Mapping[int, MachineState]]:
        async with info.context.sessions() as session:
            rows = await (machines.every(session) if ids is None else machines.by_ids(session, ids))
            return rows, await machines.states_of(session, [row.id for row in rows], info.context.lease)

    with live.hub.changes(Channel.MACHINES) as changes:
        while True:
            rows, states = await live.outage.patiently(partial(read, await changes.next()))
            for row in sorted(rows, key=lambda row: row.id):
                face = (
                    row.name, states.get(row.id), row.cpus, row.memory_gib, row.gpus, row.gpu_model, row.labels,
                    row.price_per_hour, row.drain_deadline,
                )  # fmt: skip
                if number in (None, row.id) and shown.get(row.id) != face:
                    shown[row.id] = face
                    yield Machine.of(row)
