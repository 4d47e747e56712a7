"""Saver thread: uploads the files of a simulation while it runs, and their last state after its end.

A directory is saved when it has been quiet: two looks `QUIET_SECONDS` apart saw the same, and no process has one of its
files open for writing. Then all of its files are of one moment. One that is never quiet, for there is a log in it, is
saved after `RESTLESS_SECONDS` all the same: files that are complete as they are, others as they were saved last.

The files to be uploaded are linked into a directory of the attempt first: a checkpoint that replaces another one by
renaming, or that is deleted, can be uploaded to its end. One that is rewritten in place is noticed, and tried again
with a copy, if the disk has room for it: else a program that writes faster than it uploads would be saved at its end
only. So is one on another file system, where it can't be linked.

A store that is away costs the piece that it was asked for, not the save: the request is repeated until it answers. One
that stays away for a minute is a notice, with the reason; so is what is not stored in time after the end.

Low priority, by nice, and few pieces at a time. At the end, when the program uses no core any more, `finish` saves the
last state with more of them at a time, for a limited time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Callable, NamedTuple, TypeVar

from runner.removal import remove_tree
from runner.supervisor.complaints import complain
from runner.supervisor.files.contents import Listing, Seen, look, open_for_writing, seen, sha256
from runner.supervisor.files.lanes import Buffers, in_order
from runner.supervisor.files.store import (
    MOST_RESERVED,
    MOST_RESERVED_BYTES,
    PIECE_BYTES,
    Altered,
    Entry,
    Missing,
    Over,
    Refused,
    Store,
)
from runner.supervisor.notices import FILE_LEFT_OUT, FILES_NOT_STORED, Notices
from runner.supervisor.service import Unreachable

Result = TypeVar("Result")

LOOK_SECONDS = 1.0
LOOKS_SHARE = 50  # looks take at most a fiftieth of a core
QUIET_SECONDS = 2.0
RESTLESS_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 60.0
NICENESS = 10
AT_ONCE = 2  # pieces of 8 MiB, which are in memory meanwhile
AT_ONCE_LAST = 4
COPIED_BYTES = 64 << 20  # at once
SPARE_BYTES = 256 << 20  # of the disk, as the spool leaves
MOST_TRIES = 5  # to commit, with pieces that have vanished from the store meanwhile


class Changed(Exception):
    """A file changed while it was uploaded."""


class Interrupted(Exception):
    """The simulation has ended: its last state is to be saved instead."""


class Source(NamedTuple):
    """Where a file is read: itself, a link to it or a copy; and what is to be seen there."""

    path: Path
    seen: Seen


class _Directory:
    """One directory that is kept, and how far it is."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.listing = Listing()  # as it was seen last
        self.since = 0.0  # since when it has been so
        self.restless_since: float | None = None
        self.saved: dict[str, Seen] | None = None  # what the committed list was made of
        self.entries: dict[str, tuple[Seen, Entry]] = {}  # what was hashed, of the files that are there
        self.left_out: set[str] = set()  # of which there is a notice
        self.rewritten: set[str] = set()  # files that changed while they were uploaded: copied from then on

    def is_new(self, files: Mapping[str, Seen]) -> bool:
        """Whether these files are to be saved; a directory that was always empty is not."""
        return files != self.saved if self.saved is not None else bool(files)


