"""`/session`: sign in with a token, for a cookie (POST), get the viewer (GET), and sign out (DELETE).

    POST {"token": "sim_..."}    200 {"name", "role", "expiresAt"} and the cookie; 401, or 429 after too many failures

What a cookie may be used from is judged by its Origin (http/origin_check.py) and by the browser (SameSite=Strict);
the body must be JSON, which no form of another page can send. Signing out ends the cookie wherever it was copied to,
and what was opened with it, sockets and streams, in every graph process (auth/token_revocation.py). Fails with a status
and a sentence, as `/graphql`.
"""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from db import logins, tokens
from db.connection import Sessions
from db.errors import DatabaseUnavailable
from graph.auth import cookie
from graph.auth.authenticate import Authenticator, NotAdmitted, unauthorised
from graph.auth.token_revocation import TokenRevocation
from graph.auth.viewer import Viewer
from graph.errors import RETRY_AFTER_SECONDS
from graph.http import protocol
from graph.http.protocol import EarlyRefusal, Refusal

MOST_BYTES = 4_096  # a token has less than a hundred
REQUEST_SECONDS = 10.0
METHODS = ("GET", "POST", "DELETE")


class SessionEndpoint:
    """The ASGI application at `/session`."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await self._answer(request)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            await protocol.refuse(refusal, protocol.JSON, request, send)
        except TimeoutError:
            late = Refusal(HTTPStatus.REQUEST_TIMEOUT, "That took too long.", {"Connection": "close"})
            await protocol.refuse(late, protocol.JSON, request, send)
        else:
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            match request.method:
                case "POST":
                    return await self._sign_in(request)
                case "DELETE":
                    return await self._sign_out(request)
                case "GET":
                    return await self._who(request)
        except NotAdmitted as refused:
            raise EarlyRefusal(refused.status, refused.message, refused.headers) from None
        except DatabaseUnavailable:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database does not answer: try again in a moment.",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None
        methods = ", ".join(METHODS)
        raise EarlyRefusal(HTTPStatus.METHOD_NOT_ALLOWED, f"A session takes {methods}.", {"Allow": methods})

    async def _sign_in(self, request: Request) -> Response:
        given = await protocol.read_json(request, most_bytes=MOST_BYTES)
        token = given.get("token") if isinstance(given, dict) else None
        if not isinstance(token, str) or not token.strip():
            raise Refusal(HTTPStatus.BAD_REQUEST, 'The body is a JSON object with the token: {"token": "sim_..."}.')
        sessions: Sessions = request.state.sessions
        await self._authenticator.recognise(sessions, request, bearer=token.strip())
        async with sessions() as session, session.begin():
            row = await tokens.find(session, token.strip())
            if row is None:
                raise unauthorised("This token was revoked just now.")
            origin = request.client.host if request.client else None
            if (earlier := cookie.value_of(request)) is not None:
                await logins.end(session, earlier, origin)
            value, expires_at = await logins.begin(session, row, origin)
        response = _who_is(Viewer.of(row), expires_at)
        seconds = max(1, math.ceil((expires_at - datetime.now(UTC)).total_seconds()))
        response.headers["Set-Cookie"] = cookie.header(request, value, max_age_seconds=seconds)
        return response

    async def _sign_out(self, request: Request) -> Response:
        if (value := cookie.value_of(request)) is not None:
            sessions: Sessions = request.state.sessions
            async with sessions() as session, session.begin():
                await logins.end(session, value, request.client.host if request.client else None)
            revocation: TokenRevocation = request.state.revocation
            revocation.stir()  # here at once, elsewhere when it is notified
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Set-Cookie": cookie.end(request)})

    async def _who(self, request: Request) -> Response:
        viewer, _ = await self._authenticator.find(request.state.sessions, request)
        if viewer.role is None:
            raise unauthorised("This is no API token: they begin with sim_.")
        return _who_is(viewer, viewer.expires_at)


def _who_is(viewer: Viewer, expires_at: datetime | None) -> Response:
    content = {"name": viewer.name, "role": viewer.role, "expiresAt": expires_at.isoformat() if expires_at else None}
    return protocol.json_response(content, protocol.JSON)
