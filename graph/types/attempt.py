"""An execution of a simulation: its members with their grants, its times, its end."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Self

import strawberry
from strawberry import relay

from db import models
from db.attempts import Execution
from graph.context import Info
from graph.types.cost import Cost
from graph.types.enums import Reason

if TYPE_CHECKING:
    from graph.types.machine import Machine

LazyMachine = Annotated["Machine", strawberry.lazy("graph.types.machine")]


@strawberry.type(description="One process of an attempt, on one machine.")
class Member:
    machine_number: strawberry.Private[int | None]
    rank: int = strawberry.field(description="0 for the first, whose points are the curve.")
    machine_name: str = strawberry.field(description="The name of its machine, kept when the machine is deleted.")
    gpu_indices: list[int] = strawberry.field(description="The GPUs of the host that it may use.")
    price_per_hour: Decimal = strawberry.field(description="The price of the whole machine at assignment.")
    share: Decimal = strawberry.field(description="The billed share of the machine, 0 to 1.")
    heartbeat_at: datetime = strawberry.field(description="When its last report or heartbeat arrived.")
    ended_at: datetime | None = strawberry.field(description="When it ended; null while it has not.")
    exit_code: int | None
    signal: int | None

    @strawberry.field(description="Null if the machine was deleted.")
    async def machine(self, info: Info) -> LazyMachine | None:
        from graph.types.machine import find

        return await find(info, self.machine_number) if self.machine_number is not None else None

    @classmethod
    def of(cls, row: models.Member) -> Self:
        return cls(
            machine_number=row.machine_id, rank=row.rank, machine_name=row.machine_name, gpu_indices=row.gpu_indices,
            price_per_hour=row.price_per_hour, share=row.share, heartbeat_at=row.heartbeat_at, ended_at=row.ended_at,
            exit_code=row.exit_code, signal=row.signal,
        )  # fmt: skip


@strawberry.type(
    description="An execution of a simulation. Its number is the fence: older ones' reports are refused. Of one on "
    "several machines, machine, GPUs, price, share and heartbeat are those of the member of rank 0."
)
class Attempt(relay.Node):
    id: relay.NodeID[int]
    machine_number: strawberry.Private[int | None]
    number: int = strawberry.field(description="1 for the first.")
    machine_name: str = strawberry.field(description="The name of its machine, kept when the machine is deleted.")
    gpu_indices: list[int] = strawberry.field(description="The GPUs of the host that it may use.")
    price_per_hour: Decimal = strawberry.field(description="The price of the whole machine at assignment.")
    share: Decimal = strawberry.field(description="The billed share of the machine, 0 to 1.")
    currency: str
    assigned_at: datetime = strawberry.field(description="When it was assigned to its machine: billing starts here.")
    started_at: datetime | None = strawberry.field(description="When its supervisor's hello arrived.")
    heartbeat_at: datetime = strawberry.field(description="When its last report or heartbeat arrived.")
    ended_at: datetime | None = strawberry.field(description="When it ended; null while it is the current one.")
    reason: Reason | None = strawberry.field(description="Why it ended; null while it has not.")
    reason_detail: str | None = strawberry.field(description="The reason as a sentence, if there are details.")
    exit_code: int | None
    signal: int | None

    @strawberry.field(description="Null if the machine was deleted.")
    async def machine(self, info: Info) -> LazyMachine | None:
        from graph.types.machine import find

        return await find(info, self.machine_number) if self.machine_number is not None else None

    @strawberry.field(
        description="Its processes, by rank: one on each of the machines that were asked for.", metadata={"size": 2}
    )
    async def members(self, info: Info) -> list[Member]:
        return [Member.of(each) for each in await info.context.loaders.members_of_attempt.load(int(self.id))]

    @strawberry.field(description="Its cost so far, of all its members.")
    async def cost(self, info: Info) -> Cost:
        return Cost.of(await info.context.loaders.holdings_of_attempt.load(int(self.id)), self.currency)

    @classmethod
    def of(cls, found: Execution) -> Self:
        row, lead = found.attempt, found.lead
        return cls(
            id=row.id, machine_number=lead.machine_id, number=row.number, machine_name=lead.machine_name,
            gpu_indices=lead.gpu_indices, price_per_hour=lead.price_per_hour, share=lead.share, currency=lead.currency,
            assigned_at=row.assigned_at, started_at=row.started_at, heartbeat_at=lead.heartbeat_at,
            ended_at=row.ended_at, reason=row.reason, reason_detail=row.reason_detail, exit_code=row.exit_code,
            signal=row.signal,
        )  # fmt: skip


async def find(info: Info, number: int) -> Attempt | None:
    found = await info.context.loaders.attempt.load(number)
    if found is None or await info.context.loaders.simulation.load(found.attempt.simulation_id) is None:
        return None
    return Attempt.of(found)
