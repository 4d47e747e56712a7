"""Dependencies in GraphQL: the simulations that one runs after, and those that run after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import strawberry

from graph.context import Info
from graph.types.enums import DependencyCondition

if TYPE_CHECKING:
    from graph.types.simulation import Simulation


@strawberry.type(description="The other simulation of a dependency, and its condition.")
class Dependency:
    number: strawberry.Private[int]
    condition: DependencyCondition = strawberry.field(description="The end that is waited for.")

    @strawberry.field(description="The other simulation; null if it was deleted meanwhile.")
    async def simulation(self, info: Info) -> Annotated[Simulation, strawberry.lazy("graph.types.simulation")] | None:
        from graph.types.simulation import find

        return await find(info, self.number)


@strawberry.input(
    description="A simulation to run after: exactly one of its id, its client key and its index in the same call."
)
class AfterInput:
    simulation: strawberry.ID | None = strawberry.field(default=None, description="Its id.")
    client_key: str | None = strawberry.field(
        default=None, description="Its client key, in the same call or in the same project."
    )
    index: int | None = strawberry.field(default=None, description="Its place in the same call, from 0.")
    condition: DependencyCondition = strawberry.field(
        default=DependencyCondition.SUCCESS, description="The end to wait for."
    )
