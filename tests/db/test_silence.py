"""Silence: when it means that an attempt is lost, and when reports could not arrive.

Time passes by moving it in the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import attempts, silence
from policy.retry import coverage_gap, is_silent

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]

LEASE = timedelta(seconds=30)
GAP = coverage_gap(LEASE)


async def beat(rows: Rows, *roles: str) -> None:
    async with rows.sessions.begin() as session:
        for role in roles or ("graph", "scheduler"):
            await silence.beat(session, role, GAP)


async def pass_time(rows: Rows, period: timedelta) -> None:
    """So much later, by every clock: all that was written lies further back."""
    await rows.query(
        "UPDATE coverage SET covered_since = covered_since - CAST(:p AS interval), "
        "beat_at = beat_at - CAST(:p AS interval)",
        p=period,
    )
    await rows.query("UPDATE members SET heartbeat_at = heartbeat_at - CAST(:p AS interval)", p=period)


async def listen_for(rows: Rows, period: timedelta, *, roles: Sequence[str] = ("graph", "scheduler")) -> None:
    """Time passes while these roles beat as often as they have to."""
    pause = GAP * 0.9
    while period > timedelta(0):
        await pass_time(rows, min(pause, period))
        await beat(rows, *roles)
        period -= pause


async def silent(rows: Rows) -> list[int]:
    async with rows.sessions() as session:
        listening = await silence.listening(session)
        quiet = await silence.find_quiet(session, LEASE)
        return [each.id for each in quiet if is_silent(each.member.heartbeat_at, listening, LEASE)]


async def still_silent(session: AsyncSession, attempt_id: int) -> bool:
    """Look again under lock."""
    current = await attempts.lock(session, attempt_id)
    return current is not None and is_silent(current.member.heartbeat_at, await silence.listening(session), LEASE)


async def test_an_attempt_without_a_report_for_a_whole_lease_is_silent(rows: Rows) -> None:
    started, talkative = await rows.start(), await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 0.9)
    assert await silent(rows) == []
    await rows.report(talkative, None)
    await listen_for(rows, LEASE * 0.2)
    assert await silent(rows) == [started.attempt_id]
    async with rows.sessions.begin() as session:
        assert await still_silent(session, started.attempt_id)
        assert not await still_silent(session, talkative.attempt_id)


async def test_one_that_was_heard_meanwhile_is_no_longer_silent(rows: Rows) -> None:
    started = await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 1.1)
    assert await silent(rows) == [started.attempt_id]
    await rows.report(started, None)
    async with rows.sessions.begin() as session:
        assert not await still_silent(session, started.attempt_id)


async def test_an_ended_attempt_is_never_silent(rows: Rows) -> None:
    started = await rows.start()
    await rows.end(started.simulation_id, 1)
    await beat(rows)
    await listen_for(rows, LEASE * 2)
    assert await silent(rows) == []
    async with rows.sessions.begin() as session:
        assert not await still_silent(session, started.attempt_id)


@pytest.mark.parametrize("there", ["", "graph", "scheduler"])
async def test_no_attempt_is_silent_where_a_role_was_missing_all_along(there: str, rows: Rows) -> None:
    await rows.start()
    if there:
        await beat(rows, there)
        await listen_for(rows, LEASE * 2, roles=[there])
    else:
        await pass_time(rows, LEASE * 2)
    assert await silent(rows) == []


@pytest.mark.parametrize("absent", ["graph", "scheduler"])
async def test_no_attempt_is_silent_for_a_lease_after_a_role_was_away(absent: str, rows: Rows) -> None:
    started = await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE)
    present = "scheduler" if absent == "graph" else "graph"
    await listen_for(rows, GAP * 1.5, roles=[present])
    assert await silent(rows) == []  # it is still away
    await beat(rows)
    assert await silent(rows) == []  # it is back, and no report has arrived yet
    await listen_for(rows, LEASE * 0.9)
    assert await silent(rows) == []
    await listen_for(rows, LEASE * 0.2)
    assert await silent(rows) == [started.attempt_id]


async def test_a_night_switched_off_makes_no_attempt_silent(rows: Rows) -> None:
    await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 1.1)
    await pass_time(rows, timedelta(hours=8))
    assert await silent(rows) == []
    await beat(rows)
    assert await silent(rows) == []


async def test_a_beat_in_time_goes_on_covering_and_a_late_one_begins_anew(rows: Rows) -> None:
    since = "SELECT covered_since FROM coverage WHERE role = 'graph'"
    await beat(rows, "graph")
    await pass_time(rows, GAP * 0.9)
    before = await rows.value(since)
    await beat(rows, "graph")
    assert await rows.value(since) == before
    await pass_time(rows, GAP * 1.1)
    await beat(rows, "graph")
    assert await rows.value("SELECT beat_at - covered_since < interval '1 s' FROM coverage WHERE role = 'graph'")


async def test_a_clock_that_was_set_back_begins_anew(rows: Rows) -> None:
    started = await rows.start()
    await beat(rows)
    await listen_for(rows, LEASE * 1.1)
    # The clock goes back by an hour: everything that was written lies in the future now.
    await pass_time(rows, -timedelta(hours=1))
    assert await silent(rows) == []
    await beat(rows)
    assert await silent(rows) == []
    async with rows.sessions.begin() as session:
        await silence.forgive_clock(session)
    heard = await rows.value("SELECT now() - heartbeat_at FROM members WHERE attempt_id = :id", id=started.attempt_id)
    assert timedelta(0) <= heard < LEASE
    await listen_for(rows, LEASE * 1.1)
    assert await silent(rows) == [started.attempt_id]  # and not only in an hour


async def test_a_clock_that_was_set_back_touches_neither_the_past_nor_what_has_ended(rows: Rows) -> None:
    past, over = await rows.start(), await rows.start()
    await rows.end(over.simulation_id, 1)
    await rows.query(
        "UPDATE members SET heartbeat_at = now() - interval '5 s' WHERE attempt_id = :id", id=past.attempt_id
    )
    await rows.query(
        "UPDATE members SET heartbeat_at = now() + interval '1 h' WHERE attempt_id = :id", id=over.attempt_id
    )
    before = await rows.query("SELECT attempt_id, heartbeat_at FROM members ORDER BY attempt_id")
    async with rows.sessions.begin() as session:
        await silence.forgive_clock(session)
    assert await rows.query("SELECT attempt_id, heartbeat_at FROM members ORDER BY attempt_id") == before


async def test_beats_of_several_processes_that_overtake_one_another_leave_no_gap(
    rows: Rows, other_sessions: Sessions
) -> None:
    await beat(rows, "graph")
    await pass_time(rows, GAP * 0.5)
    since = await rows.value("SELECT covered_since FROM coverage")
    async with other_sessions.begin() as slow:
        await rows.pid(slow)  # its transaction has begun, and with it its now() stands still
        await beat(rows, "graph")
        await silence.beat(slow, "graph", GAP)
    assert await rows.value("SELECT covered_since FROM coverage") == since


async def test_a_beat_waits_for_no_disk_and_what_comes_after_it_does(rows: Rows) -> None:
    async with rows.sessions() as session:
        async with session.begin():  # as installations have it; the server of the tests waits for no disk at all
            await session.execute(text("SET synchronous_commit = on"))
        for _ in range(2):  # the first makes the row
            async with session.begin():
                await silence.beat(session, "graph", GAP)
                assert await session.scalar(text("SHOW synchronous_commit")) == "off"
            async with session.begin():
                assert await session.scalar(text("SHOW synchronous_commit")) == "on"


async def test_first_beats_of_two_processes_at_once_are_one_row(rows: Rows, other_sessions: Sessions) -> None:
    async with rows.sessions() as first, other_sessions.begin() as second:
        await silence.beat(first, "graph", GAP)
        pid = await rows.pid(second)
        other = asyncio.create_task(silence.beat(second, "graph", GAP))
        await rows.until_blocked(pid)
        await first.commit()
        await other
    assert await rows.value("SELECT count(*) FROM coverage") == 1
