"""Pairs: lines of `name: number` or `name=number` with a step, of programs that no other reader serves.

A line counts if it has a step (`step`, `epoch`, `[N/M]`) and a metric's name, or a step by a word and nothing but
pairs. A line that is nothing but a step (`Epoch 3/10`) is the header of those that have none. A form, which is the
names of a line, must come three times with rising steps before its points, the held ones included, are read. A line
with a metric's name and no step is counted, for a notice.

A counter within epochs, or up to a total, goes on from its last end when it begins again. A metric that a line has
twice is named by the labels in front (`Train: loss=1 | Val: loss=2`), and all metrics of a line that begins with
`val`, `test` or the like are that set's.

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
    MOMENTS,
    PROSE,
    QUALIFIERS,
    SPLITS,
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
MAX_COUNTERS = 64
MAX_TEMPLATES = 6  # of a form, and at a time
MAX_ALONE = 60  # characters in front of an object
MAX_TEMPLATE = 500  # characters of its line
MAX_STEP_NUMBER = 10**9  # beyond it stands a moment, not a step

_PAIR = re.compile(
    rf"(?<![\w@/.'?&-])(?P<name>{WORD}(?: {WORD})?)\"?(?P<separator>[ \t]*[:=][ \t]*(?![:=])|[ \t]+)"
    rf"(?P<array>(?<=[:=])\[[ ]?)?(?P<value>{VALUE})(?(array)[ ]?\])(?P<percent>[ ]?%)?{END}"
)
# A decimal number, also with what END excludes: `acc 98.5 images/s`. Whole ones may be codes and counts.
_UNUSABLE = re.compile(
    rf"(?<![\w@/.'?&-])(?P<name>{WORD}(?: {WORD})?)\"?(?:[ \t]*[:=][ \t]*(?![:=])|[ \t]+)"
    r"[-+]?\d*\.\d+(?=(?P<unit>[ ]?[^\s;|)\]}]+)?)"
)
_LEAD = re.compile(
    r"\s*(?:\[\s*(?P<first>\d{1,12})\s*(?:(?P<by>[,/])\s*(?P<second>\d{1,12})\s*)?\]|(?P<number>\d{1,12})/(?P<total>\d{1,12})(?=\s))"
)
# `[3][ 10/500]` of MMEngine and ImageNet's descendants, `[0/25][10/500]`, `Epoch[1](2/25)`.
_EPOCH_AND_BATCH = re.compile(r"[\[(](\d{1,9})(?:/\d{1,9})?[\])][\[(]\s*(\d{1,9})\s*/\s*(\d{1,9})[\])]")
# `[ 640/60000 (1%)]`, `200/ 2983 batches`; behind a percentage or an accuracy it is what was right, of all.
_COUNTER = re.compile(
    r"(?<![%:=])(?<![%:=] )\[\s*(\d{1,12})\s*/\s*(\d{1,12})\s*(?:\(\s*[\d.]+\s*%\)\s*)?\]"
    r"|(?<![\w./-])(\d{1,12})\s*/\s*(\d{1,12})\s+batches\b"
)
_HITS = re.compile(r"(?:acc|correct|precision|recall|top|right)[^\[]*$", re.IGNORECASE)
_DECORATED = " \t[(=#*>|-"
# A set of data as the label of what follows it, and at the beginning of a line.
_SET = r"(?:train(?:ing)?|val(?:id(?:ation)?)?|test|eval(?:uation)?|dev)"
_LABEL = re.compile(rf"(?<![A-Za-z0-9_])({_SET})(?: set| metrics)?\s*[:|\])>(-]", re.IGNORECASE)
_LEADING_SET = re.compile(rf"[\s\[(=>*#-]*((?!train){_SET})(?![\w/.-])", re.IGNORECASE)
_ONLY = re.compile(r"[\s,;|()\[\]{}\"'*=>-]*$")
_THOUSANDS = re.compile(r",\d")
_FREE = re.compile(r"((?<![A-Za-z_\d])\d+)")
_TRACE = re.compile(r'File "|://|at 0x|, line |(?<![=!<>])[=!<>]=(?!=)| WHERE | SET ')


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
    key: tuple[str, ...]  # of the form
    steps: tuple[tuple[str, int, int], ...]  # kind, group of the number, group of the total or -1
    values: tuple[tuple[str, int], ...]  # name, group
    unusable: tuple[tuple[str, str], ...]  # name and pair of metrics that are not read

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


class Counter:
    """Where a counter stands that may begin again, with each epoch or at its total."""

    def __init__(self) -> None:
        self._epoch = -1
        self._highest = -1  # since it began
        self._offset = 0

    def step_of(self, number: int, total: int, epoch: int | None) -> int:
        """Return the step; a counter that begins again goes on from its last end."""
        if epoch is None:
            if 2 * number < total < 2 * self._highest:
                self._begin(total)
        elif epoch != self._epoch:
            if epoch > self._epoch >= 0 and number <= self._highest:
                self._begin(total * (epoch - self._epoch))
            self._epoch = epoch
        self._highest = max(self._highest, number)
        return self._offset + number

    def _begin(self, length: int) -> None:
        self._offset += max(length, self._highest)
        self._highest = -1


class Pairs:
    """Reader of other lines. `unread` counts lines with metrics that gave no points, `example` is the first.

    `unusable` are the metrics of lines that are read whose values have a unit, by name: the count and the pair.
    """

    def __init__(self) -> None:
        self.unread = 0
        self.example = ""
        self.pair = ""  # of the example, as it is written
        self.has_step = False  # the example
        self.unusable: dict[str, tuple[int, str]] = {}
        self._forms: dict[tuple[str, ...], Form] = {}
        self._templates: list[Template] = []  # the last that matched is the first
        self._counters: dict[tuple[object, ...], Counter] = {}
        self._header: tuple[str, Step] | None = None
        self._epoch_at = -1  # the step at which the epoch was read last

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        for at, template in enumerate(self._templates):
            found = template.read(text)
            if found is not None:
                if at:
                    self._templates.insert(0, self._templates.pop(at))
                if template.unusable:
                    self._count_unusable(template.unusable)
                return [self._reading(template.key, *found)]
        if _TRACE.search(text):
            return None
        steps, spans, is_worded = _steps(text)
        pairs = _pairs(text, spans)
        if not any(pair.is_named for pair in pairs):
            if not pairs and self.head(text):
                return []
            if not (is_worded and _is_all(text, spans, pairs)):
                return None
        if not steps and self._header is None:
            self._count(text, pairs, has_step=False)
            return None
        key = (*steps, *(pair.name for pair in pairs))
        reading = self._reading(key, steps, [(pair.name, pair.value) for pair in pairs])
        form = self._form(key)
        if form.is_trusted:
            if form.templates < MAX_TEMPLATES and (made := _template(text, key, steps, pairs)) is not None:
                form.templates += 1
                self._templates = [made, *self._templates[: MAX_TEMPLATES - 1]]
                self._count_unusable(made.unusable)
            return [reading]
        step = reading.step or 0
        if step <= form.last:
            form.held.clear()
        form.last = step
        form.held.append(reading._replace(elapsed=elapsed))
        if len(form.held) < TIMES:
            self._count(text, pairs, has_step=True)
            return None
        form.is_trusted = True
        self.unread -= min(self.unread, TIMES - 1)
        held, form.held = form.held, []
        return held

    def head(self, text: str) -> bool:
        """Take a line that is nothing but a step as the header of lines that have none. False if it is not one."""
        found = _alone(text, _DECORATED) if STEP.search(text) is not None else None
        if found is not None:
            self._header = found
        return found is not None

    def _reading(self, key: tuple[str, ...], steps: dict[str, Step], values: list[tuple[str, float]]) -> Reading:
        inner = steps.get("step") or steps.get("batch")
        if "epoch" in steps:  # of lines without a step, too
            self._header = "epoch", steps["epoch"]
        elif self._header is not None:
            kind, headed = self._header
            if not steps or (kind == "epoch" and inner is not None):
                steps = {**steps, kind: headed}
        if inner is None:
            return Reading(next(iter(steps.values())).number, values)
        epoch = steps.get("epoch")
        counter = self._counter((*steps, inner.total) if epoch is not None and inner.total else key)
        step = counter.step_of(inner.number, inner.total, None if epoch is None else epoch.number)
        if epoch is not None and step > self._epoch_at:
            self._epoch_at = step
            values.append(("epoch", float(epoch.number)))
        return Reading(step, values)

    @staticmethod
    def names_metrics(text: str) -> bool:
        """True if a line has a number under a metric's name."""
        return bool(named_pairs(text))

    def _count(self, text: str, pairs: list[Pair], *, has_step: bool) -> None:
        self.unread += 1
        if not self.example:
            self.has_step = has_step
            start, end = next((pair for pair in pairs if pair.is_named), pairs[0]).span
            self.example, self.pair = text, text[start:end]

    def _count_unusable(self, found: tuple[tuple[str, str], ...]) -> None:
        for name, pair in found:
            count, first = self.unusable.get(name, (0, pair))
            self.unusable[name] = count + 1, first

    def _form(self, key: tuple[str, ...]) -> Form:
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= MAX_FORMS:
                del self._forms[next(iter(self._forms))]
            form = self._forms[key] = Form()
        return form

    def _counter(self, key: tuple[object, ...]) -> Counter:
        counter = self._counters.get(key)
        if counter is None:
            if len(self._counters) >= MAX_COUNTERS:
                del self._counters[next(iter(self._counters))]
            counter = self._counters[key] = Counter()
        return counter


