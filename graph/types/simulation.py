"""Simulations in GraphQL: the type, its lists, its mutations."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Hashable, Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Self

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry import relay
from strawberry.scalars import JSON

from db import (
    alert_targets,
    attempts,
    errors,
    events,
    lifecycle,
    machines,
    metrics,
    models,
    projects,
    queue,
    simulations,
)
from db.attempts import Execution, StopIntent
from db.notifications import Channel
from db.simulations import Wanted
from graph.auth.rate_limit import client_of
from graph.context import Info
from graph.errors import refusals_told
from graph.types import alert, curve, forecast, pages
from graph.types.alert import AlertDelivery, AlertTarget
from graph.types.cost import Cost
from graph.types.curve import Curve
from graph.types.enums import (
    MetricsFrom,
    OrderDirection,
    Reason,
    SimulationOrder,
    SimulationState,
    Sort,
    WaitingReason,
)
from graph.types.forecast import Forecast
from graph.types.ids import number_asked, number_of
from graph.types.inputs import Invalid, SimulationAsked, SimulationChanged, check
from graph.types.log import LogConnection, page_of_log
from graph.types.metric import Metric, MetricInput, usual_mode
from graph.types.naming import name_of
from graph.types.notice import Notice
from graph.types.project import Project
from graph.types.scalars import Step
from graph.types.source import Source
from graph.types.stopping import Objective, ObjectiveInput, Stopping, StopRuleInput, resolved
from graph.types.user_errors import UserError, UserErrorCode, user_error
from policy.metric_mode import is_system
from policy.waiting import Wait, why
from transitions import update as update_simulation
from transitions.cancel import cancel as cancel_simulation

if TYPE_CHECKING:
    from graph.types.machine import Machine

LazyMachine = Annotated["Machine", strawberry.lazy("graph.types.machine")]


@strawberry.type(description="Why a queued simulation has no machine yet.")
class Waiting:
    reason: WaitingReason = strawberry.field(description="A code for programs.")
    detail: str = strawberry.field(description="A sentence for the user.")
    until: datetime | None = strawberry.field(
        default=None, description="When the waiting ends, if time alone decides: the end of a retry's backoff."
    )

    @classmethod
    def of(cls, wait: Wait) -> Self:
        return cls(reason=wait.reason, detail=wait.detail, until=wait.until)


@strawberry.type(description="An intent to stop a simulation that is on a machine.")
class StopWanted:
    reason: Reason = strawberry.field(description="The reason that it will end with.")
    by: str = strawberry.field(description="The user or process that requested it, named as in `events`.")
    at: datetime = strawberry.field(description="When it was requested.")


@strawberry.type(description="Requirements that a simulation has of its machine.")
class Requirements:
    machine_number: strawberry.Private[int | None]
    cpus: float
    memory_gib: float
    gpus: int
    gpu_model: str | None = strawberry.field(description="A part of the model's name, ignoring case: A100.")
    labels: JSON = strawberry.field(description="Labels that the machine must have, with these values.")
    machine_name: str | None = strawberry.field(description="The only machine that it may run on.")
    max_price_per_hour: Decimal | None = strawberry.field(
        description="The highest price of the billed share, in the installation's currency."
    )

    @strawberry.field(description="The only machine that it may run on; null if it was deleted.")
    async def machine(self, info: Info) -> LazyMachine | None:
        from graph.types.machine import find

        return await find(info, self.machine_number) if self.machine_number is not None else None


@strawberry.type(description="Limits on run time, cost and retries.")
class Limits:
    max_runtime_seconds: int | None = strawberry.field(
        description="The longest run time of each attempt, from its start."
    )
    max_cost: Decimal | None = strawberry.field(
        description="The highest cost of all its attempts together, in the installation's currency."
    )
    max_steps: Step | None = strawberry.field(
        description="The number of steps that it is planned to take: a declaration for stop rules and forecasts, never "
        "enforced."
    )
    max_retries: int = strawberry.field(description="The highest number of attempts after the first.")
    retry_on: list[Reason] = strawberry.field(description="The reasons after which it is retried.")


@strawberry.type(
    description="An execution of a simulation on one machine. Its number is the fence: older ones' reports are refused."
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

    @strawberry.field(description="Its cost so far.")
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


@strawberry.type(description="An entry of an object's history.")
class Event:
    id: strawberry.ID
    at: datetime = strawberry.field(description="When it happened.")
    kind: str = strawberry.field(description="The kind of the event: a state that was entered, STOP_WANTED, UPDATED...")
    actor: str = strawberry.field(
        description="The user or process that caused it: the name of a token, `scheduler` or `supervisor`. Without a "
        "login: `NAME (unverified)`, where a Unix user of the service's host sent the request; else `anonymous`."
    )
    detail: JSON = strawberry.field(description="Details, which depend on the kind.")

    @classmethod
    def of(cls, row: models.Event) -> Self:
        return cls(id=strawberry.ID(str(row.id)), at=row.at, kind=row.kind, actor=row.actor, detail=JSON(row.detail))


@strawberry.type(description="A training run, a solver: anything that converges.")
class Simulation(relay.Node):
    id: relay.NodeID[int]
    row: strawberry.Private[models.Simulation]
    name: str
    state: SimulationState
    reason: Reason | None = strawberry.field(description="Why it ended; null while it has not.")
    reason_detail: str | None = strawberry.field(description="The reason as a sentence, if there are details.")
    working_directory: str | None = strawberry.field(
        description="A directory on the machine; null: the attempt's own directory."
    )
    tags: list[str]
    resources: Requirements
    priority: int = strawberry.field(description="A higher priority is planned first.")
    limits: Limits
    metrics_from: MetricsFrom = strawberry.field(description="Which lines of its output are points.")
    metrics_patterns: list[str] = strawberry.field(
        description="Regular expressions: where one matches a line, its named groups are points."
    )
    system_metrics_seconds: float | None = strawberry.field(
        description="The interval of system metrics; 0: none; null: as the installation."
    )
    tensorboard: list[str] = strawberry.field(
        description="Directories with TensorBoard's event files, beside the working and the output directory."
    )
    attended: bool = strawberry.field(
        description="Whether it starts only when a client subscribes to its convergence, and is stopped after "
        "`attendedGraceSeconds` without a subscriber."
    )
    attended_grace_seconds: int | None = strawberry.field(
        description="For how long it may be on a machine without a subscriber; null if it is not attended."
    )
    created_by: str = strawberry.field(description="The user who created it, named as in `events`.")
    created_at: datetime
    started_at: datetime | None = strawberry.field(description="When its first attempt began.")
    finished_at: datetime | None = strawberry.field(description="When it reached its final state.")

    @strawberry.field(description="The argument vector, run without a shell.")
    async def entrypoint(self, info: Info) -> list[str]:
        return list((await info.context.loaders.command.load(self.row.id)).entrypoint)

    @strawberry.field(
        description="An object; reaches the simulation as SIMULATION_PARAMETERS, in JSON. Parameters that its program "
        "recorded with MLflow or W&B are added under their own names."
    )
    async def parameters(self, info: Info) -> JSON:
        return JSON((await info.context.loaders.command.load(self.row.id)).parameters)

    @strawberry.field(description="The names of its environment variables, each with null: values can't be read.")
    async def environment(self, info: Info) -> JSON:
        return JSON(dict.fromkeys((await info.context.loaders.command.load(self.row.id)).variables))

    @strawberry.field(description="Why it has no machine yet; null if it has one, or was not planned yet.")
    async def waiting(self, info: Info) -> Waiting | None:
        if self.row.state is not SimulationState.QUEUED:
            return None
        wait = await info.context.loaders.wait.load(self.row.id)
        return Waiting.of(wait) if wait is not None else None

    @strawberry.field(
        description="Its place in the queue of the whole installation, by priority and then by age, 1 for the first; "
        "null if it is not in the queue. A simulation that fits may overtake one that does not."
    )
    async def queue_position(self, info: Info) -> int | None:
        if self.row.state is not SimulationState.QUEUED:
            return None
        return await info.context.loaders.queue_position.load(self.row.id)

    @strawberry.field
    async def project(self, info: Info) -> Project:
        row = await info.context.loaders.project.load(self.row.project_id)
        assert row is not None
        return Project.of(row)

    @strawberry.field(description="The machine of the current attempt, or of the last one.")
    async def machine(self, info: Info) -> LazyMachine | None:
        from graph.types.machine import find

        number = await info.context.loaders.machine_of.load(self.row.id)
        return await find(info, number) if number is not None else None

    @strawberry.field(description="The intent to stop its current attempt; null if there is none.")
    async def stop_wanted(self, info: Info) -> StopWanted | None:
        stop = await info.context.loaders.stop.load(self.row.id)
        return StopWanted(reason=stop.reason, by=stop.by, at=stop.wanted_at) if stop is not None else None

    @strawberry.field(description="First to last.")
    async def attempts(self, info: Info) -> list[Attempt]:
        async with info.context.sessions() as session:
            return [Attempt.of(row) for row in await attempts.of_simulation(session, self.row.id)]

    @strawberry.field(description="Its history, oldest first: at most 1,000 events.")
    async def events(self, info: Info) -> list[Event]:
        async with info.context.sessions() as session:
            rows = await events.list_of(session, "Simulation", self.row.id)
        return [Event.of(row) for row in rows]

    @strawberry.field(description="The alert targets that it names; null: the defaults of its project.")
    async def alert_targets(self, info: Info) -> list[AlertTarget] | None:
        if self.row.alert_target_ids is None:
            return None
        found = [await alert.find(info, number) for number in self.row.alert_target_ids]
        return [target for target in found if target is not None]

    @strawberry.field(description="The messages about it to alert targets, oldest first: of the last 30 days.")
    async def alerts(self, info: Info) -> list[AlertDelivery]:
        return await alert.of_simulation(info, self.row.id)

    @strawberry.field(description="Its cost so far.")
    async def cost(self, info: Info) -> Cost:
        return Cost.of(await info.context.loaders.holdings.load(self.row.id), info.context.settings.currency)

    @strawberry.field(
        description="The metrics that it has reported, by name; with `system`, those that its supervisor measured: "
        "`system/cpu` and others, whose step is the time in seconds since 1970."
    )
    async def metrics(self, info: Info, system: bool = False) -> list[Metric]:
        found = await info.context.loaders.metrics.load(self.row.id)
        found = [each for each in found if is_system(each.metric) == system]
        return [Metric.of(each, self.row.metric_modes.get(each.metric) or usual_mode(each.metric)) for each in found]

    @strawberry.field(description="The metric by which it is judged; null without one.")
    async def objective(self, info: Info) -> Objective | None:
        return Objective.of(self.row, await info.context.loaders.metrics.load(self.row.id))

    @strawberry.field(description="Its stop rules, and what they decided.")
    async def stopping(self, info: Info) -> Stopping:
        stop = await info.context.loaders.stop.load(self.row.id)
        summaries = await info.context.loaders.metrics.load(self.row.id)
        return Stopping.of(self.row, stop.evidence if stop is not None else None, summaries)

    @strawberry.field(
        description="Output of its newest attempt that was nearly points, or was dropped, by kind: why a curve is "
        "empty or has gaps."
    )
    async def notices(self, info: Info) -> list[Notice]:
        return [Notice.of(each) for each in await info.context.loaders.notices.load(self.row.id)]

    @strawberry.field(
        description="What its curve so far says about a metric, by default the objective, and about a target, by "
        "default the `stoppingThreshold` of its rule; null where that is too little, and once it has completed."
    )
    async def forecast(self, info: Info, metric: str | None = None, target: float | None = None) -> Forecast | None:
        return await forecast.of_simulation(info, self.row, metric, target)

    @strawberry.field(
        description="What its newest attempt ran: git commit, command, host, Python, packages; null until it is known, "
        "within seconds of the start."
    )
    async def source(self, info: Info) -> Source | None:
        found = await info.context.loaders.source.load(self.row.id)
        return Source.of(found) if found is not None else None

    @strawberry.field(
        description="The curve of a metric, with at most `maxPoints` points (1 to 100,000), chosen so that its shape, "
        "its ends, its extremes and its gaps are kept. Steps are included. To watch it live, subscribe to it."
    )
    async def convergence(
        self,
        info: Info,
        metric: str,
        from_step: Step | None = None,
        to_step: Step | None = None,
        max_points: int = 1000,
    ) -> Curve:
        return await curve.of_simulation(info, self.row.id, metric, from_step, to_step, max_points)

    @strawberry.field(description="Its output without points, and messages of its supervisor.")
    async def logs(self, info: Info, first: int = 100, after: str | None = None) -> LogConnection:
        return await page_of_log(info, self.row.id, first, after)

    @strawberry.field(description="The simulation that this one repeats.")
    async def retry_of(self, info: Info) -> Annotated[Simulation, strawberry.lazy("graph.types.simulation")] | None:
        return await find(info, self.row.retry_of) if self.row.retry_of is not None else None

    @classmethod
    def of(cls, row: models.Simulation) -> Self:
        return cls(
            id=row.id, row=row, name=row.name, state=row.state, reason=row.reason, reason_detail=row.reason_detail,
            working_directory=row.working_directory, tags=row.tags,
            resources=Requirements(
                machine_number=row.machine_id, cpus=row.cpus, memory_gib=row.memory_gib, gpus=row.gpus,
                gpu_model=row.gpu_model, labels=JSON(row.labels), machine_name=row.machine_name,
                max_price_per_hour=row.max_price_per_hour,
            ),
            priority=row.priority,
            limits=Limits(
                max_runtime_seconds=int(row.max_runtime.total_seconds()) if row.max_runtime is not None else None,
                max_cost=row.max_cost,
                max_steps=Step(row.max_steps) if row.max_steps is not None else None,
                max_retries=row.max_retries,
                retry_on=[Reason(reason) for reason in row.retry_on],
            ),
            metrics_from=row.metrics_from, metrics_patterns=row.metrics_patterns,
            tensorboard=row.tensorboard, system_metrics_seconds=row.system_metrics_seconds, attended=row.attended,
            attended_grace_seconds=int(row.attended_grace.total_seconds()) if row.attended else None,
            created_by=row.created_by, created_at=row.created_at, started_at=row.started_at,
            finished_at=row.finished_at,
        )  # fmt: skip


@strawberry.type(description="Simulations, newest first unless asked otherwise.")
class SimulationConnection:
    wanted: strawberry.Private[simulations.Filter]
    edges: list[pages.Edge[Simulation]]
    nodes: list[Simulation]
    page_info: relay.PageInfo

    @strawberry.field(description="The number of rows on all pages.")
    async def total_count(self, info: Info) -> int:
        async with info.context.sessions() as session:
            return await simulations.count_matching(session, self.wanted)


# --- queries ---------------------------------------------------------------------------------------------------


async def find(info: Info, number: int) -> Simulation | None:
    row = await info.context.loaders.simulation.load(number)
    return Simulation.of(row) if row is not None else None


async def find_attempt(info: Info, number: int) -> Attempt | None:
    found = await info.context.loaders.attempt.load(number)
    if found is None or await info.context.loaders.simulation.load(found.attempt.simulation_id) is None:
        return None
    return Attempt.of(found)


async def page(
    info: Info, wanted: simulations.Filter, order: SimulationOrder, first: int, after: str | None
) -> SimulationConnection:
    with refusals_told():
        async with info.context.sessions() as session:
            found = await simulations.page_matching(
                session,
                wanted,
                sort=Sort(order.field),
                descending=order.direction is OrderDirection.DESC,
                first=pages.size(first),
                after=after,
            )
    edges, nodes, page_info = pages.edges(found, Simulation.of)
    return SimulationConnection(wanted=wanted, edges=edges, nodes=nodes, page_info=page_info)


# --- mutations -------------------------------------------------------------------------------------------------


DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(Wanted) if each.default is not MISSING}


@strawberry.input(description="Requirements that the simulation has of its machine.")
class ResourcesInput:
    cpus: float = DEFAULTS["cpus"]
    memory_gib: float = DEFAULTS["memory_gib"]
    gpus: int = DEFAULTS["gpus"]
    gpu_model: str | None = strawberry.field(
        default=None, description="A part of the model's name, ignoring case: A100."
    )
    labels: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object: labels that the machine must have, with these values."
    )
    machine: strawberry.ID | None = strawberry.field(default=None, description="The only machine that it may run on.")
    max_price_per_hour: Decimal | None = strawberry.field(
        default=None, description="The highest price of the billed share."
    )


@strawberry.input(description="Limits on run time, cost and retries.")
class LimitsInput:
    max_runtime_seconds: int | None = strawberry.field(
        default=None, description="The longest run time of each attempt, from its start."
    )
    max_cost: Decimal | None = strawberry.field(
        default=None,
        description="The highest cost of all its attempts together, in the installation's currency. It is stopped "
        "early enough for the grace of the stop to be paid.",
    )
    max_steps: Step | None = strawberry.field(
        default=None,
        description="The number of steps that it is planned to take: a declaration for stop rules and forecasts, never "
        "enforced.",
    )
    max_retries: int = strawberry.field(
        default=DEFAULTS["max_retries"], description="The highest number of attempts after the first."
    )
    retry_on: list[Reason] = strawberry.field(
        default_factory=lambda: [Reason(each) for each in DEFAULTS["retry_on"]],
        description="The reasons after which it is retried: any of MACHINE_LOST, EXIT_CODE, LAUNCH_ERROR.",
    )


@strawberry.input(description="A simulation to create.")
class CreateSimulationInput:
    entrypoint: list[str] = strawberry.field(
        description="The argument vector, run without a shell. What it prints becomes points by `metricsFrom`."
    )
    name: str | None = strawberry.field(default=None, description="Default: derived from the entrypoint.")
    project: str = strawberry.field(
        default=projects.DEFAULT, description="The project's name; a new name creates a project."
    )
    parameters: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="An object; reaches the simulation as SIMULATION_PARAMETERS, in JSON."
    )
    environment: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="An object of strings. Only the simulation can read the values again.",
    )
    working_directory: str | None = strawberry.field(default=None, description="A directory on the machine.")
    tags: list[str] = strawberry.field(default_factory=list)
    resources: ResourcesInput = strawberry.field(default_factory=ResourcesInput)
    priority: int = strawberry.field(default=DEFAULTS["priority"], description="A higher priority is planned first.")
    limits: LimitsInput = strawberry.field(default_factory=LimitsInput)
    metrics: list[MetricInput] = strawberry.field(
        default_factory=list,
        description="Whether lower or higher is better, for metrics where the name does not imply it.",
    )
    metrics_from: MetricsFrom = strawberry.field(
        default=DEFAULTS["metrics_from"], description="Which lines of its output are points, beside those of patterns."
    )
    metrics_patterns: list[str] = strawberry.field(
        default_factory=list,
        description="Regular expressions in Python's syntax, at most 20, searched in each line: named groups are "
        "metrics, and the group `step` is the step: `epoch (?P<step>\\d+) loss=(?P<loss>\\S+)`.",
    )
    objective: ObjectiveInput | None = strawberry.field(
        default=None, description="The metric by which it is judged. Default: the metric of the first stop rule."
    )
    stopping: list[StopRuleInput] = strawberry.field(
        default_factory=list, description="Rules that stop it by its curves, at most 10; any of them does."
    )
    system_metrics_seconds: float | None = strawberry.field(
        default=None,
        description="The interval of system metrics (`system/cpu` and others), at most a day; 0: none. Default: as the "
        "installation, 10 s.",
    )
    tensorboard: list[str] = strawberry.field(
        default_factory=list,
        description="Directories whose TensorBoard event files are points too, at most 20; relative ones start at the "
        "working directory. Files below the working directory and SIMULATION_OUTPUT_DIR always are.",
    )
    attended: bool = strawberry.field(
        default=DEFAULTS["attended"],
        description="Start it only when a client subscribes to its convergence, and stop it (FINISHED, UNWATCHED) "
        "after the grace without a subscriber.",
    )
    attended_grace_seconds: int | None = strawberry.field(
        default=None,
        description="With `attended`: for how long it may be on a machine without a subscriber. 1 to 86,400; 60 if "
        "left out.",
    )
    alerts: list[str] | None = strawberry.field(
        default=None,
        description="Names of the alert targets that hear of it; an empty list: none. Default: those of its project.",
    )
    client_key: str | None = strawberry.field(
        default=None,
        description="An idempotency key of the client: equal keys in a project create one simulation.",
    )


@strawberry.input(description="The simulation to change.")
class SimulationInput:
    id: strawberry.ID


@strawberry.input(description="Limits to change. Null removes a limit; what is left out stays as it is.")
class UpdateLimitsInput:
    max_runtime_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="The longest run time of each attempt, from its start."
    )
    max_cost: Decimal | None = strawberry.field(
        default=strawberry.UNSET, description="The highest cost of all its attempts together."
    )
    max_steps: Step | None = strawberry.field(
        default=strawberry.UNSET, description="The number of steps that it is planned to take."
    )
    max_retries: int | None = strawberry.field(
        default=strawberry.UNSET, description="The highest number of attempts after the first."
    )
    retry_on: list[Reason] | None = strawberry.field(
        default=strawberry.UNSET, description="The reasons after which it is retried."
    )


@strawberry.input(description="The simulation to change, and what of it. What is left out stays as it is.")
class UpdateSimulationInput:
    id: strawberry.ID
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Its new name.")
    tags: list[str] | None = strawberry.field(default=strawberry.UNSET, description="All of its tags.")
    priority: int | None = strawberry.field(
        default=strawberry.UNSET, description="A higher priority is planned first. It matters while it is queued."
    )
    objective: ObjectiveInput | None = strawberry.field(
        default=strawberry.UNSET, description="The metric by which it is judged."
    )
    stopping: list[StopRuleInput] | None = strawberry.field(
        default=strawberry.UNSET,
        description="All of its stop rules; an empty list removes them. Only points from now on decide.",
    )
    limits: UpdateLimitsInput | None = strawberry.field(default=strawberry.UNSET, description="Limits to change.")


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
        asked |= _rules(asked)
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


def _rules(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stop rules of a new simulation, and the objective that follows from them. Raises `Invalid`."""
    rules = asked.get("stopping", ())
    stopping = resolved(
        rules,
        objective_metric=asked.get("objective_metric"),
        objective_mode=asked.get("objective_mode"),
        metric_modes=asked.get("metric_modes", {}),
        max_steps=asked.get("max_steps"),
    )
    if stopping is None:
        return {"stopping": None}
    first = stopping["rules"][0]
    mode = asked.get("objective_mode")
    return {"stopping": stopping, "objective_metric": asked.get("objective_metric") or first["metric"]} | (
        {"objective_mode": first["mode"]} if mode is None and "objective_metric" not in asked else {}
    )


