"""Stored files of a simulation, brought to this machine before the child starts.

    newest/<simulation>    beside checkpoints/: the number of the newest attempt whose files are in the directories
                           here, from the second on; without it, directories that exist are of the first

The files here are used as they are if no later attempt has stored others: then they are at least as new as the store's.
Else the directories are made anew, beside the old ones, and take their place when all pieces are here. Of a gang each
member gets the files of all ranks; where several have a path, its own, else the lowest rank's, of the newest attempt
first. A host has the files of its own ranks only, so a gang uses what the last attempt stored, even where that attempt
ran. Members on one host bring them once: the file `newest` is locked meanwhile, and its time moved on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Callable

from runner.removal import remove_tree
from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.complaints import complain
from runner.supervisor.files.contents import is_inside, is_safe
from runner.supervisor.files.fetch import Fetch, Take, write_at
from runner.supervisor.files.store import PIECE_BYTES, Entry, Kept, Missing, Store

SPARE_BYTES = 256 << 20  # of the disk, as the spool leaves
NOTHING = -1  # not even the checkpoint that a fork begins with
GONE = "A part of its stored files is missing or damaged in the store: submit it anew to begin from zero."


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
        self._fetch = Fetch(store, "Its stored files", GONE, give_up_at=give_up_at, is_abandoned=is_abandoned)
        self._say = say
        self._going_on: Callable[[], None] = lambda: None  # to be called by each step, for others that wait

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
                    self._fetch.persist(lambda: self._update(older))
                _note(file, number)
        except OSError as error:
            raise NotStarted(f"Its stored files can't be brought to this machine: {error}.") from None
        finally:
            self._store.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self._newest, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            patience_seconds = self._fetch.patience_seconds
            if not self._fetch.lock(descriptor, patience_seconds):
                raise NotStarted(
                    "Its stored files can't be brought to this machine: another process has locked them here, and done "
                    f"nothing for {patience_seconds:.0f} seconds."
                )
            self._going_on = partial(os.utime, descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _update(self, here: int) -> None:
        """Replace what is here, of the attempt with this number, by what is stored, if that is newer."""
        lists = self._kept()
        newer = {each.kind for each in lists if each.attempt > here}
        if here == NOTHING and "CHECKPOINT" not in newer:
            raise NotStarted("The checkpoint that it is to begin with is not stored any more.")
        self._replace([each for each in lists if each.kind in newer])

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
            self._write(place, sorted(wanted.values(), key=lambda each: bool(each.link)))
            self._exchange(directory, place)
            attempt = max(each.attempt for each in lists if each.kind == kind)
            files, were = ("file", "was") if len(wanted) == 1 else ("files", "were")
            self._say(f"{len(wanted)} {kind.lower()} {files} ({total} bytes) of attempt {attempt} {were} brought here")

    def _require_room(self, total: int) -> None:
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(self._place).free
        if free < total + SPARE_BYTES:
            raise NotStarted(f"Its stored files have {total:,} bytes, and this machine's disk has {free:,} left.")

    def _write(self, place: Path, entries: Sequence[Entry]) -> None:
        """Make files, and fill them with their pieces."""
        pieces: list[tuple[str, Take]] = []
        for entry in entries:
            path = place / entry.path
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if entry.link:
                os.symlink(entry.link, path)
                continue
            mode = 0o700 if entry.is_executable else 0o600
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
                file.truncate(entry.size)
            if len(entry.pieces) != -(-entry.size // PIECE_BYTES):
                raise Missing(entry.digest)
            for digest, run in groupby(enumerate(entry.pieces), key=lambda each: each[1]):  # zeros, often
                pieces.append((digest, partial(self._fill, path, entry, [number for number, _ in run])))
        self._fetch.pieces(pieces)
        for entry in entries:
            if not entry.link:
                os.utime(place / entry.path, ns=(entry.modified_ns, entry.modified_ns))

    def _fill(self, path: Path, entry: Entry, numbers: Sequence[int], content: memoryview) -> None:
        """Write one piece to its places in a file; a hole stays one."""
        self._going_on()
        if any(len(content) != min(PIECE_BYTES, entry.size - number * PIECE_BYTES) for number in numbers):
            raise Missing(entry.digest)
        if not content[0] and bytes(content).count(0) == len(content):
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            for number in numbers:
                write_at(descriptor, content, number * PIECE_BYTES)
        finally:
            os.close(descriptor)

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
