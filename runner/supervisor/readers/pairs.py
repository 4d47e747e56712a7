"""Pairs: lines of `name: number` or `name=number` with a step, of programs that no other reader serves.

A line counts if it has a step (`step`, `epoch`, `[N/M]`) and a metric's name, or a step and nothing but pairs. A form,
which is the names of a line, must come three times with rising steps before its points, the held ones included, are
read. A line with a metric's name and no step is counted, for a notice.

A line of a trusted form becomes a template: a regular expression in which the numbers are free and all else is as it
was. Lines that match one need no search for names: a third of the CPU time.
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
MAX_TEMPLATES = 6  # of a form, and at a time
MAX_ALONE = 60  # characters in front of an object
MAX_TEMPLATE = 500  # characters of its line
MAX_STEP_NUMBER = 10**9  # beyond it stands a moment, not a step

_PAIR = re.compile(
    rf"(?<![\w@/.'?&-])(?P<name>{WORD}(?: {WORD})?)\"?(?P<separator>[ \t]*[:=][ \t]*(?![:=])|[ \t]+)"
    rf"(?P<array>(?<=[:=])\[[ ]?)?(?P<value>{VALUE})(?(array)[ ]?\])(?P<percent>[ ]?%)?{END}"
)
_LEAD = re.compile(
    r"\s*(?:\[\s*(?P<first>\d{1,12})\s*(?:(?P<by>[,/])\s*(?P<second>\d{1,12})\s*)?\]|(?P<number>\d{1,12})/(?P<total>\d{1,12})(?=\s))"
)
_EPOCH_AND_BATCH = re.compile(r"\[(\d{1,9})\]\[\s*(\d{1,9})/(\d{1,9})\]")  # MMEngine, ImageNet's descendants
_ONLY = re.compile(r"[\s,;|()\[\]{}\"'*=>-]*$")
_THOUSANDS = re.compile(r",\d")
_FREE = re.compile(r"((?<![A-Za-z_\d])\d+)")
_TRACE = ('File "', "://", "at 0x", ", in ", "==", "!=", "<=", ">=", " WHERE ", " SET ")


Place = tuple[int, int]


class Pair(NamedTuple):
    name: str
    value: float
    is_named: bool  # by a metric's name
    span: Place  # from the name to the value
    place: Place  # of the value


class Step(NamedTuple):
    number: int
    total: int  # 0: none
    places: tuple[Place, ...]  # of the number, and of the total if there is one


class Template(NamedTuple):
    """A line with its numbers as groups, in the order in which they stand."""

    pattern: re.Pattern[str]
    steps: tuple[tuple[str, int, int], ...]  # kind, group of the number, group of the total or -1
    values: tuple[tuple[str, int], ...]  # name, group

    def read(self, text: str) -> tuple[dict[str, Step], list[tuple[str, float]]] | None:
        found = self.pattern.fullmatch(text)
        if found is None:
            return None
        numbers = found.groups()
        steps = {
            kind: Step(int(numbers[number]), int(numbers[total]) if total >= 0 else 0, ())
            for kind, number, total in self.steps
        }
        return steps, [(name, float(numbers[group])) for name, group in self.values]


class Form:
    """A form under observation: its held readings until it is trusted."""

    def __init__(self) -> None:
        self.held: list[Reading] = []
        self.last = -1
        self.is_trusted = False
        self.templates = 0


class Pairs:
    """Reader of other lines. `unread` counts lines with metrics that gave no points, `example` is the first."""

    def __init__(self) -> None:
        self.unread = 0
        self.example = ""
        self.pair = ""  # of the example, as it is written
        self._forms: dict[tuple[str, ...], Form] = {}
        self._templates: list[Template] = []  # the last that matched is the first
        self._epoch = -1
        self._inner = -1
        self._offset = 0

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        for at, template in enumerate(self._templates):
            found = template.read(text)
            if found is not None:
                if at:
                    self._templates.insert(0, self._templates.pop(at))
                return [self._reading(*found)]
        if any(part in text for part in _TRACE):
            return None
        steps, spans = _steps(text)
        pairs = _pairs(text, spans)
        if not any(pair.is_named for pair in pairs) and not (steps and _is_all(text, spans, pairs)):
            return None
        if not steps:
            self._count(text, pairs)
            return None
        reading = self._reading(steps, [(pair.name, pair.value) for pair in pairs])
        form = self._form((*steps, *(pair.name for pair in pairs)))
        if form.is_trusted:
            if form.templates < MAX_TEMPLATES and (made := _template(text, steps, pairs)) is not None:
                form.templates += 1
                self._templates = [made, *self._templates[: MAX_TEMPLATES - 1]]
            return [reading]
        step = reading.step or 0
        if step <= form.last:
            form.held.clear()
        form.last = step
        form.held.append(reading._replace(elapsed=elapsed))
        if len(form.held) < TIMES:
            self._count(text, pairs)
            return None
        form.is_trusted = True
        self.unread -= min(self.unread, TIMES - 1)
        held, form.held = form.held, []
        return held

    def _reading(self, steps: dict[str, Step], values: list[tuple[str, float]]) -> Reading:
        step = self._step(steps)
        if "epoch" in steps and ("step" in steps or "batch" in steps):
            values.append(("epoch", float(steps["epoch"].number)))
        return Reading(step, values)

    @staticmethod
    def names_metrics(text: str) -> bool:
        """True if a line has a number under a metric's name."""
        return any(pair.is_named for pair in _pairs(text, []))

    def _count(self, text: str, pairs: list[Pair]) -> None:
        self.unread += 1
        if not self.example:
            start, end = next((pair for pair in pairs if pair.is_named), pairs[0]).span
            self.example, self.pair = text, text[start:end]

    def _form(self, key: tuple[str, ...]) -> Form:
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= MAX_FORMS:
                del self._forms[next(iter(self._forms))]
            form = self._forms[key] = Form()
        return form

    def _step(self, steps: dict[str, Step]) -> int:
        """The step; a counter within epochs that begins again goes on from the last epoch's end."""
        inner = steps.get("step") or steps.get("batch")
        if inner is None:
            return next(iter(steps.values())).number
        number, total, _ = inner
        epoch = steps.get("epoch")
        if epoch is None:
            return number
        if epoch.number > self._epoch >= 0 and number <= self._inner:
            self._offset += max(total, self._inner)
        self._epoch, self._inner = epoch.number, number
        return self._offset + number


