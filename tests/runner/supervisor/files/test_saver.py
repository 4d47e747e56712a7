"""The last save of an attempt's files: what is not stored is a notice, and never replaces what is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from runner.supervisor.files import saver as module
from runner.supervisor.files.contents import Listing
from runner.supervisor.files.saver import Saver
from runner.supervisor.files.store import Entry, Store
from runner.supervisor.notices import FILE_LEFT_OUT, FILES_NOT_STORED, Notices


class Shelf:
    """A store that takes everything, once it is open."""

    def __init__(self) -> None:
        self.asked = Event()
        self.open = Event()
        self.open.set()
        self.lists: list[list[str]] = []

    def reserve(self, pieces: Mapping[str, int]) -> dict[str, Mapping[str, Any]]:
        return {each: {} for each in pieces}

    def put(self, _digest: str, _content: bytes, _offer: object) -> None:
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
