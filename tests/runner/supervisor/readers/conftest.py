"""What the readers of one stream make of a text, without any process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from runner.supervisor import terminal
from runner.supervisor.curve import Curve
from runner.supervisor.notices import Notices
from runner.supervisor.readers.patterns import Patterns
from runner.supervisor.readers.stream import Stream

Points = list[tuple[int, float | str]]


@dataclass
class Read:
    """The points by metric, the lines left for the log, the supervisor's own, and the notices by kind."""

    points: dict[str, Points] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    supervisor: list[str] = field(default_factory=list)
    notices: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    looked_at: int = 0


Reading = Callable[..., Read]


def read(text: str | bytes, *, name: str = "STDOUT", mode: str = "AUTO", patterns: Sequence[str] = ()) -> Read:
    """Read a whole text."""
    result = Read()

    def add(step: int, _: float, points: Sequence[tuple[str, float | str]]) -> None:
        for metric, value in points:
            result.points.setdefault(metric, []).append((step, value))

    notices = Notices(lambda kind, count, example, advice: result.notices.update({kind: (count, example, advice)}))
    asked = Patterns(patterns, notices)
    stream = Stream(name, mode, Curve(notices), notices, asked, add, lambda _, line: result.supervisor.append(line))
    block = terminal.clean(terminal.drawn(text.encode() if isinstance(text, str) else text))
    position = at = 0
    while not stream.is_deaf and (line := stream.next_line(block, at)) is not None:
        begin, at = line
        result.looked_at += 1
        if stream.read(block[begin:at], 0.0):
            result.log += terminal.plain(block[position:begin]).decode().splitlines()
            position = at
    result.log += terminal.plain(block[position:]).decode("utf-8", "replace").splitlines()
    stream.tick(0.0, is_last=True)
    asked.note_unmatched()
    notices.write_out(is_last=True)
    return result


@pytest.fixture(name="read")
def _read() -> Reading:
    return read
