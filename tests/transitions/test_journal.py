"""The log of transitions: a line for what was committed, and none for what was rolled back."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from db import lifecycle
from db.events import Actor
from db.states import Reason
from transitions import journal
from transitions.settle import Ending, end
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
OTHER = Actor("other")


async def test_a_transition_is_logged_when_it_commits_and_not_before(rows: Rows) -> None:
    started = await rows.start()
    with capture_logs() as lines:
        async with rows.sessions() as session:
            await lifecycle.lock(session, started.simulation_id)
            assert await end(session, started.simulation_id, 1, Ending(Reason.EXIT_CODE, "A sentence.", 3), OTHER)
            assert lines == []
            await session.commit()
    [line] = lines
    assert line == {
        "event": "attempt_ended", "log_level": "info", "simulation_id": started.simulation_id,
        "attempt_id": started.attempt_id, "attempt": 1, "state": "FAILED", "reason": "EXIT_CODE",
        "detail": "A sentence.", "exit_code": 3, "retry_after_seconds": None,
    }  # fmt: skip


async def test_what_is_rolled_back_is_not_logged_even_if_the_session_goes_on(rows: Rows) -> None:
    started, other = await rows.start(), await rows.start()
    with capture_logs() as lines:
        async with rows.sessions() as session:
            assert await stop(session, started.simulation_id, Reason.CANCELLED, OTHER)
            await session.rollback()
            assert await stop(session, other.simulation_id, Reason.CANCELLED, OTHER)
            await session.commit()
            await rows.pid(session)
            await session.commit()
    assert [(line["event"], line["simulation_id"]) for line in lines] == [("stop_wanted", other.simulation_id)]


async def test_a_savepoint_that_is_released_is_no_commit(rows: Rows) -> None:
    with capture_logs() as lines:
        async with rows.sessions() as session:
            await rows.pid(session)
            journal.write(session, "first")
            async with session.begin_nested():
                await rows.pid(session)
            assert lines == []
            journal.write(session, "second", number=2)
            await session.commit()
    assert [line["event"] for line in lines] == ["first", "second"]


async def test_a_whole_life_is_one_line_for_each_transition(rows: Rows) -> None:
    with capture_logs() as lines:
        started = await rows.start()
        await rows.end(started.simulation_id, 1)
    assert [line["event"] for line in lines] == ["simulation_assigned", "attempt_began", "attempt_ended"]
