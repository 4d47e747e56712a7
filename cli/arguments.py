"""Parsing of command-line values: durations, key=value pairs, ids. Raises `UsageError`: expected and got."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from cli.errors import UsageError

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
NAMED = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
STATES = ("QUEUED", "STARTING", "RUNNING", "FINISHED", "FAILED", "CANCELLED")
MACHINE_STATES = ("ONLINE", "DRAINING", "OFFLINE")
Retryable: TypeAlias = Literal["MACHINE_LOST", "EXIT_CODE", "LAUNCH_ERROR"]
Mode: TypeAlias = Literal["MIN", "MAX"]
MetricsFrom: TypeAlias = Literal["AUTO", "JSON", "NONE"]
CONDITIONS = ("SUCCESS", "FAILURE", "ANY")
Condition: TypeAlias = Literal["SUCCESS", "FAILURE", "ANY"]
STREAMS = ("STDOUT", "STDERR", "SUPERVISOR")
PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)?")
LONG_WORD = 200  # characters: a path is shorter
MOST_DIGITS = 20  # of a whole number in 64 bits, and as many with a sign
LONGEST = timedelta(days=100_000)


def parse_duration(text: str) -> timedelta:
    """Parse "90", "90s", "15m", "1.5h", "1h30m", "2d"; a bare number counts seconds."""
    expected = f"expected a duration like 90s, 15m, 1h30m or 2d, got {text!r}"
    rest = text.strip().lower()
    seconds = 0.0
    parts = 0
    while rest:
        match = PART.match(rest)
        # "1h30" could mean minutes or seconds: only a single number may omit the unit.
        if match is None or (match[2] is None and (parts or match.end() != len(rest))):
            raise UsageError(f"{expected}{_right_unit(text)}")
        seconds += float(match[1]) * UNITS[match[2] or "s"]
        rest = rest[match.end() :].lstrip()
        parts += 1
    if not parts or not 0 < seconds <= LONGEST.total_seconds():
        raise UsageError(expected)
    return timedelta(seconds=seconds)


def _right_unit(text: str) -> str:
    """Suggest the spelling of a misspelt unit; empty if unknown."""
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in UNITS:
            continue
        short = word.removesuffix("s") if len(word) > 2 else word  # "ms" is not minutes
        begun = (unit for unit, name in NAMED.items() if name.startswith(short))
        meant = difflib.get_close_matches(word, NAMED.values(), n=1, cutoff=0.75)
        alike = next((unit for unit, name in NAMED.items() if name in meant), None)
        right = "h" if word in ("hr", "hrs") else next(begun, alike)
        if right:
            return f"; {word} is written {right}"
    return ""


def parse_parameters(pairs: Sequence[str], option: str = "--parameter") -> dict[str, object]:
    """Parse key=value pairs; a value is JSON if it parses as JSON, else text."""
    return {key: parse_value(value, f"{option} {key}") for key, value in parse_pairs(pairs, option).items()}


def parse_value(text: str, option: str) -> object:
    """Parse JSON, or else take the text as it is. Raises `UsageError` for whole numbers that would be rounded."""

    def whole(digits: str) -> int:
        if len(digits) > MOST_DIGITS or not fits_64_bits(int(digits)):
            raise UsageError(
                f"{option}: {_short(digits)} is a whole number beyond 64 bits: quote it to send it as text: "
                f"'\"{_short(digits)}\"'"
            )
        return int(digits)

    try:
        # Python parses Infinity and NaN, which are not JSON: they stay text.
        return json.loads(text, parse_constant=lambda constant: constant, parse_int=whole)
    except (ValueError, RecursionError):
        return text


def fits_64_bits(number: int) -> bool:
    """Whether JSON brings this number to the service as it is: the service reads larger ones as floats."""
    return -(2**63) <= number < 2**64


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Parse key=value pairs; keys are unique."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        key = key.strip()
        if not separator or not key:
            raise UsageError(f"{option}: expected KEY=VALUE, got {pair!r}")
        if key in found:
            raise UsageError(f"{option}: {key} is given twice")
        found[key] = value
    return found


def absolute_directory(path: str | None) -> str | None:
    """Resolve a working directory against the current directory, and `~`."""
    return str(Path(path).expanduser().absolute().resolve()) if path is not None else None


def relative_files(command: Sequence[str]) -> list[str]:
    """Find arguments that are relative paths of existing files: the simulation starts in another directory."""
    return [word for word in command if _is_relative_file(word)]


def is_node_id(text: str, typename: str) -> bool:
    """Whether `text` is the API's id of a `typename` (Relay: base64 of "Machine:3"), not a name."""
    try:
        kind, _, number = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return False
    return kind == typename and number.isdigit()