def _steps(text: str) -> tuple[dict[str, Step], list[Place]]:
    """Find the steps of a line by kind, and where they stand."""
    steps: dict[str, Step] = {}
    spans = []
    for found in STEP.finditer(text):
        kind = STEP_KINDS[found["word"].lower()]
        if kind not in steps and int(found["number"]) < MAX_STEP_NUMBER:
            steps[kind] = _step_of(found, "number", "total")
        spans.append(found.span())
    both = _EPOCH_AND_BATCH.search(text)
    if both is not None:
        steps = {"epoch": _step_of(both, 1), "step": _step_of(both, 2, 3)}
        spans.append(both.span())
    if not steps:
        lead = _LEAD.match(text)
        if lead is not None:
            spans.append(lead.span())
            if lead["number"] is not None:
                steps["step"] = _step_of(lead, "number", "total")
            elif lead["by"] == ",":
                steps["epoch"], steps["step"] = _step_of(lead, "first"), _step_of(lead, "second")
            else:
                steps["step"] = _step_of(lead, "first", "second")
    return steps, spans


def step_alone(text: str) -> int | None:
    """The step of a text that is nothing but a step: `Epoch 3/10: `. None otherwise."""
    if len(text) > MAX_ALONE:
        return None
    steps, spans = _steps(text)
    if len(spans) != 1 or len(steps) != 1:
        return None
    [(start, end)], [step] = spans, steps.values()
    return step.number if not text[:start].strip(" \t[(") and _ONLY.match(text[end:].replace(":", "")) else None


def _step_of(found: re.Match[str], number: str | int, total: str | int | None = None) -> Step:
    """Make a step of a match's groups."""
    if total is None or found[total] is None:
        return Step(int(found[number]), 0, (found.span(number),))
    return Step(int(found[number]), int(found[total]), (found.span(number), found.span(total)))


def _pairs(text: str, spans: list[Place]) -> list[Pair]:
    pairs = []
    names = set()
    for found in _PAIR.finditer(text):
        place = found.span("value")
        if any(start < place[1] and place[0] < end for start, end in spans):
            continue
        name, start = _name(found["name"], found.start("name"))
        is_named = is_metric(name)
        if len(name) > MAX_NAME or name in names or is_never(name):
            continue
        if not is_named and found["separator"].isspace():  # "took 3", "line 12"
            continue
        names.add(name)
        pairs.append(Pair(name, float(found["value"]), is_named, (start, place[1]), place))
    return pairs


def _template(text: str, steps: dict[str, Step], pairs: list[Pair]) -> Template | None:
    """Make a template of a line; None if its numbers may mean something else in the next one."""
    if len(text) > MAX_TEMPLATE or any(_THOUSANDS.match(text, pair.place[1]) for pair in pairs):
        return None
    places = sorted([*(place for step in steps.values() for place in step.places), *(pair.place for pair in pairs)])
    values = {pair.place: pair for pair in pairs}
    pattern, position = [], 0
    for place in places:
        if place[0] < position:
            return None
        pair = values.get(place)
        name = pair.span[0] if pair is not None and pair.span[0] >= position else place[0]
        pattern += [_loose(text[position:name]), re.escape(text[name : place[0]])]
        pattern.append(r"(\d{1,9})" if pair is None else f"({VALUE})")
        position = place[1]
    pattern.append(_loose(text[position:]))
    group = {place: number for number, place in enumerate(places)}
    return Template(
        re.compile("".join(pattern)),
        tuple(
            (kind, group[step.places[0]], group[step.places[1]] if len(step.places) > 1 else -1)
            for kind, step in steps.items()
        ),
        tuple((pair.name, group[pair.place]) for pair in pairs),
    )


def _loose(text: str) -> str:
    """Return a pattern for text whose numbers are free, but for those within a word."""
    parts = enumerate(_FREE.split(text))  # every second one is a number
    return "".join(r"\d{1,9}" if at % 2 and len(part) < 10 else re.escape(part) for at, part in parts)


def _name(written: str, start: int) -> tuple[str, int]:
    """Take the words of a name: the last one, and the one before if it qualifies it (`train loss`)."""
    first, _, second = written.partition(" ")
    if not second:
        return written, start
    words = words_of(first)
    if (words and words[-1] in QUALIFIERS) or (words and words[-1] in METRIC_WORDS and "." not in first):
        return written, start
    return second, start + len(first) + 1


def _is_all(text: str, spans: list[Place], pairs: list[Pair]) -> bool:
    """True if a line is made of its step and of pairs alone."""
    if not pairs:
        return False
    taken = sorted([*spans, *(pair.span for pair in pairs)])
    position = 0
    for start, end in taken:
        if not _ONLY.match(text[position:start]):
            return False
        position = max(position, end)
    return bool(_ONLY.match(text[position:].lstrip("%.")))
