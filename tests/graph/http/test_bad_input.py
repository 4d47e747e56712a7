"""Invalid input: hostile text, numbers, ids and cursors in every field are refused by field and store nothing.

The places are read from the schema: one that is new is tried, or has to be named here. What else single fields refuse
is with their own: `test_simulations.py`, `test_machines.py`, `test_permissions.py`; reports in `test_supervision.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from graph_schema import SCHEMA
from graphql import (
    GraphQLArgument,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_required_input_field,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from work import counting

from db import machines
from db.events import Actor
from db.public_ids import encode

World = Any  # the fixtures of conftest.py
Api = Any

GRAPH: GraphQLSchema = SCHEMA._schema
MUTATIONS = GRAPH.mutation_type
assert MUTATIONS is not None
OF_SUPERVISORS = ("helloAttempt", "reportAttempt")  # these have no person to tell: test_supervision.py
OF_PEOPLE = [name for name in MUTATIONS.fields if name not in OF_SUPERVISORS]
NUL = "a\0b"
MOST_CALLS = 1_000_000  # of functions, at both ends of a request; judging each of 100,000 values takes more
Path = tuple[str, ...]

# What makes each input whole, so that only one thing is wrong with it.
WHOLE: dict[str, Any] = {
    "CreateSimulationInput": {"entrypoint": ["true"]},
    "CreateMachineInput": {"name": "part", "cpus": 1.0, "memoryGib": 1.0},
    "CreateTokenInput": {"name": "ada", "role": "VIEWER"},
    "MetricInput": {"name": "loss", "mode": "MIN"},
    "ObjectiveInput": {"metric": "loss"},
    "StopRuleInput": {"metric": "loss", "mode": "MIN"},
    "CreateSimulationsInput": {"simulations": [{"entrypoint": ["true"]}]},
    "CreateBudgetInput": {"amount": "5"},
    "UpdateBudgetInput": {"amount": "5"},
    "CreateSweepInput": {
        "simulation": {"entrypoint": ["true"]},
        "parameters": [{"name": "lr", "low": 0.1, "high": 1.0}],
        "objective": {"metric": "loss"},
        "trials": 3,
    },
    "PackageInput": {"digest": "a" * 64},
    "SweepParameterInput": {"name": "lr", "low": 0.1, "high": 1.0},
    "CreateAlertTargetInput": {"name": "ops", "transport": "WEBHOOK", "url": "https://hooks.example.org/"},
}
IDS = {
    "SimulationInput": "Simulation",
    "MachineInput": "Machine",
    "DrainMachineInput": "Machine",
    "UpdateMachineInput": "Machine",
    "TokenInput": "Token",
    "UpdateSimulationInput": "Simulation",
    "ForkSimulationInput": "Simulation",
    "BudgetInput": "Budget",
    "UpdateBudgetInput": "Budget",
    "AlertTargetInput": "AlertTarget",
    "UpdateProjectInput": "Project",
    "UpdateAlertTargetInput": "AlertTarget",
    "SweepInput": "Sweep",
    "UpdateSweepInput": "Sweep",
}
# Amounts and counts that are absurd elsewhere and that these take: any finite value may be a metric's.
TAKEN: dict[str, tuple[float, ...]] = {
    "stoppingThreshold": (-1, -1e308, -5e-324, 1e308, 2.0**53 + 2),
    "divergenceThreshold": (-1, -1e308, -5e-324, 1e308, 2.0**53 + 2),
    "minDelta": (1e308, 2.0**53 + 2),
    "patience": (2**31 - 1,),
    "seed": (2**31 - 1,),
    "low": (-1, -1e308, -5e-324),
    "high": (-1, -1e308, -5e-324, 1e308, 2.0**53 + 2),  # the first three are below `low`, which the error names
    "expiresInSeconds": (2**31 - 1,),  # 68 years: a token may last so long
}


def places(scalar: str) -> list[Any]:
    """Every place in the inputs of people's mutations that takes such a scalar: (mutation, path to it)."""
    found = []
    for mutation in OF_PEOPLE:
        assert MUTATIONS is not None
        found += [(mutation, path) for path in _places(input_of(mutation), scalar)]
    # The template of a sweep is judged by the rules of createSimulation, choices by tests/graph/types/test_sweep.py.
    found = [
        (mutation, path)
        for mutation, path in found
        if not (mutation == "createSweep" and (path[0] == "simulation" or "choices" in path))
    ]
    assert found
    return [pytest.param(*place, id=".".join((place[0], *place[1]))) for place in found]


