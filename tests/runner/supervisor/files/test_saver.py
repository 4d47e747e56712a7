"""The last save of an attempt's files: what is not stored is a notice, and never replaces what is."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from runner.supervisor.files import saver as module
from runner.supervisor.files.contents import Listing, look
from runner.supervisor.files.saver import Saver
from runner.supervisor.files.store import PIECE_BYTES, Altered, Entry, Expired, Store
from runner.supervisor.notices import FILE_LEFT_OUT, FILES_NOT_STORED, Notices
from runner.supervisor.service import Unreachable


class Shelf:
    """A store that takes everything, once it is open."""

    def __init__(self) -> None:
        self.asked = Event()
        self.open = Event()
        self.open.set()
        self.lists: list[list[str]] = []

    def reserve(self, pieces: Mapping[str, int]) -> dict[str, Mapping[str, Any]]:
        return {each: {} for each in pieces}

    def put(self, _digest: str, _content: memoryview, _offer: object) -> None:
        self.asked.set()
        self.open.wait()

    def commit(self, _kind: str, entries: Sequence[Entry]) -> list[str]:
        self.lists.append([each.path for each in entries])
        return []

    def close(self) -> None:
        pass


class Saved:
    """One saver of one directory, and its notices."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "kept"
        self.directory.mkdir()
        self.shelf = Shelf()
        self.notices: dict[str, tuple[int, str, str]] = {}
        self._written = Notices(lambda kind, count, example, why: self.notices.update({kind: (count, example, why)}))
        store = cast("Store", self.shelf)
        self.saver = Saver(store, {"CHECKPOINT": self.directory}, place / "saving", self._written)

    def finish(self, *, when: Event | None = None) -> None:
        """The end of the simulation; when: its supervisor leaves."""

        def wait(_seconds: float) -> None:
            self.shelf.asked.wait(0.1)

        self.saver.finish(time.monotonic() + 60, lambda: when is not None and when.is_set(), wait)
        self._written.write_out(is_last=True)


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    return Saved(tmp_path)


def test_an_upload_that_is_not_complete_in_time_is_a_notice_and_no_list(saved: Saved) -> None:
    (saved.directory / "model").write_bytes(b"1")
    saved.shelf.open.clear()
    saved.finish(when=saved.shelf.asked)
    assert saved.notices[FILES_NOT_STORED][2].endswith("Not stored in time after the end: checkpoint files.")
    saved.shelf.open.set()
    for each in module.threading.enumerate():
        if each.name == "last-save":
            each.join()
    assert saved.shelf.lists == []


def test_a_directory_that_cannot_be_read_at_the_end_replaces_no_list(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved.directory / "model").write_bytes(b"1")
    monkeypatch.setattr(module, "look", lambda _: Listing(problem="Its directory can't be read: Input/output error."))
    saved.finish()
    assert saved.shelf.lists == []
    assert saved.notices[FILES_NOT_STORED][2].endswith("Its directory can't be read: Input/output error.")


def test_what_is_left_out_is_a_notice_even_if_nothing_else_is_there(saved: Saved) -> None:
    (saved.directory / "out").symlink_to("/etc/passwd")
    (saved.directory / "above").symlink_to("../above")
    saved.finish()
    saved.finish()
    assert saved.shelf.lists == []
    assert saved.notices[FILE_LEFT_OUT][:2] == (2, "above: it is a link that leads out of its directory")


