"""Progress bars: tqdm's postfix and metrics in its description, and the bars of Lightning.

Of a bar's own numbers (percent, rate, clocks) none counts. The step is the bar's counter; a bar that begins again (the
next epoch) counts on; of a state that is drawn again what is new counts. In a pipe, of 80 columns, Lightning's rich bar
continues on lines of its own, one metric on each.
"""

from __future__ import annotations

import re

from runner.supervisor.curve import Reading
from runner.supervisor.readers.grammar import END, METRIC_WORDS, VALUE, is_never, words_of
from runner.supervisor.readers.pairs import named_pairs

_TQDM = re.compile(
    r"(?P<title>.{0,200}?(?=\d+%\|)|[^|\[]{0,200}?)"
    r"(?:\d+%\|[^|]{0,400}\|\s*(?P<number>\d+(?:\.\d+)?[kMG]?)/(?P<total>\d+(?:\.\d+)?[kMG]?)|(?P<alone>\d+)[A-Za-z]*)"
    r"\s*\[\d[\d:]*(?:<[\d:?]+)?,\s*(?:\?|[\d.]+)\s*[^\s,\]]+?(?:,\s*(?P<postfix>.+))?\]\s*$"
)
_RICH = re.compile(
    r"(?P<title>[^\u2501\u2578\u257a]{0,200}?)\s*[\u2501\u2578\u257a ]+\s*(?P<number>\d+)/(?P<total>\d+)"
    r"\s+\d+:\d\d:\d\d\s+\S\s+[-\d:]+\s+[\d.]+it/s\s+(?P<postfix>.+?)\s*$"
)
_PAIR = re.compile(rf"(?<![\w/@.-])([A-Za-z_][\w/@.-]{{0,63}})\s?[=:]\s*({VALUE}){END}")
_CONTINUED = re.compile(rf"\s{{20,}}([A-Za-z_][\w/@.-]{{0,63}}): ({VALUE})\s*$")
_DIGITS = re.compile(r"\d+")
MAX_TITLES = 1_000


class _Place:
    """Where the bars of a title stand."""

    def __init__(self) -> None:
        self.offset = 0
        self.last = 0
        self.title = ""
        self.has_ended = False
        self.names: set[str] = set()  # that were read in this state


class Bars:
    """Reader of bars."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}  # by title without its numbers
        self._rich_step: int | None = None  # of a rich bar, while lines may continue it

    def read(self, text: str, elapsed: float) -> list[Reading] | None:
        """Read a whole line: the last state of a bar, or its continuation."""
        found = _CONTINUED.match(text) if self._rich_step is not None else None
        if found is not None:
            return [] if is_never(found[1]) else [Reading(self._rich_step, [(found[1], float(found[2]))])]
        self._rich_step = None
        return self._read(text, has_ended=True)

    def redrawn(self, text: str) -> list[Reading]:
        """Read a state of a bar that goes on."""
        return self._read(text, has_ended=False) or []

    def _read(self, text: str, *, has_ended: bool) -> list[Reading] | None:
        if "it/s" not in text and "s/it" not in text and "[" not in text:
            return None
        rich = None
        found = _TQDM.match(text) or (rich := _RICH.match(text))
        if found is None:
            return None
        groups = found.groupdict()
        number, total = groups["number"] or groups["alone"], groups["total"]
        if number is None or not number.isdecimal() or not (total or "0").isdecimal():
            return []
        title, described = groups["title"], dict[str, float]()
        for pair in reversed(named_pairs(title.rstrip(": "))):
            if not METRIC_WORDS.isdisjoint(words_of(pair.name)):  # "Validation DataLoader 0" is a title
                described[pair.name] = pair.value
                title = f"{title[: pair.place[0]]}#{title[pair.place[1] :]}"
        found_in = _PAIR.findall(groups["postfix"] or "")
        values = {**described, **{name: float(value) for name, value in found_in if not is_never(name)}}
        values.pop("v_num", None)
        if not values and rich is None:
            return []
        place, step = self._place(title, int(number), int(total or 0), has_ended=has_ended)
        self._rich_step = step if rich is not None and has_ended else None
        new = [(name, value) for name, value in values.items() if name not in place.names]
        if not new or int(number) == 0:  # at 0 stands what the bar before ended with
            return []
        place.names.update(name for name, _ in new)
        return [Reading(step, new)]

    def _place(self, title: str, number: int, total: int, *, has_ended: bool) -> tuple[_Place, int]:
        """Return where this state stands and its step; a bar of the same title that begins again counts on."""
        key = _DIGITS.sub("#", title)
        place = self._places.get(key)
        if place is None:
            place = _Place()
            if len(self._places) < MAX_TITLES:
                self._places[key] = place
        is_another = title != place.title or (place.has_ended and key == title)  # the epoch is in most titles
        if number < place.last or (number == place.last and is_another):
            place.offset += max(total, place.last)
            place.names.clear()
        elif number > place.last:
            place.names.clear()
        place.last, place.title, place.has_ended = number, title, has_ended
        return place, place.offset + number
