"""Masked errors: no internals in an error, for any cause, place and time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from graphql import GraphQLBoolean, GraphQLError, GraphQLField, GraphQLInt, GraphQLNonNull, GraphQLString
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from graph.auth.viewer import LOOPBACK
from graph.errors import BadInput, NotFound
from graph.operation.documents import Judgement
from graph.schema import Schema, build_schema

MASK = "Something went wrong on the server."
SECRET = "SELECT secret FROM tokens -- File /srv/graph/secret.py, line 7"
CONTEXT = SimpleNamespace(viewer=LOOPBACK)


class Talkative(Exception):
    """Has what GraphQL would copy into an answer."""

    extensions = {"detail": SECRET}
    message = SECRET


DEFECTS: dict[str, BaseException] = {
    "an exception": RuntimeError(SECRET),
    "a statement": IntegrityError(SECRET, {"token": SECRET}, Exception(SECRET)),
    "one with extensions": Talkative(SECRET),
    "a defect in GraphQL's clothes": GraphQLError(SECRET, original_error=RuntimeError(SECRET)),
    "an error of GraphQL's own": GraphQLError(SECRET, extensions={"detail": SECRET}),
    "one that looks like a client's mistake": ValueError(f"Argument 'id' {SECRET}"),
    "an assertion": AssertionError(SECRET),
    "a recursion": RecursionError(SECRET),
    "a file": FileNotFoundError(2, SECRET, "/srv/secret"),
}


def raising(error: BaseException) -> Any:
    def resolve(*_: Any, **__: Any) -> Any:
        raise error

    return resolve


def answering(value: Any) -> Any:
    return lambda *_, **__: value


@pytest.fixture
def schema() -> Schema:
    return build_schema()


def told(result: Any) -> str:
    return str([error.formatted for error in result.errors or ()]) + str(result.extensions) + str(result.data)


def set_field(schema: Schema, resolve: Any, kind: Any = GraphQLString) -> None:
    query = schema._schema.query_type
    assert query is not None
    query.fields["broken"] = GraphQLField(kind, resolve=resolve)


@pytest.mark.parametrize("error", DEFECTS.values(), ids=DEFECTS.keys())
async def test_a_resolvers_defect_is_masked_and_logged_once(schema: Schema, error: BaseException) -> None:
    set_field(schema, raising(error))
    with capture_logs() as logged:
        result = await schema.execute("{ broken }", context_value=CONTEXT)
        (streamed,) = [each async for each in await schema.stream("{ broken }", context_value=CONTEXT)]
    for each in (result, streamed):
        assert "secret" not in told(each)
        (shown,) = each.errors or ()
        assert shown.formatted == {"message": MASK, "path": ["broken"], "locations": [{"line": 1, "column": 3}]}
    assert [entry["event"] for entry in logged] == ["resolver_failed"] * 2
    assert SECRET in str(logged[0]["exc_info"])


VALUES: dict[str, tuple[Any, Any]] = {
    "no number": (SECRET, GraphQLInt),
    "neither true nor false": (SECRET, GraphQLBoolean),
    "nothing": (None, GraphQLNonNull(GraphQLString)),
}


@pytest.mark.parametrize(("value", "kind"), VALUES.values(), ids=VALUES.keys())
async def test_a_value_that_can_not_be_told_is_not_quoted(schema: Schema, value: Any, kind: Any) -> None:
    set_field(schema, answering(value), kind)
    with capture_logs() as logged:
        result = await schema.execute("{ broken }", context_value=CONTEXT)
    assert [error.message for error in result.errors or ()] == [MASK]
    assert "secret" not in told(result)
    assert [entry["event"] for entry in logged] == ["resolver_failed"]


async def events(*then: Any) -> AsyncIterator[Any]:
    for each in then:
        if isinstance(each, BaseException):
            raise each
        yield each


# A bare GraphQLError out of a running generator has no path to know it by, and is told: our own are `SafeError`s.
IN_STREAMS = [(0, case) for case in DEFECTS] + [(1, case) for case in DEFECTS if "GraphQL's own" not in case]


@pytest.mark.parametrize(("before", "case"), IN_STREAMS)
async def test_a_subscriptions_defect_is_masked_whenever_it_comes(schema: Schema, before: int, case: str) -> None:
    error = DEFECTS[case]
    subscription = schema._schema.subscription_type
    assert subscription is not None
    source = (lambda *_, **__: events(*range(before), error)) if before else raising(error)
    subscription.fields["broken"] = GraphQLField(GraphQLInt, subscribe=source, resolve=lambda event, _: event)
    with capture_logs() as logged:
        results = [each async for each in await schema.stream("subscription { broken }", context_value=CONTEXT)]
    assert [each.data for each in results[:before]] == [{"broken": 0}] * before
    assert [shown.message for shown in results[-1].errors or ()] == [MASK]
    assert "secret" not in "".join(map(told, results))
    assert [entry["event"] for entry in logged] == ["resolver_failed"]


async def test_a_defect_outside_of_resolvers_is_masked(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judgement, "on_execute", raising(RuntimeError(SECRET)))
    with capture_logs() as logged:
        result = await schema.execute("{ __typename }", context_value=CONTEXT)
        (streamed,) = [each async for each in await schema.stream("{ __typename }", context_value=CONTEXT)]
    for each in (result, streamed):
        assert "secret" not in told(each)
        assert [error.message for error in each.errors or ()] == [MASK]
    assert [entry["event"] for entry in logged] == ["resolver_failed"] * 2


async def test_what_was_written_for_clients_is_told_as_it_is(schema: Schema) -> None:
    for error in (BadInput("The id is malformed."), NotFound("There is no such machine.")):
        set_field(schema, raising(error))
        with capture_logs() as logged:
            result = await schema.execute("{ broken }", context_value=CONTEXT)
        (shown,) = result.errors or ()
        assert shown.message == error.message
        assert shown.extensions == {"code": error.code}
        assert logged == []


async def test_a_clients_mistake_in_an_argument_is_told_where_it_is_found(schema: Schema) -> None:
    query = "query ($i: ID) { nodes(ids: [$i]) { id } }"
    with capture_logs() as logged:
        result = await schema.execute(query, {"i": None}, context_value=CONTEXT)
    (shown,) = result.errors or ()
    assert "'i'" in shown.message or "$i" in shown.message or "Argument 'ids'" in shown.message
    assert logged == []
