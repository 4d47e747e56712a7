"""The way of a source's points into the curve and the spool."""

from __future__ import annotations

import time
from typing import Any

import pytest

from runner.supervisor.curve import MAX_METRICS, MAX_STEP, Reading
from runner.supervisor.sources.intake import Closed, Point
from runner.supervisor.spool import first_above, read_batch


def test_points_are_on_disk_when_the_call_returns(taken: Any) -> None:
    taken.intake.add("MLflow", [Point("loss", 3, 0.5), Point("loss", 4, float("nan"))])
    assert taken.points("loss") == [(3, 0.5), (4, "NaN")]


def test_a_name_is_without_what_changes_the_direction_of_text(taken: Any) -> None:
    taken.intake.add("MLflow", [Point("lo\u202ess", 3, 0.5), Point("loss", 4, 0.4)])
    assert taken.points("loss") == [(3, 0.5), (4, 0.4)]


@pytest.mark.parametrize("step", [-1, 3, 2, 2**53 + 1])
def test_a_step_that_does_not_rise_is_a_notice(taken: Any, step: int) -> None:
    taken.intake.add("MLflow", [Point("loss", 3, 0.5), Point("loss", step, 1.0), Point("loss", step, 2.0)])
    assert taken.points("loss") == [(3, 0.5)]
    assert taken.counts == {"NOT_RISING" if 0 <= step <= MAX_STEP else "STEP_UNUSABLE": 2}


def test_the_source_that_first_gives_a_metric_keeps_it(taken: Any) -> None:
    taken.curve.take(Reading(1, [("printed", 1.0)]), "a line")
    taken.intake.add("TensorBoard", [Point("recorded", 1, 1.0), Point("printed", 2, 2.0), Point("printed", 3, 2.0)])
    printed = taken.curve.take(Reading(2, [("printed", 2.0), ("recorded", 9.0)]), "a line")
    assert printed == (2, [("printed", 2.0)])
    taken.intake.add("MLflow", [Point("recorded", 5, 5.0)])
    taken.intake.add("TensorBoard", [Point("recorded", 2, 2.0)])
    assert taken.points("recorded") == [(1, 1.0), (2, 2.0)]
    assert taken.counts == {"OTHER_SOURCE": 4}


def test_all_sources_share_the_limit_of_metrics(taken: Any) -> None:
    for number in range(MAX_METRICS // 2):
        taken.curve.take(Reading(None, [(f"printed {number}", 1.0)]), "a line")
    taken.intake.add("MLflow", [Point(f"recorded {number}", 1, 1.0) for number in range(MAX_METRICS)])
    assert len(taken.metrics) == MAX_METRICS // 2


def test_a_point_of_a_file_keeps_its_time_within_the_attempt(taken: Any) -> None:
    now = time.time()
    times = (0.0, now - 100, now + 100, float("nan"))
    taken.intake.add("TensorBoard", [Point("loss", step, 1.0, at) for step, at in enumerate(times)])
    elapsed = first_above(taken.directory, 0)[1].points["loss"][2]  # type: ignore[index]  # there is one
    assert elapsed[:2] == [0.0, 0.0]
    assert elapsed[2] == elapsed[3] >= 0


def test_after_the_end_nothing_is_taken(taken: Any) -> None:
    taken.intake.close()
    with pytest.raises(Closed):
        taken.intake.add("MLflow", [Point("loss", 1, 1.0)])
    assert not taken.metrics


def test_parameters_and_tags_are_on_disk_once(taken: Any) -> None:
    given = {"lr": "0.1", "depth": "3", "net": "small", "flag": True, "list": [1, 2], "zeros": "007", "big": 16**2_000}
    for _ in range(2):
        taken.intake.describe(given, ["a=b", "nul\0"])
    taken.intake.describe({"net": "large", "": 1, "long": "x" * 5_000})
    batch = first_above(taken.directory, 0)[1]  # type: ignore[index]  # there is one
    assert {name: value for name, value in batch.parameters.items() if name not in ("big", "long")} == {
        "lr": 0.1, "depth": 3, "net": "large", "flag": True, "list": "[1, 2]", "zeros": "007",
    }  # fmt: skip
    assert {name: len(str(batch.parameters[name])) for name in ("big", "long")} == {"big": 1_000, "long": 1_000}
    assert list(batch.tags) == ["a=b", "nul\ufffd"]
    file = (taken.directory / "000000001.jsonl").read_text()
    assert file.count('"lr"') == file.count("a=b") == 1


def test_whole_numbers_beyond_64_bits_are_recorded_as_their_digits(taken: Any) -> None:
    given = {"most": 2**64 - 1, "more": 2**64, "text": str(2**64 + 1), "less": -(2**63) - 1, "nan": float("nan")}
    taken.intake.describe(given)
    batch = first_above(taken.directory, 0)[1]  # type: ignore[index]  # there is one
    assert batch.parameters == {
        "most": 18446744073709551615, "more": "18446744073709551616", "text": "18446744073709551617",
        "less": "-9223372036854775809", "nan": "nan",
    }  # fmt: skip


def test_parameters_and_tags_are_limited(taken: Any) -> None:
    names = [f"p{number}" for number in range(1_500)]
    taken.intake.describe(dict.fromkeys(names, 1), [f"t{number}" for number in range(100)])
    batches = [read_batch(file) for file in sorted(taken.directory.glob("*.jsonl"))]
    assert [name for batch in batches for name in batch.parameters] == names[:1_000]
    assert len([tag for batch in batches for tag in batch.tags]) == 50


def test_a_full_spool_is_waited_for(taken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([True, True, False])
    monkeypatch.setattr(type(taken.spool), "is_full", property(lambda _: next(looks)))
    taken.intake.wait_for_room()
    assert list(looks) == []
