"""Stored files of a simulation, brought to this machine before the child starts.

    newest/<simulation>    beside checkpoints/: the number of the newest attempt whose files are in the directories
                           here, from the second on; without it, directories that exist are of the first

The files here are used as they are if no later attempt has stored others: then they are at least as new as the store's.
Else the directories are made anew, beside the old ones, and take their place when all pieces are here. Of a gang each
member gets the files of all ranks; where several have a path, its own, else the lowest rank's, of the newest attempt
first. A host has the files of its own ranks only, so a gang uses what the last attempt stored, even where that attempt
ran. Members on one host bring them once: the file `newest` is locked meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Callable

from runner.removal import remove_tree
from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.complaints import complain
from runner.supervisor.files.attached import Abandoned
from runner.supervisor.files.contents import is_inside, is_safe
from runner.supervisor.files.store import MOST_OFFERED, Entry, Kept, Missing, Over, Refused, Store
from runner.supervisor.service import Backoff, Unreachable

LONGEST_PAUSE_SECONDS = 5.0
LOCK_SECONDS = 0.2
SPARE_BYTES = 256 << 20  # of the disk, as the spool leaves
NOTHING = -1  # not even the checkpoint that a fork begins with
MOST_TRIES = 4  # to read lists whose pieces are there


class Bringer:
    """One attempt's files on their way here. `number`: of the attempt."""

    def __init__(
        self,
        store: Store,
        directories: Mapping[str, Path],
        newest: Path,
        place: Path,
        *,
        rank: int,
        is_gang: bool,
        is_fork: bool = False,
        give_up_at: float,
        is_abandoned: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        """is_fork: of a simulation that begins with another one's checkpoint, which the store lists with the number 0.

        directories: by the kind of their files. place: for files that are not complete. say: into the log.

        give_up_at: how long the store may be away (monotonic); as long again after each piece.
        """
        self._store = store
        self._directories = directories
        self._newest = newest
        self._place = place
        self._rank = rank
        self._is_gang = is_gang
        self._is_fork = is_fork
        self._patience_seconds = give_up_at - time.monotonic()
        self._give_up_at = give_up_at  # moved on by each piece
        self._is_abandoned = is_abandoned
        self._say = say
        self._pieces: deque[str] = deque()  # to be fetched after the one that is

    def bring(self, number: int) -> None:
        """Bring the files of earlier attempts, if newer ones are stored than are here, and note attempt `number`.

        Raises `runner.supervisor.child.Refused` where that is impossible, and Abandoned.
        """
        try:
            self._newest.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked() as file:
                here = _number(os.pread(file, 20, 0))
                if here is None:
                    here = int(any(map(os.path.lexists, self._directories.values())))
                if here >= number:
                    return
                older = min(here, number - 2) if self._is_gang else here
                if self._is_fork and older <= 0:
                    older = NOTHING
                if older < number - 1:
                    _note(file, max(older, 0))  # cut off in the midst, the directories here are no sign of an attempt
                    self._update(older)
                _note(file, number)
        except OSError as error:
            raise NotStarted(f"Its stored files can't be brought to this machine: {error}.") from None
        finally:
            self._store.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self._newest, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        raise
                self._check()
                time.sleep(LOCK_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)

    def _update(self, here: int) -> None:
        """Replace what is here, of the attempt with this number, by what is stored, if that is newer."""
        backoff = Backoff(LONGEST_PAUSE_SECONDS)
        tries = 0
        while True:
            self._check()
            try:
                lists = self._kept()
                newer = {each.kind for each in lists if each.attempt > here}
                if here == NOTHING and "CHECKPOINT" not in newer:
                    raise NotStarted("The checkpoint that it is to begin with is not stored any more.")
                self._replace([each for each in lists if each.kind in newer])
                return
            except Missing as error:
                tries += 1
                if tries == MOST_TRIES:
                    raise NotStarted(
                        "A part of its stored files is missing or damaged in the store: submit it anew to begin from "
                        "zero."
                    ) from None
                time.sleep(backoff.failed(f"a piece is missing: {error}"))
            except Unreachable as error:
                if time.monotonic() > self._give_up_at:
                    raise NotStarted(f"Its stored files can't be read: {error}.") from None
                time.sleep(backoff.failed(str(error)))
            except Refused as error:
                raise NotStarted(f"Its stored files can't be read: {error}") from None
            except Over:
                raise Abandoned from None

    def _kept(self) -> Sequence[Kept]:
        try:
            return self._store.kept()
        except Missing:  # the service has no store
            return ()

    def _replace(self, lists: Sequence[Kept]) -> None:
        for kind, directory in self._directories.items():
            wanted = merge([each for each in lists if each.kind == kind], self._rank)
            if not wanted and not any(each.kind == kind for each in lists):
                continue
            total = sum(each.size for each in wanted.values())
            self._require_room(total)
            place = self._place / kind.lower()
            if place.exists():
                remove_tree(place)
            place.mkdir(mode=0o700, parents=True)
            files = sorted(wanted.values(), key=lambda each: bool(each.link))
            self._pieces = deque(digest for each in files for digest in each.pieces)
            for entry in files:
                self._write(place / entry.path, entry)
            self._exchange(directory, place)
            attempt = max(each.attempt for each in lists if each.kind == kind)
            self._say(f"{len(wanted)} {kind.lower()} files ({total} bytes) of attempt {attempt} were brought here")

    def _require_room(self, total: int) -> None:
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(self._place).free
        if free < total + SPARE_BYTES:
            raise NotStarted(f"Its stored files have {total:,} bytes, and this machine's disk has {free:,} left.")

    def _write(self, path: Path, entry: Entry) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if entry.link:
            os.symlink(entry.link, path)
            return
        mode = 0o700 if entry.is_executable else 0o600
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            content, held = b"", ""
            for digest in entry.pieces:
                self._pieces.popleft()
                if digest != held:
                    content, held = self._fetch(digest), digest
                if content.count(0) == len(content):  # a hole stays one
                    file.seek(len(content), os.SEEK_CUR)
                else:
                    file.write(content)
            file.truncate()
            if file.tell() != entry.size:
                raise Missing(entry.digest)
        os.utime(path, ns=(entry.modified_ns, entry.modified_ns))

    def _fetch(self, digest: str) -> bytes:
        """Fetch a piece. An outage of the store costs this one, not all that came before it."""
        following = list(islice(self._pieces, MOST_OFFERED))
        backoff = Backoff(LONGEST_PAUSE_SECONDS)
        while True:
            self._check()
            try:
                content = self._store.fetch(digest, following)
            except Unreachable as error:
                if time.monotonic() > self._give_up_at:
                    raise
                time.sleep(backoff.failed(str(error)))
            else:
                backoff.succeeded()
                self._give_up_at = time.monotonic() + self._patience_seconds
                return content

    def _exchange(self, directory: Path, place: Path) -> None:
        """Put the new directory into the place of the old one."""
        old = self._place / "old"
        if old.exists():
            remove_tree(old)
        if directory.is_symlink():  # made by a simulation: its target is not ours
            directory.unlink()
        elif directory.exists():
            directory.rename(old)
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.rename(directory)
        if old.exists():
            try:
                remove_tree(old)
            except OSError as error:  # it goes with the attempt's directory
                complain(f"{old} can't be removed: {error}")

    def _check(self) -> None:
        if self._is_abandoned():
            raise Abandoned


def merge(lists: Sequence[Kept], rank: int) -> dict[str, Entry]:
    """Choose one file for each path. Paths that are not safe, or below a file, are left out."""
    chosen: dict[str, Entry] = {}
    directories: set[str] = set()
    for kept in sorted(lists, key=lambda each: (-each.attempt, each.rank != rank, each.rank)):
        for entry in kept.entries:
            above = _above(entry.path)
            if (
                not is_safe(entry.path)
                or (entry.link and not is_inside(entry.path, entry.link))
                or entry.path in chosen
                or entry.path in directories
                or not chosen.keys().isdisjoint(above)
            ):
                continue
            chosen[entry.path] = entry
            directories.update(above)
    return chosen


def _above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _number(text: bytes) -> int | None:
    stripped = text.strip()
    return int(stripped) if stripped.isdigit() else None


def _note(file: int, number: int) -> None:
    os.pwrite(file, b"%-20d" % number, 0)
