"""The private parts of other libraries that graph overrides or stands in for, as they were when ours were written.

When a library changes one of them, a test here fails and names our lines to read again. Read them, make them fit, and
record what the message says; SECURITY.md tells when that has to be quick. Three kinds are recorded:

    body         the override does not call `super`: whatever the library's body gains is missing in ours
    call         the override calls `super`: its parameters count, its body may change
    STANDS_FOR   functions of ours by another name that do the work of one of theirs, or go past it
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import strawberry
from graphql.execution.executor import Executor
from strawberry.schema import schema as strawberry_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.types.arguments import convert_argument
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from graph import context
from graph.app import Application
from graph.http import websocket
from graph.http.endpoint import Endpoint
from graph.live import shared_execution
from graph.live.shared_execution import ExecutionContext
from graph.operation import documents
from graph.schema import Schema
from graph.server import Server
from graph.types import supervisor_documents
from graph.types.convergence import Series
from graph.types.scalars import STEP, Step
from graph.wire import http as http_wire
from graph.wire import websocket as websocket_wire

ROOT = Path(__file__).parents[2]
BOUNDED = ("uvicorn", "websockets", "httptools", "graphql-core", "strawberry-graphql")

OURS: tuple[type, ...] = (
    http_wire.HttpWire, websocket_wire.Wire, Server,  # of uvicorn
    websocket.Handler, websocket.Adapter, Endpoint, Schema, documents.Judgement, context.Loader,  # of Strawberry
    ExecutionContext, documents.FewComparisons,  # of graphql-core
    Application,  # of Starlette
)  # fmt: skip
OVERRIDES: Mapping[str, str] = {
    "HttpWire.__init__": "call self, config, server_state, app_state, _loop=",
    "HttpWire.connection_made": "call self, transport",
    "HttpWire.connection_lost": "call self, exc",
    "HttpWire.data_received": "body 02c2572f1df5",
    "HttpWire._should_upgrade": "call self",
    "HttpWire.on_message_begin": "call self",
    "HttpWire.on_url": "call self, url",
    "HttpWire.on_header": "call self, name, value",
    "HttpWire.on_headers_complete": "call self",
    "HttpWire.on_message_complete": "call self",
    "HttpWire.on_response_complete": "call self",
    "HttpWire.on_body": "call self, body",
    "HttpWire.pause_writing": "call self",
    "HttpWire.resume_writing": "call self",
    "Wire.__init__": "call self, config, server_state, app_state, _loop=",
    "Wire.pause_writing": "call self",
    "Wire.resume_writing": "call self",
    "Wire.run_asgi": "call self",
    "Wire.shutdown": "call self",
    "Wire.connection_lost": "call self, exc",
    "Wire.data_received": "body 0d468d6299c9",
    "Wire.handle_events": "call self",
    "Wire.handle_ping": "call self",
    "Wire.handle_text": "call self, event",
    "Wire.handle_cont": "call self, event",
    "Wire.send_receive_event_to_app": "call self",
    "Server.__init__": "call self, config",
    "Server.shutdown": "call self, sockets=",
    "Handler.__init__": (
        "call self, view, websocket, context, root_value, schema, connection_init_wait_timeout, "
        "max_subscriptions_per_connection="
    ),
    "Handler.handle_message": "call self, message",
    "Handler.handle_connection_init": "call self, message",
    "Handler.handle_subscribe": "call self, message",
    "Handler.shutdown": "call self",
    "Handler.run_operation": "body e86f2efc3744",
    "Handler.handle_task_exception": "body 312cd87bbba9",
    "Adapter.__init__": "call self, view, request, response",
    "Adapter.iter_json": "body 4f63ce28a996",
    "Adapter.send_json": "body 5e29ebab090a",
    "Adapter.close": "body 358b3a23d12a",
    "Endpoint.__init__": (
        "call self, schema, graphql_ide=, allow_queries_via_get=, keep_alive=, keep_alive_interval=, "
        "subscription_protocols=, connection_init_wait_timeout=, multipart_uploads_enabled=, "
        "max_subscriptions_per_connection=, allowed_origins="
    ),
    "Endpoint.__call__": "call self, scope, receive, send",
    "Endpoint.get_context": "body eb12371616d4",
    "Endpoint.decode_json": "body 8e8d1590a7a4",
    "Endpoint.encode_json": "body 912b3af56d82",
    "Schema.execute": (
        "call self, query, variable_values=, context_value=, root_value=, operation_name=, allowed_operation_types=, "
        "operation_extensions="
    ),
    "Schema.introspect": "body 601be8f4a0ff",
    "Schema.process_errors": "body e066b9ef2127",
    "Judgement.__init__": "body d7dd435bdb04",
    "Judgement.on_parse": "body a520af4e23ec",
    "Judgement.on_validate": "body 6217845338cb",
    "Judgement.get_results": "body fa9354041121",
    "FewComparisons.__init__": "call self, context",
    "ExecutionContext.__init__": "call self, *args, **kwargs",
    "ExecutionContext.cancellable_iterable": "call self, iterable",
    "ExecutionContext.build_per_event_executor": "call self, payload",
    "ExecutionContext.execute_operation": "call self, serially=",
    "ExecutionContext.execute_fields": (
        "call self, parent_type, source_value, path, grouped_field_set, position_context"
    ),
    "ExecutionContext.complete_awaitable_value": (
        "call self, return_type, field_details_list, info, path, result, position_context"
    ),
    "ExecutionContext.complete_list_value": (
        "call self, return_type, field_details_list, info, path, result, position_context"
    ),
    "Loader.load": "call self, key",
    "Application.__init__": (
        "call self, debug=, routes=, middleware=, exception_handlers=, lifespan=, *, max_body_size="
    ),
    "Application.build_middleware_stack": "call self",
    "Application.__call__": "call self, scope, receive, send",
}
STANDS_FOR: Mapping[Callable[..., Any], tuple[Callable[..., Any], str]] = {
    http_wire.HttpWire._collect: (RequestResponseCycle.receive, "817bd782de41"),
    http_wire.HttpWire.end_intake: (HttpToolsProtocol.__init__, "264f2f067596"),
    websocket_wire.Wire.write: (WebSocketsSansIOProtocol.send, "560baa5c639d"),
    websocket_wire.Wire._give_up: (WebSocketsSansIOProtocol.send, "560baa5c639d"),
    websocket_wire.head_of: (Frame.serialize, "fa10dc1e86c0"),
    websocket.Handler._send_results: (BaseGraphQLTransportWSHandler._send_result_stream, "fc1a45862f59"),
    documents.Judgement.on_parse: (strawberry_schema._parse_operation_document, "6816c6ff52b3"),
    documents.Judgement._refusals: (strawberry_schema.validate_document, "c02c861b06ae"),
    documents.Judgement.on_validate: (strawberry_schema._run_validation, "8f2b2eef9b75"),
    supervisor_documents.ShortWay.execute: (Executor.execute_field, "55e3e73fe60b"),
    supervisor_documents._reader: (convert_argument, "a11a22f213be"),
    supervisor_documents._writer: (Executor.complete_value, "50a89bc339df"),
}


def digest(function: Callable[..., Any]) -> str:
    return sha256(textwrap.dedent(inspect.getsource(function)).encode()).hexdigest()[:12]


def parameters(function: Callable[..., Any]) -> str:
    """Names, stars and which of them may be left out: annotations are shown differently by each Python."""
    shown, keyword_only = [], False
    for each in inspect.signature(function).parameters.values():
        star = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            shown.append("*")
        keyword_only |= each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        shown.append(f"{star}{each.name}{'' if each.default is each.empty else '='}")
    return ", ".join(shown)


def calls_super(function: Callable[..., Any]) -> bool:
    """Whether it calls the method that it overrides."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == function.__name__
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "super"
        for node in ast.walk(tree)
    )


