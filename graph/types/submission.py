"""Submissions: the mutations createSimulation, createSimulations, retrySimulation and forkSimulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from db import alert_targets, errors, machines, packages, projects, references, simulations
from db.models import Machine, Project
from db.simulations import Wanted
from graph.auth.rate_limit import client_of
from graph.context import Info
from graph.types import stop_rules
from graph.types.ids import number_of, simulation_number
from graph.types.inputs import (
    MOST_AT_ONCE,
    MOST_FINDINGS,
    AfterAsked,
    Invalid,
    PackageAsked,
    ParametersAsked,
    SimulationAsked,
    SimulationForked,
    SimulationsAsked,
    check,
)
from graph.types.naming import name_of
from graph.types.parameters import at_path
from graph.types.runtime_env import ENGINE_LABEL, RAY, split
from graph.types.simulation import Simulation
from graph.types.simulation_inputs import CreateSimulationInput, CreateSimulationsInput, ForkSimulationInput
from graph.types.simulation_mutations import CreateSimulationsPayload, SimulationPayload
from graph.types.user_errors import UserError, UserErrorCode, user_error
from policy.search_space import MOST_BYTES, as_text, fill, is_program, marks, size_of_filled
from transitions.submit import (
    After,
    Submission,
    at_checkpoint,
    repeat,
    repeat_as,
    repetition_of,
    submit,
    to_repeat,
)

NOTHING: Mapping[str, str] = MappingProxyType({})


async def create(info: Info, given: CreateSimulationInput) -> SimulationPayload:
    try:
        asked: dict[str, Any] = {**check(SimulationAsked, given)}
        if refused := too_many(info):
            return SimulationPayload(user_errors=[refused])
        fill_command(asked)
        async with info.context.sessions() as session, session.begin():
            submission = await Names(info, session).submission(asked)
            [row] = await submit(session, [submission], info.context.actor, scope=info.context.scope)
            return SimulationPayload(simulation=Simulation.of(row))
    except Invalid as invalid:
        return SimulationPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def create_all(info: Info, given: CreateSimulationsInput) -> CreateSimulationsPayload:
    try:
        asked = check(SimulationsAsked, given)
        every: list[dict[str, Any]] = [{**each} for each in asked["simulations"]]
        if refused := too_many(info, len(every)):
            return CreateSimulationsPayload(user_errors=[refused])
        key = asked.get("client_key") or uuid4().hex  # what is found by its key needs one
        async with info.context.sessions() as session, session.begin():
            names = Names(info, session)
            submissions = []
            for place, each in enumerate(every):
                each.setdefault("client_key", f"{key} {place + 1}/{len(every)}")
                fill_command(each, path=("simulations", str(place)))
                submissions.append(await names.submission(each, path=f"simulations.{place}."))
            if "client_key" in asked:
                await _require_same_number(session, key, submissions)
            rows = await submit(session, submissions, info.context.actor, scope=info.context.scope)
            return CreateSimulationsPayload(simulations=[Simulation.of(row) for row in rows])
    except Invalid as invalid:
        return CreateSimulationsPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return CreateSimulationsPayload(user_errors=[with_path(user_error(refusal))])


async def _require_same_number(session: AsyncSession, key: str, submissions: Sequence[Submission]) -> None:
    """Raise `Taken` if the key was used for more or fewer simulations: others of them have other keys."""
    count = len(submissions)
    keyed = (place for place, each in enumerate(submissions) if each.client_key == f"{key} {place + 1}/{count}")
    first = next(keyed, None)
    if first is None:
        return
    others = [f"{key} {first + 1}/{each}" for each in range(first + 1, MOST_AT_ONCE + 1) if each != count]
    used = await simulations.used_key(session, submissions[first].wanted.project_id, others)
    if used is not None:
        raise errors.Taken(
            f"The client key {key!r} was used in this project for a call with {used.rpartition('/')[2]} simulations, "
            f"and this one has {count}: use a new key for new content.",
            field="clientKey",
        )


async def retry(info: Info, public_id: str) -> SimulationPayload:
    try:
        number = await simulation_number(info, public_id)
        if refused := too_many(info):
            return SimulationPayload(user_errors=[refused])
        async with info.context.sessions() as session, session.begin():
            row = await repeat(session, number, info.context.actor, scope=info.context.scope)
            return SimulationPayload(simulation=Simulation.of(row))
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def fork(info: Info, given: ForkSimulationInput) -> SimulationPayload:
    try:
        number = await simulation_number(info, given.id)
        changes: dict[str, Any] = {**check(SimulationForked, given)}
        from_checkpoint = changes.pop("from_checkpoint", False)
        if refused := too_many(info):
            return SimulationPayload(user_errors=[refused])
        scope = info.context.scope
        async with info.context.sessions() as session, session.begin():
            old = await to_repeat(session, number, scope=scope)
            if "parameters" in changes:
                changes["parameters"] = _merged(old.parameters, changes["parameters"])
            wanted = await repetition_of(session, old)
            await require_package(session, changes, old.project_id, {})
            if "package_id" in changes:
                changes["working_directory"] = None
            set_runtime_env(changes, environment=wanted.environment, labels=wanted.labels)
            wanted = replace(wanted, **changes)
            await _require_node(session, wanted)
            wanted = _filled_anew(wanted, changes)
            if from_checkpoint:
                wanted = await at_checkpoint(session, old, wanted)
            row = await repeat_as(session, old, wanted, info.context.actor, scope=scope)
            return SimulationPayload(simulation=Simulation.of(row))
    except Invalid as invalid:
        return SimulationPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


def _filled_anew(wanted: Wanted, changes: Mapping[str, Any]) -> Wanted:
    """The repetition with the command that its parameters give. Raises `Invalid`."""
    template = changes.get("entrypoint") or ("parameters" in changes and wanted.entrypoint_template)
    if not template:
        return wanted
    asked: dict[str, Any] = {"entrypoint": tuple(template), "parameters": wanted.parameters}
    fill_command(asked)
    return replace(wanted, entrypoint=asked["entrypoint"], entrypoint_template=asked.get("entrypoint_template"))


def fill_command(asked: dict[str, Any], path: Sequence[str] = ()) -> None:
    """Put the values of parameters into the command, and keep it as it was given. Raises `Invalid`.

    Without parameters nothing is filled in. In a word with blanks, as a program for `python -c`, other names in braces
    stay.
    """
    command, parameters = asked["entrypoint"], asked.get("parameters")
    if not parameters:
        return
    values: dict[str, str] = {}
    errors: list[UserError] = []
    for place, name in marks(command):
        value = at_path(parameters, name)
        if value is not None or name in parameters:
            values[name] = as_text(value)
        elif is_program(command[place]):
            values[name] = f"{{{name}}}"
        else:
            sentence = f"{{{name}}} is no parameter; if it is meant as text, write {{{{{name}}}}}"
            errors.append(_of_word(path, place, sentence))
    if errors:
        raise Invalid(errors[:MOST_FINDINGS])
    if size_of_filled(command, {name: len(each.encode()) for name, each in values.items()}) > MOST_BYTES:
        raise Invalid([_of_word(path, None, f"has more than {MOST_BYTES:,} bytes with its parameters")])
    filled = fill(command, values)
    if filled != tuple(command):
        asked |= {"entrypoint": filled, "entrypoint_template": tuple(command)}


def _of_word(path: Sequence[str], place: int | None, sentence: str) -> UserError:
    field = [*path, "entrypoint", *([str(place)] if place is not None else [])]
    return UserError(code=UserErrorCode.INVALID, message=f"{'.'.join(field)}: {sentence}", field=field)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The old parameters with the new ones over them; null removes one. Raises `Invalid`: together they count anew."""
    merged = {name: value for name, value in {**old, **new}.items() if value is not None or name not in new}
    return check(ParametersAsked, {"parameters": merged})["parameters"]


