"""Mutations of simulations: create, update, cancel, retry, delete."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import strawberry

from db import alert_targets, errors, lifecycle, machines, projects, simulations
from db.public_ids import encode
from db.simulations import Wanted
from graph.auth.rate_limit import client_of
from graph.context import Info
from graph.types import stop_rules
from graph.types.ids import number_of, simulation_number
from graph.types.inputs import Invalid, SimulationAsked, SimulationChanged, check
from graph.types.naming import name_of
from graph.types.simulation import Simulation
from graph.types.simulation_inputs import CreateSimulationInput, UpdateSimulationInput
from graph.types.user_errors import UserError, UserErrorCode, user_error
from transitions import update as update_simulation
from transitions.cancel import cancel as cancel_simulation


@strawberry.type(description="The simulation, or errors.")
class SimulationPayload:
    simulation: Simulation | None = None
    user_errors: list[UserError] = strawberry.field(default_factory=list)


@strawberry.type(description="The id of the deleted object, or errors.")
class DeleteSimulationPayload:
    deleted_id: strawberry.ID | None = strawberry.field(default=None, description="Null if it was not deleted.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def create(info: Info, given: CreateSimulationInput) -> SimulationPayload:
    try:
        asked: dict[str, Any] = {**check(SimulationAsked, given)}
        if refused := _too_many(info):
            return SimulationPayload(user_errors=[refused])
        name = asked.pop("name", None) or name_of(asked["entrypoint"])
        project_name, machine_id = asked.pop("project", projects.DEFAULT), asked.pop("machine", None)
        client_key, alerts = asked.pop("client_key", None), asked.pop("alerts", None)
        asked |= stop_rules.of_new(asked)
        async with info.context.sessions() as session, session.begin():
            project = await projects.named(session, project_name, info.context.actor, scope=info.context.scope)
            if machine_id is not None:
                number = number_of(machine_id, "Machine", field="resources.machine")
                machine = await machines.get(session, number, field="resources.machine")
                asked |= {"machine_id": machine.id, "machine_name": machine.name}
            if alerts is not None:
                asked["alert_target_ids"] = tuple(await alert_targets.named(session, alerts, project.id))
            wanted = Wanted(project_id=project.id, name=name, **asked)
            row = await simulations.create(session, wanted, info.context.actor, client_key=client_key)
            return SimulationPayload(simulation=Simulation.of(row))
    except Invalid as invalid:
        return SimulationPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def update(info: Info, given: UpdateSimulationInput) -> SimulationPayload:
    try:
        number = await simulation_number(info, given.id)
        asked: dict[str, Any] = {**check(SimulationChanged, given)}
        grace = timedelta(seconds=info.context.settings.stop_grace_seconds)
        async with info.context.sessions() as session, session.begin():
            row = simulations.seen(await lifecycle.lock(session, number), info.context.scope)
            changes = await stop_rules.of_change(session, row, asked)
            row = await update_simulation.update(session, row, changes, info.context.actor, stop_grace=grace)
            return SimulationPayload(simulation=Simulation.of(row))
    except Invalid as invalid:
        return SimulationPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def cancel(info: Info, public_id: str) -> SimulationPayload:
    try:
        number = await simulation_number(info, public_id)
        async with info.context.sessions() as session, session.begin():
            row = await cancel_simulation(session, number, info.context.actor, scope=info.context.scope)
            return SimulationPayload(simulation=Simulation.of(row))
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def retry(info: Info, public_id: str) -> SimulationPayload:
    try:
        number = await simulation_number(info, public_id)
        if refused := _too_many(info):
            return SimulationPayload(user_errors=[refused])
        async with info.context.sessions() as session, session.begin():
            row = await simulations.repeat(session, number, info.context.actor, scope=info.context.scope)
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


def _too_many(info: Info) -> UserError | None:
    """Count one more submission, or return an error with the time to wait."""
    context = info.context
    if context.submits is None:
        return None
    # Without a token everybody is one viewer: there the address counts.
    wait = context.submits.take(context.viewer.token_id or client_of(context.actor.origin or ""))
    if not wait:
        return None
    return UserError(
        code=UserErrorCode.RATE_LIMITED,
        message=f"At most {context.submits.per_minute:,} simulations may be submitted in a minute: try again in "
        f"{math.ceil(wait)} s.",
    )