async def update(info: Info, given: UpdateSimulationInput) -> SimulationPayload:
    try:
        number = number_of(given.id, "Simulation")
        asked: dict[str, Any] = {**check(SimulationChanged, given)}
        grace = timedelta(seconds=info.context.settings.stop_grace_seconds)
        async with info.context.sessions() as session, session.begin():
            row = simulations.seen(await lifecycle.lock(session, number), info.context.scope)
            changes = await _changed_rules(session, row, asked)
            row = await update_simulation.update(session, row, changes, info.context.actor, stop_grace=grace)
            return SimulationPayload(simulation=Simulation.of(row))
    except Invalid as invalid:
        return SimulationPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def _changed_rules(session: AsyncSession, row: models.Simulation, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, with the rules as a row keeps them. Raises `Invalid`."""
    rules = asked.get("stopping")
    if rules is None:
        return dict(asked)
    summaries = (await metrics.of_simulations(session, [row.id])).get(row.id, ())
    metric = asked.get("objective_metric", row.objective_metric)
    stopping = resolved(
        rules,
        objective_metric=metric,
        objective_mode=asked.get("objective_mode", row.objective_mode if metric == row.objective_metric else None),
        metric_modes=row.metric_modes,
        max_steps=asked.get("max_steps", row.max_steps),
        last_steps={each.metric: each.last_step for each in summaries},
    )
    if metric is None and stopping is not None:
        first = stopping["rules"][0]
        return {**asked, "stopping": stopping, "objective_metric": first["metric"], "objective_mode": first["mode"]}
    return {**asked, "stopping": stopping}


async def cancel(info: Info, public_id: str) -> SimulationPayload:
    try:
        number = number_of(public_id, "Simulation")
        async with info.context.sessions() as session, session.begin():
            row = await cancel_simulation(session, number, info.context.actor, scope=info.context.scope)
            return SimulationPayload(simulation=Simulation.of(row))
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def retry(info: Info, public_id: str) -> SimulationPayload:
    try:
        number = number_of(public_id, "Simulation")
        if refused := _too_many(info):
            return SimulationPayload(user_errors=[refused])
        async with info.context.sessions() as session, session.begin():
            row = await simulations.repeat(session, number, info.context.actor, scope=info.context.scope)
            return SimulationPayload(simulation=Simulation.of(row))
    except errors.Refusal as refusal:
        return SimulationPayload(user_errors=[user_error(refusal)])


async def delete(info: Info, public_id: str) -> DeleteSimulationPayload:
    try:
        number = number_of(public_id, "Simulation")
        async with info.context.sessions() as session, session.begin():
            await simulations.delete_ended(session, number, info.context.actor, scope=info.context.scope)
        return DeleteSimulationPayload(deleted_id=strawberry.ID(public_id))
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


# --- subscription ----------------------------------------------------------------------------------------------

RECENT = timedelta(minutes=10)


async def changed(info: Info, public_id: str | None, project: str | None) -> AsyncIterator[Simulation]:
    """The newest state of each simulation that changed, from now on. What was missed is read again by the client."""
    number = number_asked(public_id, "Simulation") if public_id is not None else None
    project_id = number_asked(project, "Project") if project is not None else None
    shown: dict[int, tuple[object, ...]] = {}
    live = info.context.live

    async def read(
        ids: Collection[int] | None,
    ) -> tuple[Sequence[models.Simulation], Mapping[int, Wait | None], Mapping[int, StopIntent]]:
        async with info.context.sessions() as session:
            rows = await (
                simulations.by_ids(session, ids, scope=info.context.scope)
                if ids is not None
                else simulations.recent(session, RECENT, scope=info.context.scope)
            )
            queued = [row.id for row in rows if row.state is SimulationState.QUEUED]
            waits = {key: why(each) for key, each in (await queue.waiting_of(session, queued)).items()}
            return rows, waits, await attempts.stops_of(session, [row.id for row in rows])

    with live.hub.changes(Channel.SIMULATIONS) as changes:
        while True:
            ids = await changes.next()
            if number is not None:
                ids = {number} if ids is None or number in ids else set()
            rows, waits, stops = await live.outage.patiently(partial(read, ids))
            for row in sorted(rows, key=lambda row: row.id):
                face = (row.state, row.reason, _face(waits.get(row.id)), row.attempt, stops.get(row.id), _declared(row))
                if (project_id is None or row.project_id == project_id) and shown.get(row.id) != face:
                    shown[row.id] = face
                    if len(shown) > 10_000:
                        shown.pop(next(iter(shown)))
                    yield Simulation.of(row)


def _declared(row: models.Simulation) -> tuple[object, ...]:
    """What updateSimulation and dry runs change."""
    limits = (row.max_runtime, row.max_cost, row.max_steps, row.max_retries, row.retry_on)
    return (row.name, row.tags, row.priority, row.stopping_revision, row.would_stop, limits)


def _face(wait: Wait | None) -> Hashable:
    """The fields of which a change is sent to subscribers; not the seconds that are left of a backoff."""
    return None if wait is None else (wait.reason, wait.until or wait.detail)
