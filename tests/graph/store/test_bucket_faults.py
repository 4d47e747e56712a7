"""Faults of a bucket in mid-transfer, on a real S3 server behind a proxy that misbehaves.

Whatever a request meets: the list that was stored before holds until all of the new one is in the bucket, the transfer
goes on where it was, the reason and the next step are said, and what counts for the quota is what is stored.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
import structlog
from bucket import BUCKET, Server
from live import PATIENCE_SECONDS, within
from member import Member
from misbehaving import Altered, Cut, Fault, Hangs, Misbehaving, Refused, Spoilt, Truncated, Unanswered

from db import files
from graph.store.base import StoreUnavailable
from graph.store.collector import Collector
from graph.store.s3 import S3
from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.files import fetch, saver
from runner.supervisor.files import store as module
from runner.supervisor.files.store import PIECE_BYTES, Store
from settings import Bucket

World = Any  # the fixture of conftest.py
apart = asyncio.to_thread  # the API is served by the test's own loop
OLD = b"old"
LAST = 5  # bytes of the last piece
PIECES = 2


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are short, and a request that hangs is given up early."""
    monkeypatch.setattr(saver, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fetch, "LONGEST_PAUSE_SECONDS", 0.05)


@pytest.fixture
async def proxy(bucket_server: Server) -> AsyncIterator[Misbehaving]:
    async with Misbehaving("127.0.0.1", bucket_server.ports["s3"]).standing() as proxy:
        yield proxy


@pytest.fixture
async def api(serve: Any, bucket_server: Server, bucket_url: str, proxy: Misbehaving) -> Any:
    """An API whose bucket is behind the proxy."""
    return await serve(files=bucket_url.replace(bucket_server.url, proxy.url))


@pytest.fixture
def store(bucket_url: str) -> S3:
    """The bucket itself."""
    return S3(Bucket.parse(bucket_url))


