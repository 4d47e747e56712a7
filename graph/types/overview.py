"""The installation at a glance, as clients see it: what waits, what runs, what it costs."""

from __future__ import annotations

import strawberry

from db import overview
from db.states import SimulationState
from graph.context import Info
from graph.types.cost import Cost
from graph.types.ids import number_asked


@strawberry.type(description="What is not over yet, and what it costs: of the projects that one may see.")
class Overview:
    queued: int = strawberry.field(description="How many simulations wait.")
    starting: int = strawberry.field(description="How many have a machine, and have not begun.")
    running: int = strawberry.field(description="How many run.")
    cost: Cost = strawberry.field(
        description="What the attempts that hold machines now have cost so far, and what they cost per hour."
    )


async def read(info: Info, project: str | None) -> Overview:
    number = number_asked(project, "Project") if project is not None else None
    async with info.context.sessions() as session:
        found = await overview.read(session, project_id=number, scope=info.context.scope)
    return Overview(
        queued=found.counts.get(SimulationState.QUEUED, 0),
        starting=found.counts.get(SimulationState.STARTING, 0),
        running=found.counts.get(SimulationState.RUNNING, 0),
        cost=Cost.of(found.holdings, info.context.settings.currency),
    )
