"""Strawberry's ASGI view as this service uses it: its context, its JSON, one WebSocket protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson
from cross_web import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types.execution import ExecutionResult, PreExecutionError

from db.events import Actor
from graph.context import Context, Sessions
from graph.hub import Hub
from graph.schema import Schema
from graph.sharing import Encoded, Feed, dumps, wanted_feed
from settings import Settings


class Handler(BaseGraphQLTransportWSHandler[Context, None]):
    """Strawberry's handler of graphql-transport-ws, with a short way for events that subscribers share."""

    async def handle_message(self, message: Any) -> None:
        """Close the socket of whoever sends what is no message; unchecked, it would raise out of the application."""
        if _is_message(message):
            await super().handle_message(message)
        else:
            await self.handle_invalid_message("Failed to parse message")

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        wanted_feed.set(Feed())  # of this operation: each runs in a task, and so in a context of its own
        await super().run_operation(operation)

    async def _send_result_stream(self, operation: Operation[Context, None], result_source: Any) -> None:
        feed = wanted_feed.get()
        async for result in result_source:
            if isinstance(result, PreExecutionError):
                await self._handle_pre_execution_error(operation, result)
                return
            if not isinstance(result, ExecutionResult):
                await self._reject_incremental_delivery(operation)
                return
            await operation.send_next(result)
            if feed is not None and feed.source is not None and isinstance(result.data, Encoded):
                await self._deliver(operation, feed, result_source)
                return

    async def _deliver(self, operation: Operation[Context, None], feed: Feed, result_source: Any) -> None:
        """Send the rest of the events as they were encoded once for everybody."""
        assert feed.source is not None
        assert feed.executor is not None
        begin = f'{{"id":{dumps(operation.id)},"type":"next","payload":{{"data":'
        send = cast("ASGIWebSocketAdapter", self.websocket).ws.send_text
        try:
            async for event in feed.source:
                text = feed.executor.shared_text(event) or await feed.executor.text_of(event)
                if text is None:
                    raise RuntimeError("an event that could be shared before can't be shared now")
                await send(f"{begin}{text}}}}}")
        except WebSocketDisconnect as gone:
            raise WebSocketDisconnected from gone
        except Exception as error:  # noqa: BLE001  # the stream knows how to tell: as if it had been raised there
            await operation.send_next(await result_source.athrow(error))


class Endpoint(GraphQL[Context, None]):
    """`/graphql`: POST and GET over HTTP, graphql-transport-ws over WebSocket."""

    graphql_transport_ws_handler_class = Handler

    def __init__(self, schema: Schema, settings: Settings) -> None:
        # The older WebSocket protocol is on by default there; its clients are long gone, its messages are not ours.
        super().__init__(schema, subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL])
        self._settings = settings

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        state = request.state
        sessions: Sessions = state.sessions
        hub: Hub = state.hub
        return Context(
            sessions=sessions,
            settings=self._settings,
            hub=hub,
            actor=Actor("anonymous", request.client.host if request.client else None),
            bearer=_bearer(request),
        )

    def decode_json(self, data: str | bytes) -> object:
        """Strict: NaN is not JSON."""
        return orjson.loads(data)

    def parse_json(self, data: str | bytes) -> Any:
        """A request is an object, or a list, which is refused further on with a sentence of its own."""
        parsed = super().parse_json(data)
        if not isinstance(parsed, dict | list) or not isinstance(_operation_name(parsed), str | None):
            raise HTTPException(400, "A GraphQL request is a JSON object with query, variables and operationName.")
        return parsed

    def encode_json(self, data: object) -> str:
        """Text, not bytes: bytes would go out as binary frames."""
        return dumps(data)


def _operation_name(request: object) -> object:
    return request.get("operationName") if isinstance(request, dict) else None


def _is_message(message: object) -> bool:
    """Whether a frame has the shape that the protocol (enisdenjo/graphql-ws, PROTOCOL.md) gives it."""
    if not isinstance(message, dict):
        return False
    if message.get("type") == "complete":
        return isinstance(message.get("id"), str)
    if message.get("type") != "subscribe":
        return True  # Strawberry judges the others
    payload = message.get("payload")
    return (
        isinstance(message.get("id"), str)
        and isinstance(payload, dict)
        and isinstance(payload.get("query"), str)
        and isinstance(payload.get("variables"), dict | None)
        and isinstance(_operation_name(payload), str | None)
    )


def _bearer(request: HTTPConnection) -> str | None:
    headers: Mapping[str, Any] = request.headers
    scheme, _, token = str(headers.get("authorization", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
