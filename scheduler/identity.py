"""Host id: random, created once, kept in the data directory, so a restarted scheduler finds its attempts again.

Two schedulers on one data directory would launch everything twice, so the second is refused while the first lives.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db.embedded.data_directory import EmbeddedError, locked, unwritable

ID_NAME = "host-id"
LOCK_NAME = "scheduler.lock"


class HostTaken(EmbeddedError):
    """Another scheduler runs on this data directory."""

    def __init__(self, data_directory: Path) -> None:
        super().__init__(
            f"Another scheduler runs on this data directory, {data_directory}. Stop it first, or choose another "
            "directory with SIMULATIONS_DATA_DIR."
        )


@contextmanager
def this_host(data_directory: Path) -> Iterator[str]:
    """Hold the lock of this host's only scheduler while the block runs; yields the host's id.

    Raises `HostTaken`, and `EmbeddedError` if the directory can't be written.
    """
    with locked(data_directory / LOCK_NAME, lambda _: HostTaken(data_directory)):
        yield _read_or_create(data_directory / ID_NAME)


def _read_or_create(path: Path) -> str:
    with suppress(FileNotFoundError):
        if kept := path.read_text().strip():
            return kept
    # Written atomically: a half-written id would be another host's. The caller's lock excludes other writers.
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
