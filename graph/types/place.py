"""Place in the queue in GraphQL: what is directly before a simulation, and by which rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

import strawberry

from db.newest_plan import Place
from graph.context import Info
from graph.types.enums import QueueRule
from policy.why import is_before

if TYPE_CHECKING:
    from graph.types.simulation import Simulation


@strawberry.type(description="The simulation that is directly before another one in the queue.")
class Ahead:
    number: strawberry.Private[int]
    rule: QueueRule = strawberry.field(description="Why it is before the other one, as a code for programs.")
    detail: str = strawberry.field(description="The same as a sentence for the user.")

    @strawberry.field(description="The simulation; null if the viewer may not see it.")
    async def simulation(self, info: Info) -> Annotated[Simulation, strawberry.lazy("graph.types.simulation")] | None:
        from graph.types.simulation import find

        return await find(info, self.number)

    @classmethod
    def of(cls, place: Place) -> Self | None:
        """Return None for the first in the queue."""
        rule = next((each for each in QueueRule if each.letter == place.rule), None)
        if place.ahead_id is None or rule is None:
            return None
        return cls(number=place.ahead_id, rule=rule, detail=is_before(place.ahead_id, rule))