class Saver(threading.Thread):
    """The thread. `finish` ends it."""

    def __init__(self, store: Store, directories: Mapping[str, Path], place: Path, notices: Notices) -> None:
        """directories: by the kind of their files. place: for links to what is being uploaded."""
        super().__init__(name="saver", daemon=True)
        self.is_over = False
        self._store = store
        self._directories = [_Directory(kind, path) for kind, path in directories.items()]
        self._place = place
        self._notices = notices
        self._buffers = Buffers(PIECE_BYTES)
        self._ending = threading.Event()
        self._given_up = threading.Event()
        self._unsaved = list(self._directories)  # at the end
        self._pause_seconds = 0.0  # after a failure
        self._not_before = 0.0
        self._why = ""  # the last failure, until something succeeds

    def begin(self) -> None:
        """Start the thread, unless it runs."""
        if self.ident is None:
            with contextlib.suppress(RuntimeError):  # no more threads: the last state is saved all the same
                self.start()

    def finish(self, deadline: float, is_abandoned: Callable[[], bool], wait: Callable[[float], None]) -> None:
        """Save the last state, until `deadline` (monotonic), or until it `is_abandoned`; `wait` for a while."""
        self._ending.set()
        last = threading.Thread(target=self._finish, args=(deadline,), name="last-save", daemon=True)
        listings = [self._read(each) for each in self._directories]
        if not any(map(_is_to_save, self._directories, listings)):
            self._given_up.set()
            return
        try:
            last.start()
        except RuntimeError as error:
            complain(f"files: {error}")
        while last.is_alive() and time.monotonic() < deadline and not is_abandoned():
            wait(0.2)
        self._given_up.set()  # the thread may hang in a request: it is not waited for
        if self._unsaved and not self.is_over:
            wanted = [each for each, found in zip(self._directories, listings) if _is_to_save(each, found)]
            named = " and ".join(sorted(each.kind.lower() for each in wanted if each in self._unsaved))
            why = f" {_sentence(self._why)}" if self._why else ""
            self._notices.count(FILES_NOT_STORED, "", advice=f"Not stored in time after the end: {named} files.{why}")

    def run(self) -> None:
        """Look at the directories again and again."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        pause = LOOK_SECONDS
        while not self._ending.wait(pause) and not self.is_over:
            began = time.monotonic()
            for each in self._directories:
                try:
                    self._look(each)
                except Interrupted:
                    break
                except Exception as error:  # noqa: BLE001  # logged: the simulation goes on
                    complain(f"files: {type(error).__name__}: {error}")
                    self._fail(str(error))
            pause = max(LOOK_SECONDS, LOOKS_SHARE * min(time.monotonic() - began, LOOK_SECONDS))

    def _look(self, directory: _Directory) -> None:
        now = time.monotonic()
        listing = self._read(directory)
        if listing.files != directory.listing.files:
            directory.listing, directory.since = listing, now
        if listing.problem is None and not directory.is_new(listing.files):
            directory.restless_since = None
            return
        if directory.restless_since is None:
            directory.restless_since = now
        if now - directory.since < QUIET_SECONDS and now - directory.restless_since < RESTLESS_SECONDS:
            return
        if now < self._not_before:
            return
        unfinished = open_for_writing(directory.path)
        if now - directory.since < QUIET_SECONDS or unfinished:
            if now - directory.restless_since < RESTLESS_SECONDS:
                return
            listing = self._without(directory, listing, unfinished)
        if self._try(directory, listing):
            directory.restless_since = None

    def _read(self, directory: _Directory) -> Listing:
        """Look at a directory, and count what is left out, once for each path."""
        listing = look(directory.path)
        for path, why in listing.left_out.items():
            if path not in directory.left_out:
                self._notices.count(FILE_LEFT_OUT, f"{path}: {why}")
        directory.left_out.update(listing.left_out)
        return listing

    def _without(self, directory: _Directory, listing: Listing, unfinished: set[str]) -> Listing:
        """Return the files that are complete by themselves, and the others as they were saved last."""
        previous, files = directory.saved or {}, {}
        time.sleep(min(QUIET_SECONDS, 0.5))
        again = look(directory.path).files
        for path, was in listing.files.items():
            if path not in unfinished and again.get(path) == was:
                files[path] = was
            elif path in previous and path in directory.entries:
                files[path] = previous[path]
        return Listing(files, listing.left_out, listing.problem)

    def _finish(self, deadline: float) -> None:
        """Save what the directories hold now, with tries until the deadline."""
        if self.ident is not None:
            self.join()
        left = self._unsaved
        while left and not self.is_over and not self._given_up.is_set():
            for each in list(left):
                listing = self._read(each)
                try:
                    if not _is_to_save(each, listing) or self._try(each, listing, is_last=True):
                        left.remove(each)
                except Interrupted:
                    break
                except Exception as error:  # noqa: BLE001  # logged, and tried again
                    complain(f"files: {type(error).__name__}: {error}")
                    self._fail(str(error))
            if left:
                pause = max(self._not_before - time.monotonic(), 0.1)
                if time.monotonic() + pause >= deadline:
                    break
                self._given_up.wait(pause)
        self._store.close()

    def _try(self, directory: _Directory, listing: Listing, *, is_last: bool = False) -> bool:
        """Save a listing; False if it has to be tried again. Raises Interrupted."""
        try:
            if listing.problem is not None:
                raise Refused(listing.problem)
            self._save(directory, listing.files, is_last)
        except (Changed, Missing) as error:
            self._fail(f"{type(error).__name__}: {error}")
            return False
        except Unreachable as error:
            self._fail(str(error))
            return False
        except Refused as error:
            self._notices.count(FILES_NOT_STORED, "", advice=str(error))
            self._pause_seconds = LAST_PAUSE_SECONDS
            self._not_before = time.monotonic() + LAST_PAUSE_SECONDS
            return is_last
        except Over:
            self.is_over = True
            return True
        self._succeed()
        self._not_before = 0.0
        return True

    def _succeed(self) -> None:
        self._pause_seconds, self._why = 0.0, ""

    def _fail(self, why: str) -> None:
        if not self._pause_seconds:
            complain(f"files are not stored yet, trying on: {why}")
        self._why = why
        before = self._pause_seconds
        self._pause_seconds = min(max(2 * before, FIRST_PAUSE_SECONDS), LAST_PAUSE_SECONDS)
        if before < self._pause_seconds == LAST_PAUSE_SECONDS:
            self._notices.count(FILES_NOT_STORED, "", advice=f"Trying on. {_sentence(why)}")
        if self._ending.is_set():
            self._pause_seconds = min(self._pause_seconds, 5.0)
        self._not_before = time.monotonic() + self._pause_seconds

    def _save(self, directory: _Directory, files: Mapping[str, Seen], is_last: bool) -> None:
        place = self._place / directory.kind.lower()
        if place.exists():
            remove_tree(place)
        place.mkdir(mode=0o700, parents=True)
        try:
            sources = self._hold(directory, files, place, is_last)
            entries = [self._entry(directory, path, was, sources.get(path), is_last) for path, was in files.items()]
            for _ in range(MOST_TRIES):
                self._upload(directory, entries, sources, is_last)
                missing = self._patiently(lambda: self._store.commit(directory.kind, entries), is_last)
                if not missing:
                    break
            else:
                raise Missing(missing[0])
        except Changed:
            now = look(directory.path).files
            directory.rewritten.update(path for path, was in files.items() if now.get(path) != was)
            raise
        finally:
            self._buffers.clear()
            remove_tree(place)
        directory.saved = dict(files)
        directory.entries = {entry.path: (files[entry.path], entry) for entry in entries}

    def _hold(self, directory: _Directory, files: Mapping[str, Seen], place: Path, is_last: bool) -> dict[str, Source]:
        """Link or copy the files that are not hashed yet, so that they can be read however long it takes."""
        sources: dict[str, Source] = {}
        for number, (path, was) in enumerate(files.items()):
            known = directory.entries.get(path)
            if was.link or (known is not None and known[0] == was):
                continue
            source, held = directory.path / path, place / str(number)
            if path in directory.rewritten and _has_room(place, was.size):
                _copy(source, held, was, lambda: self._check(is_last))
                sources[path] = Source(held, seen(os.lstat(held)))
                continue
            with contextlib.suppress(OSError):  # of another file system, or gone: noticed when it is read
                os.link(source, held, follow_symlinks=False)
                source = held
            sources[path] = Source(source, was)
        return sources

    def _entry(self, directory: _Directory, path: str, was: Seen, source: Source | None, is_last: bool) -> Entry:
        if was.link:
            return Entry(path, link=was.link)
        if source is None:
            return directory.entries[path][1]
        whole = sha256()

        def contents(descriptor: int, buffers: Sequence[memoryview]) -> Iterator[memoryview]:
            begin = 0
            for buffer in cycle(buffers):  # as many as are hashed at once: the oldest is free when one more is read
                if not (content := _read(descriptor, begin, buffer)):
                    break
                self._check(is_last)
                if begin > was.size:  # it grows as fast as it is read
                    raise Changed(path)
                begin += len(content)
                yield content
                if was.size > PIECE_BYTES:
                    whole.update(content)  # beside the thread that has the piece: the digests take both a core

        with _opened(source) as descriptor, contextlib.ExitStack() as stack:
            buffers = [stack.enter_context(self._buffers.one()) for _ in range(AT_ONCE)]
            pieces = tuple(in_order(contents(descriptor, buffers), _digest, AT_ONCE))
            if seen(os.fstat(descriptor)) != source.seen:
                raise Changed(path)
        digest = pieces[0] if len(pieces) == 1 else whole.hexdigest()
        return Entry(path, was.size, was.modified_ns, was.is_executable, digest, pieces)

    def _upload(
        self, directory: _Directory, entries: list[Entry], sources: Mapping[str, Source], is_last: bool
    ) -> None:
        """Upload the pieces that the store has not, file by file; a group of pieces is reserved in one request."""
        wanted: dict[str, tuple[Path, int]] = {}
        for entry in entries:
            source = sources[entry.path].path if entry.path in sources else directory.path / entry.path
            for number, digest in enumerate(entry.pieces):
                wanted.setdefault(digest, (source, number))
        all_sizes = {
            digest: min(PIECE_BYTES, entry.size - number * PIECE_BYTES)
            for entry in entries
            for number, digest in enumerate(entry.pieces)
        }
        for sizes in _groups(all_sizes):
            self._patiently(lambda sizes=sizes: self._put(sizes, wanted, is_last), is_last)  # type: ignore[misc]

    def _put(self, sizes: Mapping[str, int], wanted: Mapping[str, tuple[Path, int]], is_last: bool) -> None:
        """Put what the store has not of a group of pieces."""
        missing = self._store.reserve(sizes)
        if not missing.keys() <= sizes.keys():
            raise Unreachable("a piece that was not asked for is missing")

        def put(digest: str) -> None:
            self._check(is_last)
            source, number = wanted[digest]
            try:
                with self._buffers.one() as buffer:
                    self._store.put(digest, _piece(source, number, buffer[: sizes[digest]]), missing[digest])
            except Altered:
                raise Changed(source.name) from None

        for _ in in_order(missing, put, AT_ONCE_LAST if is_last else AT_ONCE):
            self._succeed()

    def _patiently(self, act: Callable[[], Result], is_last: bool) -> Result:
        """Do something until the store answers. Raises Interrupted."""
        while True:
            self._check(is_last)
            try:
                return act()
            except Unreachable as error:
                self._fail(str(error))
                (self._given_up if is_last else self._ending).wait(self._pause_seconds)

    def _check(self, is_last: bool) -> None:
        if self._given_up.is_set() or (self._ending.is_set() and not is_last):
            raise Interrupted


def _sentence(why: str) -> str:
    return f"{why[:1].upper()}{why[1:].rstrip('.')}."


def _is_to_save(directory: _Directory, listing: Listing) -> bool:
    return listing.problem is not None or listing.files != (directory.saved or {})


def _groups(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Split pieces into groups of one request each: the service sees by them that the attempt stores its files."""
    group: dict[str, int] = {}
    for digest, size in sizes.items():
        group[digest] = size
        if len(group) == MOST_RESERVED or sum(group.values()) >= MOST_RESERVED_BYTES:
            yield group
            group = {}
    if group:
        yield group


