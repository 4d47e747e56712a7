"""Notices: kinds of output that were nearly points or were dropped, each with a count, an example and advice.

Counts are totals of the attempt. A notice is spooled when it is new, then at most every few seconds, and at the end, so
that a line in a million costs an addition. The texts are data of the simulation: cleaned and cut here, and again by
the service.
"""

from __future__ import annotations

import time
from typing import Callable

NOT_RISING = "NOT_RISING"
NEARLY_JSON = "NEARLY_JSON"
STEP_UNUSABLE = "STEP_UNUSABLE"
STEP_AS_TEXT = "STEP_AS_TEXT"
VALUES_UNUSABLE = "VALUES_UNUSABLE"
BYTE_ORDER_MARK = "BYTE_ORDER_MARK"
NAME_UNUSABLE = "NAME_UNUSABLE"
TOO_MANY_METRICS = "TOO_MANY_METRICS"
LINE_TOO_LONG = "LINE_TOO_LONG"
LOG_LIMIT = "LOG_LIMIT"
LOG_RATE = "LOG_RATE"
UNKNOWN_PREFIX = "UNKNOWN_PREFIX"
HIGHER_RANK = "HIGHER_RANK"
OTHER_SOURCE = "OTHER_SOURCE"
TOO_MANY_FILES = "TOO_MANY_FILES"
FILE_LEFT_OUT = "FILE_LEFT_OUT"
FILES_NOT_STORED = "FILES_NOT_STORED"
JSON_ON_STDERR = "JSON_ON_STDERR"
LOOKS_LIKE_METRICS = "LOOKS_LIKE_METRICS"
SAMPLED = "SAMPLED"
PATTERN_UNUSABLE = "PATTERN_UNUSABLE"
PATTERN_SLOW = "PATTERN_SLOW"
PATTERN_UNMATCHED = "PATTERN_UNMATCHED"

ADVICE = {
    NOT_RISING: "Steps of a metric must rise; values at the same or a lower step are no points.",
    NEARLY_JSON: "The line is not valid JSON: print it with json.dumps, on a line of its own.",
    STEP_UNUSABLE: "step must be a whole number from 0 to 2^53: values at another one are no points.",
    STEP_AS_TEXT: "step is text and was read as a number: print it as a number.",
    VALUES_UNUSABLE: "Values that are text or lists are no points: print numbers.",
    BYTE_ORDER_MARK: "The line begins with a byte order mark, which was skipped: write UTF-8 without it.",
    NAME_UNUSABLE: "A metric's name has 1 to 256 characters, none of them NUL.",
    TOO_MANY_METRICS: "A simulation has at most 1,000 metrics; values of further ones are no points.",
    LINE_TOO_LONG: "A line longer than 1 MiB is cut, and holds no points.",
    LOG_LIMIT: "The log of an attempt ends at 64 MiB; this many bytes of output were dropped. Points are kept.",
    LOG_RATE: "The log takes 64 KiB a second; this many bytes of output were dropped. Points are kept.",
    UNKNOWN_PREFIX: "The line holds metrics but does not begin with {: print the object on a line of its own.",
    OTHER_SOURCE: "Each metric is taken from the source that gave it first.",
    TOO_MANY_FILES: "Of the event files of TensorBoard and W&B, 50 are read.",
    FILE_LEFT_OUT: "Stored are regular files, and links inside of their directory, with printable names.",
    FILES_NOT_STORED: "The newest files are on this machine only.",
    HIGHER_RANK: "Only rank 0's metrics are read: print them there.",
    JSON_ON_STDERR: "JSON lines are read from standard output: print them there.",
    LOOKS_LIKE_METRICS: "",  # the advice has the reason
    SAMPLED: "More than 2,000 lines a second look like metrics: some were not read. Print JSON, or print less often.",
    PATTERN_UNUSABLE: "The machine's Python can't compile this pattern.",
    PATTERN_SLOW: "This pattern took too long for a line and was switched off: avoid nested repetitions like (a+)+.",
    PATTERN_UNMATCHED: "This pattern matched no line.",
}

MAX_TEXT = 300
MAX_SUBJECTS = 5
SPACING_SECONDS = 5.0

Write = Callable[[str, int, str, str], None]


class _Notice:
    def __init__(self, example: str) -> None:
        self.count = 0
        self.example = example
        self.advice = ""
        self.subjects: dict[str, int] = {}
        self.written = 0  # the count that was written last
        self.due_at = 0.0


class Notices:
    """The notices of one attempt."""

    def __init__(self, write: Write) -> None:
        """write: takes kind, count, example and advice."""
        self._write = write
        self._notices: dict[str, _Notice] = {}

    def count(self, kind: str, example: str, *, subject: str = "", advice: str = "", by: int = 1) -> None:
        """Count an occurrence. The first example is kept; subjects (a metric, a rank) are counted each."""
        notice = self._notices.get(kind)
        if notice is None:
            notice = self._notices[kind] = _Notice(clean(example))
        notice.count += by
        notice.advice = advice or notice.advice
        if subject and (subject in notice.subjects or len(notice.subjects) < 1_000):
            notice.subjects[subject] = notice.subjects.get(subject, 0) + by

    def write_out(self, *, is_last: bool = False) -> None:
        """Write the changed notices that are due; with `is_last` all changed ones."""
        if not self._notices:
            return
        now = time.monotonic()
        for kind, notice in list(self._notices.items()):  # sources count in threads of their own
            if notice.count != notice.written and (is_last or now >= notice.due_at):
                notice.written, notice.due_at = notice.count, now + SPACING_SECONDS
                self._write(kind, notice.count, notice.example, clean(_sentence(kind, notice)))


def _sentence(kind: str, notice: _Notice) -> str:
    sentence = f"{ADVICE[kind]} {notice.advice}".strip()
    if not notice.subjects:
        return sentence
    named = [f"{clean(name)[:40]} ({count})" for name, count in list(notice.subjects.items())[:MAX_SUBJECTS]]
    more = len(notice.subjects) - len(named)
    return f"{', '.join(named)}{f' and {more} more' if more > 0 else ''}: {sentence}"


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Cut text to one printable line."""
    shown = "".join(
        character if character.isprintable() else " " for character in text[: limit + 1].strip("\ufeff\r\n")
    )
    return f"{shown[: limit - 1]}…" if len(shown) > limit else shown


def shorten(text: str, limit: int) -> str:
    """Cut a line in the middle: its beginning names the error, its end mostly the place."""
    if len(text) <= limit:
        return text
    end = limit // 3
    return f"{text[: limit - end - 3]} … {text[-end:]}"
