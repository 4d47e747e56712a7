"""The id of this host: random, made once, kept in its data directory. What was assigned to a host finds it again.

Two schedulers on one data directory would launch everything twice, so the second is refused while the first lives.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db.data_directory import EmbeddedError, create_data_directory, unwritable

ID_NAME = "host-id"
LOCK_NAME = "scheduler.lock"


class HostTaken(EmbeddedError):
    """Another scheduler runs on this data directory."""


@contextmanager
def this_host(data_directory: Path) -> Iterator[str]:
    """Be this host's only scheduler while the block runs; gives the host's id.

    The kernel lets go of it when this process ends, by kill -9 too; supervisors don't inherit it.
    Raises `HostTaken`, and `EmbeddedError` if the directory can't be written.
    """
    create_data_directory(data_directory)
    path = data_directory / LOCK_NAME
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostTaken(
                f"Another scheduler runs on this data directory, {data_directory}. Stop it first, or choose another "
                "directory with SIMULATIONS_DATA_DIR."
            ) from None
        yield _read_or_create(data_directory / ID_NAME)
    finally:
        os.close(file)


def _read_or_create(path: Path) -> str:
    with suppress(FileNotFoundError):
        if kept := path.read_text().strip():
            return kept
    # Written whole or not at all: a half-written id would be another host's. The caller's lock keeps others away.
    unfinished = path.with_name(f"{path.name}.unfinished")
    created = secrets.token_hex(16)
    try:
        with unfinished.open("w") as file:
            file.write(f"{created}\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    return created
