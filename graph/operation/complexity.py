"""Complexity: the highest cost of an operation, in objects to load, computed before it is executed.

An object costs 1 and a scalar nothing; a connection costs its children `first` times, another list as often as its
argument says or as `SIZES` expects, and `maxPoints` a point in a hundred. What does more work than loading a row, or
may be long, has a price of its own in `PRICES`. Fragments, `@skip`, `@include` and the coerced values of variables
count as in the execution, except that a field selected twice costs twice.

A document is compiled once, each fragment once, to a sum that only the variables can still change; so the price of a
request is a handful of additions. Money is `cost.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from graphql import (
    BooleanValueNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLArgument,
    GraphQLField,
    GraphQLList,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableDefinitionNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    get_variable_values,
    is_composite_type,
)

from db.pages import MAX_PAGE
from graph.operation.limits import CEILING, MOST_POINTS

POINTS_PER_OBJECT = 100
MOST_NODES = 500  # `nodes` refuses more
ACTION = 10  # a mutation writes, a subscription stays
INTROSPECTED = 10  # each field of it, whatever lists it lies in: they are as long as the schema, not as the data
PRICES: Mapping[str, int] = {
    "Query.__schema": 100,
    "Query.__type": 100,
    "Query.costs": 100,  # adds up all attempts of a time
    "Budget.account": 10,  # adds up what ended in the last hour
    "Simulation.convergence": 10,  # reads a whole curve to thin it
    "Simulation.forecast": 20,  # reads a whole curve, and at first those of similar runs
    "MachineConnection.totalCount": 10,
    "SimulationConnection.totalCount": 10,  # counts every row that the filter finds
    # Up to 64 KiB each, read only if they are asked for: an answer has at most some 100 MB of them.
    "LogChunk.text": 10,
    "Simulation.entrypoint": 10,
    "Simulation.parameters": 10,
    "Simulation.environment": 10,
    "Simulation.source": 10,
}
# How long lists are that no argument bounds, as a rule: what comes with a row and is not paged.
SIZES: Mapping[str, int] = {
    "AlertTarget.projects": 3,
    "Simulation.alerts": 4,
    "Simulation.alertTargets": 2,
    "Simulation.attempts": 4,
    "Simulation.events": 20,
    "Simulation.metrics": 10,
    "Simulation.metricsPatterns": 3,
    "Simulation.notices": 3,
    "Stopping.rules": 2,
    "Stopping.wouldHaveStopped": 1,
    "Machine.simulations": 10,
    "ConvergenceEvent.series": 10,
    "Budget.events": 20,
    "Costs.rows": 100,
    "Costs.totals": 1,
    "Token.projects": 3,
    "Viewer.projects": 3,
}
SIZE = 10  # of a list that has no entry of its own
FEW = "userErrors"  # in each payload: almost always none

Amount: TypeAlias = "int | Callable[[_Request], int]"


@dataclass(slots=True)
class _Request:
    """The values that the amounts of one request depend on, and what its fragments came to."""

    variables: Mapping[str, Any]
    known: dict[tuple[str, bool], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Price:
    """Of one operation: an amount, or a sum over variables."""

    schema: GraphQLSchema
    amount: Amount
    variables: Sequence[VariableDefinitionNode]

    def of(self, values: object) -> int | None:
        """The cost with these values of variables; None if they don't fit, for which the execution has a better error.

        So the first mistake ends it: each is told at length, and a body has room for half a million.
        """
        if isinstance(self.amount, int):
            return self.amount
        given = values if isinstance(values, dict) else {}
        coerced = get_variable_values(self.schema, self.variables, given, max_errors=1)
        return None if isinstance(coerced, list) else self.amount(_Request(coerced.coerced))


def prices(schema: GraphQLSchema, document: DocumentNode) -> Mapping[str | None, Price]:
    """The price of each operation, by its name. document: valid."""
    compiler = _Compiler(schema, document)
    found = {}
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            amount = compiler.operation(node)
            used = [each for each in node.variable_definitions or () if each.variable.name.value in compiler.names]
            found[node.name.value if node.name else None] = Price(schema, amount, used)
    return found


@dataclass(frozen=True, slots=True)
class _Parts:
    """The cost of a selection: once, and for each row of its connection."""

    once: Amount = 0
    each: Amount = 0


class _Compiler:
    """Turns the selections of one document into amounts."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._spreads: dict[str, _Parts] = {}
        self.names = set[str]()  # of the variables that an amount depends on

    def operation(self, node: OperationDefinitionNode) -> Amount:
        root = self._schema.get_root_type(node.operation)
        assert root is not None
        return self._selected(node.selection_set, root).once

    def _selected(self, selections: SelectionSetNode, parent: GraphQLNamedType) -> _Parts:
        once: list[Amount] = []
        each: list[Amount] = []
        for node in selections.selections:
            parts = self._part(node, parent)
            conditions = list(self._conditions(node))
            once.append(_under(conditions, parts.once))
            each.append(_under(conditions, parts.each))
        return _Parts(_sum(once), _sum(each))

    def _part(self, node: SelectionNode, parent: GraphQLNamedType) -> _Parts:
        if isinstance(node, FieldNode):
            amount = self._field(node, parent)
            return _Parts(each=amount) if _is_row(node, parent) else _Parts(once=amount)
        if isinstance(node, FragmentSpreadNode):
            return self._spread(node.name.value)
        assert isinstance(node, InlineFragmentNode)
        condition = node.type_condition
        narrowed = self._schema.get_type(condition.name.value) if condition is not None else parent
        return self._selected(node.selection_set, narrowed or parent)

    def _spread(self, name: str) -> _Parts:
        known = self._spreads.get(name)
        if known is None:
            fragment = self._fragments[name]
            kind = self._schema.get_type(fragment.type_condition.name.value)
            assert kind is not None
            parts = self._selected(fragment.selection_set, kind)
            known = _Parts(_remembered((name, False), parts.once), _remembered((name, True), parts.each))
            self._spreads[name] = known
        return known

    def _field(self, node: FieldNode, parent: GraphQLNamedType) -> Amount:
        name = node.name.value
        definition = self._schema.get_field(parent, name)  # type: ignore[arg-type]  # it has fields: it is valid
        if definition is None or name == "__typename":
            return 0
        kind = get_named_type(definition.type)
        inside = self._selected(node.selection_set, kind) if node.selection_set is not None else _Parts()
        if parent.name.startswith("__"):
            return _sum([INTROSPECTED, inside.once])
        coordinate = f"{parent.name}.{name}"
        own: list[Amount] = [PRICES.get(coordinate, self._usual(parent, kind))]
        if "maxPoints" in definition.args:
            points = self._argument(node, definition, "maxPoints", MOST_POINTS)
            own.append(_quotient(points, POINTS_PER_OBJECT))
        if "first" in definition.args:
            rows = self._argument(node, definition, "first", MAX_PAGE)
            return _sum([*own, inside.once, _product(rows, inside.each)])
        is_list = is_composite_type(kind) and isinstance(get_nullable_type(definition.type), GraphQLList)
        if is_list and not _is_row(node, parent):
            inside = _Parts(_product(self._length(node, definition, coordinate), _sum([1, inside.once])))
        return _sum([*own, inside.once])

    def _usual(self, parent: GraphQLNamedType, kind: GraphQLNamedType) -> int:
        if parent in (self._schema.mutation_type, self._schema.subscription_type):
            return ACTION
        return int(is_composite_type(kind))

    def _length(self, node: FieldNode, definition: GraphQLField, coordinate: str) -> Amount:
        if "ids" in definition.args:
            return self._argument(node, definition, "ids", MOST_NODES)
        return SIZES.get(coordinate, 0 if node.name.value == FEW else SIZE)

    def _argument(self, node: FieldNode, definition: GraphQLField, name: str, most: int) -> Amount:
        """A number, or the length of a list, at most what its resolver lets pass."""
        default = _size(_default(definition.args[name]), most)
        given = next((each.value for each in node.arguments or () if each.name.value == name), None)
        if isinstance(given, VariableNode):
            variable = given.name.value
            self.names.add(variable)
            return lambda request: (
                _size(request.variables[variable], most) if variable in request.variables else default
            )
        return default if given is None else _size(_literal(given), most)

    def _conditions(self, node: SelectionNode) -> Iterable[Callable[[_Request], bool] | bool]:
        for directive in node.directives or ():
            if directive.name.value in ("skip", "include"):
                wanted = directive.name.value == "include"
                given = next(each.value for each in directive.arguments or ())
                if isinstance(given, BooleanValueNode):
                    yield given.value is wanted
                elif isinstance(given, VariableNode):
                    self.names.add(given.name.value)
                    yield _condition(given.name.value, wanted)