class Failures:
    """What a save has met, and the sizes that were stored at each of these moments."""

    def __init__(self, member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
        self.why: list[str] = []
        self.stored: list[list[int]] = []
        witness = Store(member.assignment, member.supervisor.nonce)
        fail = saver.Saver._fail

        def note(this: Any, why: str) -> None:
            self.why.append(why)
            self.stored.append([each.size for kept in witness.kept() for each in kept.entries])
            fail(this, why)

        monkeypatch.setattr(saver.Saver, "_fail", note)
        self.close = witness.close


class Kept:
    """A member whose old checkpoint is stored, and that has a new one of two pieces."""

    def __init__(self, world: World, place: Path) -> None:
        self.world = world
        self.place = place
        self.content = os.urandom((PIECES - 1) * PIECE_BYTES + LAST)
        self.made: list[Member] = []

    async def member(self, host: str, simulation_id: str | None = None) -> Member:
        supervisor = await self.world.running(simulation_id)
        member = Member(supervisor, self.place / host, self.world.api.address)
        self.made.append(member)
        return member

    async def begin(self) -> Member:
        member = await self.member("a")
        (member.checkpoints / "model").write_bytes(OLD)
        await member.saves()
        (member.checkpoints / "model").write_bytes(self.content)
        return member

    async def moved(self, old: Member) -> Member:
        await self.world.lose(old.supervisor, attempt=1)
        return await self.member("b", old.supervisor.simulation_id)


@pytest.fixture
async def kept(world: World, tmp_path: Path) -> AsyncIterator[Kept]:
    kept = Kept(world, tmp_path)
    yield kept
    await settled()
    for each in kept.made:
        each.store.close()


async def settled() -> None:
    """Wait for the threads of a save that was given up."""
    for thread in threading.enumerate():
        if thread.name in ("last-save", "transfer"):
            await apart(thread.join)


async def ids(store: S3) -> set[int]:
    return {each async for group in store.ids() for each in group}


async def held(sessions: Any) -> int:
    """What counts for the quota."""
    async with sessions() as session:
        projects = await session.execute(files.select(files.Project.id))
        return sum([await files.held_bytes(session, each) for (each,) in projects])


NEARLY = PIECE_BYTES // 2
WRITING = [
    (Cut(NEARLY), "onnection"),
    (Refused(503, "SlowDown", "Please reduce your request rate."), "503 SlowDown. It is overloaded"),
    (Refused(403, "AccessDenied", "Request has expired"), "403 AccessDenied. A new one is asked for"),
    (Refused(403, "AccessDenied", "Access Denied.", is_early=True), ""),
    (Refused(507), "Make room in the bucket"),
    (Refused(307, "TemporaryRedirect", headers=("x-amz-bucket-region: eu-west-1",)), "set region=eu-west-1"),
    (Refused(502, raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "BadStatusLine"),
    (Refused(200, raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "the reply was cut off"),
    (Altered(), "changed on the way"),
    (Unanswered(), ""),
    (Hangs(), "TimeoutError"),
]


@pytest.mark.parametrize(("fault", "why"), WRITING, ids=str)
async def test_what_a_piece_meets_costs_that_piece_and_never_the_list_before(
    kept: Kept,
    proxy: Misbehaving,
    store: S3,
    sessions: Any,
    bucket_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    why: str,
) -> None:
    first = await kept.begin()
    if isinstance(fault, Hangs):
        first.store.close()
        monkeypatch.setattr(module, "ANSWER_SECONDS", 3.0)
    failures = Failures(first, monkeypatch)
    before = proxy.count("PUT")
    proxy.meets("PUT", fault)
    await first.saves()
    failures.close()
    assert proxy.met == [fault]
    assert first.notices == {}, "it is stored in the end"
    assert all(sizes == [len(OLD)] for sizes in failures.stored), "until then, what was"
    assert any(why in each for each in failures.why) or not why, failures.why
    assert proxy.count("PUT") - before <= 2 * PIECES, "what was sent beside it may be on its way still"

    assert await Collector(sessions, store, None).run_once() == 1, "the old piece"
    assert sorted((await store.sizes(await ids(store))).values()) == [LAST, PIECE_BYTES]
    assert await held(sessions) == len(kept.content)
    assert "Uploads" not in bucket_server.client().list_multipart_uploads(Bucket=BUCKET)
    second = await kept.moved(first)
    await second.brings(2)
    assert second.holds() == {"model": kept.content}


READING: list[Fault] = [
    Refused(503, "SlowDown"),
    Refused(403, "AccessDenied", "Request has expired"),
    Refused(404),
    Truncated(0),
    Truncated(LAST - 1),
    Spoilt(),
    Unanswered(),
    Hangs(),
]


@pytest.mark.parametrize("fault", READING, ids=str)
async def test_what_a_download_meets_costs_that_piece_and_begins_nothing_from_zero(
    kept: Kept, proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    first = await kept.begin()
    await first.saves()
    second = await kept.moved(first)
    if isinstance(fault, Hangs):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 3.0)
    times = 1 if isinstance(fault, Hangs) else TIMES
    proxy.meets("GET", fault, times=times, path="X-Amz-Signature")
    before = len(proxy.signed)
    await second.brings(2)
    assert proxy.met == [fault] * times
    assert second.holds() == {"model": kept.content}
    assert len(proxy.signed) - before <= PIECES + 2 * times, "no piece that had come is fetched again"


TIMES = 3


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Truncated(LAST - 1), "can't be read: ConnectionAbortedError: the reply was cut off"),
        (Refused(403, "AccessDenied"), "Allow the service's credentials s3:GetObject"),
        (Refused(404), "can't be read: the bucket answered with status 404"),
    ],
    ids=str,
)
async def test_a_bucket_that_stays_so_ends_the_attempt_with_its_reason(
    kept: Kept, proxy: Misbehaving, fault: Fault, sentence: str
) -> None:
    """It is not said to be damaged: who begins from zero for that would lose a checkpoint that is there."""
    first = await kept.begin()
    await first.saves()
    second = await kept.moved(first)
    proxy.meets("GET", fault, times=10_000, path="X-Amz-Signature")
    with pytest.raises(NotStarted) as refused:
        await second.brings(2, patience_seconds=0.0)
    assert sentence in str(refused.value)
    assert "from zero" not in str(refused.value)
    proxy.behaves()
    await second.brings(2)
    assert second.holds() == {"model": kept.content}, "another try has it"