def _steps(text: str) -> tuple[dict[str, Step], list[Place], bool]:
    """Find the steps of a line by kind, where they stand, and whether a word names one."""
    steps: dict[str, Step] = {}
    spans = []
    for found in STEP.finditer(text):
        kind = STEP_KINDS[found["word"].lower()]
        if kind not in steps and int(found["number"]) < MAX_STEP_NUMBER:
            steps[kind] = _step_of(found, "number", "total")
        spans.append(found.span())
    is_worded = bool(steps)
    both = _EPOCH_AND_BATCH.search(text)
    if both is not None:
        steps = {"epoch": _step_of(both, 1), "step": _step_of(both, 2, 3)}
        spans.append(both.span())
    lead = _LEAD.match(text) if not steps else None
    if lead is not None:
        spans.append(lead.span())
        if lead["number"] is not None:
            steps["step"] = _step_of(lead, "number", "total")
        elif lead["by"] == ",":
            steps["epoch"], steps["step"] = _step_of(lead, "first"), _step_of(lead, "second")
        else:
            steps["step"] = _step_of(lead, "first", "second")
    elif not steps or steps.keys() == {"epoch"}:
        counter = _COUNTER.search(text)
        if counter is not None and not _HITS.search(text, 0, counter.start()):
            steps["batch"] = _step_of(counter, 1, 2) if counter[1] is not None else _step_of(counter, 3, 4)
            spans.append(counter.span())
    return steps, spans, is_worded


