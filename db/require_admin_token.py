"""Start check: a service that needs logins does not start without a usable token.

The token of `admin_token_file`, for installations that are set up by files, is a row like every other: its file is read
at the start alone, and it is revoked like others. One file is one token: what it held before is revoked.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import events, tokens
from db.events import Actor
from db.models import Token
from db.states import Role

FROM_FILE = "admin token file"  # its name, for everybody that comes in with it
SETTINGS = Actor("settings")


class NoWayIn(Exception):
    """A login is needed and no usable token exists; the message is a sentence for the operator."""


async def require(session: AsyncSession, given: str | None, *, why: str | None) -> None:
    """Ensure that a usable token exists if a login is needed. Raises `NoWayIn`.

    given: the text of a token that is an ADMIN's from now on. why: a login is needed; None: it is not.
    """
    if given is not None:
        await _adopt(session, given)
    if why is not None and not await tokens.any_exists(session):
        raise NoWayIn(
            f"{why}, so every request needs a token, and there is none yet. "
            "Make one: simulations token create NAME --role admin"
        )


async def _adopt(session: AsyncSession, text: str) -> None:
    digest = tokens.digest_of(text)
    if await session.scalar(select(Token.id).where(Token.digest == digest)) is None:
        earlier = await tokens.find_named(session, FROM_FILE)
        if earlier is not None:
            await tokens.revoke(session, earlier.id, SETTINGS)
        made = await session.scalar(
            insert(Token)
            .values(name=FROM_FILE, digest=digest, role=Role.ADMIN, created_by=SETTINGS.name)
            .on_conflict_do_nothing()  # another process, which starts beside this one, was first
            .returning(Token.id)
        )
        if made is not None:
            detail = {"name": FROM_FILE, "role": Role.ADMIN.value, "projects": None, "expiresAt": None}
            await events.record(session, "CREATED", SETTINGS, "Token", made, detail=detail)
    token = await tokens.find(session, text)
    if token is None or token.role is not Role.ADMIN or token.project_ids is not None:
        raise NoWayIn(
            "The token in SIMULATIONS_ADMIN_TOKEN_FILE is expired, revoked or not an ADMIN's: put another one into it."
        )
