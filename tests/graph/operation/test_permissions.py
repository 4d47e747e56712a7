"""Permissions: the table guards every operation, and objects of other projects are hidden."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from graph_schema import SCHEMA
from graphql import (
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    get_named_type,
    is_required_argument,
    is_required_input_field,
)
from graphql import build_schema as parse_schema
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import projects, public_ids, tokens
from db.events import Actor
from db.states import Role
from graph.auth.viewer import LOOPBACK, STRANGER, SUPERVISOR, Viewer, recognise
from graph.context import Context
from graph.errors import Unauthenticated
from graph.operation import permissions
from graph.operation.permissions import TABLE, may
from graph.schema import build_schema

Api = Any  # the fixtures of conftest.py
World = Any
Sessions = async_sessionmaker[AsyncSession]

GRAPH = Path(__file__).parents[3] / "graph"
CORE: GraphQLSchema = SCHEMA._schema
ADA = Viewer("ada", Role.ADMIN, None, 1)
ORIGIN = "192.0.2.7"

# Said once more, by role, so that a slip in the table is not a slip here too.
READING = {
    "Query": {
        "node",
        "nodes",
        "simulation",
        "simulations",
        "names",
        "curves",
        "sweep",
        "sweeps",
        "overview",
        "plan",
        "machine",
        "machines",
        "project",
        "projects",
        "budget",
        "budgets",
        "costs",
        "viewer",
        "alertTargets",
    },
    "Subscription": {"convergence", "logs", "simulationChanged", "machineChanged"},
}
RUNNING = {
    "Mutation": {
        "createSimulation",
        "createSimulations",
        "updateSimulation",
        "pauseSimulation",
        "resumeSimulation",
        "cancelSimulation",
        "retrySimulation",
        "forkSimulation",
        "deleteSimulation",
        "createSweep",
        "updateSweep",
        "cancelSweep",
    }
}
DRAINING = {"Mutation": {"drainMachine", "resumeMachine"}}
ADMINISTERING = {
    "Query": {"tokens"},
    "Mutation": {
        "createMachine",
        "updateMachine",
        "deleteMachine",
        "updateProject",
        "createBudget",
        "updateBudget",
        "deleteBudget",
        "createToken",
        "revokeToken",
        "createAlertTarget",
        "updateAlertTarget",
        "testAlertTarget",
        "deleteAlertTarget",
    },
}
ATTEMPTS = {"Mutation": {"helloAttempt", "reportAttempt"}}
SOME = frozenset({1})
ALLOWED = {
    "a stranger": (STRANGER, [ATTEMPTS]),  # who lacks the token of an attempt
    "a supervisor": (SUPERVISOR, [ATTEMPTS]),
    "a viewer": (Viewer("t", Role.VIEWER, None, 1), [READING]),
    "a viewer of a project": (Viewer("t", Role.VIEWER, SOME, 1), [READING]),
    "an operator": (Viewer("t", Role.OPERATOR, None, 1), [READING, RUNNING, DRAINING]),
    "an operator of a project": (Viewer("t", Role.OPERATOR, SOME, 1), [READING, RUNNING]),
    "an admin": (ADA, [READING, RUNNING, DRAINING, ADMINISTERING]),
    "an admin of a project": (Viewer("t", Role.ADMIN, SOME, 1), [READING, RUNNING]),
    "this host": (LOOPBACK, [READING, RUNNING, DRAINING, ADMINISTERING, ATTEMPTS]),
}


class Asking:
    """Executes operations as a given viewer, below the transports."""

    def __init__(self, api: Api, sessions: Sessions) -> None:
        self.api = api
        self.sessions = sessions

    def context(self, viewer: Viewer, **given: Any) -> Context:
        context = Context(self.sessions, self.api.settings, self.api.live, Actor("unknown", ORIGIN), **given)
        context.admit(viewer)
        return context

    async def __call__(self, viewer: Viewer, query: str, variables: Any = None, **given: Any) -> dict[str, Any]:
        """The answer as a client sees it; of a subscription, the first event."""
        context = self.context(viewer, **given)
        if query.startswith("subscription"):
            return await self._first(context, query, variables)
        result: Any = await SCHEMA.execute(query, variable_values=variables, context_value=context)
        errors = [error.formatted for error in result.errors or ()]
        return {"data": result.data, **({"errors": errors} if errors else {})}

    async def _first(self, context: Context, query: str, variables: Any) -> dict[str, Any]:
        stream: Any = await SCHEMA.subscribe(query, variable_values=variables, context_value=context)
        try:
            async with asyncio.timeout(60):
                async for result in stream:
                    errors = [error.formatted for error in result.errors or ()]
                    return {"data": result.data, **({"errors": errors} if errors else {})}
        finally:
            await stream.aclose()
        return {"data": None}

    async def data(self, viewer: Viewer, query: str, variables: Any = None) -> Any:
        answer = await self(viewer, query, variables)
        assert "errors" not in answer, answer
        return next(iter(answer["data"].values()))


@pytest.fixture
def asking(api: Api, sessions: Sessions) -> Asking:
    return Asking(api, sessions)


def codes(answer: dict[str, Any]) -> set[str]:
    return {error.get("extensions", {}).get("code") for error in answer.get("errors", ())}


# --- the table -------------------------------------------------------------------------------------------------


def test_the_table_names_every_root_field_and_nothing_else() -> None:
    roots = [kind for kind in (CORE.query_type, CORE.mutation_type, CORE.subscription_type) if kind is not None]
    assert {f"{kind.name}.{name}" for kind in roots for name in kind.fields} == TABLE.keys()


@pytest.mark.parametrize("forgotten", ["Query.simulation", "Mutation.revokeToken", "Subscription.logs"])
def test_a_schema_with_an_operation_that_the_table_forgets_can_not_be_built(
    forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permissions, "TABLE", {name: rule for name, rule in TABLE.items() if name != forgotten})
    with pytest.raises(LookupError, match=forgotten):
        build_schema()


def test_a_table_with_an_operation_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "TABLE", {**TABLE, "Query.gone": permissions.READ})
    with pytest.raises(LookupError, match=r"Query\.gone"):
        build_schema()


def test_fields_that_the_table_does_not_name_are_forbidden() -> None:
    assert not may(ADA, "Query.gone")


def test_no_field_has_a_permission_beside_the_table() -> None:
    for kind in SCHEMA.schema_converter.type_map.values():
        for field in getattr(kind.definition, "fields", ()):
            assert not getattr(field, "permission_classes", None), field.name
            assert not [each for each in getattr(field, "extensions", ()) if "Permission" in type(each).__name__]


def minimal(operation: str) -> str:
    """An operation with its required arguments; each id is malformed, so that an allowed viewer gets no further."""
    root, name = operation.split(".")
    kind = {"Query": CORE.query_type, "Mutation": CORE.mutation_type, "Subscription": CORE.subscription_type}[root]
    assert kind is not None
    field = kind.fields[name]
    given = {
        argument: literal(each.type)
        for argument, each in field.args.items()
        if is_required_argument(each) or get_named_type(each.type).name == "ID"
    }
    arguments = ", ".join(f"{argument}: {value}" for argument, value in given.items())
    return f"{root.lower()} {{ {name}{f'({arguments})' if given else ''} {{ __typename }} }}"


def literal(kind: Any) -> str:
    if isinstance(kind, GraphQLNonNull):
        return literal(kind.of_type)
    if isinstance(kind, GraphQLList):
        return f"[{literal(kind.of_type)}]"
    if isinstance(kind, GraphQLInputObjectType):
        needed = {name: each for name, each in kind.fields.items() if is_required_input_field(each)}
        inner = ", ".join(f"{name}: {literal(each.type)}" for name, each in needed.items())
        return f"{{{inner}}}"
    values = getattr(kind, "values", None)
    if values:
        return str(next(iter(values)))
    return {"ID": '"?"', "String": '""', "Int": "0", "Float": "0", "Boolean": "false", "Decimal": '"1"'}.get(
        kind.name, '""'
    )


@pytest.mark.parametrize(("viewer", "allowed"), ALLOWED.values(), ids=ALLOWED.keys())
async def test_each_role_may_do_what_is_its_own_and_nothing_else(
    asking: Asking, viewer: Viewer, allowed: list[dict[str, set[str]]]
) -> None:
    expected = {f"{root}.{name}" for part in allowed for root, names in part.items() for name in names}
    let_in = set()
    for operation in TABLE:
        answer = await asking(viewer, minimal(operation))
        refused = codes(answer) & {"FORBIDDEN", "UNAUTHENTICATED"}
        told = str(answer.get("errors"))
        if operation.endswith("Attempt") and "The attempt's token is missing" in told:
            refused = set()  # it is the attempt's own judgement, behind the table
        if not refused:
            let_in.add(operation)
            continue
        assert refused == {"UNAUTHENTICATED" if viewer.role is None else "FORBIDDEN"}, (operation, answer)
        assert not any((answer["data"] or {}).values()), (operation, answer)
    assert let_in == expected
    assert expected == {operation for operation in TABLE if may(viewer, operation)}


async def test_a_refused_mutation_does_nothing(asking: Asking, world: World) -> None:
    before = await world.counts()
    reader = Viewer("reader", Role.VIEWER, None, 1)
    query = 'mutation { createSimulation(input: {entrypoint: ["x"]}) { simulation { id } } }'
    answer = await asking(reader, query)
    assert answer["errors"][0]["message"] == "This needs the role OPERATOR; reader is VIEWER."
    assert await world.counts() == before


async def test_one_refused_field_leaves_its_siblings_alone(asking: Asking) -> None:
    answer = await asking(Viewer("reader", Role.VIEWER, None, 1), "{ viewer { name } tokens { nodes { name } } }")
    assert codes(answer) == {"FORBIDDEN"}
    assert [error["path"] for error in answer["errors"]] == [["tokens"]]


# --- another project's things ----------------------------------------------------------------------------------


def inputs_of(kind: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each argument below a type, as (path, name of its type)."""
    named = get_named_type(kind)
    if isinstance(named, GraphQLInputObjectType):
        for name, field in named.fields.items():
            yield from inputs_of(field.type, f"{path}.{name}")
    else:
        yield path, named.name


