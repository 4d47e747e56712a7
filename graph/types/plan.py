"""The plan in GraphQL: machines with what holds them and what they are reserved for, and until when."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

import strawberry

from db import machines, newest_plan
from db.newest_plan import Reservation
from db.running import Running
from graph.context import Info
from graph.types.enums import described
from policy.outlook import Pace, ahead

if TYPE_CHECKING:
    from graph.types.machine import MachineConnection
    from graph.types.simulation import Simulation

LazySimulation = Annotated["Simulation", strawberry.lazy("graph.types.simulation")]
LazyMachines = Annotated["MachineConnection", strawberry.lazy("graph.types.machine")]


@described(
    "How a machine is held by a simulation.",
    HELD="It is on the machine.",
    LEAVING="It is on the machine and is being stopped.",
    RESERVED="Room is kept for it from then on.",
)
class HoldKind(StrEnum):
    HELD = "HELD"
    LEAVING = "LEAVING"
    RESERVED = "RESERVED"


@strawberry.type(description="A time in which a machine is held by a simulation, or is reserved for it.")
class Hold:
    simulation_number: strawberry.Private[int]
    kind: HoldKind = strawberry.field(description="Whether it is on the machine, is being stopped there, or will be.")
    share: Decimal | None = strawberry.field(description="The billed share of the machine; null for a reservation.")
    preemptible: bool = strawberry.field(description="Whether it may be stopped to make room for another simulation.")
    begin: datetime = strawberry.field(description="When it was assigned, or the time that is reserved for it.")
    expected_end: datetime | None = strawberry.field(
        description="When it will have taken its planned steps, at its pace so far; null if that is not known."
    )
    latest_end: datetime | None = strawberry.field(
        description="When its maximum run time will be over; null without one."
    )

    @strawberry.field(description="Null if the viewer may not see it.")
    async def simulation(self, info: Info) -> LazySimulation | None:
        from graph.types.simulation import find

        return await find(info, self.simulation_number)

    @classmethod
    def of(cls, held: Running, machine_id: int, now: datetime) -> Self:
        latest = None
        if held.max_runtime is not None and held.started_at is not None:
            latest = held.started_at + max(held.max_runtime - held.attained, timedelta(0))
        share = sum((each.share for each in held.places if each.machine_id == machine_id), Decimal(0))
        return cls(
            simulation_number=held.id, kind=HoldKind.HELD if held.stop_reason is None else HoldKind.LEAVING,
            share=share, preemptible=held.preemptible, begin=held.assigned_at, expected_end=_expected_end(held, now),
            latest_end=latest,
        )  # fmt: skip

    @classmethod
    def reserved(cls, kept: Reservation) -> Self:
        return cls(
            simulation_number=kept.simulation_id, kind=HoldKind.RESERVED, share=None, preemptible=False, begin=kept.at,
            expected_end=None, latest_end=None,
        )  # fmt: skip


def _expected_end(held: Running, now: datetime) -> datetime | None:
    if held.max_steps is None or held.steps_done is None or held.step_rate is None:
        return None
    left = ahead(held.max_steps, Pace(held.steps_done, held.step_rate, None)).seconds
    return now + timedelta(seconds=left) if left is not None else None


@strawberry.type(description="The newest plan: what runs on the machines, and what is reserved.")
class Plan:
    now: datetime = strawberry.field(description="The server's time, from which expected ends are counted.")
    queued: int = strawberry.field(description="The number of simulations in the planned queue.")

    @strawberry.field(description="The machines, by name; their `holds` are what runs there and what is reserved.")
    async def machines(self, info: Info, first: int = 50, after: str | None = None) -> LazyMachines:
        from graph.types.machine import page

        return await page(info, machines.Filter(), descending=False, first=first, after=after)


async def read(info: Info) -> Plan:
    async with info.context.sessions() as session:
        found = await newest_plan.summary(session)
    return Plan(now=found.now, queued=found.queued)
