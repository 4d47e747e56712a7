"""WebSocket handler for graphql-transport-ws (enisdenjo/graphql-ws, PROTOCOL.md): Strawberry's, plus direct writes of
pre-encoded events, pings, limits and close codes.

connection_init authenticates the client; a socket that is refused, or whose token becomes invalid later, is closed with
4403. The server pings, and closes a socket whose client is silent for three pings. What the protocol calls a violation
closes the socket with its code and a sentence; what is wrong with one operation (syntax, an unknown operation, one too
many) is that operation's `error`, and the others go on. Invalid messages and disconnects are never logged as defects.
Stalled readers and the shutdown of the process belong to graph/wire/websocket.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast

import structlog
from graphql import GraphQLError, GraphQLSyntaxError, parse
from starlette import websockets as starlette
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonJsonMessageReceived, NonTextMessageReceived, WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.types.execution import ExecutionContext as Execution
from strawberry.types.execution import ExecutionResult, PreExecutionError
from strawberry.types.graphql import OperationType

from graph.auth.authenticate import Authenticator, NotAdmitted
from graph.auth.token_revocation import TokenRevocation
from graph.context import Context
from graph.errors import nothing_was_done
from graph.live.shared_execution import Encoded, Feed, dumps, wanted_feed
from graph.wire.websocket import ADMIT, WRITE

log = structlog.get_logger()

INIT_SECONDS = 5.0  # from the handshake to connection_init
SILENT_PINGS = 3  # unanswered, after which a peer counts as gone
OPERATIONS_PER_SOCKET = 100  # at once
FORBIDDEN = 4403  # connection_init was refused; and here: what it let in is let in no more
TOKEN_ENDED = "The token was revoked or has expired."
LOGIN_ENDED = "This browser signed out, or its token was revoked or has expired."
TRY_AGAIN_LATER = 1013
HELD_BYTES_PER_SOCKET = 262_144  # of the messages of operations that run: each is kept until its operation has ended
LONGEST_ID = 256  # characters: it comes back with every event
REASON_BYTES = 123  # what a close frame can carry (RFC 6455, 5.5)
TOO_MANY_OPERATIONS = GraphQLError(
    f"At most {OPERATIONS_PER_SOCKET} operations may run on one socket: complete some, or open another socket.",
    extensions={"code": "TOO_MANY_OPERATIONS"},
)
TOO_MUCH_AT_ONCE = GraphQLError(
    f"What runs on one socket has at most {HELD_BYTES_PER_SOCKET:,} bytes: complete some, or open another socket.",
    extensions={"code": "TOO_MANY_OPERATIONS"},
)
NO_OPERATION = GraphQLError("The query is empty.", extensions={"code": "BAD_USER_INPUT"})


class Handler(BaseGraphQLTransportWSHandler[Context, None]):
    """One socket and its operations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.websocket = self._adapter = Adapter(self.view, cast("ASGIWebSocketAdapter", self.websocket).ws)
        self._held_bytes: dict[str, int] = {}  # of operations that run, or ran just now
        self.connection_init_wait_timeout = timedelta(seconds=INIT_SECONDS)
        self._ping_seconds = self.context.settings.socket_ping_seconds
        self._ping_timer: asyncio.TimerHandle | None = None
        self._ping_task: asyncio.Task[None] | None = None
        self._unanswered = 0
        self._revocation_task: asyncio.Task[None] | None = None

    @property
    def _socket(self) -> starlette.WebSocket:
        return cast("ASGIWebSocketAdapter", self.websocket).ws

    async def handle_message(self, message: Any) -> None:
        """Close the socket on an invalid message, which unchecked would raise out of the application."""
        self._unanswered = 0  # any message proves that the client is alive
        problem = _what_is_wrong(message)
        if problem is None:
            await super().handle_message(message)
            message.clear()  # the reading loop keeps each message until the next one comes
        else:
            await self.handle_invalid_message(problem)

    async def handle_connection_init(self, message: Any) -> None:
        params = message.pop("payload", None) or {}  # left there, Strawberry would keep it as long as the socket
        if not self.connection_init_received and not await self._is_let_in(params):
            return
        await super().handle_connection_init(message)
        if self.connection_acknowledged and self._ping_timer is None:
            self.connection_init_timeout_task = None  # it is over; kept, it would keep the frames it was cancelled in
            self._socket.scope["extensions"][ADMIT]()
            self._expect()
            if self.context.viewer.token_id is not None:
                self._revocation_task = asyncio.create_task(self._stay(), name="revocation")

    async def _is_let_in(self, params: dict[str, object]) -> bool:
        """Find who has opened the socket; close it if they may not."""
        authenticator: Authenticator = self.view.authenticator  # type: ignore[attr-defined]  # of graph/http/endpoint.py
        try:
            viewer, self.context.bearer = await authenticator.find(self.context.sessions, self._socket, params)
        except NotAdmitted as refused:
            away = refused.status is HTTPStatus.SERVICE_UNAVAILABLE
            await self.websocket.close(TRY_AGAIN_LATER if away else FORBIDDEN, refused.message)
            return False
        self.context.admit(viewer)
        return True

    async def _stay(self) -> None:
        """Hold the socket open for its viewer; close it when their token or login lets in no more."""
        revocation: TokenRevocation = self._socket.state.revocation
        with revocation.open(self.context.viewer) as ended:
            await ended.wait()
        by_login = self.context.viewer.login is not None
        await self.websocket.close(FORBIDDEN, LOGIN_ENDED if by_login else TOKEN_ENDED)

    async def handle_subscribe(self, message: Any) -> None:
        """Start an operation; one too many, or too much, is refused, and the others go on."""
        known = message["id"] in self.operations
        self._held_bytes = {each: self._held_bytes.get(each, 0) for each in self.operations}
        size = self._adapter.received_bytes
        if self.connection_acknowledged and not known and len(self.operations) >= OPERATIONS_PER_SOCKET:
            await self._refuse(message["id"], TOO_MANY_OPERATIONS)
        elif self.operations and not known and sum(self._held_bytes.values()) + size > HELD_BYTES_PER_SOCKET:
            await self._refuse(message["id"], TOO_MUCH_AT_ONCE)
        elif self.connection_acknowledged and not known and not message["payload"]["query"].strip():
            await self._refuse(message["id"], NO_OPERATION)
        else:
            self._held_bytes[message["id"]] = size
            await super().handle_subscribe(message)

    async def _refuse(self, operation_id: str, error: GraphQLError) -> None:
        await self.send_message({"id": operation_id, "type": "error", "payload": [error.formatted]})

    # --- pings ---------------------------------------------------------------------------------------------------

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
        if self._ping_task is None:  # else its reader stalls: graph/wire/websocket.py waits for it
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
        for task in (self._ping_task, self._revocation_task):
            if task is not None:
                task.cancel()
        await super().shutdown()

    # --- operations --------------------------------------------------------------------------------------------

    async def run_operation(self, operation: Operation[Context, None]) -> None:
        """Run an operation to its end, in its own task: like Strawberry, but without its frames while it waits."""
        try:
            feed = await self._send_results(operation)
            if feed is not None:
                await self._deliver(operation, feed)
            await operation.send_operation_message({"id": operation.id, "type": "complete"})
        except Exception as error:
            await self.handle_task_exception(error)
            with suppress(WebSocketDisconnected):
                await operation.send_operation_message({"id": operation.id, "type": "complete"})
            self.operations.pop(operation.id, None)
            raise

    async def _send_results(self, operation: Operation[Context, None]) -> Feed | None:
        """Send results to their end; or until the rest can be had below the layers that make them: from the feed."""
        feed = Feed()
        wanted_feed.set(feed)  # of this operation: its task has a context of its own
        stream: Any = await self.schema.stream(
            operation.query,
            variable_values=operation.variables,
            context_value=self.context,
            operation_name=operation.operation_name,
        )
        async with aclosing(stream):
            try:
                async for result in stream:
                    if not isinstance(result, ExecutionResult):
                        await self._reject_incremental_delivery(operation)
                        return None
                    if _is_refused(result):
                        assert result.errors is not None
                        await operation.send_initial_errors(result.errors)
                        return None
                    await operation.send_next(result)
                    if feed.source is not None and isinstance(result.data, Encoded):
                        feed.take()
                        return feed
            except GraphQLSyntaxError as error:  # where a cache of documents raises it, there is no result to hold it
                await operation.send_initial_errors([error])
        return None

    async def _deliver(self, operation: Operation[Context, None], feed: Feed) -> None:
        """Send the rest of the events as they were encoded once for everybody.

        The stream is closed, and no sent event is kept: a subscriber may wait for hours.
        """
        source: Any = feed.source
        begin, end = f'{{"id":{dumps(operation.id)},"type":"next","payload":{{"data":'.encode(), b"}}"
        socket = self._socket
        write_parts: Callable[..., bool] = socket.scope["extensions"][WRITE]

        def write(text: bytes) -> bool:
            return write_parts(begin, text, end)

        async def send(text: bytes) -> None:
            if not write(text):
                await socket.send_text(b"".join((begin, text, end)).decode())

        feed.write = write
        feed.send = send  # from here on broadcasts may include it: see graph/live/broadcast.py
        try:
            async for event in source:
                text = await feed.text(event)
                if text is None:
                    raise RuntimeError("an event that could be shared before can't be shared now")
                await send(text)
                del event, text
        except (WebSocketDisconnect, starlette.WebSocketDisconnected) as gone:  # by the client; by us
            raise WebSocketDisconnected from gone
        except Exception as error:  # noqa: BLE001  # reported as the stream would have reported it
            await operation.send_next(self._failure(operation, error))
        finally:
            await source.aclose()

    def _failure(self, operation: Operation[Context, None], error: Exception) -> ExecutionResult:
        """The result that the stream would have ended with."""
        errors = [error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)]
        schema: Any = self.schema
        execution = Execution(
            operation.query,
            schema,
            (OperationType.SUBSCRIPTION,),
            self.context,
            graphql_document=parse(operation.query),  # the log shows the operation's name
            provided_operation_name=operation.operation_name,
        )
        schema.process_errors(errors, execution)
        return ExecutionResult(None, errors)

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):  # a client that leaves is no error
            log.error("operation_failed", exc_info=error)


