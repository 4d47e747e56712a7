"""A bucket as the store, on a real S3 server: signed URLs, the supervisor's real client, outages and late uploads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import botocore.auth
import httpx
import pytest
import structlog
from bucket import Door, Server
from member import Cut, Killed, Member

from db.events import Actor
from db.public_ids import decode
from db.simulations import delete_ended
from graph.store.base import BadPiece, StoreUnavailable
from graph.store.collector import Collector
from graph.store.s3 import GROUP, S3
from runner.supervisor.files import saver
from runner.supervisor.files.contents import look
from runner.supervisor.files.store import PIECE_BYTES, Entry, Expired, Missing, Store
from runner.supervisor.notices import Notices
from settings import Bucket

World = Any  # the fixture of conftest.py
INSTALLATION = "an-installation"
apart = asyncio.to_thread  # the API is served by the test's own loop
PIECE = b"a piece " * 100


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


class Witness(Store):
    """A supervisor's client that notes what it asks, and where."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked: list[tuple[str, str]] = []

    def _exchange(self, connection: Any, method: str, url: str, *given: Any) -> Any:
        self.asked.append((method, f"{connection.host}:{connection.port}"))
        return super()._exchange(connection, method, url, *given)

    def puts(self) -> int:
        return sum(method == "PUT" for method, _ in self.asked)


@pytest.fixture
def store(bucket_url: str) -> S3:
    return S3(Bucket.parse(bucket_url))


@pytest.fixture
async def door(bucket_server: Server) -> AsyncIterator[Door]:
    async with Door(bucket_server).standing() as door:
        yield door


@pytest.fixture
async def api(serve: Any, bucket_server: Server, bucket_url: str, door: Door) -> Any:
    """An API whose bucket is behind the door."""
    return await serve(files=bucket_url.replace(bucket_server.url, door.url))


@pytest.fixture
def machine() -> Iterator[httpx.Client]:
    """A machine without credentials."""
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def member(world: World, tmp_path: Path) -> Any:
    """Begin an attempt on a host: `await member("a", simulation)`."""
    made: list[Store] = []

    async def begin(host: str, simulation_id: str | None = None) -> Member:
        supervisor = await world.running(simulation_id)
        member = Member(supervisor, tmp_path / host, world.api.address)
        member.store = Witness(member.assignment, supervisor.nonce)
        made.append(member.store)
        return member

    yield begin
    for each in made:
        each.close()


async def ids(store: S3) -> set[int]:
    return {each async for group in store.ids() for each in group}


async def moved(world: World, member: Any, old: Member, host: str) -> Member:
    """Lose an attempt, and begin the next one on another host."""
    await world.lose(old.supervisor, attempt=1)
    successor: Member = await member(host, old.supervisor.simulation_id)
    return successor


def witness(member: Member) -> Witness:
    assert isinstance(member.store, Witness)
    return member.store


# --- the bucket ---


async def test_objects_are_written_read_in_parts_listed_and_removed(store: S3) -> None:
    named = {1, 2, 9, 10, 99, GROUP - 1, GROUP, GROUP + 1, 123 * GROUP + 5}
    for each in named:
        await store.put(each, digest(PIECE), PIECE)
    await store.put(1, digest(PIECE), PIECE)
    assert await store.sizes({*named, 3, 10 * GROUP}) == dict.fromkeys(named, len(PIECE))
    assert await ids(store) == named
    assert b"".join([part async for part in store.read(GROUP, 3, 11)]) == PIECE[3:11]
    assert [part async for part in store.read(GROUP, 3, 3)] == []
    with pytest.raises(FileNotFoundError):
        _ = [part async for part in store.read(GROUP, 3, len(PIECE) + 1)]
    await store.remove([1, 2, GROUP, 77])
    await store.remove([1])
    assert await ids(store) == named - {1, 2, GROUP}
    with pytest.raises(FileNotFoundError):
        _ = [part async for part in store.read(GROUP, 3, 11)]
    with pytest.raises(BadPiece):
        await store.put(1, digest(b"another"), PIECE)
    await store.tidy()
    assert await store.free_bytes() is None


