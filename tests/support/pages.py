"""What the documents show, made executable: their code blocks in order, and whether an answer is like the one shown.

What differs between two runs may differ: what is not the same twice (`VARYING`) needs only be of the same kind, and
ids that a page shows stand for those that were really given out. Everything else is compared to the letter.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from live import ROOT

UNVERIFIED = " (unverified)"  # after the name of a Unix user, which is another one elsewhere
MORE = "…"  # in a list or a line: what follows is left out
FENCE = re.compile(r"^```(.*)$")
HEADING = re.compile(r"^(#{1,6}) (.+)$")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
DURATION = re.compile(r"\d+(\.\d+)? (s|min|h|d)( \d+ (s|min|h))?\b")
WORD = re.compile(r"[A-Za-z0-9_=+/-]{8,}|\d[\d.,:]*|[A-Za-z]+")
SECRET = re.compile(r"sim_[A-Za-z0-9_-]{20,}")

# By the name of the field: what no two runs have in common.
VARYING = frozenset({"elapsed", "amount", "perHour", "cost", "share"})
GIVEN_OUT = frozenset({"id", "deletedId", "cursor", "startCursor", "endCursor", "secret"})
IN_EVENTS = frozenset({"steps", "values", "elapsed"})  # how points fall into batches is for the clock to say


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ```language word word."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if fence and opened is None:
            opened, lines = (number, fence[1]), []
        elif fence and opened is not None:
            language, *words = opened[1].split() or [""]
            found.append(Block(language, tuple(words), "\n".join(lines), opened[0]))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page.name}:{opened}: a block without an end"
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(page: Path) -> list[str]:
    """Where a page leads to."""
    return [target or picture for target, picture in LINK.findall(re.sub(r"`[^`\n]*`", "``", prose(page)))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    for line in prose(page).splitlines():
        if heading := HEADING.match(line):
            text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading[2]).lower()
            name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            count = sum(1 for each in found if each == name or re.fullmatch(rf"{re.escape(name)}-\d+", each))
            found.add(f"{name}-{count}" if count else name)
    return found


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


class Unlike(AssertionError):
    """What was answered is not what the page shows."""


@dataclass
class Likeness:
    """Compares what a page shows with what was answered, and remembers what its ids stand for."""

    given_out: dict[str, str] = field(default_factory=dict)  # on the page -> really

    def real(self, text: str) -> str:
        """Put the real ids and tokens into something that the page shows."""
        for shown in sorted(self.given_out, key=len, reverse=True):
            if _is_id(shown) or SECRET.fullmatch(shown):
                text = text.replace(shown, self.given_out[shown])
        return text

    def values(self, shown: Any) -> Any:
        """The same in a value; cursors too, where they are the whole of a string."""
        match shown:
            case dict():
                return {name: self.values(value) for name, value in shown.items()}
            case list():
                return [self.values(value) for value in shown]
            case str():
                return self.given_out.get(shown, self.real(shown))
            case _:
                return shown

    def compare(self, shown: Any, answered: Any, *, is_event: bool = False) -> None:
        """Raise `Unlike` if one does not look like the other. Nothing is remembered then."""
        before = dict(self.given_out)
        try:
            self._compare(shown, answered, "", "", is_event)
        except Unlike:
            self.given_out = before
            raise

    def _compare(self, shown: Any, answered: Any, way: str, name: str, is_event: bool) -> None:
        def differs(what: str) -> Unlike:
            return Unlike(f"{way or 'the answer'}: {what}\nshown:    {shown!r}\nanswered: {answered!r}")

        if isinstance(shown, dict):
            if not isinstance(answered, dict) or list(shown) != list(answered):
                raise differs("other fields")
            for key, value in shown.items():
                self._compare(value, answered[key], f"{way}.{key}", key, is_event)
        elif isinstance(shown, list):
            if not isinstance(answered, list):
                raise differs("no list")
            if is_event and name in IN_EVENTS:
                return
            expected = shown[:-1] if shown[-1:] == [MORE] else shown
            if len(answered) < len(expected) or (expected is shown and len(answered) != len(shown)):
                raise differs("another length")
            for number, (each, found) in enumerate(zip(expected, answered, strict=False)):
                self._compare(each, found, f"{way}[{number}]", name, is_event)
        elif name in GIVEN_OUT and isinstance(shown, str) and isinstance(answered, str):
            if self.given_out.setdefault(shown, answered) != answered:
                raise differs("another one than before")
        elif isinstance(shown, str) and shown.endswith(UNVERIFIED):
            if not isinstance(answered, str) or not answered.endswith(UNVERIFIED):
                raise differs("another kind of user")
        elif name in VARYING or (isinstance(shown, str) and _is_time(shown)):
            alike = (
                isinstance(answered, str) and _is_time(answered)
                if isinstance(shown, str) and _is_time(shown)
                else (type(shown) is type(answered) or {type(shown), type(answered)} == {int, float})
            )
            if not alike:
                raise differs("of another kind")
        elif shown != answered or type(shown) is not type(answered):
            raise differs("not the same")


def values_in(text: str) -> list[Any]:
    """The JSON values that stand one after another in a block; lines that only mean "and so on" are left out."""
    decoder, found, rest = json.JSONDecoder(), [], re.sub(rf"^\s*{MORE}\s*$", "", text, flags=re.M).strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def output_like(shown: str, printed: str, likeness: Likeness) -> None:
    """Compare what a command printed, line by line; a line of three dots stands for any lines.

    Numbers, durations and the width of columns may be others; ids are remembered.
    """
    expected, found = shown.rstrip().splitlines(), printed.rstrip().splitlines()
    place = 0
    skipping = False
    for line in expected:
        if line.strip() in ("...", MORE):
            skipping = True
            continue
        wanted = _pattern(_plain(line))
        while True:
            if place >= len(found):
                raise Unlike(f"not printed: {line!r}\nprinted:\n{printed}")
            match = wanted.fullmatch(_plain(found[place]))
            place += 1
            if match:
                for one, other in zip(_ids(line), _ids(found[place - 1]), strict=False):
                    likeness.given_out.setdefault(one, other)
                break
            if not skipping:
                raise Unlike(f"shown:   {line!r}\nprinted: {found[place - 1]!r}\nof:\n{printed}")
        skipping = False
    if not skipping and place < len(found):
        raise Unlike(f"printed beyond what is shown: {found[place:]}")


def _plain(line: str) -> str:
    """A line with every duration as one of a second."""
    return DURATION.sub("1 s", line.rstrip()).replace("just now", "1 s ago")


def _pattern(line: str) -> re.Pattern[str]:
    """What may be printed in place of a line: other ids, other numbers, other spaces."""
    return re.compile(r"\s*" + r"\s+".join(_word(word) for word in line.split()))


def _word(word: str) -> str:
    parts, place = [], 0
    for token in WORD.finditer(word):
        if _is_id(token[0]) or SECRET.fullmatch(token[0]):
            like = r"[A-Za-z0-9_=+/-]{8,}"
        elif token[0][0].isdigit():
            like = r"\d[\d.,:]*"
        else:
            continue
        parts += [re.escape(word[place : token.start()]), like]
        place = token.end()
    return "".join([*parts, re.escape(word[place:])])


def _ids(line: str) -> list[str]:
    return [word for word in WORD.findall(line) if _is_id(word) or SECRET.fullmatch(word)]


def _is_id(text: str) -> bool:
    try:
        return re.fullmatch(r"[A-Z][A-Za-z]+:\d+", base64.b64decode(text, validate=True).decode("ascii")) is not None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return False


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "T" in text
