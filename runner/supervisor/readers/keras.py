"""Keras: the line that ends an epoch, drawn as a bar (`verbose=1`) or printed once (`verbose=2`), of Keras 2 and 3.

The step is the epoch of the last `Epoch N/M`. One line counts for each epoch: a further one is an evaluation's.
"""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import VALUE, is_never

_EPOCH = re.compile(r"Epoch (\d+)/(\d+)\s*$")
_LINE = re.compile(
    r"\s*(\d+)/(\d+|Unknown)(?![\w/])(?:.*?[\s-])"
    r"\d+(?:\.\d+)?(?:[mun\u00b5]?s|min)(?:/(?:step|epoch|sample))?(?= - [A-Za-z_])"
)
_PAIR = re.compile(rf" - ([A-Za-z_][\w/@. -]{{0,63}}?): ({VALUE})(?=\s|$)")


class Keras:
    """Reader of Keras' epochs."""

    def __init__(self) -> None:
        self._epoch: int | None = None  # whose line has not come yet

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        header = _EPOCH.match(text)
        if header is not None:
            self._epoch = int(header[1])
            return []
        found = _LINE.match(text)
        if found is None:
            return None
        if "step" not in text and "s - " not in text and "epoch" not in text:
            return None
        is_full = found[2] == "Unknown" or int(found[1]) >= int(found[2])
        if not is_full or self._epoch is None:
            return []
        values = [(name, float(value)) for name, value in _PAIR.findall(text) if not is_never(name)]
        if not values:
            return []
        step, self._epoch = self._epoch, None
        return [Reading(step, values)]
