"""`/graphql`: Strawberry's ASGI view as this service uses it, with its context and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from cross_web import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from db.events import Actor
from graph.context import Context, Sessions
from graph.hub import Hub
from graph.schema import Schema
from graph.sharing import dumps
from graph.socket import Handler
from settings import Settings


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


def _bearer(request: HTTPConnection) -> str | None:
    headers: Mapping[str, Any] = request.headers
    scheme, _, token = str(headers.get("authorization", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