@dataclass(slots=True)
class Names:
    """Looks up what submissions name, each name once."""

    info: Info
    session: AsyncSession
    _projects: dict[str, Project] = field(default_factory=dict)
    _machines: dict[str, Machine] = field(default_factory=dict)
    _packages: dict[tuple[int, str], int] = field(default_factory=dict)
    _targets: dict[tuple[int, tuple[str, ...]], tuple[int, ...]] = field(default_factory=dict)

    async def submission(self, asked: dict[str, Any], path: str = "") -> Submission:
        """Complete one submission. Raises `Invalid`, and a `Refusal` whose field begins with the path."""
        name = asked.pop("name", None) or name_of(asked["entrypoint"])
        project_name, machine_id = asked.pop("project", projects.DEFAULT), asked.pop("machine", None)
        client_key, alerts = asked.pop("client_key", None), asked.pop("alerts", None)
        after: Sequence[AfterAsked] = asked.pop("after", ())
        try:
            asked |= stop_rules.of_new(asked)
            project = await self._project(project_name)
            if machine_id is not None:
                if asked.get("machines", 1) > 1:
                    raise errors.Refusal(
                        "A simulation on several machines can't name one of them: choose them by labels.",
                        field="resources.machine",
                    )
                machine = await self._machine(machine_id)
                asked |= {"machine_id": machine.id, "machine_name": machine.name}
            if "package" in asked and asked.get("working_directory") is not None:
                raise errors.Refusal(
                    "A simulation starts in its package, or in a directory on the machine: leave one of them out.",
                    field="workingDirectory",
                )
            await require_package(self.session, asked, project.id, self._packages)
            set_runtime_env(asked)
            await _require_node(self.session, Wanted(project_id=project.id, name=name, **asked))
            if alerts is not None:
                asked["alert_target_ids"] = await self._alert_targets(tuple(alerts), project.id)
            links = [await self._after(each, place) for place, each in enumerate(after)]
        except errors.Refusal as refusal:
            refusal.field = f"{path}{refusal.field or ''}".rstrip(".") or None
            raise
        except Invalid as invalid:
            for error in invalid.errors:
                error.field = [*path.split(".")[:-1], *(error.field or [])]
                error.message = f"{path}{error.message}"
            raise
        return Submission(Wanted(project_id=project.id, name=name, **asked), client_key, links, path)

    async def _project(self, name: str) -> Project:
        if name not in self._projects:
            context = self.info.context
            self._projects[name] = await projects.named(self.session, name, context.actor, scope=context.scope)
        return self._projects[name]

    async def _machine(self, public_id: str) -> Machine:
        if public_id not in self._machines:
            number = number_of(public_id, "Machine", field="resources.machine")
            self._machines[public_id] = await machines.get(self.session, number, field="resources.machine")
        return self._machines[public_id]

    async def _alert_targets(self, names: tuple[str, ...], project_id: int) -> tuple[int, ...]:
        if (project_id, names) not in self._targets:
            found = await alert_targets.named(self.session, names, project_id)
            self._targets[project_id, names] = tuple(found)
        return self._targets[project_id, names]

    async def _after(self, asked: AfterAsked, place: int) -> After:
        number = None
        if asked.simulation is not None:
            number = await references.resolve(
                self.session,
                asked.simulation,
                scope=self.info.context.scope,
                field=f"after.{place}.simulation",
            )
        return After(asked.condition, simulation_id=number, client_key=asked.client_key, index=asked.index)


