"""Reader of the wire format of protocol buffers (protobuf.dev, "Encoding"): fields of a message, without a schema."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10


def fields(message: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield number, wire type, integer (of a VARINT) and content (of the others). Raises ValueError."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            number, at = _varint(message, at)
            yield key >> 3, kind, number, b""
            continue
        if kind == BYTES:
            length, at = _varint(message, at)
        elif kind == FIXED64:
            length = 8
        elif kind == FIXED32:
            length = 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > end:
            raise ValueError("a message that is cut off")
        yield key >> 3, kind, 0, message[at : at + length]
        at += length


def signed(number: int) -> int:
    """Read a varint as an int64: two's complement."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for position in range(at, min(at + MAX_VARINT_BYTES, len(message))):
        byte = message[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position + 1
        shift += 7
    raise ValueError("a varint that is cut off")
