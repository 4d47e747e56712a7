"""Who comes in: finds what a client shows (a bearer, or a browser's cookie), and whose it is.

    HTTP        Authorization: Bearer ...; without that header the cookie
    WebSocket   the payload of connection_init: {"Authorization": "Bearer ..."} or {"token": ...}; then as over HTTP

Who fails too often from one address is refused without asking the database, until some time has passed. Whoever was
let in lately is not concerned: behind one address there may be a whole house, and somebody's forgotten script.

Fails with `NotAdmitted`, which each transport says in its own way. What a viewer may do: operation/permissions.py.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from starlette.requests import HTTPConnection

from db import tokens
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from graph.auth import cookie
from graph.auth.rate_limit import RateLimit, client_of
from graph.auth.viewer import STRANGER, SUPERVISOR, Viewer, recognise, recognise_browser
from graph.errors import RETRY_AFTER_SECONDS, Unauthenticated
from settings import Settings

log = structlog.get_logger()

FAILURES_PER_MINUTE = 10  # of one address
MOST_KNOWN = 10_000
LONGEST_TOKEN = 1_000  # characters; it is kept for as long as what was opened with it. Ours have less than 300
NO_TOKEN = "This needs an API token: send it as `Authorization: Bearer ...`, or sign in with it at /session."
NO_API_TOKEN = "This is no API token: they begin with sim_."
# A close frame carries 123 bytes.
NO_TOKEN_ON_SOCKET = 'This needs an API token: send {"Authorization": "Bearer ..."} with connection_init.'


class NotAdmitted(Exception):
    """Who is not let in, with the status that says why."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class Authenticator:
    """Where everybody comes in. One for all transports of a process: they count failures together."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = not settings.requires_login
        self._failures = RateLimit(FAILURES_PER_MINUTE)
        self._known: OrderedDict[bytes, None] = OrderedDict()  # digests of what let somebody in

    async def find(
        self, sessions: Sessions, connection: HTTPConnection, params: Mapping[str, object] | None = None
    ) -> tuple[Viewer, str | None]:
        """Find who comes, and the bearer they bring. params: of connection_init; None over HTTP.

        Raises `NotAdmitted`: a token that lets nobody in, or none where one is needed.
        """
        bearer = (_bearer_in(params) if params is not None else None) or _bearer_of(connection)
        if bearer is not None and len(bearer) > LONGEST_TOKEN:
            raise unauthorised(f"This is no token: they have at most {LONGEST_TOKEN:,} characters.")
        login = cookie.value_of(connection) if "authorization" not in connection.headers else None
        viewer = await self.recognise(sessions, connection, bearer=bearer, login=login)
        if viewer is STRANGER:
            raise unauthorised(NO_TOKEN if params is None else NO_TOKEN_ON_SOCKET)
        if viewer is SUPERVISOR and params is not None:  # what it may do are two mutations, which it sends over HTTP
            raise unauthorised(NO_API_TOKEN)
        return viewer, bearer

    async def recognise(
        self, sessions: Sessions, connection: HTTPConnection, *, bearer: str | None, login: str | None = None
    ) -> Viewer:
        """Say who shows this bearer, or else this cookie, and count what lets nobody in. Raises `NotAdmitted`."""
        shown = login if not bearer else bearer if bearer.startswith(tokens.PREFIX) else None
        if not shown:  # nobody, or a supervisor: there is nothing to look up
            return await recognise(sessions, bearer, trusted=self._trusted)
        client = connection.client.host if connection.client else ""
        address, digest = client_of(client), tokens.digest_of(shown)
        wait = self._failures.wait_seconds(address)
        if wait and digest not in self._known:
            raise _too_often(math.ceil(wait))
        try:
            if bearer:
                viewer = await recognise(sessions, bearer, trusted=self._trusted)
            else:
                viewer = await recognise_browser(sessions, shown)
        except Unauthenticated as refused:
            self._failures.spend(address)
            self._known.pop(digest, None)
            log.info("login_failed", client=client, by="token" if bearer else "cookie")
            # A browser can't forget the cookie by itself: it would come back with it for ever.
            raise unauthorised(refused.message, {} if bearer else {"Set-Cookie": cookie.end(connection)}) from None
        except DatabaseUnavailable:
            raise NotAdmitted(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database does not answer, so nobody can be let in: try again.",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None
        self._remember(digest)
        return viewer

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def unauthorised(message: str, headers: Mapping[str, str] | None = None) -> NotAdmitted:
    """Who is not known."""
    return NotAdmitted(HTTPStatus.UNAUTHORIZED, message, {"WWW-Authenticate": "Bearer", **(headers or {})})


def _too_often(seconds: int) -> NotAdmitted:
    return NotAdmitted(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"Too many failed logins from this address: try again in {seconds} seconds.",
        {"Retry-After": str(seconds)},
    )


def _bearer_of(connection: HTTPConnection) -> str | None:
    return _bearer(connection.headers.get("authorization", ""))


def _bearer_in(params: Mapping[str, object]) -> str | None:
    """What connection_init brings; None if it brings nothing. Raises `NotAdmitted` for what can't be meant so."""
    for name in ("Authorization", "authorization", "token"):
        given = params.get(name)
        if not given:
            continue
        bearer = (given if name == "token" else _bearer(given)) if isinstance(given, str) else None
        if not bearer:
            raise unauthorised(f"{name} in connection_init is a string{'' if name == 'token' else ', `Bearer ...`'}.")
        return bearer.strip()
    return None


def _bearer(header: str) -> str | None:
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
