"""What a line means, without any process."""

from __future__ import annotations

import json

import pytest

from runner.supervisor.curve import MAX_METRIC_NAME, MAX_METRICS, MAX_STEP
from runner.supervisor.curve import Curve as Points
from runner.supervisor.notices import Notices
from runner.supervisor.readers.patterns import Patterns
from runner.supervisor.readers.stream import JSON, Stream


class Curve:
    """A curve with the reader of JSON in front of it."""

    def __init__(self) -> None:
        notices = Notices(lambda *_: None)
        self._found: list[tuple[int, list[tuple[str, float | str]]]] = []
        self._stream = Stream(
            "STDOUT", JSON, Points(notices), notices, Patterns((), notices),
            lambda step, _, points: self._found.append((step, list(points))), lambda *_: None,
        )  # fmt: skip

    def read(self, line: bytes) -> tuple[int, list[tuple[str, float | str]], bool]:
        """The step, the points, and whether the line was nothing but points."""
        self._found.clear()
        is_used_up = self._stream.read(line, 0.0)
        step, points = self._found[0] if self._found else (0, [])
        return step, points, is_used_up


def test_a_line_with_no_step_means_the_next_integer() -> None:
    curve = Curve()
    steps = [curve.read(line)[0] for line in (b'{"a": 1}', b'{"a": 1}', b'{"a": 1, "step": 10}', b'{"a": 1}')]
    assert steps == [0, 1, 10, 11]


@pytest.mark.parametrize("step", [b"5", b"5.0", b"5e0", str(MAX_STEP).encode(), b"4294967296"])
def test_whole_numbers_are_steps_however_they_are_written(step: bytes) -> None:
    read, points, is_used_up = Curve().read(b'{"step": %s, "loss": 0.5}' % step)
    assert (read, points, is_used_up) == (int(float(step)), [("loss", 0.5)], True)


@pytest.mark.parametrize(
    "step",
    [b"-1", b"1.5", b"true", b"null", b'"3.5"', b'"x"', b"[1]", b"NaN", b"Infinity", b"9007199254740993", b"1e300"],
)
def test_a_line_with_another_step_is_log(step: bytes) -> None:
    assert Curve().read(b'{"step": %s, "loss": 0.5}' % step)[1:] == ([], False)


def test_values_that_are_not_finite_travel_as_words() -> None:
    points = Curve().read(b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999, "e": 7}')[1]
    assert points == [("a", "NaN"), ("b", "Infinity"), ("c", "-Infinity"), ("d", "Infinity"), ("e", 7.0)]


@pytest.mark.parametrize(
    "value", [b"true", b"null", b'"0.5"', b"[1]", b'{"deep": [1]}', b"1" + b"0" * 400, b"[" * 500 + b"]" * 500]
)
def test_what_is_no_number_is_log_and_leaves_the_other_points_alone(value: bytes) -> None:
    assert Curve().read(b'{"loss": 0.5, "odd": %s}' % value)[1:] == ([("loss", 0.5)], False)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"step": 3}',
        b"{'loss': 1}",
        b'{"loss": 1} and more',
        b'{"loss": 1',
        b'{"loss": \xff}',
        b'{"loss": ' + b"[" * 100_000,
        b'{"loss": ' + b"1" * 5_000 + b"}",
    ],
)
def test_what_is_no_object_with_numbers_is_log(line: bytes) -> None:
    assert Curve().read(line)[1:] == ([], False)


def test_a_step_that_does_not_rise_is_log_for_that_metric_alone() -> None:
    curve = Curve()
    curve.read(b'{"step": 5, "loss": 1}')
    assert curve.read(b'{"step": 5, "loss": 1}')[1:] == ([], False)
    assert curve.read(b'{"step": 4, "loss": 1, "other": 2}')[1:] == ([("other", 2.0)], False)
    assert curve.read(b'{"step": 6, "loss": 1}')[1:] == ([("loss", 1.0)], True)


@pytest.mark.parametrize("name", ["", "x" * (MAX_METRIC_NAME + 1), "nul\0", "\ud800", "x" * 900_000])
def test_a_name_that_can_not_be_stored_is_log(name: str) -> None:
    assert Curve().read(json.dumps({name: 1, "loss": 2}).encode())[1:] == ([("loss", 2.0)], False)


def test_a_name_is_without_what_changes_the_direction_of_text() -> None:
    curve = Curve()
    assert curve.read('{"step": 1, "lo\u202ess\u2069": 2}'.encode())[1:] == ([("loss", 2.0)], True)
    assert curve.read(b'{"step": 1, "loss": 3}')[1:] == ([], False)
    assert curve.read('{"step": 2, "\u202e": 1, "Verlust ü": 1}'.encode())[1:] == ([("Verlust ü", 1.0)], False)


def test_the_metrics_of_an_attempt_are_counted() -> None:
    curve = Curve()
    taken = curve.read(json.dumps({f"m{number}": number for number in range(MAX_METRICS + 5)}).encode())[1]
    assert len(taken) == MAX_METRICS
    assert curve.read(b'{"one more": 1}')[1:] == ([], False)
    assert curve.read(b'{"m0": 1}')[1:] == ([("m0", 1.0)], True)
