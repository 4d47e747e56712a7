"""Validation of a supervisor's report, for reports from the API and from a dead supervisor's spool.

Nothing of an invalid report is stored. Raises `BadReport`, whose message names the rule.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import ge

import orjson

from db.convergence import Column
from db.logs import Chunk
from db.notices import Notice
from db.sources import Source
from policy.metric_mode import is_system
from policy.retry import Exit

MAX_STEP = 2**53  # the largest integer that every JSON reader keeps exact
MAX_POINTS = 10_000
MAX_METRICS = 1_000
MAX_METRIC_NAME = 256
MAX_LOG_CHARACTERS = 2_000_000
MAX_LOG_CHUNKS = 3_000  # a supervisor seals a batch at 1,000; graph/operation/values.py counts three values for each
MAX_MESSAGE = 2_000  # characters
MAX_PARAMETERS = 1_000
MAX_PARAMETER_NAME = 200
MAX_PARAMETER_TEXT = 1_000
MAX_TAGS = 50
MAX_TAG = 200
MAX_SOURCE_BYTES = 64 << 10
MAX_PACKAGES = 2_000
MAX_FLOAT = sys.float_info.max
MAX_NOTICES = 50
MAX_NOTICE_TEXT = 500  # characters
_KIND = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class BadReport(ValueError):
    """An invalid report; `field` is its invalid part."""

    def __init__(self, message: str, field: str = "points") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Report:
    """A valid report. With a number (1, 2, 3...) it has a payload; without, it is a heartbeat."""

    number: int | None = None
    points: Mapping[str, Column] = field(default_factory=dict)
    chunks: Sequence[Chunk] = ()
    exit: Exit | None = None
    notices: Sequence[Notice] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)  # recorded by the program
    tags: Sequence[str] = ()  # likewise
    source: Source | None = None
    checkpoint_at: datetime | None = None  # of the newest checkpoint


HEARTBEAT = Report()


def checked(
    number: int | None,
    points: object,
    chunks: Sequence[Chunk],
    end: Exit | None,
    notices: Sequence[Notice] = (),
    parameters: object = None,
    tags: Sequence[str] = (),
    source: object = None,
    checkpoint_at: datetime | None = None,
) -> Report:
    """Check a report. Text is made storable: PostgreSQL takes neither NUL nor lone surrogates. Raises `BadReport`.

    points: an object from metric to {steps, values, elapsed}, or None. parameters: an object of scalars, or None.
    source: an object, or None; names that are not known are dropped.
    """
    if number is None and (points or chunks or end or notices or parameters or tags or source or checkpoint_at):
        raise BadReport("a report with a payload needs a batch number", "batch")
    if number is not None and number < 1:
        raise BadReport("batches are numbered from 1", "batch")
    if len(chunks) > MAX_LOG_CHUNKS or sum(len(chunk.text) for chunk in chunks) > MAX_LOG_CHARACTERS:
        raise BadReport(f"too much log: at most {MAX_LOG_CHARACTERS} characters in {MAX_LOG_CHUNKS} chunks", "logs")
    storable = [Chunk(chunk.stream, _storable(chunk.text)) for chunk in chunks]
    if end is not None:
        end = replace(end, message=_storable(end.message)[:MAX_MESSAGE] if end.message else None)
    columns = _columns(points) if points is not None else {}
    if checkpoint_at is not None and checkpoint_at.tzinfo is None:
        raise BadReport("the time of a checkpoint needs a time zone", "facts")
    recorded = (_parameters(parameters), _tags(tags), _source(source), checkpoint_at)
    return Report(number, columns, storable, end, _notices(notices), *recorded)


def _notices(given: Sequence[Notice]) -> Sequence[Notice]:
    """Check notices: each kind once, the last of it; texts become one printable line of bounded length."""
    if len(given) > MAX_NOTICES:
        raise BadReport(f"{len(given)} notices in a report: at most {MAX_NOTICES}", "facts")
    for notice in given:
        if not _KIND.fullmatch(notice.kind):
            raise BadReport("a notice's kind has 1 to 40 characters of A-Z, 0-9 and _", "facts")
        if not 0 < notice.count <= MAX_STEP:
            raise BadReport("a notice's count is a whole number from 1 to 2^53", "facts")
    return tuple(
        {each.kind: replace(each, example=_line(each.example), advice=_line(each.advice)) for each in given}.values()
    )


def _parameters(raw: object) -> Mapping[str, object]:
    """Check recorded parameters: names of at most 200 characters; numbers, booleans, null, and text, which is cut."""
    if raw is None:
        return {}
    if not isinstance(raw, dict) or len(raw) > MAX_PARAMETERS:
        raise BadReport(f"parameters are an object of at most {MAX_PARAMETERS} names", "facts")
    checked: dict[str, object] = {}
    for name, value in raw.items():
        if not 0 < len(name) <= MAX_PARAMETER_NAME:
            raise BadReport(f"a parameter's name has 1 to {MAX_PARAMETER_NAME} characters", "facts")
        if isinstance(value, str):
            value = _storable(value[:MAX_PARAMETER_TEXT])
        elif not (value is None or isinstance(value, (bool, int, float))) or not _is_finite(value):
            raise BadReport("a parameter is a number, a boolean, text or null", "facts")
        checked[_storable(name)] = value
    return checked


def _is_finite(value: object) -> bool:
    return not isinstance(value, (int, float)) or abs(value) <= MAX_FLOAT


def _tags(given: Sequence[str]) -> Sequence[str]:
    if len(given) > MAX_TAGS:
        raise BadReport(f"{len(given)} tags in a report: at most {MAX_TAGS}", "facts")
    return tuple(line for line in (_line(tag[:MAX_TAG]) for tag in given) if line)


def _source(raw: object) -> Source | None:
    """Check the source of an attempt, of at most 64 KiB. Fields of another type are left out, and texts are cut."""
    if raw is None:
        return None
    if not isinstance(raw, dict) or len(orjson.dumps(raw, default=str)) > MAX_SOURCE_BYTES:
        raise BadReport(f"source is an object of at most {MAX_SOURCE_BYTES} bytes", "facts")
    command, packages, dirty = raw.get("command"), raw.get("packages"), raw.get("dirty")
    named = packages.items() if isinstance(packages, dict) and len(packages) <= MAX_PACKAGES else ()
    return Source(
        commit=_text(raw.get("commit")),
        dirty=dirty if isinstance(dirty, bool) else None,
        remote=_text(raw.get("remote")),
        command=[_storable(word) for word in command if isinstance(word, str)] if isinstance(command, list) else [],
        host=_text(raw.get("host")),
        python=_text(raw.get("python")),
        packages={_line(name): _line(version) for name, version in named if isinstance(version, str)},
    )


def _text(raw: object) -> str | None:
    return _line(raw) if isinstance(raw, str) else None


def _line(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in _storable(text[:MAX_NOTICE_TEXT]))


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _columns(raw: object) -> Mapping[str, Column]:
    """Check a report's columns in bulk. Raises `BadReport`."""
    if not isinstance(raw, dict):
        raise BadReport("points must be an object from metric to columns")
    measured = sum(map(is_system, raw))
    if max(len(raw) - measured, measured) > MAX_METRICS:
        raise BadReport(f"{len(raw)} metrics in a report: at most {MAX_METRICS}, and as many of the system")
    # Counted before any check; two of the three lists of a column could be longer than the counted one.
    points = sum(max(map(len, _lists(column)), default=0) for column in raw.values())
    if points > MAX_POINTS:
        raise BadReport(f"{points} points in a report: at most {MAX_POINTS}")
    return {name: _column(name, column) for name, column in raw.items()}


