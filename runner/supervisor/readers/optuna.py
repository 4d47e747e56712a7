"""Trials of Optuna: `[I 2026-11-29 13:45:51,634] Trial 3 finished with value: 0.5 and parameters: {...}.`"""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import VALUE

_TRIAL = re.compile(
    rf".{{0,80}}?\bTrial (\d+) finished with (?:value: ({VALUE})|values: \[([^\]]*)\]) and parameters: "
)


class Optuna:
    """Reader of Optuna's trials: `value`, or `values/0`, `values/1` with several objectives."""

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        found = _TRIAL.match(text)
        if found is None:
            return None
        if found[2] is not None:
            return [Reading(int(found[1]), [("value", float(found[2]))])]
        try:
            numbers = [float(part) for part in found[3].split(",")]
        except ValueError:
            return []
        return [Reading(int(found[1]), [(f"values/{index}", number) for index, number in enumerate(numbers)])]
