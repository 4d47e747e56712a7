"""scikit-learn's verbose output: iterations on a line, SGD's epochs with a header, the table of gradient boosting."""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import NUMBER, VALUE, is_metric, is_never

_ITERATION = re.compile(
    rf"(?:Iteration|Epoch) (\d+), ([a-z]+(?: [a-z]+)?)(?: =|:)? ({VALUE})\.?\s*$"  # MLP, KMeans, SAG and SAGA
)
_MIXTURE = re.compile(rf"\s*Iteration (\d+)\t time lapse {NUMBER}s\t (ll change) ({VALUE})\s*$")
_TSNE = re.compile(rf"\[t-SNE\] Iteration (\d+): (error) = ({NUMBER}), (gradient norm) = ({NUMBER})\b")
_LDA = re.compile(rf"iteration: (\d+) of max_iter: \d+, (perplexity): ({VALUE})\s*$")
_MINIBATCH = re.compile(
    rf"Minibatch step (\d+)/\d+: (mean batch inertia): ({NUMBER})(?:, (ewa inertia): ({NUMBER}))?\s*$"
)
_HISTOGRAM = re.compile(
    rf"\[(\d+)/\d+\] \d+ trees?, \d+ leaves.*?(train loss|train score): ({NUMBER})"
    rf"(?:, (val loss|val score): ({NUMBER}))?"
)
_EPOCH = re.compile(r"-- Epoch (\d+)\s*$")
_SGD = re.compile(
    rf"(Norm): ({NUMBER}), NNZs: \d+, Bias: {NUMBER}, T: \d+, (Avg\. loss): ({VALUE})(?:, (Objective): ({VALUE}))?\s*$"
)
_FORMS = (_ITERATION, _MIXTURE, _TSNE, _LDA, _MINIBATCH, _HISTOGRAM)
_HEADER = re.compile(r"\s*(?:Iter|iter|Iteration|Epoch|Step)(?:\s{2,}[A-Za-z][A-Za-z_-]*(?: [A-Za-z_-]+)*)+\s*$")
_COLUMN = re.compile(r"\S+(?: \S+)*")
_CELL = re.compile(rf"{VALUE}$")
_TIME = re.compile(rf"{NUMBER}[smh]$")


class Sklearn:
    """Reader of scikit-learn's output."""

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._columns: list[str] = []  # of a table under way

    @property
    def has_table(self) -> bool:
        """True while the lines of a table are expected, which hold numbers alone."""
        return bool(self._columns)

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        if self._columns:
            row = self._row(text)
            if row is not None:
                return [row]
            self._columns = []
        for form in _FORMS:
            found = form.match(text)
            if found is not None:
                parts = [part for part in found.groups()[1:] if part is not None]
                names, numbers = parts[::2], parts[1::2]
                values = [(name, float(number)) for name, number in zip(names, numbers)]
                return [Reading(int(found[1]), values)]
        header = _EPOCH.match(text)
        if header is not None:
            self._epoch = int(header[1])
            return []
        found = _SGD.match(text)
        if found is not None:
            if self._epoch is None:
                return []
            step, self._epoch = self._epoch, None
            parts = [part for part in found.groups() if part is not None]
            return [Reading(step, [(name, float(number)) for name, number in zip(parts[::2], parts[1::2])])]
        if _HEADER.match(text):
            columns = _COLUMN.findall(text)
            if any(map(is_metric, columns)):
                self._columns = columns
                return []
        return None

    def _row(self, text: str) -> Reading | None:
        cells = text.split()
        if len(cells) != len(self._columns) or not cells[0].isdecimal():
            return None
        if not all(_CELL.match(cell) or _TIME.match(cell) for cell in cells):
            return None
        values = [(name, float(cell)) for name, cell in zip(self._columns[1:], cells[1:]) if _is_value(name, cell)]
        return Reading(int(cells[0]), values) if values else None


def _is_value(name: str, cell: str) -> bool:
    return _CELL.match(cell) is not None and not is_never(name)
