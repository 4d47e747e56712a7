"""The lock on a host's files of a simulation. What is brought is tried with a service, in graph/http."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.supervisor.child import Refused as NotStarted
from runner.supervisor.files import fetch
from runner.supervisor.files.bring import Bringer

PATIENCE_SECONDS = 100.0


class Clock:
    """The time of the fetch: a pause is as long as it says, at once; then `after` is called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.after: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.after()


class Nothing:
    """A store without lists."""

    def kept(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fetch, "time", clock)
    return clock


def bringer(place: Path) -> Bringer:
    return Bringer(
        Nothing(), {"CHECKPOINT": place / "checkpoints"}, place / "newest", place / "bringing", rank=0, is_gang=False,  # type: ignore[arg-type]  # a store's part
        give_up_at=PATIENCE_SECONDS, is_abandoned=lambda: False, say=lambda _: None,
    )  # fmt: skip


def test_a_lock_that_is_held_without_a_sign_of_life_ends_the_wait_with_a_sentence(tmp_path: Path, clock: Clock) -> None:
    with (tmp_path / "newest").open("w+b") as hostile:
        fcntl.flock(hostile, fcntl.LOCK_EX)
        with pytest.raises(NotStarted, match="another process has locked them here, and done nothing for 100 seconds"):
            bringer(tmp_path).bring(2)
    assert PATIENCE_SECONDS < clock.now < PATIENCE_SECONDS + 1


def test_a_lock_is_waited_for_as_long_as_its_holder_gets_on(tmp_path: Path, clock: Clock) -> None:
    with (tmp_path / "newest").open("w+b") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        def gets_on() -> None:
            if clock.now < 5 * PATIENCE_SECONDS:
                first.write(b" ")
                first.flush()
            else:
                fcntl.flock(first, fcntl.LOCK_UN)

        clock.after = gets_on
        bringer(tmp_path).bring(2)
    assert clock.now > 5 * PATIENCE_SECONDS
    assert (tmp_path / "newest").read_bytes().split()[0] == b"2"
