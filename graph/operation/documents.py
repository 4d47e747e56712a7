"""The cache of documents: each text of an operation is parsed and validated once.

The cache keeps what depends neither on the viewer nor on variables: the document, and that it is valid. Only valid
documents are kept, so no verdict of one viewer can reach another. The store is bounded in entries and in tokens; a text
that is new pushes out the one that was not asked for longest, and a big one is not kept at all.

It is an extension of the schema, so HTTP, WebSocket and SSE have the same checks. Its refusals go to
`pre_execution_errors`; it never raises. (Strawberry's own caches keep a document whatever its size, and its limiters
visit a fragment again for each spread.)
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    ValidationContext,
    validate,
)
from graphql.validation import OverlappingFieldsCanBeMergedRule, specified_rules
from graphql.validation.validate import ValidationAbortedError
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graph.errors import Hidden, SafeError, TooCostly, TooLarge
from graph.live.turns import turns
from graph.operation.complexity import cost_of
from graph.operation.introspection import introspects, may_introspect
from graph.operation.limits import Limits, breaches
from graph.operation.values import Kinds, kinds_of, too_many

CACHED_DOCUMENTS = 512  # different texts; a dashboard and its programs have some dozens
CACHED_TOKENS = 60_000  # of all of them, about 35 MB: a token takes up to 600 bytes with its node
MOST_TOKENS = 1_000  # of a document that is kept
COLLECT_AFTER = 2_000  # characters of new documents; the pages and the command line send the same ones again
CHARACTERS_PER_TOKEN = 16  # a long string or comment weighs as much as so many tokens
MOST_ERRORS = 8  # of one document; then its validation ends: each may print an object of 1,500 tokens, in 3 ms
MOST_COMPARISONS = 5_000  # 10 ms; documents of the pages and the command line need 14 at most
TOO_MANY_COMPARISONS = "An operation selects the same fields too often: name each once, or use fewer fragments."


class FewComparisons(OverlappingFieldsCanBeMergedRule):
    """Whether fields of one name can be merged, given up sooner: it compares them in pairs, in fragments and below.

    graphql-core ends it after half a million steps, which take a second; 4.7 kB of nested fields have room for that.
    """

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context.remaining_complexity_budget = MOST_COMPARISONS


RULES = (  # as Strawberry has them, but one
    *(FewComparisons if rule is OverlappingFieldsCanBeMergedRule else rule for rule in specified_rules),
    MaybeNullValidationRule,
    OneOfInputValidationRule,
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A valid document, and what else is known of it."""

    document: DocumentNode
    introspects: bool
    variables: Mapping[str | None, Kinds]  # the types of each operation's
    costs: dict[str | None, int] = field(default_factory=dict)  # of operations whose cost no variable changes


