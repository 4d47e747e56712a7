"""Origin check: which Host and Origin are answered, decided before anything else looks at a request.

On the loopback address no login is needed, so no other site's page may send requests through a browser on this host:

    DNS rebinding        another site's name that resolves to this host: only our own names are answered, others get 421
    cross-site requests  browsers send Origin with all that may change something: only our own, or a listed one, may
    sockets              the same before the handshake, for browsers send no preflight before they open one (403)
    images, scripts      carry no Origin but Sec-Fetch-Site: only a link is followed, and only to a page
    links                a navigation from another origin gets pages and starts no operation (`started_elsewhere`, asked
                         by http/endpoint.py): a link to a subscription would watch, and so start, attended simulations

The Host may name any port: tunnels and containers are reached at others than we listen on. Programs send no Origin and
are not concerned. `/healthz` and `/readyz` are answered whatever the Host is, for orchestrators ask by address; they
reveal nothing to strangers. Scheme and client, as a trusted proxy forwards them, are in the scope already
(graph/wire/proxies.py); X-Forwarded-Host counts for nothing: proxies pass the Host on.

Authentication is in graph/auth/authenticate.py. Nothing is raised here: a refusal is a response whose sentence names
the setting.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from graph.http import protocol
from graph.http.protocol import Refusal
from settings import Settings

PROBES = frozenset({"/healthz", "/readyz"})
LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = {"", "0.0.0.0", "::"}  # addresses to listen on, which are no host's name
HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
PORTS = {"http": 80, "https": 443}
PREFLIGHT_SECONDS = 600  # how long a browser remembers that an origin may
ASKED = (b"host", b"origin", b"sec-fetch-mode", b"sec-fetch-dest")
OWN_SITES = frozenset({"same-origin", "none"})  # none: no page asked, but the user: a typed address, a bookmark
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")

Place: TypeAlias = tuple[str, str, int]  # scheme, host, port: what browsers call an origin


class OriginCheck:
    """ASGI middleware: passes on the requests that may come here."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = _open_to(app, settings.allowed_origins) if settings.allowed_origins else app
        self._hosts = Hosts(settings)
        public = urlsplit(settings.public_url or "")
        listed = (*settings.allowed_origins, f"{public.scheme}://{public.netloc}")
        self._origins = frozenset(filter(None, map(_place, listed)))
        self._asked = frozenset(ASKED) if settings.requires_login else frozenset(ASKED + FORWARDED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] != "lifespan" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        response = refusal.response(protocol.JSON)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(response)
        else:
            await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        if scope["path"] in PROBES and scope["type"] == "http":
            return None
        found: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in self._asked:
                found.setdefault(name, []).append(value)
        return (
            self._hosts.refusal(found.get(b"host", []))
            or _of_a_proxy(found)
            or self._of_origin(scope, found)
            or _of_site(scope, found)
        )

    def _of_origin(self, scope: Scope, found: dict[bytes, list[bytes]]) -> Refusal | None:
        given = found.get(b"origin", [])
        if not given:
            return None
        origin = _place(given[0].decode("latin-1")) if len(given) == 1 else None
        if origin is not None and (origin in self._origins or origin == _own(scope, found[b"host"][0])):
            return None
        return Refusal(
            HTTPStatus.FORBIDDEN,
            "Another web page asks, which may not: SIMULATIONS_ALLOWED_ORIGINS lists the origins of those that may. "
            "If it is this service's own page behind a proxy, the proxy must pass the Host on, and "
            "SIMULATIONS_TRUSTED_PROXIES must name it, or its X-Forwarded-Proto does not count.",
        )


def started_elsewhere(connection: HTTPConnection) -> bool:
    """True if a page of another origin started this request; a listed one, which sends its Origin, is judged by that.

    Programs and older browsers send no Sec-Fetch-Site. same-site is another origin: another port of this host.
    """
    sites = connection.headers.getlist("sec-fetch-site")
    return "origin" not in connection.headers and not OWN_SITES.issuperset(sites)