def overrides(kind: type) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    """Each method of a class of ours with the one of a library that it overrides."""
    for name, ours in vars(kind).items():
        if not isinstance(ours, FunctionType):
            continue
        theirs = next((vars(base)[name] for base in kind.__mro__[1:] if name in vars(base)), None)
        theirs = getattr(theirs, "__func__", theirs)
        if isinstance(theirs, FunctionType):
            yield ours, theirs


def seen(ours: Callable[..., Any], theirs: Callable[..., Any]) -> str:
    return f"call {parameters(theirs)}" if calls_super(ours) else f"body {digest(theirs)}"


def read_again(ours: Callable[..., Any], theirs: Callable[..., Any]) -> str:
    """What to do about a change: whose it is, and which of our lines depend on it."""
    library = theirs.__module__.partition(".")[0]
    package = {"graphql": "graphql-core", "strawberry": "strawberry-graphql"}.get(library, library)
    source, line = inspect.getsourcefile(ours), inspect.getsourcelines(ours)[1]
    assert source is not None
    return (
        f"{package} {version(package)} changed {theirs.__module__}.{theirs.__qualname__}: read again "
        f"{Path(source).relative_to(ROOT)}:{line} ({ours.__qualname__})"
    )


def test_every_override_is_of_what_the_library_had_when_it_was_written() -> None:
    found = {ours.__qualname__: (ours, theirs) for kind in OURS for ours, theirs in overrides(kind)}
    changed = [
        f"{read_again(ours, theirs)}, then record {name!r}: {seen(ours, theirs)!r}"
        for name, (ours, theirs) in found.items()
        if OVERRIDES.get(name) != seen(ours, theirs)
    ]
    assert not changed, "\n".join(changed)
    assert OVERRIDES.keys() == found.keys(), "recorded, and no override any more"


