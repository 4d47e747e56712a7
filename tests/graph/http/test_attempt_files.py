"""Files of attempts: the real client of a supervisor, its uploads, and the way back to another machine."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from member import Cut, Killed, Member
from sqlalchemy import text

from db import files
from db.attempts import open_on_host
from db.events import Actor
from db.public_ids import decode
from db.simulations import delete_ended
from db.states import FileKind
from graph.http import attempt_files
from graph.http.protocol import Refusal
from graph.store import directory
from graph.store.base import StoreUnavailable
from graph.store.collector import Collector
from graph.store.directory import Directory
from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.files import contents, fetch, saver
from runner.supervisor.files.store import PIECE_BYTES, Entry, Missing, Over, Refused, Store
from runner.supervisor.notices import Notices
from runner.supervisor.service import Unreachable

World = Any  # the fixture of conftest.py
HOST = "host-1"  # of conftest.py
USER = Actor("user")
A_PIECE = b"x" * 1_000


Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the connections of all stores."""
    made: list[Store] = []
    make = Store.__init__

    def note(self: Store, *given: Any) -> None:
        made.append(self)
        make(self, *given)

    monkeypatch.setattr(Store, "__init__", note)
    yield
    for each in made:
        each.close()


@pytest.fixture
async def api(serve: Any, tmp_path: Path) -> Any:
    return await serve(files=str(tmp_path / "store"))


@pytest.fixture
def start(world: World, tmp_path: Path) -> Start:
    """Begin an attempt on a host: `await start("a", simulation)`."""

    async def begin(host: str, simulation_id: str | None = None) -> Member:
        supervisor = await world.running(simulation_id)
        return Member(supervisor, tmp_path / host, world.api.address)

    return begin


async def moved(world: World, start: Start, member: Member, host: str, attempt: int) -> Member:
    """Lose an attempt, and begin the next one on another host."""
    await world.lose(member.supervisor, attempt=attempt)
    successor: Member = await start(host, member.supervisor.simulation_id)
    return successor


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


# --- the way to another machine ---


async def test_what_an_attempt_stored_is_brought_to_the_next_machine(world: World, start: Start) -> None:
    first = await start("a")
    large = os.urandom(2 * PIECE_BYTES + 5)
    (first.checkpoints / "deep" / "er").mkdir(parents=True)
    (first.checkpoints / "deep" / "er" / "model.pt").write_bytes(large)
    (first.checkpoints / "empty").write_bytes(b"")
    (first.checkpoints / "run.sh").write_bytes(b"#!/bin/sh\n")
    (first.checkpoints / "run.sh").chmod(0o755)
    (first.checkpoints / "latest").symlink_to("deep/er/model.pt")
    os.utime(first.checkpoints / "empty", (1_000_000_000, 1_000_000_000))
    await first.saves()
    assert first.notices == {}

    second = await moved(world, start, first, "b", 1)
    await second.brings(2)
    assert second.holds() == first.holds()
    assert second.holds()["deep/er/model.pt"] == large
    assert (second.checkpoints / "empty").stat().st_mtime == 1_000_000_000
    assert os.access(second.checkpoints / "run.sh", os.X_OK)
    assert not os.access(second.checkpoints / "empty", os.X_OK)
    assert second.said == [f"4 checkpoint files ({len(large) + 10} bytes) of attempt 1 were brought here"]


async def test_files_that_are_as_new_as_the_store_are_left_alone_and_older_ones_are_replaced(
    world: World, start: Start
) -> None:
    first = await start("a")
    (first.checkpoints / "step").write_text("10")
    (first.checkpoints / "old").write_text("10")
    await first.saves()
    (first.checkpoints / "step").write_text("12, not stored")

    second = await moved(world, start, first, "a", 1)
    await second.brings(2)
    assert second.holds()["step"] == b"12, not stored", "it is on this machine, and newer"

    third = await moved(world, start, second, "b", 2)
    await third.brings(3)
    (third.checkpoints / "step").write_text("20")
    (third.checkpoints / "old").unlink()
    await third.saves()

    fourth = await moved(world, start, third, "a", 3)
    await fourth.brings(4)
    assert fourth.holds() == {"step": b"20"}, "as the third attempt left it"