class Adapter(ASGIWebSocketAdapter):
    """The socket under the handler: sending on a closed socket raises, closing it again is no error."""

    def __init__(self, view: Any, socket: starlette.WebSocket) -> None:
        super().__init__(view, socket, socket)
        self.received_bytes = 0  # of the last message

    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:
        """As Strawberry does it, without keeping the text of a message until the next one comes."""
        with suppress(WebSocketDisconnect):
            while self.ws.application_state != WebSocketState.DISCONNECTED:
                yield self._message_of(await self._receive_text())

    async def _receive_text(self) -> str:
        try:
            return await self.ws.receive_text()
        except KeyError as error:
            raise NonTextMessageReceived from error

    def _message_of(self, text: str) -> object:
        self.received_bytes = len(text)
        try:
            return self.view.decode_json(text)
        except ValueError as error:
            raise NonJsonMessageReceived from error

    async def send_json(self, message: Any) -> None:
        try:
            await self.ws.send_text(dumps(message))
        except (WebSocketDisconnect, starlette.WebSocketDisconnected) as gone:
            raise WebSocketDisconnected from gone

    async def close(self, code: int, reason: str) -> None:
        with suppress(WebSocketDisconnect, starlette.WebSocketDisconnected):
            await self.ws.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))


def _is_refused(result: ExecutionResult) -> bool:
    """True if an operation could not begin: its errors concern all of it, not a field.

    So it is while the database is away, and nothing was done: the same operation may be sent again.
    """
    if isinstance(result, PreExecutionError) or nothing_was_done(result.data, result.errors):
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
