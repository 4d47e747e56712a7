"""What every answer over HTTP tells a browser to refuse: to guess types, to be framed, to leak addresses, to keep it.

Pages get a Content-Security-Policy that lets them load what this service serves, and nothing else. GraphiQL's page, as
it is now, loads its parts from elsewhere: it gets a policy of its own, which names each of them, and which is read from
the page itself, so that the two can't drift apart. An answer that says something of its own is left as it is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "img-src 'self' data:"
)
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
NOT_A_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox")
ONLY_HTTPS = (b"strict-transport-security", b"max-age=31536000")  # a year; of this name only


class Headers:
    """An ASGI application round another one."""

    def __init__(self, app: ASGIApp, policies: Mapping[str, str]) -> None:
        """policies: Content-Security-Policies of pages that need another one, by path."""
        self._app = app
        self._policies = {path: (b"content-security-policy", text.encode()) for path, text in policies.items()}
        self._policy = (b"content-security-policy", PAGE_POLICY.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # of a socket every message would pass; nobody shows its handshake
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
            headers.append(self._policies.get(scope["path"], self._policy) if is_page else NOT_A_PAGE)
        if scope["scheme"] == "https":
            headers.append(ONLY_HTTPS)
        return headers


def policy_of(page: str) -> str:
    """The narrowest policy that a page works with: each script and style of it by address or by digest.

    Its scripts may write styles into it: GraphiQL's editor does, and no digest can be known of those.
    """
    scripts = [*_addresses(r"<script\b[^>]*?\ssrc=\"(https:[^\"]+)\"", page), *_digests("script", page)]
    styles = _addresses(r"<link\b(?=[^>]*rel=\"stylesheet\")[^>]*?\shref=\"(https:[^\"]+)\"", page)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(scripts)}",
            f"style-src 'unsafe-inline' {' '.join(styles)}",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _addresses(pattern: str, page: str) -> list[str]:
    return re.findall(pattern, page, re.DOTALL)


def _digests(tag: str, page: str) -> list[str]:
    inline = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return [f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in inline]
