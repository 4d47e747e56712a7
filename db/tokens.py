"""API tokens: create, find by text, revoke. What a token may do is judged in `graph.operation.permissions`.

A token is `sim_` and 256 random bits. Its text is shown once; the row holds its SHA-256, by which it is found. A slow
hash is for passwords that people choose; 256 random bits can't be guessed. Expiry is judged by Postgres' clock. A
revocation is sent to every process (`Channel.TOKENS`), and processes that missed it check with `usable`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.errors import NotFound, Refusal, Taken
from db.events import Actor
from db.models import Project, Token
from db.notifications import Channel, notify
from db.pages import Ordering, Page, page
from db.projects import Scope
from db.states import Role

PREFIX = "sim_"  # recognisable: for scanners that look for secrets, and to tell it from an attempt's token
TOUCH_AFTER = timedelta(minutes=1)  # how exactly the last use is known: reading should not write each time

# Whom events name without a token: a token of that name would make the audit lie.
RESERVED = frozenset({events.PLANNER.name, events.SUPERVISOR.name, "anonymous", "command line"})


def digest_of(text: str) -> bytes:
    """SHA-256 of a token's text, by which the token is found."""
    return sha256(text.encode(errors="surrogateescape")).digest()


async def create(
    session: AsyncSession,
    name: str,
    role: Role,
    actor: Actor,
    *,
    scope: Scope = None,
    lifetime: timedelta | None = None,
) -> tuple[Token, str]:
    """Create a token; return its row and its text, which is stored nowhere.

    Raises `Taken` for the name of another one that is not revoked, `NotFound` for a project that is not there.
    """
    if name in RESERVED or name.endswith(events.UNVERIFIED):
        raise Taken(f"{name!r} is reserved for the service in the history: choose another name.", field="name")
    if scope is not None:
        await _require_projects(session, scope)
    text = PREFIX + secrets.token_urlsafe(32)
    token: Token | None = await session.scalar(
        insert(Token)
        .values(
            name=name,
            digest=digest_of(text),
            role=role,
            project_ids=sorted(scope) if scope is not None else None,
            created_by=actor.name,
            expires_at=func.now() + lifetime if lifetime is not None else None,
        )
        .on_conflict_do_nothing(index_elements=["name"], index_where=Token.revoked_at.is_(None))
        .returning(Token)
    )
    if token is None:
        raise Taken(f"Another token is called {name!r}: revoke it first, or choose another name.", field="name")
    detail = {
        "name": token.name,
        "role": role.value,
        "projects": token.project_ids,
        "expiresAt": token.expires_at.isoformat() if token.expires_at is not None else None,
    }
    await events.record(session, "CREATED", actor, "Token", token.id, detail=detail)
    return token, text


async def find(session: AsyncSession, text: str) -> Token | None:
    """Find the token with this text; None if it is unknown, expired or revoked."""
    return await session.scalar(
        select(Token).where(Token.digest == digest_of(text), is_usable()).execution_options(populate_existing=True)
    )


def is_due(token: Token) -> bool:
    """Whether `touch` may have something to note: by this process's clock, so that most uses cost no statement."""
    return token.last_used_at is None or datetime.now(UTC) - token.last_used_at >= TOUCH_AFTER


async def touch(session: AsyncSession, token_id: int) -> bool:
    """Note that a token is used now, unless that was noted within the last minute. Waits for no lock."""
    due = (
        select(Token.id)
        .where(
            Token.id == token_id,
            or_(Token.last_used_at.is_(None), Token.last_used_at <= func.now() - TOUCH_AFTER),
        )
        .with_for_update(key_share=True, skip_locked=True)
    )
    touched = await session.scalar(
        update(Token)
        .where(Token.id.in_(due.scalar_subquery()))
        .values(last_used_at=func.now())
        .returning(Token.id)
        .execution_options(synchronize_session=False)
    )
    return touched is not None


async def usable(session: AsyncSession, ids: Collection[int]) -> frozenset[int]:
    """Which of these tokens still let in: for what was opened with them and is open yet."""
    return frozenset((await session.scalars(select(Token.id).where(Token.id.in_(ids), is_usable()))).all())


async def revoke(session: AsyncSession, token_id: int, actor: Actor) -> Token:
    """Revoke a token and end its logins and streams; idempotent. Raises `NotFound`."""
    revoked = await session.scalar(
        update(Token)
        .where(Token.id == token_id, Token.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(Token)
        .execution_options(populate_existing=True)
    )
    if revoked is not None:
        await events.record(session, "REVOKED", actor, "Token", token_id, detail={"name": revoked.name})
        await notify(session, Channel.TOKENS, str(token_id))
        return revoked
    token = await session.get(Token, token_id, populate_existing=True)
    if token is None:
        raise NotFound("There is no such token.", field="id")
    return token


async def by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[Token]:
    return (await session.scalars(select(Token).where(Token.id.in_(ids)))).all()


async def find_named(session: AsyncSession, name: str) -> Token | None:
    """Find the token of this name that is not revoked."""
    return await session.scalar(select(Token).where(Token.name == name, Token.revoked_at.is_(None)))


async def page_all(session: AsyncSession, *, first: int, after: str | None) -> Page[Token]:
    """One page of all that ever were, the newest first."""
    return await page(session, select(Token), Ordering((Token.id,), descending=True), first=first, after=after)


async def any_exists(session: AsyncSession) -> bool:
    """Whether a usable token exists."""
    return bool(await session.scalar(select(select(Token.id).where(is_usable()).exists())))


def is_usable() -> ColumnElement[bool]:
    """Neither revoked nor expired, by Postgres' clock."""
    return Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > func.now())


async def _require_projects(session: AsyncSession, ids: frozenset[int]) -> None:
    if not ids:
        raise Refusal("Name at least one project, or none at all for all of them.", field="projects")
    found = (await session.scalars(select(Project.id).where(Project.id.in_(ids)))).all()
    if len(found) < len(ids):
        raise NotFound("There is no such project.", field="projects")