def _is_row(node: FieldNode, parent: GraphQLNamedType) -> bool:
    return parent.name.endswith("Connection") and node.name.value in ("nodes", "edges")


def _condition(variable: str, wanted: bool) -> Callable[[_Request], bool]:
    return lambda request: request.variables.get(variable) is wanted


def _default(argument: GraphQLArgument) -> object:
    return argument.default.value if argument.default is not None else argument.default_value


def _literal(given: ValueNode) -> object:
    if isinstance(given, IntValueNode):
        return int(given.value)
    return given.values if isinstance(given, ListValueNode) else getattr(given, "value", None)


def _size(value: object, most: int) -> int:
    if isinstance(value, list | tuple):
        return min(len(value), most)
    return max(0, min(value, most)) if isinstance(value, int) else 1 if isinstance(value, str) else 0


def _sum(amounts: Iterable[Amount]) -> Amount:
    fixed, open_ones = 0, list[Callable[[_Request], int]]()
    for amount in amounts:
        if isinstance(amount, int):
            fixed = min(CEILING, fixed + amount)
        else:
            open_ones.append(amount)
    if not open_ones:
        return fixed
    return lambda request: min(CEILING, fixed + sum([each(request) for each in open_ones]))


def _product(size: Amount, amount: Amount) -> Amount:
    if isinstance(size, int) and isinstance(amount, int):
        return min(CEILING, size * amount)
    return lambda request: min(CEILING, _worth(size, request) * _worth(amount, request))


def _quotient(amount: Amount, divisor: int) -> Amount:
    return amount // divisor if isinstance(amount, int) else lambda request: _worth(amount, request) // divisor


def _under(conditions: Sequence[Callable[[_Request], bool] | bool], amount: Amount) -> Amount:
    asked = [each for each in conditions if not isinstance(each, bool)]
    if amount == 0 or False in conditions:
        return 0
    if not asked:
        return amount
    return lambda request: _worth(amount, request) if all(each(request) for each in asked) else 0


def _remembered(key: tuple[str, bool], amount: Amount) -> Amount:
    """Of a fragment: worked out once in a request, however often it is spread."""
    if isinstance(amount, int):
        return amount

    def worth(request: _Request) -> int:
        known = request.known.get(key)
        if known is None:
            known = request.known[key] = amount(request)
        return known

    return worth


def _worth(amount: Amount, request: _Request) -> int:
    return amount if isinstance(amount, int) else amount(request)
