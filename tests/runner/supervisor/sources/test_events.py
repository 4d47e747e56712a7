"""TensorBoard's event files: both encodings of a scalar, in pieces of any length."""

from __future__ import annotations

import math
import struct

import pytest
from messages import event, field, float32, frame, plugin, simple, version

from runner.supervisor.sources.events import Events, Garbled, Scalar

FLOAT = field(1, 1) + field(2, b"")
DOUBLE = field(1, 2) + field(2, b"")


def tensor(tag: str, content: bytes) -> bytes:
    """A value as TensorFlow 2 writes it."""
    return field(1, tag) + plugin("scalars") + field(8, content)


def test_scalars_come_with_step_and_time() -> None:
    file = version() + event(7, simple("loss", 0.5), simple("acc", 0.25), wall_time=1.7e9) + event(-1, simple("x", 2))
    assert Events().feed(file) == [
        Scalar("loss", 7, 0.5, 1.7e9),
        Scalar("acc", 7, 0.25, 1.7e9),
        Scalar("x", -1, 2.0, 1.0),
    ]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (FLOAT + field(4, struct.pack("<f", 0.5)), 0.5),
        (FLOAT + field(5, struct.pack("<f", 0.5)), 0.5),  # packed
        (FLOAT + float32(5, 0.5), 0.5),  # and not
        (DOUBLE + field(4, struct.pack("<d", 0.1)), 0.1),
        (DOUBLE + field(6, struct.pack("<d", 0.1)), 0.1),
    ],
)
def test_a_tensor_with_one_number_is_a_scalar(content: bytes, value: float) -> None:
    assert [each.value for each in Events().feed(event(1, tensor("loss", content)))] == [value]


@pytest.mark.parametrize(
    "value",
    [
        tensor("many", FLOAT + field(5, struct.pack("<2f", 1, 2))),
        tensor("text", field(1, 7) + field(8, b"words")),
        tensor("none", FLOAT),
        field(1, "histogram") + field(5, b"\x09\0\0\0\0\0\0\0\0"),
        field(1, "image") + field(4, field(1, 3)),
        field(1, "_hparams_/experiment") + plugin("hparams") + field(8, FLOAT + float32(5, 1.0)),
    ],
)
def test_other_values_are_skipped(value: bytes) -> None:
    assert [each.tag for each in Events().feed(event(1, value, simple("loss", 1)))] == ["loss"]


def test_a_file_is_read_as_it_grows_byte_by_byte() -> None:
    file = version() + b"".join(event(step, simple("loss", step)) for step in range(20))
    events = Events()
    found = [scalar for at in range(len(file)) for scalar in events.feed(file[at : at + 1])]
    assert [(each.step, each.value) for each in found] == [(step, float(step)) for step in range(20)]


def test_a_long_record_is_skipped_without_being_held() -> None:
    events = Events()
    image = frame(b"\0" * (3 << 20))
    file = event(1, simple("loss", 1)) + image + event(2, simple("loss", 2))
    found, held = [], 0
    for at in range(0, len(file), 1 << 16):
        found += events.feed(file[at : at + (1 << 16)])
        held = max(held, len(events._rest))
    assert [each.step for each in found] == [1, 2]
    assert held < 1 << 18


@pytest.mark.parametrize("garbage", [b"\xff" * 100, frame(b"\xff" * 20), frame(field(5, field(1, field(1, b"\xff"))))])
def test_garbage_ends_the_file(garbage: bytes) -> None:
    with pytest.raises(Garbled):
        Events().feed(garbage)


@pytest.mark.parametrize("value", [1 / 3, 0.1, 1e-40, 3.4028234663852886e38, -123456.789, 16777216.0, 0.0])
def test_a_float32_gets_the_digits_that_it_has(value: float) -> None:
    [scalar] = Events().feed(event(0, simple("loss", value)))
    assert struct.pack("<f", scalar.value) == struct.pack("<f", value)
    assert len(f"{scalar.value!r}".lstrip("-").replace(".", "").split("e")[0].strip("0")) <= 9


def test_a_value_need_not_be_finite() -> None:
    found = Events().feed(event(0, simple("a", math.nan), simple("b", math.inf), simple("c", -math.inf)))
    assert [str(each.value) for each in found] == ["nan", "inf", "-inf"]


def test_hyperparameters_are_recognised_by_the_first_summary() -> None:
    events = Events()
    events.feed(version())
    assert events.is_hparams is None
    events.feed(event(0, field(1, "_hparams_/session_start_info") + plugin("hparams")))
    assert events.is_hparams is True
    plain = Events()
    plain.feed(event(0, simple("loss", 1)) + event(0, field(1, "h") + plugin("hparams")))
    assert plain.is_hparams is False
