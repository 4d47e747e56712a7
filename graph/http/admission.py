"""How many WebSockets one client may hold open; one more is refused before it is accepted.

A socket costs the server memory for as long as the client likes. The address is the peer's, or what a trusted proxy
says; clients behind one address (a network, a proxy that is not trusted) share its limit.
"""

from __future__ import annotations

import ipaddress

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

RETRY_SECONDS = 10
IPV6_PREFIX_BITS = 64  # what one client has to itself


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


def client_of(address: str) -> str:
    """Whom an address belongs to: of IPv6 the network, since one client has a whole network of addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX_BITS), strict=False))
