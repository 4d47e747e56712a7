"""Objects on a line: JSON, and Python dicts as trainers print them; several on one line, nested, behind a prefix.

A key of a nested object becomes `outer/inner`. Trainers that round (Hugging Face) print numbers
as text: in an object with an epoch, text that is a number counts as one.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from runner.supervisor.curve import MAX_STEP
from runner.supervisor.readers.grammar import is_metric, words_of

MAX_DEPTH = 4
MAX_DICT = 8 << 10  # characters
MAX_OBJECTS = 1_000  # of a line
_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[\s,;]*")
_NUMPY = re.compile(
    r"\b(?:np|numpy)\.(?:float|int|uint)\d*\((?P<number>[^()]*)\)|\b(?:tensor|array)\((?P<inner>[^()\[\]]*?)(?:,[^()]*)?\)"
)
_BARE_JSON = re.compile(r"(?<=[:\s,\[])([-+]?)(?:(nan)|(inf(?:inity)?))\b", re.IGNORECASE)  # of printf
_WRAPPED = re.compile(r"(?:[\w.]{0,60}(?:[dD]ict|Counter))\((?:<[^<>]{0,80}>, ?|None, ?)?$")
_BARE = re.compile(r"(?<=[:\s])(nan|-?inf)\b")
_STEP_NAMES = ("step", "global_step", "iteration", "iter", "num_updates")
_LOG_KEYS = frozenset(
    ["msg", "message", "level", "lvl", "levelname", "severity", "logger", "log", "event", "Action", "reason"]
)
# Text under one of these makes an object a record of a request, a job or a download, if it has neither step nor metric.
_RECORD_KEYS = frozenset({
    "status", "method", "path", "url", "uri", "request", "query", "ip", "remote_addr", "user_agent", "host", "hostname",
    "command", "cmd", "caller", "container", "pod", "namespace", "service", "component", "stream", "progress", "id",
})  # fmt: skip
_MOMENTS = frozenset({"time", "ts", "timestamp", "@timestamp", "datetime", "date"})
# What loggers number: without a step, an object of nothing else is no point.
_LOG_NUMBERS = frozenset({
    "time", "ts", "timestamp", "datetime", "date", "pid", "ppid", "tid", "uid", "gid", "process", "thread", "level",
    "lvl", "severity", "status", "statuscode", "code", "port", "line", "lineno", "duration", "elapsed", "took",
    "latency", "responsetime", "ms", "us", "ns", "v", "bytes", "offset", "attempt", "version",
    "index",
})  # fmt: skip


class Found(NamedTuple):
    """An object of a line, as numbers. `problem` is the kind of a notice, None if all is well."""

    step: int | None
    values: list[tuple[str, float]]
    is_whole: bool  # every key was used
    problem: str | None = None
    is_text_step: bool = False


def parse(text: str) -> tuple[list[Mapping[str, object]], bool]:
    """Return the JSON objects that a line begins with, one after the other, and whether they are all of it."""
    objects: list[Mapping[str, object]] = []
    position = 0
    try:
        while position < len(text) and len(objects) < MAX_OBJECTS:
            record, position = _DECODER.raw_decode(text, position)
            if type(record) is not dict:
                return objects, False
            objects.append(record)
            position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]  # it matches nothing, too
    except (ValueError, RecursionError):  # an integer of 5,000 digits is a ValueError, too
        return objects, False
    return objects, position == len(text)


def parse_bare(text: str) -> tuple[list[Mapping[str, object]], bool]:
    """Like `parse`, for JSON with `nan`, `-inf` as C prints them."""
    if len(text) > MAX_DICT or not _BARE_JSON.search(text):
        return [], False
    return parse(_BARE_JSON.sub(lambda found: "NaN" if found[2] else f"{found[1].strip('+')}Infinity", text))


def is_wrapper(text: str) -> bool:
    """True for what stands in front of the object in `OrderedDict({...})` and `defaultdict(<class 'float'>, {...})`."""
    return _WRAPPED.match(text) is not None


def parse_dict(text: str) -> Mapping[str, object] | None:
    """Return the Python dict that is the whole line, None if there is none. Evaluates literals only."""
    if len(text) > MAX_DICT:
        return None
    if "(" in text:
        text = _NUMPY.sub(lambda found: found["number"] or found["inner"] or "None", text)
    if "nan" in text or "inf" in text:
        text = _BARE.sub(
            lambda found: "1e999" if found[1] == "inf" else "-1e999" if found[1] == "-inf" else "'NaN'", text
        )
    try:
        record = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return record if type(record) is dict and all(type(key) is str for key in record) else None


def numbers_of(record: Mapping[str, object], *, is_dict: bool = False) -> Found:
    """Read the step and the numbers of an object."""
    takes_text = is_dict or "epoch" in record or "num_updates" in record
    step: int | None = None
    is_text = False
    values: list[tuple[str, float]] = []
    keys = 0
    name_of_step = _name_of_step(record, is_dict=is_dict)
    for key, raw in record.items():
        if key == name_of_step:
            step, is_text = _step(raw)
            is_text = is_text and key.lower() == "step"
            if step is None:
                return Found(None, [], False, "STEP_UNUSABLE")
            continue
        if type(raw) is float:
            keys += 1
            values.append((key, raw))
            continue
        for name, each in _flat(key, raw, 1):
            keys += 1
            value = _number(each, takes_text=takes_text)
            if value is not None:
                values.append((name, value))
    return Found(step, values, 0 < len(values) == keys, None if values else "VALUES_UNUSABLE", is_text)


def _name_of_step(record: Mapping[str, object], *, is_dict: bool) -> str | None:
    """The key that is the step. Others than `step` count only as whole numbers, and not beside an epoch: within it."""
    if "step" in record:
        return "step"
    if _is_step(record.get("num_updates")):
        return "num_updates"
    if is_dict and _is_step(record.get("global_step")):
        return "global_step"
    found = next((key for key in record if key.lower() in _STEP_NAMES), None)
    if found is None or (found.lower() != "step" and any(key.lower() == "epoch" for key in record)):
        return None
    return found if found.lower() == "step" or _is_step(record[found]) else None


def not_numbers(record: Mapping[str, object]) -> str:
    """The first metric of an object whose value is text or a list of numbers; empty: there is none."""
    for key, raw in record.items():
        if type(raw) is list and raw and is_metric(key) and all(type(each) in (int, float) for each in raw):
            return key
        if type(raw) is str and is_metric(key) and _number(raw, takes_text=True) is not None:
            return key
    return ""


def holds_metrics(record: Mapping[str, object]) -> bool:
    """True if an object is meant as points: it has a step, or a number under a metric's name."""
    if any(name in record for name in (*_STEP_NAMES, "epoch")):
        return any(_is_any_number(value) for key, value in record.items() if key not in _STEP_NAMES)
    return any(is_metric(key) and _is_any_number(value) for key, value in record.items())


