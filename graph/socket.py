"""graphql-transport-ws as this service speaks it: Strawberry's handler, with a short way for shared events."""

from __future__ import annotations

from typing import Any, cast

from starlette.websockets import WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types.execution import ExecutionResult, PreExecutionError

from graph.context import Context
from graph.sharing import Encoded, Feed, dumps, wanted_feed


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
        begin = f'{{"id":{dumps(operation.id)},"type":"next","payload":{{"data":'
        socket = cast("ASGIWebSocketAdapter", self.websocket).ws

        async def send(text: str) -> None:
            await socket.send_text(f"{begin}{text}}}}}")

        feed.send = send  # from here on it may be told with others, below: see graph/audience.py
        try:
            async for event in feed.source:
                text = await feed.text(event)
                if text is None:
                    raise RuntimeError("an event that could be shared before can't be shared now")
                await send(text)
        except WebSocketDisconnect as gone:
            raise WebSocketDisconnected from gone
        except Exception as error:  # noqa: BLE001  # the stream knows how to tell: as if it had been raised there
            await operation.send_next(await result_source.athrow(error))


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
        and isinstance(payload.get("operationName"), str | None)
    )
