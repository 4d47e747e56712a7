"""Mutations of simulations: update, cancel, pause, resume, delete. New ones: `submission`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import strawberry

from db import errors, lifecycle, models, simulations
from db.public_ids import encode
from graph.context import Info
from graph.types import stop_rules
from graph.types.ids import simulation_number
from graph.types.inputs import MOST_TAGS, Invalid, SimulationChanged, check
from graph.types.simulation import Simulation
from graph.types.simulation_inputs import UpdateSimulationInput
from graph.types.user_errors import UserError, user_error
from transitions import update as update_simulation
from transitions.cancel import cancel as cancel_simulation
from transitions.pause import pause as pause_simulation
from transitions.pause import resume as resume_simulation


@strawberry.type(description="The simulation, or errors.")
class SimulationPayload:
    simulation: Simulation | None = None
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The simulations, in the order of the input, or errors.")
class CreateSimulationsPayload:
    simulations: list[Simulation] = strawberry.field(
        default_factory=list,
        description="Empty if one of them was refused: then none was created.",
        metadata={"size": 100},
    )
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The id of the deleted object, or errors.")
class DeleteSimulationPayload:
    deleted_id: strawberry.ID | None = strawberry.field(default=None, description="Null if it was not deleted.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def update(info: Info, given: UpdateSimulationInput) -> SimulationPayload:
    try:
        number = await simulation_number(info, given.id)
        asked: dict[str, Any] = {**check(SimulationChanged, given)}
        if given.objective is None:  # left out, it is UNSET
            asked |= {"objective_metric": None, "objective_mode": None}
        grace = timedelta(seconds=info.context.settings.stop_grace_seconds)
        async with info.context.sessions() as session, session.begin():
            row = simulations.seen(await lifecycle.lock(session, number), info.context.scope)
            changes = stop_rules.of_change(row, _tagged(row.tags, asked))
            row = await update_simulation.update(session, row, changes, info.context.actor, stop_grace=grace)
            return SimulationPayload(simulation=Simulation.of(row))
    except Invalid as invalid:
        return SimulationPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


def _tagged(tags: Sequence[str], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, with all tags in place of those that are added and removed. tags: of the locked row."""
    changes = dict(asked)
    added, removed = changes.pop("add_tags", ()), changes.pop("remove_tags", ())
    if added or removed:
        kept = (each for each in changes.get("tags", tags) if each not in removed)
        changes["tags"] = tuple(dict.fromkeys((*kept, *added)))
        if len(changes["tags"]) > MOST_TAGS:
            raise errors.Refusal(f"addTags: a simulation has at most {MOST_TAGS} tags.", field="addTags")
    return changes


Verb: TypeAlias = Callable[..., Awaitable[models.Simulation]]


async def cancel(info: Info, public_id: str) -> SimulationPayload:
    return await _done(info, public_id, cancel_simulation)


async def pause(info: Info, public_id: str) -> SimulationPayload:
    return await _done(info, public_id, pause_simulation)


async def resume(info: Info, public_id: str) -> SimulationPayload:
    return await _done(info, public_id, resume_simulation)


async def _done(info: Info, public_id: str, verb: Verb) -> SimulationPayload:
    try:
        number = await simulation_number(info, public_id)
        async with info.context.sessions() as session, session.begin():
            row = await verb(session, number, info.context.actor, scope=info.context.scope)
            return SimulationPayload(simulation=Simulation.of(row))
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def delete(info: Info, public_id: str) -> DeleteSimulationPayload:
    try:
        number = await simulation_number(info, public_id)
        async with info.context.sessions() as session, session.begin():
            await simulations.delete_ended(session, number, info.context.actor, scope=info.context.scope)
        return DeleteSimulationPayload(deleted_id=strawberry.ID(encode("Simulation", number)))
    except errors.Refusal as refusal:
        return DeleteSimulationPayload(user_errors=[user_error(refusal)])
