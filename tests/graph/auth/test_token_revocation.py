"""What was opened with a token ends with it, within seconds, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import tokens
from db.events import Actor
from db.states import Role
from graph.auth.token_revocation import Doors
from graph.auth.viewer import LOOPBACK, Viewer
from graph.live.hub import Hub

Sessions = async_sessionmaker[AsyncSession]
ADA = Actor("ada")
PATIENCE_SECONDS = 20


async def make(sessions: Sessions, name: str) -> Viewer:
    async with sessions.begin() as session:
        token, _ = await tokens.create(session, name, Role.VIEWER, ADA)
        return Viewer.of(token)


async def revoke(sessions: Sessions, viewer: Viewer) -> None:
    assert viewer.token_id is not None
    async with sessions.begin() as session:
        await tokens.revoke(session, viewer.token_id, ADA)


@pytest.fixture(params=["told", "looked for"])
async def doors(
    request: Any, sessions: Sessions, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Doors]:
    """Doors that are told only, and doors that look by timer only."""
    told = request.param == "told"
    monkeypatch.setattr("graph.auth.token_revocation.LOOK_AGAIN_SECONDS", 3_600 if told else 0.05)
    doors = Doors(sessions)
    hub = Hub(sessions, tokens_changed=doors.stir)
    async with hub.running(database_url if told else None), doors.running():
        yield doors


async def test_a_revoked_token_ends_what_it_opened_and_nothing_else(doors: Doors, sessions: Sessions) -> None:
    one, other = await make(sessions, "one"), await make(sessions, "other")
    with doors.open(one) as first, doors.open(one) as second, doors.open(other) as third, doors.open(LOOPBACK) as here:
        await doors.look()
        assert not first.is_set()
        await revoke(sessions, one)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await first.wait()
            await second.wait()
        await doors.look()
        assert not third.is_set()
        assert not here.is_set()


async def test_an_expired_token_ends_what_it_opened(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.auth.token_revocation.LOOK_AGAIN_SECONDS", 0.05)
    viewer, doors = await make(sessions, "short"), Doors(sessions)
    async with doors.running():
        with doors.open(viewer) as ended:
            await doors.look()
            assert not ended.is_set()
            async with sessions.begin() as session:
                await session.execute(text("UPDATE tokens SET expires_at = now()"))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await ended.wait()


async def test_a_token_that_ended_just_before_is_noticed_when_something_is_opened(
    doors: Doors, sessions: Sessions
) -> None:
    viewer = await make(sessions, "gone")
    await revoke(sessions, viewer)
    with doors.open(viewer) as ended:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended.wait()


async def test_what_was_closed_is_not_asked_for_again(sessions: Sessions, engine: Any, statements: Any) -> None:
    viewer, doors = await make(sessions, "brief"), Doors(sessions)
    with statements.of(engine):
        with doors.open(viewer), doors.open(viewer):
            await doors.look()
        await doors.look()
    assert len(statements.matching("FROM tokens")) == 1
