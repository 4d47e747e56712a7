"""Fuzzing: thousands of generated operations against a real process on a real database.

hypothesis-graphql makes documents that are valid, and documents with one mistake; the values of variables are made
here, of the right type, at its bounds, and hostile. Whatever comes: an answer below 500 with few errors, with nothing
of the inside in it, and no defect in the log. FUZZ_OPERATIONS=10000 takes that many of each kind, and new ones each
time. How long an answer takes is not asked, but how many functions are called for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

import orjson
import pytest
from effort import FUZZ_IS_NEW, FUZZ_OPERATIONS
from graph_schema import SCHEMA
from graphql import (
    FloatValueNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    IntValueNode,
    ListValueNode,
    NameNode,
    ObjectFieldNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import Mode, mutations, queries
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from work import Work, counting

from db.public_ids import encode
from graph.server import MESSAGE_BYTES

Api = Any  # the fixtures of conftest.py
World = Any
Test = TypeVar("Test", bound=Callable[..., Any])

LARGE_BYTES = 100_000  # of a body, from which on calls are counted: it has room for mistakes without end
MOST_CALLS = 1_500_000  # of functions, at both ends of a request with as many values as are let through
MOST_ERRORS = 60  # in an answer, however many mistakes were made
SECONDS = 60  # a bound for what takes milliseconds: the machine may be busy
GRAPH = SCHEMA._schema
INSIDES = re.compile(
    r"asyncpg|sqlalchemy|psycopg|Traceback|File \"|\.py\b|site-packages|SELECT .+ FROM|INSERT INTO|object at 0x|"
    r"something went wrong|NoneType|pydantic",
    re.IGNORECASE,
)


def fuzzed(share: float = 1.0) -> Callable[[Test], Test]:
    """The same operations each time, or as many new ones as are asked for."""
    return settings(
        max_examples=max(1, int(FUZZ_OPERATIONS * share)),
        derandomize=not FUZZ_IS_NEW,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )


# --- values ----------------------------------------------------------------------------------------------------

KINDS = ("Simulation", "Machine", "Project", "Attempt", "Token")
IDS = [encode(kind, number) for kind in KINDS for number in (1, 2)] + [
    encode("Simulation", 0), encode("Simulation", 2**63 - 1), encode("Simulation", 2**63), encode("Simulation", -1),
    encode("Nonsense", 1), "U2ltdWxhdGlvbjo=", "U2ltdWxhdGlvbjoxIA==", "OjE=", "1", "", "=", "\0", "x" * 5_000,
]  # fmt: skip
TEXTS = [
    *("", " ", "\0", "a\0b", "\n", "\r\nSet-Cookie: a=b", "\x1b[31m", "\u202e", "\ufeff", "\U0001f4a5", "é", "\x7f"),
    *("\ud800", "'; DROP TABLE simulations; --", '"', "\\", "%", "_%", "${jndi:ldap://x}", "{{7*7}}", "%s%n"),
    *("../../../etc/passwd", "/dev/null", "<script>alert(1)</script>", "null", "true", "NaN", "-0", "1e999", "[]"),
    *("`id`", "$(reboot)"),
    *("default", "STDOUT", "RUNNING", "loss", "local", "x" * 199, "x" * 200, "x" * 201, "x" * 70_000, "🙂" * 300),
]  # fmt: skip
CURSORS = ["MQ", "MS4x", "WzFd", "W251bGwsIDFd", "WyJ4IiwxXQ", "1.1", "1.999999999999999999999", "-1.-1", "W10", "e30"]
INTS = [
    *range(-2, 3),
    100,
    499,
    500,
    501,
    100_000,
    100_001,
    2**31 - 1,
    2**31,
    -(2**31),
    2**53,
    2**53 + 1,
    2**63,
    10**40,
    10**450,
    10**4_200,
]
NUMBERS = [0.0, -0.0, 0.1, 1e-320, 1e308, -1e308, 1.5, 2.0**53, 99_999.999_999_9]
TIMES = ["2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01", "now", ""]
DECIMALS = [
    "0",
    "-1",
    "2.5",
    "1e5",
    "NaN",
    "Infinity",
    "-0",
    "1" * 30,
    "0." + "1" * 30,
    "1_000",
    "٣",
    " 1",
    "",
    "1e999999999",
]


ENORMOUS = [[item] * 400_000 for item in ({}, "", None)]  # as many mistakes as a body has room for


def deep(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


texts = st.sampled_from(TEXTS) | st.sampled_from(IDS) | st.sampled_from(CURSORS) | st.text(max_size=40)
anything = st.recursive(
    st.none() | st.booleans() | st.sampled_from(INTS) | st.sampled_from(NUMBERS) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
) | st.sampled_from(
    [
        deep(150, lambda inner: [inner]),
        deep(900, lambda inner: {"a": inner}),
        ["x"] * 3_000,
        dict.fromkeys(map(str, range(3_000)), 1),
    ]
)
columns = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.lists(st.sampled_from(INTS) | anything, max_size=4),
        "values": st.lists(st.sampled_from([*NUMBERS, "NaN", "Infinity", None, 1e400]) | anything, max_size=4),
        "elapsed": st.lists(st.sampled_from(NUMBERS) | anything, max_size=4),
        "more": anything,
    },
)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "Int": st.sampled_from(INTS) | st.integers(-5, 600),
    "Float": st.sampled_from(NUMBERS) | st.sampled_from(INTS) | st.floats(),
    "String": texts,
    "ID": st.sampled_from(IDS) | texts | st.integers(-1, 3),
    "Boolean": st.booleans(),
    "Step": st.sampled_from(INTS),
    "Decimal": st.sampled_from(DECIMALS) | st.sampled_from(INTS) | st.sampled_from(NUMBERS),
    "DateTime": st.sampled_from(TIMES),
    "JSON": anything,
    "PointColumns": st.dictionaries(texts, columns | anything, max_size=3) | anything,
}  # fmt: skip


def values(kind: GraphQLInputType) -> st.SearchStrategy[Any]:
    """Mostly of the type, sometimes of none."""
    if isinstance(kind, GraphQLNonNull):
        return values(kind.of_type)
    if isinstance(kind, GraphQLList):
        some = st.lists(values(kind.of_type), max_size=4)
        fitting = st.integers(0, 19).flatmap(lambda dice: st.sampled_from(ENORMOUS) if dice == 0 else some)
    elif isinstance(kind, GraphQLEnumType):
        fitting = st.sampled_from(list(kind.values))
    elif isinstance(kind, GraphQLInputObjectType):
        inside = {name: values(each.type) for name, each in kind.fields.items()}
        required = {name for name, each in kind.fields.items() if isinstance(each.type, GraphQLNonNull)}
        fitting = st.fixed_dictionaries(
            {name: inside[name] for name in inside if name in required},
            optional={name: inside[name] for name in inside if name not in required},
        )
    else:
        fitting = SCALARS[kind.name]
    return st.integers(0, 39).flatmap(lambda dice: anything if dice == 0 else st.none() if dice == 1 else fitting)


def literal(value: Any) -> ValueNode:
    """A value as it stands in a document."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return StringValueNode(value=str(value).encode("utf-8", "replace").decode())
    if isinstance(value, int):
        return IntValueNode(value=str(value))
    if isinstance(value, float):
        return FloatValueNode(value=repr(value) if value == value and abs(value) < 1e309 else "1e999")
    if isinstance(value, list):
        return ListValueNode(values=tuple(map(literal, value[:50])))
    named = [(f"k{number}", each) for number, each in enumerate(list(value.values())[:50])]
    return ObjectValueNode(
        fields=tuple(ObjectFieldNode(name=NameNode(value=name), value=literal(each)) for name, each in named)
    )


