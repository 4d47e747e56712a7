"""The overview of the installation: queued and running simulations, and their cost."""

from __future__ import annotations

import strawberry

from db import overview
from db.states import SimulationState
from graph.context import Info
from graph.types.cost import Cost
from graph.types.ids import number_asked


@strawberry.type(
    description="Simulations that have not ended, and their cost, of the projects that the viewer may see."
)
class Overview:
    queued: int = strawberry.field(description="The number of queued simulations.")
    starting: int = strawberry.field(description="The number of simulations that have a machine and have not begun.")
    running: int = strawberry.field(description="The number of running simulations.")
    cost: Cost = strawberry.field(description="The cost so far, and per hour, of the attempts that hold machines now.")


async def read(info: Info, project: str | None) -> Overview:
    number = number_asked(project, "Project") if project is not None else None
    async with info.context.sessions() as session:
        projects = overview.chosen(number, info.context.scope)
        counts = await overview.counts(session, projects)
        holdings = await overview.holdings(session, projects)
    return Overview(
        queued=counts.get(SimulationState.QUEUED, 0),
        starting=counts.get(SimulationState.STARTING, 0),
        running=counts.get(SimulationState.RUNNING, 0),
        cost=Cost.of(holdings, info.context.settings.currency),
    )
