"""Packages on a machine: fetched once, verified, and unpacked where nothing can lead out of."""

from __future__ import annotations

import fcntl
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.files import fetch, package
from runner.supervisor.files.attached import Abandoned
from runner.supervisor.files.package import WRITTEN_AT, BadArchive, Package, Unpacked, remove_old, unpack
from runner.supervisor.files.store import Missing, Over, Refused
from runner.supervisor.service import Unreachable

Entry = tuple[str, Any]


def archived(*entries: Entry) -> bytes:
    """An archive of files (bytes), links (text), directories (None), or entries as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.name = name
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            elif content is None:
                entry.type = tarfile.DIRTYPE
            data = content if isinstance(content, bytes) else b""
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def of_type(kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, linkname
    return entry


def executable() -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.mode = 0o755
    return entry


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "attempt" / "work"
    directory.mkdir(parents=True)
    return directory


def everything(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            found[path.relative_to(directory).as_posix()] = (
                os.readlink(path) if path.is_symlink() else path.read_bytes()
            )
    return found


# --- unpacking ---


def test_files_links_and_directories_are_made_as_they_were_packed(place: Path) -> None:
    content = archived(
        ("a.py", b"1"), ("lib/b.py", b"22"), ("link", "lib/b.py"), ("lib/up", "../a.py"), ("empty", None)
    )
    unpack(io.BytesIO(content), place)
    assert everything(place) == {"a.py": b"1", "lib/b.py": b"22", "link": "lib/b.py", "lib/up": "../a.py"}
    assert (place / "empty").is_dir()
    assert (place / "a.py").stat().st_mtime == WRITTEN_AT, "event files among them are no points of this attempt"
    assert not os.access(place / "a.py", os.X_OK) or os.geteuid() == 0


def test_a_file_that_was_executable_is(place: Path) -> None:
    unpack(io.BytesIO(archived(("run.sh", executable()), ("x", b""))), place)
    assert [(place / name).stat().st_mode & 0o777 for name in ("run.sh", "x")] == [0o700, 0o600]


@pytest.mark.parametrize(
    "entries",
    [
        [("../up", b"1")],
        [("/etc/x", b"1")],
        [("a/../../up", b"1")],
        [("./a", b"1")],
        [("new\nline", b"1")],
        [("\u202egnp", b"1")],
        [("back\\slash", b"1")],
        [("link", "../up")],
        [("link", "/etc")],
        [("link", "a/../..")],
        [("deep/er/d", "../../r"), ("r/x", b"1"), ("deep/er/l", "d/../../x")],  # out of r's parent, by way of a link
        [("link", "lib"), ("link/x", b"1")],
        [("a", b"1"), ("a", b"2")],
        [("a", "b"), ("a", b"2")],
        [("a", b"1"), ("a/b", b"2")],
        [("hard", of_type(tarfile.LNKTYPE, "a"))],
        [("fifo", of_type(tarfile.FIFOTYPE))],
        [("device", of_type(tarfile.CHRTYPE))],
        [("device", of_type(tarfile.BLKTYPE))],
        [("holes", of_type(tarfile.GNUTYPE_SPARSE))],
    ],
)
def test_what_leads_out_or_is_no_file_is_refused_and_nothing_is_made_elsewhere(
    place: Path, entries: list[Entry]
) -> None:
    with pytest.raises((BadArchive, NotADirectoryError)):
        unpack(io.BytesIO(archived(*entries)), place)
    above = place.parent.parent
    assert [each for each in above.rglob("*") if place not in (each, *each.parents)] == [place.parent]


@pytest.mark.parametrize(
    "content", [b"", b"no archive at all", os.urandom(2_000), archived(("a", b"x" * 2_000))[:1_500]]
)
def test_what_is_no_archive_is_refused(place: Path, content: bytes) -> None:
    with pytest.raises(BadArchive):
        unpack(io.BytesIO(content), place)


def test_a_size_that_is_not_there_is_refused(place: Path) -> None:
    entry = tarfile.TarInfo("huge")
    entry.size = 1 << 40
    with pytest.raises(BadArchive):
        unpack(io.BytesIO(entry.tobuf(tarfile.PAX_FORMAT)), place)
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    with pytest.raises(BadArchive):
        unpack(io.BytesIO(entry.tobuf(tarfile.PAX_FORMAT)), place)


def test_too_many_entries_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST_ENTRIES", 3)
    unpack(io.BytesIO(archived(*((f"f{number}", b"") for number in range(3)))), place)
    with pytest.raises(BadArchive, match="more than 3 entries"):
        unpack(io.BytesIO(archived(*((f"g{number}", b"") for number in range(4)))), place)


# --- the end ---


def test_what_is_as_it_was_packed_goes_and_what_the_program_wrote_stays(place: Path) -> None:
    made = unpack(io.BytesIO(archived(("a.py", b"1"), ("lib/b.py", b"2"), ("lib/deep/c", b"3"), ("l", "a.py"))), place)
    (place / "lib" / "b.py").write_bytes(b"!")
    (place / "result").write_bytes(b"4")
    (place / "lib" / "deep" / "new").write_bytes(b"5")
    made.remove_unchanged()
    assert everything(place) == {"lib/b.py": b"!", "lib/deep/new": b"5", "result": b"4"}


def test_nothing_that_was_moved_elsewhere_is_removed(place: Path, tmp_path: Path) -> None:
    made = unpack(io.BytesIO(archived(("lib/b.py", b"2"), ("x/y", b"3"))), place)
    (place / "lib").rename(tmp_path / "outputs")
    (place / "lib").symlink_to(tmp_path / "outputs")
    (place / "x" / "y").unlink()
    made.remove_unchanged()
    assert (tmp_path / "outputs" / "b.py").read_bytes() == b"2"
    assert not (place / "x").exists()


def test_an_empty_directory_has_nothing_to_remove(place: Path) -> None:
    Unpacked(place).remove_unchanged()
    assert place.is_dir()


# --- fetching ---

CONTENT = archived(("train.py", b"print(1)"))
DIGEST = sha256(CONTENT).hexdigest()


PIECE_BYTES = 1_000


class FakeStore:
    """Small pieces; `failures` are raised first, one for each request."""

    def __init__(self, content: bytes, *failures: Exception) -> None:
        pieces = [content[begin : begin + PIECE_BYTES] for begin in range(0, len(content), PIECE_BYTES)]
        self.pieces = {sha256(each).hexdigest(): each for each in pieces}
        self.order = [sha256(each).hexdigest() for each in pieces]
        self.failures = list(failures)
        self.asked = 0

    def package(self) -> list[str]:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.order

    def fetch(self, digest: str, buffer: memoryview, following: Any = ()) -> memoryview:
        content = self.pieces[digest]
        buffer[: len(content)] = content
        return buffer[: len(content)]

    def close(self) -> None:
        pass


def brings(store: Any, archives: Path, place: Path, **given: Any) -> Unpacked:
    said: list[str] = given.pop("said", [])
    given = {"give_up_at": time.monotonic() + 60, "is_abandoned": lambda: False, **given}
    return Package(store, DIGEST, archives, say=said.append, **given).bring(place)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LONGEST_PAUSE_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "PIECE_BYTES", PIECE_BYTES)


def test_an_archive_is_fetched_once_for_a_host(tmp_path: Path, place: Path) -> None:
    store = FakeStore(CONTENT)
    said: list[str] = []
    brings(store, tmp_path / "packages", place, said=said)
    assert everything(place) == {"train.py": b"print(1)"}
    assert said == [f"the package {DIGEST[:12]} ({len(CONTENT)} bytes) was brought here"]
    other = tmp_path / "other"
    other.mkdir()
    brings(store, tmp_path / "packages", other, said=said)
    assert everything(other) == everything(place)
    assert (store.asked, len(said)) == (1, 1)


@pytest.mark.parametrize("kept", [b"", CONTENT[:500], CONTENT[:-1] + b"x", b"of another simulation"])
def test_an_archive_that_was_cut_off_or_changed_is_fetched_again(tmp_path: Path, place: Path, kept: bytes) -> None:
    archives = tmp_path / "packages"
    archives.mkdir()
    (archives / DIGEST).write_bytes(kept * 3)
    brings(FakeStore(CONTENT), archives, place)
    assert everything(place) == {"train.py": b"print(1)"}
    assert (archives / DIGEST).read_bytes() == CONTENT


@pytest.mark.usefixtures("fast")
def test_a_service_that_is_away_is_waited_for(tmp_path: Path, place: Path) -> None:
    store = FakeStore(CONTENT, Unreachable("away"), Unreachable("away"), Missing("x"))
    brings(store, tmp_path / "packages", place)
    assert store.asked == 4


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (Missing("x"), "Its package is missing or damaged in the store"),
        (Unreachable("away"), "Its package can't be read: away"),
        (Refused("No."), "Its package can't be read: No."),
    ],
)
def test_a_package_that_can_not_be_read_is_a_sentence(
    tmp_path: Path, place: Path, failure: Exception, sentence: str
) -> None:
    store = FakeStore(CONTENT, *[failure] * 10)
    with pytest.raises(NotStarted, match=sentence):
        brings(store, tmp_path / "packages", place, give_up_at=time.monotonic() - 1)
    assert everything(place) == {}


@pytest.mark.usefixtures("fast")
def test_other_bytes_are_no_package(tmp_path: Path, place: Path) -> None:
    with pytest.raises(NotStarted, match="missing or damaged"):
        brings(FakeStore(CONTENT + b"x"), tmp_path / "packages", place)
    assert everything(place) == {}


def test_an_archive_that_is_none_is_a_sentence(tmp_path: Path, place: Path) -> None:
    content = archived(("../up", b"1"))
    digest = sha256(content).hexdigest()
    package = Package(
        FakeStore(content), digest, tmp_path / "packages", give_up_at=0.0, is_abandoned=lambda: False, say=print
    )  # type: ignore[arg-type]  # a store's part
    with pytest.raises(NotStarted, match=r"Its package can't be unpacked: '\.\./up' can't be the name of a file"):
        package.bring(place)


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("put", [put_fifo, put_link, Path.mkdir])
def test_what_another_program_has_put_in_the_place_of_an_archive_is_not_read(
    tmp_path: Path, place: Path, put: Callable[[Path], None]
) -> None:
    archives = tmp_path / "packages"
    archives.mkdir()
    put(archives / DIGEST)
    mode = (archives / DIGEST).lstat().st_mode
    brings(FakeStore(CONTENT), archives, place)
    assert everything(place) == {"train.py": b"print(1)"}
    assert (archives / DIGEST).lstat().st_mode == mode
    assert not (tmp_path / "elsewhere").exists()
    assert list(archives.iterdir()) == [archives / DIGEST], "the copy has no name"


class Clock:
    """The time of the fetch: each pause is as long as it says, and no longer than `after` says here."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.pauses = 0
        self.after: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        self.after()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fetch, "time", clock)
    return clock


