"""Kept directories of one attempt, as its main loop uses them. The rest of the package is loaded when it is needed,
unless the launcher has loaded it: a short simulation without files needs none of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from runner.supervisor.assignment import Assignment, Order
from runner.supervisor.child import Refused
from runner.supervisor.notices import Notices

if TYPE_CHECKING:
    from runner.supervisor.files.package import Unpacked
    from runner.supervisor.files.saver import Saver

PLACE = "files"  # of the attempt's directory: what is on its way


class Abandoned(Exception):
    """The attempt is to end before its files are here."""


class Files:
    """Upload of one attempt's files."""

    def __init__(self, assignment: Assignment, nonce: str, notices: Notices) -> None:
        self._assignment = assignment
        self._nonce = nonce
        self._notices = notices
        self._saver: Saver | None = None

    def begin(self) -> None:
        """Begin to upload what is new and complete, once."""
        if self._saver is None and self._assignment.save_seconds > 0:
            self._saver = self._make()
            self._saver.begin()

    def finish(self, deadline: float, is_abandoned: Callable[[], bool], wait: Callable[[float], None]) -> None:
        """Upload what the directories hold after the end: for `save_seconds`, not after `deadline` (monotonic)."""
        if self._assignment.save_seconds <= 0:
            return
        if self._saver is None:
            if not any(map(_holds_something, directories_of(self._assignment).values())):
                return
            self._saver = self._make()
        until = min(deadline, time.monotonic() + self._assignment.save_seconds)
        self._saver.finish(until, is_abandoned, wait)

    def _make(self) -> Saver:
        from runner.supervisor.files.saver import Saver
        from runner.supervisor.files.store import Store

        store = Store(self._assignment, self._nonce)
        place = self._assignment.directory / PLACE / "saving"
        return Saver(store, directories_of(self._assignment), place, self._notices)


def bring(
    assignment: Assignment,
    order: Order,
    nonce: str,
    *,
    begin: Callable[[], None],
    is_abandoned: Callable[[], bool],
    say: Callable[[str], None],
) -> bool:
    """Bring the stored files of earlier attempts to this machine, if they are newer; return whether there may be any.

    begin: called first, for it may take long. Raises `runner.supervisor.child.Refused` and Abandoned.
    """
    number = order.environment.get("SIMULATION_ATTEMPT", "")
    is_fork = assignment.begins_from_store
    if assignment.save_seconds <= 0 or assignment.newest_file is None or not number.isdecimal():
        if is_fork:
            raise Refused("It is to begin with a stored checkpoint, and this installation stores no files any more.")
        return False
    if int(number) < 2 and not is_fork:
        return False
    begin()
    from runner.supervisor.files.bring import Bringer
    from runner.supervisor.files.store import Store

    bringer = Bringer(
        Store(assignment, nonce), directories_of(assignment), assignment.newest_file,
        assignment.directory / PLACE / "bringing", rank=order.rank, is_gang=order.world_size > 1, is_fork=is_fork,
        give_up_at=time.monotonic() + assignment.give_up_seconds, is_abandoned=is_abandoned, say=say,
    )  # fmt: skip
    bringer.bring(int(number))
    return True


def unpack(
    assignment: Assignment,
    nonce: str,
    *,
    begin: Callable[[], None],
    is_abandoned: Callable[[], bool],
    say: Callable[[str], None],
) -> Unpacked | None:
    """Bring the package that the simulation starts in, and unpack it into the working directory; None without one.

    begin: called first, for it may take long. Raises `runner.supervisor.child.Refused` and Abandoned.
    """
    if assignment.package is None or assignment.packages_directory is None:
        return None
    begin()
    from runner.supervisor.files.package import Package
    from runner.supervisor.files.store import Store

    package = Package(
        Store(assignment, nonce), assignment.package, assignment.packages_directory,
        give_up_at=time.monotonic() + assignment.give_up_seconds, is_abandoned=is_abandoned, say=say,
    )  # fmt: skip
    return package.bring(assignment.work_directory)


def directories_of(assignment: Assignment) -> Mapping[str, Path]:
    """The kept directories by the kind of their files."""
    return {"CHECKPOINT": assignment.checkpoint_directory, "OUTPUT": assignment.output_directory}


def _holds_something(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
