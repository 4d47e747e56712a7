"""Stop intents: the first one stands. What replaces a preemption is in `test_preempt`."""

from __future__ import annotations

from typing import Any

from db.events import Actor
from db.states import Reason
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
USER = Actor("user", "192.0.2.1")
OTHER = Actor("other")


async def test_the_first_reason_to_stop_stands(rows: Rows) -> None:
    started = await rows.start()
    async with rows.sessions.begin() as session:
        assert await stop(session, started.simulation_id, Reason.CANCELLED, USER)
        assert not await stop(session, started.simulation_id, Reason.MAX_RUNTIME, OTHER)
    intent = await rows.stop_of(started.simulation_id)
    assert (intent.reason, intent.by) == (Reason.CANCELLED, "user")
