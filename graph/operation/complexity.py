"""Complexity: the highest cost of an operation, in objects to load, computed before it is executed.

An object costs 1 and a scalar nothing; a connection costs its children `first` times, another list as often as its
argument says or as its field expects, and `maxPoints` a point in a hundred, of each curve. A field whose resolver does
more than load a row, or whose value may be long, has a cost of its own. Fragments, `@skip`, `@include` and the coerced
values of variables count as in the execution, except that a field selected twice costs twice.

Costs and expected sizes are metadata of the fields: `strawberry.field(metadata={"cost": 10})`, `{"size": 4}`, and
`{"argument_costs": {"filter": 10}}` for what an argument that is given adds.

One walk visits each field and each fragment once, and coerces only the variables that a size or a condition needs: once
per request, or once per document if it needs none. Money is `policy.cost`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    BooleanValueNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
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
    VariableNode,
    get_named_type,
    get_nullable_type,
    get_variable_values,
    is_composite_type,
)

from db.pages import MAX_PAGE
from graph.operation.limits import CEILING, MOST_POINTS

POINTS_PER_OBJECT = 100
MOST_NODES = 500  # `nodes` and `curves` refuse more
ACTION = 10  # a mutation writes, a subscription stays
INTROSPECTION = 100  # __schema and __type
INTROSPECTED = 10  # each field of them, whatever lists it lies in: they are as long as the schema, not as the data
SIZE = 10  # of a list whose field has no size
FEW = "userErrors"  # in each payload: almost always none


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of an operation. is_fixed: it is the same whatever the variables are."""

    value: int
    is_fixed: bool


def cost_of(
    schema: GraphQLSchema, document: DocumentNode, operation_name: str | None, variables: object
) -> Cost | None:
    """Return the cost of an operation of a valid document, at most `CEILING`.

    None if the document has no such operation, or if a variable does not fit: the execution has better errors for both.
    """
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if operation_name is None:
        chosen = operations[0] if len(operations) == 1 else None
    else:
        chosen = next((node for node in operations if node.name and node.name.value == operation_name), None)
    if chosen is None:
        return None
    root = schema.get_root_type(chosen.operation)
    assert root is not None, "the document is valid"
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    given = variables if isinstance(variables, dict) else {}
    try:
        walk = _Walk(schema, chosen, fragments, given)
        return Cost(walk.selected(chosen.selection_set, root).once, is_fixed=not walk.values)
    except _UnfitVariable:
        return None


def metadata_of(definition: GraphQLField) -> Mapping[Any, Any]:
    """Return the metadata that the field was declared with; introspection's fields have none."""
    declared = definition.extensions.get("strawberry-definition")
    return declared.metadata if declared is not None else {}


