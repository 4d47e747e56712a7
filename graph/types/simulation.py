"""Simulations in GraphQL: the type, and its lists."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Self

import strawberry
from strawberry import relay
from strawberry.scalars import JSON

from db import attempts, events, listing, models
from db.attempts import StopIntent
from graph.context import Info
from graph.errors import refusals_told
from graph.types import alert, curve, forecast, pages
from graph.types.alert import AlertDelivery, AlertTarget
from graph.types.attempt import Attempt
from graph.types.checkpoint import Checkpoint
from graph.types.cost import Cost
from graph.types.curve import Curve
from graph.types.dependency import Dependency
from graph.types.enums import DependencyCondition, FileKind, MetricsFrom, Reason, SimulationState, WaitingReason
from graph.types.event import Event
from graph.types.file import FileConnection, page_of_files
from graph.types.forecast import Forecast
from graph.types.log import LogConnection, page_of_log
from graph.types.metric import Metric
from graph.types.notice import Notice
from graph.types.package import Package
from graph.types.parameters import at_path
from graph.types.place import Ahead
from graph.types.project import Project
from graph.types.scalars import Step
from graph.types.source import Source
from graph.types.stopping import Objective, Stopping, known_mode
from policy.metric_mode import is_system
from policy.waiting import Wait

if TYPE_CHECKING:
    from graph.types.machine import Machine
    from graph.types.sweep import Sweep

LazySweep = Annotated["Sweep", strawberry.lazy("graph.types.sweep")]
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
    detail: str | None = strawberry.field(
        default=None, description="The decision as a sentence, where a rule or the plan made it."
    )

    @classmethod
    def of(cls, stop: StopIntent) -> Self:
        sentence = stop.evidence.get("sentence") if stop.evidence is not None else None
        return cls(reason=stop.reason, by=stop.by, at=stop.wanted_at, detail=sentence)


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


@strawberry.type(description="A training run, a solver: anything that converges.")
class Simulation(relay.Node):
    id: relay.NodeID[int]
    row: strawberry.Private[models.Simulation]
    number: int = strawberry.field(
        description="Its number in the installation, which stands for its id in any argument: `#108` or `108`."
    )
    name: str
    state: SimulationState
    reason: Reason | None = strawberry.field(description="Why it ended; null while it has not.")
    reason_detail: str | None = strawberry.field(description="The reason as a sentence, if there are details.")
    working_directory: str | None = strawberry.field(
        description="A directory on the machine; null: the attempt's own directory."
    )
    tags: list[str]
    notes: str | None = strawberry.field(description="Free text about it.")
    paused: bool = strawberry.field(description="Whether it waits in the queue to be resumed.")
    resources: Requirements
    machines: int = strawberry.field(
        description="On how many machines it runs at once; `resources` is what it needs of each."
    )
    priority: int = strawberry.field(description="A higher priority is planned first.")
    trial: int | None = strawberry.field(description="The number of the trial that it is of, in its sweep.")
    limits: Limits
    metrics_from: MetricsFrom = strawberry.field(description="Which lines of its output are points.")
    metrics_patterns: list[str] = strawberry.field(
        description="Regular expressions: where one matches a line, its named groups are points.", metadata={"size": 3}
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
    preemptible: bool = strawberry.field(
        description="Whether it may be stopped to make room for another simulation: it gets the grace of a stop for a "
        "checkpoint, goes back to the queue and uses up no retry."
    )
    created_by: str = strawberry.field(description="The user who created it, named as in `events`.")
    created_at: datetime
    started_at: datetime | None = strawberry.field(description="When its first attempt began.")
    finished_at: datetime | None = strawberry.field(description="When it reached its final state.")

    @strawberry.field(description="The argument vector, run without a shell.", metadata={"cost": 10})
    async def entrypoint(self, info: Info) -> list[str]:
        return list((await info.context.loaders.command.load(self.row.id)).entrypoint)

    @strawberry.field(
        description="The argument vector as it was given, where `{lr}` stands for a parameter; null if nothing was "
        "filled in.",
        metadata={"cost": 10},
    )
    async def entrypoint_template(self, info: Info) -> list[str] | None:
        template = (await info.context.loaders.command.load(self.row.id)).template
        return list(template) if template is not None else None

    @strawberry.field(
        description="An object; reaches the simulation as SIMULATION_PARAMETERS, in JSON. Parameters that its program "
        "recorded with MLflow or W&B are added under their own names.",
        metadata={"cost": 10},
    )
    async def parameters(self, info: Info) -> JSON:
        return JSON((await info.context.loaders.command.load(self.row.id)).parameters)

    @strawberry.field(
        description="The names of its environment variables, each with null: values can't be read.",
        metadata={"cost": 10},
    )
    async def environment(self, info: Info) -> JSON:
        return JSON(dict.fromkeys((await info.context.loaders.command.load(self.row.id)).variables))

    @strawberry.field(description="Why it has no machine yet; null if it has one, or was not planned yet.")
    async def waiting(self, info: Info) -> Waiting | None:
        if self.row.state is not SimulationState.QUEUED:
            return None
        wait = await info.context.loaders.wait.load(self.row.id)
        return Waiting.of(wait) if wait is not None else None

    @strawberry.field(description="The simulations that it runs after, oldest first.", metadata={"size": 2})
    async def after(self, info: Info) -> list[Dependency]:
        edges = await info.context.loaders.dependencies.load(self.row.id)
        return [Dependency(number=each.after_id, condition=DependencyCondition(each.condition)) for each in edges]

    @strawberry.field(description="The simulations that run after it, oldest first: at most 100.", metadata={"size": 5})
    async def dependents(self, info: Info) -> list[Dependency]:
        edges = await info.context.loaders.dependents.load(self.row.id)
        return [Dependency(number=each.simulation_id, condition=DependencyCondition(each.condition)) for each in edges]

    @strawberry.field(
        description="Its place in the queue of the whole installation by the newest plan, 1 for the first; null if it "
        "is not in the queue, or was not planned yet. A simulation that fits may overtake one that does not."
    )
    async def queue_position(self, info: Info) -> int | None:
        if self.row.state is not SimulationState.QUEUED or self.row.held:
            return None
        place = await info.context.loaders.place.load(self.row.id)
        return place.place if place is not None else None

    @strawberry.field(
        description="What is directly before it in that order, and why; null for the first, and where `queuePosition` "
        "is null."
    )
    async def ahead(self, info: Info) -> Ahead | None:
        if self.row.state is not SimulationState.QUEUED or self.row.held:
            return None
        place = await info.context.loaders.place.load(self.row.id)
        return Ahead.of(place) if place is not None else None

    @strawberry.field(
        description="When it will start at the latest if all that runs keeps its limits; null unless the newest plan "
        "has reserved room for it."
    )
    async def estimated_start(self, info: Info) -> datetime | None:
        if self.row.state is not SimulationState.QUEUED or self.row.held:
            return None
        kept = await info.context.loaders.reservation.load(self.row.id)
        return kept.at if kept is not None else None

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
        return StopWanted.of(stop) if stop is not None else None

    @strawberry.field(description="First to last.", metadata={"size": 4})
    async def attempts(self, info: Info) -> list[Attempt]:
        async with info.context.sessions() as session:
            return [Attempt.of(row) for row in await attempts.of_simulation(session, self.row.id)]

    @strawberry.field(description="Its history, oldest first: at most 1,000 events.", metadata={"size": 20})
    async def events(self, info: Info) -> list[Event]:
        async with info.context.sessions() as session:
            rows = await events.list_of(session, "Simulation", self.row.id)
        return [Event.of(row) for row in rows]

    @strawberry.field(
        description="The alert targets that it names; null: the defaults of its project.", metadata={"size": 2}
    )
    async def alert_targets(self, info: Info) -> list[AlertTarget] | None:
        if self.row.alert_target_ids is None:
            return None
        found = [await alert.find(info, number) for number in self.row.alert_target_ids]
        return [target for target in found if target is not None]

    @strawberry.field(
        description="The messages about it to alert targets, oldest first: of the last 30 days.", metadata={"size": 4}
    )
    async def alerts(self, info: Info) -> list[AlertDelivery]:
        return await alert.of_simulation(info, self.row.id)

    @strawberry.field(description="Its cost so far.")
    async def cost(self, info: Info) -> Cost:
        return Cost.of(await info.context.loaders.holdings.load(self.row.id), info.context.settings.currency)

    @strawberry.field(
        description="The metrics that it has reported, by name; with `system`, those that its supervisor measured: "
        "`system/cpu` and others, whose step is the time in seconds since 1970.",
        metadata={"size": 10},
    )
    async def metrics(self, info: Info, system: bool = False) -> list[Metric]:
        found = await info.context.loaders.metrics.load(self.row.id)
        found = [each for each in found if is_system(each.metric) == system]
        return [Metric.of(each, known_mode(self.row, each.metric)) for each in found]

    @strawberry.field(description="One metric that it has reported; null if it has not.")
    async def metric(self, info: Info, name: str) -> Metric | None:
        found = await info.context.loaders.metrics.load(self.row.id)
        return next((Metric.of(each, known_mode(self.row, name)) for each in found if each.metric == name), None)

    @strawberry.field(
        description="One of its parameters, by its name or, within objects, its path (`optimizer.lr`); null if it has "
        "none of that name.",
        metadata={"cost": 10},
    )
    async def parameter(self, info: Info, name: str) -> JSON | None:
        found = at_path((await info.context.loaders.command.load(self.row.id)).parameters, name)
        return JSON(found) if found is not None else None

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
        "empty or has gaps.",
        metadata={"size": 3},
    )
    async def notices(self, info: Info) -> list[Notice]:
        return [Notice.of(each) for each in await info.context.loaders.notices.load(self.row.id)]

    @strawberry.field(
        description="What its curve so far says about a metric, by default the objective, and about a target, by "
        "default the `stoppingThreshold` of its rule; null where that is too little, and once it has completed.",
        metadata={"cost": 20},
    )
    async def forecast(self, info: Info, metric: str | None = None, target: float | None = None) -> Forecast | None:
        return await forecast.of_simulation(info, self.row, metric, target)

    @strawberry.field(
        description="What its newest attempt ran: git commit, command, host, Python, packages; null until it is known, "
        "within seconds of the start.",
        metadata={"cost": 10},
    )
    async def source(self, info: Info) -> Source | None:
        found = await info.context.loaders.source.load(self.row.id)
        return Source.of(found) if found is not None else None

    @strawberry.field(description="The code that it starts in, as its user has packed it; null without a package.")
    async def package(self, info: Info) -> Package | None:
        if self.row.package_id is None:
            return None
        found = await info.context.loaders.package.load(self.row.package_id)
        return Package.of(self.row, found) if found is not None else None

    @strawberry.field(
        description="The runtime environment that Ray is given for it: an object; null without one. Its `env_vars` are "
        "in `environment`."
    )
    def runtime_env(self) -> JSON | None:
        return JSON(self.row.runtime_env) if self.row.runtime_env is not None else None

    @strawberry.field(
        description="Its newest checkpoint, known within seconds; null until a file is in its checkpoint directory."
    )
    async def checkpoint(self, info: Info) -> Checkpoint | None:
        found = await info.context.loaders.checkpoint.load(self.row.id)
        return Checkpoint.of(found) if found is not None else None

    @strawberry.field(
        description="The curve of a metric, with at most `maxPoints` points (1 to 100,000), chosen so that its shape, "
        "its ends, its extremes and its gaps are kept. Steps are included. To watch it live, subscribe to it.",
        metadata={"cost": 10},
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

    @strawberry.field(
        description="Its output without points, and messages of its supervisor. With `contains` it is searched: chunks "
        "that contain this text, without regard to the case of ASCII letters, and of each the lines that do. Of a "
        "simulation on several machines, the log of one rank; a cursor belongs to it."
    )
    async def logs(
        self, info: Info, first: int = 100, after: str | None = None, contains: str | None = None, rank: int = 0
    ) -> LogConnection:
        return await page_of_log(info, self.row.id, first, after, contains, rank)

    @strawberry.field(
        description="Its stored files: what its newest attempts left in SIMULATION_CHECKPOINT_DIR and "
        "SIMULATION_OUTPUT_DIR, as far as it is stored.",
        metadata={"cost": 10},
    )
    async def files(
        self, info: Info, first: int = 100, after: str | None = None, kind: FileKind | None = None
    ) -> FileConnection:
        return await page_of_files(info, self.row.id, first, after, kind)

    @strawberry.field(description="The sweep that it is a trial of; null for any other.")
    async def sweep(self, info: Info) -> LazySweep | None:
        from graph.types.sweep import find as find_sweep

        return await find_sweep(info, self.row.sweep_id) if self.row.sweep_id is not None else None

    @strawberry.field(description="The simulation that this one repeats.")
    async def retry_of(self, info: Info) -> Annotated[Simulation, strawberry.lazy("graph.types.simulation")] | None:
        return await find(info, self.row.retry_of) if self.row.retry_of is not None else None

    @classmethod
    def of(cls, row: models.Simulation) -> Self:
        return cls(
            id=row.id, row=row, number=row.id, name=row.name, state=row.state, reason=row.reason,
            reason_detail=row.reason_detail,
            working_directory=row.working_directory, tags=row.tags, notes=row.notes,
            paused=row.paused and row.state is SimulationState.QUEUED,
            resources=Requirements(
                machine_number=row.machine_id, cpus=row.cpus, memory_gib=row.memory_gib, gpus=row.gpus,
                gpu_model=row.gpu_model, labels=JSON(row.labels), machine_name=row.machine_name,
                max_price_per_hour=row.max_price_per_hour,
            ),
            machines=row.machines,
            priority=row.priority,
            trial=row.trial,
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
            preemptible=row.preemptible,
            created_by=row.created_by, created_at=row.created_at, started_at=row.started_at,
            finished_at=row.finished_at,
        )  # fmt: skip


@strawberry.type(description="Simulations, newest first unless asked otherwise.")
class SimulationConnection:
    wanted: strawberry.Private[listing.Filter]
    edges: list[pages.Edge[Simulation]]
    nodes: list[Simulation]
    page_info: relay.PageInfo

    @strawberry.field(description="The number of rows on all pages.", metadata={"cost": 10})
    async def total_count(self, info: Info) -> int:
        async with info.context.sessions() as session:
            return await listing.count_matching(session, self.wanted)


# --- queries ---------------------------------------------------------------------------------------------------


async def find(info: Info, number: int) -> Simulation | None:
    row = await info.context.loaders.simulation.load(number)
    return Simulation.of(row) if row is not None else None


async def page(
    info: Info, wanted: listing.Filter, order: listing.SortOrder, first: int, after: str | None
) -> SimulationConnection:
    with refusals_told():
        async with info.context.sessions() as session:
            found = await listing.page_matching(session, wanted, order, first=pages.size(first), after=after)
    edges, nodes, page_info = pages.edges(found, Simulation.of)
    return SimulationConnection(wanted=wanted, edges=edges, nodes=nodes, page_info=page_info)