def arguments_that_name_something() -> set[str]:
    found = set()
    for kind in CORE.type_map.values():
        if kind.name.startswith("__") or not hasattr(kind, "fields") or isinstance(kind, GraphQLInputObjectType):
            continue
        for name, field in kind.fields.items():
            for argument, each in field.args.items():
                for path, named in inputs_of(each.type, f"{kind.name}.{name}.{argument}"):
                    if named == "ID" or path.endswith((".project", ".projects")):
                        found.add(path)
    return found


SHOWN = (
    "{ ... on Simulation { name } ... on Project { name } ... on Attempt { number } ... on Budget { amount } "
    "... on Sweep { name } }"
)
PAYLOAD = "{ simulation { name } userErrors { code message field } }"
# By argument: an operation on $value, and what is put there. Machines are everybody's.
ON_SIMULATIONS: dict[str, str] = {
    "Query.node.id": f"query ($value: ID!) {{ node(id: $value) {SHOWN} }}",
    "Query.nodes.ids": f"query ($value: ID!) {{ nodes(ids: [$value]) {SHOWN} }}",
    "Query.simulation.id": "query ($value: ID!) { simulation(id: $value) { name } }",
    "Query.curves.ids": 'query ($value: ID!) { curves(ids: [$value], metric: "loss") { curve { values } } }',
    "Mutation.updateSimulation.input.id": 'mutation ($value: ID!) { updateSimulation(input: {id: $value, name: "x"}) '
    f"{PAYLOAD} }}",
    "Mutation.cancelSimulation.input.id": f"mutation ($value: ID!) {{ cancelSimulation(input: {{id: $value}}) "
    f"{PAYLOAD} }}",
    "Mutation.pauseSimulation.input.id": f"mutation ($value: ID!) {{ pauseSimulation(input: {{id: $value}}) "
    f"{PAYLOAD} }}",
    "Mutation.resumeSimulation.input.id": f"mutation ($value: ID!) {{ resumeSimulation(input: {{id: $value}}) "
    f"{PAYLOAD} }}",
    "Mutation.createSimulation.input.after.simulation": "mutation ($value: ID!) { createSimulation(input: "
    f'{{entrypoint: ["true"], project: "mine", after: [{{simulation: $value}}]}}) {PAYLOAD} }}',
    "Mutation.createSimulations.input.simulations.after.simulation": "mutation ($value: ID!) { createSimulations("
    'input: {simulations: [{entrypoint: ["true"], project: "mine", after: [{simulation: $value}]}]}) '
    "{ simulations { name } userErrors { code message field } } }",
    "Mutation.retrySimulation.input.id": f"mutation ($value: ID!) {{ retrySimulation(input: {{id: $value}}) "
    f"{PAYLOAD} }}",
    "Mutation.forkSimulation.input.id": f"mutation ($value: ID!) {{ forkSimulation(input: {{id: $value}}) {PAYLOAD} }}",
    "Mutation.deleteSimulation.input.id": "mutation ($value: ID!) { deleteSimulation(input: {id: $value}) "
    "{ userErrors { code message field } } }",
    "Subscription.convergence.simulationId": "subscription ($value: ID!) { convergence(simulationId: $value) "
    "{ state } }",
    "Subscription.logs.simulationId": "subscription ($value: ID!) { logs(simulationId: $value) { text } }",
    "Subscription.simulationChanged.id": "subscription ($value: ID) { simulationChanged(id: $value) { name } }",
}
ON_PROJECTS: dict[str, str] = {
    "Query.node.id": ON_SIMULATIONS["Query.node.id"],
    "Query.nodes.ids": ON_SIMULATIONS["Query.nodes.ids"],
    "Query.project.id": "query ($value: ID!) { project(id: $value) { name } }",
    "Query.overview.project": "query ($value: ID!) { overview(project: $value) { queued running cost { amount } } }",
    "Query.budgets.project": "query ($value: ID!) { budgets(project: $value) { nodes { amount } } }",
    "Query.costs.project": "query ($value: ID!) { costs(project: $value) { totals { attempts } } }",
    "Query.sweeps.project": "query ($value: ID!) { sweeps(project: $value) { nodes { name } } }",
    "Query.simulations.project": "query ($value: ID!) { simulations(project: $value) { totalCount nodes { name } } }",
    "Subscription.simulationChanged.project": "subscription ($value: ID) { simulationChanged(project: $value) "
    "{ name } }",
}
ON_PROJECT_NAMES: dict[str, str] = {
    "Mutation.createSimulation.input.project": "mutation ($value: String!) { createSimulation(input: "
    f'{{entrypoint: ["true"], project: $value}}) {PAYLOAD} }}',
    "Mutation.createSimulations.input.simulations.project": "mutation ($value: String!) { createSimulations(input: "
    '{simulations: [{entrypoint: ["true"], project: $value}]}) '
    "{ simulations { name } userErrors { code message field } } }",
    "Mutation.createSweep.input.simulation.project": "mutation ($value: String!) { createSweep(input: { simulation: "
    '{entrypoint: ["true"], project: $value}, parameters: [{name: "x", low: 0, high: 1}], objective: '
    '{metric: "loss"}, trials: 1}) { sweep { name } userErrors { code message field } } }',
}
ON_SWEEPS: dict[str, str] = {
    "Query.node.id": f"query ($value: ID!) {{ node(id: $value) {SHOWN} }}",
    "Query.nodes.ids": f"query ($value: ID!) {{ nodes(ids: [$value]) {SHOWN} }}",
    "Query.sweep.id": "query ($value: ID!) { sweep(id: $value) { name } }",
    "Query.simulations.filter.sweep": "query ($value: ID!) { simulations(filter: {sweep: $value}) { nodes { name } } }",
    "Mutation.updateSweep.input.id": "mutation ($value: ID!) { updateSweep(input: {id: $value, trials: 9}) "
    "{ sweep { name } userErrors { code message field } } }",
    "Mutation.cancelSweep.input.id": "mutation ($value: ID!) { cancelSweep(input: {id: $value}) "
    "{ sweep { name } userErrors { code message field } } }",
}
ON_ATTEMPTS: dict[str, str] = {
    "Query.node.id": ON_SIMULATIONS["Query.node.id"],
    "Query.nodes.ids": ON_SIMULATIONS["Query.nodes.ids"],
}
ON_BUDGETS: dict[str, str] = {
    "Query.node.id": ON_SIMULATIONS["Query.node.id"],
    "Query.nodes.ids": ON_SIMULATIONS["Query.nodes.ids"],
    "Query.budget.id": "query ($value: ID!) { budget(id: $value) { amount account { spent } } }",
}
NOT_OF_A_PROJECT = {
    "Query.machine.id": "machines are everybody's",
    "Query.simulations.machine": "machines are everybody's",
    "Mutation.createSimulation.input.resources.machine": "machines are everybody's",
    "Mutation.createSimulations.input.simulations.resources.machine": "machines are everybody's",
    "Mutation.createSweep.input.simulation.resources.machine": "machines are everybody's",
    "Mutation.createSweep.input.simulation.after.simulation": "trials run after nothing: it is refused unread",
    "Subscription.machineChanged.id": "machines are everybody's",
}
ABSENT = 424_242


