"""What a line means, without any process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import supervisor
from runner.supervisor import (
    MAX_LOGGED_LINE,
    MAX_METRIC_NAME,
    MAX_METRICS,
    MAX_PARSED_LINE,
    MAX_STEP,
    Curve,
    Lines,
    Log,
    Spool,
)


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_lines_come_out_as_they_went_in_however_they_were_cut(text: bytes, sizes: list[int]) -> None:
    lines, out, position = Lines(), b"", 0
    while position < len(text):
        size = sizes[position % len(sizes)]
        block = lines.feed(text[position : position + size])
        assert not block or block.endswith(b"\n")
        out += block
        position += size
    assert out + lines.rest() == text


def test_a_line_over_the_limit_keeps_its_beginning_and_can_not_be_parsed() -> None:
    lines = Lines()
    line = b'{"loss": 1}' + b" " * (10 << 20)
    out = b"".join(lines.feed(line[at : at + 65_536]) for at in range(0, len(line), 65_536)) + lines.feed(
        b'\n{"a": 1}\n'
    )
    first, second, rest = out.split(b"\n")
    assert len(first) < MAX_LOGGED_LINE + 64
    assert first.decode().endswith(f"[cut: {len(line) - MAX_LOGGED_LINE} bytes more]")
    with pytest.raises(ValueError):
        json.loads(first)
    assert (second, rest) == (b'{"a": 1}', b"")
    assert len(line) > MAX_PARSED_LINE


def test_a_line_with_no_step_means_the_next_integer() -> None:
    curve = Curve()
    steps = [curve.read(line)[0] for line in (b'{"a": 1}', b'{"a": 1}', b'{"a": 1, "step": 10}', b'{"a": 1}')]
    assert steps == [0, 1, 10, 11]


@pytest.mark.parametrize("step", [b"5", b"5.0", b"5e0", str(MAX_STEP).encode(), b"4294967296"])
def test_whole_numbers_are_steps_however_they_are_written(step: bytes) -> None:
    read, points, is_used_up = Curve().read(b'{"step": %s, "loss": 0.5}' % step)
    assert (read, points, is_used_up) == (int(float(step)), [("loss", 0.5)], True)


@pytest.mark.parametrize(
    "step", [b"-1", b"1.5", b"true", b"null", b'"3"', b"[1]", b"NaN", b"Infinity", b"9007199254740993", b"1e300"]
)
def test_a_line_with_another_step_is_log(step: bytes) -> None:
    assert Curve().read(b'{"step": %s, "loss": 0.5}' % step)[1:] == ([], False)


def test_values_that_are_not_finite_travel_as_words() -> None:
    points = Curve().read(b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999, "e": 7}')[1]
    assert points == [("a", "NaN"), ("b", "Infinity"), ("c", "-Infinity"), ("d", "Infinity"), ("e", 7.0)]


@pytest.mark.parametrize(
    "value", [b"true", b"null", b'"0.5"', b"[1]", b'{"deep": 1}', b"1" + b"0" * 400, b"[" * 500 + b"]" * 500]
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


def test_the_metrics_of_an_attempt_are_counted() -> None:
    curve = Curve()
    taken = curve.read(json.dumps({f"m{number}": number for number in range(MAX_METRICS + 5)}).encode())[1]
    assert len(taken) == MAX_METRICS
    assert curve.read(b'{"one more": 1}')[1:] == ([], False)
    assert curve.read(b'{"m0": 1}')[1:] == ([("m0", 1.0)], True)


def test_the_log_of_an_attempt_ends_somewhere_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_TOTAL_BYTES", 100_000)
    spool = Spool(tmp_path / "spool", 1 << 20, 1 << 20)
    log = Log(spool)
    for _ in range(100):
        log.write("STDOUT", b"x" * 1_999 + b"\n")
    log.say_dropped()
    chunks = json.loads(b"{" + spool.head()[1:] + b"}")["logs"]
    logged = sum(len(chunk["text"]) + 1 for chunk in chunks if chunk["stream"] == "STDOUT")
    assert 60_000 <= logged <= 100_000
    full, dropped = next(chunk["text"] for chunk in chunks if chunk["stream"] == "SUPERVISOR").split("\n")
    assert full.startswith("the log is full")
    assert dropped.startswith(f"dropped {200_000 - logged} bytes")
