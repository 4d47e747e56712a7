"""Limit on open WebSockets per client address; one more is refused before it is accepted.

A socket costs the server memory for as long as the client likes. The address is the peer's, or the one that a trusted
proxy forwards; clients behind one address (a network, a proxy that is not trusted) share its limit.
"""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from graph.auth.rate_limit import client_of

RETRY_SECONDS = 10


class Admission:
    """An ASGI application for WebSockets round another one."""

    def __init__(self, app: ASGIApp, sockets_per_client: int) -> None:
        self._app = app
        self._limit = sockets_per_client
        self._open: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = client_of(scope["client"][0]) if scope.get("client") else ""
        count = self._open.get(client, 0)
        if count >= self._limit:
            refusal = PlainTextResponse(
                f"This client holds {count} WebSockets open, as many as it may. Close some, or try again later.",
                status_code=503,
                headers={"retry-after": str(RETRY_SECONDS)},
            )
            await WebSocket(scope, receive, send).send_denial_response(refusal)
            return
        self._open[client] = count + 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
