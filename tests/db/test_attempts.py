"""Attempts: their launch, who may speak for one, when it was heard last, and what runs beyond its limit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from rows import claim_launch
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import attempts, lifecycle, silence
from db.attempts import Claim, Standing
from db.events import PLANNER
from db.states import Reason
from policy.retry import is_overdue
from transitions.begin import hello
from transitions.stop import stop

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]


async def heard_just_now(rows: Rows, attempt_id: int) -> bool:
    return bool(
        await rows.value(
            "SELECT heartbeat_at > now() - interval '10 s' FROM members WHERE attempt_id = :id", id=attempt_id
        )
    )


# --- launching -------------------------------------------------------------------------------------------------


async def test_a_launch_is_claimed_anew_with_another_token_until_a_supervisor_says_hello(rows: Rows) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    async with rows.sessions.begin() as session:
        assert await claim_launch(session, attempt_id, b"first")
        assert await claim_launch(session, attempt_id, b"second")
        assert (await hello(session, Claim(attempt_id, b"first", "n"))).standing is Standing.UNKNOWN
        assert (await hello(session, Claim(attempt_id, b"second", "n"))).standing is Standing.CURRENT
    async with rows.sessions.begin() as session:
        assert not await claim_launch(session, attempt_id, b"third")
        assert (await attempts.accept(session, Claim(attempt_id, b"second", "n"), 1)).stored


async def test_the_launch_of_an_ended_or_unknown_attempt_is_not_claimed(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    await rows.end(simulation_id, 1, Reason.CANCELLED)
    async with rows.sessions.begin() as session:
        assert not await claim_launch(session, attempt_id, b"token")
        assert not await claim_launch(session, attempt_id + 1, b"token")


async def test_a_claim_starts_the_lease_anew(rows: Rows) -> None:
    attempt_id = await rows.assign(await rows.simulation())
    await rows.query("UPDATE members SET heartbeat_at = now() - interval '1 day'")
    await rows.launch(attempt_id)
    assert await heard_just_now(rows, attempt_id)


async def test_a_host_is_told_its_open_attempts_oldest_first(rows: Rows) -> None:
    machine_id = await rows.machine(host="here")
    launched, waiting, over = [await rows.simulation(name=name) for name in ("launched", "waiting", "over")]
    ids = [await rows.assign(each, machine_id, host="here") for each in (launched, waiting, over)]
    await rows.assign(await rows.simulation(), machine_id, host="elsewhere")
    await rows.launch(ids[0])
    await rows.end(over, 1, Reason.CANCELLED)
    async with rows.sessions() as session:
        found = await attempts.open_on_host(session, "here")
        assert [(each.attempt.id, each.attempt.simulation_id) for each in found] == [
            (ids[0], launched), (ids[1], waiting),
        ]  # fmt: skip
        found = await attempts.open_on_host(session, "here", not_launched=True)
        assert [each.attempt.id for each in found] == [ids[1]]


async def test_what_is_unwanted_before_its_launch_is_found_until_the_launch_is_claimed(rows: Rows) -> None:
    simulation_id = await rows.simulation()
    attempt_id = await rows.assign(simulation_id)
    await rows.assign(await rows.simulation())  # without a stop
    async with rows.sessions.begin() as session:
        assert await attempts.find_unwanted(session) == []
        await stop(session, simulation_id, Reason.CANCELLED, PLANNER)
        assert [each.id for each in await attempts.find_unwanted(session)] == [attempt_id]
        assert (await attempts.lock(session, attempt_id)).member.token_digest is None
    await rows.launch(attempt_id)
    async with rows.sessions.begin() as session:
        assert await attempts.find_unwanted(session) == []
        assert (await attempts.lock(session, attempt_id)).member.token_digest is not None


# --- heartbeats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 1, 2, 7], ids=["empty", "duplicate", "next", "gap"])
async def test_every_report_of_the_current_attempt_is_a_heartbeat(batch: int | None, rows: Rows) -> None:
    started = await rows.start()
    await rows.report(started, 1)
    await rows.query("UPDATE members SET heartbeat_at = now() - interval '1 day'")
    assert not await heard_just_now(rows, started.attempt_id)
    assert (await rows.report(started, batch)).standing is Standing.CURRENT
    assert await heard_just_now(rows, started.attempt_id)


async def test_a_hello_is_a_heartbeat_too(rows: Rows) -> None:
    started = await rows.start()
    await rows.query("UPDATE members SET heartbeat_at = now() - interval '1 day'")
    async with rows.sessions.begin() as session:
        await hello(session, started.claim)
    assert await heard_just_now(rows, started.attempt_id)


# --- limits and reading ----------------------------------------------------------------------------------------


async def test_what_runs_beyond_its_limit_and_the_margin_is_overdue_until_it_is_asked_to_stop(rows: Rows) -> None:
    limited = await rows.start(await rows.simulation(max_runtime=timedelta(seconds=100)))
    await rows.start()  # has no limit
    waiting = await rows.simulation(max_runtime=timedelta(seconds=1))
    await rows.assign(waiting)  # has not begun: its time does not count yet

    async def overdue_after(seconds: int, beat_ago: int = 0) -> list[int]:
        await rows.query(
            "UPDATE attempts SET started_at = now() - CAST(:p AS interval) "
            "WHERE id IN (SELECT attempt_id FROM members WHERE nonce IS NOT NULL)",
            p=timedelta(seconds=seconds),
        )
        await rows.query("UPDATE coverage SET beat_at = now() - CAST(:p AS interval)", p=timedelta(seconds=beat_ago))
        async with rows.sessions() as session:
            listening = await silence.listening(session)
            return [
                attempt.simulation_id
                for attempt, limit in await silence.find_beyond_limit(session)
                if is_overdue(attempt.started_at, limit, listening, timedelta(seconds=30), timedelta(0))
            ]

    assert await overdue_after(120) == [], "no scheduler has ever looked"
    await rows.query("INSERT INTO coverage SELECT 'scheduler', now() - interval '1 day', now()")
    assert await overdue_after(110) == []
    assert await overdue_after(120, beat_ago=11) == [], "the clock may have jumped since"
    assert await overdue_after(120) == [limited.simulation_id]
    async with rows.sessions.begin() as session:
        await stop(session, limited.simulation_id, Reason.MAX_RUNTIME, PLANNER)
    assert await overdue_after(120) == []


async def test_the_highest_id_ever_minted_is_known_though_its_row_is_gone(rows: Rows) -> None:
    async with rows.sessions() as session:
        assert await attempts.newest_minted(session) == 0
    attempt_id = await rows.assign(await rows.simulation())
    await rows.query("DELETE FROM attempts")
    async with rows.sessions() as session:
        assert await attempts.newest_minted(session) == attempt_id


async def test_attempts_are_listed_first_to_last_and_the_current_ones_told_apart(rows: Rows) -> None:
    first = await rows.start()
    await rows.end(first.simulation_id, 1, Reason.MACHINE_LOST, retry_after=timedelta(0))
    second = await rows.start(first.simulation_id)
    ids = [first.attempt_id, second.attempt_id]
    async with rows.sessions() as session:
        assert [each.attempt.number for each in await attempts.of_simulation(session, first.simulation_id)] == [1, 2]
        members = await attempts.known_members(session, [*ids, 999])
        current = [each for each, hosted in members.items() if hosted.member.ended_at is None]
        assert (set(members), current) == ({(each, 0) for each in ids}, [(second.attempt_id, 0)])
        assert {each.id for each in await attempts.by_ids(session, [*ids, 999])} == set(ids)
        assert await lifecycle.lock_of(session, second.attempt_id, second.token) == first.simulation_id
        assert abs(await attempts.clock(session) - await rows.value("SELECT now()")) < timedelta(minutes=1)
