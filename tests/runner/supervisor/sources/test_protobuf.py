"""The wire format of protocol buffers."""

from __future__ import annotations

import pytest
from messages import field, float32, float64, varint

from runner.supervisor.sources import protobuf


def test_fields_are_read_by_number_and_wire_type() -> None:
    message = field(1, 300) + field(2, b"text") + float32(3, 1.0) + float64(16, 2.0)
    assert list(protobuf.fields(message)) == [
        (1, protobuf.VARINT, 300, b""),
        (2, protobuf.BYTES, 0, b"text"),
        (3, protobuf.FIXED32, 0, b"\0\0\x80?"),
        (16, protobuf.FIXED64, 0, b"\0\0\0\0\0\0\0@"),
    ]


def test_a_varint_may_be_negative() -> None:
    [(_, _, number, _)] = protobuf.fields(field(1, -1))
    assert (protobuf.signed(number), protobuf.signed(5)) == (-1, 5)


@pytest.mark.parametrize(
    "message", [b"\x80", varint(1 << 3) + b"\xff" * 11, field(1, b"text")[:-1], float64(1, 1.0)[:-1], b"\x0b"]
)
def test_what_is_cut_off_or_of_another_kind_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|wire type"):
        list(protobuf.fields(message))
