"""Decoder of TensorBoard's event files: TFRecord frames of `Event` messages, of which the scalars count.

Sources: tensorflow/core/util/event.proto, framework/summary.proto and tensor.proto; lib/io/record_writer.h. A frame is
`length (uint64) crc (4) data crc (4)`, little-endian. The standard library has no CRC-32C, so the checksums are not
checked; instead, an impossible length or message ends the file.

Both encodings of a scalar count: `simple_value` (PyTorch, tensorboardX, Lightning, Hugging Face) and a tensor with one
float or double (TensorFlow 2, Keras). All else is skipped.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from runner.supervisor.sources import protobuf
from runner.supervisor.sources.protobuf import BYTES, FIXED32, FIXED64, VARINT

MAX_RECORD_BYTES = 64 << 20  # a longer record is garbage
MAX_PARSED_BYTES = 1 << 20  # a longer record is an image or the like
HEADER_BYTES, FOOTER_BYTES = 12, 4
FLOAT, DOUBLE = 1, 2  # of DataType


class Scalar(NamedTuple):
    """A value of a tag. wall_time: seconds since 1970."""

    tag: str
    step: int
    value: float
    wall_time: float


class Garbled(Exception):
    """The file holds something else from here on; the message describes it."""


class Events:
    """Decodes one file, fed in pieces of any length. `is_hparams`: its first summary describes hyperparameters."""

    def __init__(self) -> None:
        self.is_hparams: bool | None = None  # until the first summary
        self._rest = b""
        self._skipped_bytes = 0  # still to come, of a long record

    def feed(self, data: bytes) -> list[Scalar]:
        """Return the scalars of the records that the data completes. Raises Garbled."""
        if self._skipped_bytes:
            skipped = min(self._skipped_bytes, len(data))
            self._skipped_bytes -= skipped
            data = data[skipped:]
        data = self._rest + data
        at, scalars = 0, []
        while len(data) - at >= HEADER_BYTES:
            (length,) = struct.unpack_from("<Q", data, at)
            if length > MAX_RECORD_BYTES:
                raise Garbled(f"a record of {length} bytes")
            end = at + HEADER_BYTES + length + FOOTER_BYTES
            if length > MAX_PARSED_BYTES:
                self._skipped_bytes = max(end - len(data), 0)
            elif end > len(data):
                break
            else:
                try:
                    scalars += self._event(data[at + HEADER_BYTES : end - FOOTER_BYTES])
                except ValueError as error:
                    raise Garbled(str(error)) from None
            at = min(end, len(data))
        self._rest = data[at:]
        return scalars

    def _event(self, event: bytes) -> list[Scalar]:
        wall_time, step, summary = 0.0, 0, b""
        for number, kind, integer, content in protobuf.fields(event):
            if (number, kind) == (1, FIXED64):
                (wall_time,) = struct.unpack("<d", content)
            elif (number, kind) == (2, VARINT):
                step = protobuf.signed(integer)
            elif (number, kind) == (5, BYTES):
                summary = content
        values = [_value(content) for number, _, _, content in protobuf.fields(summary) if number == 1]
        if values and self.is_hparams is None:
            self.is_hparams = values[0][2] == b"hparams"
        return [Scalar(tag, step, value, wall_time) for tag, value, _ in values if value is not None]


def _value(message: bytes) -> tuple[str, float | None, bytes]:
    tag, plugin = "", b""
    value: float | None = None
    for number, kind, _, content in protobuf.fields(message):
        if (number, kind) == (1, BYTES):
            tag = content.decode()
        elif (number, kind) == (2, FIXED32):
            value = _single(content)
        elif (number, kind) == (8, BYTES):
            value = _tensor(content)
        elif (number, kind) == (9, BYTES):
            plugin = next((_plugin_name(inner) for n, _, _, inner in protobuf.fields(content) if n == 1), b"")
    return tag, None if plugin == b"hparams" else value, plugin


def _plugin_name(message: bytes) -> bytes:
    return next((content for number, _, _, content in protobuf.fields(message) if number == 1), b"")


def _tensor(message: bytes) -> float | None:
    """Return the value of a tensor that holds exactly one float or double."""
    data_type, found = 0, []
    for number, kind, integer, content in protobuf.fields(message):
        if (number, kind) == (1, VARINT):
            data_type = integer
        elif number in (4, 5, 6) and content:  # tensor_content, float_val, double_val: packed, or one alone
            found.append(content)
    if len(found) != 1:
        return None
    if data_type == FLOAT and len(found[0]) == 4:
        return _single(found[0])
    if data_type == DOUBLE and len(found[0]) == 8:
        return float(struct.unpack("<d", found[0])[0])
    return None


def _single(content: bytes) -> float:
    """Return a float32 as the shortest decimal number that reads back as the same float32: 0.1, not 0.10000000149."""
    (value,) = struct.unpack("<f", content)
    if value != value or value in (float("inf"), float("-inf")):
        return float(value)
    for digits in (7, 8):
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", short) == content:
                return short
        except OverflowError:  # rounded up beyond the largest float32
            break
    return float(f"{value:.9g}")
