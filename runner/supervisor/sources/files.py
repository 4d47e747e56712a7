"""Files that trackers write: find them below the working and output directories, tail them, and name their metrics.

A thread reads the known files every half second and looks for new ones every second, or less often where that takes
long: `*tfevents*` (TensorBoard) and `*.wandb` (W&B). Files made before the attempt began are of an earlier attempt and
are skipped, and so are files that another program writes at the same time: several simulations may share a working
directory.

A metric is named by the directory relative to the logging directory, and the tag: `train/epoch_loss`. The logging
directory is the shallowest one that holds a file; a directory named like a split (train, validation) is below it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from runner.supervisor.complaints import complain
from runner.supervisor.notices import TOO_MANY_FILES
from runner.supervisor.sources import wandb
from runner.supervisor.sources.events import Events, Garbled
from runner.supervisor.sources.intake import Intake, Point
from runner.supervisor.sources.wandb_file import WandbFile

POLL_SECONDS = 0.5
WALK_SECONDS = 1.0
WALK_PAUSE = 500  # times as long as the last walk took: it costs 0.2 % of a core at most
LONGEST_WALK_SECONDS = 60.0
CLOSE_SECONDS = 10.0  # for the last read, on a slow file system
MAX_DEPTH = 5
MAX_FILES = 50
MAX_ENTRIES = 10_000  # looked at in one walk: the working directory may be a home directory
READ_BYTES = 1 << 20
CLOCK_SECONDS = 0.05  # the file system's clock lags by a tick of the kernel
SKIPPED = frozenset({"mlruns", "node_modules", "__pycache__", "site-packages", "venv", "env"})
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "eval", "evaluation", "dev"})
EVENT_FILE = re.compile(r"tfevents\.(?P<time>\d+)\..+?(?:\.(?P<pid>\d+)\.\d+(?:\.v2)?)?$")
NUMBER = re.compile(r"\d+(\.\d+)?")  # the name of a directory of hyperparameters: a time

TENSORBOARD = "TensorBoard"


class Files:
    """Finds and tails files, in a thread from `start` on. `close` reads them once more."""

    def __init__(self, intake: Intake, roots: Iterable[Path], begun_at: float, reads_online_runs: bool) -> None:
        """begun_at: time.time() before the child's start. reads_online_runs: W&B's online runs are the user's own."""
        self._intake = intake
        self._roots = list(dict.fromkeys(roots))
        self._begun_at = begun_at - CLOCK_SECONDS
        self._reads_online_runs = reads_online_runs
        self._tails: dict[str, Tail] = {}  # by path; a skipped file has one that is over
        self._names = Names()
        self._runs = wandb.Prefixes()
        self._walk_at = 0.0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look. Raises RuntimeError where no thread can be made."""
        thread = threading.Thread(target=self._run, name="files", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            self.run_once()

    def run_once(self) -> None:
        """Look for new files if it is time, and read what the known ones have got."""
        try:
            now = time.monotonic()
            if now >= self._walk_at:
                self._find()
                took = time.monotonic() - now
                self._walk_at = now + min(max(WALK_SECONDS, WALK_PAUSE * took), LONGEST_WALK_SECONDS)
            for tail in self._tails.values():
                tail.read(self._intake, is_last=self._closing.is_set())
        except Exception as error:  # noqa: BLE001  # a defect here must not end a simulation
            complain(f"files: {type(error).__name__}: {error}")

    def close(self) -> None:
        """End the thread, if it runs, and read everything that there is."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                complain("files: the file system does not answer")
                return
        self._walk_at = 0.0
        self.run_once()

    def _find(self) -> None:
        found: list[str] = []
        for root in self._roots:
            found += walk(root)
        # The shallowest directory first: the names of all others are relative to it.
        for path in sorted(found, key=lambda path: (path.count("/"), path)):
            if path not in self._tails:
                if len(self._tails) >= MAX_FILES:
                    self._intake.notices.count(TOO_MANY_FILES, path)
                    return
                tail = self._tail(path)
                if tail is not None:
                    self._tails[path] = tail

    def _tail(self, path: str) -> Tail | None:
        try:
            status = os.stat(path)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or made_at(path, status) < self._begun_at or is_foreign(path, status):
            return None
        directory = Path(path).parent
        if path.endswith(".wandb"):
            if not (self._reads_online_runs or directory.name.startswith("offline-run-")):
                return None
            return WandbTail(path, self._runs)
        return EventTail(path, self._names.prefix(directory), directory)


class Tail(ABC):
    """One file, read from its start as it grows. Never goes back: a network file system may show it shorter."""

    source: str

    def __init__(self, path: str) -> None:
        self.path = path
        self._offset = 0
        self._is_over = False

    def read(self, intake: Intake, *, is_last: bool) -> None:
        """Read what was appended; unless it is the last time, not while the spool is full."""
        while not self._is_over and (is_last or not intake.is_full):
            try:
                if os.stat(self.path).st_size <= self._offset:
                    return
                with open(self.path, "rb") as file:
                    file.seek(self._offset)
                    data = file.read(READ_BYTES)
            except OSError:  # it was removed, or is out of reach for a moment
                return
            if not data:
                return
            self._offset += len(data)
            try:
                intake.add(self.source, self.points(data))
                intake.describe(*self.facts())
            except Garbled as error:
                self._is_over = True
                complain(f"{self.path} is not read on: {error}")

    @abstractmethod
    def points(self, data: bytes) -> Iterable[Point]:
        """Decode appended bytes. Raises Garbled."""

    def facts(self) -> tuple[Mapping[str, object], Sequence[str]]:
        """Parameters and tags that the file holds so far."""
        return {}, ()


