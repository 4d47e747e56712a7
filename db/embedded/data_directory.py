"""Data directory of an installation, and the lock of the process that uses it.

Its content belongs to other modules: `db.embedded` keeps its server there, the scheduler its host id, supervisors
their spools. Defined here are the errors of the directory's users; each message is a sentence, and what to do next:

    EmbeddedError              the directory, or the server in it, can't be used
    ├── AlreadyRunning         another process holds the lock
    └── EmbeddedUnavailable    there are no binaries to serve it with
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

LOCK_NAME = "lock"


class EmbeddedError(Exception):
    """The data directory, or the embedded server in it, can't be used."""


class EmbeddedUnavailable(EmbeddedError):
    """PostgreSQL's binaries are not installed."""


class AlreadyRunning(EmbeddedError):
    """Another process holds the lock; `url` and `pid` are its own, where it has told them."""

    def __init__(self, data_directory: Path, url: str | None, pid: int | None) -> None:
        where = f" at {url}" if url else ""
        who = f" (pid {pid})" if pid else ""
        super().__init__(
            f"Simulations is already running{where}{who} on this data directory, {data_directory}. "
            "Stop it first, or choose another directory with SIMULATIONS_DATA_DIR."
        )
        self.url = url
        self.pid = pid


def default_data_directory() -> Path:
    """Default data directory: below /var/lib for root, below the XDG data directory for other users."""
    return Path("/var/lib/simulations") if os.geteuid() == 0 else user_data_path("simulations")


def create_data_directory(data_directory: Path) -> None:
    """Create the directory if it is missing, readable by its owner only; existing ones keep their permissions.

    Root's lets others pass, but not look: the server's own user has its directory inside. Raises `EmbeddedError`.
    """
    try:
        data_directory.parent.mkdir(parents=True, exist_ok=True)
        data_directory.mkdir()
    except FileExistsError:
        if data_directory.is_dir():
            return
        raise EmbeddedError(
            f"The data directory {data_directory} is a file. Choose another with SIMULATIONS_DATA_DIR."
        ) from None
    except OSError as error:
        raise unwritable(data_directory, error) from error
    data_directory.chmod(0o711 if os.geteuid() == 0 else 0o700)


@contextmanager
def lock(data_directory: Path, url: str) -> Iterator[None]:
    """Lock the directory while the block runs; `AlreadyRunning` of a second process shows `url` and this pid.

    Raises `AlreadyRunning` at once if another process holds it, `EmbeddedError` if the directory can't be written.
    """
    with locked(data_directory / LOCK_NAME, lambda file: AlreadyRunning(data_directory, *_holder(file))) as file:
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
        except OSError as error:
            raise unwritable(data_directory / LOCK_NAME, error) from error
        yield
        os.ftruncate(file, 0)


@contextmanager
def locked(path: Path, taken: Callable[[int], EmbeddedError]) -> Iterator[int]:
    """Hold a lock file of a data directory, made if it is missing, while the block runs; gives its descriptor.

    The kernel lets go of it when this process ends, by kill -9 too; children don't inherit it. Raises what `taken`
    makes of the descriptor, at once, if another process holds it; `EmbeddedError` if it can't be written.
    """
    create_data_directory(path.parent)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken(file) from None
        yield file
    finally:
        os.close(file)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a data directory. url: where it serves, if it does."""

    pid: int
    url: str | None


def find_holder(data_directory: Path) -> Holder | None:
    """Find the process that holds a directory, without asking for its lock: for a moment that would be taking it."""
    path = data_directory / LOCK_NAME
    try:
        told = json.loads(path.read_text())
        pid, url = int(told["pid"]), str(told["url"])
        inode = path.stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not any("FLOCK" in lock and any(part.endswith(f":{inode}") for part in lock) for lock in locks):
        return None
    return Holder(pid, url if url.startswith("http") else None)


def unwritable(path: Path, error: OSError) -> EmbeddedError:
    """Say in a sentence why something can't be written."""
    return EmbeddedError(
        f"Can't write {path}: {error.strerror or error}. Make room or mend its permissions, "
        "or choose another data directory with SIMULATIONS_DATA_DIR."
    )


def _holder(file: int) -> tuple[str | None, int | None]:
    # It locks first and writes then: for a moment there may be nothing to read.
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            told = json.loads(os.pread(file, 65_536, 0))
            return str(told["url"]), int(told["pid"])
        except (ValueError, KeyError, TypeError):
            time.sleep(0.01)
    return None, None
