"""Packing of a directory: what is taken, what is refused, and that the same files are the same bytes."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import pack as packing
from cli.errors import UsageError
from cli.pack import Packed, is_safe, leads_inside, pack
from runner.supervisor.files import contents, package

MOST = 1 << 20


@pytest.fixture
def code(tmp_path: Path) -> Path:
    directory = tmp_path / "code"
    directory.mkdir()
    return directory


def git(directory: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, text=True,
        env={**os.environ, **identity, "GIT_CONFIG_GLOBAL": "/dev/null"},
    )  # fmt: skip
    return done.stdout.strip()


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(packed: Packed) -> list[str]:
    with packed.archive, tarfile.open(fileobj=packed.archive) as archive:
        return archive.getnames()


def packed_names(directory: Path) -> list[str]:
    return names(pack(directory, MOST))


def refused(directory: Path, most: int = MOST) -> str:
    with pytest.raises(UsageError) as error:
        pack(directory, most)
    return str(error.value)


# --- what is taken ---


def test_of_a_repository_what_is_tracked_and_what_is_neither_tracked_nor_ignored(code: Path) -> None:
    git(code, "init", "-q")
    write(
        code, **{".gitignore": "*.log\ndata/\n", "train.py": "1", "lib/model.py": "2", "gone.py": "3", "kept.log": "4"}
    )
    git(code, "add", "-f", ".")
    git(code, "commit", "-qm", "one")
    write(code, **{"new.py": "5", "run.log": "6", "data/big": "7", "train.py": "changed"})
    (code / "gone.py").unlink()
    packed = pack(code, MOST)
    assert (packed.name, packed.commit, packed.dirty, packed.files) == ("code", git(code, "rev-parse", "HEAD"), True, 5)
    assert names(packed) == [".gitignore", "kept.log", "lib/model.py", "new.py", "train.py"]
    assert packed_names(code / "lib") == ["model.py"], "a part of a repository"
    git(code, "add", "-A")
    git(code, "commit", "-qm", "two")
    packed = pack(code, MOST)
    packed.archive.close()
    assert packed.dirty is False


def test_of_submodules_and_nested_repositories_likewise(code: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    write(other, **{"module.py": "1", ".gitignore": "cache\n"})
    git(other, "add", ".")
    git(other, "commit", "-qm", "one")
    git(code, "init", "-q")
    git(code, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "sub")
    write(code, **{"sub/cache": "ignored", "own/x.py": "2", "empty-module/.keep": ""})
    git(code / "own", "init", "-q")
    (code / "empty-module" / ".keep").unlink()
    assert packed_names(code) == [".gitmodules", "own/x.py", "sub/.gitignore", "sub/module.py"]


def test_the_variables_of_a_hook_name_no_other_repository(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(code, "init", "-q")
    write(code, **{"a.py": "1"})
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert packed_names(code) == ["a.py"]


def test_outside_of_git_all_but_what_is_no_code(code: Path) -> None:
    write(
        code,
        **{
            "train.py": "1", "lib/model.py": "2", "lib/__pycache__/model.pyc": "3", ".venv/pyvenv.cfg": "4",
            "other-env/pyvenv.cfg": "5", "other-env/lib/x.py": "6", "node_modules/x/y.js": "7", ".env": "secret",
            "wandb/run/log": "8", ".hg/store": "9", "sub/.git/HEAD": "10", "sub/b.py": "11",
        },
    )  # fmt: skip
    (code / "empty").mkdir()
    os.mkfifo(code / "pipe")
    packed = pack(code, MOST)
    assert (packed.commit, packed.dirty) == (None, None)
    assert names(packed) == ["lib/model.py", "sub/b.py", "train.py"]


@pytest.mark.parametrize("in_git", [True, False])
def test_the_ignore_file_has_the_syntax_of_git(code: Path, in_git: bool) -> None:
    write(code, **{"a.py": "1", "notes.md": "2", "keep.md": "3", "data/x": "4", "deep/data/y": "5", "deep/z": "6"})
    write(code, **{".simulationsignore": "# a comment\n*.md\n!keep.md\n/data/\n.simulationsignore\n"})
    if in_git:
        git(code, "init", "-q")
        git(code, "add", ".")
    assert packed_names(code) == ["a.py", "deep/data/y", "deep/z", "keep.md"]


def test_whether_a_file_is_executable_and_where_a_link_leads_is_kept(code: Path) -> None:
    write(code, **{"run.sh": "1", "lib/x.py": "2"})
    (code / "run.sh").chmod(0o700)
    (code / "link").symlink_to("lib/x.py")
    (code / "lib" / "up").symlink_to("../run.sh")
    packed = pack(code, MOST)
    with packed.archive, tarfile.open(fileobj=packed.archive) as archive:
        entries = {each.name: (each.type, each.mode, each.linkname) for each in archive}
    assert entries == {
        "run.sh": (tarfile.REGTYPE, 0o755, ""), "lib/x.py": (tarfile.REGTYPE, 0o644, ""),
        "link": (tarfile.SYMTYPE, 0o777, "lib/x.py"), "lib/up": (tarfile.SYMTYPE, 0o777, "../run.sh"),
    }  # fmt: skip


def test_the_same_files_are_the_same_package_whatever_their_times_and_owners(code: Path, tmp_path: Path) -> None:
    write(code, **{"b.py": "1", "a.py": "2", "ümläut/" + "x" * 120: "3"})
    one = pack(code, MOST)
    other = tmp_path / "elsewhere" / "code"
    other.mkdir(parents=True)
    write(other, **{"ümläut/" + "x" * 120: "3", "a.py": "2", "b.py": "1"})
    (other / "a.py").chmod(0o666)
    os.utime(other / "b.py", (0, 0))
    two = pack(other, MOST)
    with one.archive, two.archive:
        assert one.archive.read() == two.archive.read()
    assert one.digest == two.digest
    write(other, **{"a.py": "3"})
    three = pack(other, MOST)
    three.archive.close()
    assert three.digest != one.digest


# --- what is refused ---


def test_a_directory_without_anything_to_pack(code: Path, tmp_path: Path) -> None:
    assert "has nothing to pack: it holds no code" in refused(code)
    git(code, "init", "-q")
    write(code, **{".git/info/exclude": "*\n", "x": "1"})
    assert "git lists no file in it" in refused(code)
    assert "can't be read: No such file or directory" in refused(tmp_path / "nowhere")
    write(tmp_path, file="1")
    assert "is not a directory" in refused(tmp_path / "file")


def test_a_home_or_a_root_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no directory of code" in refused(tmp_path)
    assert "no directory of code" in refused(Path("/"))


def test_too_much_names_what_is_largest(code: Path) -> None:
    write(code, **{"small.py": "1", "data/huge.bin": "x" * 9_000, "model.pt": "x" * 5_000})
    sentence = refused(code, 10_240)
    assert "MiB to pack" in sentence
    lines = [line.split() for line in sentence.splitlines()[1:]]
    assert [line[-1] for line in lines] == ["data/huge.bin", "model.pt", "small.py"]
    assert lines[0][:2] == ["8.8", "KiB"]


@pytest.mark.parametrize("in_git", [True, False])
def test_too_many_files_name_where_most_are(code: Path, monkeypatch: pytest.MonkeyPatch, in_git: bool) -> None:
    monkeypatch.setattr(packing, "MOST_FILES", 20)
    write(code, **{"a.py": "1", **{f"data/{number}": "" for number in range(30)}})
    if in_git:
        git(code, "init", "-q")
    sentence = refused(code)
    assert "more than 20 files" in sentence
    assert sentence.splitlines()[1].split()[1] == "data/"


def test_a_walk_ends_however_much_there_is(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_LOOKED_AT", 20)
    write(code, **{f"{number}.pyc": "" for number in range(30)})
    assert "has more than 20 files" in refused(code)


def test_a_file_that_vanishes_is_not_packed_and_one_that_grows_is_packed_as_it_is(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(code, **{"a.py": "1", "vanishes": "2", "grows": "3"})
    entry = packing._entry

    def later(made: Any, place: Path, path: str, most: int) -> bytes:
        if path == "vanishes":
            place.unlink()
        if path == "grows":
            place.write_text("3" * 5_000)
        return entry(made, place, path, most)

    monkeypatch.setattr(packing, "_entry", later)
    packed = pack(code, MOST)
    with packed.archive, tarfile.open(fileobj=packed.archive) as archive:
        assert {each.name: each.size for each in archive} == {"a.py": 1, "grows": 5_000}


def test_files_that_grow_beyond_the_limit_meanwhile_are_refused(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(code, **{f"{number}": "" for number in range(9)})
    entry = packing._entry

    def later(made: Any, place: Path, path: str, most: int) -> bytes:
        place.write_text("3" * 9_000)
        return entry(made, place, path, most)

    monkeypatch.setattr(packing, "_entry", later)
    assert "to pack, and this server takes" in refused(code, 20_480)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_what_can_not_be_read_is_named_as_a_user(code: Path) -> None:
    write(code, secret="1")
    (code / "secret").chmod(0)
    assert "secret can't be read: Permission denied" in refused(code)


def test_what_can_not_be_read_is_named(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(code, secret="1")

    def denied(*_: Any) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(packing, "_entry", denied)
    assert "secret can't be read: Permission denied. Mend that, or name it in .simulationsignore." in refused(code)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_names_the_ignored_files_must_be_a_file(code: Path, make: Callable[[Path], None]) -> None:
    make(code / ".simulationsignore")
    assert refused(code) == "--workdir: .simulationsignore is no regular file."


@pytest.mark.parametrize("in_git", [True, False])
@pytest.mark.parametrize("name", [b"new\nline", "\u202egnp.exe".encode(), b"no-\xff-utf8", b"back\\slash", b"\x1b[31m"])
def test_a_name_that_deceives_or_is_no_text_is_refused(code: Path, name: bytes, in_git: bool) -> None:
    (code / os.fsdecode(name)).write_text("1")
    if in_git:
        git(code, "init", "-q")
    sentence = refused(code)
    assert "can't be packed" in sentence
    assert sentence.isascii()
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../outside", "..", ".", "lib/../../x", "./lib/x.py", "lib//x.py", "lib/../lib/x.py"]
)
def test_a_link_that_leads_out_or_is_no_plain_path_is_refused(code: Path, target: str) -> None:
    write(code, **{"lib/x.py": "1"})
    (code / "link").symlink_to(target)
    assert "link is a link to" in refused(code)


def test_git_that_refuses_is_no_reason_to_pack_what_it_ignores(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(code, **{"a.py": "1"})
    done = subprocess.CompletedProcess([], 128, b"", b"fatal: detected dubious ownership in repository\n")
    monkeypatch.setattr(packing, "_git", lambda *_: done)
    assert "git refuses: fatal: detected dubious ownership" in refused(code)


def test_a_repository_without_git_is_refused(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(code, "init", "-q")
    write(code, **{"sub/a.py": "1"})
    monkeypatch.setenv("PATH", "/nowhere")
    assert "git is not installed" in refused(code / "sub")


# --- one judgement on both sides ---

PATHS = [
    "a",
    "a/b",
    "",
    "/a",
    "a/",
    "a//b",
    "./a",
    "a/..",
    "..",
    "a\nb",
    "a\\b",
    "\u202ea",
    "x" * 256,
    "a/" * 50 + "b",
    "é",
]
TARGETS = ["a", "../a", "../../a", "/a", "", ".", "..", "a/../b", "./a", "a\n"]


def test_names_and_links_are_judged_as_the_supervisor_judges_them() -> None:
    for path in PATHS:
        assert is_safe(path) == contents.is_safe(path), path
    for path in ("x", "d/x", "d/e/x"):
        for target in TARGETS:
            assert leads_inside(path, target) == package.leads_inside(path, target), (path, target)