async def test_a_piece_that_is_damaged_in_the_bucket_is_said_to_be(kept: Kept, proxy: Misbehaving) -> None:
    first = await kept.begin()
    await first.saves()
    second = await kept.moved(first)
    proxy.meets("GET", Spoilt(), times=10_000, path="X-Amz-Signature")
    with pytest.raises(NotStarted, match="damaged in the store"):
        await second.brings(2)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Refused(403, "AccessDenied", "Access Denied."), "s3:PutObject below the prefix"),
        (Refused(507, "InsufficientStorage"), "Make room in the bucket, or raise its quota."),
        (Cut(NEARLY), "onnection"),
    ],
    ids=str,
)
async def test_what_is_not_stored_in_the_end_says_why_and_leaves_no_trace(
    kept: Kept, proxy: Misbehaving, store: S3, sessions: Any, monkeypatch: pytest.MonkeyPatch, fault: Fault, advice: str
) -> None:
    first = await kept.begin()
    failures = Failures(first, monkeypatch)
    proxy.meets("PUT", fault, times=10_000)
    await first.saves(until=lambda: len(failures.why) > 3)
    await settled()
    failures.close()
    count, _, text = first.notices["FILES_NOT_STORED"]
    assert count == 1
    assert text.startswith("The newest files are on this machine only. Not stored in time after the end: checkpoint f")
    assert advice in text
    assert [each.size for each in (await apart(first.store.kept))[0].entries] == [len(OLD)]
    proxy.behaves()

    assert await held(sessions) > len(OLD), "reserved"
    await kept.world.select("UPDATE stored_pieces SET created_at = now() - interval '2 days' WHERE stored_at IS NULL")
    await Collector(sessions, store, None).run_once()
    assert await held(sessions) == len(OLD)
    assert sorted((await store.sizes(await ids(store))).values()) == [len(OLD)]
    second = await kept.moved(first)
    await second.brings(2)
    assert second.holds() == {"model": OLD}


async def test_a_bucket_that_refuses_the_service_itself_is_waited_for(
    kept: Kept, proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What supervisors have put is looked up by a list of the bucket, and a right to list may be taken away."""
    first = await kept.begin()
    failures = Failures(first, monkeypatch)
    proxy.meets("GET", Refused(403, "AccessDenied"), times=2, path="list-type=2")
    before = proxy.count("PUT")
    await first.saves()
    failures.close()
    assert first.notices == {}
    assert len(failures.why) == 2
    assert all("`simulations doctor` finds why" in each for each in failures.why)
    assert proxy.count("PUT") - before == PIECES
    assert (await kept.world.api.client.get(f"{kept.world.api.address}/readyz")).status_code == 200


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_clock_that_is_wrong_stores_nothing_and_is_named(
    kept: Kept, store: S3, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The service's own, for it signs: its requests are refused, and so are the URLs that it signs."""
    first = await kept.begin()
    failures = Failures(first, monkeypatch)
    clock = botocore.auth.get_current_datetime

    def wrong(*given: Any, **named: Any) -> Any:
        return clock(*given, **named) + timedelta(hours=hours)

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(botocore.auth, "get_current_datetime", wrong)
        saving = asyncio.create_task(first.saves())
        async with within(PATIENCE_SECONDS, "a message that says what to do"):
            while not any("`simulations doctor` finds why" in each for each in failures.why):
                await asyncio.wait({saving}, timeout=0.05)
                assert not saving.done()
    await saving
    failures.close()
    assert "RequestTimeTooSkewed" in str([each for each in logs if each["event"] == "store_unavailable"])
    assert first.notices == {}
    assert all(sizes == [len(OLD)] for sizes in failures.stored)


async def test_an_object_that_cannot_be_removed_is_removed_later(
    kept: Kept, proxy: Misbehaving, store: S3, sessions: Any, bucket_server: Server, bucket_url: str
) -> None:
    first = await kept.begin()
    await first.saves()
    behind = S3(Bucket.parse(bucket_url.replace(bucket_server.url, proxy.url)))
    proxy.meets("POST", Refused(403, "AccessDenied"), path="delete")
    with pytest.raises(StoreUnavailable, match="AccessDenied"):
        await Collector(sessions, behind, None).run_once()
    assert len(await ids(store)) == PIECES + 1
    assert await held(sessions) == len(kept.content), "it counts no more, though it is there"
    assert await Collector(sessions, behind, None).run_once() == 1
    assert len(await ids(store)) == PIECES
