"""Tables that a header begins: Stable-Baselines3's boxes, and the epochs of Ultralytics YOLO, fastai and spaCy.

| rollout/           |          |         Stable-Baselines3: a box for each report, of which the step is
|    ep_rew_mean     | 21.6     |         `total_timesteps`; the section `time/` is none of its metrics
---------------------------------

Epoch    GPU_mem   box_loss   Size         YOLO: a bar for each epoch, then the row `all` of the validation
  1/3         0G      3.123     64: 100%

epoch     train_loss  valid_loss  time     fastai; the epochs of a second `fit` count on
0         1.234567    0.987654    00:01

E    #       LOSS TEXTCAT  SCORE           spaCy: the step is the column #
0      20          0.25    0.50
"""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import VALUE

_NUMBER = re.compile(f"{VALUE}$")
_GAP = re.compile(r"\s{2,}")


class Boxes:
    """Reader of Stable-Baselines3's boxes."""

    SECTION = re.compile(r"\| ([A-Za-z][\w-]{0,60})/\s+\|\s+\|$")
    ROW = re.compile(rf"\|\s+([^|]{{1,120}}?)\s+\|\s+(?:({VALUE})|[^|]*?)\s*\|$")
    RULE = re.compile(r"-{10,}$")
    COUNTS = frozenset({"n_updates"})  # a counter

    def __init__(self) -> None:
        self._section: str | None = None
        self._values: list[tuple[str, float]] = []
        self._step: int | None = None

    @property
    def has_table(self) -> bool:
        return self._section is not None

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        text = text.rstrip()
        section = self.SECTION.match(text)
        if section is not None:
            self._section = section[1]
            return []
        if self._section is None:
            return None
        row = self.ROW.match(text)
        if row is not None:
            self._take(row[1], row[2])
            return []
        readings = self._ended()
        return readings if self.RULE.match(text) else None

    def _take(self, name: str, value: str | None) -> None:
        if value is None:
            return
        if self._section == "time":
            if name == "total_timesteps" and float(value).is_integer():
                self._step = int(float(value))
        elif name not in self.COUNTS:
            self._values.append((f"{self._section}/{name}", float(value)))

    def _ended(self) -> list[Reading]:
        readings = [Reading(self._step, self._values)] if self._values and self._step is not None else []
        self._section, self._values, self._step = None, [], None
        return readings


class Yolo:
    """Reader of Ultralytics YOLO."""

    HEADER = re.compile(r"\s*Epoch\s+(?:GPU|gpu)_mem\s+(\S.*?)\s*$")  # in capitals since YOLOv5 7.0
    ROW = re.compile(r"\s*(\d{1,6})/(\d{1,6})\s+[\d.]+[KMGT]?B?\s+(.*?): *100%")
    VALIDATION = re.compile(r"\s*Class\s+Images\s+(?:Instances|Labels|Targets)\s+(\S.*?)(?::\s+\d+%.*)?$")
    ALL = re.compile(r"\s*all\s+\d+\s+\d+\s+(.*?)\s*$")
    SIZES = frozenset({"Instances", "Size", "labels", "targets", "img_size", "total"})

    def __init__(self) -> None:
        self._columns: list[str] = []
        self._validated: list[str] = []  # columns of the validation that is expected
        self._epoch: int | None = None  # whose validation has not come yet

    @property
    def has_table(self) -> bool:
        """True while rows are expected; the header stands before each epoch."""
        return bool(self._columns or self._validated)

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        header = self.HEADER.match(text)
        if header is not None:
            self._columns, self._validated = header[1].split(), []
            return []
        header = self.VALIDATION.match(text)
        if header is not None:
            self._columns, self._validated = [], _grouped(header[1])
            return []
        row = self.ROW.match(text) if self._columns else None
        if row is not None:
            self._epoch, cells = int(row[1]), row[3].split()
            return self._reading(self._columns, cells, self._epoch)
        row = self.ALL.match(text) if self._validated else None
        if row is not None:
            columns, self._validated = self._validated, []
            epoch, self._epoch = self._epoch, None  # the best model is validated once more at the end
            return self._reading(columns, row[1].split(), epoch) if epoch is not None else []
        return None

    def _reading(self, columns: list[str], cells: list[str], epoch: int) -> list[Reading]:
        values = [
            (name, float(cell)) for name, cell in zip(columns, cells) if name not in self.SIZES and _NUMBER.match(cell)
        ]
        return [Reading(epoch, values)] if values and len(cells) == len(columns) else []


def _grouped(header: str) -> list[str]:
    """Name the columns of `Box(P  R  mAP50)  Mask(P  R  mAP50)`: Box/P, Box/R and so on; older ones have no group."""
    names, group = [], ""
    for word in header.rstrip(":").split():
        if "(" in word:
            group, _, word = word.partition("(")
        names.append(f"{group}/{word.rstrip(')')}" if group else word)
    return names


class Fastai:
    """Reader of fastai's epochs."""

    HEADER = re.compile(r"epoch\s+(train_loss\s+valid_loss(?:\s+\S+)*?)\s+time\s*$")
    ROW = re.compile(r"(\d{1,6})\s+(\S.*?)\s+(?:\d+:)?\d+:\d\d\s*$")

    def __init__(self) -> None:
        self._columns: list[str] = []
        self._offset = self._next = 0

    @property
    def has_table(self) -> bool:
        return bool(self._columns)

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        header = self.HEADER.match(text)
        if header is not None:
            self._columns, self._offset = header[1].split(), self._next
            return []
        row = self.ROW.match(text) if self._columns else None
        if row is None:
            if text.strip() and "%" not in text:  # a bar may be drawn before each row
                self._columns = []
            return None
        cells = row[2].split()
        values = [(name, float(cell)) for name, cell in zip(self._columns, cells) if _NUMBER.match(cell)]
        if not values or len(cells) != len(self._columns):
            return []
        step = self._offset + int(row[1])
        self._next = step + 1
        return [Reading(step, values)]


class Spacy:
    """Reader of spaCy's training."""

    HEADER = re.compile(r"E\s+#\s{2,}(\S.*?)\s*$")
    RULE = re.compile(r"-{3}(?:\s+-{3,})+\s*$")
    ROW = re.compile(r"\s*(\d{1,9})\s+(\d{1,12})\s+(\S.*?)\s*$")

    def __init__(self) -> None:
        self._columns: list[str] = []

    @property
    def has_table(self) -> bool:
        return bool(self._columns)

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        header = self.HEADER.match(text)
        if header is not None:
            self._columns = _GAP.split(header[1])
            return []
        if not self._columns:
            return None
        if self.RULE.match(text):
            return []
        row = self.ROW.match(text)
        cells = row[3].split() if row is not None else []
        if row is None or len(cells) != len(self._columns) or not all(map(_NUMBER.match, cells)):
            self._columns = []
            return None
        return [Reading(int(row[2]), [(name, float(cell)) for name, cell in zip(self._columns, cells)])]