class EventTail(Tail):
    """An event file of TensorBoard."""

    source = TENSORBOARD

    def __init__(self, path: str, prefix: str, directory: Path) -> None:
        super().__init__(path)
        self._events = Events()
        self._prefix = prefix
        self._may_be_hparams = NUMBER.fullmatch(directory.name) is not None

    def points(self, data: bytes) -> Iterator[Point]:
        for scalar in self._events.feed(data):
            if self._may_be_hparams and self._events.is_hparams:
                return  # a copy of the last values, beside the hyperparameters
            yield Point(self._prefix + scalar.tag, scalar.step, scalar.value, scalar.wall_time)


class WandbTail(Tail):
    """A file of a W&B run; the first run of a program is the simulation."""

    source = wandb.SOURCE

    def __init__(self, path: str, runs: wandb.Prefixes) -> None:
        super().__init__(path)
        self._file = WandbFile()
        self._runs = runs
        self._prefix: str | None = None

    def points(self, data: bytes) -> Iterator[Point]:
        rows = self._file.feed(data)
        run = self._file.run
        if self._prefix is None and run:  # the first record
            self._prefix = self._runs.of(run, self._file.name or run)
        for step, values in rows:
            yield from wandb.points(step, values, self._prefix or "")

    def facts(self) -> tuple[Mapping[str, object], Sequence[str]]:
        if self._prefix:
            return {}, ()
        config = {name: value for name, value in self._file.config.items() if not name.startswith("_")}
        return config, self._file.tags


class Names:
    """Prefixes of metrics, by directory."""

    def __init__(self) -> None:
        self._bases: dict[Path, str] = {}  # logging directories, and the prefix of each

    def prefix(self, directory: Path) -> str:
        """Return the prefix of a directory's metrics: empty for the first logging directory."""
        for base, label in self._bases.items():
            if directory == base or base in directory.parents:
                parts = directory.relative_to(base).parts
                return label + "".join(f"{part}/" for part in parts)
        base = directory.parent if directory.name.lower() in SPLITS else directory
        label = ""
        if self._bases:  # another logging directory, beside the first
            names = set(self._bases.values())
            label = next(
                name
                for name in (f"{base.name}{'' if n == 1 else f'-{n}'}/" for n in range(1, MAX_FILES + 2))
                if name not in names
            )
        self._bases[base] = label
        return self.prefix(directory)


def walk(root: Path) -> list[str]:
    """Find event files below a directory. Links are not followed; the search is bounded in depth and entries."""
    found: list[str] = []
    left = MAX_ENTRIES
    level = [str(root)]
    for _ in range(MAX_DEPTH + 1):
        below: list[str] = []
        for directory in level:
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return found
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith(".") and entry.name not in SKIPPED and not _is_venv(entry.path):
                            below.append(entry.path)
                    elif ("tfevents" in entry.name or entry.name.endswith(".wandb")) and entry.is_file(
                        follow_symlinks=False
                    ):
                        found.append(entry.path)
        level = below
    return found


def _is_venv(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, "pyvenv.cfg"))


def made_at(path: str, status: os.stat_result) -> float:
    """The latest time at which a file can have been made: by its name (whole seconds), else its last change."""
    match = EVENT_FILE.search(path)
    return min(status.st_mtime, int(match["time"]) + 1) if match is not None else status.st_mtime


def is_foreign(path: str, status: os.stat_result) -> bool:
    """Whether another program writes a file: none that descends from this supervisor.

    The writer is the process in the file's name, if it is alive, or those that hold the file open. A file without a
    writer is this attempt's: it was made since the attempt began.
    """
    match = EVENT_FILE.search(path)
    named = match["pid"] if match is not None else None
    writers = [int(named)] if named is not None and _is_alive(named, status) else _holders(status)
    return bool(writers) and not any(_is_descendant(pid) for pid in writers)


def _is_alive(pid: str, status: os.stat_result) -> bool:
    """Whether a user's process has this pid. The name may stem from a container, where it means another process."""
    try:
        process = Path("/proc", pid)
        return process.stat().st_uid == status.st_uid and bool((process / "cmdline").read_bytes())
    except OSError:
        return False


def _holders(status: os.stat_result) -> list[int]:
    """The processes of this user that hold a file open."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                for descriptor in os.listdir(f"/proc/{name}/fd"):
                    held = os.stat(f"/proc/{name}/fd/{descriptor}")
                    if (held.st_dev, held.st_ino) == (status.st_dev, status.st_ino):
                        found.append(int(name))
                        break
    return found


def _is_descendant(pid: int) -> bool:
    """Whether a process descends from this one, which adopts orphans."""
    me = os.getpid()
    with contextlib.suppress(OSError, ValueError):
        while pid > 1:
            if pid == me:
                return True
            text = Path("/proc", str(pid), "stat").read_bytes()
            pid = int(text[text.rindex(b")") + 2 :].split()[1])
    return False
