"""Decoder of W&B's `.wandb` files: a LevelDB log of `Record` messages, of which history and the run's config count.

Sources: leveldb's doc/log_format.md; wandb_internal.proto. The file begins with 7 bytes: `:W&B`, 0xBEE1 little-endian,
version 0. Blocks of 32 KiB count from the file's start and hold records `crc (4) length (2) type (1) payload`: type 1
whole, 2 first, 3 middle, 4 last part. What is left of a block below 7 bytes is padding; type 0 is not written yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from runner.supervisor.sources import protobuf
from runner.supervisor.sources.events import Garbled
from runner.supervisor.sources.protobuf import BYTES, VARINT

MAGIC = b":W&B\xe1\xbe\x00"
BLOCK_BYTES = 32 << 10
HEADER_BYTES = 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MAX_RECORD_BYTES = 8 << 20  # a longer one is dropped
HISTORY, CONFIG, RUN = 2, 5, 17  # of Record


class WandbFile:
    """Decodes one file, fed in pieces of any length. `run`, `name`, `config` and `tags`: the run's, so far."""

    def __init__(self) -> None:
        self.run = self.name = ""
        self.config: dict[str, object] = {}
        self.tags: list[str] = []
        self._rest = b""
        self._offset = 0  # in the file, of `_rest`
        self._record = b""

    def feed(self, data: bytes) -> list[tuple[int, Mapping[str, object]]]:
        """Return step and values of the history records that the data completes. Raises Garbled."""
        data = self._rest + data
        at, rows = 0, []
        if not self._offset:
            if len(data) < len(MAGIC):
                self._rest = data
                return []
            if not data.startswith(MAGIC):
                raise Garbled("not a .wandb file of version 0")
            at = len(MAGIC)
        while True:
            left = BLOCK_BYTES - (self._offset + at) % BLOCK_BYTES
            if left < HEADER_BYTES:  # padding
                if len(data) - at < left:
                    break
                at += left
                continue
            if len(data) - at < HEADER_BYTES:
                break
            length = int.from_bytes(data[at + 4 : at + 6], "little")
            kind = data[at + 6]
            end = at + HEADER_BYTES + length
            if kind == 0 or end > len(data):
                break
            if kind > LAST or HEADER_BYTES + length > left:
                raise Garbled(f"a record of type {kind} and {length} bytes")
            rows += self._part(kind, data[at + HEADER_BYTES : end])
            at = end
        self._offset += at
        self._rest = data[at:]
        return rows

    def _part(self, kind: int, payload: bytes) -> list[tuple[int, Mapping[str, object]]]:
        if kind in (WHOLE, FIRST):
            self._record = b""
        if len(self._record) <= MAX_RECORD_BYTES:
            self._record += payload
        if kind in (FIRST, MIDDLE) or len(self._record) > MAX_RECORD_BYTES:
            return []
        try:
            return self._read(self._record)
        except (ValueError, RecursionError) as error:
            raise Garbled(str(error)) from None

    def _read(self, record: bytes) -> list[tuple[int, Mapping[str, object]]]:
        rows = []
        for number, kind, _, content in protobuf.fields(record):
            if (number, kind) == (HISTORY, BYTES):
                rows.append(_history(content))
            elif (number, kind) == (CONFIG, BYTES):
                self._configure(content)
            elif (number, kind) == (RUN, BYTES):  # RunRecord: 1 run_id, 4 config, 8 display_name, 10 tags (repeated)
                for inner, _, _, value in protobuf.fields(content):
                    if inner == 1:
                        self.run = value.decode()
                    elif inner == 4 and value:
                        self._configure(value)
                    elif inner == 8:
                        self.name = value.decode()
                    elif inner == 10:
                        self.tags.append(value.decode())
        return rows

    def _configure(self, message: bytes) -> None:
        """Read a ConfigRecord: 1 update (repeated): items."""
        for number, _, _, content in protobuf.fields(message):
            if number == 1 and content:
                name, value = _item(content)
                self.config[name] = value


def _history(message: bytes) -> tuple[int, Mapping[str, object]]:
    """Read a HistoryRecord: 1 item (repeated), 2 step {1 num}."""
    values: dict[str, object] = {}
    step = 0
    for number, _, _, content in protobuf.fields(message):
        if number == 1:
            name, value = _item(content)
            values[name] = value
        elif number == 2:
            step = next((protobuf.signed(integer) for n, kind, integer, _ in protobuf.fields(content) if n == 1), 0)
    own = values.get("_step")
    return own if isinstance(own, int) else step, values


def _item(message: bytes) -> tuple[str, object]:
    """Read an item: 1 key, or 2 nested_key (repeated), 16 value_json."""
    names: list[str] = []
    value: object = None
    for number, kind, _, content in protobuf.fields(message):
        if number == 1 or (number == 2 and kind == BYTES):
            names.append(content.decode())
        elif number == 16:
            value = json.loads(content)
        elif kind == VARINT:
            continue
    return ".".join(name for name in names if name), value
