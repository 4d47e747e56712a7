"""Browser logins: a random value in a cookie, and its digest in a row that stands for the token.

The cookie does not hold the token: browsers keep cookies on disk and send them to every port of a host, so other
services there would get a secret that opens the API from everywhere, for as long as it is valid. Nor is the cookie
signed instead of stored: it could not be revoked, and a reader of a backup could forge one. A login ends with its
token, when its browser signs out, or after `LIFETIME`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.events import Actor
from db.models import Login, Token
from db.notifications import Channel, notify
from db.tokens import digest_of, is_usable

LIFETIME = timedelta(days=30)  # at most: a token may end before
MOST_PER_TOKEN = 100  # the oldest one gives way: signing in again and again fills no disk


async def begin(session: AsyncSession, token: Token, origin: str | None) -> tuple[str, datetime]:
    """Let a browser in: its cookie's value, which is kept nowhere, and when that ends."""
    value = secrets.token_urlsafe(32)
    await _clear(session, token.id)
    expires_at: datetime = (
        await session.execute(
            insert(Login)
            .values(
                digest=digest_of(value),
                token_id=token.id,
                expires_at=func.least(func.now() + LIFETIME, token.expires_at),  # null: LEAST passes over it
            )
            .returning(Login.expires_at)
        )
    ).scalar_one()
    await events.record(session, "SIGNED_IN", Actor(token.name, origin), "Token", token.id)
    return value, expires_at


async def find(session: AsyncSession, value: str) -> tuple[Token, datetime] | None:
    """Find the token that a cookie stands for, and when the login ends; None if either is not valid."""
    found = (
        await session.execute(
            select(Token, Login.expires_at)
            .join(Login, Login.token_id == Token.id)
            .where(Login.digest == digest_of(value), Login.expires_at > func.now(), is_usable())
            .execution_options(populate_existing=True)
        )
    ).one_or_none()
    return (found[0], found[1]) if found is not None else None


async def usable(session: AsyncSession, digests: Collection[bytes]) -> frozenset[bytes]:
    """Which of these logins, given by their digests, still let in: for what was opened with them and is open yet."""
    return frozenset(
        await session.scalars(
            select(Login.digest)
            .join(Token, Token.id == Login.token_id)
            .where(Login.digest.in_(digests), Login.expires_at > func.now(), is_usable())
        )
    )


async def end(session: AsyncSession, value: str, origin: str | None) -> None:
    """Sign a browser out, and end what the login opened; one that is not signed in stays so."""
    token_id = await session.scalar(delete(Login).where(Login.digest == digest_of(value)).returning(Login.token_id))
    if token_id is not None:
        name = await session.scalar(select(Token.name).where(Token.id == token_id))
        await events.record(session, "SIGNED_OUT", Actor(name or "", origin), "Token", token_id)
        await notify(session, Channel.TOKENS, str(token_id))


async def _clear(session: AsyncSession, token_id: int) -> None:
    """Delete expired logins, and the oldest of a token with too many. Waits for no lock."""
    newest = (
        select(Login.digest)
        .where(Login.token_id == token_id)
        .order_by(Login.created_at.desc(), Login.digest)
        .limit(MOST_PER_TOKEN - 1)
    )
    doomed = (
        select(Login.digest)
        .where(or_(Login.expires_at <= func.now(), (Login.token_id == token_id) & Login.digest.not_in(newest)))
        .with_for_update(skip_locked=True)
    )
    await session.execute(delete(Login).where(Login.digest.in_(doomed)).execution_options(synchronize_session=False))
