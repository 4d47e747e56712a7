"""Limits on operations before they are executed: the size of the text, and the cost with the variables' values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from graph_schema import SCHEMA
from graphql import (
    GraphQLList,
    GraphQLObjectType,
    get_introspection_query,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    parse,
    print_ast,
)
from work import counting

from cli import documents
from graph.operation.complexity import FEW, metadata_of
from graph.operation.documents import MOST_ERRORS
from graph.operation.limits import Limits

Api = Any  # the fixtures of conftest.py

MOST_CALLS = 1_000_000  # of functions, for what is refused; the worst document of the fewest limits takes a third


async def judged(query: str, variables: Mapping[str, Any] | None = None) -> Any:
    """The result of an operation that fails sooner or later, for it has no context to be executed in."""
    with counting() as work:
        result = await SCHEMA.execute(query, dict(variables or {}))
    assert work.calls < MOST_CALLS
    return result


async def refusals(query: str, variables: Mapping[str, Any] | None = None) -> list[str]:
    return [error.message for error in (await judged(query, variables)).errors]


async def cost(query: str, **variables: Any) -> int:
    result = await judged(query, variables)
    assert result.extensions, result.errors
    return int(result.extensions["cost"]["requested"])


def doubling(kind: str, spread: str, leaf: str, times: int = 100) -> str:
    """Fragments, each of which holds the next one twice."""
    each = "".join(f"fragment f{n} on {kind} {{ {spread.replace('NEXT', f'...f{n + 1}')} }} " for n in range(times))
    return f"{each}fragment f{times} on {kind} {{ {leaf} }}"


TOO_LARGE = {
    "aliases": ("{" + " ".join(f"a{n}: __typename" for n in range(51)) + "}", "50 aliases, and this one has 51"),
    "root fields": ("{" + " viewer { name }" * 21 + "}", "20 root fields, and this one has 21"),
    "directives": ("{ viewer { name" + " @skip(if: false)" * 51 + "} }", "50 directives, and this one has 51"),
    "directives of variables": ("query (" + "$v: Int @x " * 51 + ") { viewer { name } }", "50 directives"),
    "depth": (
        '{ simulation(id: "x") ' + "{ retryOf " * 16 + "{ id }" + "}" * 16 + "}",
        "16 levels of fields, and this one has 18",
    ),
    "depth through fragments": (
        "{ simulation(id: 1) { ...f0 } } " + doubling("Simulation", "retryOf { NEXT }", "id", 20),
        "16 levels of fields, and this one has 22",
    ),
    "introspection in depth": ("{ __schema { types" + "{ ofType" * 20 + "{ name }" + "}" * 20 + "} }", "16 levels"),
    "fields that double": (
        "{ viewer { ...f0 } } " + doubling("Viewer", "NEXT NEXT", "name"),
        "2,000 fields, and this one has more than 1,000,000,000",
    ),
    "root fields that double": ("{ ...f0 } " + doubling("Query", "NEXT NEXT", "viewer { name }"), "20 root fields"),
    "fragments that are not spread": (
        "{ viewer { name } } fragment f on Query {" + " a: viewer { name }" * 51 + "}",
        "50 aliases",
    ),
    "a number of many digits": (
        "{ simulations(first: " + "9" * 5_000 + ") { nodes { id } } }",
        "400 digits in a number",
    ),
    "a default of many digits": ("query ($v: Float = -1." + "9" * 5_000 + ") { viewer { name } }", "400 digits"),
    "tokens": ("{" + " viewer" * 2_000 + "}", "more than 1500 tokens"),
    "a million aliases": ("{" + " a: __typename" * 1_000_000 + "}", "more than 65536"),
    "characters": ('{ node(id: "' + "x" * 70_000 + '") { id } }', "more than 65536"),
    "fields that are merged again and again": (
        '{ simulation(id: "x") {' + ("retryOf { id " * 14 + "}" * 14) * 25 + "} }",
        "selects the same fields too often",
    ),
    "fields that are merged at each level": (
        '{ simulation(id: "x") {' + "retryOf { id machine { id } project { id } } " * 100 + "} }",
        "selects the same fields too often",
    ),
    "fragments that are merged": (
        "{ viewer {"
        + "".join(f" ...f{n}" for n in range(120))
        + " } }"
        + "".join(f" fragment f{n} on Viewer {{ name role }}" for n in range(120)),
        "selects the same fields too often",
    ),
    "comments": ("#\n" * 10_000 + "{ viewer { name } }", "more than 1500 tokens"),
}


@pytest.mark.parametrize(("query", "sentence"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
async def test_an_operation_that_is_too_large_is_refused_fast_and_told_the_limit(query: str, sentence: str) -> None:
    result = await judged(query)
    assert any(sentence in error.message for error in result.errors), result.errors
    assert result.data is None


FOLLIES = {
    "a cycle of fragments": "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
    "a fragment in itself": "{ ...a } fragment a on Query { viewer { name } ...a }",
    "a cycle below fields": '{ simulation(id: "x") { ...a } } fragment a on Simulation { retryOf { ...a } }',
    "a fragment that is not there": "{ ...a }",
    "literals in literals": "{ nodes(ids: " + "[" * 300 + "]" * 300 + ") { id } }",
    "objects in objects": "{ simulations(orderBy: " + "{field: " * 300 + "NAME" + "}" * 300 + ") { nodes { id } } }",
    "selections in selections": "{ viewer " * 300 + "}" * 300,
    "a list of types": "query ($v: " + "[" * 300 + "Int" + "]" * 300 + ") { viewer { name } }",
    "recursive introspection": "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }",
    "many fragments in a row": "{ viewer { ...f0 } } " + doubling("Viewer", "NEXT", "name", 180),
    "the same field again and again": "{ viewer {" + " name" * 1_400 + "} }",
    "the same object again and again": '{ simulation(id: "x") {' + " machine { id }" * 350 + "} }",
}


@pytest.mark.parametrize("query", FOLLIES.values(), ids=FOLLIES.keys())
async def test_what_only_wastes_time_is_answered_fast(query: str) -> None:
    assert (await judged(query)).errors


def nested(depth: int, wrap: str) -> Any:
    return json.loads(f'{{"{wrap}":' * depth + "1" + "}" * depth) if wrap else json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize("depth", [10, 150, 900])
async def test_variables_that_are_nested_deeply_are_answered_fast(depth: int) -> None:
    query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    assert "$ids" in (await refusals(query, {"ids": nested(depth, "")}))[0] or depth > 150
    query = "query ($order: SimulationOrder) { simulations(orderBy: $order) { nodes { id } } }"
    assert await refusals(query, {"order": nested(depth, "field")})
    query = "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } } }"
    assert await refusals(query, {"input": {"entrypoint": nested(depth, "")}})


async def test_of_a_document_with_many_mistakes_the_first_are_told() -> None:
    told = await refusals("{ viewer {" + " ".join(f"unknown{n}" for n in range(1_000)) + "} }")
    assert len(told) == MOST_ERRORS + 1
    assert "unknown0" in told[0]
    assert "Too many" in told[-1]


MANY = 600_000  # a body has room for so many


async def test_values_with_mistakes_without_end_are_answered_fast() -> None:
    query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    assert 0 < len(await refusals(query, {"ids": [{}] * MANY})) < 100
    query = "query ($states: [SimulationState!], $n: Int) { simulations(states: $states, first: $n) { nodes { id } } }"
    assert 0 < len(await refusals(query, {"states": [""] * MANY, "n": 1})) < 100
    query = "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } } }"
    assert 0 < len(await refusals(query, {"input": {str(number): 1 for number in range(MANY)}})) < 100


COSTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "scalars cost nothing": ("{ viewer { name role } __typename }", {}, 1),
    "a connection costs its rows": ("{ simulations(first: 7) { nodes { id name } } }", {}, 1 + 7),
    "an order and a filter cost more": (
        '{ simulations(first: 7, orderBy: {field: COST}, filter: {text: "x"}) { nodes { id } } }',
        {},
        1 + 7 + 20,
    ),
    "as many as the argument's default": ("{ simulations { nodes { id } } }", {}, 1 + 50),
    "edges are objects too": ("{ simulations(first: 7) { edges { cursor node { id } } } }", {}, 1 + 7 * 2),
    "what is not a row costs once": ("{ simulations(first: 7) { pageInfo { endCursor } totalCount } }", {}, 1 + 1 + 10),
    "children times rows": (
        "{ simulations(first: 7) { nodes { machine { id } project { name } } } }",
        {},
        1 + 7 * (1 + 2),
    ),
    "rows times rows": (
        "{ simulations(first: 7) { nodes { logs(first: 9) { nodes { text } } } } }",
        {},
        1 + 7 * (2 + 9 * 11),
    ),
    "lists without an argument": ('{ simulation(id: "x") { attempts { machine { id } } } }', {}, 1 + 1 + 4 * 2),
    "as many as there are ids": ('{ nodes(ids: ["a", "b", "c"]) { id } }', {}, 1 + 3),
    "one id is a list of one": ('{ nodes(ids: "a") { id } }', {}, 1 + 1),
    "no more than a resolver lets pass": ("{ simulations(first: 2000000000) { nodes { id } } }", {}, 1 + 500),
    "no less than nothing": ("{ simulations(first: -5) { nodes { id } } }", {}, 1),
    "points": ('{ simulation(id: "x") { convergence(metric: "m", maxPoints: 5000) { steps } } }', {}, 1 + 10 + 50),
    "points of many curves": (
        '{ curves(ids: ["a", "b"], metric: "m", maxPoints: 500) { cursor curve { steps } } }',
        {},
        1 + 2 * (1 + 5 + 10),
    ),
    "points by default": ('{ simulation(id: "x") { convergence(metric: "m") { steps } } }', {}, 1 + 10 + 10),
    "a variable": ("query ($n: Int!) { simulations(first: $n) { nodes { id } } }", {"n": 7}, 1 + 7),
    "a variable, coerced": ("query ($n: Int!) { simulations(first: $n) { nodes { id } } }", {"n": 7.0}, 1 + 7),
    "a variable's default": ("query ($n: Int! = 7) { simulations(first: $n) { nodes { id } } }", {}, 1 + 7),
    "the argument's default": ("query ($n: Int) { simulations(first: $n) { nodes { id } } }", {}, 1 + 50),
    "ids in a variable": ("query ($i: [ID!]!) { nodes(ids: $i) { id } }", {"i": ["a", "b"]}, 1 + 2),
    "one id in a variable": ("query ($i: [ID!]!) { nodes(ids: $i) { id } }", {"i": "a"}, 1 + 1),
    "ids of which one is variable": ('query ($i: ID!) { nodes(ids: [$i, "b"]) { id } }', {"i": "a"}, 1 + 2),
    "what is skipped": ("{ viewer { name } simulations @skip(if: true) { nodes { id } } }", {}, 1),
    "what is not included": ("{ viewer { name } ... @include(if: false) { simulations { nodes { id } } } }", {}, 1),
    "what a variable skips": (
        "query ($s: Boolean!) { viewer { name } simulations @skip(if: $s) { nodes { id } } }",
        {"s": True},
        1,
    ),
    "what a variable does not skip": (
        "query ($s: Boolean!) { viewer { name } simulations @skip(if: $s) { nodes { id } } }",
        {"s": False},
        1 + 51,
    ),
    "what a default includes": (
        "query ($s: Boolean! = true) { ...f @include(if: $s) } fragment f on Query { simulations { nodes { id } } }",
        {},
        51,
    ),
    "fragments": (
        "{ simulations(first: 7) { ...c } } "
        "fragment c on SimulationConnection { nodes { ...s } pageInfo { endCursor } } "
        "fragment s on Simulation { machine { id } }",
        {},
        1 + 1 + 7 * 2,
    ),
    "fragments on the types of an interface": (
        '{ node(id: "x") { ... on Simulation { machine { id } } ... on Machine { name } } }',
        {},
        1 + 1,
    ),
    "what may be long": (
        "{ simulations(first: 7) { nodes { entrypoint parameters name } } }",
        {},
        1 + 7 * (1 + 10 + 10),
    ),
    "a mutation": (
        'mutation { cancelSimulation(input: {id: "x"}) { simulation { id } userErrors { message } } }',
        {},
        10 + 1 + 1,
    ),
}


@pytest.mark.parametrize(("query", "variables", "expected"), COSTS.values(), ids=COSTS.keys())
async def test_an_operation_is_priced(query: str, variables: dict[str, Any], expected: int) -> None:
    assert await cost(query, **variables) == expected


LOGS = "query ($n: Int!, $m: Int! = 500) { simulations(first: $n) { nodes { logs(first: $m) { nodes { text } } } } }"


async def test_the_same_document_is_allowed_with_some_values_and_refused_with_others() -> None:
    assert await cost(LOGS, n=1) == 1 + 1 + 1 + 500 * 11
    result = await judged(LOGS, {"n": 500})
    (error,) = result.errors
    assert "at most 10,000" in error.message
    assert "would cost 2,751,001" in error.message
    asked = {"requested": 1 + 500 * (2 + 500 * 11), "maximum": 10_000}
    assert error.extensions == {"code": "COST_EXCEEDED", "cost": asked}
    assert result.extensions == {"cost": asked}
    assert await cost(LOGS, n=500, m=1) == 1 + 500 * (2 + 11)


async def test_fragments_that_double_are_priced_fast_even_with_variables() -> None:
    bomb = doubling("Simulation", "x: retryOf { NEXT } y: retryOf { NEXT }", "logs(first: $n) { nodes { text } }", 7)
    query = f'query ($n: Int!) {{ simulation(id: "x") {{ ...f0 }} }} {bomb}'
    assert "would cost 704,383" in (await refusals(query, {"n": 500}))[0]


async def test_values_that_do_not_fit_are_refused_for_what_they_are() -> None:
    query = "query ($n: Int!) { simulations(first: $n) { nodes { id } } }"
    for values in ({}, {"n": None}, {"n": "many"}, {"n": 2**40}, {"n": [1]}):
        (sentence,) = await refusals(query, values)
        assert "Variable '$n'" in sentence


async def test_each_operation_of_a_document_has_its_own_price() -> None:
    query = "query A { viewer { name } } query B { simulations(first: 3) { nodes { id } } }"
    costs = [(await SCHEMA.execute(query, operation_name=name)).extensions for name in "AB"]
    assert [each and each["cost"]["requested"] for each in costs] == [1, 4]


async def test_the_explorers_introspection_is_allowed() -> None:
    for options in ({}, {"specified_by_url": True, "directive_is_repeatable": True, "schema_description": True}):
        result = await judged(get_introspection_query(input_value_deprecation=True, **options))
        assert result.errors is None
        assert result.extensions["cost"]["requested"] < 5_000
    assert SCHEMA.introspect()


VALUES = {
    "first": 500, "after": None, "states": ["RUNNING"], "project": None, "id": "x", "name": "x", "metrics": None,
    "input": {"entrypoint": ["true"], "id": "x"},
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in vars(documents) if name.isupper() and not name.startswith("_")])
async def test_every_document_of_the_command_line_is_allowed(name: str) -> None:
    limits = Limits()
    result = await judged(print_ast(parse(getattr(documents, name))), VALUES)
    codes = [(error.extensions or {}).get("code") for error in result.errors or ()]
    assert not {"LIMIT_EXCEEDED", "COST_EXCEEDED"} & set(codes), result.errors
    if result.extensions:
        assert result.extensions["cost"]["requested"] <= limits.cost


def test_every_list_has_a_price_on_purpose() -> None:
    """A new list of objects needs an argument that bounds it, or a place in the table."""
    types = SCHEMA._schema.type_map
    for kind in types.values():
        if not isinstance(kind, GraphQLObjectType) or kind.name.startswith("__") or kind.name.endswith("Connection"):
            continue
        for name, field in kind.fields.items():
            is_list = isinstance(get_nullable_type(field.type), GraphQLList)
            if is_list and is_composite_type(get_named_type(field.type)):
                priced = "ids" in field.args or name == FEW or "size" in metadata_of(field)
                assert priced, f"{kind.name}.{name} is a list of unknown length: give its field metadata with a size"
            if get_named_type(field.type).name.endswith("Connection"):
                assert "first" in field.args, f"{kind.name}.{name} is a connection without `first`"
            unknown = metadata_of(field).keys() - {"argument_costs", "cost", "size"}
            assert not unknown, f"{kind.name}.{name} has metadata that nothing reads: {unknown}"


# --- the same on every transport -------------------------------------------------------------------------------

COSTLY = "{ simulations(first: 500) { nodes { logs(first: 500) { nodes { text } } } } }"
TOO_DEEP = TOO_LARGE["depth"][0]


async def test_the_cost_is_told_with_each_answer_over_http(api: Api) -> None:
    answer = await api.execute("{ simulations(first: 7) { nodes { id } } }")
    assert answer == {
        "data": {"simulations": {"nodes": []}},
        "extensions": {"cost": {"requested": 8, "maximum": 10_000}},
    }


@pytest.mark.parametrize(("query", "code"), [(COSTLY, "COST_EXCEEDED"), (TOO_DEEP, "LIMIT_EXCEEDED")])
async def test_limits_hold_over_http_and_over_websockets(api: Api, query: str, code: str) -> None:
    response = await api.client.post("/graphql", json={"query": query})
    assert [error["extensions"]["code"] for error in response.json()["errors"]] == [code]
    async with api.subscribe(query) as answers:
        with pytest.raises(Exception, match=code):
            await anext(answers)


async def test_a_subscription_is_judged_before_it_begins(api: Api) -> None:
    logs = "logs(first: 500) { nodes { text } }"
    query = f"subscription {{ simulationChanged {{ machine {{ simulations {{ {logs} retryOf {{ {logs} }} }} }} }} }}"
    async with api.subscribe(query) as answers:
        with pytest.raises(Exception, match="would cost 110,052"):
            await anext(answers)
    results = [result async for result in await SCHEMA.stream(query)]
    assert len(results) == 1
    assert results[0].errors
