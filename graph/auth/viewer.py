"""The viewer: who makes a request, and how a credential becomes one.

A viewer has a role, the projects it is for, and the API token it came in with. `recognise` reads a bearer token,
`recognise_browser` a login cookie; both record that the token is in use and raise `Unauthenticated` for a credential
that is unknown, expired or revoked. What a viewer may do is in graph/operation/permissions.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from db import attempts, logins, tokens
from db.connection import Sessions, driver_of
from db.models import Token
from db.projects import Scope
from db.states import Role
from graph.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class Viewer:
    """The author of a request. No role: a stranger, or a supervisor, whose attempt's token is checked at its use."""

    name: str
    role: Role | None
    projects: Scope = None
    token_id: int | None = None
    expires_at: datetime | None = None
    login: bytes | None = None  # the digest of a browser's login (db/logins.py), which may end before its token

    @classmethod
    def of(cls, token: Token) -> Viewer:
        scope = frozenset(token.project_ids) if token.project_ids is not None else None
        return cls(token.name, token.role, scope, token.id, token.expires_at)


NO_TOKEN_OF_OURS = "This is neither an API token, which begins with sim_, nor the token of an attempt."
NO_PROJECTS: Scope = frozenset()
LOOPBACK = Viewer("anonymous", Role.ADMIN)  # without login, on this host
STRANGER = Viewer("anonymous", None, NO_PROJECTS)  # without login, from elsewhere
SUPERVISOR = Viewer("supervisor", None, NO_PROJECTS)  # with the token of some attempt


async def recognise(sessions: Sessions, bearer: str | None, *, trusted: bool) -> Viewer:
    """Find the viewer of this bearer, and note that its token is used. trusted: on this host, where none is needed.

    Raises `Unauthenticated` for a token that is unknown, expired or revoked, on this host too.
    """
    if not bearer:
        return LOOPBACK if trusted else STRANGER
    if not bearer.startswith(tokens.PREFIX):
        async with driver_of(sessions) as driver:
            if await attempts.has_token(driver, tokens.digest_of(bearer)):
                return SUPERVISOR
        raise Unauthenticated(NO_TOKEN_OF_OURS)
    async with sessions() as session, session.begin():
        token = await tokens.find(session, bearer)
        if token is None:
            raise Unauthenticated("This token is unknown, expired or revoked.")
        if tokens.is_due(token):
            await tokens.touch(session, token.id)
        return Viewer.of(token)


async def recognise_browser(sessions: Sessions, login: str) -> Viewer:
    """Say who signed in with the token that this cookie stands for. Raises `Unauthenticated`."""
    async with sessions() as session, session.begin():
        found = await logins.find(session, login)
        if found is None:
            raise Unauthenticated("This login has ended, or its token was revoked: sign in again.")
        token, expires_at = found
        if tokens.is_due(token):
            await tokens.touch(session, token.id)
        return replace(Viewer.of(token), expires_at=expires_at, login=tokens.digest_of(login))
