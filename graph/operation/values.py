"""Limit on the values that the variables of an operation hold, counted before any of them is coerced.

Coercion visits each item of a list and each field of an input once to find the price and again to execute: 2 us for an
id, 6 us for a stretch of log, and a body has room for 900,000. So they are counted first, by the lengths of lists and
objects: counting looks into as many of them as may be coerced, and no further. Scalars are one value whatever they
hold, for coercion takes them as they are; points and JSON, which may be long, are counted where they are checked
(transitions/report.py, types/inputs.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

from graphql import (
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLSchema,
    OperationDefinitionNode,
    get_nullable_type,
    is_input_type,
    is_leaf_type,
    type_from_ast,
)

from graph.errors import TooLarge

MOST_VALUES = 10_000  # 20 to 60 ms, alone; the largest report of a supervisor has 3,000
SPARE_FIELDS = 50  # of an input that are none: GraphQL names each of so few

Kinds: TypeAlias = Mapping[str, GraphQLInputType]


def kinds_of(schema: GraphQLSchema, operation: OperationDefinitionNode) -> Kinds:
    """The types of an operation's variables, by name. operation: of a valid document."""
    kinds = {}
    for node in operation.variable_definitions or ():
        kind = type_from_ast(schema, node.type)
        if is_input_type(kind):
            kinds[node.variable.name.value] = kind
    return kinds


def too_many(kinds: Kinds, values: object) -> TooLarge | None:
    """Return an error if these values, which are not coerced yet, are too many; else None."""
    given = values if isinstance(values, dict) else {}
    found = 0
    waiting: list[tuple[GraphQLInputType, object]] = [
        (kind, given[name]) for name, kind in kinds.items() if name in given
    ]
    while waiting:
        asked, value = waiting.pop()
        kind = get_nullable_type(asked)
        if isinstance(kind, GraphQLList) and isinstance(value, list):
            found += len(value)
            if found <= MOST_VALUES and not is_leaf_type(get_nullable_type(kind.of_type)):
                waiting.extend((kind.of_type, each) for each in value)
        elif isinstance(kind, GraphQLList):
            waiting.append((kind.of_type, value))  # one item stands for a list of it
        elif isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
            if len(value) > len(kind.fields) + SPARE_FIELDS:
                return TooLarge(f"{kind.name} has {len(kind.fields)} fields, and {len(value):,} are given for one.")
            found += len(value)
            waiting.extend((inner, value[name]) for name, inner in _holding_more(kind) if name in value)
        if found > MOST_VALUES:
            return TooLarge(
                f"The variables of an operation have at most {MOST_VALUES:,} items and fields, and these have at "
                f"least {found:,}."
            )
    return None


@lru_cache(maxsize=256)
def _holding_more(kind: GraphQLInputObjectType) -> tuple[tuple[str, GraphQLInputType], ...]:
    """The fields of an input that may hold more than one value: lists and inputs."""
    return tuple(
        (name, field.type) for name, field in kind.fields.items() if not is_leaf_type(get_nullable_type(field.type))
    )
