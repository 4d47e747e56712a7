"""graphql-transport-ws as this service speaks it (enisdenjo/graphql-ws, PROTOCOL.md): Strawberry's handler, with a
short way for shared events, and with manners.

The server pings, and closes whoever is silent for three pings. What the protocol calls a violation closes the socket
with its code and a sentence; what is wrong with one operation (syntax, an unknown operation, one too many) is that
operation's `error`, and the others go on. Whatever a client sends or however it leaves, nothing of it is logged as a
defect. Stalled readers and the end of the process are the business of graph/wire.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from starlette import websockets as starlette
from starlette.websockets import WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types.execution import ExecutionResult, PreExecutionError

from graph.context import Context
from graph.sharing import Encoded, Feed, dumps, wanted_feed

log = structlog.get_logger()

INIT_SECONDS = 5.0  # from the handshake to connection_init
SILENT_PINGS = 3  # unanswered, after which a peer counts as gone
OPERATIONS_PER_SOCKET = 100  # at once
LONGEST_ID = 256  # characters: it comes back with every event
REASON_BYTES = 123  # what a close frame can carry (RFC 6455, 5.5)
TOO_MANY_OPERATIONS = GraphQLError(
    f"At most {OPERATIONS_PER_SOCKET} operations may run on one socket: complete some, or open another socket.",
    extensions={"code": "TOO_MANY_OPERATIONS"},
)
NO_OPERATION = GraphQLError("The query is empty.", extensions={"code": "BAD_USER_INPUT"})


class Handler(BaseGraphQLTransportWSHandler[Context, None]):
    """One socket and its operations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.websocket = Adapter(self.view, cast("ASGIWebSocketAdapter", self.websocket).ws)
        self.connection_init_wait_timeout = timedelta(seconds=INIT_SECONDS)
        self._ping_seconds = self.context.settings.socket_ping_seconds
        self._ping_timer: asyncio.TimerHandle | None = None
        self._ping_task: asyncio.Task[None] | None = None
        self._unanswered = 0

    async def handle_message(self, message: Any) -> None:
        """Close the socket of whoever sends what is no message; unchecked, it would raise out of the application."""
        self._unanswered = 0  # whatever it says, it is there
        problem = _what_is_wrong(message)
        if problem is None:
            await super().handle_message(message)
        else:
            await self.handle_invalid_message(problem)

    async def handle_connection_init(self, message: Any) -> None:
        if message.get("payload") is None:
            message = {"type": "connection_init"}
        await super().handle_connection_init(message)
        if self.connection_acknowledged and self._ping_timer is None:
            self._expect()

    async def handle_subscribe(self, message: Any) -> None:
        """Start an operation; one too many is refused, and the others go on."""
        known = message["id"] in self.operations
        if self.connection_acknowledged and not known and len(self.operations) >= OPERATIONS_PER_SOCKET:
            await self._refuse(message["id"], TOO_MANY_OPERATIONS)
        elif self.connection_acknowledged and not known and not message["payload"]["query"].strip():
            await self._refuse(message["id"], NO_OPERATION)
        else:
            await super().handle_subscribe(message)

    async def _refuse(self, operation_id: str, error: GraphQLError) -> None:
        await self.send_message({"id": operation_id, "type": "error", "payload": [error.formatted]})

    # --- is anybody there? -------------------------------------------------------------------------------------

    def _expect(self) -> None:
        self._ping_timer = asyncio.get_running_loop().call_later(self._ping_seconds, self._ping)

    def _ping(self) -> None:
        """Ping; or close, if so many were followed by nothing at all."""
        if self._unanswered >= SILENT_PINGS:
            silence = f"{SILENT_PINGS * self._ping_seconds:g} s"
            log.info("socket_silent", client=self.context.actor.origin)
            self._begin(self.websocket.close(4408, f"No pong for {silence}. Every ping is to be answered with a pong."))
            return
        self._unanswered += 1
        if self._ping_task is None:  # else its reader stalls: graph/wire.py waits for it
            self._begin(self.send_message({"type": "ping"}))
        self._expect()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._ping_task = task = asyncio.create_task(work)
        task.add_done_callback(self._ping_ended)

    def _ping_ended(self, task: asyncio.Task[None]) -> None:
        if self._ping_task is task:
            self._ping_task = None
        self._task_done(task)

    async def shutdown(self) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        if self._ping_task is not None:
            self._ping_task.cancel()
        await super().shutdown()

    # --- operations --------------------------------------------------------------------------------------------

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        wanted_feed.set(Feed())  # of this operation: each runs in a task, and so in a context of its own
        await super().run_operation(operation)

    async def _send_result_stream(self, operation: Operation[Context, None], result_source: Any) -> None:
        try:
            await self._send_results(operation, result_source)
        except GraphQLSyntaxError as error:  # where a cache of documents raises it, there is no result to hold it
            await operation.send_initial_errors([error])

    async def _send_results(self, operation: Operation[Context, None], result_source: Any) -> None:
        feed = wanted_feed.get()
        async for result in result_source:
            if not isinstance(result, ExecutionResult):
                await self._reject_incremental_delivery(operation)
                return
            if _is_refused(result):
                assert result.errors is not None
                await operation.send_initial_errors(result.errors)
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
        except (WebSocketDisconnect, starlette.WebSocketDisconnected) as gone:  # by the client; by us
            raise WebSocketDisconnected from gone
        except Exception as error:  # noqa: BLE001  # the stream knows how to tell: as if it had been raised there
            await operation.send_next(await result_source.athrow(error))

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):  # that it left is nobody's mistake
            log.error("operation_failed", exc_info=error)


class Adapter(ASGIWebSocketAdapter):
    """The socket under the handler: sending to one that is closed says so, and closing it again is no mistake."""

    def __init__(self, view: Any, socket: starlette.WebSocket) -> None:
        super().__init__(view, socket, socket)

    async def send_json(self, message: Any) -> None:
        try:
            await self.ws.send_text(dumps(message))
        except (WebSocketDisconnect, starlette.WebSocketDisconnected) as gone:
            raise WebSocketDisconnected from gone

    async def close(self, code: int, reason: str) -> None:
        with suppress(WebSocketDisconnect, starlette.WebSocketDisconnected):
            await self.ws.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))


def _is_refused(result: ExecutionResult) -> bool:
    """Whether an operation could not begin: what is wrong is with all of it, not with a field."""
    if isinstance(result, PreExecutionError):
        return True
    return result.data is None and bool(result.errors) and all(error.path is None for error in result.errors or ())


def _what_is_wrong(message: object) -> str | None:
    """Say in what a frame differs from the shape that the protocol gives it; None if it is a message."""
    if not isinstance(message, dict):
        return "A message is a JSON object."
    kind, payload = message.get("type"), message.get("payload")
    if kind in ("connection_init", "ping", "pong"):
        return None if isinstance(payload, dict | None) else f"The payload of {kind} is an object."
    if kind not in ("subscribe", "complete"):
        return "The type of a message is one of connection_init, ping, pong, subscribe and complete."
    if not isinstance(message.get("id"), str) or not 0 < len(message["id"]) <= LONGEST_ID:
        return f"The id of an operation is a string of 1 to {LONGEST_ID} characters."
    if kind == "complete":
        return None
    if not isinstance(payload, dict) or not isinstance(payload.get("query"), str):
        return "The payload of subscribe is an object with a query."
    for name, shape in (("variables", dict), ("operationName", str), ("extensions", dict)):
        if not isinstance(payload.get(name), shape | None):
            return f"{name} in the payload of subscribe is {'a string' if shape is str else 'an object'}."
    return None