class Two:
    """Two projects with a finished simulation each, whose attempt and log there are; and a token for the first."""

    def __init__(self, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
        self.mine = mine
        self.theirs = theirs
        self.operator = Viewer("mine", Role.OPERATOR, frozenset({mine["project_number"]}), 1)
        self.reader = Viewer("reader", Role.VIEWER, self.operator.projects, 2)


@pytest.fixture
async def two(world: World) -> Two:
    made = []
    for name in ("mine", "theirs"):
        supervisor = await world.running(project=name, name=f"of {name}")
        await supervisor.loss(0, 1)
        await supervisor.exit(logs=[{"stream": "STDOUT", "text": "said\n"}])
        ((number,),) = await world.select("SELECT id FROM projects WHERE name = :name", name=name)
        made.append(
            {
                "simulation": supervisor.simulation_id, "attempt": supervisor.attempt_id, "project_number": number,
                "project": public_ids.encode("Project", number), "name": name,
                "budget": await budget_of(world, number), "sweep": await sweep_of(world, name),
            }
        )  # fmt: skip
    return Two(*made)


async def sweep_of(world: World, project: str) -> str:
    given = {
        "simulation": {"entrypoint": ["true"], "project": project}, "objective": {"metric": "loss"}, "trials": 1,
        "parameters": [{"name": "x", "low": 0, "high": 1}], "name": f"of {project}",
    }  # fmt: skip
    create = "mutation ($input: CreateSweepInput!) { createSweep(input: $input) { sweep { id } } }"
    return str((await world.api.data(create, {"input": given}))["sweep"]["id"])


async def budget_of(world: World, project: int) -> str:
    ((number,),) = await world.select(
        "INSERT INTO budgets (project_id, period, amount, currency, created_by) "
        "VALUES (:project, 'MONTH', 1000, 'USD', 'ada') RETURNING id", project=project,
    )  # fmt: skip
    return public_ids.encode("Budget", number)


CASES = [
    *(("simulation", path, query) for path, query in ON_SIMULATIONS.items()),
    *(("project", path, query) for path, query in ON_PROJECTS.items()),
    *(("name", path, query) for path, query in ON_PROJECT_NAMES.items()),
    *(("attempt", path, query) for path, query in ON_ATTEMPTS.items()),
    *(("budget", path, query) for path, query in ON_BUDGETS.items()),
    *(("sweep", path, query) for path, query in ON_SWEEPS.items()),
]


def test_every_argument_that_names_something_is_tried() -> None:
    operator_of_one = Viewer("t", Role.OPERATOR, SOME, 1)
    open_ones = {
        path
        for path in arguments_that_name_something()
        if ".".join(path.split(".")[:2]) not in TABLE or may(operator_of_one, ".".join(path.split(".")[:2]))
    }
    assert open_ones == {path for _, path, _ in CASES} | NOT_OF_A_PROJECT.keys()


READING_CASES = [case for case in CASES if not case[1].startswith("Mutation.")]
WRITING_CASES = [case for case in CASES if case[1].startswith("Mutation.")]


async def test_what_is_read_of_another_project_is_answered_like_what_is_not_there(
    asking: Asking, world: World, two: Two, subtests: pytest.Subtests
) -> None:
    for kind, path, query in READING_CASES:
        with subtests.test(path, kind=kind):
            await assert_hidden(asking, world, two, kind, path, query)


@pytest.mark.parametrize(
    ("kind", "path", "query"), WRITING_CASES, ids=[f"{path} {kind}" for kind, path, _ in WRITING_CASES]
)
async def test_what_is_changed_of_another_project_is_answered_like_what_is_not_there(
    asking: Asking, world: World, two: Two, kind: str, path: str, query: str
) -> None:
    await assert_hidden(asking, world, two, kind, path, query)


async def assert_hidden(asking: Asking, world: World, two: Two, kind: str, path: str, query: str) -> None:
    absent = {
        "simulation": public_ids.encode("Simulation", ABSENT), "attempt": public_ids.encode("Attempt", ABSENT),
        "project": public_ids.encode("Project", ABSENT), "name": "absent",
        "budget": public_ids.encode("Budget", ABSENT), "sweep": public_ids.encode("Sweep", ABSENT),
    }[kind]  # fmt: skip
    before = await world.counts()
    theirs = await asking(two.operator, query, {"value": two.theirs[kind]})
    assert theirs == await asking(two.operator, query, {"value": absent})
    assert "theirs" not in json.dumps(theirs)
    assert await world.counts() == before
    # And it was not blind: what is one's own is there, and so is theirs for an admin.
    if path == "Query.overview.project":
        return  # it shows no ended simulation to any viewer: the next test covers running ones
    if path not in ("Subscription.simulationChanged.id", "Subscription.simulationChanged.project"):
        for viewer, owner in ((ADA, two.theirs), (two.operator, two.mine)):
            assert await asking(viewer, query, {"value": owner[kind]}) != theirs, viewer
    else:
        assert codes(theirs) == {"NOT_FOUND"}


async def test_the_overview_is_of_the_own_projects(asking: Asking, world: World, two: Two) -> None:
    for name in ("mine", "theirs"):
        await world.running(project=name)
    query = "query ($project: ID) { overview(project: $project) { running } }"
    for viewer, project, count in (
        (ADA, None, 2), (ADA, two.theirs["project"], 1), (two.reader, None, 1), (two.reader, two.mine["project"], 1),
        (two.reader, two.theirs["project"], 0),
    ):  # fmt: skip
        assert await asking.data(viewer, query, {"project": project}) == {"running": count}, (viewer, project)


async def test_names_of_metrics_and_parameters_are_of_the_own_projects(asking: Asking, world: World, two: Two) -> None:
    for name in ("mine", "theirs"):
        simulation_id = await world.simulation(project=name, parameters={f"{name}/rate": 1, f"{name}/way": "up"})
        supervisor = await world.running(simulation_id)
        await supervisor.send({f"{name}/loss": {"steps": [1], "values": [1.0], "elapsed": [0.1]}})
        ended = await world.running(project=name)
        await ended.send({f"{name}/error": {"steps": [1], "values": [1.0], "elapsed": [0.1]}})
        await ended.exit()
    query = "{ names { metrics { name } parameters } }"
    mine = [f"mine/{each}" for each in ("error", "loss")], ["mine/rate", "mine/way"]
    theirs = [f"theirs/{each}" for each in ("error", "loss")], ["theirs/rate", "theirs/way"]
    for viewer, (metrics, parameters) in (
        (two.reader, mine),
        (ADA, tuple(a + b for a, b in zip(mine, theirs, strict=True))),
    ):
        shown = await asking.data(viewer, query)
        assert [each["name"] for each in shown["metrics"] if "/" in each["name"]] == metrics
        assert shown["parameters"] == parameters


async def test_lists_show_what_is_of_the_own_projects_only(asking: Asking, world: World, two: Two) -> None:
    query = "{ simulations { totalCount nodes { name project { name } } edges { node { name } } } }"
    shown = await asking.data(two.reader, query)
    assert shown == {
        "totalCount": 1,
        "nodes": [{"name": "of mine", "project": {"name": "mine"}}],
        "edges": [{"node": {"name": "of mine"}}],
    }
    assert (await asking.data(ADA, query))["totalCount"] == 2
    listed = await asking.data(two.reader, "{ projects { nodes { name } edges { node { name } } } }")
    assert listed == {"nodes": [{"name": "mine"}], "edges": [{"node": {"name": "mine"}}]}


async def test_a_page_of_the_own_projects_is_full(asking: Asking, world: World, two: Two) -> None:
    for number in range(3):
        for name in ("mine", "theirs"):
            await world.simulation(project=name, name=f"{name} {number}")
    query = (
        "query ($after: String) { simulations(first: 3, after: $after) { nodes { name } "
        "pageInfo { endCursor hasNextPage } } }"
    )
    first = await asking.data(two.reader, query, {"after": None})
    assert [node["name"] for node in first["nodes"]] == ["mine 2", "mine 1", "mine 0"]
    second = await asking.data(two.reader, query, {"after": first["pageInfo"]["endCursor"]})
    assert ([node["name"] for node in second["nodes"]], second["pageInfo"]["hasNextPage"]) == (["of mine"], False)


async def test_a_machine_shows_the_own_simulations_on_it_and_counts_all(asking: Asking, world: World) -> None:
    machine_id = await world.machine("shared")
    for name in ("mine", "theirs"):
        await world.attempt(await world.simulation(project=name, name=name), machine_id)
    ((mine,),) = await world.select("SELECT id FROM projects WHERE name = 'mine'")
    query = "{ machines { nodes { name free { cpus } simulations { name } } } }"
    for viewer, names in ((Viewer("v", Role.VIEWER, frozenset({mine}), 1), ["mine"]), (ADA, ["mine", "theirs"])):
        (shown,) = (await asking.data(viewer, query))["nodes"]
        assert [each["name"] for each in shown["simulations"]] == names
        assert shown["free"]["cpus"] == 14.0


async def test_changes_are_told_of_the_own_projects_only(
    asking: Asking, world: World, two: Two, api: Api, wait_until: Any
) -> None:
    context = asking.context(two.reader)
    stream: Any = await SCHEMA.subscribe("subscription { simulationChanged { name } }", context_value=context)
    first = asyncio.ensure_future(anext(stream))
    watchers = next(iter(api.hub._watchers.values()))
    await wait_until(lambda: len(watchers) > 0, "the subscription begins")
    await world.simulation(project="theirs", name="their new one")
    await world.simulation(project="mine", name="my new one")
    async with asyncio.timeout(60):
        names = [(await first).data["simulationChanged"]["name"]]
        while names[-1] != "my new one":
            names.append((await anext(stream)).data["simulationChanged"]["name"])
    await stream.aclose()
    assert "their new one" not in names
    assert "of theirs" not in names


# What takes a scope, and would show everything without one.
SCOPED = {
    "simulations": {"get", "find", "by_ids", "cancel", "delete_ended", "recent"},
    "listing": {"Filter"},
    "references": {"resolve"},
    "projects": {"find", "by_ids", "named", "page_all"},
    "budgets": {"by_ids", "page_matching", "change", "remove"},
    "costs": {"Question"},
    "sweeps": {"by_ids", "page_matching", "resolve"},
}


def calls_without_scope(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=verb)) if verb in SCOPED.get(
                module.removeprefix("db_"), ()
            ) and "scope" not in {key.arg for key in node.keywords}:
                found.append(ast.unparse(node))
    return found