def test_an_outage_repeats_one_request_and_not_the_save(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second piece of two fails twice: nothing is hashed again, and what was put is not put again."""
    content = os.urandom(2 * PIECE_BYTES)
    (saved.directory / "model").write_bytes(content)
    first, second = sha256(content[:PIECE_BYTES]).hexdigest(), sha256(content[PIECE_BYTES:]).hexdigest()
    stored: list[str] = []
    failures = [Unreachable("away"), Expired("over")]
    hashed: list[str] = []
    entry = Saver._entry

    def put(digest: str, _content: memoryview, _offer: object) -> None:
        if digest == second and failures:
            raise failures.pop()
        stored.append(digest)

    def hashes(self: Saver, directory: Any, path: str, *given: Any) -> Entry:
        hashed.append(path)
        return entry(self, directory, path, *given)

    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(saved.shelf, "put", put)
    monkeypatch.setattr(saved.shelf, "reserve", lambda pieces: {each: {} for each in pieces if each not in stored})
    monkeypatch.setattr(Saver, "_entry", hashes)
    saved.finish()
    assert stored == [first, second]
    assert (hashed, failures, saved.shelf.lists, saved.notices) == (["model"], [], [["model"]], {})


def test_the_pieces_of_a_save_share_little_memory_which_is_given_back(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved.directory / "model").write_bytes(os.urandom(6 * PIECE_BYTES + 5))
    pieces: dict[str, bytes] = {}
    memory: dict[int, object] = {}

    def put(digest: str, piece: memoryview, _offer: object) -> None:
        pieces[digest] = bytes(piece)
        memory[id(piece.obj)] = piece.obj

    monkeypatch.setattr(saved.shelf, "put", put)
    saved.finish()
    assert sorted(map(len, pieces.values())) == [5] + 6 * [PIECE_BYTES]
    assert all(sha256(piece).hexdigest() == digest for digest, piece in pieces.items())
    assert len(memory) <= module.AT_ONCE_LAST
    assert saved.saver._buffers._idle == []


def test_a_store_that_refuses_for_long_is_a_notice_with_its_reason_once_for_each_outage(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "LAST_PAUSE_SECONDS", 0.004)
    [directory] = saved.saver._directories
    reasons: list[str] = []
    put = saved.shelf.put

    def refuse(digest: str, content: bytes, offer: object) -> None:
        if reasons:
            raise Unreachable(reasons.pop())
        put(digest, content, offer)

    monkeypatch.setattr(saved.shelf, "put", refuse)
    counts = []
    for content, failures in ((b"1", 2), (b"2", 8), (b"3", 2), (b"4", 8)):
        (saved.directory / "model").write_bytes(content)
        reasons += ["the bucket answered with status 507. Make room in the bucket."] * failures
        assert saved.saver._try(directory, look(saved.directory))
        saved._written.write_out(is_last=True)
        counts.append(saved.notices.get(FILES_NOT_STORED, (0,))[0])
    assert counts == [0, 1, 1, 2]
    text = (
        "The newest files are on this machine only. Trying on. The bucket answered with status 507. Make room in the "
    )
    assert saved.notices[FILES_NOT_STORED][2] == f"{text}bucket."


@pytest.mark.parametrize("can_copy", [True, False])
def test_a_file_that_is_rewritten_faster_than_it_uploads_is_stored_from_a_copy(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, can_copy: bool
) -> None:
    model = saved.directory / "model"
    model.write_bytes(b"0")
    written = 0
    taken: list[bytes] = []

    def put(_digest: str, content: memoryview, _offer: object) -> None:
        nonlocal written
        taken.append(bytes(content))
        written += 1
        model.write_bytes(b"%d" % written)  # into the same inode

    def refuses(*_: Any) -> int:
        raise OSError(errno.EXDEV, "another file system")

    if not can_copy:
        monkeypatch.setattr(os, "copy_file_range", refuses)
    monkeypatch.setattr(saved.shelf, "put", put)
    [directory] = saved.saver._directories
    directory.rewritten.add("model")
    assert saved.saver._try(directory, look(saved.directory))
    assert saved.shelf.lists[-1] == ["model"]
    assert directory.entries["model"][1].digest == sha256(taken[-1]).hexdigest()


def test_a_file_that_changes_in_its_upload_is_copied_the_next_time(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved.directory / "model").write_bytes(b"1" * PIECE_BYTES + b"2")
    [directory] = saved.saver._directories
    listing = look(saved.directory)

    def put(digest: str, content: memoryview, _offer: object) -> None:
        if sha256(content).hexdigest() != digest:  # as the store
            raise Altered(digest)
        with open(saved.directory / "model", "r+b") as file:
            file.seek(PIECE_BYTES)
            file.write(b"3")

    saved.shelf.put = put  # type: ignore[method-assign]
    monkeypatch.setattr(module, "AT_ONCE_LAST", 1)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    assert not saved.saver._try(directory, listing), "its second piece is another one by now"
    assert directory.rewritten == {"model"}
    assert saved.saver._try(directory, look(saved.directory))
    assert saved.shelf.lists == [["model"]]


def test_without_room_for_a_copy_a_file_is_linked(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved.directory / "model").write_bytes(b"1")
    [directory] = saved.saver._directories
    directory.rewritten.add("model")
    monkeypatch.setattr(module, "_has_room", lambda *_: False)
    monkeypatch.setattr(module, "_copy", lambda *_: pytest.fail("there is no room"))
    assert saved.saver._try(directory, look(saved.directory))
    assert saved.shelf.lists == [["model"]]


def test_a_file_that_becomes_a_pipe_holds_nothing_up(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another file system it is read where it is."""

    def refuses(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "another file system")

    def reserve(pieces: Mapping[str, int]) -> dict[str, Mapping[str, Any]]:
        (saved.directory / "model").unlink()
        os.mkfifo(saved.directory / "model")
        return {each: {} for each in pieces}

    (saved.directory / "model").write_bytes(b"1")
    [directory] = saved.saver._directories
    monkeypatch.setattr(os, "link", refuses)
    monkeypatch.setattr(saved.shelf, "reserve", reserve)
    assert not saved.saver._try(directory, look(saved.directory))
    assert saved.shelf.lists == []


def test_a_copy_is_given_up_when_the_simulation_ends(saved: Saved) -> None:
    (saved.directory / "model").write_bytes(b"1")
    [directory] = saved.saver._directories
    directory.rewritten.add("model")
    saved.saver._ending.set()
    with pytest.raises(module.Interrupted):
        saved.saver._try(directory, look(saved.directory))
