"""Viewers: which one a credential belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from db import tokens
from db.connection import Sessions
from db.events import Actor
from db.models import Token
from db.states import Role
from graph.auth.viewer import LOOPBACK, STRANGER, SUPERVISOR, Viewer, recognise
from graph.errors import Unauthenticated

World = Any  # the fixtures of conftest.py


async def test_a_request_without_a_token_has_a_role_on_this_host_only(sessions: Sessions) -> None:
    assert await recognise(sessions, None, trusted=True) == LOOPBACK
    assert await recognise(sessions, None, trusted=False) == STRANGER
    for trusted in (True, False):  # on this host too
        for text in ("not one of ours", "sim_unknown", "x" * 43):
            with pytest.raises(Unauthenticated):
                await recognise(sessions, text, trusted=trusted)


async def test_an_attempts_token_is_a_supervisors_also_when_the_attempt_is_over(
    world: World, sessions: Sessions
) -> None:
    supervisor = await world.running()
    assert await recognise(sessions, supervisor.token, trusted=True) == SUPERVISOR
    await supervisor.exit()
    assert await recognise(sessions, supervisor.token, trusted=False) == SUPERVISOR


async def test_recognising_a_viewer_writes_at_most_once_a_minute(
    sessions: Sessions, engine: Any, statements: Any
) -> None:
    async with sessions.begin() as session:
        _, text = await tokens.create(session, "ci", Role.VIEWER, Actor("ada"))
    with statements.of(engine):
        for _ in range(3):
            await recognise(sessions, text, trusted=False)
    assert len(statements.matching("UPDATE tokens")) == 1
    assert len(statements.matching("SELECT", "tokens.digest =")) == 3


def test_a_row_makes_the_viewer_that_it_says() -> None:
    row = Token(id=7, name="n", role=Role.VIEWER, project_ids=[1, 2], expires_at=None)
    assert Viewer.of(row) == Viewer("n", Role.VIEWER, frozenset({1, 2}), 7)
    row.project_ids = []
    assert Viewer.of(row).projects == frozenset()  # of none: not of all