def _lists(column: object) -> list[list[object]]:
    return [each for each in column.values() if isinstance(each, list)] if isinstance(column, dict) else []


def _column(name: str, raw: object) -> Column:
    # Whole lists are judged by the set of their types and by map(): a loop over points costs thirty times as much.
    if not 0 < len(name) <= MAX_METRIC_NAME or "\0" in name:
        raise BadReport(f"a metric's name has 1 to {MAX_METRIC_NAME} characters, none of them NUL")
    if not isinstance(raw, dict) or raw.keys() != {"steps", "values", "elapsed"}:
        raise BadReport(f"{name[:40]}: expected exactly steps, values and elapsed")
    steps, values, elapsed = raw["steps"], raw["values"], raw["elapsed"]
    if not (isinstance(steps, list) and isinstance(values, list) and isinstance(elapsed, list)):
        raise BadReport(f"{name[:40]}: steps, values and elapsed must be lists")
    if not len(steps) == len(values) == len(elapsed):
        raise BadReport(f"{name[:40]}: {len(steps)} steps, {len(values)} values, {len(elapsed)} elapsed")
    if not steps:
        raise BadReport(f"{name[:40]}: no points")
    if set(map(type, steps)) != {int} or steps[0] < 0 or steps[-1] > MAX_STEP or any(map(ge, steps, steps[1:])):
        raise BadReport(f"{name[:40]}: steps must be whole numbers from 0 to 2^53 that rise")
    try:
        numbers = _floats(values) or [_value(name, value) for value in values]
        seconds = _floats(elapsed)
    except OverflowError:
        raise BadReport(f"{name[:40]}: a value is too large for a double") from None
    # A sum is the cheapest check of all values; after an overflow each value is checked.
    if seconds is None or (not math.isfinite(sum(seconds)) and not all(map(math.isfinite, seconds))):
        raise BadReport(f"{name[:40]}: elapsed must be numbers of seconds")
    return Column(steps, numbers, seconds)


def _floats(numbers: list[object]) -> list[float] | None:
    """Return the list itself if it holds only floats, as almost every one does; None if not all are numbers."""
    kinds = set(map(type, numbers))
    if kinds == {float}:
        return numbers  # type: ignore[return-value]  # the line above
    return list(map(float, numbers)) if kinds <= {float, int} else None  # type: ignore[arg-type]  # the same


def _value(name: str, value: object) -> float:
    if type(value) in (float, int):
        return float(value)  # type: ignore[arg-type]  # the line above
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    raise BadReport(f"{name[:40]}: {str(value)[:40]!r} is not a number")