def test_a_lock_that_a_simulation_holds_for_ever_costs_a_copy(tmp_path: Path, place: Path, clock: Clock) -> None:
    archives = tmp_path / "packages"
    archives.mkdir()
    store = FakeStore(CONTENT)
    with open(archives / DIGEST, "w+b") as hostile:
        hostile.write(b"of another simulation")
        hostile.flush()
        fcntl.flock(hostile, fcntl.LOCK_EX)
        brings(store, archives, place)
    assert everything(place) == {"train.py": b"print(1)"}
    assert clock.pauses == pytest.approx(package.LOCK_SECONDS / fetch.LOCK_SECONDS, abs=3)
    assert (archives / DIGEST).read_bytes() == b"of another simulation"


def test_a_lock_is_waited_for_as_long_as_its_holder_gets_on(tmp_path: Path, place: Path, clock: Clock) -> None:
    archives = tmp_path / "packages"
    archives.mkdir()
    store = FakeStore(CONTENT)
    most = 3 * package.LOCK_SECONDS / fetch.LOCK_SECONDS
    with open(archives / DIGEST, "w+b") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        def gets_on() -> None:
            if clock.pauses < most:
                first.write(b"x")
            elif clock.pauses == most:
                first.seek(0)
                first.truncate()
                first.write(CONTENT)
            first.flush()
            if clock.pauses == most:
                fcntl.flock(first, fcntl.LOCK_UN)

        clock.after = gets_on
        brings(store, archives, place)
    assert (clock.pauses, store.asked) == (most, 0)