def test_whatever_reads_rows_of_projects_is_given_the_scope() -> None:
    assert calls_without_scope(ast.parse("await simulations.find(session, 1)"))
    assert calls_without_scope(ast.parse("listing.Filter(tag=t)"))
    assert not calls_without_scope(ast.parse("simulations.find(session, 1, scope=context.scope)"))
    assert {
        path.name: calls for path in GRAPH.glob("*.py") if (calls := calls_without_scope(ast.parse(path.read_text())))
    } == {}


# --- tokens, and whom they make --------------------------------------------------------------------------------

CREATE_TOKEN = """
mutation ($input: CreateTokenInput!) {
  createToken(input: $input) {
    secret
    token { id name role projects { name } createdBy createdAt expiresAt revokedAt lastUsedAt }
    userErrors { code message field }
  }
}
"""
REVOKE_TOKEN = """
mutation ($id: ID!) { revokeToken(input: {id: $id}) { token { name revokedAt } userErrors { code message field } } }
"""


async def test_a_token_made_through_the_api_is_shown_once_and_makes_its_viewer(
    asking: Asking, two: Two, sessions: Sessions
) -> None:
    given = {"name": "ci", "role": "OPERATOR", "projects": [two.mine["project"]], "expiresInSeconds": 3600}
    made = await asking.data(ADA, CREATE_TOKEN, {"input": given})
    assert made["userErrors"] == []
    token = made["token"]
    assert (token["name"], token["role"], token["projects"]) == ("ci", "OPERATOR", [{"name": "mine"}])
    assert (token["createdBy"], token["revokedAt"], token["lastUsedAt"]) == ("ada", None, None)
    viewer = await recognise(sessions, made["secret"], trusted=False)
    assert (viewer.name, viewer.role, viewer.projects) == ("ci", Role.OPERATOR, two.operator.projects)
    assert viewer.expires_at is not None
    listed = await asking.data(ADA, "{ tokens { nodes { id name lastUsedAt } } }")
    assert [node["name"] for node in listed["nodes"]] == ["ci"]
    assert listed["nodes"][0]["lastUsedAt"] is not None
    assert made["secret"] not in json.dumps(listed)
    node = "query ($id: ID!) { node(id: $id) { ... on Token { name } } }"
    assert await asking.data(ADA, node, {"id": token["id"]}) == {"name": "ci"}
    assert await asking.data(two.operator, node, {"id": token["id"]}) is None

    revoked = await asking.data(ADA, REVOKE_TOKEN, {"id": token["id"]})
    assert revoked["token"]["revokedAt"] is not None
    with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
        await recognise(sessions, made["secret"], trusted=True)


