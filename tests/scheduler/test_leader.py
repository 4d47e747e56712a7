"""Who plans: one at a time, the next as soon as the first is gone."""

from __future__ import annotations

import asyncio

from db.connection import connect_raw
from db.leader import LEADER_LOCK
from scheduler.leader import Leadership, leadership


async def _end_the_leaders_connection(url: str) -> None:
    """And return when it is gone, with its lock."""
    connection = await connect_raw(url)
    try:
        assert await connection.fetchval(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND granted AND"
            " database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    finally:
        await connection.close()


async def _hold_soon(candidate: Leadership) -> None:
    async with asyncio.timeout(60):
        while not await candidate.hold():
            await asyncio.sleep(0.01)


async def test_one_leads_and_the_next_follows_when_it_resigns(database_url: str) -> None:
    async with leadership(database_url) as second:
        async with leadership(database_url) as first:
            assert await first.hold()
            assert await first.hold()
            assert not await second.hold()
            assert (first.held, second.held) == (True, False)
        assert not first.held
        await _hold_soon(second)


async def test_a_leader_whose_connection_broke_leads_no_longer_and_may_lead_again(database_url: str) -> None:
    async with leadership(database_url) as first, leadership(database_url) as second:
        assert await first.hold()
        await _end_the_leaders_connection(database_url)
        assert not await first.hold()
        assert await second.hold()
        assert not await first.hold()
        await second.resign()
        await _hold_soon(first)


async def test_there_is_no_leader_without_a_database(database_url: str) -> None:
    async with leadership(database_url.replace("port=5432", "port=1")) as candidate:
        assert not await candidate.hold()
        assert not await candidate.hold()


async def test_each_installation_has_a_leader_of_its_own(database_url: str, empty_database_url: str) -> None:
    async with leadership(database_url) as one, leadership(empty_database_url) as other:
        assert await one.hold()
        assert await other.hold()


def test_the_key_of_the_lock_never_changes() -> None:
    """Two releases side by side elect one leader."""
    assert LEADER_LOCK == 23478341288616302