async def require_package(
    session: AsyncSession, asked: dict[str, Any], project_id: int, known: dict[tuple[int, str], int]
) -> None:
    """Look up the package that was asked for, if any. known: those that were found. Raises `NotFound`."""
    package: PackageAsked | None = asked.pop("package", None)
    if package is None:
        return
    key = (project_id, package.digest)
    if key not in known:
        found = await packages.find(session, *key)
        if found is None:
            raise errors.NotFound(
                "This package is not stored in the project, or no longer: upload it first.", field="package.digest"
            )
        known[key] = found.id
    asked |= {"package_id": known[key], "package_source": package.source or None}


def set_runtime_env(
    asked: dict[str, Any], *, environment: Mapping[str, str] = NOTHING, labels: Mapping[str, str] = NOTHING
) -> None:
    """Split a runtime environment that was asked for; it needs a machine of a Ray cluster.

    environment, labels: those that hold where `asked` has none.
    """
    if "runtime_env" not in asked:
        return
    handed, variables = split(asked["runtime_env"])
    others = {name: value for name, value in asked.get("labels", labels).items() if name != ENGINE_LABEL}
    asked |= {
        "runtime_env": handed or None,
        "environment": {**variables, **asked.get("environment", environment)},
        "labels": {**others, ENGINE_LABEL: RAY} if asked["runtime_env"] else others,
    }


async def _require_node(session: AsyncSession, wanted: Wanted) -> None:
    """Raises `Refusal` where a runtime environment can't be used."""
    if wanted.labels.get(ENGINE_LABEL) != RAY:
        return
    if not await machines.has_cluster(session):
        raise errors.Refusal(
            "A runtime environment is handed to Ray, and no Ray cluster is here: prepare the environment on the "
            "machine, or bring variables with environment.",
            field="runtimeEnv",
        )
    if wanted.machine_id is not None and (await machines.get(session, wanted.machine_id)).engine == machines.LOCAL:
        raise errors.Refusal(
            f"A runtime environment is handed to Ray, and {wanted.machine_name} is no node of a Ray cluster.",
            field="runtimeEnv",
        )


def with_path(error: UserError) -> UserError:
    """Name the place in the message too, as the errors of values do."""
    if error.field:
        error.message = f"{'.'.join(error.field)}: {error.message}"
    return error


def too_many(info: Info, count: int = 1) -> UserError | None:
    """Count submissions, or return an error with the time to wait."""
    context = info.context
    if context.submits is None:
        return None
    most = f"At most {context.submits.per_minute:,} simulations may be submitted in a minute"
    if count > context.submits.per_minute:
        return UserError(code=UserErrorCode.RATE_LIMITED, message=f"{most}: submit fewer at once.")
    # Without a token everybody is one viewer: there the address counts.
    wait = context.submits.take(context.viewer.token_id or client_of(context.actor.origin or ""), count)
    if not wait:
        return None
    return UserError(code=UserErrorCode.RATE_LIMITED, message=f"{most}: try again in {math.ceil(wait)} s.")
