"""The GraphQL schema: Query, Mutation and Subscription. Their fields are in the modules of `graph.types`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeAlias

import strawberry
import structlog
from graphql import FieldNode, GraphQLError, OperationType, get_operation_ast, introspection_from_schema
from strawberry import relay
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext as Operation
from strawberry.types.execution import ExecutionResult
from strawberry.types.graphql import OperationType as AllowedType

from db import machines as db_machines
from db.public_ids import decode
from graph.context import Info
from graph.errors import BadInput, is_unexpected, masked, unavailable
from graph.live.shared_execution import ExecutionContext, observed
from graph.operation.documents import Documents, Judgement
from graph.operation.introspection import hide_suggestion, may_introspect
from graph.operation.limits import Limits
from graph.operation.permissions import guard
from graph.types import alert as of_alert
from graph.types import attempt as of_attempt
from graph.types import budget as of_budget
from graph.types import convergence as of_convergence
from graph.types import costs as of_costs
from graph.types import curve as of_curve
from graph.types import log as of_log
from graph.types import machine as of_machine
from graph.types import names as of_names
from graph.types import overview as of_overview
from graph.types import plan as of_plan
from graph.types import project as of_project
from graph.types import simulation as of_simulation
from graph.types import simulation_changes, simulation_mutations
from graph.types import submission as of_submission
from graph.types import supervision as of_supervisors
from graph.types import sweep as of_sweep
from graph.types import token as of_token
from graph.types.alert import (
    AlertTargetConnection,
    AlertTargetInput,
    CreateAlertTargetInput,
    CreateAlertTargetPayload,
    DeleteAlertTargetPayload,
    TestAlertTargetPayload,
    UpdateAlertTargetInput,
    UpdateAlertTargetPayload,
)
from graph.types.budget import (
    Budget,
    BudgetConnection,
    BudgetInput,
    BudgetPayload,
    CreateBudgetInput,
    DeleteBudgetPayload,
    UpdateBudgetInput,
)
from graph.types.convergence import ConvergenceEvent
from graph.types.costs import Costs
from graph.types.curve import SimulationCurve
from graph.types.enums import CostGroup, MachineState, OrderDirection, SimulationState
from graph.types.ids import number_asked, simulation_asked
from graph.types.listing import SimulationFilter, SimulationOrder, filter_of, order_of
from graph.types.log import LogChunk
from graph.types.machine import (
    CreateMachineInput,
    DeleteMachinePayload,
    DrainMachineInput,
    Machine,
    MachineConnection,
    MachineInput,
    MachinePayload,
    UpdateMachineInput,
)
from graph.types.names import Names
from graph.types.overview import Overview
from graph.types.plan import Plan
from graph.types.project import Project, ProjectConnection, ProjectPayload, UpdateProjectInput
from graph.types.scalars import DECIMAL, POINT_COLUMNS, STEP, PointColumns, Step
from graph.types.simulation import Simulation, SimulationConnection
from graph.types.simulation_inputs import (
    CreateSimulationInput,
    CreateSimulationsInput,
    ForkSimulationInput,
    SimulationInput,
    UpdateSimulationInput,
)
from graph.types.simulation_mutations import CreateSimulationsPayload, DeleteSimulationPayload, SimulationPayload
from graph.types.supervision import HelloAttemptInput, HelloAttemptPayload, ReportAttemptInput, ReportAttemptPayload
from graph.types.supervisor_documents import RESOLVERS, ShortWay
from graph.types.sweep import Sweep, SweepConnection, SweepPayload
from graph.types.sweep_inputs import CreateSweepInput, SweepInput, UpdateSweepInput
from graph.types.token import (
    CreateTokenInput,
    CreateTokenPayload,
    Token,
    TokenConnection,
    TokenInput,
    TokenPayload,
    Viewer,
)

logger = structlog.get_logger()


Find: TypeAlias = Callable[[Info, int], Awaitable[relay.Node | None]]
FINDERS: Mapping[str, Find] = {
    "Simulation": of_simulation.find,
    "Attempt": of_attempt.find,
    "Machine": of_machine.find,
    "Project": of_project.find,
    "Token": of_token.find,
    "Budget": of_budget.find,
    "Sweep": of_sweep.find,
    "AlertTarget": of_alert.find,
    "AlertDelivery": of_alert.find_delivery,
}


async def _nodes(info: Info, public_ids: list[strawberry.ID]) -> list[relay.Node | None]:
    """Find them side by side, so that they cost a query per type."""
    try:
        wanted = [decode(public_id) for public_id in public_ids]
    except ValueError:
        raise BadInput("An id is malformed: pass ids as this service gave them out.") from None
    return await asyncio.gather(*(FINDERS.get(type_name, _nothing)(info, number) for type_name, number in wanted))


async def _nothing(_info: Info, _number: int) -> None:
    return None


@strawberry.type(description="The root of all queries. Lists have pages: `first` rows `after` a cursor.")
class Query:
    @strawberry.field(description="An object by its id; null if there is none.")
    async def node(self, info: Info, id: strawberry.ID) -> relay.Node | None:
        return (await _nodes(info, [id]))[0]

    @strawberry.field(description="Up to 500 objects by their ids, in that order.")
    async def nodes(self, info: Info, ids: list[strawberry.ID]) -> list[relay.Node | None]:
        if len(ids) > 500:
            raise BadInput(f"At most 500 ids at once, got {len(ids)}.")
        return await _nodes(info, ids)

    @strawberry.field(
        description="One simulation by its id, null if there is none; or by its number (`108`, `#108`), its name, or a "
        "beginning that only one name has. So it is wherever the id of a simulation is an argument."
    )
    async def simulation(self, info: Info, id: strawberry.ID) -> Simulation | None:
        return await of_simulation.find(info, await simulation_asked(info, id))

    @strawberry.field(
        description="The curves of a metric of up to 500 simulations, by their ids (or what stands for one, see "
        "`simulation`): of each at most `maxPoints` points (1 to 100,000), chosen as in `Simulation.convergence`, and "
        "at most 200,000 of all. Steps are included. Ids of simulations that there are not are left out. To go on "
        "live, pass each cursor to the subscription `convergence`."
    )
    async def curves(
        self,
        info: Info,
        ids: list[strawberry.ID],
        metric: str,
        from_step: Step | None = None,
        to_step: Step | None = None,
        max_points: int = 1000,
    ) -> list[SimulationCurve]:
        return await of_curve.of_simulations(info, ids, metric, from_step, to_step, max_points)

    @strawberry.field(
        description="Filters are combined with AND; without filters, all.",
        # Searching and ranking look at more rows than are returned.
        metadata={"argument_costs": {"filter": 10, "orderBy": 10}},
    )
    async def simulations(
        self,
        info: Info,
        first: int = 50,
        after: str | None = None,
        states: list[SimulationState] | None = None,
        project: strawberry.ID | None = None,
        machine: strawberry.ID | None = None,
        name_contains: str | None = None,
        tag: str | None = None,
        filter: SimulationFilter | None = None,
        order_by: SimulationOrder | None = None,
    ) -> SimulationConnection:
        wanted = await filter_of(
            info,
            filter,
            states=tuple(states) if states is not None else None,
            project_id=number_asked(project, "Project") if project is not None else None,
            machine_id=number_asked(machine, "Machine") if machine is not None else None,
            name_contains=_searchable(name_contains),
            tag=_searchable(tag),
        )
        return await of_simulation.page(info, wanted, await order_of(info, order_by), first, after)

    @strawberry.field(
        description="Names of metrics and parameters that simulations have, for forms: the first 200 of each that "
        "contain a text, ignoring case.",
        metadata={"cost": 100},
    )
    async def names(self, info: Info, contains: str = "") -> Names:
        return await of_names.read(info, _searchable(contains) or "")

    @strawberry.field(
        description="One sweep by its id, null if there is none; or by its number (`3`, `#3`), its name, or a "
        "beginning that only one name has. So it is wherever the id of a sweep is an argument."
    )
    async def sweep(self, info: Info, id: strawberry.ID) -> Sweep | None:
        return await of_sweep.asked_for(info, id)

    @strawberry.field(
        description="Sweeps, newest first. `active`: only those that have not ended, or only those that have."
    )
    async def sweeps(
        self,
        info: Info,
        first: int = 50,
        after: str | None = None,
        project: strawberry.ID | None = None,
        active: bool | None = None,
    ) -> SweepConnection:
        return await of_sweep.page(info, project, active, first, after)

    @strawberry.field(description="Simulations that have not ended, and their cost, of one project or of all.")
    async def overview(self, info: Info, project: strawberry.ID | None = None) -> Overview:
        return await of_overview.read(info, project)

    @strawberry.field(description="The newest plan: machines, what runs on them, and what is reserved until when.")
    async def plan(self, info: Info) -> Plan:
        return await of_plan.read(info)

    @strawberry.field(description="One object by its id; null if there is none.")
    async def machine(self, info: Info, id: strawberry.ID) -> Machine | None:
        return await of_machine.find(info, number_asked(id, "Machine"))

    @strawberry.field(description="Sorted by name. Filters are combined with AND; without filters, all.")
    async def machines(
        self,
        info: Info,
        first: int = 50,
        after: str | None = None,
        states: list[MachineState] | None = None,
        engine: str | None = None,
        name_contains: str | None = None,
        direction: OrderDirection = OrderDirection.ASC,
    ) -> MachineConnection:
        wanted = db_machines.Filter(
            states=tuple(states) if states is not None else None,
            engine=_searchable(engine),
            name_contains=_searchable(name_contains),
        )
        return await of_machine.page(
            info, wanted, descending=direction is OrderDirection.DESC, first=first, after=after
        )

    @strawberry.field(description="One object by its id; null if there is none.")
    async def project(self, info: Info, id: strawberry.ID) -> Project | None:
        return await of_project.find(info, number_asked(id, "Project"))

    @strawberry.field(description="Sorted by name.")
    async def projects(self, info: Info, first: int = 50, after: str | None = None) -> ProjectConnection:
        return await of_project.page(info, first, after)

    @strawberry.field(description="One object by its id; null if there is none.")
    async def budget(self, info: Info, id: strawberry.ID) -> Budget | None:
        return await of_budget.find(info, number_asked(id, "Budget"))

    @strawberry.field(description="Oldest first. The installation's are for viewers of all projects.")
    async def budgets(
        self, info: Info, first: int = 50, after: str | None = None, project: strawberry.ID | None = None
    ) -> BudgetConnection:
        return await of_budget.page(info, project, first, after)

    @strawberry.field(
        description="Where the money went from one time to another; by default all that was ever spent. What was "
        "billed within that time counts, also of attempts that began before it.",
        metadata={"cost": 100},
    )
    async def costs(
        self,
        info: Info,
        group_by: list[CostGroup] | None = None,
        since: Annotated[datetime | None, strawberry.argument(name="from")] = None,
        to: datetime | None = None,
        project: strawberry.ID | None = None,
    ) -> Costs:
        return await of_costs.read(info, group_by or [], since, to, project)

    @strawberry.field(description="The author of this request, and their permissions.")
    async def viewer(self, info: Info) -> Viewer:
        return of_token.viewer(info)

    @strawberry.field(description="All tokens, including revoked ones, newest first.")
    async def tokens(self, info: Info, first: int = 50, after: str | None = None) -> TokenConnection:
        return await of_token.page(info, first, after)

    @strawberry.field(description="The alert targets that the viewer's projects may use, by name.")
    async def alert_targets(self, info: Info, first: int = 50, after: str | None = None) -> AlertTargetConnection:
        return await of_alert.page(info, first, after)


@strawberry.type(
    description="The root of all mutations. A payload without userErrors means success; with them, nothing changed."
)
class Mutation:
    @strawberry.mutation(description="Queue a simulation.")
    async def create_simulation(self, info: Info, input: CreateSimulationInput) -> SimulationPayload:
        return await of_submission.create(info, input)

    @strawberry.mutation(
        description="Queue up to 1,000 simulations at once, also some after others: all of them, or none."
    )
    async def create_simulations(self, info: Info, input: CreateSimulationsInput) -> CreateSimulationsPayload:
        return await of_submission.create_all(info, input)

    @strawberry.mutation(
        description="Change the name, tags, notes, priority, objective, stop rules and limits of a simulation, also "
        "while it runs. Idempotent."
    )
    async def update_simulation(self, info: Info, input: UpdateSimulationInput) -> SimulationPayload:
        return await simulation_mutations.update(info, input)

    @strawberry.mutation(
        description="Cancel a simulation: a queued one at once, a running one by a stop request. Idempotent."
    )
    async def cancel_simulation(self, info: Info, input: SimulationInput) -> SimulationPayload:
        return await simulation_mutations.cancel(info, input.id)

    @strawberry.mutation(description="Repeat an ended simulation as a new one, with `retryOf`.")
    async def retry_simulation(self, info: Info, input: SimulationInput) -> SimulationPayload:
        return await of_submission.retry(info, input.id)

    @strawberry.mutation(
        description="Repeat a simulation with changes, as a new one with `retryOf`. The old one may still run; its "
        "environment is taken over."
    )
    async def fork_simulation(self, info: Info, input: ForkSimulationInput) -> SimulationPayload:
        return await of_submission.fork(info, input)

    @strawberry.mutation(
        description="Pause a simulation that waits in the queue: it is not planned until it is resumed. Idempotent."
    )
    async def pause_simulation(self, info: Info, input: SimulationInput) -> SimulationPayload:
        return await simulation_mutations.pause(info, input.id)

    @strawberry.mutation(description="Resume a paused simulation. Idempotent.")
    async def resume_simulation(self, info: Info, input: SimulationInput) -> SimulationPayload:
        return await simulation_mutations.resume(info, input.id)

    @strawberry.mutation(
        description="Delete an ended simulation with its curve, log, checkpoints and files. Its events stay."
    )
    async def delete_simulation(self, info: Info, input: SimulationInput) -> DeleteSimulationPayload:
        return await simulation_mutations.delete(info, input.id)

    @strawberry.mutation(
        description="Create a sweep: a search for the best parameters, each trial of which is a simulation."
    )
    async def create_sweep(self, info: Info, input: CreateSweepInput) -> SweepPayload:
        return await of_sweep.create(info, input)

    @strawberry.mutation(
        description="Change how many trials a sweep has, how many at once, what they may cost, and its patience. "
        "Idempotent."
    )
    async def update_sweep(self, info: Info, input: UpdateSweepInput) -> SweepPayload:
        return await of_sweep.update(info, input)

    @strawberry.mutation(
        description="Cancel a sweep: no more trials begin, and those that have not ended are cancelled. Idempotent."
    )
    async def cancel_sweep(self, info: Info, input: SweepInput) -> SweepPayload:
        return await of_sweep.cancel(info, input.id)

    @strawberry.mutation(description="Create a machine from a part of a scheduler's host.")
    async def create_machine(self, info: Info, input: CreateMachineInput) -> MachinePayload:
        return await of_machine.create(info, input)

    @strawberry.mutation(description="Change a machine that createMachine made.")
    async def update_machine(self, info: Info, input: UpdateMachineInput) -> MachinePayload:
        return await of_machine.update(info, input)

    @strawberry.mutation(
        description="Assign no new attempts to a machine; running ones continue, or return to the queue at a deadline. "
        "Idempotent; a second call changes the deadline."
    )
    async def drain_machine(self, info: Info, input: DrainMachineInput) -> MachinePayload:
        return await of_machine.drain(info, input)

    @strawberry.mutation(description="Assign attempts to a drained machine again.")
    async def resume_machine(self, info: Info, input: MachineInput) -> MachinePayload:
        return await of_machine.resume(info, input.id)

    @strawberry.mutation(
        description="Delete a machine on which nothing runs. A machine that its engine finds is created again."
    )
    async def delete_machine(self, info: Info, input: MachineInput) -> DeleteMachinePayload:
        return await of_machine.delete(info, input.id)

    @strawberry.mutation(description="Change the weight and the quota of a project.")
    async def update_project(self, info: Info, input: UpdateProjectInput) -> ProjectPayload:
        return await of_project.update(info, input)

    @strawberry.mutation(description="Create a budget of a project, or of the whole installation.")
    async def create_budget(self, info: Info, input: CreateBudgetInput) -> BudgetPayload:
        return await of_budget.create(info, input)

    @strawberry.mutation(description="Change a budget's amount.")
    async def update_budget(self, info: Info, input: UpdateBudgetInput) -> BudgetPayload:
        return await of_budget.update(info, input)

    @strawberry.mutation(description="Delete a budget: nothing waits or is stopped for it any longer.")
    async def delete_budget(self, info: Info, input: BudgetInput) -> DeleteBudgetPayload:
        return await of_budget.delete(info, input.id)

    @strawberry.mutation(description="Create an API token.")
    async def create_token(self, info: Info, input: CreateTokenInput) -> CreateTokenPayload:
        return await of_token.create(info, input)

    @strawberry.mutation(description="Revoke a token, and close the connections that were opened with it.")
    async def revoke_token(self, info: Info, input: TokenInput) -> TokenPayload:
        return await of_token.revoke(info, input.id)

    @strawberry.mutation(description="Create a receiver of alerts: a signed webhook, or a service of Apprise.")
    async def create_alert_target(self, info: Info, input: CreateAlertTargetInput) -> CreateAlertTargetPayload:
        return await of_alert.create(info, input)

    @strawberry.mutation(description="Change an alert target.")
    async def update_alert_target(self, info: Info, input: UpdateAlertTargetInput) -> UpdateAlertTargetPayload:
        return await of_alert.update(info, input)

    @strawberry.mutation(
        description="Send a test message to an alert target. If it is accepted, what failed before is sent again "
        "at once."
    )
    async def test_alert_target(self, info: Info, input: AlertTargetInput) -> TestAlertTargetPayload:
        return await of_alert.test(info, input.id)

    @strawberry.mutation(description="Delete an alert target with its messages, also those that were not sent yet.")
    async def delete_alert_target(self, info: Info, input: AlertTargetInput) -> DeleteAlertTargetPayload:
        return await of_alert.delete(info, input.id)

    @strawberry.mutation(description="For supervisors: the first request of an attempt, answered with the work order.")
    async def hello_attempt(self, info: Info, input: HelloAttemptInput) -> HelloAttemptPayload:
        return await of_supervisors.hello(info.context, input)

    @strawberry.mutation(description="For supervisors: points, log and exit, or a heartbeat.")
    async def report_attempt(self, info: Info, input: ReportAttemptInput) -> ReportAttemptPayload:
        return await of_supervisors.report(info.context, input)


@strawberry.type(description="The root of all subscriptions.")
class Subscription:
    @strawberry.subscription(
        description="The curve of a simulation: the past behind the cursor, then live, to the end; then it completes. "
        "With `maxPoints` (1 to 100,000) and no cursor the past comes first, with at most so many points of each "
        "metric, in one event per attempt; what is new comes in full."
    )
    def convergence(  # returns the generator itself: one more layer would cost each delivery
        self,
        info: Info,
        simulation_id: strawberry.ID,
        metrics: list[str] | None = None,
        after: str | None = None,
        max_points: int | None = None,
    ) -> AsyncIterator[ConvergenceEvent]:
        after = info.context.resume_after or after
        return observed(of_convergence.follow(info, simulation_id, metrics, after, max_points))

    @strawberry.subscription(
        description="The log of a simulation: the past behind the cursor, then live, to the end. Of a simulation on "
        "several machines, of one rank; a cursor belongs to it."
    )
    def logs(
        self, info: Info, simulation_id: strawberry.ID, after: str | None = None, rank: int = 0
    ) -> AsyncIterator[LogChunk]:
        return observed(of_log.follow(info, simulation_id, info.context.resume_after or after, rank))

    @strawberry.subscription(
        description="The newest state of each simulation that changes. Refetch lists after a reconnect."
    )
    async def simulation_changed(
        self, info: Info, id: strawberry.ID | None = None, project: strawberry.ID | None = None
    ) -> AsyncIterator[Simulation]:
        async for changed in simulation_changes.changed(info, id, project):
            yield changed

    @strawberry.subscription(
        description="The newest state of each machine that changes. Refetch lists after a reconnect."
    )
    async def machine_changed(self, info: Info, id: strawberry.ID | None = None) -> AsyncIterator[Machine]:
        async for changed in of_machine.changed(info, id):
            yield changed


def _searchable(text: str | None) -> str | None:
    if text is not None and ("\0" in text or len(text) > 200):
        raise BadInput("A search has at most 200 characters, none of them NUL.")
    return text


class Schema(strawberry.Schema):
    """Strawberry's schema, with the one door that every error passes on its way out, whatever raised it and when.

    Supervisors' requests take a short way through it (types/supervisor_documents.py).
    """

    documents: Documents
    _short_ways: dict[str, ShortWay]

    async def execute(
        self,
        query: str | None,
        variable_values: dict[str, Any] | None = None,
        context_value: Any | None = None,
        root_value: Any | None = None,
        operation_name: str | None = None,
        allowed_operation_types: Iterable[AllowedType] | None = None,
        operation_extensions: dict[str, Any] | None = None,
    ) -> ExecutionResult:
        """Execute a query or a mutation."""
        if query in RESOLVERS and operation_name is None and AllowedType.MUTATION in (allowed_operation_types or ()):
            assert query is not None
            result = await self._shortly(query, variable_values, context_value)
            if result is not None:
                return result
        return await super().execute(
            query, variable_values, context_value, root_value, operation_name, allowed_operation_types,
            operation_extensions,
        )  # fmt: skip

    async def _shortly(self, text: str, variables: object, context: Any) -> ExecutionResult | None:
        """Execute a document of supervisors; None, and nothing was done, if it has to take the long way."""
        judged = self.documents.find(text)
        if judged is None:
            return None
        way = self._short_ways.get(text)
        if way is None:
            way = self._short_ways[text] = ShortWay(self._schema, self.config, text, judged)
        cost = judged.costs.get(way.operation_name)
        if cost is None or cost > self.documents.limits.cost:
            return None
        done = await way.execute(variables, context)
        if done is None:
            return None
        extensions = {"cost": {"requested": cost, "maximum": self.documents.limits.cost}}
        if not isinstance(done, GraphQLError):
            return ExecutionResult(data=done, errors=None, extensions=extensions)
        errors = [done]
        self._judge(errors, context, way.operation_name, in_doubt=False)
        return ExecutionResult(data=None, errors=errors, extensions=extensions)

    def introspect(self) -> dict[str, Any]:
        """The whole schema, without the executor, which waits between pieces of long lists (live/turns.py)."""
        return dict(introspection_from_schema(self._schema))

    def process_errors(self, errors: list[GraphQLError], execution_context: Operation | None = None) -> None:
        """Log a defect once and put the mask in its place; name an outage; give strangers no hints."""
        context = execution_context.context if execution_context is not None else None
        name = execution_context.operation_name if execution_context is not None else None
        self._judge(errors, context, name, in_doubt=_does_several(execution_context))

    def _judge(self, errors: list[GraphQLError], context: Any, operation_name: str | None, *, in_doubt: bool) -> None:
        for position, error in enumerate(errors):
            if (away := unavailable(error, in_doubt=in_doubt)) is not None:
                errors[position] = away
            elif is_unexpected(error):
                logger.error(
                    "resolver_failed",
                    path=error.path,
                    operation=operation_name,
                    exc_info=error.original_error or error,
                )
                errors[position] = masked(error)
            elif not may_introspect(context):
                hide_suggestion(error)


def _does_several(operation: Operation | None) -> bool:
    """True for a mutation of several fields: some may have succeeded before another failed."""
    if operation is None or operation.graphql_document is None:
        return False
    node = get_operation_ast(operation.graphql_document, operation.operation_name)
    if node is None or node.operation is not OperationType.MUTATION:
        return False
    fields = node.selection_set.selections
    return len(fields) > 1 or not isinstance(fields[0], FieldNode)


def build_schema(limits: Limits | None = None) -> Schema:
    """Build the schema; it may be shared. Every operation of it asks `graph.operation.permissions` first.

    limits: of each operation. All it keeps is the documents that it was asked for last.
    """
    documents = Documents(limits or Limits())
    schema = Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[Simulation, Machine, Project, Token, Budget, Sweep],
        extensions=[partial(Judgement, documents)],
        execution_context_class=ExecutionContext,
        config=StrawberryConfig(scalar_map={Step: STEP, PointColumns: POINT_COLUMNS, Decimal: DECIMAL}),
    )
    schema.documents, schema._short_ways = documents, {}
    guard(schema._schema)
    return schema
