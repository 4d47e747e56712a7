"""Pairs: lines of `name: number` or `name=number` with a step, of programs that no other reader serves.

A line counts if it has a step (`step`, `epoch`, `[N/M]`) and a metric's name, or a step and nothing but pairs. A form,
which is the names of a line, must come three times with rising steps before its points, the held ones included, are
read. A line with a metric's name and no step is counted, for a notice.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import (
    END,
    MAX_NAME,
    METRIC_WORDS,
    QUALIFIERS,
    STEP,
    STEP_KINDS,
    VALUE,
    WORD,
    is_metric,
    is_never,
    words_of,
)

TIMES = 3  # that a form has to come
MAX_FORMS = 64
MAX_STEP_NUMBER = 10**9  # beyond it stands a moment, not a step

_PAIR = re.compile(
    rf"(?<![\w@/.'?&-])(?P<name>{WORD}(?: {WORD})?)(?P<separator>[ \t]*[:=][ \t]*(?![:=])|[ \t]+)"
    rf"(?P<value>{VALUE})(?P<percent>[ ]?%)?{END}"
)
_LEAD = re.compile(
    r"\s*(?:\[\s*(?P<first>\d{1,12})\s*(?:(?P<by>[,/])\s*(?P<second>\d{1,12})\s*)?\]|(?P<number>\d{1,12})/(?P<total>\d{1,12})(?=\s))"
)
_EPOCH_AND_BATCH = re.compile(r"\[(\d{1,9})\]\[\s*(\d{1,9})/(\d{1,9})\]")  # MMEngine, ImageNet's descendants
_ONLY = re.compile(r"[\s,;|()\[\]{}\"'*=>-]*$")
_TRACE = ('File "', "://", "at 0x", ", in ", "==", "!=", "<=", ">=")


class Pair(NamedTuple):
    name: str
    value: float
    is_named: bool  # by a metric's name


class Form:
    """A form under observation: its held readings until it is trusted."""

    def __init__(self) -> None:
        self.held: list[Reading] = []
        self.last = -1
        self.is_trusted = False


class Pairs:
    """Reader of other lines. `unread` counts lines with metrics that gave no points, `example` is the first."""

    def __init__(self) -> None:
        self.unread = 0
        self.example = ""
        self.pair = ""  # of the example, as it is written
        self._forms: dict[tuple[str, ...], Form] = {}
        self._epoch = -1
        self._inner = -1
        self._offset = 0

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        if any(part in text for part in _TRACE):
            return None
        steps, spans = _steps(text)
        pairs = _pairs(text, spans)
        if not any(pair.is_named for _, pair in pairs) and not (steps and _is_all(text, spans, pairs)):
            return None
        values = [(pair.name, pair.value) for _, pair in pairs]
        if not steps:
            self._count(text, pairs)
            return None
        step = self._step(steps)
        form = self._form((*steps, *(name for name, _ in values)))
        if "epoch" in steps and ("step" in steps or "batch" in steps):
            values.append(("epoch", float(steps["epoch"][0])))
        if form.is_trusted:
            return [Reading(step, values)]
        if step <= form.last:
            form.held.clear()
        form.last = step
        form.held.append(Reading(step, values, elapsed=elapsed))
        if len(form.held) < TIMES:
            self._count(text, pairs)
            return None
        form.is_trusted = True
        self.unread -= min(self.unread, TIMES - 1)
        held, form.held = form.held, []
        return held

    @staticmethod
    def names_metrics(text: str) -> bool:
        """True if a line has a number under a metric's name."""
        return any(pair.is_named for _, pair in _pairs(text, []))

    def _count(self, text: str, pairs: list[tuple[tuple[int, int], Pair]]) -> None:
        self.unread += 1
        if not self.example:
            (start, end), _ = next((each for each in pairs if each[1].is_named), pairs[0])
            self.example, self.pair = text, text[start:end]

    def _form(self, key: tuple[str, ...]) -> Form:
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= MAX_FORMS:
                del self._forms[next(iter(self._forms))]
            form = self._forms[key] = Form()
        return form

    def _step(self, steps: dict[str, tuple[int, int]]) -> int:
        """The step; a counter within epochs that begins again goes on from the last epoch's end."""
        inner = steps.get("step") or steps.get("batch")
        if inner is None:
            return next(iter(steps.values()))[0]
        number, total = inner
        epoch = steps.get("epoch")
        if epoch is None:
            return number
        if epoch[0] > self._epoch >= 0 and number <= self._inner:
            self._offset += max(total, self._inner)
        self._epoch, self._inner = epoch[0], number
        return self._offset + number


def _steps(text: str) -> tuple[dict[str, tuple[int, int]], list[tuple[int, int]]]:
    """Find the steps of a line by kind, each with its total (0: none), and where they stand."""
    steps: dict[str, tuple[int, int]] = {}
    spans = []
    for found in STEP.finditer(text):
        kind, number = STEP_KINDS[found["word"].lower()], int(found["number"])
        if number < MAX_STEP_NUMBER and kind not in steps:
            steps[kind] = (number, int(found["total"] or 0))
        spans.append(found.span())
    both = _EPOCH_AND_BATCH.search(text)
    if both is not None:
        steps = {"epoch": (int(both[1]), 0), "step": (int(both[2]), int(both[3]))}
        spans.append(both.span())
    if not steps:
        lead = _LEAD.match(text)
        if lead is not None:
            spans.append(lead.span())
            if lead["number"] is not None:
                steps["step"] = (int(lead["number"]), int(lead["total"]))
            elif lead["by"] == ",":
                steps["epoch"], steps["step"] = (int(lead["first"]), 0), (int(lead["second"]), 0)
            else:
                steps["step"] = (int(lead["first"]), int(lead["second"] or 0))
    return steps, spans


def _pairs(text: str, spans: list[tuple[int, int]]) -> list[tuple[tuple[int, int], Pair]]:
    pairs = []
    names = set()
    for found in _PAIR.finditer(text):
        if any(start < found.end("value") and found.start("value") < end for start, end in spans):
            continue
        name, start = _name(found["name"], found.start("name"))
        is_named = is_metric(name)
        if len(name) > MAX_NAME or name in names or is_never(name):
            continue
        if not is_named and found["separator"].isspace():  # "took 3", "line 12"
            continue
        names.add(name)
        pairs.append(((start, found.end("value")), Pair(name, float(found["value"]), is_named)))
    return pairs


def _name(written: str, start: int) -> tuple[str, int]:
    """Take the words of a name: the last one, and the one before if it qualifies it (`train loss`)."""
    first, _, second = written.partition(" ")
    if not second:
        return written, start
    words = words_of(first)
    if (words and words[-1] in QUALIFIERS) or (words and words[-1] in METRIC_WORDS and "." not in first):
        return written, start
    return second, start + len(first) + 1


def _is_all(text: str, spans: list[tuple[int, int]], pairs: list[tuple[tuple[int, int], Pair]]) -> bool:
    """True if a line is made of its step and of pairs alone."""
    if not pairs:
        return False
    taken = sorted([*spans, *(span for span, _ in pairs)])
    position = 0
    for start, end in taken:
        if not _ONLY.match(text[position:start]):
            return False
        position = max(position, end)
    return bool(_ONLY.match(text[position:].lstrip("%.")))
