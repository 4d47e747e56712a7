"""From a credential to its viewer."""

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


async def test_who_sends_nothing_is_somebody_on_this_host_only(sessions: Sessions) -> None:
    assert await recognise(sessions, None, trusted=True) == LOOPBACK
    assert await recognise(sessions, None, trusted=False) == STRANGER
    for trusted in (True, False):  # it may be an attempt's: it lets in to nothing else, on this host too
        assert await recognise(sessions, "not one of ours", trusted=trusted) == SUPERVISOR
        with pytest.raises(Unauthenticated):
            await recognise(sessions, "sim_unknown", trusted=trusted)


async def test_recognising_somebody_writes_at_most_once_a_minute(
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