def named_pairs(text: str) -> list[Pair]:
    """The numbers of a text that are under a metric's name."""
    return [pair for pair in _pairs(text, []) if pair.is_named]


def step_alone(text: str) -> int | None:
    """The step of a text that is nothing but a step: `Epoch 3/10: `. None otherwise."""
    found = _alone(text, " \t[(")
    return found[1].number if found is not None else None


def _alone(text: str, decoration: str) -> tuple[str, Step] | None:
    """The kind and the step of a text that has nothing else but decoration."""
    if len(text) > MAX_ALONE:
        return None
    steps, spans, _ = _steps(text)
    if len(spans) != 1 or len(steps) != 1:
        return None
    [(start, end)], [(kind, step)] = spans, steps.items()
    is_alone = not text[:start].strip(decoration) and _ONLY.match(text[end:].replace(":", "").rstrip(decoration))
    return (kind, step) if is_alone else None


def _step_of(found: re.Match[str], number: str | int, total: str | int | None = None) -> Step:
    """Make a step of a match's groups."""
    if total is None or found[total] is None:
        return Step(int(found[number]), 0, (found.span(number),))
    return Step(int(found[number]), int(found[total]), (found.span(number), found.span(total)))


def _pairs(text: str, spans: list[Place]) -> list[Pair]:
    pairs: list[Pair] = []
    has_twice = False
    for found in _PAIR.finditer(text):
        place = found.span("value")
        if any(start < place[1] and place[0] < end for start, end in spans):
            continue
        name, start = _name(found["name"], found.start("name"))
        if len(name) > MAX_NAME or is_never(name):
            continue
        is_named = is_metric(name)
        if found["separator"].isspace():
            if not is_named:  # "took 3", "line 12"
                continue
            if found["value"].isdecimal() and words_of(name)[-1] in PROSE:  # "Error 2"
                continue
        elif found["value"].isdecimal() and name.lower() in SPLITS:  # "Train: 3 [ 50/1251]"
            continue
        has_twice = has_twice or any(pair.name == name for pair in pairs)
        pairs.append(Pair(name, float(found["value"]), is_named, (start, place[1]), place))
    if pairs and (has_twice or _LEADING_SET.match(text)):
        pairs = _labelled(text, pairs, has_twice=has_twice)
    return pairs