def is_meant(record: Mapping[str, object]) -> bool:
    """True if an object without numbers was still meant as points: by its step, or a metric's name."""
    return any(name in record for name in (*_STEP_NAMES, "epoch")) or any(map(is_metric, record))


def is_log_record(record: Mapping[str, object]) -> bool:
    """True for a structured logger's line, whose numbers are times, process ids and codes of errors."""
    if any(type(record.get(key)) is str for key in _LOG_KEYS):
        return not holds_metrics({key: value for key, value in record.items() if key not in ("error", "err")})
    if holds_metrics(record):
        return False
    if any(type(record.get(key)) is str for key in _RECORD_KEYS):
        return True
    if "level" in record and not _MOMENTS.isdisjoint(record):  # pino, bunyan, zap
        return True
    numbers = [key for key, raw in record.items() if _is_any_number(raw)]
    return bool(numbers) and all(map(_is_log_number, numbers))


@lru_cache(maxsize=4_096)
def _is_log_number(name: str) -> bool:
    return not _LOG_NUMBERS.isdisjoint(words_of(name))


def _flat(key: str, raw: object, depth: int) -> Iterator[tuple[str, object]]:
    if type(raw) is dict and depth < MAX_DEPTH and raw:
        for inner, each in raw.items():
            yield from _flat(f"{key}/{inner}", each, depth + 1)
    else:
        yield key, raw


def _is_any_number(raw: object) -> bool:
    if type(raw) is dict:
        return any(_is_any_number(each) for each in list(raw.values())[:100])
    return _number(raw, takes_text=True) is not None


def _is_step(raw: object) -> bool:
    return _step(raw)[0] is not None


def _step(raw: object) -> tuple[int | None, bool]:
    is_text = type(raw) is str
    if is_text:
        try:
            raw = float(raw) if len(raw) <= 32 else None  # type: ignore[arg-type]  # the line above
        except ValueError:
            return None, True
    if type(raw) is float and raw.is_integer():
        raw = int(raw)
    return (raw if type(raw) is int and 0 <= raw <= MAX_STEP else None), is_text


def _number(raw: object, *, takes_text: bool) -> float | None:
    if type(raw) is str and takes_text:
        try:
            return float(raw) if len(raw) <= 32 and "_" not in raw else None
        except ValueError:
            return None
    if type(raw) is int:
        try:
            return float(raw)
        except OverflowError:
            return None
    return raw if type(raw) is float else None  # a bool is no number


def is_nearly_json(text: str) -> bool:
    """True for a line that was meant as an object: `{"step": 1, "loss": 0.5,}`, `{step: 1}`, `{"step": 1, "lo`."""
    return bool(_NEARLY.match(text)) and (text.rstrip().endswith("}") or bool(_BEGUN.match(text)))


_NEARLY = re.compile(r"""\s*\{\s*["']?[A-Za-z_][\w/.-]*["']?\s*:\s*[-+"'\d.\[{a-zA-Z]""")
_BEGUN = re.compile(r"""\{\s*["'](?:global_step|step|epoch|iteration|iter|loss)["']\s*:\s*[-+]?\d""")
