"""Authentication: finds a client's credential (bearer token or cookie) and its viewer, before the request is read.

    HTTP        Authorization: Bearer ...; without that header the cookie
    WebSocket   the payload of connection_init: {"Authorization": "Bearer ..."} or {"token": ...}; then as over HTTP

After too many failures from one address, further ones are refused for some time without asking the database. Tokens and
cookies that were valid lately are exempt: many clients may share one address with a forgotten script.

The bearer of a supervisor is its attempt's token. One that was found once is not looked up again by this process: the
statement of the report judges it, and a report stays one round trip to the database. Unknown ones have a limit of their
own per address: supervisors of simulations that were deleted go on asking, from the host where new ones begin.

Raises `NotAdmitted`, which each transport maps to its own response. Permissions: operation/permissions.py.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from starlette.requests import HTTPConnection

from db import tokens
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from db.tokens import PREFIX
from graph.auth import cookie
from graph.auth.rate_limit import RateLimit, client_of
from graph.auth.viewer import (
    LOOPBACK,
    NO_TOKEN_OF_OURS,
    STRANGER,
    SUPERVISOR,
    Viewer,
    recognise,
    recognise_browser,
)
from graph.errors import RETRY_AFTER_SECONDS, Unauthenticated
from settings import Settings

log = structlog.get_logger()

FAILURES_PER_MINUTE = 10  # of one address
ATTEMPT_FAILURES_PER_MINUTE = 300  # of one address, with what looks like an attempt's token; each costs one index probe
ATTEMPT_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # secrets.token_urlsafe(32), as scheduler/host.py mints them
MOST_KNOWN = 10_000
MOST_ATTEMPTS = 50_000  # 8 MB; one that was pushed out costs a round trip more
LONGEST_TOKEN = 1_000  # characters; it is kept for as long as what was opened with it. Ours have less than 300
NO_TOKEN = "This needs an API token: send it as `Authorization: Bearer ...`, or sign in with it at /session."
NO_API_TOKEN = "This is no API token: they begin with sim_."
# A close frame carries 123 bytes.
NO_TOKEN_ON_SOCKET = 'This needs an API token: send {"Authorization": "Bearer ..."} with connection_init.'


class NotAdmitted(Exception):
    """A failed authentication, with its HTTP status."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class Authenticator:
    """The authentication of all transports of a process, which count failures together."""

    def __init__(self, settings: Settings) -> None:
        self._trusted = not settings.requires_login
        self._failures = RateLimit(FAILURES_PER_MINUTE)
        self._attempt_failures = RateLimit(ATTEMPT_FAILURES_PER_MINUTE)
        self._known = Recent(MOST_KNOWN)  # digests of tokens and cookies that were let in
        self._attempts = Recent(MOST_ATTEMPTS)  # digests of attempts' tokens that were found

    async def find(
        self, sessions: Sessions, connection: HTTPConnection, params: Mapping[str, object] | None = None
    ) -> tuple[Viewer, str | None]:
        """Find who comes, and the bearer they bring. params: of connection_init; None over HTTP.

        Raises `NotAdmitted`: an invalid token, or none where one is required.
        """
        bearer = (_bearer_in(params) if params is not None else None) or _bearer_of(connection)
        if bearer is not None and len(bearer) > LONGEST_TOKEN:
            raise unauthorised(f"This is no token: they have at most {LONGEST_TOKEN:,} characters.")
        login = cookie.value_of(connection) if "authorization" not in connection.headers else None
        # What an attempt's token opens are two mutations, which go over HTTP.
        viewer = await self.recognise(sessions, connection, bearer=bearer, login=login, takes_attempts=params is None)
        if viewer is STRANGER:
            raise unauthorised(NO_TOKEN if params is None else NO_TOKEN_ON_SOCKET)
        return viewer, bearer

    async def recognise(
        self,
        sessions: Sessions,
        connection: HTTPConnection,
        *,
        bearer: str | None,
        login: str | None = None,
        takes_attempts: bool = False,
    ) -> Viewer:
        """Resolve a bearer, or else a session cookie, to its viewer; count failures. Raises `NotAdmitted`.

        takes_attempts: the token of an attempt is enough.
        """
        shown = bearer or login
        if not shown:
            return LOOPBACK if self._trusted else STRANGER
        digest = tokens.digest_of(shown)
        is_api_token = bearer is not None and bearer.startswith(PREFIX)
        is_attempts = takes_attempts and bool(bearer) and not is_api_token and bool(ATTEMPT_TOKEN.fullmatch(shown))
        if is_attempts and digest in self._attempts:
            return SUPERVISOR
        client = connection.client.host if connection.client else ""
        address, failures = client_of(client), self._attempt_failures if is_attempts else self._failures
        wait = failures.wait_seconds(address)
        if wait and digest not in self._known:
            raise _too_often(math.ceil(wait))
        try:
            if not bearer:
                viewer = await recognise_browser(sessions, shown)
            elif is_api_token or is_attempts:
                viewer = await recognise(sessions, bearer, trusted=self._trusted)
            else:
                raise Unauthenticated(NO_TOKEN_OF_OURS if takes_attempts else NO_API_TOKEN)
        except Unauthenticated as refused:
            failures.spend(address)
            self._known.forget(digest)
            log.info("login_failed", client=client, by="token" if bearer else "cookie")
            # A browser can't forget the cookie by itself: it would come back with it for ever.
            raise unauthorised(refused.message, {} if bearer else {"Set-Cookie": cookie.end(connection)}) from None
        except DatabaseUnavailable:
            raise NotAdmitted(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database does not answer, so tokens can't be checked: try again.",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None
        (self._attempts if is_attempts else self._known).add(digest)
        return viewer


class Recent:
    """A bounded set, which drops what was added or asked for longest ago."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        if digest not in self._kept:
            return False
        self._kept.move_to_end(digest)
        return True

    def add(self, digest: bytes) -> None:
        self._kept[digest] = None
        self._kept.move_to_end(digest)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        self._kept.pop(digest, None)


def unauthorised(message: str, headers: Mapping[str, str] | None = None) -> NotAdmitted:
    """Make the error of a missing or invalid credential."""
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
    """Return the bearer of connection_init; None without one. Raises `NotAdmitted` for a malformed one."""
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
