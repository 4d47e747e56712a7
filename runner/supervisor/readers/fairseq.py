"""fairseq's log: `| train_inner | {"epoch": 1, "loss": "9.5", "num_updates": "100"}`, or the same as text."""

from __future__ import annotations

import json
import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import VALUE, is_never
from runner.supervisor.readers.objects import numbers_of

_SECTION = re.compile(r"(?:^|.*?\| )(train_inner|train|valid|test)\s*\| (.*)")
_PROGRESS = re.compile(r"(?:.*?\| )?epoch (\d+)(?: \|.*?)?:\s+(\d+) / (\d+) (.*)")
_EQUAL = re.compile(rf"([A-Za-z_]\w*)=({VALUE})(?=,|\s|$)")
_FIELD = re.compile(rf"\s*([A-Za-z_]\w*) ({VALUE})\s*$")
# Throughput and housekeeping.
_OTHER = frozenset(
    {"epoch", "update", "updates", "num_updates", "wps", "ups", "wpb", "bsz", "train_wall", "gb_free", "wall", "clip"}
)


class Fairseq:
    """Reader of fairseq's progress."""

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        if "epoch" not in text:
            return None
        found = _PROGRESS.match(text)
        if found is not None and "=" in found[4]:
            pairs = dict(_EQUAL.findall(found[4]))
            step = (int(found[1]) - 1) * int(found[3]) + int(found[2])
            return _reading(pairs, "", max(step, 0))
        found = _SECTION.match(text)
        if found is None:
            return None
        section, rest = found[1], found[2].strip()
        if rest.startswith("{"):
            try:
                record = json.loads(rest)
            except (ValueError, RecursionError):
                return None
            if type(record) is not dict:
                return None
            updates = next((each for name, each in record.items() if name.endswith("num_updates")), None)
            values = [(name, value) for name, value in numbers_of(record).values if not _is_other(name)]
            if not values or not str(updates).isdecimal():
                return []
            return [Reading(int(str(updates)), values)]
        fields = [field for field in map(_FIELD.match, rest.split("|")) if field is not None]
        pairs = {field[1]: field[2] for field in fields}
        if "epoch" not in pairs or "num_updates" not in pairs:
            return None
        return _reading(pairs, f"{section}/", 0)


def _reading(pairs: dict[str, str], prefix: str, step: int) -> list[Reading]:
    if pairs.get("num_updates", "").isdecimal():
        step = int(pairs["num_updates"])
    values = [(f"{prefix}{name}", float(value)) for name, value in pairs.items() if not _is_other(name)]
    return [Reading(step, values)] if values else []


def _is_other(name: str) -> bool:
    return name in _OTHER or name.split("_", 1)[-1] in _OTHER or is_never(name)
