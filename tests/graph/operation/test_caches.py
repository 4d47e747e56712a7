"""Documents are parsed and validated once, kept within bounds, and keep no viewer's verdict for another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import strawberry.schema.schema as of_strawberry
from graphql import GraphQLError, parse

from graph.auth.viewer import LOOPBACK, STRANGER
from graph.operation import documents
from graph.operation.complexity import cost_of
from graph.operation.documents import CACHED_DOCUMENTS, CACHED_TOKENS, MOST_TOKENS, Documents, Judged
from graph.operation.introspection import hide_suggestion, may_introspect
from graph.operation.limits import Limits
from graph.schema import Schema, build_schema

ADMIN = SimpleNamespace(viewer=LOOPBACK)
ROLELESS = SimpleNamespace(viewer=STRANGER)
HELLO = "{ __typename }"


class Counts:
    """How often a text was parsed and a document validated."""

    def __init__(self) -> None:
        self.parsed = self.validated = 0

    @contextmanager
    def kept(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
        for module, name, counter in (
            (of_strawberry, "parse", "parsed"),
            (documents, "validate", "validated"),
        ):
            monkeypatch.setattr(module, name, self._counted(getattr(module, name), counter))
        yield self

    def _counted(self, function: Any, counter: str) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            setattr(self, counter, getattr(self, counter) + 1)
            return function(*arguments, **named)

        return counted

    @property
    def all(self) -> tuple[int, int]:
        return self.parsed, self.validated


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    with Counts().kept(monkeypatch) as counts:
        yield counts


@pytest.fixture
def schema() -> Schema:
    return build_schema()


async def test_a_document_is_parsed_and_validated_once(schema: Schema, counts: Counts) -> None:
    for _ in range(3):
        result = await schema.execute(HELLO, context_value=ADMIN)
        assert result.errors is None
    assert counts.all == (1, 1)
    assert (await schema.execute(HELLO + " ", context_value=ADMIN)).errors is None
    assert counts.all == (2, 2)


async def test_streaming_transports_share_what_is_kept(schema: Schema, counts: Counts) -> None:
    assert (await schema.execute(HELLO, context_value=ADMIN)).errors is None
    for _ in range(2):
        (result,) = [result async for result in await schema.stream(HELLO, context_value=ADMIN)]
        assert result.errors is None
        assert result.extensions == {"cost": {"requested": 0, "maximum": 10_000}}
    assert counts.all == (1, 1)


async def test_variables_are_priced_anew_with_a_kept_document(schema: Schema, counts: Counts) -> None:
    query = "query ($n: Int!, $s: Boolean!) { simulations(first: $n) @skip(if: $s) { nodes { id } } viewer { name } }"
    for rows, skipped, expected in ((3, False, 5), (400, False, 402), (400, True, 1), (3, False, 5)):
        result = await schema.execute(query, {"n": rows, "s": skipped})
        assert result.extensions == {"cost": {"requested": expected, "maximum": 10_000}}
    assert counts.all == (1, 1)


@pytest.mark.parametrize(
    ("text", "walks"),
    [
        ("query ($id: ID!) { simulation(id: $id) { name } }", 1),
        ("query ($n: Int) { simulations(first: $n) { nodes { name } } }", 3),
        ("query ($s: Boolean!) { __typename @skip(if: $s) viewer { name } }", 3),
    ],
)
async def test_a_cost_is_computed_once_unless_a_variable_changes_it(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, text: str, walks: int
) -> None:
    done: list[object] = []

    def counted(*arguments: Any) -> Any:
        done.append(arguments)
        return cost_of(*arguments)

    monkeypatch.setattr(documents, "cost_of", counted)
    variables = {"id": "x", "n": 1, "s": False}
    costs = [(await schema.execute(text, variables, context_value=ADMIN)).extensions for _ in range(3)]
    assert costs[0] is not None
    assert costs[0]["cost"]["requested"] > 0
    assert costs == [costs[0]] * 3
    assert len(done) == walks


async def test_what_is_refused_is_not_kept(schema: Schema, counts: Counts) -> None:
    for query in ("{ nonsense }", "{ viewer {", "{" + " viewer { name }" * 30 + "}"):
        before = counts.parsed
        for _ in range(2):
            assert (await schema.execute(query, context_value=ADMIN)).errors
        assert counts.parsed == before + 2


async def test_a_big_document_is_executed_and_not_kept(schema: Schema, counts: Counts) -> None:
    long = "{ viewer { name } } #" + "x" * 40_000
    many = "{ viewer {" + " name" * (MOST_TOKENS + 10) + " } }"
    for query in (long, many):
        before = counts.parsed
        for _ in range(2):
            await schema.execute(query, context_value=ADMIN)
        assert counts.parsed == before + 2


def judged(text: str) -> Judged:
    return Judged(parse(text), False, {})


def test_what_is_kept_is_bounded_in_entries_and_in_tokens() -> None:
    store = Documents(Limits())
    for number in range(CACHED_DOCUMENTS + 10):
        text = f"{{ a{number} }}"
        store.keep(text, judged(text))
        assert store.find("{ a0 }") or number > CACHED_DOCUMENTS  # what is asked for stays
    assert len(store) == CACHED_DOCUMENTS
    assert store.find("{ a1 }") is None
    long = judged("{" + " b" * (MOST_TOKENS - 10) + "}")  # parsed once: only its tokens count
    for number in range(200):
        store.keep("{" + f" b{number}" * (MOST_TOKENS - 10) + "}", long)
        assert store.tokens <= CACHED_TOKENS
    assert 0 < len(store) <= CACHED_TOKENS / (MOST_TOKENS - 10)
    assert store.find("{" + " b199" * (MOST_TOKENS - 10) + "}") is not None


# --- who may ask what the schema is like -----------------------------------------------------------------------


INTROSPECTIONS = (
    "{ __schema { types { name } } }",
    '{ __type(name: "Simulation") { name } }',
    "{ __typename ...f } fragment f on Query { ... on Query { again: __schema { types { name } } } }",
    "query A { __typename } query B { __schema { types { name } } }",
)


def test_a_viewer_with_a_role_may_introspect() -> None:
    assert may_introspect(ADMIN)
    assert may_introspect(None)  # the house itself
    assert not may_introspect(ROLELESS)


async def test_a_verdict_is_not_kept_for_another_viewer(schema: Schema) -> None:
    for query in INTROSPECTIONS:
        name = "B" if "query B" in query else None
        for context in (ADMIN, ROLELESS, ADMIN, ROLELESS):
            result = await schema.execute(query, context_value=context, operation_name=name)
            if context is ADMIN:
                assert result.errors is None
            else:
                assert result.data is None
                (error,) = result.errors or ()
                assert error.extensions == {"code": "INTROSPECTION_REFUSED"}
    assert (await schema.execute(HELLO, context_value=ROLELESS)).errors is None


MISTAKES = (
    ("{ viewer { nam } }", None),
    ("{ simulation { id } }", None),
    ("{ viewr { name } }", None),
    ("{ simulations(frist: 1) { nodes { id } } }", None),
    ("{ simulations(states: [RUNING]) { nodes { id } } }", None),
    ("{ node(id: 1) { ... on Simulatio { id } } }", None),
    ("{ node(id: 1) { entrypoint } }", None),
    ("query ($v: SimulationStat) { viewer { name } }", None),
    ("query ($s: [SimulationState!]) { simulations(states: $s) { nodes { id } } }", {"s": ["RUNING"]}),
    ("query ($o: SimulationOrder) { simulations(orderBy: $o) { nodes { id } } }", {"o": {"feild": "NAME"}}),
)


async def test_strangers_get_no_suggestions(schema: Schema) -> None:
    hinted = 0
    for query, variables in MISTAKES:
        for context in (ADMIN, ROLELESS, ADMIN):
            result = await schema.execute(query, variables, context_value=context)
            assert result.errors
            hints = "Did you mean" in str([error.message for error in result.errors])
            assert not (hints and context is ROLELESS), query
            hinted += hints
    assert hinted >= 2 * (len(MISTAKES) - 1)  # viewers with a role get them, before and after


def test_a_suggestion_is_cut_off_and_nothing_else() -> None:
    error = GraphQLError("Cannot query field 'x' on type 'Y'. Did you mean 'a',\n'b', or 'c'?")
    hide_suggestion(error)
    assert error.message == "Cannot query field 'x' on type 'Y'."
    assert error.formatted == {"message": "Cannot query field 'x' on type 'Y'."}
