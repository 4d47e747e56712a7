"""The examples of PyTorch: MNIST (`Train Epoch: 1 [640/60000 (1%)]`) and ImageNet (`Epoch: [0][ 10/5005]`).

The step counts over epochs: samples in MNIST, batches in ImageNet. The value before the brackets counts, not the mean
in them.
"""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import NUMBER, VALUE, is_never

_MNIST = re.compile(r"(?:\w+ )?Train Epoch: (\d+) \[\s*(\d+)/(\d+)(?: \(\s*\d+(?:\.\d+)?%\))?\]\s+(.*)")
_MNIST_PAIR = re.compile(rf"([A-Za-z][\w. ]{{0,63}}?): ({VALUE})(?=\s|$|,)")
_TEST = re.compile(
    rf"\s*(?:Test|Validation|Val|Eval)(?: set)?: (Average loss|Avg\. loss|Loss): ({NUMBER})"
    rf"(?:, (Accuracy): (?:\d+/\d+ \()?({NUMBER})%?\)?)?"
)
_IMAGENET = re.compile(r"Epoch: \[(\d+)\]\[\s*(\d+)/(\d+)\]\s+(.*)")
_CLOCKS = frozenset({"Time", "Data"})
_METER = re.compile(rf"([A-Za-z][\w@]*)\s+({VALUE})\s*\(\s*{VALUE}\s*\)")


class PyTorch:
    """Reader of PyTorch's examples."""

    def __init__(self) -> None:
        self._end: int | None = None  # of the newest epoch, in samples

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        found = _MNIST.match(text)
        if found is not None:
            epoch, number, total = int(found[1]), int(found[2]), int(found[3])
            self._end = epoch * total
            values = [(name, float(value)) for name, value in _MNIST_PAIR.findall(found[4]) if not is_never(name)]
            return [Reading(max(epoch - 1, 0) * total + number, values)] if values else []
        found = _IMAGENET.match(text)
        if found is not None:
            values = [(name, float(value)) for name, value in _METER.findall(found[4]) if name not in _CLOCKS]
            return [Reading(int(found[1]) * int(found[3]) + int(found[2]), values)] if values else []
        found = _TEST.match(text)
        if found is not None:
            if self._end is None:  # a test before the first epoch
                return []
            values = [(found[1], float(found[2]))]
            if found[4] is not None:
                values.append((found[3], float(found[4])))
            return [Reading(self._end, values)]
        return None