async def test_a_list_is_replaced_as_a_whole_or_not_at_all(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is cut off at each of its requests leaves the checkpoint before it."""
    monkeypatch.setattr(saver, "AT_ONCE_LAST", 1)
    first = await start("a")
    (first.checkpoints / "one").write_bytes(b"old one")
    (first.checkpoints / "two").write_bytes(b"old two")
    await first.saves()
    stored = first.holds()
    (first.checkpoints / "one").write_bytes(os.urandom(PIECE_BYTES + 1))
    (first.checkpoints / "two").write_bytes(b"new two")

    allowed = 0
    while True:
        cut = Cut(first.assignment, first.supervisor.nonce)
        cut.left = allowed
        thread = saver.Saver(cut, {"CHECKPOINT": first.checkpoints}, first.place / "saving", Notices(lambda *_: None))
        directory = thread._directories[0]
        try:
            await asyncio.to_thread(thread._save, directory, contents.look(first.checkpoints).files, is_last=True)
        except Killed:
            reader = Member(first.supervisor, first.place / f"reader-{allowed}", world.api.address)
            await reader.brings(2)
            assert reader.holds() == stored, f"cut off after {allowed} requests"
            allowed += 1
            continue
        break
    assert allowed == 4, "each goes on where the one before it was cut off"
    reader = Member(first.supervisor, first.place / "reader", world.api.address)
    await reader.brings(2)
    assert reader.holds() == first.holds()


async def test_a_piece_that_is_stored_is_not_sent_again(world: World, start: Start) -> None:
    first = await start("a")
    (first.checkpoints / "model").write_bytes(A_PIECE)
    await first.saves()

    class Counted(Store):
        puts = 0

        def put(self, *given: Any) -> None:
            self.puts += 1
            super().put(*given)

    counted = Counted(first.assignment, first.supervisor.nonce)
    (first.checkpoints / "model").rename(first.checkpoints / "renamed")
    (first.checkpoints / "new").write_bytes(b"new")
    await first.saves(counted)
    assert counted.puts == 1
    reader = Member(first.supervisor, first.place / "reader", world.api.address)
    await reader.brings(2)
    assert reader.holds() == {"renamed": A_PIECE, "new": b"new"}


async def test_members_of_a_gang_get_the_files_of_all_ranks_and_their_own_first(
    world: World, start: Start, tmp_path: Path
) -> None:
    supervisors = await world.gang(2)
    members = [Member(each, tmp_path / f"rank-{rank}", world.api.address) for rank, each in enumerate(supervisors)]
    await asyncio.gather(*(each.supervisor.hello() for each in members))
    for rank, each in enumerate(members):
        (each.checkpoints / f"shard-{rank}").write_text(str(rank))
        (each.checkpoints / "common").write_text(f"of {rank}")
        await each.saves()
    for rank, each in enumerate(members):
        reader = Member(each.supervisor, tmp_path / f"reader-{rank}", world.api.address)
        await reader.brings(2, rank=rank)
        assert reader.holds() == {"shard-0": b"0", "shard-1": b"1", "common": f"of {rank}".encode()}


async def test_a_gang_on_a_host_of_another_rank_gets_the_files_of_all_ranks(
    world: World, start: Start, tmp_path: Path
) -> None:
    ranks = [
        Member(each, tmp_path / f"host-{rank}", world.api.address) for rank, each in enumerate(await world.gang(2))
    ]
    await asyncio.gather(*(each.supervisor.hello() for each in ranks))
    (ranks[0].checkpoints / "model").write_bytes(A_PIECE)
    await ranks[0].saves()
    assert not list(ranks[1].checkpoints.iterdir()), "this host has had rank 1, which stores nothing"
    await ranks[1].brings(2, rank=0, is_gang=True)
    assert ranks[1].holds() == {"model": A_PIECE}
    (ranks[1].checkpoints / "model").write_bytes(b"of a member that has begun")
    await ranks[1].brings(2, rank=1, is_gang=True)
    assert ranks[1].holds() == {"model": b"of a member that has begun"}


# --- what goes wrong ---


async def test_directories_that_were_brought_in_part_are_brought_again(world: World, start: Start) -> None:
    first = await start("a")
    first.assignment.output_directory.mkdir()
    (first.checkpoints / "model").write_bytes(A_PIECE)
    (first.assignment.output_directory / "result").write_bytes(b"result")
    await first.saves()
    second = await moved(world, start, first, "b", 1)
    cut = Cut(second.assignment, second.supervisor.nonce)
    cut.left = 3  # the lists, and an offer and a piece of the checkpoint; not those of the output
    with pytest.raises(Killed):
        await second.brings(2, store=cut)
    assert second.holds() == {"model": A_PIECE}
    assert not second.assignment.output_directory.exists()
    third = await moved(world, start, second, "b", 2)
    await third.brings(3)
    assert (third.assignment.output_directory / "result").read_bytes() == b"result"


async def test_an_attempt_that_is_over_stores_and_reads_nothing(world: World, start: Start) -> None:
    first = await start("a")
    (first.checkpoints / "model").write_bytes(A_PIECE)
    await first.saves()
    await world.lose(first.supervisor)
    for request in (
        lambda: first.store.reserve({digest(b"a"): 1}),
        lambda: first.store.put(digest(A_PIECE), memoryview(A_PIECE), {}),
        lambda: first.store.commit("CHECKPOINT", []),
        first.store.kept,
        lambda: first.store.fetch(digest(A_PIECE), memoryview(bytearray(PIECE_BYTES))),
    ):
        with pytest.raises(Over):
            await asyncio.to_thread(request)


async def test_another_nonce_token_or_attempt_opens_nothing(world: World, start: Start) -> None:
    first, other = await start("a"), await start("b")
    headers = {
        "authorization": f"Bearer {first.supervisor.token}",
        "x-simulation-attempt": first.supervisor.attempt_id,
        "x-simulation-nonce": first.supervisor.nonce,
    }
    for change in (
        {"authorization": f"Bearer {other.supervisor.token}"},
        {"x-simulation-attempt": other.supervisor.attempt_id},
        {"x-simulation-nonce": "another"},
    ):
        response = await world.api.client.post("/files/kept", json={}, headers={**headers, **change})
        assert response.status_code == 410
    for change in ({"authorization": ""}, {"x-simulation-attempt": "x"}, {"x-simulation-nonce": ""}):
        response = await world.api.client.post("/files/kept", json={}, headers={**headers, **change})
        assert response.status_code == 401
    assert (await world.api.client.post("/files/kept", json={}, headers=headers)).json() == {"lists": []}


async def test_bytes_that_are_not_those_of_the_digest_are_refused(world: World, start: Start) -> None:
    first = await start("a")
    named = digest(A_PIECE)
    with pytest.raises(Missing):
        await asyncio.to_thread(first.store.put, named, A_PIECE, {})
    assert await asyncio.to_thread(first.store.reserve, {named: len(A_PIECE)}) == {named: {}}
    for content in (b"y" * len(A_PIECE), A_PIECE + b"x", b""):
        with pytest.raises(Refused):
            await asyncio.to_thread(first.store.put, named, content, {})
    entry = Entry("model", len(A_PIECE), 0, False, named, (named,))
    assert await asyncio.to_thread(first.store.commit, "CHECKPOINT", [entry]) == [named]
    assert await asyncio.to_thread(first.store.kept) == []


async def test_a_checkpoint_that_is_damaged_in_the_store_does_not_begin_from_zero(
    world: World, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.supervisor.service.FIRST_RETRY_SECONDS", 0.001)
    first = await start("a")
    (first.checkpoints / "model").write_bytes(A_PIECE)
    await first.saves()
    [piece] = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    for damage in (lambda: piece.write_bytes(b"y" * len(A_PIECE)), piece.unlink):
        damage()
        reader = Member(first.supervisor, tmp_path / "reader", world.api.address)
        with pytest.raises(NotStarted, match="missing or damaged"):
            await reader.brings(2)
        assert not reader.assignment.checkpoint_directory.exists(), "and the next try brings them again"


async def test_a_quota_is_kept_and_said(world: World, serve: Any, tmp_path: Path, sessions: Any) -> None:
    api = await serve(files=str(tmp_path / "store"), files_quota_gib=3_000 / 2**30)
    member = Member(await world.running(), tmp_path / "a", api.address)
    (member.checkpoints / "small").write_bytes(b"a" * 2_000)
    await member.saves()
    assert member.notices == {}
    (member.checkpoints / "large").write_bytes(b"b" * 2_000)
    await member.saves()
    count, _, advice = member.notices["FILES_NOT_STORED"]
    assert count == 1
    assert "The files of project default may have" in advice
    reader = Member(member.supervisor, tmp_path / "reader", api.address)
    await reader.brings(2)
    assert sorted(reader.holds()) == ["small"], "the list before it holds"
    (member.checkpoints / "small").unlink()
    (member.checkpoints / "large").write_bytes(b"c" * 900)
    await member.saves()
    async with sessions() as session:
        assert await files.held_bytes(session, 1) == 900, "what is replaced does not count"


async def test_a_store_leaves_a_part_of_its_disk_free(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch, sessions: Any
) -> None:
    member = await start("a")
    (member.checkpoints / "model").write_bytes(b"a" * 2_000)
    usage = shutil.disk_usage(member.checkpoints)
    free = directory.RESERVED_BYTES + 1_999
    monkeypatch.setattr(directory.shutil, "disk_usage", lambda _: usage._replace(free=free))
    await member.saves()
    _, _, advice = member.notices["FILES_NOT_STORED"]
    assert "The disk of the store has no room for more files." in advice
    async with sessions() as session:
        assert await files.held_bytes(session, 1) == 0, "nothing is reserved"
    free += 1
    await member.saves()
    reader = Member(member.supervisor, member.checkpoints.parent / "reader", world.api.address)
    await reader.brings(2)
    assert sorted(reader.holds()) == ["model"]


async def test_an_installation_without_a_store_refuses_nothing_but_files(
    world: World, serve: Any, tmp_path: Path
) -> None:
    api = await serve(files="none")
    member = Member(await world.running(), tmp_path / "a", api.address)
    with pytest.raises(Missing):
        await asyncio.to_thread(member.store.kept)
    await member.brings(2)
    assert member.holds() == {}


async def test_what_waits_for_its_files_ends_when_it_is_to(world: World, start: Start) -> None:
    from runner.supervisor.files.attached import Abandoned

    first = await start("a")
    with pytest.raises(Abandoned):
        await first.brings(2, is_abandoned=lambda: True)


# --- names ---

GOOD = digest(b"a")


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "..", "../up", "a/../../up", "a//b", "./a", "a/.", "a\\b", "a\nb", "a\0b", "\u202egnp.exe",
        "\ud800", "n" * 256, "/".join(["d"] * 51), "x" * 1_001, 7, None,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_deceive_are_refused_by_both_sides(path: Any) -> None:
    with pytest.raises(Refusal):
        attempt_files.checked([[path, 1, 0, 0, GOOD, ""]])
    if isinstance(path, str):
        assert not contents.is_safe(path)
        assert not attempt_files.is_safe(path)


@pytest.mark.parametrize(
    "listed",
    [
        [["a", 1, 0, 0, GOOD, ""], ["a", 1, 0, 0, GOOD, ""]],
        [["a", 1, 0, 0, GOOD, ""], ["a/b", 1, 0, 0, GOOD, ""]],
        [["a", 0, 0, 2, "b", ""], ["a/b", 1, 0, 0, GOOD, ""]],
        [["a", 0, 0, 2, "/etc", ""]],
        [["a", 0, 0, 2, "../b", ""]],
        [["d/a", 0, 0, 2, "../../b", ""]],
        [["a", 0, 0, 2, "", ""]],
        [["a", 0, 0, 3, GOOD, ""]],
        [["a", -1, 0, 0, GOOD, ""]],
        [["a", 1, 0, 0, GOOD.upper(), ""]],
        [["a", 1, 0, 0, GOOD[1:], ""]],
        [["a", PIECE_BYTES + 1, 0, 0, GOOD, ""]],
        [["a", PIECE_BYTES + 1, 0, 0, GOOD, GOOD]],
        [["a", 1, 0, 0, GOOD, GOOD + GOOD]],
        [["a", 1, -1, 0, GOOD, ""]],
        [["a", 1.0, 0, 0, GOOD, ""]],
        [["a", True, 0, 0, GOOD, ""]],
        [["a", 1, 0, 0, GOOD]],
        ["a"],
        {"a": 1},
    ],
)
def test_lists_that_no_supervisor_sends_are_refused(listed: Any) -> None:
    with pytest.raises(Refusal):
        attempt_files.checked(listed)


def test_a_list_as_a_supervisor_sends_it_is_read_as_it_was_meant() -> None:
    two = (digest(b"a"), digest(b"b"))
    sent = [
        Entry("a/model", PIECE_BYTES + 1, 5_000_000, True, digest(b"c"), two),
        Entry("a/small", 1, 0, False, two[0], two[:1]),
        Entry("empty", 0, 0, False, digest(b""), ()),
        Entry("a/link", link="../empty"),
    ]
    read = attempt_files.checked([each.wired() for each in sent])
    assert [tuple(each.pieces) for each in read] == [two, two[:1], (), ()]
    assert [Entry.read(each.as_row()) for each in read] == sent


# --- what goes ---


async def test_pieces_of_replaced_lists_and_deleted_simulations_leave_the_store(
    world: World, start: Start, sessions: Any, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    collector = Collector(sessions, Directory(store), None)

    def objects() -> set[bytes]:
        return {path.read_bytes() for path in store.rglob("*") if path.is_file()}

    first, other = await start("a"), await start("b")
    (first.checkpoints / "model").write_bytes(b"one")
    (first.checkpoints / "same").write_bytes(b"same")
    (other.checkpoints / "same").write_bytes(b"same")
    await first.saves()
    await other.saves()
    (first.checkpoints / "model").write_bytes(b"two")
    await first.saves()
    assert len([path for path in store.rglob("*") if path.is_file()]) == 4
    assert await collector.run_once() == 1
    assert objects() == {b"two", b"same"}

    await first.supervisor.exit()
    number = decode(first.supervisor.simulation_id)[1]
    async with sessions.begin() as session:
        await delete_ended(session, number, USER)
    assert await collector.run_once() == 2
    assert objects() == {b"same"}, "of the other simulation"
    assert await world.select("SELECT count(*) FROM stored_pieces") == [(1,)]
    reader = Member(other.supervisor, tmp_path / "reader", world.api.address)
    await reader.brings(2)
    assert reader.holds() == {"same": b"same"}


async def test_what_was_never_committed_or_is_too_old_goes(
    world: World, start: Start, sessions: Any, tmp_path: Path
) -> None:
    first = await start("a")
    (first.checkpoints / "model").write_bytes(b"kept")
    first.assignment.output_directory.mkdir()
    (first.assignment.output_directory / "result").write_bytes(b"result")
    await first.saves()
    await asyncio.to_thread(first.store.reserve, {digest(b"lost"): 4, digest(b"never"): 5})
    await asyncio.to_thread(first.store.put, digest(b"lost"), b"lost", {})
    collector = Collector(sessions, Directory(tmp_path / "store"), timedelta(days=7))
    assert await collector.run_once() == 0
    await world.select("UPDATE stored_pieces SET created_at = created_at - interval '2 days'")
    assert await collector.run_once() == 1, "what was reserved two days ago"
    await first.supervisor.exit()
    await world.select("UPDATE simulations SET finished_at = now() - interval '1 hour'")
    assert await collector.run_once() == 1, "what no list names"
    await world.select("UPDATE simulations SET finished_at = now() - interval '8 days'")
    assert await collector.run_once() == 1, "the checkpoint"
    assert {path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == {b"result"}


async def test_a_list_whose_pieces_have_other_sizes_is_not_taken(world: World, start: Start) -> None:
    first = await start("a")
    await asyncio.to_thread(first.store.reserve, {digest(A_PIECE): len(A_PIECE)})
    await asyncio.to_thread(first.store.put, digest(A_PIECE), A_PIECE, {})
    as_it_is = Entry("a", len(A_PIECE), digest=digest(A_PIECE), pieces=(digest(A_PIECE),))
    as_longer = Entry("b", len(A_PIECE) + 1, digest=digest(A_PIECE), pieces=(digest(A_PIECE),))
    for listed in ([as_it_is, as_longer], [as_longer, as_it_is]):
        assert await asyncio.to_thread(first.store.commit, "OUTPUT", listed) == [digest(A_PIECE)]
    assert await asyncio.to_thread(first.store.commit, "OUTPUT", [as_it_is]) == []


async def test_a_commit_reads_no_pieces_here(
    world: World, start: Start, sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start("a")
    (first.checkpoints / "model").write_bytes(A_PIECE)
    await first.saves()
    taken: list[str] = []
    monkeypatch.setattr(files.Entry, "pieces", property(lambda each: taken.append(each.path)))
    owner = files.Owner(decode(first.supervisor.simulation_id)[1], 1, 2, 0)
    entry = files.Entry("again", len(A_PIECE), 0, 0, digest(A_PIECE), "")
    async with sessions.begin() as session:
        assert await files.commit(session, owner, FileKind.CHECKPOINT, [entry]) == ()
    assert taken == []
    async with sessions() as session:
        [row] = await files.lists_of(session, owner.simulation_id)
    assert (row.attempt, row.size_bytes, files.entries_of(row)) == (2, len(A_PIECE), [entry])


async def test_a_file_of_many_pieces_takes_no_more_room_than_its_digests(
    world: World, start: Start, sessions: Any
) -> None:
    first = await start("a")
    number = decode(first.supervisor.simulation_id)[1]
    digests = [digest(str(each).encode()) for each in range(4_000)]
    entry = files.Entry("model", len(digests) * PIECE_BYTES, 0, 0, digest(b""), "".join(digests))
    await world.select(
        "INSERT INTO stored_pieces (project_id, simulation_id, digest, size_bytes, stored_at) "
        f"SELECT s.project_id, s.id, sha256(CAST(n AS text)::bytea), {PIECE_BYTES}, now() "
        f"FROM simulations AS s, generate_series(0, 4001) AS n WHERE s.id = {number}"
    )
    [(project,)] = await world.select(f"SELECT project_id FROM simulations WHERE id = {number}")
    owner = files.Owner(number, project, 1, 0)
    async with sessions.begin() as session:
        await session.execute(text("SET LOCAL temp_file_limit = '16MB'"))  # all digests in each row would be 512 MB
        for _ in range(2):
            assert await files.commit(session, owner, FileKind.CHECKPOINT, [entry]) == ()
    await first.supervisor.exit()
    async with sessions.begin() as session:
        await session.execute(text("SET LOCAL temp_file_limit = '16MB'"))
        assert await files.disown_uncommitted(session, timedelta(0), within=timedelta(hours=1)) == 1
    assert await world.select("SELECT count(*) FROM stored_pieces WHERE simulation_id IS NULL") == [(2,)]


async def test_what_ended_is_looked_at_once(
    world: World, start: Start, sessions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start("a")
    (first.checkpoints / "model").write_bytes(b"kept")
    await first.saves()
    await first.supervisor.exit()
    await world.select("UPDATE simulations SET finished_at = now() - interval '20 hours'")
    looked: list[int] = []
    disown = files.disown_uncommitted

    async def counted(*given: Any, **named: Any) -> int:
        looked.append(await disown(*given, **named))
        return looked[-1]

    monkeypatch.setattr(files, "disown_uncommitted", counted)
    collector = Collector(sessions, Directory(tmp_path / "store"), None)
    for _ in range(3):
        assert await collector.run_once() == 0
    assert looked == [1, 0, 0]


async def test_pieces_of_saves_that_were_given_up_go_with_a_later_one(
    world: World, start: Start, sessions: Any, tmp_path: Path
) -> None:
    first = await start("a")
    await asyncio.to_thread(first.store.reserve, {digest(b"lost"): 4, digest(b"under way"): 9})
    for content in (b"lost", b"under way"):
        await asyncio.to_thread(first.store.put, digest(content), content, {})
    await world.select("UPDATE stored_pieces SET created_at = created_at - interval '2 hours' WHERE size_bytes = 4")
    (first.checkpoints / "model").write_bytes(b"x" * (PIECE_BYTES + 1))
    (first.checkpoints / "link").symlink_to("model")
    (first.checkpoints / "empty").touch()
    await first.saves()
    await world.select("UPDATE stored_pieces SET created_at = created_at - interval '2 hours' WHERE size_bytes <> 9")
    (first.checkpoints / "model").write_bytes(b"x" * (PIECE_BYTES + 2))
    await first.saves()
    assert await Collector(sessions, Directory(tmp_path / "store"), None).run_once() == 2
    sizes = await world.select("SELECT size_bytes FROM stored_pieces ORDER BY 1")
    assert sizes == [(2,), (9,), (PIECE_BYTES,)], "without one of a save that was given up, and one that was replaced"


async def test_an_object_whose_row_went_while_it_was_written_goes_too(
    world: World, start: Start, sessions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start("a")
    collector = Collector(sessions, Directory(tmp_path / "store"), None)
    put = Directory.put

    async def late(self: Directory, piece_id: int, name: str, content: bytes) -> None:
        await world.select("UPDATE stored_pieces SET created_at = created_at - interval '2 days'")
        assert await collector.run_once() == 1
        await put(self, piece_id, name, content)

    monkeypatch.setattr(Directory, "put", late)
    await asyncio.to_thread(first.store.reserve, {digest(A_PIECE): len(A_PIECE)})
    with pytest.raises(Missing):
        await asyncio.to_thread(first.store.put, digest(A_PIECE), A_PIECE, {})
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


async def test_holes_of_a_file_are_fetched_once_and_stay_holes(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start("a")
    with open(first.checkpoints / "model", "wb") as file:
        file.write(b"begin")
        file.truncate(20 * PIECE_BYTES + 7)
    await first.saves()
    second = await moved(world, start, first, "b", 1)
    fetched: list[str] = []
    fetch = Store.fetch

    def counts(self: Store, name: str, *given: Any) -> memoryview:
        fetched.append(name)
        return fetch(self, name, *given)

    monkeypatch.setattr(Store, "fetch", counts)
    await second.brings(2)
    model = second.checkpoints / "model"
    assert (len(fetched), model.stat().st_size) == (3, 20 * PIECE_BYTES + 7)
    assert model.stat().st_blocks * 512 <= PIECE_BYTES
    with model.open("rb") as file:
        assert file.read(6) == b"begin\0"


async def test_the_sizes_of_a_directory_of_pieces_are_those_that_are_there(tmp_path: Path) -> None:
    store = Directory(tmp_path / "store", is_shared=True)
    assert await store.sizes([1, 2]) == {}
    for each in (1, 999, 1000, 12_345):
        await store.put(each, digest(A_PIECE), A_PIECE)
    (tmp_path / "store" / "0" / "2.abc.part").write_bytes(b"half")
    assert await store.sizes([1, 2, 3, 1000, 77_777]) == {1: len(A_PIECE), 1000: len(A_PIECE)}
    assert {each async for group in store.ids() for each in group} == {1, 999, 1000, 12_345}
    await store.claim("one")
    await store.claim("one")
    with pytest.raises(StoreUnavailable, match="another installation"):
        await store.claim("another")


# --- forks ---

FORK = """mutation ($id: ID!) {
  forkSimulation(input: {id: $id, fromCheckpoint: true}) {
    simulation { id resources { machineName } } userErrors { message }
  }
}"""


async def forked(world: World, old: Member) -> str:
    made = await world.api.data(FORK, {"id": old.supervisor.simulation_id})
    assert made["userErrors"] == []
    assert made["simulation"]["resources"] == {"machineName": None}, "it may run anywhere"
    return str(made["simulation"]["id"])


async def test_a_fork_begins_anywhere_with_what_the_old_one_stored_until_it_has_its_own(
    world: World, start: Start, sessions: Any
) -> None:
    old = await start("a")
    content = os.urandom(PIECE_BYTES + 1)
    (old.checkpoints / "model").write_bytes(content)
    await old.saves()
    await old.supervisor.exit()

    fork = await start("b", await forked(world, old))
    async with sessions() as session:
        [hosted] = await open_on_host(session, HOST)
    assert hosted.begins_from_store
    await fork.brings(1, is_fork=True)
    assert fork.holds() == {"model": content}
    (fork.checkpoints / "model").write_bytes(b"not stored")

    again = await moved(world, start, fork, "c", 1)
    await again.brings(2, is_fork=True)
    assert again.holds() == {"model": content}, "it has stored none of its own"
    (again.checkpoints / "model").write_bytes(b"its own")
    await again.saves()

    third = await moved(world, start, again, "d", 2)
    await third.brings(3, is_fork=True)
    assert third.holds() == {"model": b"its own"}
    assert third.said == ["1 checkpoint file (7 bytes) of attempt 2 was brought here"]
    reader = await start("e", await forked(world, old))
    await reader.brings(1, is_fork=True)
    assert reader.holds() == {"model": content}, "nothing of the old one has changed"


async def test_a_fork_whose_origin_was_deleted_does_not_begin_from_zero(
    world: World, start: Start, sessions: Any
) -> None:
    old = await start("a")
    (old.checkpoints / "model").write_bytes(A_PIECE)
    await old.saves()
    await old.supervisor.exit()
    fork = await start("b", await forked(world, old))
    async with sessions.begin() as session:
        await delete_ended(session, decode(old.supervisor.simulation_id)[1], USER, scope=None)
    with pytest.raises(NotStarted, match="is not stored any more"):
        await fork.brings(1, is_fork=True)


async def test_an_outage_of_the_store_costs_a_piece_and_not_those_before_it(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start("a")
    content = os.urandom(2 * PIECE_BYTES + 1)
    (first.checkpoints / "model").write_bytes(content)
    await first.saves()
    second = await moved(world, start, first, "b", 1)
    fetched: list[str] = []
    failures = [Unreachable("away")] * 2
    last = digest(content[2 * PIECE_BYTES :])
    fetch_one = Store.fetch

    def fails(self: Store, name: str, *given: Any) -> memoryview:
        if name == last and failures:
            raise failures.pop()
        fetched.append(name)
        return fetch_one(self, name, *given)

    monkeypatch.setattr(Store, "fetch", fails)
    monkeypatch.setattr(fetch.Backoff, "failed", lambda *_: 0.0)
    await second.brings(2)
    assert second.holds() == {"model": content}
    assert (len(fetched), failures) == (3, [])