shallow = st.none() | st.booleans() | st.sampled_from(INTS) | st.sampled_from(NUMBERS) | texts
LITERALS = {
    "ID": st.sampled_from(IDS).map(literal),
    "Step": st.sampled_from(INTS).map(literal),
    "Decimal": st.sampled_from(DECIMALS).map(literal),
    "DateTime": SCALARS["DateTime"].map(literal),
    "JSON": (st.dictionaries(texts, shallow, max_size=3) | shallow).map(literal),
    "PointColumns": (st.dictionaries(texts, columns, max_size=2) | shallow).map(literal),
}


# --- documents with variables ----------------------------------------------------------------------------------


def leaves(kind: Any, depth: int = 2) -> str:
    """A selection of all that can be selected without an argument."""
    named = get_named_type(kind)
    if is_leaf_type(named):
        return ""
    if not isinstance(named, GraphQLObjectType):
        return "{ __typename id }"
    chosen = ["__typename"]
    for name, field in named.fields.items():
        if any(isinstance(each.type, GraphQLNonNull) and not has_default(each) for each in field.args.values()):
            continue
        if is_leaf_type(get_named_type(field.type)):
            chosen.append(name)
        elif depth and not isinstance(get_nullable_type(field.type), GraphQLList):
            chosen.append(f"{name} {leaves(field.type, depth - 1)}")
        elif name in ("nodes", "edges", "userErrors", "series", "metrics"):
            chosen.append(f"{name} {leaves(field.type, 0)}")
    return "{ " + " ".join(chosen) + " }"


def has_default(argument: Any) -> bool:
    return argument.default is not None or "Undefined" not in repr(argument.default_value)


def documents(kind: str) -> Iterator[tuple[str, GraphQLField, str]]:
    """(name, field, document) of each root field, with a variable for each argument."""
    root = getattr(GRAPH, f"{kind}_type")
    for name, field in root.fields.items():
        declared = ", ".join(f"${each}: {argument.type}" for each, argument in field.args.items())
        given = ", ".join(f"{each}: ${each}" for each in field.args)
        head = f"{kind} ({declared})" if declared else kind
        yield name, field, f"{head} {{ {name}{f'({given})' if given else ''} {leaves(field.type)} }}"