def test_an_attempt_that_is_over_fetches_nothing(tmp_path: Path, place: Path) -> None:
    with pytest.raises(Abandoned):
        brings(FakeStore(CONTENT, Over()), tmp_path / "packages", place)
    with pytest.raises(Abandoned):
        brings(FakeStore(CONTENT), tmp_path / "packages", place, is_abandoned=lambda: True)


def test_an_archive_that_another_attempt_fetches_is_waited_for(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = tmp_path / "packages"
    archives.mkdir()
    waits = threading.Event()
    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=lambda _: waits.set(), monotonic=time.monotonic))
    store = FakeStore(CONTENT)
    with open(archives / DIGEST, "w+b") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = threading.Thread(target=brings, args=(store, archives, place))
        second.start()
        assert waits.wait(60)
        first.write(CONTENT)
        first.flush()
    second.join(60)
    assert everything(place) == {"train.py": b"print(1)"}
    assert store.asked == 0


def test_archives_that_were_not_used_for_a_week_go_unless_they_are_in_use(tmp_path: Path) -> None:
    old, used, new = (tmp_path / name for name in ("old", "used", "new"))
    for each in (old, used, new):
        each.write_bytes(b"")
    for each in (old, used):
        os.utime(each, (time.time() - 8 * 86_400,) * 2)
    with used.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        remove_old(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new", "used"]
