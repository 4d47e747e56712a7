"""Hints: what a listener hears, what it does not, and that it comes back when its connection is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from db.connection import connect_raw
from db.notifications import EVERYTHING, MAX_PAYLOAD_BYTES, Channel, Listener, ids_of, listening, notify, payload_of

Rows = Any  # the fixture of conftest.py
Hint = tuple[Channel, frozenset[int] | None]

CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'simulations-listen'
"""


class Ears:
    """Keeps what was heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Hint] = asyncio.Queue()
        self.listener: Listener | None = None

    def __call__(self, channel: Channel, ids: frozenset[int] | None) -> None:
        self.heard.put_nowait((channel, ids))

    async def next(self) -> Hint:
        async with asyncio.timeout(60):
            return await self.heard.get()

    async def say(self, channel: Channel, payload: str) -> None:
        assert self.listener is not None
        await self.listener.say(channel, payload)


@asynccontextmanager
async def ears(url: str, *channels: Channel) -> AsyncIterator[Ears]:
    """A connected listener: its first call was to look at everything."""
    heard = Ears()
    async with listening(url, channels, heard) as heard.listener:
        for channel in channels:
            assert await heard.next() == (channel, None)
        yield heard


async def say(rows: Rows, channel: str, payload: str) -> None:
    await rows.query("SELECT pg_notify(:channel, :payload)", channel=channel, payload=payload)


@pytest.mark.parametrize("ids", [[1], [1, 2, 3], [10**18], list(range(1000))])
def test_ids_come_out_of_a_payload_as_they_went_in(ids: list[int]) -> None:
    assert ids_of(payload_of(ids)) == frozenset(ids)


@pytest.mark.parametrize("payload", [EVERYTHING, "", "x", "1,", "1,x", payload_of([])])
def test_any_other_payload_means_everything(payload: str) -> None:
    assert ids_of(payload) is None


def test_ids_that_do_not_fit_into_a_notification_mean_everything() -> None:
    fitting = [10**8 + n for n in range(MAX_PAYLOAD_BYTES // 10)]
    assert ids_of(payload_of(fitting)) == frozenset(fitting)
    assert payload_of([*fitting, 10**17, 10**17]) == EVERYTHING
    assert payload_of(range(10_000)) == EVERYTHING


async def test_the_longest_payload_passes_and_a_longer_one_arrives_as_everything(rows: Rows, database_url: str) -> None:
    longest = [10**8 + n for n in range(MAX_PAYLOAD_BYTES // 10)]
    async with ears(database_url, Channel.CONVERGENCE) as heard:
        for ids in (longest, range(10_000)):
            async with rows.sessions.begin() as session:
                await notify(session, Channel.CONVERGENCE, payload_of(ids))
        assert await heard.next() == (Channel.CONVERGENCE, frozenset(longest))
        assert await heard.next() == (Channel.CONVERGENCE, None)


async def test_a_listener_hears_its_channels_and_no_others(rows: Rows, database_url: str) -> None:
    async with ears(database_url, Channel.SIMULATIONS, Channel.MACHINES) as heard:
        await say(rows, "convergence", "1")
        await say(rows, "another_channel", "2")
        await say(rows, "machines", "3")
        await say(rows, "simulations", "4,5")
        assert await heard.next() == (Channel.MACHINES, frozenset({3}))
        assert await heard.next() == (Channel.SIMULATIONS, frozenset({4, 5}))
        assert heard.heard.empty()


async def test_what_a_listener_says_itself_it_does_not_hear_and_others_do(database_url: str) -> None:
    async with ears(database_url, Channel.CONVERGENCE) as one, ears(database_url, Channel.CONVERGENCE) as other:
        await one.say(Channel.CONVERGENCE, "1")
        assert await other.next() == (Channel.CONVERGENCE, frozenset({1}))
        await other.say(Channel.CONVERGENCE, "2")
        assert await one.next() == (Channel.CONVERGENCE, frozenset({2}))
        assert one.heard.empty()
        assert other.heard.empty()


async def test_hints_that_are_said_at_once_all_arrive(database_url: str) -> None:
    async with ears(database_url, Channel.CONVERGENCE) as one, ears(database_url, Channel.CONVERGENCE) as other:
        await asyncio.gather(*[one.say(Channel.CONVERGENCE, str(number)) for number in range(20)])
        assert {await other.next() for _ in range(20)} == {
            (Channel.CONVERGENCE, frozenset({number})) for number in range(20)
        }


async def test_a_listener_whose_connection_is_cut_comes_back_and_says_look_at_all(
    rows: Rows, database_url: str
) -> None:
    async with ears(database_url, Channel.SIMULATIONS, Channel.CONVERGENCE) as heard:
        for number in range(2):
            assert await rows.query(CUT)
            assert [await heard.next(), await heard.next()] == [
                (Channel.SIMULATIONS, None), (Channel.CONVERGENCE, None),
            ]  # fmt: skip
            await say(rows, "simulations", str(number))
            assert await heard.next() == (Channel.SIMULATIONS, frozenset({number}))
            await heard.say(Channel.CONVERGENCE, "7")  # and it can speak again


async def test_notifications_during_a_broken_connection_are_lost_without_harm(rows: Rows, database_url: str) -> None:
    listener = Listener(database_url, [Channel.CONVERGENCE], lambda channel, ids: None)
    await listener.say(Channel.CONVERGENCE, "1")  # it has not even begun
    async with ears(database_url, Channel.CONVERGENCE) as heard:
        await rows.query(CUT)
        async with asyncio.timeout(60):
            while heard.heard.empty():  # through the cut, until it is back
                await heard.say(Channel.CONVERGENCE, "1")
                await asyncio.sleep(0.001)
        assert await heard.next() == (Channel.CONVERGENCE, None)


async def test_a_connection_closed_by_a_protocol_error_is_made_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    async def connect(url: str) -> Any:
        made.append(await connect_raw(url))
        return made[-1]

    monkeypatch.setattr("db.notifications.connect_raw", connect)
    async with ears(database_url, Channel.CONVERGENCE) as heard:
        made[0]._protocol.abort()  # what asyncpg does then, without a word to those who wait for the connection's end
        await heard.say(Channel.CONVERGENCE, "1")
        assert await heard.next() == (Channel.CONVERGENCE, None)
        assert len(made) == 2


async def test_a_listener_waits_for_a_server_that_is_not_there_yet(
    rows: Rows, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([OSError("no server there"), TimeoutError()])

    async def connect(url: str) -> Any:
        for error in refusals:
            raise error
        return await connect_raw(url)

    monkeypatch.setattr("db.notifications.connect_raw", connect)
    async with ears(database_url, Channel.MACHINES) as heard:
        assert next(refusals, None) is None
        await say(rows, "machines", "1")
        assert await heard.next() == (Channel.MACHINES, frozenset({1}))


async def test_there_is_no_listener_after_the_block(rows: Rows, database_url: str) -> None:
    async with ears(database_url, Channel.MACHINES) as heard:
        pass
    await say(rows, "machines", "1")
    async with asyncio.timeout(60):
        while await rows.query(CUT.replace("pg_terminate_backend(pid)", "pid")):
            await asyncio.sleep(0.005)
    assert heard.heard.empty()
