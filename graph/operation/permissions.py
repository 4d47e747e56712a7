"""Permissions: one table of all operations and the role that each one needs. Nothing else decides about roles.

`guard` puts a check before every root field when the schema is built; a root field that the table does not name keeps
the schema from being built. Fields below need no check: roles are for operations, and what a viewer sees ends at its
projects (`Viewer.projects`), which every reader of rows is given as its `scope`. A subscription lives long, so the
object that it is about is looked up here, before its generator begins.

Fails with `Unauthenticated` without a viewer, and with `Forbidden` for a viewer that lacks the role or the projects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import isawaitable
from typing import Any

from graphql import GraphQLField, GraphQLNonNull, GraphQLResolveInfo, GraphQLSchema

from db import projects, public_ids, simulations
from db.states import Role
from graph.auth.viewer import Viewer
from graph.context import Context
from graph.errors import Forbidden, NotFound, Unauthenticated


@dataclass(frozen=True, slots=True)
class Rule:
    """The requirement of an operation. role: the lowest that is allowed; None: the token of an attempt."""

    role: Role | None
    everywhere: bool = False  # it is about the whole installation: not for viewers of some projects only


READ = Rule(Role.VIEWER)
RUN = Rule(Role.OPERATOR)
READ_EVERYWHERE = Rule(Role.VIEWER, everywhere=True)
OPERATE = Rule(Role.OPERATOR, everywhere=True)
ADMINISTER = Rule(Role.ADMIN, everywhere=True)
ATTEMPT = Rule(None)

TABLE: Mapping[str, Rule] = {
    "Query.node": READ,
    "Query.nodes": READ,
    "Query.simulation": READ,
    "Query.simulations": READ,
    "Query.names": READ,
    "Query.curves": READ,
    "Query.overview": READ,
    "Query.plan": READ,
    "Query.sweep": READ,
    "Query.sweeps": READ,
    "Query.machine": READ,  # machines are everybody's: their names, sizes and prices, not what others run on them
    "Query.machines": READ,
    "Query.project": READ,
    "Query.projects": READ,
    "Query.budget": READ,
    "Query.budgets": READ,
    "Query.costs": READ,
    "Query.viewer": READ,
    "Query.tokens": ADMINISTER,
    "Query.alertTargets": READ,  # their names, to submit with; a field of its own asks for more
    "Mutation.createSimulation": RUN,
    "Mutation.createSimulations": RUN,
    "Mutation.updateSimulation": RUN,
    "Mutation.pauseSimulation": RUN,
    "Mutation.resumeSimulation": RUN,
    "Mutation.cancelSimulation": RUN,
    "Mutation.retrySimulation": RUN,
    "Mutation.forkSimulation": RUN,
    "Mutation.deleteSimulation": RUN,
    "Mutation.createSweep": RUN,
    "Mutation.updateSweep": RUN,
    "Mutation.cancelSweep": RUN,
    "Mutation.createMachine": ADMINISTER,
    "Mutation.updateMachine": ADMINISTER,
    "Mutation.drainMachine": OPERATE,
    "Mutation.resumeMachine": OPERATE,
    "Mutation.deleteMachine": ADMINISTER,
    "Mutation.updateProject": ADMINISTER,
    "Mutation.createBudget": ADMINISTER,
    "Mutation.updateBudget": ADMINISTER,
    "Mutation.deleteBudget": ADMINISTER,
    "Mutation.createToken": ADMINISTER,
    "Mutation.revokeToken": ADMINISTER,
    "Mutation.createAlertTarget": ADMINISTER,
    "Mutation.updateAlertTarget": ADMINISTER,
    "Mutation.testAlertTarget": ADMINISTER,
    "Mutation.deleteAlertTarget": ADMINISTER,
    "Mutation.helloAttempt": ATTEMPT,
    "Mutation.reportAttempt": ATTEMPT,
    "Subscription.convergence": READ,
    "Subscription.logs": READ,
    "Subscription.simulationChanged": READ,
    "Subscription.machineChanged": READ,
}


def may(viewer: Viewer, operation: str) -> bool:
    """True if the viewer may use `Type.field`. Fields that the table does not name are forbidden."""
    rule = TABLE.get(operation)
    return rule is not None and _refusal(viewer, rule) is None


def operations_of(viewer: Viewer) -> list[str]:
    """The names of the root fields that the viewer may use, in the table's order."""
    return [operation.partition(".")[2] for operation in TABLE if may(viewer, operation)]


