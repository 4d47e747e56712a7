"""Values of variables are counted before they are coerced; too many are refused without visiting each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from graph_schema import SCHEMA
from graphql import GraphQLID, GraphQLInputObjectType, OperationDefinitionNode, parse

from graph.operation.values import MOST_VALUES, SPARE_FIELDS, kinds_of, too_many
from transitions.report import MAX_LOG_CHUNKS

NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
STATES = "query ($states: [SimulationState!]) { simulations(states: $states) { nodes { id } } }"
CREATE = "mutation ($input: CreateSimulationInput!) { createSimulation(input: $input) { simulation { id } } }"
REPORT = "mutation ($input: ReportAttemptInput!) { reportAttempt(input: $input) { expectedBatch } }"
MANY = 900_000  # a body has room for so many


class Looks:
    """How many items of watched lists and objects were looked at."""

    count = 0


class List(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        for each in super().__iter__():
            Looks.count += 1
            yield each


class Object(dict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        for each in super().__iter__():
            Looks.count += 1
            yield each


# Made by the test that sends them: by themselves they are a tenth of all that is done and kept before the first test.
TOO_MANY: dict[str, tuple[str, Callable[[], Any]]] = {
    "ids": (NODES, lambda: {"ids": List(["a"] * MANY)}),
    "objects as ids": (NODES, lambda: {"ids": List([{}] * MANY)}),
    "lists as ids": (NODES, lambda: {"ids": List([[]] * MANY)}),
    "nulls": (NODES, lambda: {"ids": List([None] * MANY)}),
    "words that are no state": (STATES, lambda: {"states": List([""] * MANY)}),
    "unknown fields": (CREATE, lambda: {"input": Object({str(number): 1 for number in range(MANY)})}),
    "words of a command": (CREATE, lambda: {"input": {"entrypoint": List(["x"] * MANY)}}),
    "metrics": (
        CREATE, lambda: {"input": {"entrypoint": ["x"], "metrics": List([Object(name="x", mode="MIN")] * MANY)}},
    ),
    "unknown fields below": (
        CREATE,
        lambda: {"input": {"entrypoint": ["x"], "metrics": [Object({str(number): 1 for number in range(MANY)})]}},
    ),
    "stretches of log": (
        REPORT,
        lambda: {"input": {"attemptId": "x", "nonce": "n", "logs": List([Object(stream="STDOUT", text="")] * MANY)}},
    ),
    "fields of many objects": (
        CREATE,
        lambda: {"input": {"entrypoint": ["x"], "metrics": List([Object(name="x", mode="MIN")] * (MOST_VALUES // 2))}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("query", "made"), TOO_MANY.values(), ids=TOO_MANY.keys())
async def test_too_many_values_are_refused_before_any_is_coerced(
    query: str, made: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = made()
    coerced = []
    monkeypatch.setattr(GraphQLID, "coerce_input_value", coerced.append)
    Looks.count = 0
    result = await SCHEMA.execute(query, variables)
    assert result.errors is not None
    assert [(error.extensions or {}).get("code") for error in result.errors] == ["LIMIT_EXCEEDED"]
    assert Looks.count <= MOST_VALUES
    assert coerced == []


def found(query: str, variables: Any) -> Any:
    (node,) = parse(query).definitions
    assert isinstance(node, OperationDefinitionNode)
    return too_many(kinds_of(SCHEMA._schema, node), variables)


def test_as_many_as_may_be_are_let_through() -> None:
    assert found(NODES, {"ids": ["a"] * MOST_VALUES}) is None
    assert "10,001" in found(NODES, {"ids": ["a"] * (MOST_VALUES + 1)}).message
    assert found(NODES, {"ids": "one"}) is None
    assert found(NODES, {"ids": None}) is None
    assert found(NODES, None) is None
    assert found(NODES, {}) is None
    assert found(NODES, {"other": ["a"] * MANY}) is None, "what no variable takes is not coerced either"


def test_the_largest_report_and_a_mistake_more_have_room() -> None:
    chunks = [{"stream": "STDOUT", "text": ""}] * (MAX_LOG_CHUNKS + 1)
    points = {"loss": {"steps": [1] * 100_000, "values": [1] * 100_000, "elapsed": [1] * 100_000}}
    given = {"attemptId": "x", "nonce": "n", "batch": 1, "logs": chunks, "points": points}
    assert found(REPORT, {"input": given}) is None, "the report itself is refused, as one that it was"
    assert found(CREATE, {"input": {"entrypoint": ["x"], "parameters": {"a": [1] * MANY}}}) is None


def test_one_field_too_many_is_graphqls_to_name() -> None:
    kind = SCHEMA._schema.type_map["CreateSimulationInput"]
    assert isinstance(kind, GraphQLInputObjectType)
    few = {str(number): 1 for number in range(len(kind.fields) + SPARE_FIELDS)}
    assert found(CREATE, {"input": few}) is None
    assert "CreateSimulationInput" in found(CREATE, {"input": {**few, "x": 1}}).message
