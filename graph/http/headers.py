"""Security headers of every response: no type guessing, no framing, no referrer, no caching.

Pages get a Content-Security-Policy that allows only files of this service; GraphiQL's page also allows inline styles,
which its editor needs. A header that a response has already is kept.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "img-src 'self' data:"
)
EDITOR_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
PAGE = (b"content-security-policy", PAGE_POLICY.encode())
NOT_A_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox")
ONLY_HTTPS = (b"strict-transport-security", b"max-age=31536000")  # a year; of this name only


class Headers:
    """An ASGI application round another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a socket's messages would all pass here; browsers don't show its handshake
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._completed(scope, list(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _completed(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        said = {name.lower(): value for name, value in headers}
        headers.extend(pair for pair in ALWAYS if pair[0] not in said)
        if b"content-security-policy" not in said:
            is_page = said.get(b"content-type", b"").startswith(b"text/html")
            headers.append(PAGE if is_page else NOT_A_PAGE)
        if scope["scheme"] == "https":
            headers.append(ONLY_HTTPS)
        return headers