def input_of(mutation: str) -> GraphQLInputObjectType:
    assert MUTATIONS is not None
    kind = get_named_type(MUTATIONS.fields[mutation].args["input"].type)
    assert isinstance(kind, GraphQLInputObjectType)
    return kind


def _places(kind: GraphQLInputObjectType, scalar: str) -> list[Path]:
    found: list[Path] = []
    for name, field in kind.fields.items():
        named = get_named_type(field.type)
        path = (name, "0") if is_list_type(get_nullable_type(field.type)) else (name,)
        if isinstance(named, GraphQLInputObjectType):
            found += [(*path, *below) for below in _places(named, scalar)]
        elif named.name == scalar:
            found.append(path)
    return found


def whole(kind: GraphQLInputObjectType, known: str) -> dict[str, Any]:
    """An input with which nothing is wrong. known: the id it is about, if it is about one."""
    made = dict(WHOLE.get(kind.name, {}))
    if kind.name in IDS:
        made["id"] = known
    missing = [name for name, field in kind.fields.items() if is_required_input_field(field) and name not in made]
    assert not missing, f"say in WHOLE what a good {kind.name} is"
    return made


def with_value(kind: GraphQLInputObjectType, path: Path, value: object, known: str = "") -> dict[str, Any]:
    """The same, with one value of it as given."""
    given, step, *rest = whole(kind, known), *path
    field = get_named_type(kind.fields[step].type)
    is_list = bool(rest) and rest[0] == "0"
    if is_list:
        rest = rest[1:]
    inner = with_value(field, tuple(rest), value) if rest and isinstance(field, GraphQLInputObjectType) else value
    given[step] = [inner] if is_list else inner
    return given


def document(mutation: str) -> str:
    answer = "userErrors { code message field }"
    return f"mutation ($input: {input_of(mutation).name}!) {{ {mutation}(input: $input) {{ {answer} }} }}"


async def attempted(api: Api, mutation: str, given: dict[str, Any]) -> Any:
    """The user errors of a mutation, as (code, field)."""
    payload = await api.data(document(mutation), {"input": given})
    for error in payload["userErrors"]:
        assert 10 < len(error["message"]) < 500
    return [(error["code"], error["field"]) for error in payload["userErrors"]]


CREATE_ALERT_TARGET = """
    mutation { createAlertTarget(input: {name: "known", transport: WEBHOOK, url: "https://hooks.example.org/"}) {
        alertTarget { id }
    } }
"""


async def target(world: World, mutation: str) -> str:
    """The id of something that the mutation could do."""
    match IDS.get(input_of(mutation).name):
        case "Simulation":
            return str(await world.simulation())
        case "Machine":
            await world.host()
            payload = await world.api.data(
                'mutation { createMachine(input: {name: "known", cpus: 1, memoryGib: 1}) { machine { id } } }'
            )
            return str(payload["machine"]["id"])
        case "Token":
            payload = await world.api.data(
                'mutation { createToken(input: {name: "known", role: VIEWER}) { token { id } } }'
            )
            return str(payload["token"]["id"])
        case "Budget":
            payload = await world.api.data('mutation { createBudget(input: {amount: "5"}) { budget { id } } }')
            return str(payload["budget"]["id"])
        case "Sweep":
            create = "mutation ($input: CreateSweepInput!) { createSweep(input: $input) { sweep { id } } }"
            payload = await world.api.data(create, {"input": WHOLE["CreateSweepInput"]})
            return str(payload["sweep"]["id"])
        case "Project":
            return encode("Project", 1)
        case "AlertTarget":
            payload = await world.api.data(CREATE_ALERT_TARGET)
            return str(payload["alertTarget"]["id"])
        case _:
            return ""


@pytest.mark.parametrize(("mutation", "path"), places("String"))
async def test_text_that_can_not_be_stored_or_shown(
    world: World, mutation: str, path: Path, subtests: pytest.Subtests
) -> None:
    await world.host()
    known = await target(world, mutation)
    before = await world.counts()
    for name, text in {"NUL": NUL, "a megabyte": "x" * 1_000_000}.items():
        with subtests.test(name):
            errors = await attempted(world.api, mutation, with_value(input_of(mutation), path, text, known))
            assert [field for _, field in errors] == [list(path)]
    assert await world.counts() == before


