"""What of a directory can be kept: regular files and links inside of it, complete, with names that do not deceive."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor.files import contents
from runner.supervisor.files.contents import look, open_for_writing


def test_files_at_all_depths_are_seen_and_the_rest_is_left_out_with_its_reason(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "model").write_bytes(b"12345")
    (inside / "latest").symlink_to("deep/model")
    (inside / "deep" / "up").symlink_to("../latest")
    (inside / "out").symlink_to("../secret")
    (inside / "absolute").symlink_to("/etc/passwd")
    os.mkfifo(inside / "pipe")
    (inside / "two\nlines").write_bytes(b"")
    (inside / "\u202egnp.exe").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(str(inside)) + b"/\xff")).write_bytes(b"")
    (tmp_path / "secret").write_text("secret")
    listing = look(inside)
    assert {path: (each.size, each.link) for path, each in listing.files.items()} == {
        "deep/model": (5, ""),
        "latest": (0, "deep/model"),
        "deep/up": (0, "../latest"),
    }
    assert listing.left_out == {
        "out": "it is a link that leads out of its directory",
        "absolute": "it is a link that leads out of its directory",
        "pipe": "it is no regular file",
        "two\nlines": "its name can't be kept",
        "\u202egnp.exe": "its name can't be kept",
        "\udcff": "its name can't be kept",
    }


def test_a_directory_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept" / "real").mkdir(parents=True)
    (tmp_path / "kept" / "real" / "file").write_bytes(b"1")
    (tmp_path / "kept" / "alias").symlink_to("real")
    assert set(look(tmp_path / "kept").files) == {"real/file", "alias"}


def test_one_that_is_missing_is_empty_and_one_with_too_many_files_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(tmp_path / "missing").files == {}
    monkeypatch.setattr(contents, "MOST_FILES", 3)
    for name in "abc":
        (tmp_path / name).touch()
    assert look(tmp_path).problem is None
    (tmp_path / "d").touch()
    assert look(tmp_path).problem == "A directory with more than 3 files is not stored."


def test_a_look_ends_however_many_directories_and_special_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "MOST_ENTRIES", 4)
    for name in "abc":
        os.mkfifo(tmp_path / name)
    assert look(tmp_path).problem is None
    os.mkfifo(tmp_path / "d")
    os.mkfifo(tmp_path / "e")
    found = look(tmp_path)
    assert found.problem is not None
    assert len(found.left_out) == 4


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_directory_that_cannot_be_listed_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_path: Path) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", fail)
    assert look(tmp_path).problem == f"Its directory can't be read: {os.strerror(number)}."


def test_files_and_directories_of_another_user_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours").touch()
    (tmp_path / "theirs").touch(mode=0o000)
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scan(path: Path) -> Any:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "no")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # else root may read all
    found = look(tmp_path)
    assert set(found.files) == {"ours"}
    assert found.left_out == {"theirs": "it can't be read", "closed": "it can't be read"}
    assert found.problem is None


def test_a_changed_replaced_or_touched_file_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 1))
    first = look(tmp_path).files
    assert look(tmp_path).files == first
    (tmp_path / "new").write_bytes(b"2")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").rename(path)
    second = look(tmp_path).files
    assert second != first
    os.utime(path, ns=(2, 2))
    assert look(tmp_path).files != second


def test_files_open_for_writing_are_found_and_those_open_for_reading_are_not(tmp_path: Path) -> None:
    (tmp_path / "read").write_text("1")
    with (tmp_path / "written").open("w"), (tmp_path / "appended").open("a"), (tmp_path / "read").open():
        assert open_for_writing(tmp_path) == {"written", "appended"}
    assert open_for_writing(tmp_path) == set()