class Documents:
    """The documents of one schema that were asked for last."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tokens = 0
        self._kept: OrderedDict[str, tuple[Judged, int]] = OrderedDict()
        self._parsed = 0  # characters since the last collection of what earlier documents left

    def note_parsed(self, characters: int) -> None:
        """Count a text that is about to be parsed, and free what those before it left, some at a time.

        Tokens are a cycle, and so are the rules of validation: 4.7 kB leave 13,000 objects, and each takes 1 us to
        free. Left to the thresholds they pile up, while a document lives also in the oldest generation, until one
        collection frees 50,000 to 200,000 of them.
        """
        self._parsed += characters
        if self._parsed > COLLECT_AFTER:
            self._parsed = 0
            gc.collect(1)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, text: str) -> Judged | None:
        """A document that was kept."""
        found = self._kept.get(text)
        if found is None:
            return None
        self._kept.move_to_end(text)
        return found[0]

    def keep(self, text: str, judged: Judged) -> None:
        """Keep a document, unless it is big, and forget what was not asked for longest."""
        weight = max(_tokens(judged.document), len(text) // CHARACTERS_PER_TOKEN)
        if weight > MOST_TOKENS or text in self._kept:
            return
        self._kept[text] = (judged, weight)
        self.tokens += weight
        while len(self._kept) > CACHED_DOCUMENTS or self.tokens > CACHED_TOKENS:
            _, (_, lost) = self._kept.popitem(last=False)
            self.tokens -= lost


def _tokens(document: DocumentNode) -> int:
    token, count = document.loc.start_token if document.loc is not None else None, 0
    while token is not None:
        token, count = token.next, count + 1
    return count


class Judgement(SchemaExtension):
    """Checks one operation, and returns its cost in `extensions.cost`."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._judged: Judged | None = None
        self._cost: int | None = None

    async def on_parse(self) -> AsyncIterator[None]:
        """Put a document into place, or leave it to Strawberry to parse the text as far as the limits go."""
        operation = self.execution_context
        operation.parse_options.update(self._documents.limits.parse_options)  # type: ignore[typeddict-item]  # passed on
        self._judged = self._documents.find(operation.query or "")
        if self._judged is not None:
            operation.graphql_document = self._judged.document
        else:
            await self._take_turn()
            self._documents.note_parsed(len(operation.query or ""))
        yield

    async def on_validate(self) -> AsyncIterator[None]:
        if self._judged is None:
            await self._take_turn()
        self.execution_context.pre_execution_errors = list(self._refusals())
        yield

    def get_results(self) -> dict[str, Any]:
        """The cost; not with each event of a subscription, whose readers know it from the first error or not at all."""
        if self._cost is None or self.execution_context.operation_type.value == OperationType.SUBSCRIPTION.value:
            return {}
        return {"cost": {"requested": self._cost, "maximum": self._documents.limits.cost}}

    async def _take_turn(self) -> None:
        """Wait until a turn of the loop has room: to parse 4.7 kB takes 10 ms, and to validate them 20."""
        await turns.pause()
        turns.spend(min(len(self.execution_context.query or ""), self._documents.limits.characters))

    def _refusals(self) -> Sequence[GraphQLError]:
        operation, limits = self.execution_context, self._documents.limits
        document = operation.graphql_document
        assert document is not None
        assert operation.query is not None
        open_to_viewer = may_introspect(operation.context)
        judged = self._judged
        if judged is None:
            schema: GraphQLSchema = operation.schema._schema
            errors = breaches(document, limits) or _mistakes(schema, document, hide_suggestions=not open_to_viewer)
            if errors:
                return errors
            judged = Judged(document, introspects(document), _variables(schema, document))
            self._documents.keep(operation.query, judged)
        if judged.introspects and not open_to_viewer:
            return [Hidden("The schema is shown to those who are logged in.")]
        too_long = too_many(judged.variables.get(operation.operation_name) or {}, operation.variables)
        return [too_long] if too_long is not None else self._costs_too_much(judged)

    def _costs_too_much(self, judged: Judged) -> Sequence[SafeError]:
        operation, limits = self.execution_context, self._documents.limits
        self._cost = judged.costs.get(operation.operation_name)
        if self._cost is None:
            cost = cost_of(operation.schema._schema, judged.document, operation.operation_name, operation.variables)
            if cost is not None:
                self._cost = cost.value
                if cost.is_fixed:
                    judged.costs[operation.operation_name] = cost.value
        if self._cost is not None and self._cost > limits.cost:
            return [TooCostly(self._cost, limits.cost)]
        return []


def _mistakes(schema: GraphQLSchema, document: DocumentNode, *, hide_suggestions: bool) -> Sequence[GraphQLError]:
    errors = validate(schema, document, RULES, MOST_ERRORS, hide_suggestions=hide_suggestions)
    return [
        TooLarge(TOO_MANY_COMPARISONS)
        if isinstance(error, ValidationAbortedError) and error.message == "Validation aborted."
        else error
        for error in errors
    ]


def _variables(schema: GraphQLSchema, document: DocumentNode) -> Mapping[str | None, Kinds]:
    return {
        node.name.value if node.name else None: kinds_of(schema, node)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    }
