"""The short way of the two documents that supervisors send: the answers of GraphQL's executor, without the executor.

A short simulation is two requests, a busy one twenty a second. For each of them the executor looks up every field and
every input again: half a millisecond on a quiet machine, where the short way takes 0.15. Here both are looked up once
for a document, and become functions: one makes the resolver's input of the coerced variables, one makes the JSON of
what the resolver returns.

It is taken by these texts alone, once the long way (Strawberry's) has found a text valid and its cost has turned out to
be fixed: so no limit is checked here that is not checked there. What is refused before the resolver is left to the long
way, which words it. An error of the resolver gets its place in the document, and is judged with all others
(`Schema.process_errors`). Other texts, as older supervisors send them, take the long way; the answers are the same byte
for byte (tests/graph/types/test_supervisor_documents.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from operator import attrgetter
from typing import Any, TypeAlias

from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    OperationDefinitionNode,
    get_variable_values,
    located_error,
)
from strawberry.schema.config import StrawberryConfig
from strawberry.types.base import StrawberryList, StrawberryOptional, get_object_definition

from graph.context import Context
from graph.live.shared_execution import paced
from graph.operation.documents import Judged
from graph.operation.permissions import ATTEMPT, require
from graph.operation.values import too_many
from graph.types.supervision import HelloAttemptInput, ReportAttemptInput, hello, report

HELLO = (  # as in runner/supervisor/service.py: a test compares them
    "mutation Hello($input: HelloAttemptInput!) { helloAttempt(input: $input) { attempt { id } verdict order { "
    "entrypoint environment workingDirectory maxRuntimeSeconds maxCostSeconds stopGraceSeconds heartbeatSeconds "
    "gpuIndices metricsFrom metricsPatterns tensorboard systemMetricsSeconds } userErrors { code message field } } }"
)
REPORT = (
    "mutation Report($input: ReportAttemptInput!) { reportAttempt(input: $input) { attempt { id } verdict stopReason "
    "orderChange { heartbeatSeconds maxRuntimeSeconds maxCostSeconds } expectedBatch "
    "userErrors { code message field } } }"
)

Resolver: TypeAlias = Callable[[Context, Any], Awaitable[object]]
Function: TypeAlias = Callable[[Any], Any]

RESOLVERS: Mapping[str, tuple[Resolver, type]] = {
    HELLO: (hello, HelloAttemptInput),
    REPORT: (report, ReportAttemptInput),
}


class ShortWay:
    """The short way of one text: a mutation of one field, whose only argument is `$input`."""

    def __init__(self, schema: GraphQLSchema, config: StrawberryConfig, text: str, judged: Judged) -> None:
        [operation] = judged.document.definitions
        assert isinstance(operation, OperationDefinitionNode)
        assert operation.name is not None
        [field] = operation.selection_set.selections
        assert isinstance(field, FieldNode)
        assert schema.mutation_type is not None
        self.operation_name = operation.name.value
        self._schema = schema
        self._variables = operation.variable_definitions or ()
        self._kinds = judged.variables[self.operation_name]
        self._field = field
        self._name = field.name.value
        self._resolve, kind = RESOLVERS[text]
        self._read = _reader(kind, config)
        self._write = _writer(schema.mutation_type.fields[self._name].type, field)

    async def execute(self, variables: object, context: Context) -> dict[str, Any] | GraphQLError | None:
        """Return the data, or the resolver's error. None if the long way has to refuse it: nothing was done."""
        if not isinstance(variables, dict) or too_many(self._kinds, variables) is not None:
            return None
        values = get_variable_values(self._schema, self._variables, variables, max_errors=1)
        if isinstance(values, list):
            return None
        try:
            require(context.viewer, ATTEMPT)
            payload = await paced(self._resolve(context, self._read(values.coerced["input"])))
            return {self._name: self._write(payload)}
        except Exception as error:  # noqa: BLE001  # each is judged by Schema.process_errors, as those of the long way
            return located_error(error, [self._field], [self._name])


def _reader(kind: Any, config: StrawberryConfig) -> Function:
    """Return a function that makes Strawberry's input of a coerced value."""
    if isinstance(kind, StrawberryOptional):
        read = _reader(kind.of_type, config)
        return lambda value: None if value is None else read(value)
    if isinstance(kind, StrawberryList):
        read_item = _reader(kind.of_type, config)
        return lambda values: [read_item(each) for each in values]
    definition = get_object_definition(kind)
    if definition is None:
        return lambda value: value  # a scalar or an enum: coerced already
    fields = [
        (config.name_converter.from_field(each), each.python_name, _reader(each.type, config))
        for each in definition.fields
    ]
    return lambda given: kind(**{name: read(given[key]) for key, name, read in fields if key in given})


def _writer(kind: Any, node: FieldNode) -> Function:
    """Return a function that makes JSON of a value of this type, of the fields that are selected."""
    if not isinstance(kind, GraphQLNonNull):
        write = _writer(GraphQLNonNull(kind), node)
        return lambda value: None if value is None else write(value)
    kind = kind.of_type
    if isinstance(kind, GraphQLList):
        write_item = _writer(kind.of_type, node)
        return lambda values: [write_item(each) for each in values]
    if isinstance(kind, GraphQLScalarType | GraphQLEnumType):
        coerce: Function = kind.coerce_output_value
        return coerce
    assert isinstance(kind, GraphQLObjectType)
    assert node.selection_set is not None
    fields = []
    for each in node.selection_set.selections:
        assert isinstance(each, FieldNode)
        field = kind.fields[each.name.value]
        read = attrgetter(field.extensions["strawberry-definition"].python_name)
        fields.append((each.name.value, read, _writer(field.type, each)))
    return lambda value: {name: write(read(value)) for name, read, write in fields}
