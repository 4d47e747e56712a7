"""Writer of event files and `.wandb` files, by the formats' descriptions: what the tests' decoders are fed with."""

from __future__ import annotations

import struct
from collections.abc import Sequence

FILE_VERSION = b"brain.Event:2"


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def field(number: int, value: int | bytes | str) -> bytes:
    """A varint or a field with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def float32(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def float64(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def plugin(name: str) -> bytes:
    """The metadata of a summary's value."""
    return field(9, field(1, field(1, name)))


def frame(message: bytes) -> bytes:
    """A TFRecord, with checksums that no reader checks."""
    return struct.pack("<Q", len(message)) + b"\0" * 4 + message + b"\0" * 4


def event(step: int, *values: bytes, wall_time: float = 1.0) -> bytes:
    """A record with the values of a summary."""
    summary = b"".join(field(1, value) for value in values)
    return frame(float64(1, wall_time) + field(2, step) + (field(5, summary) if values else b""))


def simple(tag: str, value: float) -> bytes:
    """A value as PyTorch and tensorboardX write it."""
    return field(1, tag) + float32(2, value)


def version() -> bytes:
    """The first record of every file."""
    return frame(float64(1, 1.0) + field(3, FILE_VERSION))


def leveldb(records: Sequence[bytes], header: bytes = b":W&B\xe1\xbe\x00", block_bytes: int = 32 << 10) -> bytes:
    """A `.wandb` file: records in parts that fill blocks."""
    file = bytearray(header)
    for record in records:
        begun = False
        while True:
            left = block_bytes - len(file) % block_bytes
            if left < 7:
                file += b"\0" * left
                continue
            part, record = record[: left - 7], record[left - 7 :]
            kind = (3 if record else 4) if begun else (2 if record else 1)
            file += b"\0" * 4 + struct.pack("<HB", len(part), kind) + part
            begun = True
            if not record:
                break
    return bytes(file)


def history(step: int, values: Sequence[tuple[str | Sequence[str], str]]) -> bytes:
    """A history record of W&B: keys, or the parts of nested ones, and values as JSON."""
    items = b""
    for key, json in values:
        name = field(1, key) if isinstance(key, str) else b"".join(field(2, part) for part in key)
        items += field(1, name + field(16, json))
    return field(1, 7) + field(2, items + field(2, field(1, step)))