def requests(*kinds: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """Operations with values for their variables, some of which are left out."""
    return st.one_of(
        *(
            st.tuples(
                st.just(document),
                st.fixed_dictionaries({}, optional={name: values(each.type) for name, each in field.args.items()})
                | st.fixed_dictionaries({name: values(each.type) for name, each in field.args.items()}),
            )
            for kind in kinds
            for _, field, document in documents(kind)
        )
    )


def is_json(text: str) -> bool:
    """To the letter: Python's own writes NaN, and half a character."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


# --- and what must not happen ----------------------------------------------------------------------------------


class Wall:
    """Sends operations, and judges what comes back."""

    def __init__(self, api: Api, caplog: pytest.LogCaptureFixture) -> None:
        self.api = api
        self._caplog = caplog

    async def send(self, query: str, variables: Any = None) -> None:
        body = json.dumps(
            {"query": query, "variables": variables}
        )  # NaN and lone surrogates as they are: they may come
        with capture_logs() as logged, counting() if len(body) > LARGE_BYTES else nullcontext(Work()) as work:
            async with asyncio.timeout(SECONDS):
                response = await self.api.client.post(
                    "/graphql", content=body, headers={"content-type": "application/json"}
                )
        assert work.calls < MOST_CALLS, f"{len(body)} bytes held up the process"
        self.judge(response.text, logged)
        assert response.status_code < 500, response.text[:500]
        assert len(response.json().get("errors") or ()) <= MOST_ERRORS, f"of {len(body)} bytes"

    def judge(self, answer: str, logged: Any) -> None:
        found = INSIDES.search(answer)
        assert found is None, answer[max(0, found.start() - 300) : found.end() + 300]
        failures = [entry for entry in logged if entry["log_level"] in ("error", "critical")]
        assert failures == [], failures
        records = [record for record in self._caplog.records if record.levelno >= logging.ERROR]
        assert records == [], records


@pytest.fixture
async def wall(api: Api, world: World, caplog: pytest.LogCaptureFixture) -> Wall:
    await (await world.running()).loss(0, 1, 2)
    await world.in_state("FINISHED")
    return Wall(api, caplog)


@pytest.mark.timeout(0)
@fuzzed()
@given(query=st.deferred(lambda: queries(GRAPH, custom_scalars=LITERALS)))
async def test_valid_queries_are_answered(wall: Wall, query: str) -> None:
    await wall.send(query)


@pytest.mark.timeout(0)
@fuzzed(0.5)
@given(query=st.deferred(lambda: queries(GRAPH, custom_scalars=LITERALS, mode=Mode.NEGATIVE, codec=None)))
async def test_queries_with_a_mistake_are_answered(wall: Wall, query: str) -> None:
    await wall.send(query)


@pytest.mark.timeout(0)
@fuzzed()
@given(query=st.deferred(lambda: mutations(GRAPH, custom_scalars=LITERALS)))
async def test_valid_mutations_are_answered(wall: Wall, query: str) -> None:
    await wall.send(query)


@pytest.mark.timeout(0)
@fuzzed(0.5)
@given(query=st.deferred(lambda: mutations(GRAPH, custom_scalars=LITERALS, mode=Mode.NEGATIVE, codec=None)))
async def test_mutations_with_a_mistake_are_answered(wall: Wall, query: str) -> None:
    await wall.send(query)


@pytest.mark.timeout(0)
@fuzzed(2)
@given(request_=requests("query", "mutation"))
async def test_hostile_values_are_answered(wall: Wall, request_: tuple[str, dict[str, Any]]) -> None:
    await wall.send(*request_)


@pytest.mark.timeout(0)
@fuzzed(0.4)
@given(request_=requests("subscription"))
async def test_subscriptions_with_hostile_values_are_answered(wall: Wall, request_: tuple[str, dict[str, Any]]) -> None:
    """The first answer, or none yet; the socket goes on in any case."""
    query, variables = request_
    frames = [
        {"type": "connection_init"},
        {"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}},
        {"id": "2", "type": "subscribe", "payload": {"query": "{ viewer { name } }"}},
    ]
    answers = []
    with capture_logs() as logged:
        async with (
            asyncio.timeout(SECONDS),
            connect(
                wall.api.socket_address, subprotocols=["graphql-transport-ws"], compression=None, proxy=None
            ) as connection,  # type: ignore[list-item]  # a plain string is a subprotocol
        ):
            for frame in frames:
                await connection.send(json.dumps(frame))
            with suppress(ConnectionClosedError):
                async for text in connection:
                    answers.append(str(text))
                    message = json.loads(text)
                    if message["type"] == "ping":
                        await connection.send('{"type": "pong"}')
                    if message.get("id") == "2" and message["type"] == "complete":
                        break
    wall.judge("".join(answers), logged)
    if max(len(json.dumps(frame)) for frame in frames) > MESSAGE_BYTES:
        assert connection.close_code == 1009  # RFC 6455: too big to be read
    elif is_json(json.dumps(frames)):
        assert any('"id":"2"' in answer for answer in answers), (answers, connection.close_code)
    else:
        assert connection.close_code == 4400