BAD_TOKENS = {
    "a name that is empty": ({"name": " "}, "INVALID", ["name"]),
    "a name of two lines": ({"name": "a\nb"}, "INVALID", ["name"]),
    "a name that is taken": ({"name": "taken"}, "TAKEN", ["name"]),
    "a name of the house": ({"name": "scheduler"}, "TAKEN", ["name"]),
    "no project": ({"projects": []}, "INVALID", ["projects"]),
    "a project that is not there": ({"projects": [public_ids.encode("Project", ABSENT)]}, "NOT_FOUND", ["projects"]),
    "an id of another type": ({"projects": [public_ids.encode("Machine", 1)]}, "INVALID", ["projects"]),
    "an end in the past": ({"expiresInSeconds": -1}, "INVALID", ["expiresInSeconds"]),
}


@pytest.mark.parametrize(("given", "code", "field"), BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_bad_token_is_a_user_error_and_is_not_made(
    asking: Asking, world: World, given: dict[str, Any], code: str, field: list[str]
) -> None:
    await asking.data(ADA, CREATE_TOKEN, {"input": {"name": "taken", "role": "VIEWER"}})
    before = await world.counts()
    made = await asking.data(ADA, CREATE_TOKEN, {"input": {"name": "new", "role": "VIEWER", **given}})
    assert [(error["code"], error["field"]) for error in made["userErrors"]] == [(code, field)]
    assert (made["token"], made["secret"]) == (None, None)
    assert await world.counts() == before


async def test_revoking_what_is_not_there_is_a_user_error(asking: Asking) -> None:
    revoked = await asking.data(ADA, REVOKE_TOKEN, {"id": public_ids.encode("Token", ABSENT)})
    assert [error["code"] for error in revoked["userErrors"]] == ["NOT_FOUND"]


async def test_a_viewer_is_told_who_they_are_and_what_they_may_do(asking: Asking, two: Two) -> None:
    query = "{ viewer { name role projects { name } operations expiresAt } }"
    shown = await asking.data(two.reader, query)
    assert (shown["name"], shown["role"], shown["projects"]) == ("reader", "VIEWER", [{"name": "mine"}])
    assert set(shown["operations"]) == set.union(*READING.values())
    shown = await asking.data(LOOPBACK, query)
    assert (shown["name"], shown["role"], shown["projects"], shown["expiresAt"]) == ("anonymous", "ADMIN", None, None)
    assert "createToken" in shown["operations"]


async def test_those_who_see_the_same_share_and_others_do_not(asking: Asking) -> None:
    def rights(role: Role, *scope: int) -> Any:
        return asking.context(Viewer("n", role, frozenset(scope) if scope else None, 1)).rights

    assert rights(Role.VIEWER, 1, 2) == rights(Role.VIEWER, 2, 1)
    different = [rights(Role.VIEWER), rights(Role.VIEWER, 1), rights(Role.VIEWER, 2), rights(Role.OPERATOR, 1)]
    assert len(set(different)) == len(different)


# --- who did it ------------------------------------------------------------------------------------------------

Act = Callable[[], Awaitable[str]]


async def test_every_mutation_that_changes_something_says_who_and_from_where(
    asking: Asking, world: World, sessions: Sessions
) -> None:
    """Each is carried out by `ada`, and leaves at least one event of hers."""
    machine = public_ids.encode("Machine", await world.machine("found"))
    declared = await asking.data(
        ADA, 'mutation { createMachine(input: {name: "part", cpus: 1, memoryGib: 1}) { machine { id } } }'
    )
    target = await asking.data(
        ADA,
        "mutation { createAlertTarget(input: "
        '{name: "ops", transport: WEBHOOK, url: "https://hooks.example.org/"}) { alertTarget { id } } }',
    )
    async with sessions.begin() as session:
        token, _ = await tokens.create(session, "old", Role.VIEWER, Actor("x"))
    ((other,),) = await world.select("INSERT INTO projects (name) VALUES ('other') RETURNING id")
    budgets = [await budget_of(world, 1), await budget_of(world, other)]
    waiting = await world.simulation()
    on = {
        "createSimulation": '{entrypoint: ["true"], project: "new"}',
        "createSimulations": '{simulations: [{entrypoint: ["true"]}]}',
        "updateSimulation": f'{{id: "{await world.simulation()}", priority: 3}}',
        "pauseSimulation": f'{{id: "{waiting}"}}',
        "resumeSimulation": f'{{id: "{waiting}"}}',
        "cancelSimulation": f'{{id: "{await world.simulation()}"}}',
        "retrySimulation": f'{{id: "{await world.in_state("CANCELLED")}"}}',
        "forkSimulation": f'{{id: "{await world.simulation()}", parameters: {{seed: 7}}}}',
        "deleteSimulation": f'{{id: "{await world.in_state("CANCELLED")}"}}',
        "createSweep": '{simulation: {entrypoint: ["true"]}, parameters: [{name: "x", low: 0, high: 1}], '
        'objective: {metric: "loss"}, trials: 1}',
        "updateSweep": f'{{id: "{await sweep_of(world, "default")}", trials: 3}}',
        "cancelSweep": f'{{id: "{await sweep_of(world, "default")}"}}',
        "createMachine": '{name: "other part", cpus: 1, memoryGib: 1}',
        "updateMachine": f'{{id: "{declared["machine"]["id"]}", cpus: 2}}',
        "drainMachine": f'{{id: "{machine}"}}',
        "resumeMachine": f'{{id: "{machine}"}}',
        "deleteMachine": f'{{id: "{declared["machine"]["id"]}"}}',
        "updateProject": f'{{id: "{public_ids.encode("Project", 1)}", weight: "2", gpuQuota: 8}}',
        "createBudget": '{amount: "1"}',
        "updateBudget": f'{{id: "{budgets[0]}", amount: "2"}}',
        "deleteBudget": f'{{id: "{budgets[1]}"}}',
        "createToken": '{name: "new", role: VIEWER}',
        "revokeToken": f'{{id: "{public_ids.encode("Token", token.id)}"}}',
        "createAlertTarget": '{name: "new", transport: WEBHOOK, url: "https://hooks.example.org/"}',
        "updateAlertTarget": f'{{id: "{target["alertTarget"]["id"]}", isDefault: true}}',
        "testAlertTarget": f'{{id: "{target["alertTarget"]["id"]}"}}',
        "deleteAlertTarget": f'{{id: "{target["alertTarget"]["id"]}"}}',
    }
    assert {f"Mutation.{name}" for name in on} | {"Mutation.helloAttempt", "Mutation.reportAttempt"} == {
        name for name in TABLE if name.startswith("Mutation.")
    }
    told = {}
    for name, given in on.items():
        ((last,),) = await world.select("SELECT coalesce(max(id), 0) FROM events")
        payload = await asking.data(ADA, f"mutation {{ {name}(input: {given}) {{ userErrors {{ message }} }} }}")
        assert payload["userErrors"] == [], name
        told[name] = await world.select(
            "SELECT object_type, kind FROM events WHERE id > :last AND actor = 'ada' AND origin = :origin ORDER BY id",
            last=last,
            origin=ORIGIN,
        )
    assert told == {
        "createSimulation": [("Project", "CREATED"), ("Simulation", "QUEUED")],
        "createSimulations": [("Simulation", "QUEUED")],
        "updateSimulation": [("Simulation", "UPDATED")],
        "pauseSimulation": [("Simulation", "PAUSED")],
        "resumeSimulation": [("Simulation", "RESUMED")],
        "cancelSimulation": [("Simulation", "CANCELLED")],
        "retrySimulation": [("Simulation", "QUEUED")],
        "forkSimulation": [("Simulation", "QUEUED")],
        "deleteSimulation": [("Simulation", "DELETED")],
        "createSweep": [("Sweep", "CREATED")],
        "updateSweep": [("Sweep", "UPDATED")],
        "cancelSweep": [("Sweep", "CANCEL_REQUESTED")],
        "createMachine": [("Machine", "CREATED")],
        "updateMachine": [("Machine", "UPDATED")],
        "drainMachine": [("Machine", "DRAINED")],
        "resumeMachine": [("Machine", "RESUMED")],
        "deleteMachine": [("Machine", "DELETED")],
        "updateProject": [("Project", "UPDATED")],
        "createBudget": [("Budget", "CREATED")],
        "updateBudget": [("Budget", "UPDATED")],
        "deleteBudget": [("Budget", "DELETED")],
        "createToken": [("Token", "CREATED")],
        "revokeToken": [("Token", "REVOKED")],
        "createAlertTarget": [("AlertTarget", "CREATED")],
        "updateAlertTarget": [("AlertTarget", "UPDATED")],
        "testAlertTarget": [("AlertTarget", "TESTED")],
        "deleteAlertTarget": [("AlertTarget", "DELETED")],
    }


async def test_a_simulation_is_created_and_stopped_in_the_name_of_the_token(
    asking: Asking, world: World, two: Two
) -> None:
    query = 'mutation { createSimulation(input: {entrypoint: ["x"], project: "mine"}) { simulation { id createdBy } } }'
    made = (await asking.data(two.operator, query))["simulation"]
    assert made["createdBy"] == "mine"
    await world.attempt(made["id"])
    stop = "mutation ($id: ID!) { cancelSimulation(input: {id: $id}) { simulation { stopWanted { by } } } }"
    stopped = await asking.data(two.operator, stop, {"id": made["id"]})
    assert stopped["simulation"]["stopWanted"]["by"] == "mine"


# --- what can be written and never read ------------------------------------------------------------------------


OTHERS = ("after", "dependents")  # of a simulation: whole simulations once more, beyond the tokens of a document


def everything(kind: Any, depth: int) -> list[str]:
    """The selections of all fields of a type that need no argument, each with all fields below it."""
    parts = []
    for name, field in getattr(get_named_type(kind), "fields", {}).items():
        if any(is_required_argument(each) for each in field.args.values()) or name in OTHERS:
            continue
        inner = everything(field.type, depth - 1) if depth else []
        if inner:
            parts.append(f"{name} {{ {' '.join(inner)} }}")
        elif not hasattr(get_named_type(field.type), "fields"):
            parts.append(name)
    return parts


async def test_only_the_simulation_reads_the_values_of_environment_variables(asking: Asking, world: World) -> None:
    secret = "hunter2-of-the-house"
    supervisor = await world.attempt(await world.simulation(name="with a secret", environment={"API_KEY": secret}))
    greeting = await supervisor.hello()
    assert greeting["order"]["environment"]["API_KEY"] == secret
    await supervisor.loss(0)
    await supervisor.exit()
    selections = everything(parse_schema(SCHEMA.as_str()).type_map["Simulation"], 3)
    assert "environment" in selections
    assert any("detail" in each for each in selections)
    shown: dict[str, Any] = {}
    for selection in selections:  # one after the other: together they have more tokens than a document may have
        query = f"query ($id: ID!) {{ simulation(id: $id) {{ {selection} }} }}"
        shown |= await asking.data(ADA, query, {"id": supervisor.simulation_id})
    assert shown.keys() == {each.partition(" ")[0] for each in selections}
    assert shown["environment"] == {"API_KEY": None}
    assert secret not in json.dumps(shown)
    kept = await world.select("SELECT detail::text FROM events UNION ALL SELECT text FROM log_chunks")
    assert all(secret not in text for (text,) in kept)
    again = await asking.data(
        ADA,
        "mutation ($id: ID!) { retrySimulation(input: {id: $id}) { simulation { environment } } }",
        {"id": supervisor.simulation_id},
    )
    assert again["simulation"]["environment"] == {"API_KEY": None}
    ((stored,),) = await world.select("SELECT count(*) FROM simulations WHERE environment->>'API_KEY' = :s", s=secret)
    assert stored == 2


async def test_another_project_of_a_name_is_made_by_those_for_all_projects_only(
    asking: Asking, world: World, sessions: Sessions
) -> None:
    query = (
        'mutation ($p: String!) { createSimulation(input: {entrypoint: ["x"], project: $p}) { userErrors { field } } }'
    )
    scoped = Viewer("t", Role.OPERATOR, frozenset({1}), 1)
    assert (await asking.data(scoped, query, {"p": "new"}))["userErrors"] == [{"field": ["project"]}]
    assert (await asking.data(Viewer("t", Role.OPERATOR, None, 1), query, {"p": "new"}))["userErrors"] == []
    async with sessions() as session:
        assert [row.name for row in (await projects.page_all(session, first=9, after=None)).rows] == ["default", "new"]