async def test_a_list_of_more_objects_than_an_answer_holds_is_read_to_its_end(
    store: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {*range(4001, 4008), 4011, 4012}
    for each in named:
        await store.put(each, digest(PIECE), PIECE)
    client = store._client()
    whole = client.list_objects_v2
    asked: list[str] = []

    def two(**given: Any) -> Any:
        asked.append(given["StartAfter"])
        return whole(**given, MaxKeys=2)

    monkeypatch.setattr(client, "list_objects_v2", two)
    assert await ids(store) == named
    assert len(asked) == 5
    asked.clear()
    assert await store.sizes([4011, 4012]) == dict.fromkeys((4011, 4012), len(PIECE))
    assert len(asked) == 1, "no more than the part that they are in"


async def test_a_bucket_belongs_to_one_installation(store: S3, bucket_url: str) -> None:
    await store.claim(INSTALLATION)
    await S3(Bucket.parse(bucket_url)).claim(INSTALLATION)
    with pytest.raises(StoreUnavailable, match=r"another installation.*delete the object part/\w+/installation"):
        await store.claim("another")
    assert await ids(store) == set()


def test_what_a_url_to_put_binds_is_all_that_it_writes(store: S3, machine: httpx.Client) -> None:
    offer: Any = store.offer_put(7, digest(PIECE), len(PIECE))
    bad = b"b" * len(PIECE)
    for content, headers in ((bad, offer["headers"]), (PIECE[:-1], offer["headers"]), (PIECE, {})):
        assert machine.put(offer["url"], content=content, headers=headers).is_client_error
    assert machine.put(store.offer_get(7)["url"], content=PIECE).status_code == 403
    assert machine.get(str(store.offer_get(7)["url"])).status_code == 404, "nothing was written"
    assert machine.put(offer["url"], content=PIECE, headers=offer["headers"]).status_code == 200
    assert machine.put(offer["url"], content=bad, headers=offer["headers"]).is_client_error
    assert machine.get(str(store.offer_get(7)["url"])).content == PIECE
    assert machine.get(offer["url"]).status_code == 403, "it is for writing"


async def test_a_bucket_that_is_away_or_refuses_is_said_without_its_secrets(
    bucket_server: Server, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failure(url: str) -> str:
        with pytest.raises(StoreUnavailable) as caught:
            await S3(Bucket.parse(url)).sizes([1])
        assert bucket_server.secret not in str(caught.value)
        return str(caught.value)

    name = Bucket.parse(bucket_url).name
    assert "NoSuchBucket" in await failure(bucket_url.replace(name, "not-there"))
    assert "EndpointConnectionError" in await failure(f"s3://{name}?endpoint=http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "SignatureDoesNotMatch" in await failure(bucket_url)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "PartialCredentialsError" in await failure(bucket_url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "NoCredentialsError" in await failure(bucket_url)
    with pytest.raises(StoreUnavailable):
        S3(Bucket.parse(bucket_url)).offer_get(1)


# --- supervisors ---


async def test_files_go_to_the_bucket_and_to_the_next_machine_without_passing_the_service(
    world: World, member: Any, store: S3, door: Door
) -> None:
    first = await member("a")
    big = os.urandom(2 * PIECE_BYTES + 5)
    (first.checkpoints / "deep").mkdir()
    (first.checkpoints / "deep" / "model").write_bytes(big)
    (first.checkpoints / "empty").touch()
    (first.checkpoints / "newest").symlink_to("deep/model")
    await first.saves()
    assert first.notices == {}
    of_bucket = door.url.removeprefix("http://")
    assert [place for method, place in witness(first).asked if method == "PUT"] == [of_bucket] * 3
    stored = await ids(store)
    assert sorted((await store.sizes(stored)).values()) == [5, PIECE_BYTES, PIECE_BYTES]

    second = await moved(world, member, first, "b")
    await second.brings(2)
    assert second.holds() == {"deep/model": big, "empty": b"", "newest": "deep/model"}
    assert [place for method, place in witness(second).asked if method == "GET"] == [of_bucket] * 3
    shown = await world.api.data(FILES, {"id": first.supervisor.simulation_id})
    [file] = [each for each in shown["files"]["nodes"] if each["path"] == "deep/model"]
    answer = await world.api.client.get(f"{world.api.address}{file['url']}", headers={"Range": "bytes=8388600-8388620"})
    assert answer.content == big[8388600:8388621], "people read through the service"


FILES = "query ($id: ID!) { simulation(id: $id) { files(first: 10) { nodes { path url } } } }"


async def test_half_an_upload_is_no_checkpoint_and_is_not_sent_twice(
    world: World, member: Any, store: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "AT_ONCE", 1)  # so that it is cut off where the test says
    first = await member("a")
    (first.checkpoints / "model").write_bytes(b"old")
    await first.saves()
    new = os.urandom(3 * PIECE_BYTES)
    (first.checkpoints / "model").write_bytes(new)
    for left, there in (
        (2, 2),
        (3, 4),
    ):  # killed when one of three pieces is in the bucket, then before the list is committed
        cut = Cut(first.assignment, first.supervisor.nonce)
        cut.left = left
        thread = saver.Saver(cut, {"CHECKPOINT": first.checkpoints}, first.place / "cut", Notices(lambda *_: None))
        with pytest.raises(Killed):
            await apart(thread._save, thread._directories[0], look(first.checkpoints).files, False)
        cut.close()
        assert [each.size for kept in await apart(first.store.kept) for each in kept.entries] == [3]
        assert len(await ids(store)) == there
    before = witness(first).puts()
    await first.saves()
    assert witness(first).puts() == before, "all had arrived"
    assert [each.size for kept in await apart(first.store.kept) for each in kept.entries] == [3 * PIECE_BYTES]


async def test_what_a_supervisor_claims_to_have_put_is_looked_up(world: World, member: Any) -> None:
    first = await member("a")
    name = digest(PIECE)
    entry = Entry("model", len(PIECE), 0, False, name, (name,))
    [(_, offer)] = (await apart(first.store.reserve, {name: len(PIECE)})).items()
    assert await apart(first.store.commit, "CHECKPOINT", [entry]) == [name]
    assert await apart(first.store.kept) == []
    await apart(first.store.put, name, PIECE, offer)
    assert await apart(first.store.commit, "CHECKPOINT", [entry]) == []


async def test_a_url_that_expired_is_asked_for_again(
    world: World, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is two hours behind while it signs: the bucket sees a URL of which the hour is over."""
    first = await member("a")
    (first.checkpoints / "model").write_bytes(b"model")
    clock, sign = botocore.auth.get_current_datetime, S3._sign
    late = True

    def behind(*given: Any, **named: Any) -> Any:
        return clock(*given, **named) - timedelta(hours=2)

    def signed(*given: Any, **named: Any) -> str:
        with monkeypatch.context() as patch:
            if late:
                patch.setattr(botocore.auth, "get_current_datetime", behind)
            return sign(*given, **named)

    monkeypatch.setattr(S3, "_sign", signed)
    asked = first.store.reserve

    def reserve(pieces: Any) -> Any:
        nonlocal late
        offers = asked(pieces)
        late = False
        return offers

    monkeypatch.setattr(first.store, "reserve", reserve)
    await first.saves()
    assert (first.notices, witness(first).puts()) == ({}, 2)

    second = await moved(world, member, first, "b")
    late = True
    name, buffer = digest(b"model"), memoryview(bytearray(5))
    with pytest.raises(Expired):
        await apart(second.store.fetch, name, buffer)
    offers = await apart(second.store._ask, "offers", {"digests": [name]})
    second.store._offers = dict(offers["offers"])
    late = False
    assert await apart(second.store.fetch, name, buffer) == b"model", "an old offer is renewed at once"


async def test_a_bucket_that_is_away_for_a_while_loses_nothing(
    world: World, member: Any, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await member("a")
    content = os.urandom(2 * PIECE_BYTES)
    (first.checkpoints / "model").write_bytes(content)
    failed = Event()
    fail = saver.Saver._fail

    def note(self: Any, why: str) -> None:
        fail(self, why)
        failed.set()

    monkeypatch.setattr(saver.Saver, "_fail", note)
    door.shut()
    saving = asyncio.create_task(first.saves())
    await apart(failed.wait)
    assert (await world.api.client.get(f"{world.api.address}/readyz")).status_code == 200
    door.open()
    await saving
    assert first.notices == {}
    second = await moved(world, member, first, "b")
    await second.brings(2)
    assert second.holds() == {"model": content}


async def test_late_uploads_of_an_attempt_that_is_over_are_found_and_removed(
    world: World, member: Any, store: S3, sessions: Any
) -> None:
    first = await member("a")
    (first.checkpoints / "model").write_bytes(b"model")
    await first.saves()
    name = digest(PIECE)
    [(_, offer)] = (await apart(first.store.reserve, {name: len(PIECE)})).items()
    await world.lose(first.supervisor, attempt=1)
    second = await member("b", first.supervisor.simulation_id)
    await second.supervisor.exit()
    async with sessions.begin() as session:
        await delete_ended(session, decode(first.supervisor.simulation_id)[1], Actor("user"), scope=None)
    collector = Collector(sessions, store, None)
    assert await collector.run_once() == 2
    assert await ids(store) == set()
    await apart(first.store.put, name, PIECE, offer)  # its URL is good for an hour
    assert len(await ids(store)) == 1
    assert await collector.run_once() == 0, "once a day"
    assert await Collector(sessions, store, None).run_once() == 1
    assert await ids(store) == set()


async def test_a_collector_removes_nothing_of_another_installation(store: S3, sessions: Any) -> None:
    await store.claim("another")
    await store.put(7, digest(PIECE), PIECE)
    with pytest.raises(StoreUnavailable):
        await Collector(sessions, store, None).run_once()
    assert await ids(store) == {7}


async def test_a_piece_that_is_gone_from_the_bucket_is_missing(world: World, member: Any, store: S3) -> None:
    first = await member("a")
    (first.checkpoints / "model").write_bytes(b"model")
    await first.saves()
    await store.remove(await ids(store))
    with pytest.raises(Missing):
        await apart(first.store.fetch, digest(b"model"), memoryview(bytearray(6)))


async def test_no_answer_and_no_log_has_the_secret(
    world: World, member: Any, bucket_server: Server, door: Door
) -> None:
    first = await member("a")
    with structlog.testing.capture_logs() as logs:
        [(_, offer)] = (await apart(first.store.reserve, {digest(PIECE): len(PIECE)})).items()
        assert bucket_server.secret not in str(offer)
        await apart(first.store.put, digest(PIECE), PIECE, offer)
        door.shut()
        name = digest(PIECE)
        with pytest.raises(saver.Unreachable) as caught:
            await apart(first.store.commit, "CHECKPOINT", [Entry("model", len(PIECE), 0, False, name, (name,))])
    assert [each["event"] for each in logs] == ["store_unavailable"]
    for text in (str(logs), str(caught.value)):
        assert bucket_server.secret not in text
        assert "X-Amz-Signature" not in text