def require(viewer: Viewer, rule: Rule) -> None:
    """Raise `Unauthenticated` or `Forbidden` unless the viewer has what the rule asks for."""
    refusal = _refusal(viewer, rule)
    if refusal is not None:
        raise refusal


def _refusal(viewer: Viewer, rule: Rule) -> Forbidden | Unauthenticated | None:
    if rule.role is None:
        if viewer.token_id is not None:
            return Forbidden("This is for supervisors, with the token of their attempt.")
        return None  # whose token it is, is judged with the attempt itself
    if viewer.role is None:
        return Unauthenticated("This needs an API token, sent as a bearer; an attempt's token is for its reports only.")
    if viewer.role.rank < rule.role.rank:
        return Forbidden(f"This needs the role {rule.role}; {viewer.name} is {viewer.role}.")
    if rule.everywhere and viewer.projects is not None:
        return Forbidden(f"This concerns the whole installation; {viewer.name} is for some projects only.")
    return None


# --- the check before every root field -------------------------------------------------------------------------


def guard(schema: GraphQLSchema) -> None:
    """Put the table before the resolvers. Raises `LookupError` if it and the schema do not name the same fields."""
    fields = dict(root_fields(schema))
    if fields.keys() != TABLE.keys():
        raise LookupError(
            f"graph/operation/permissions.py and the schema disagree about {sorted(fields.keys() ^ TABLE.keys())}"
        )
    for name, field in fields.items():
        rule = TABLE[name]
        if name.startswith("Subscription."):
            field.subscribe = _guarded_stream(rule, field)
        else:
            assert field.resolve is not None
            guarded = _guarded_change if name.startswith("Mutation.") and rule is not ATTEMPT else _guarded
            field.resolve = guarded(rule, field.resolve)


def root_fields(schema: GraphQLSchema) -> Iterator[tuple[str, GraphQLField]]:
    """Every field of Query, Mutation and Subscription, as (`Type.field`, field)."""
    for kind in (schema.query_type, schema.mutation_type, schema.subscription_type):
        if kind is not None:
            yield from ((f"{kind.name}.{name}", field) for name, field in kind.fields.items())


def _check(info: GraphQLResolveInfo[Any], rule: Rule) -> Context:
    context: Context = info.context
    require(context.viewer, rule)
    return context


def _guarded(rule: Rule, resolve: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(resolve)
    def guarded(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        _check(info, rule)
        return resolve(source, info, **arguments)

    return guarded


def _guarded_change(rule: Rule, resolve: Callable[..., Any]) -> Callable[..., Any]:
    """The same, for what is recorded with the name of its actor."""

    @wraps(resolve)
    async def guarded(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        context = _check(info, rule)
        await context.name_actor()
        return await resolve(source, info, **arguments)

    return guarded


def _guarded_stream(rule: Rule, field: GraphQLField) -> Callable[..., Any]:
    subscribe = field.subscribe
    assert subscribe is not None
    ids = [name for name, argument in field.args.items() if _named_type(argument.type) == "ID"]

    @wraps(subscribe)
    def guarded(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        context = _check(info, rule)
        if context.scope is None:
            return subscribe(source, info, **arguments)
        return opened(context, info, source, arguments)

    async def opened(context: Context, info: GraphQLResolveInfo[Any], source: Any, arguments: dict[str, Any]) -> Any:
        for name in ids:
            if arguments.get(name) is not None:
                await _require_seen(context, str(arguments[name]))
        stream = subscribe(source, info, **arguments)
        return await stream if isawaitable(stream) else stream

    return guarded


async def _require_seen(context: Context, public_id: str) -> None:
    """Raise `NotFound` for what is of another project; an id that makes no sense is left to the resolver to judge."""
    try:
        kind, number = public_ids.decode(public_id)
    except ValueError:
        return

    async def look() -> None:
        async with context.sessions() as session:
            match kind:
                case "Simulation" if await simulations.find(session, number, scope=context.scope) is None:
                    raise NotFound("There is no such simulation.")
                case "Project" if await projects.find(session, number, scope=context.scope) is None:
                    raise NotFound("There is no such project.")

    await context.live.outage.patiently(look)


def _named_type(kind: Any) -> str:
    return str(kind.of_type if isinstance(kind, GraphQLNonNull) else kind)
