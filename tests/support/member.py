"""The supervisor's side of stored files: the real client, saver and bringer of one attempt, on a host of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.supervisor.assignment import Assignment
from runner.supervisor.files.bring import Bringer
from runner.supervisor.files.saver import Saver
from runner.supervisor.files.store import Store
from runner.supervisor.notices import Notices


class Member:
    """A supervisor's side of one attempt, on a host of its own."""

    def __init__(self, supervisor: Any, place: Path, address: str) -> None:
        self.supervisor = supervisor
        self.place = place
        (place / "attempts").mkdir(parents=True, exist_ok=True)
        (place / "address").write_text(f"{address}/graphql\n")
        self.assignment = Assignment(
            directory=place / "attempts", attempt_id=supervisor.attempt_id, token=supervisor.token,
            address_file=place / "address", checkpoint_directory=place / "checkpoints",
            output_directory=place / "outputs", work_directory=place / "work", allowed_roots=(),
            give_up_seconds=60.0, spool_memory_bytes=1, spool_limit_bytes=1, save_seconds=60.0,
            newest_file=place / "newest",
        )  # fmt: skip
        self.store = Store(self.assignment, supervisor.nonce)
        self.notices: dict[str, tuple[int, str, str]] = {}
        self.said: list[str] = []

    @property
    def checkpoints(self) -> Path:
        """Its directory, made if need be: a machine that has one has had an attempt."""
        self.assignment.checkpoint_directory.mkdir(exist_ok=True)
        return self.assignment.checkpoint_directory

    async def saves(self, store: Store | None = None, *, until: Callable[[], bool] = lambda: False) -> None:
        """Upload what its directories hold, as at the end of its simulation; until: when that is given up."""
        notices = Notices(lambda kind, count, example, advice: self.notices.update({kind: (count, example, advice)}))
        directories = {"CHECKPOINT": self.checkpoints, "OUTPUT": self.assignment.output_directory}
        saver = Saver(store or self.store, directories, self.place / "saving", notices)
        await asyncio.to_thread(saver.finish, time.monotonic() + 60, until, time.sleep)
        notices.write_out(is_last=True)

    async def brings(
        self,
        number: int,
        *,
        is_abandoned: Callable[[], bool] = lambda: False,
        rank: int = 0,
        is_gang: bool = False,
        is_fork: bool = False,
        store: Store | None = None,
        patience_seconds: float = 60.0,
    ) -> None:
        """Bring the stored files here, as before the start of attempt `number`."""
        directories = {
            "CHECKPOINT": self.assignment.checkpoint_directory,
            "OUTPUT": self.assignment.output_directory,
        }
        bringer = Bringer(
            store or self.store, directories, self.place / "newest", self.place / "bringing", rank=rank,
            is_gang=is_gang, is_fork=is_fork, give_up_at=time.monotonic() + patience_seconds,
            is_abandoned=is_abandoned, say=self.said.append,
        )  # fmt: skip
        await asyncio.to_thread(bringer.bring, number)

    def holds(self) -> dict[str, bytes | str]:
        """The checkpoint directory: contents of files, and where links lead."""
        found: dict[str, bytes | str] = {}
        directory = self.assignment.checkpoint_directory
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if path.is_symlink():
                found[name] = os.readlink(path)
            elif path.is_file():
                found[name] = path.read_bytes()
        return found


class Killed(BaseException):
    """The end of a process: not an error that is tried again."""


class Cut(Store):
    """Its process is killed before one of its requests."""

    left = 0

    def _exchange(self, connection: Any, *given: Any) -> Any:
        if not self.left:
            connection.close()
            raise Killed
        self.left -= 1
        return super()._exchange(connection, *given)
