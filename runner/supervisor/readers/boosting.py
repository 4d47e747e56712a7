"""Boosting libraries: XGBoost, LightGBM, CatBoost.

    [12]    train-rmse:0.31     valid-rmse:0.35         XGBoost, separated by tabs
    [12]    valid_0's l2: 0.31  valid_0's auc: 0.8      LightGBM
    12:     learn: 0.31         test: 0.35              CatBoost

A cross-validation's `0.31+0.01` is a mean and a deviation: the mean counts.
"""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import VALUE

_ROUND = re.compile(r"\[(\d{1,9})\]\t")
_FIELD = re.compile(rf"([^\t:]{{1,128}}(?::[^\t:]{{1,64}})??):[ ]?({VALUE})(?:\s?\+\s?{VALUE})?\s*$")
_CATBOOST = re.compile(r"(\d{1,9}):\t(?=learn:|test:)")
_CATBOOST_FIELD = re.compile(rf"(learn|test\d*|best): ({VALUE})(?: \(\d+\))?\s*$")


class Boosting:
    """Reader of boosting rounds."""

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        found = _ROUND.match(text)
        if found is None:
            return self._catboost(text)
        fields = [_FIELD.match(part) for part in text[found.end() :].split("\t") if part]
        if not fields or not all(fields):
            return None
        values = [(field[1].strip(), float(field[2])) for field in fields if field is not None]
        return [Reading(int(found[1]), values, forgives=True)]  # LightGBM repeats the best round at its end

    def _catboost(self, text: str) -> list[Reading] | None:
        found = _CATBOOST.match(text)
        if found is None:
            return None
        fields = [_CATBOOST_FIELD.match(part) for part in text[found.end() :].split("\t")]
        values = [(field[1], float(field[2])) for field in fields if field is not None]
        return [Reading(int(found[1]), values)] if values else None
