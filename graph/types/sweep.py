"""Sweeps in GraphQL: the type with its trials, lists, and mutations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Self

import strawberry
from strawberry import relay
from strawberry.scalars import JSON

from db import errors, events, models, sweeps
from db.sweeps import Counts
from graph.context import Info
from graph.errors import refusals_told
from graph.types import pages
from graph.types.enums import MetricMode, SweepPruning, SweepReason, SweepSampler, SweepState, SweepTrialState
from graph.types.event import Event
from graph.types.ids import number_asked
from graph.types.inputs import Invalid, SweepAsked, SweepChanged, check
from graph.types.project import Project
from graph.types.scalars import Step
from graph.types.submission import Names, too_many, with_path
from graph.types.sweep_inputs import CreateSweepInput, UpdateSweepInput, sweep_asked, wanted_sweep
from graph.types.user_errors import UserError, user_error
from policy.cost import cost_per_hour, cost_so_far
from policy.search_space import Parameter, decode
from policy.sweep import Halving, rungs
from policy.sweep_progress import seconds_left
from transitions import sweep as transitions

if TYPE_CHECKING:
    from graph.types.simulation import Simulation

LazySimulation = Annotated["Simulation", strawberry.lazy("graph.types.simulation")]


@strawberry.type(description="A parameter that a sweep searches: either `choices`, or the range from `low` to `high`.")
class SweepParameter:
    name: str
    choices: list[JSON] | None = strawberry.field(
        description="Texts, numbers and booleans, one of which is chosen.", metadata={"size": 10}
    )
    low: float | None = strawberry.field(description="The lowest value.")
    high: float | None = strawberry.field(description="The highest value, included.")
    step: float | None = strawberry.field(description="The distance of values; null: any value.")
    log: bool = strawberry.field(description="Whether the range is searched by the logarithm.")
    integer: bool = strawberry.field(description="Whether values are whole numbers.")

    @classmethod
    def of(cls, parameter: Parameter) -> Self:
        choices = [JSON(each) for each in parameter.choices] if parameter.choices is not None else None
        return cls(
            name=parameter.name, choices=choices, low=parameter.low, high=parameter.high, step=parameter.step,
            log=parameter.log, integer=parameter.integer,
        )  # fmt: skip


@strawberry.type(description="The metric whose best value is the result of a trial.")
class SweepObjective:
    metric: str
    mode: MetricMode = strawberry.field(description="Whether lower or higher is better.")


@strawberry.type(description="How trials are compared while they run.")
class SweepPruningRule:
    rule: SweepPruning = strawberry.field(description="The rule by which they are compared.")
    grace_period: Step = strawberry.field(description="The first step at which trials are compared.")
    reduction_factor: int | None = strawberry.field(
        description="With HALVING, the best one of so many trials goes on; null with MEDIAN."
    )
    rungs: list[Step] = strawberry.field(
        description="The steps at which trials are compared: the first 20.", metadata={"size": 5}
    )


@strawberry.type(description="Trials of a sweep by their state.")
class SweepCounts:
    planned: int = strawberry.field(description="How many there are to be.")
    queued: int = strawberry.field(description="Begun, and on no machine yet.")
    running: int = strawberry.field(description="With a simulation on a machine.")
    complete: int = strawberry.field(description="Ended with a result.")
    pruned: int = strawberry.field(description="Stopped, because others were better at the same step.")
    failed: int = strawberry.field(description="Ended without a result, and not cancelled.")
    cancelled: int = strawberry.field(description="Ended without a result, because they were cancelled.")

    @classmethod
    def of(cls, planned: int, counts: Counts) -> Self:
        ended = counts.by_outcome
        return cls(
            planned=planned, queued=counts.open - counts.running, running=counts.running,
            complete=ended.get("COMPLETE", 0), pruned=ended.get("PRUNED", 0), failed=ended.get("FAIL", 0),
            cancelled=ended.get("CANCELLED", 0),
        )  # fmt: skip


@strawberry.type(description="The cost of all trials of a sweep so far.")
class SweepCost:
    amount: Decimal = strawberry.field(description="The sum over all trials, up to now.")
    currency: str = strawberry.field(description="The installation's currency.")
    per_hour: Decimal = strawberry.field(description="The current cost per hour of what runs.")


@strawberry.type(description="How much a parameter matters for the best tenth of the trials.")
class ParameterImportance:
    name: str
    importance: float = strawberry.field(description="0 to 1; those of all parameters add up to 1.")


@strawberry.type(description="A set of parameters that a sweep tries, in one simulation or one for each seed.")
class SweepTrial:
    row: strawberry.Private[models.Trial]
    number: int = strawberry.field(description="Its number in the sweep, from 0.")
    parameters: JSON = strawberry.field(description="An object: the parameters that were chosen for it.")
    value: float | None = strawberry.field(
        description="The best value of the objective, with several seeds their mean; null while it runs, and if it has "
        "failed or was cancelled. Of a pruned trial: where it was stopped."
    )
    spread: float | None = strawberry.field(description="The standard deviation over its seeds; null with one.")
    step: Step | None = strawberry.field(description="The step at which it was pruned.")
    begun_at: datetime = strawberry.field(description="When its parameters were chosen.")
    ended_at: datetime | None = strawberry.field(description="When its end was recorded.")
    final_cost: Decimal | None = strawberry.field(description="What it has cost; null while it runs.")

    @strawberry.field
    def state(self) -> SweepTrialState:
        return _STATES[self.row.outcome]

    @strawberry.field(
        description="Its simulations, oldest first: with their curves, states and costs. Deleted ones are left out.",
        metadata={"size": 1},
    )
    async def simulations(self, info: Info) -> list[LazySimulation]:
        from graph.types.simulation import find as find_simulation

        numbers = await info.context.loaders.simulations_of_trial.load((self.row.sweep_id, self.row.number))
        found = [await find_simulation(info, each) for each in numbers]
        return [each for each in found if each is not None]

    @classmethod
    def of(cls, row: models.Trial) -> Self:
        return cls(
            row=row, number=row.number, parameters=JSON(row.parameters), value=row.value,
            spread=row.spread, step=Step(row.step) if row.step is not None else None, begun_at=row.begun_at,
            ended_at=row.ended_at, final_cost=row.cost,
        )  # fmt: skip


_STATES: Mapping[str | None, SweepTrialState] = {
    None: SweepTrialState.OPEN,
    "COMPLETE": SweepTrialState.COMPLETE,
    "PRUNED": SweepTrialState.PRUNED,
    "FAIL": SweepTrialState.FAILED,
    "CANCELLED": SweepTrialState.CANCELLED,
}


@strawberry.type(description="The trials of a sweep, by number.")
class SweepTrialConnection:
    edges: list[pages.Edge[SweepTrial]]
    nodes: list[SweepTrial]
    page_info: relay.PageInfo


@strawberry.type(
    description="A search for the best parameters: trials, each a simulation, whose parameters a sampler chooses."
)
class Sweep(relay.Node):
    id: relay.NodeID[int]
    row: strawberry.Private[models.Sweep]
    number: int = strawberry.field(description="Its number, which stands for its id in any argument: `#3` or `3`.")
    name: str
    state: SweepState
    reason: SweepReason | None = strawberry.field(description="Why no more trials begin; null while they do.")
    reason_detail: str | None = strawberry.field(description="The reason as a sentence.")
    sampler: SweepSampler = strawberry.field(description="What chooses the parameters of the next trial.")
    seed: int = strawberry.field(description="The seed of the sampler.")
    parameters: list[SweepParameter] = strawberry.field(description="What is searched.", metadata={"size": 5})
    objective: SweepObjective = strawberry.field(description="What its trials are judged by.")
    trials_planned: int = strawberry.field(description="How many trials there are to be.")
    parallel: int = strawberry.field(description="How many trials there are at once.")
    seeds: int = strawberry.field(description="How often each set of parameters is run.")
    max_cost: Decimal | None = strawberry.field(description="The highest cost of all its trials together.")
    patience: int | None = strawberry.field(
        description="It ends after so many trials in a row that were not better than the best one."
    )
    stopping_threshold: float | None = strawberry.field(
        description="It ends once the result of a trial reaches this value."
    )
    pruning: SweepPruningRule | None = strawberry.field(description="How trials are compared while they run.")
    entrypoint: list[str] = strawberry.field(
        description="The command of its trials, before the parameters are filled in."
    )
    max_steps: Step | None = strawberry.field(description="The number of steps that a trial is planned to take.")
    created_by: str = strawberry.field(description="The user who created it, named as in `events`.")
    created_at: datetime
    ended_at: datetime | None = strawberry.field(description="When the last of its trials had ended.")

    @strawberry.field
    async def project(self, info: Info) -> Project:
        row = await info.context.loaders.project.load(self.row.project_id)
        assert row is not None
        return Project.of(row)

    @strawberry.field(description="Its trials by state.")
    async def counts(self, info: Info) -> SweepCounts:
        return SweepCounts.of(self.row.trials, await info.context.loaders.sweep_counts.load(self.row.id))

    @strawberry.field(
        description="When it will have ended, if later trials take as long as ended ones in the mean; null before the "
        "first has ended, and once no more begin."
    )
    async def estimated_end(self, info: Info) -> datetime | None:
        if self.row.reason not in (None, "COMPLETED") or self.row.ended_at is not None:
            return None
        counts = await info.context.loaders.sweep_counts.load(self.row.id)
        left = seconds_left(transitions.limits_of(self.row), counts.ended, counts.open, counts.mean)
        return datetime.now(UTC) + timedelta(seconds=left) if left is not None else None

    @strawberry.field(description="Its complete trial with the best result so far; null without one.")
    async def best(self, info: Info) -> SweepTrial | None:
        found = await info.context.loaders.best_trial.load(self.row.id)
        return SweepTrial.of(found) if found is not None else None

    @strawberry.field(description="Its trials, by number.")
    async def trials(self, info: Info, first: int = 100, after: str | None = None) -> SweepTrialConnection:
        with refusals_told():
            async with info.context.sessions() as session:
                found = await sweeps.page_of_trials(session, self.row.id, first=pages.size(first), after=after)
        edges, nodes, page_info = pages.edges(found, SweepTrial.of)
        return SweepTrialConnection(edges=edges, nodes=nodes, page_info=page_info)

    @strawberry.field(description="One of its trials by its number; null if there is none.")
    async def trial(self, info: Info, number: int) -> SweepTrial | None:
        async with info.context.sessions() as session:
            found = await sweeps.find_trials(session, [(self.row.id, number)])
        return SweepTrial.of(found[0]) if found else None

    @strawberry.field(description="The cost of all its trials so far.", metadata={"cost": 5})
    async def cost(self, info: Info) -> SweepCost:
        ended, held = await info.context.loaders.sweep_cost.load(self.row.id)
        return SweepCost(
            amount=ended + cost_so_far(held), currency=info.context.settings.currency, per_hour=cost_per_hour(held)
        )

    @strawberry.field(
        description="How much each parameter matters for the best tenth of the trials, the most important first, by "
        "Optuna's PED-ANOVA; empty below four complete trials.",
        metadata={"cost": 20, "size": 5},
    )
    async def importances(self, info: Info) -> list[ParameterImportance]:
        found = await info.context.live.importances.of(self.row)
        ordered = sorted(found.items(), key=lambda each: -each[1])
        return [ParameterImportance(name=name, importance=importance) for name, importance in ordered]

    @strawberry.field(
        description="Its history, oldest first: CREATED, UPDATED, CANCEL_REQUESTED, ENDED.", metadata={"size": 4}
    )
    async def events(self, info: Info) -> list[Event]:
        async with info.context.sessions() as session:
            return [Event.of(row) for row in await events.list_of(session, "Sweep", int(self.id))]

    @classmethod
    def of(cls, row: models.Sweep) -> Self:
        template: Mapping[str, Any] = row.template
        pruning = transitions.pruning_of(row)
        max_steps = template.get("max_steps")
        return cls(
            id=row.id, row=row, number=row.id, name=row.name, state=_state(row),
            reason=SweepReason(row.reason) if row.reason is not None else None, reason_detail=row.reason_detail,
            sampler=SweepSampler(row.sampler), seed=row.seed,
            parameters=[SweepParameter.of(each) for each in decode(row.space)],
            objective=SweepObjective(metric=row.objective_metric, mode=MetricMode(row.objective_mode)),
            trials_planned=row.trials, parallel=row.parallel, seeds=row.seeds, max_cost=row.max_cost,
            patience=row.patience, stopping_threshold=row.target,
            pruning=SweepPruningRule(
                rule=SweepPruning.HALVING if isinstance(pruning, Halving) else SweepPruning.MEDIAN,
                grace_period=Step(pruning.grace_period or 0),
                reduction_factor=pruning.reduction_factor if isinstance(pruning, Halving) else None,
                rungs=[Step(each) for each in rungs(pruning)[:20]],
            ) if pruning is not None else None,
            entrypoint=list(template["entrypoint"]), max_steps=Step(max_steps) if max_steps is not None else None,
            created_by=row.created_by, created_at=row.created_at, ended_at=row.ended_at,
        )  # fmt: skip


def _state(row: models.Sweep) -> SweepState:
    if row.reason == SweepReason.CANCELLED:
        return SweepState.CANCELLED
    if row.ended_at is None:
        return SweepState.RUNNING
    return SweepState.FAILED if row.reason == SweepReason.TRIALS_FAILED else SweepState.FINISHED


@strawberry.type(description="Sweeps, newest first.")
class SweepConnection:
    edges: list[pages.Edge[Sweep]]
    nodes: list[Sweep]
    page_info: relay.PageInfo


# --- queries ---------------------------------------------------------------------------------------------------


async def find(info: Info, number: int) -> Sweep | None:
    row = await info.context.loaders.sweep.load(number)
    return Sweep.of(row) if row is not None else None


async def asked_for(info: Info, reference: str) -> Sweep | None:
    """Find a sweep by its id, number or name."""
    with refusals_told():
        async with info.context.sessions() as session:
            number = await sweeps.resolve(session, reference, scope=info.context.scope)
    return await find(info, number)


async def page(info: Info, project: str | None, active: bool | None, first: int, after: str | None) -> SweepConnection:
    number = number_asked(project, "Project") if project is not None else None
    with refusals_told():
        async with info.context.sessions() as session:
            found = await sweeps.page_matching(
                session, project_id=number, active=active, first=pages.size(first), after=after,
                scope=info.context.scope,
            )  # fmt: skip
    edges, nodes, page_info = pages.edges(found, Sweep.of)
    return SweepConnection(edges=edges, nodes=nodes, page_info=page_info)


# --- mutations -------------------------------------------------------------------------------------------------


@strawberry.type(description="The sweep, or errors.")
class SweepPayload:
    sweep: Sweep | None = strawberry.field(default=None, description="Its new state.")
    user_errors: list[UserError] = strawberry.field(default_factory=list)


async def create(info: Info, given: CreateSweepInput) -> SweepPayload:
    try:
        asked: dict[str, Any] = {**check(SweepAsked, given)}
        if refused := too_many(info):
            return SweepPayload(user_errors=[refused])
        template, values = sweep_asked(asked)
        async with info.context.sessions() as session, session.begin():
            submission = await Names(info, session).submission(template, path="simulation.")
            name = asked.get("name")
            row = await sweeps.create(
                session, wanted_sweep(submission.wanted, name or submission.wanted.name, values), info.context.actor,
                client_key=asked.get("client_key"), given_seed="seed" in asked,
                trials_named=None if asked["simulation"].get("name") else name,
            )  # fmt: skip
            return SweepPayload(sweep=Sweep.of(row))
    except Invalid as invalid:
        return SweepPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SweepPayload(user_errors=[with_path(user_error(refusal))])


async def update(info: Info, given: UpdateSweepInput) -> SweepPayload:
    try:
        asked: dict[str, Any] = {**check(SweepChanged, given)}
        reference = asked.pop("id")
        async with info.context.sessions() as session, session.begin():
            number = await sweeps.resolve(session, reference, scope=info.context.scope)
            row = await transitions.extend(session, number, asked, info.context.actor, scope=info.context.scope)
            return SweepPayload(sweep=Sweep.of(row))
    except Invalid as invalid:
        return SweepPayload(user_errors=invalid.errors)
    except errors.Refusal as refusal:
        return SweepPayload(user_errors=[user_error(refusal)])


async def cancel(info: Info, reference: str) -> SweepPayload:
    try:
        async with info.context.sessions() as session, session.begin():
            number = await sweeps.resolve(session, reference, scope=info.context.scope)
            row = await transitions.cancel(session, number, info.context.actor, scope=info.context.scope)
            return SweepPayload(sweep=Sweep.of(row))
    except errors.Refusal as refusal:
        return SweepPayload(user_errors=[user_error(refusal)])