def _labelled(text: str, pairs: list[Pair], *, has_twice: bool) -> list[Pair]:
    """Name pairs by the sets of data they are of; the first of a name counts."""
    leading = _LEADING_SET.match(text)
    labels: list[tuple[int, str]] = []
    if has_twice:
        labels = [(found.start(), f"{found[1]}/") for found in _LABEL.finditer(text)]
        labels += [(pair.span[0], f"{pair.name.split()[0]} ") for pair in pairs if words_of(pair.name)[0] in SPLITS]
        labels.sort()
    taken: dict[str, Pair] = {}
    for pair in pairs:
        name = pair.name
        if SPLITS.isdisjoint(words_of(name)):
            label = next((label for start, label in reversed(labels) if start < pair.span[0]), None)
            if label is not None:
                name = f"{label}{name}"
            elif leading is not None and leading.end() <= pair.span[0] and pair.is_named:
                name = f"{leading[1]} {name}"
        if len(name) <= MAX_NAME:
            taken.setdefault(name, pair._replace(name=name))
    return list(taken.values())


def _template(text: str, key: tuple[str, ...], steps: dict[str, Step], pairs: list[Pair]) -> Template | None:
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
        key,
        tuple(
            (kind, group[step.places[0]], group[step.places[1]] if len(step.places) > 1 else -1)
            for kind, step in steps.items()
        ),
        tuple((pair.name, group[pair.place]) for pair in pairs),
        _unusable(text, pairs),
    )


def _unusable(text: str, pairs: list[Pair]) -> tuple[tuple[str, str], ...]:
    """Find metrics of a line whose numbers were not taken, each with its pair as it is written."""
    unusable = []
    for found in _UNUSABLE.finditer(text):
        name, start = _name(found["name"], found.start("name"))
        if is_metric(name) and not any(start < pair.span[1] and pair.span[0] < found.end() for pair in pairs):
            unusable.append((name[:MAX_NAME], f"{text[start : found.end()]}{found['unit'] or ''}".rstrip(",")))
    return tuple(unusable)


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
    if words and words[-1] in MOMENTS:
        return written, start
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