@pytest.mark.parametrize(("mutation", "path"), places("ID"))
async def test_ids_that_lead_nowhere(world: World, mutation: str, path: Path, subtests: pytest.Subtests) -> None:
    await world.host()
    known = await target(world, mutation)
    before = await world.counts()
    names = {"simulation": "Simulation", "machine": "Machine", "projects": "Project", "project": "Project"}
    expected = names.get(path[-1] if path[-1] != "0" else path[0])
    kind = IDS.get(input_of(mutation).name) if expected is None else expected
    assert kind is not None
    other = "Machine" if kind == "Simulation" else "Simulation"
    named = "NOT_FOUND" if kind in ("Simulation", "Sweep") else "INVALID"  # their names and numbers stand for ids
    for public_id, codes in {
        encode(kind, 999_999): ("NOT_FOUND",),
        encode(other, 1): ("INVALID",),  # the id of another type
        encode("Nonsense", 1): ("INVALID",),
        "": ("INVALID",),
        "%%%": (named,),
        "=" * 8: (named,),
        NUL: ("INVALID",),
        "ünïcode": (named,),
        encode(kind, 10**30): (named,),
        encode(kind, 1).rstrip("=") + "é": (named,),
        encode(kind, 0)[:-4]: (named,),
        "x" * 10_000: ("INVALID",),
        f"{kind}:1": (named,),
        "999999": (named,),
        "#999999": (named,),
        "#" + "9" * 30: (named,),
    }.items():
        with subtests.test(public_id[:40]):
            errors = await attempted(world.api, mutation, with_value(input_of(mutation), path, public_id, known))
            assert [code for code, _ in errors] == list(codes)
            assert errors[0][1][: len(path) - 1 or 1] == list(path[: len(path) - 1 or 1])
    assert await world.counts() == before


@pytest.mark.parametrize(("mutation", "path"), places("Float"))
async def test_absurd_amounts(world: World, mutation: str, path: Path, subtests: pytest.Subtests) -> None:
    await world.host()
    known = await target(world, mutation)
    before = await world.counts()
    for value in (-1, -1e308, -5e-324, 1e308, 2.0**53 + 2):
        if value in TAKEN.get(path[-1], ()):
            continue
        with subtests.test(str(value)):
            errors = await attempted(world.api, mutation, with_value(input_of(mutation), path, value, known))
            assert errors == [("INVALID", list(path))]
    assert await world.counts() == before


@pytest.mark.parametrize(("mutation", "path"), places("Int"))
async def test_absurd_counts(world: World, mutation: str, path: Path, subtests: pytest.Subtests) -> None:
    await world.host()
    known = await target(world, mutation)
    before = await world.counts()
    for value in (-(2**31), 2**31 - 1):
        if value in TAKEN.get(path[-1], ()):
            continue
        with subtests.test(str(value)):
            errors = await attempted(world.api, mutation, with_value(input_of(mutation), path, value, known))
            assert errors == [("INVALID", list(path))]
    for value in (2**53 + 1, 10**400, 1.5, "1", True, -(2**63)):  # these GraphQL itself does not take for an Int
        with subtests.test(str(value)[:30]):
            response = await world.api.client.post(
                "/graphql",
                json={
                    "query": document(mutation),
                    "variables": {"input": with_value(input_of(mutation), path, value, known)},
                },
            )
            (error,) = response.json()["errors"]
            assert "Something went wrong" not in error["message"]
    assert await world.counts() == before


@pytest.mark.parametrize(("mutation", "path"), places("Decimal"))
async def test_prices_that_are_none(world: World, mutation: str, path: Path, subtests: pytest.Subtests) -> None:
    await world.host()
    known = await target(world, mutation)
    before = await world.counts()
    for value in ("-0.01", "NaN", "-NaN", "sNaN", "Infinity", "-Infinity", "1e30", "1e-7", "1e999999999"):
        with subtests.test(value):
            errors = await attempted(world.api, mutation, with_value(input_of(mutation), path, value, known))
            assert errors == [("INVALID", list(path))]
    assert await world.counts() == before


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(("mutation", "path"), places("JSON"))
async def test_objects_that_are_none_or_too_much(
    world: World, mutation: str, path: Path, subtests: pytest.Subtests
) -> None:
    await world.host()
    known = await target(world, mutation)
    before = await world.counts()
    for name, value in {
        "a list": [1], "a string": "{}", "a number": 1, "a bool": True,
        "too big": {str(number): "x" * 100 for number in range(1_000)},
        "a NUL byte in a value": {"a": NUL}, "a NUL byte in a name": {NUL: "a"},
        "an empty name and a NUL byte": {"": NUL},
        "a hundred objects in one another": {"deep": nested(100)},
    }.items():  # fmt: skip
        with subtests.test(name):
            errors = await attempted(world.api, mutation, with_value(input_of(mutation), path, value, known))
            assert errors
            assert {code for code, _ in errors} == {"INVALID"}
            assert all(field[: len(path)] == list(path) for _, field in errors)
    assert await world.counts() == before


