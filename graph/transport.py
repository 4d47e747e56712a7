"""Strawberry's ASGI view as this service uses it: its context, its JSON, one WebSocket protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
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
from settings import Settings


class Endpoint(GraphQL[Context, None]):
    """`/graphql`: POST and GET over HTTP, graphql-transport-ws over WebSocket."""

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

    def encode_json(self, data: object) -> str:
        """Text, not bytes: bytes would go out as binary frames."""
        return dumps(data)


def _bearer(request: HTTPConnection) -> str | None:
    headers: Mapping[str, Any] = request.headers
    scheme, _, token = str(headers.get("authorization", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