def written_out(command: Sequence[str], names: Collection[str]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Find options of a command that are named as a parameter: each with its value, and the command with `{name}`."""
    plain = {_plain(name): name for name in names}
    for place, word in enumerate(command):
        option, is_one, value = word.partition("=")
        name = plain.get(_plain(option.lstrip("-")))
        if name is None or (not is_one and not option.startswith("-")):
            continue
        if is_one:
            yield name, value, [*command[:place], f"{option}={{{name}}}", *command[place + 1 :]]
        elif place + 1 < len(command):
            yield name, command[place + 1], [*command[: place + 1], f"{{{name}}}", *command[place + 2 :]]


def short_command(command: Sequence[str]) -> str:
    """Quote a command for a line of text; a whole program among its words is `…`."""
    return " ".join(shlex.quote(word) if len(word) <= LONG_WORD and word.isprintable() else "…" for word in command)


def is_written(word: str, value: object) -> bool:
    """Whether a word of a command is this value of a parameter."""
    try:
        return word == (value if isinstance(value, str) else json.dumps(value)) or float(word) == value
    except ValueError:
        return False


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _short(digits: str) -> str:
    return digits if len(digits) <= 60 else f"{digits[:20]}…"


def _is_relative_file(word: str) -> bool:
    if not word or word.startswith(("/", "-", "~")) or "\0" in word:
        return False
    try:
        return Path(word).is_file()
    except OSError:  # name too long
        return False


def parse_words(option: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Parse names from a fixed list, in any case, comma-separated or repeated."""
    words = [word.strip().upper() for text in given for word in text.split(",")]
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            meant = f"; did you mean {near[0].lower()}?" if near else ""
            raise UsageError(f"{option}: expected one of {', '.join(known).lower()}, got {word.lower()!r}{meant}")
    return words


def parse_states(given: Sequence[str], known: Sequence[str] = STATES) -> list[str]:
    """Parse names of states."""
    return parse_words("--state", given, known)


def parse_deadline(text: str) -> str:
    """Parse a duration from now, `now`, or a time (without an offset: local time) into ISO 8601 in UTC."""
    word = text.strip().lower()
    if word == "now":
        return datetime.now(UTC).isoformat()
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        return (datetime.now(UTC) + parse_duration(word)).isoformat()
    except (UsageError, OverflowError):
        expected = "expected a duration like 30m or 2h, now, or a time like 2026-11-30T08:00"
        raise UsageError(f"--deadline: {expected}, got {text!r}") from None


def parse_after(text: str) -> dict[str, object]:
    """Parse ID or ID:CONDITION into an AfterInput."""
    found, _, condition = text.strip().partition(":")
    if not found:
        raise UsageError(f"--after: expected ID or ID:any, got {text!r}")
    if not condition:
        return {"simulation": found}
    return {"simulation": found, "condition": parse_words("--after", [condition], CONDITIONS)[0]}


def parse_project_change(weight: str | None, gpu_quota: str | None) -> dict[str, object]:
    """Build an UpdateProjectInput without the id."""
    wanted: dict[str, object] = {}
    if weight is not None:
        wanted["weight"] = weight
    if gpu_quota is not None:
        word = gpu_quota.strip().lower()
        if word != "none" and not (word.isascii() and word.isdigit()):
            raise UsageError(f"--gpu-quota: expected a number of GPUs or none, got {gpu_quota!r}")
        wanted["gpuQuota"] = None if word == "none" else int(word)
    if not wanted:
        raise UsageError("Nothing to change. Give an option: simulations projects update --help")
    return wanted