def opens_an_address(connection: HTTPConnection) -> bool:
    """True for a navigation that none of our pages began: programs outside the browser, mail say, open links so."""
    headers = connection.headers
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-site") != "same-origin"


class Hosts:
    """The names that this service is called by."""

    def __init__(self, settings: Settings) -> None:
        public = urlsplit(settings.public_url).hostname if settings.public_url else None
        listed = {*LOOPBACK, settings.host, public or "", *settings.allowed_hosts} - EVERYWHERE
        self._names = frozenset(_canonical(name) for name in listed if not name.startswith("*."))
        self._endings = tuple(name[1:] for name in settings.allowed_hosts if name.startswith("*."))

    def refusal(self, given: list[bytes]) -> Refusal | None:
        """Return the refusal of a request with this Host header; None if the name is ours."""
        found = HOST.fullmatch(given[0].decode("latin-1").lower()) if len(given) == 1 else None
        if found is None or not _is_port(found[2]):
            return Refusal(HTTPStatus.BAD_REQUEST, "A request names one Host, as NAME or NAME:PORT.")
        name = _canonical(found[1])
        if name in self._names or name.endswith(self._endings):
            return None
        return Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"{name[:100]} is not a configured name of this service. To add one: "
            "SIMULATIONS_ALLOWED_HOSTS lists its names, and SIMULATIONS_PUBLIC_URL is its address.",
        )


def _of_a_proxy(found: dict[bytes, list[bytes]]) -> Refusal | None:
    """Refuse requests of a proxy that is not configured where every client is ADMIN: theirs may be any client."""
    sent = [name.decode() for name in FORWARDED if name in found]
    if not sent:
        return None
    return Refusal(
        HTTPStatus.FORBIDDEN,
        f"This request came through a proxy (it has {sent[0]}), and no login is needed here. Name the proxy in "
        "SIMULATIONS_TRUSTED_PROXIES: then a token is needed.",
    )


def _of_site(scope: Scope, found: dict[bytes, list[bytes]]) -> Refusal | None:
    """Refuse what another site's page loads without an Origin, unless the user follows a link."""
    if not started_elsewhere(HTTPConnection(scope)):
        return None
    follows = found.get(b"sec-fetch-mode") == [b"navigate"] and found.get(b"sec-fetch-dest") == [b"document"]
    if follows and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
        return None
    return Refusal(HTTPStatus.FORBIDDEN, "A page of another site can't load this; its address can be opened.")


def _own(scope: Scope, host: bytes) -> Place | None:
    """The origin that a client of this Host sees."""
    scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
    return _place(f"{scheme}://{host.decode('latin-1')}")


def _place(origin: str) -> Place | None:
    found = ORIGIN.fullmatch(origin.lower())
    if found is None or not _is_port(found[3]):
        return None
    return found[1], _canonical(found[2]), int(found[3]) if found[3] else PORTS[found[1]]


def _is_port(digits: str | None) -> bool:
    return digits is None or 0 < int(digits) < 65_536


def _canonical(host: str) -> str:
    """One spelling of a host: IPv6 has many. Other spellings of IPv4 are names that are not listed."""
    bare = host.lower().strip("[]")
    try:
        return str(ipaddress.IPv6Address(bare)) if ":" in bare else bare
    except ValueError:
        return bare


def _open_to(app: ASGIApp, origins: Iterable[str]) -> ASGIApp:
    """Let pages of these origins read the answers, and send a cookie or a token."""
    return CORSMiddleware(
        app,
        allow_origins=tuple(origins),
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("authorization", "content-type", "last-event-id"),
        allow_credentials=True,
        allow_private_network=True,  # a page on the internet that is listed, and a service in the house
        expose_headers=("Retry-After",),
        max_age=PREFLIGHT_SECONDS,
    )
