"""An intake into a spool that nothing empties, to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.supervisor.curve import Curve
from runner.supervisor.notices import Notices
from runner.supervisor.sources.intake import Intake
from runner.supervisor.spool import Spool, first_above


class Taken:
    """An intake, and what has arrived in the spool's file: what outlives a kill -9."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = Spool(directory, 4 << 20, 64 << 20)
        self.notices = Notices(self.spool.add_notice)
        self.curve = Curve(self.notices)
        self.intake = Intake(self.curve, self.spool, self.notices)

    def points(self, metric: str) -> list[tuple[int, float | str]]:
        found = first_above(self.directory, 0)
        steps, values, _ = found[1].points.get(metric, ([], [], [])) if found is not None else ([], [], [])
        return list(zip(steps, values, strict=True))

    @property
    def metrics(self) -> set[str]:
        found = first_above(self.directory, 0)
        return set(found[1].points) if found is not None else set()

    @property
    def counts(self) -> dict[str, int]:
        """The notices, and how often each was counted."""
        self.notices.write_out(is_last=True)
        self.spool.write_out()
        found = first_above(self.directory, 0)
        return {kind: count for kind, (count, _, _) in found[1].notices.items()} if found is not None else {}


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path)
