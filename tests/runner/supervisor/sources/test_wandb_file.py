"""W&B's files: a LevelDB log, in pieces of any length."""

from __future__ import annotations

import pytest
from messages import field, history, leveldb

from runner.supervisor.sources.events import Garbled
from runner.supervisor.sources.wandb_file import WandbFile

CONFIG = field(1, field(1, "lr") + field(16, "0.1"))
HEADER = field(1, 1) + field(17, field(1, "run") + field(4, CONFIG) + field(10, "baseline"))


def test_history_and_config_are_read() -> None:
    file = WandbFile()
    rows = file.feed(
        leveldb(
            [
                HEADER,
                history(3, [("loss", "0.5"), (["deep", "er"], "1"), ("_step", "3"), ("bad", "NaN")]),
                field(1, 9) + field(5, field(1, field(1, "batch") + field(16, "32"))),
                history(4, [("loss", "0.25")]),
            ]
        )
    )
    assert [(step, dict(values)) for step, values in rows] == [
        (3, {"loss": 0.5, "deep.er": 1, "_step": 3, "bad": pytest.approx(float("nan"), nan_ok=True)}),
        (4, {"loss": 0.25}),
    ]
    assert (file.config, file.tags) == ({"lr": 0.1, "batch": 32}, ["baseline"])


@pytest.mark.parametrize("piece", [1, 7, 1000, 32 << 10, 1 << 20])
def test_records_may_lie_over_blocks_and_come_in_pieces(piece: int) -> None:
    records = [history(step, [("loss", str(step)), ("note", f'"{"x" * (step * 37 % 9000)}"')]) for step in range(60)]
    records.append(history(60, [("loss", "60"), ("long", f'"{"y" * 100_000}"')]))
    content, file = leveldb(records), WandbFile()
    assert len(content) > 5 * (32 << 10)
    if piece == 1:
        content = content[: 40 << 10]
    rows = [row for at in range(0, len(content), piece) for row in file.feed(content[at : at + piece])]
    steps = [step for step, _ in rows]
    assert steps == list(range(len(steps)))
    assert len(steps) == 61 or (piece == 1 and len(steps) > 5)


def test_what_is_not_written_yet_is_waited_for() -> None:
    content, file = leveldb([history(0, [("loss", "1")])]), WandbFile()
    assert len(file.feed(content)) == 1
    assert file.feed(b"\0" * 7) == []


@pytest.mark.parametrize(
    "content",
    [b"SQLite format 3", leveldb([])[:6] + b"\x01", leveldb([]) + b"\0" * 6 + b"\x09", leveldb([b"\xff" * 20])],
)
def test_garbage_ends_the_file(content: bytes) -> None:
    with pytest.raises(Garbled):
        WandbFile().feed(content)
