"""Forwarded scheme and client (X-Forwarded-Proto and -For) of trusted proxies, which may be given by host name.

uvicorn's own middleware does it for addresses and networks. Containers have other addresses after each restart and keep
their names, so names are looked up again: when the last answer is some seconds old, and sooner when an unknown peer
forwards. A name that does not resolve makes no address trusted: clients then have the proxy's address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import cast

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

log = structlog.get_logger()

STALE_SECONDS = 5.0  # for so long a name that moved on is still believed
AGAIN_SECONDS = 0.5  # between two look-ups that unknown peers cause, for all of them together
PATIENCE_SECONDS = 2.0  # with a name server


class Proxies:
    """An ASGI application round another one, which finds the client's address and scheme in its scope."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        self._app = app
        self._fixed = [each for each in trusted if _is_network(each)]
        self._names = [each for each in trusted if not _is_network(each)]
        self._headers = self._trusting(())
        self._found: frozenset[str] = frozenset()
        self._looked_at = -STALE_SECONDS
        self._looking = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._names and scope["type"] != "lifespan" and _is_forwarded(scope):
            known = scope["client"] is not None and scope["client"][0] in self._found
            await self._look(STALE_SECONDS if known else AGAIN_SECONDS)
        await self._headers(scope, receive, send)  # type: ignore[arg-type]  # uvicorn has types of its own for these

    async def _look(self, seconds: float) -> None:
        """Look the names up, unless that was done within so many seconds; one does it for all who come meanwhile."""
        now = asyncio.get_running_loop().time
        if now() - self._looked_at < seconds:
            return
        async with self._looking:
            if now() - self._looked_at < seconds:
                return
            found = frozenset[str]().union(*await asyncio.gather(*map(_addresses, self._names)))
            if found != self._found:
                log.info("trusted_proxies", names=self._names, addresses=sorted(found))
                self._headers, self._found = self._trusting(found), found
            self._looked_at = now()

    def _trusting(self, addresses: Iterable[str]) -> ProxyHeadersMiddleware:
        return ProxyHeadersMiddleware(cast("ASGI3Application", self._app), [*self._fixed, *addresses])


async def _addresses(name: str) -> set[str]:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # TimeoutError is one of the first
        return set()
    return {str(address[0]) for *_, address in found}


def _is_forwarded(scope: Scope) -> bool:
    return any(name in (b"x-forwarded-for", b"x-forwarded-proto") for name, _ in scope["headers"])


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
