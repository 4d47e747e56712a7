"""`/graphql`: Strawberry's view for WebSockets, with this service's context and JSON; HTTP is answered here.

What a request must look like is in http/protocol.py, what a stream looks like in http/sse.py. A query or a mutation has
`REQUEST_SECONDS` from its first byte to its result; a stream has no end of its own. A query by `Accept:
text/event-stream` alone is a stream of one event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http import process_result
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types.execution import ExecutionResult
from strawberry.types.graphql import OperationType

from db.connection import Sessions
from db.events import Actor
from graph.auth.authenticate import Authenticator, NotAdmitted
from graph.auth.rate_limit import RateLimit
from graph.auth.viewer import STRANGER
from graph.context import Context
from graph.errors import RETRY_AFTER_SECONDS, nothing_was_done
from graph.http import decoding, origin_check, protocol, sse
from graph.http.dashboard_files import DashboardFiles
from graph.http.protocol import Accept, EarlyRefusal, Refusal
from graph.http.websocket import Handler
from graph.live.process import Live
from graph.live.shared_execution import dumps
from graph.schema import Schema
from settings import Settings

REQUEST_SECONDS = 30.0  # from the first byte of the body to the result of a query or a mutation

STATUS = {
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "FORBIDDEN": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
}

BY_GET = (OperationType.QUERY,)
BY_POST = (OperationType.QUERY, OperationType.MUTATION)


class Endpoint(GraphQL[Context, None]):
    """`/graphql`: GET and POST over HTTP, graphql-transport-ws over WebSocket."""

    graphql_transport_ws_handler_class = Handler

    def __init__(
        self, schema: Schema, settings: Settings, authenticator: Authenticator, dashboard: DashboardFiles
    ) -> None:
        # The older WebSocket protocol is on by default there; its clients are long gone, its messages are not ours.
        super().__init__(schema, graphql_ide=None, subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL])
        self._settings = settings
        self._submits = RateLimit(settings.submits_per_minute)
        self._bodies = protocol.Bodies()
        self.authenticator = authenticator
        self._dashboard = dashboard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        accept = Accept.of(request)
        with suppress(ClientDisconnect):  # in the midst of its body: no client is left to answer
            try:
                answer = await self._answer(request, accept)
            except Refusal as refusal:
                if refusal.status is HTTPStatus.SERVICE_UNAVAILABLE and accept.is_get and accept.json is None:
                    await sse.come_back()(scope, receive, send)  # an EventSource ignores Retry-After
                    return
                await protocol.refuse(refusal, accept.json or protocol.JSON, request, send)
            else:
                await answer(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        """Make what resolvers are given. Over HTTP its sender is let in, or `Refusal` is raised; a socket's comes in
        with connection_init (graph/http/websocket.py)."""
        state = request.state
        sessions: Sessions = state.sessions
        live: Live = state.live
        context = Context(
            sessions=sessions,
            settings=self._settings,
            live=live,
            actor=Actor("anonymous", request.client.host if request.client else None),
            submits=self._submits,
            viewer=STRANGER,
            # A proxy's own user would stand for all of its clients; without login origin_check refuses theirs.
            peer=None if self._settings.requires_login else getattr(state, "peer", None),
        )
        if isinstance(request, Request):
            try:
                viewer, context.bearer = await self.authenticator.find(sessions, request)
                context.admit(viewer)
            except NotAdmitted as refused:
                raise EarlyRefusal(refused.status, refused.message, refused.headers) from None
        return context

    def decode_json(self, data: str | bytes) -> object:
        """Strict: NaN is not JSON. For messages on sockets; a body is read in http/protocol.py."""
        return decoding.loads(data.encode() if isinstance(data, str) else data)

    def encode_json(self, data: object) -> str:
        """Text, not bytes: bytes would go out as binary frames."""
        return dumps(data)

    # --- HTTP ------------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request, accept: Accept) -> ASGIApp:
        """Return the response of a request. Raises `Refusal`."""
        if request.method not in ("GET", "POST"):
            raise EarlyRefusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "GraphQL is asked by GET or by POST.", {"Allow": protocol.METHODS}
            )
        if accept.is_get and accept.names_html and "query" not in request.query_params:
            return await self._dashboard.explorer(request)
        if accept.json is None and not accept.events:
            raise EarlyRefusal(
                HTTPStatus.NOT_ACCEPTABLE,
                f"There are results as {protocol.RESULT} or {protocol.JSON}, and streams as {protocol.EVENTS}: "
                "accept one of them.",
            )
        if accept.names_events and request.headers.get("last-event-id") == sse.END:
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=protocol.NEVER_STORED)
        if origin_check.started_elsewhere(request):
            raise EarlyRefusal(HTTPStatus.FORBIDDEN, "A link on another site's page can't start an operation.")

        deadline = asyncio.get_running_loop().time() + REQUEST_SECONDS
        no_result = Refusal(
            HTTPStatus.GATEWAY_TIMEOUT, f"There is no result after {REQUEST_SECONDS:g} seconds; it was given up."
        )
        async with _until(deadline, no_result):
            context = await self.get_context(request, Response())
        late = f"The request did not arrive within {REQUEST_SECONDS:g} seconds."
        async with _until(deadline, Refusal(HTTPStatus.REQUEST_TIMEOUT, late, {"Connection": "close"})):
            operation = await protocol.read(request, self._bodies)
        async with _until(deadline, no_result):
            return await self._execute(request, accept, operation, context)

    async def _execute(
        self, request: Request, accept: Accept, operation: protocol.Operation, context: Context
    ) -> ASGIApp:
        try:
            result = await self.schema.execute(
                operation.query,
                variable_values=operation.variables,
                context_value=context,
                operation_name=operation.name,
                allowed_operation_types=BY_GET if accept.is_get else BY_POST,
                operation_extensions=operation.extensions,
            )
        except CannotGetOperationTypeError as unknown:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{unknown.as_http_error_reason().rstrip('.')}.") from None
        except InvalidOperationTypeError as other:
            if other.operation_type is OperationType.SUBSCRIPTION:
                return await self._stream(request, accept, operation, context)
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "A mutation changes something: send it by POST.", {"Allow": "POST"}
            ) from None
        if nothing_was_done(result.data, result.errors):
            assert result.errors is not None
            raise _away(result.errors[0].message)
        if accept.json is not None:
            return _json(result, accept.json)
        if _has_no_data(result):
            return _no_stream(result, protocol.JSON)
        return Response(sse.body_of(result), headers=dict(protocol.NEVER_STORED), media_type=protocol.EVENTS)

    async def _stream(
        self, request: Request, accept: Accept, operation: protocol.Operation, context: Context
    ) -> ASGIApp:
        if not accept.events:
            raise Refusal(
                HTTPStatus.NOT_ACCEPTABLE,
                f"A subscription is a stream: send `Accept: {protocol.EVENTS}`, or subscribe over a WebSocket at this "
                f"address ({GRAPHQL_TRANSPORT_WS_PROTOCOL}).",
            )
        if origin_check.opens_an_address(request):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "A subscription is not started by opening its address, which may be a link of another site: use "
                "EventSource or fetch on a page of this service, a program, or the explorer at this address.",
            )
        if operation.size_bytes > protocol.MOST_STREAM_BYTES:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A subscription has at most {protocol.MOST_STREAM_BYTES:,} bytes."
            )
        context.resume_after = request.headers.get("last-event-id") or None
        results: Any = await self.schema.stream(
            operation.query,
            variable_values=operation.variables,
            context_value=context,
            operation_name=operation.name,
            operation_extensions=operation.extensions,
            allowed_operation_types=(OperationType.SUBSCRIPTION,),
        )
        stream = sse.EventStream(
            results,
            shutdown=getattr(request.state, "shutdown", None),
            stall_seconds=self._settings.socket_stall_seconds,
            revocation=request.state.revocation.open(context.viewer) if context.viewer.token_id is not None else None,
        )
        refusal = await stream.refusal()
        return stream if refusal is None else _no_stream(refusal, accept.json or protocol.JSON)


@asynccontextmanager
async def _until(deadline: float, refusal: Refusal) -> AsyncIterator[None]:
    """Raise the refusal if the block has not ended by then, by the loop's clock."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise refusal from None


def _away(message: str) -> Refusal:
    """The database is away, and nothing was done: the same request may be sent again."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _has_no_data(result: ExecutionResult) -> bool:
    """True for an error of the whole request: nothing was executed."""
    return result.data is None and bool(result.errors) and all(error.path is None for error in result.errors or ())


def _json(result: ExecutionResult, media_type: str) -> Response:
    """A result as JSON. An error of the request as a whole is 400, except in the older media type."""
    content: dict[str, object] = dict(process_result(result))
    if not _has_no_data(result):
        return protocol.json_response(content, media_type)
    del content["data"]
    return protocol.json_response(
        content, media_type, HTTPStatus.OK if media_type == protocol.JSON else HTTPStatus.BAD_REQUEST
    )


def _no_stream(result: ExecutionResult, media_type: str) -> Response:
    """The response in place of a stream; its status matters, for an EventSource reconnects after every 200."""
    content: dict[str, object] = dict(process_result(result))
    del content["data"]
    codes = [str((error.extensions or {}).get("code")) for error in result.errors or ()]
    status = next((STATUS[code] for code in codes if code in STATUS), HTTPStatus.BAD_REQUEST)
    headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}
    return protocol.json_response(content, media_type, status, headers)