def test_what_stands_for_a_part_of_a_library_is_as_that_part_was() -> None:
    changed = [
        f"{read_again(ours, theirs)}, then record {digest(theirs)!r}"
        for ours, (theirs, recorded) in STANDS_FOR.items()
        if digest(theirs) != recorded
    ]
    assert not changed, "\n".join(changed)


def test_every_class_of_ours_below_a_bounded_library_is_compared() -> None:
    """A new subclass has to be listed, or its overrides would not be compared."""
    libraries = ("uvicorn", "websockets", "httptools", "graphql", "strawberry")
    modules = (http_wire, websocket_wire, websocket, shared_execution, documents, context)
    found = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
        if any(base.__module__.partition(".")[0] in libraries for base in each.__mro__[1:])
    }
    # A visitor is the public way to walk a document.
    assert found - set(OURS) == {shared_execution._VariableNames}


def test_the_rules_of_validation_are_those_that_strawberry_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    """graph/operation/documents.py validates in Strawberry's place (`RULES`), with a smaller budget for one rule."""

    @strawberry.type
    class Query:
        one: int = 1

    applied: list[tuple[type, ...]] = []

    def validate(_schema: Any, _document: Any, rules: tuple[type, ...]) -> list[Any]:
        applied.append(rules)
        return []

    monkeypatch.setattr(strawberry_schema, "validate", validate)
    strawberry.Schema(Query).execute_sync("{ one }", root_value=Query())
    theirs = {documents.FewComparisons: documents.FewComparisons.__base__}
    assert applied == [tuple(theirs.get(rule, rule) for rule in documents.RULES)]


@pytest.mark.parametrize("gaps", [False, True])
def test_columns_of_numbers_are_completed_in_one_piece(monkeypatch: pytest.MonkeyPatch, gaps: bool) -> None:
    """graph/live/shared_execution.py, ExecutionContext.complete_list_value: 5.7 ms of a batch become 0.17."""
    series = Series(
        metric="loss",
        steps=[Step(1), Step(2)],
        values=[0.5, None if gaps else 0.25],
        elapsed=[1.0, 2.0],
        supersedes_from=None,
    )

    @strawberry.type
    class Query:
        @strawberry.field
        def series(self) -> Series:
            return series

    def one_by_one(*_: Any, **__: Any) -> Any:
        raise AssertionError("a column was completed item by item")

    taken: list[str] = []
    in_one_piece = ExecutionContext.complete_list_value

    def complete(self: ExecutionContext, *given: Any) -> Any:
        made = in_one_piece(self, *given)
        taken.append(given[2].field_name)
        return made

    monkeypatch.setattr(StrawberryGraphQLCoreExecutionContext, "complete_list_value", one_by_one)
    monkeypatch.setattr(ExecutionContext, "complete_list_value", complete)
    schema = strawberry.Schema(
        Query, execution_context_class=ExecutionContext, config=StrawberryConfig(scalar_map={Step: STEP})
    )
    result = schema.execute_sync("{ series { steps values elapsed } }", root_value=Query())
    assert result.errors is None, result.errors
    assert result.data == {"series": {"steps": [1, 2], "values": series.values, "elapsed": [1.0, 2.0]}}
    assert taken == ["steps", "values", "elapsed"]


def test_the_libraries_whose_private_parts_are_used_are_bound_to_a_minor_version() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    for name in BOUNDED:
        (spec,) = [each for each in wanted if re.match(rf"{name}[^\w-]", each)]
        bounds = re.fullmatch(rf"{name}>=(\d+)\.(\d+)(?:\.\d+)?,<(\d+)\.(\d+)", spec)
        assert bounds, f"{spec}: not bound to a minor version"
        low, high = tuple(map(int, bounds.group(1, 2))), tuple(map(int, bounds.group(3, 4)))
        assert high == (low[0], low[1] + 1), f"{spec}: more than one minor version"
        assert tuple(map(int, version(name).split(".")[:2])) == low, f"{name} {version(name)} is installed"