ENDLESS: dict[str, Any] = {
    "entrypoint": [NUL] * 9_000,
    "tags": [""] * 9_000,
    "metrics": [{"name": "", "mode": "MIN"}] * 3_000,
    "parameters": {"a": [[]] * 90_000},
    "environment": {f"={number}": "" for number in range(29_000)},
    "resources": {"labels": {f"\n{number}": "" for number in range(29_000)}},
    "limits": {"retryOn": ["COMPLETED"] * 9_000},
}
BEYOND_COUNTING: dict[str, Any] = {
    "entrypoint": [NUL] * 59_000,
    "tags": [""] * 59_000,
    "metrics": [{"name": "", "mode": "MIN"}] * 14_000,
    "limits": {"retryOn": ["COMPLETED"] * 59_000},
}


@pytest.mark.parametrize(("field", "value"), ENDLESS.items(), ids=ENDLESS.keys())
async def test_mistakes_without_end_are_answered_fast_and_some_of_them_told(
    world: World, field: str, value: Any
) -> None:
    """Judging and telling each took 40 seconds, in which the process did nothing else, and 50 MB."""
    with counting() as work:
        errors = await attempted(world.api, "createSimulation", {**WHOLE["CreateSimulationInput"], field: value})
    assert 0 < len(errors) <= 50
    assert {name[0] for _, name in errors} == {field}
    assert work.calls < MOST_CALLS


@pytest.mark.parametrize(("field", "value"), BEYOND_COUNTING.items(), ids=BEYOND_COUNTING.keys())
async def test_values_beyond_counting_are_refused_without_a_look_at_each(world: World, field: str, value: Any) -> None:
    given = {**WHOLE["CreateSimulationInput"], field: value}
    with counting() as work:
        error = await world.api.error(document("createSimulation"), {"input": given})
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert work.calls < MOST_CALLS


async def test_parameters_as_deep_as_json_goes_are_kept_or_refused_in_a_sentence(world: World) -> None:
    query = (
        "mutation ($input: CreateSimulationInput!) "
        "{ createSimulation(input: $input) { simulation { parameters } userErrors { field } } }"
    )
    kept = []
    for depth in (10, 99, 100, 200, 250, 500):
        body = {"query": query, "variables": {"input": {"entrypoint": ["true"], "parameters": nested(depth)}}}
        answer = (await world.api.client.post("/graphql", json=body)).json()
        if answer.get("errors"):
            assert "Something went wrong" not in str(answer)
            continue
        payload = answer["data"]["createSimulation"]
        if payload["simulation"] is None:
            assert payload["userErrors"] == [{"field": ["parameters"]}]
        else:
            assert payload["simulation"]["parameters"] == nested(depth)
            kept.append(depth)
    assert kept == [10, 99]
    await world.api.data("{ simulations { edges { node { parameters } } nodes { parameters } } }")


BEYOND = "a whole number beyond 64 bits: send it as text"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 12345678901234567890123])
async def test_whole_numbers_beyond_64_bits_are_refused_and_named(world: World, number: int) -> None:
    """They became doubles, and the program was given other numbers than its user had sent."""
    for mutation, given in (
        ("createSimulation", {"parameters": {"seed": [number]}}),
        ("createSweep", {"parameters": [{"name": "seed", "choices": [1, number]}]}),
    ):
        whole = {**WHOLE[f"{mutation[0].upper()}{mutation[1:]}Input"], **given}
        [error] = (await world.api.data(document(mutation), {"input": whole}))["userErrors"]
        assert error["field"] == ["parameters"]
        assert error["message"] == f'parameters: has {number}, {BEYOND}, "{number}"'
    literal = f'{{entrypoint: ["true"], parameters: {{seed: {number}}}}}'
    payload = await world.api.data(f"mutation {{ createSimulation(input: {literal}) {{ userErrors {{ message }} }} }}")
    [error] = payload["userErrors"]
    assert error["message"] == f'parameters: has {number}, {BEYOND}, "{number}"'


