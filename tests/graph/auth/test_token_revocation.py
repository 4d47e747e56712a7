"""Token revocation: closes the connections of a token within seconds, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import logins, tokens
from db.events import Actor
from db.outage import Outage
from db.states import Role
from graph.auth.token_revocation import TokenRevocation
from graph.auth.viewer import LOOPBACK, Viewer
from graph.live.hub import Hub
from graph.live.notifications import Notifications

Sessions = async_sessionmaker[AsyncSession]
ADA = Actor("ada")
PATIENCE_SECONDS = 60


async def make(sessions: Sessions, name: str) -> Viewer:
    async with sessions.begin() as session:
        token, _ = await tokens.create(session, name, Role.VIEWER, ADA)
        return Viewer.of(token)


async def revoke(sessions: Sessions, viewer: Viewer) -> None:
    assert viewer.token_id is not None
    async with sessions.begin() as session:
        await tokens.revoke(session, viewer.token_id, ADA)


@pytest.fixture(params=["told", "looked for"])
async def revocation(
    request: Any, sessions: Sessions, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TokenRevocation]:
    """Once woken by hints only, once by its timer only."""
    told = request.param == "told"
    monkeypatch.setattr("graph.auth.token_revocation.LOOK_AGAIN_SECONDS", 3_600 if told else 0.05)
    revocation = TokenRevocation(sessions)
    outage = Outage()
    notifications = Notifications(database_url if told else None, Hub(sessions), outage, revocation.stir)
    async with notifications.running(), revocation.running():
        yield revocation


async def test_a_revoked_token_ends_what_it_opened_and_nothing_else(
    revocation: TokenRevocation, sessions: Sessions
) -> None:
    one, other = await make(sessions, "one"), await make(sessions, "other")
    with (
        revocation.open(one) as first,
        revocation.open(one) as second,
        revocation.open(other) as third,
        revocation.open(LOOPBACK) as here,
    ):
        await revocation.look()
        assert not first.is_set()
        await revoke(sessions, one)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await first.wait()
            await second.wait()
        await revocation.look()
        assert not third.is_set()
        assert not here.is_set()


async def test_an_expired_token_ends_what_it_opened(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.auth.token_revocation.LOOK_AGAIN_SECONDS", 0.05)
    viewer, revocation = await make(sessions, "short"), TokenRevocation(sessions)
    async with revocation.running():
        with revocation.open(viewer) as ended:
            await revocation.look()
            assert not ended.is_set()
            async with sessions.begin() as session:
                await session.execute(text("UPDATE tokens SET expires_at = now()"))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await ended.wait()


async def test_a_token_that_ended_just_before_is_noticed_when_something_is_opened(
    revocation: TokenRevocation, sessions: Sessions
) -> None:
    viewer = await make(sessions, "gone")
    await revoke(sessions, viewer)
    with revocation.open(viewer) as ended:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended.wait()


async def test_what_was_closed_is_not_asked_for_again(sessions: Sessions, engine: Any, statements: Any) -> None:
    viewer, revocation = await make(sessions, "brief"), TokenRevocation(sessions)
    with statements.of(engine):
        with revocation.open(viewer), revocation.open(viewer):
            await revocation.look()
        await revocation.look()
    assert len(statements.matching("FROM tokens")) == 1


async def test_a_login_ends_with_its_cookie_its_token_or_its_time_and_each_kind_is_asked_for_once(
    sessions: Sessions, engine: Any, statements: Any
) -> None:
    viewer, revocation = await make(sessions, "ada"), TokenRevocation(sessions)
    values = []
    async with sessions.begin() as session:
        token = await tokens.find_named(session, "ada")
        assert token is not None
        values = [(await logins.begin(session, token, None))[0] for _ in range(3)]
    browsers = [replace(viewer, login=tokens.digest_of(value)) for value in values]
    with ExitStack() as stack:
        out, late, kept, by_token = (stack.enter_context(revocation.open(each)) for each in (*browsers, viewer))
        async with sessions.begin() as session:
            await logins.end(session, values[0], None)
            await session.execute(
                text("UPDATE logins SET expires_at = now() WHERE digest = :digest"), {"digest": browsers[1].login}
            )
        with statements.of(engine):
            await revocation.look()
        assert [each.is_set() for each in (out, late, kept, by_token)] == [True, True, False, False]
        assert len(statements.matching("FROM tokens")) + len(statements.matching("FROM logins")) == 2
        await revoke(sessions, viewer)
        await revocation.look()
        assert kept.is_set()
        assert by_token.is_set()
