"""Where output waits during an outage: in memory, in files, and in the pipe of the simulation."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Until = Callable[[Callable[[], object]], None]


def _unreachable(service: Any) -> Callable[[], None]:
    service.misbehave = lambda name, _: (503, b"later") if name == "reportAttempt" else None

    def heal() -> None:
        service.misbehave = lambda *_: None

    return heal


LINES = 300_000  # far more than a pipe holds
PRINT_MUCH = f"""
import os
for first in range(0, {LINES}, 1000):
    os.write(1, b"".join(b'{{"a": %d}}\\n' % i for i in range(first, first + 1000)))
open("printed", "w").close()
"""


def _sees_all(service: Any) -> bool:
    return [step for step, _ in service.points("a")] == list(range(LINES))


def test_an_outage_is_spooled_to_files_and_delivered_in_order(service: Any, supervise: Any, until: Until) -> None:
    heal = _unreachable(service)
    started = supervise(PRINT_MUCH, config={"spool_memory_bytes": 1_000_000})
    until((started.directory / "work" / "printed").exists)
    until(lambda: len(list((started.directory / "spool").glob("*.json"))) >= 3)
    heal()
    assert started.wait() == 0
    assert _sees_all(service)
    assert not (started.directory / "spool").exists()


@pytest.mark.parametrize("failure", ["no directory", "no room"])
def test_with_the_disk_full_the_simulation_waits_and_nothing_is_lost(
    service: Any, supervise: Any, until: Until, tmp_path: Path, failure: str
) -> None:
    heal = _unreachable(service)
    if failure == "no directory":
        (tmp_path / "attempt").mkdir()
        (tmp_path / "attempt" / "spool").write_text("a file where the directory should be")
    started = supervise(PRINT_MUCH, config={"spool_memory_bytes": 100_000, "spool_limit_bytes": 1_000_000})
    if failure == "no room":
        resource.prlimit(started.process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    until(lambda: "the simulation waits" in started.complaints)
    assert not (started.directory / "work" / "printed").exists()
    heal()
    assert started.wait() == 0
    assert _sees_all(service)
    assert service.exit["exitCode"] == 0