async def test_whole_numbers_of_64_bits_and_doubles_are_kept(world: World) -> None:
    query = (
        "mutation ($input: CreateSimulationInput!) "
        "{ createSimulation(input: $input) { simulation { parameters } userErrors { message } } }"
    )
    for parameters in ({"a": 2**64 - 1, "b": -(2**63)}, {"a": 1e22, "b": str(2**64 + 1)}):
        given = {"entrypoint": ["true"], "parameters": parameters}
        payload = await world.api.data(query, {"input": given})
        assert payload == {"simulation": {"parameters": parameters}, "userErrors": []}


async def test_a_machine_that_is_deleted_while_a_simulation_names_it(
    world: World, sessions: async_sessionmaker[AsyncSession]
) -> None:
    number = await world.machine("gone soon")
    before = await world.counts()
    given = {"entrypoint": ["true"], "resources": {"machine": encode("Machine", number)}}
    async with sessions() as deletion:
        await machines.delete_idle(deletion, number, Actor("ada"))
        creating = asyncio.create_task(attempted(world.api, "createSimulation", given))
        blocked = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        async with asyncio.timeout(60):
            while await world.select(blocked) != [(1,)]:
                await asyncio.sleep(0.005)
        await deletion.commit()
        assert await creating == [("NOT_FOUND", ["resources", "machine"])]
    assert (await world.counts())["simulations"] == before["simulations"]


# --- lists -----------------------------------------------------------------------------------------------------

LISTS = {  # every field that pages, and how it is asked for
    "Query.simulations": "{{ simulations({}) {{ pageInfo {{ endCursor }} }} }}",
    "Query.machines": "{{ machines({}) {{ pageInfo {{ endCursor }} }} }}",
    "Query.projects": "{{ projects({}) {{ pageInfo {{ endCursor }} }} }}",
    "Query.tokens": "{{ tokens({}) {{ pageInfo {{ endCursor }} }} }}",
    "Query.budgets": "{{ budgets({}) {{ pageInfo {{ endCursor }} }} }}",
    "Query.alertTargets": "{{ alertTargets({}) {{ pageInfo {{ endCursor }} }} }}",
    "AlertTarget.deliveries": "{{ alertTargets {{ nodes {{ deliveries({}) {{ pageInfo {{ endCursor }} }} }} }} }}",
    "Query.sweeps": "{{ sweeps({}) {{ pageInfo {{ endCursor }} }} }}",
    "Sweep.trials": "{{ sweeps(first: 1) {{ nodes {{ trials({}) {{ pageInfo {{ endCursor }} }} }} }} }}",
    "Plan.machines": "{{ plan {{ machines({}) {{ pageInfo {{ endCursor }} }} }} }}",
    "Simulation.files": "{{ simulations(first: 1) {{ nodes {{ files({}) {{ pageInfo {{ endCursor }} }} }} }} }}",
    "Simulation.logs": "{{ simulations(first: 1) {{ nodes {{ logs({}) {{ pageInfo {{ endCursor }} }} }} }} }}",
}
CREATE_SWEEP = """
mutation {
  createSweep(input: {
    simulation: {entrypoint: ["x", "{lr}"]}, parameters: [{name: "lr", low: 0, high: 1}], objective: {metric: "loss"},
    trials: 1
  }) { userErrors { message } }
}
"""
CURSORS = (
    "",
    "nonsense",
    "%%%",
    "ünïcode",
    "W10",
    "WzFd" * 100,
    "1-1-1-1",
    "-1-1-1",
    "1--1-1",
    f"1-1-{2**31}",
    "a\\u0000b",
)


def test_every_field_that_pages_is_named_here() -> None:
    paging = {
        f"{kind.name}.{name}"
        for kind in GRAPH.type_map.values()
        if isinstance(kind, GraphQLObjectType)
        for name, field in kind.fields.items()
        if isinstance(field.args.get("first"), GraphQLArgument)
    }
    assert paging == LISTS.keys()


@pytest.mark.parametrize("field", LISTS)
async def test_pages_that_can_not_be_given(world: World, field: str, subtests: pytest.Subtests) -> None:
    await world.simulation()
    await world.api.data(CREATE_ALERT_TARGET)
    assert await world.api.data(CREATE_SWEEP) == {"userErrors": []}
    arguments = [f"first: {first}" for first in (0, -1, 501, 10**9, -(2**31), 2**31, 10**30)]
    arguments += [f'after: "{cursor}"' for cursor in CURSORS]
    for argument in arguments:
        with subtests.test(argument[:40]):
            response = await world.api.client.post("/graphql", json={"query": LISTS[field].format(argument)})
            errors = response.json()["errors"]
            assert errors
            assert "Something went wrong" not in str(errors)
