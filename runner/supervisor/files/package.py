"""Package of code: fetched from the store, kept on this host by its digest, and unpacked before the child starts.

    packages/<digest>    beside checkpoints/: the archive (tar, not compressed), verified whenever it is unpacked

An archive is locked while it is fetched, so attempts that start together fetch it once; one that was cut off has
another digest, and is fetched again. What was not used for a week is removed. All simulations of a host may be one Unix
user's: a lock that is held without a sign of life, or something else in an archive's place, costs a copy of one's own.

The archive is input of a user: regular files, directories and links within it are made in a directory that is empty
before, under names that can't lead out of it; anything else refuses the package. Its bytes bound what is written, as
nothing is compressed and holes are refused. All files get one old time, so that event files among them are no points
of this attempt. At the end those that are as they were are removed: what the program has written stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posixpath
import stat
import time
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Callable

from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.complaints import complain
from runner.supervisor.files.contents import is_inside, is_safe, sha256
from runner.supervisor.files.fetch import Fetch, write_at
from runner.supervisor.files.store import PIECE_BYTES, Missing, Store

if TYPE_CHECKING:  # imported where it is used: see `runner.supervisor.launcher`
    import tarfile

MOST_ENTRIES = 50_000
LOCK_SECONDS = 60.0  # without a sign of life
KEPT_SECONDS = 7 * 86_400.0
READ_BYTES = 1 << 20
WRITTEN_AT = 315_532_800  # 1980, the earliest time that zip archives have
GONE = "Its package is missing or damaged in the store: submit it anew, with --workdir."


class BadArchive(Exception):
    """An archive that is not unpacked; the message is a sentence."""


class Package:
    """The package of one attempt."""

    def __init__(
        self,
        store: Store,
        digest: str,
        archives: Path,
        *,
        give_up_at: float,
        is_abandoned: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        """archives: the directory where they are kept. say: into the log."""
        self._store = store
        self._digest = digest
        self._archives = archives
        self._fetch = Fetch(store, "Its package", GONE, give_up_at=give_up_at, is_abandoned=is_abandoned)
        self._say = say

    def bring(self, directory: Path) -> Unpacked:
        """Fetch the archive, unless it is here, and unpack it into an empty directory.

        Raises `runner.supervisor.child.Refused` where that is impossible, and Abandoned.
        """
        try:
            self._archives.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as file:
                if digest_of(file) != self._digest:
                    self._fetch.persist(lambda: self._write(file))
                    remove_old(self._archives)
                os.utime(file.fileno())  # it is in use
                fcntl.flock(file.fileno(), fcntl.LOCK_SH)
                return unpack(file, directory)
        except BadArchive as error:
            raise NotStarted(f"Its package can't be unpacked: {error}") from None
        except OSError as error:
            raise NotStarted(f"Its package can't be brought to this machine: {error}.") from None
        finally:
            self._store.close()

    def _opened(self) -> IO[bytes]:
        """Open this host's copy of the archive, locked; a file without a name where that can't be had."""
        path = self._archives / self._digest
        with contextlib.suppress(OSError):
            file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")  # noqa: SIM115  # returned
            try:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and self._fetch.lock(file.fileno(), LOCK_SECONDS):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()
        complain(f"{path} is locked, or no file of this user: the package is fetched for this attempt alone")
        import tempfile  # has `random`, see `runner.supervisor.service`

        return tempfile.TemporaryFile(dir=self._archives)

    def _write(self, file: IO[bytes]) -> None:
        pieces = self._store.package()
        file.seek(0)
        file.truncate()
        self._fetch.pieces([(digest, partial(_fill, file.fileno(), number)) for number, digest in enumerate(pieces)])
        if digest_of(file) != self._digest:
            raise Missing("its bytes are others")
        self._say(f"the package {self._digest[:12]} ({file.tell()} bytes) was brought here")


def _fill(descriptor: int, number: int, content: memoryview) -> None:
    write_at(descriptor, content, number * PIECE_BYTES)  # the file's time moves on: others that wait see it


class Unpacked:
    """The files of a package in a directory, as they were unpacked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, tuple[int, int, int]] = {}

    def note(self, path: str) -> None:
        """Note a file that was made."""
        self._written[path] = _version(self._directory / path)

    def remove_unchanged(self) -> None:
        """Remove the files that are as they were made, and directories that are empty then."""
        above = set()
        for path, version in self._written.items():
            place = self._directory / path
            with contextlib.suppress(OSError):
                # Not through a link that the program has put into the place of a directory.
                if _version(place) == version and place.parent == place.parent.resolve():
                    place.unlink()
            above.update(_above(path))
        for each in sorted(above, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(self._directory / each)


def unpack(file: IO[bytes], directory: Path) -> Unpacked:
    """Unpack an archive into an empty directory. Raises BadArchive, OSError."""
    import tarfile

    directory = directory.resolve()
    unpacked = Unpacked(directory)
    links: set[str] = set()
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for number, member in enumerate(archive):
                if number == MOST_ENTRIES:
                    raise BadArchive(f"It has more than {MOST_ENTRIES:,} entries.")
                _make(archive, member, directory, links)
                if not member.isdir():
                    unpacked.note(member.name)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise BadArchive(f"It is no archive: {error}.") from None
    except FileExistsError:
        raise BadArchive("Two of its entries have one name.") from None
    return unpacked


def _make(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path, links: set[str]) -> None:
    """Make what an entry stands for. links: those that were made."""
    name = member.name
    if not is_safe(name):
        raise BadArchive(f"{ascii(name)[:200]} can't be the name of a file.")
    if not links.isdisjoint(_above(name)):
        raise BadArchive(f"{name!r} lies below a link.")
    path = directory / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(mode=0o700, exist_ok=True)
    elif member.issym():
        if not leads_inside(name, member.linkname):
            raise BadArchive(f"{name!r} is a link that leads out of it.")
        os.symlink(member.linkname, path)
        links.add(name)
    elif member.isreg() and not member.issparse():
        mode = 0o700 if member.mode & 0o100 else 0o600
        source = archive.extractfile(member)
        assert source is not None
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            left = member.size
            while left:
                content = source.read(min(READ_BYTES, left))
                if not content:
                    raise BadArchive(f"{name!r} is cut off.")
                file.write(content)
                left -= len(content)
        os.utime(path, (WRITTEN_AT, WRITTEN_AT))
    else:
        raise BadArchive(f"{name!r} is neither a file nor a directory nor a link.")


def leads_inside(path: str, target: str) -> bool:
    """Whether a link leads to another path of its package, whatever other links there are.

    `..` only at the beginning: it leads up from the link's own directory, which is none, and not from another's target.
    """
    return target == posixpath.normpath(target) and is_inside(path, target)


def digest_of(file: IO[bytes]) -> str:
    """SHA-256 of a file, from its beginning."""
    whole = sha256()
    file.seek(0)
    while True:
        content = file.read(READ_BYTES)
        if not content:
            return whole.hexdigest()
        whole.update(content)


def remove_old(archives: Path) -> None:
    """Remove archives that were not used for a week, and are not in use."""
    before = time.time() - KEPT_SECONDS
    try:
        for path in archives.iterdir():
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < before:
                    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
    except OSError as error:
        complain(f"old packages can't be removed: {error}")


def _version(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