def _piece(source: Path, number: int, buffer: memoryview) -> memoryview:
    """Read a piece again, which fills the buffer. Its digest is compared when it is put.

    Raises Changed if it is there no more.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # it may be a pipe by now
    except OSError as error:
        raise Changed(f"{source.name}: {error}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Changed(source.name)
        content = _read(descriptor, number * PIECE_BYTES, buffer)
    finally:
        os.close(descriptor)
    if len(content) != len(buffer):
        raise Changed(source.name)
    return content


def _read(descriptor: int, begin: int, buffer: memoryview) -> memoryview:
    """Fill a buffer with a part of a file; return what it holds then: less only at the file's end."""
    done = 0
    while done < len(buffer) and (count := os.preadv(descriptor, [buffer[done:]], begin + done)):
        done += count
    return buffer[:done]


def _digest(content: memoryview) -> str:
    return sha256(content).hexdigest()


def _has_room(place: Path, size: int) -> bool:
    return shutil.disk_usage(place).free >= size + SPARE_BYTES


def _copy(source: Path, to: Path, was: Seen, check: Callable[[], None]) -> None:
    """Copy a file that is still this version, sharing its blocks where the file system can. Raises Changed.

    check: called between parts of it.
    """
    with _opened(Source(source, was)) as descriptor, open(to, "xb", buffering=0) as file:
        done = 0
        while done < was.size:
            check()
            try:
                copied = os.copy_file_range(descriptor, file.fileno(), min(was.size - done, COPIED_BYTES), done, done)
            except OSError:  # a kernel or a file system that can't
                copied = os.pwrite(file.fileno(), os.pread(descriptor, min(was.size - done, PIECE_BYTES), done), done)
            if not copied:
                break
            done += copied
        if done != was.size or seen(os.fstat(descriptor)) != was:
            raise Changed(source.name)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[int]:
    """Open a file that is still this version. Raises Changed."""
    try:
        descriptor = os.open(source.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Changed(f"{source.path.name}: {error}") from None
    try:
        if seen(os.fstat(descriptor)) != source.seen:
            raise Changed(source.path.name)
        yield descriptor
    finally:
        os.close(descriptor)