class _UnfitVariable(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Cost:
    """The cost of a selection: once, and for each row of its connection."""

    once: int = 0
    per_row: int = 0


@dataclass(slots=True)
class _Walk:
    """The cost of the selections of one operation."""

    schema: GraphQLSchema
    operation: OperationDefinitionNode
    fragments: Mapping[str, FragmentDefinitionNode]
    given: Mapping[str, Any]
    _spreads: dict[str, _Cost] = field(default_factory=dict)
    values: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # coerced; () where no value was given

    def selected(self, selections: SelectionSetNode, parent: GraphQLNamedType) -> _Cost:
        once = per_row = 0
        for node in selections.selections:
            if all(self._conditions(node)):
                cost = self._part(node, parent)
                once += cost.once
                per_row += cost.per_row
        return _Cost(min(CEILING, once), min(CEILING, per_row))

    def _part(self, node: SelectionNode, parent: GraphQLNamedType) -> _Cost:
        if isinstance(node, FieldNode):
            cost = self._field(node, parent)
            return _Cost(per_row=cost) if _is_row(node, parent) else _Cost(once=cost)
        if isinstance(node, FragmentSpreadNode):
            return self._spread(node.name.value)
        assert isinstance(node, InlineFragmentNode)
        condition = node.type_condition
        narrowed = self.schema.get_type(condition.name.value) if condition is not None else parent
        return self.selected(node.selection_set, narrowed or parent)

    def _spread(self, name: str) -> _Cost:
        known = self._spreads.get(name)
        if known is None:
            fragment = self.fragments[name]
            kind = self.schema.get_type(fragment.type_condition.name.value)
            assert kind is not None, "the document is valid"
            known = self._spreads[name] = self.selected(fragment.selection_set, kind)
        return known

    def _field(self, node: FieldNode, parent: GraphQLNamedType) -> int:
        name = node.name.value
        definition = self.schema.get_field(parent, name)  # type: ignore[arg-type]  # it has fields: it is valid
        if definition is None or name == "__typename":
            return 0
        kind = get_named_type(definition.type)
        inside = self.selected(node.selection_set, kind) if node.selection_set is not None else _Cost()
        if parent.name.startswith("__"):
            return INTROSPECTED + inside.once
        metadata = metadata_of(definition)
        own: int = INTROSPECTION if name.startswith("__") else metadata.get("cost", self._usual(parent, kind))
        costs: Mapping[str, int] = metadata.get("argument_costs", {})
        own += sum(costs.get(each.name.value, 0) for each in node.arguments or ())
        points = 0
        if "maxPoints" in definition.args:
            points = self._argument(node, definition, "maxPoints", MOST_POINTS) // POINTS_PER_OBJECT
        if "first" in definition.args:
            rows = self._argument(node, definition, "first", MAX_PAGE)
            return min(CEILING, own + points + inside.once + rows * inside.per_row)
        is_list = is_composite_type(kind) and isinstance(get_nullable_type(definition.type), GraphQLList)
        if is_list and not _is_row(node, parent):
            size: int = metadata.get("size", 0 if name == FEW else SIZE)
            if "ids" in definition.args:
                size = self._argument(node, definition, "ids", MOST_NODES)
            return min(CEILING, own + size * (1 + points + inside.once))
        return own + points + inside.once

    def _usual(self, parent: GraphQLNamedType, kind: GraphQLNamedType) -> int:
        if parent in (self.schema.mutation_type, self.schema.subscription_type):
            return ACTION
        return int(is_composite_type(kind))

    def _argument(self, node: FieldNode, definition: GraphQLField, name: str, most: int) -> int:
        """A number, or the length of a list, at most what its resolver lets pass."""
        argument = definition.args[name]
        default = argument.default.value if argument.default is not None else argument.default_value
        given = next((each.value for each in node.arguments or () if each.name.value == name), None)
        if isinstance(given, VariableNode):
            value = self._value(given.name.value)
            return _size(value[0] if value else default, most)
        return _size(default if given is None else _literal(given), most)

    def _conditions(self, node: SelectionNode) -> Iterable[bool]:
        for directive in node.directives or ():
            if directive.name.value in ("skip", "include"):
                wanted = directive.name.value == "include"
                given = next(each.value for each in directive.arguments or ())
                if isinstance(given, BooleanValueNode):
                    yield given.value is wanted
                elif isinstance(given, VariableNode):
                    yield self._value(given.name.value) == (wanted,)

    def _value(self, name: str) -> tuple[Any, ...]:
        """Coerce one variable, to a tuple of its value; empty if none was given and there is no default.

        The first mistake ends it: each is described at length, and a body has room for half a million.
        """
        known = self.values.get(name)
        if known is None:
            definitions = [
                each for each in self.operation.variable_definitions or () if each.variable.name.value == name
            ]
            values = get_variable_values(self.schema, definitions, dict(self.given), max_errors=1)
            if isinstance(values, list):
                raise _UnfitVariable
            known = self.values[name] = (values.coerced[name],) if name in values.coerced else ()
        return known


def _is_row(node: FieldNode, parent: GraphQLNamedType) -> bool:
    return parent.name.endswith("Connection") and node.name.value in ("nodes", "edges")


def _literal(given: ValueNode) -> object:
    if isinstance(given, IntValueNode):
        return int(given.value)
    return given.values if isinstance(given, ListValueNode) else getattr(given, "value", None)


def _size(value: object, most: int) -> int:
    if isinstance(value, list | tuple):
        return min(len(value), most)
    return max(0, min(value, most)) if isinstance(value, int) else 1 if isinstance(value, str) else 0
