"""Terminal output: sanitised text, formatted times, standard output and standard error.

Names, logs and messages are other users' input. `clean` removes characters that move the cursor, set colours or
reorder text; the rest is shown as `Text`, never as Rich's markup. A failed write to standard output ends the command
with `OutputClosed` or `OutputFailed`; a failed write to standard error is ignored.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, TextIO

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.text import Text

from cli.errors import OutputClosed, OutputFailed

# Control, format (bidirectional overrides, zero width), surrogate, private use, line and paragraph separators.
UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
COLOURS = re.compile(r"(\x1b\[[0-9;:]{0,48}m)")  # SGR, ECMA-48
MOST_DIGITS = 12  # beyond are errors of rounding, as in 0.1 + 0.2
WIDE = 10_000  # columns of an output that is no terminal: its reader truncates lines

STYLES = {
    "QUEUED": "yellow", "STARTING": "cyan", "RUNNING": "bold cyan",
    "FINISHED": "green", "FAILED": "bold red", "CANCELLED": "magenta",
    "ONLINE": "green", "DRAINING": "yellow", "OFFLINE": "bold red",
}  # fmt: skip


class Results(Console):
    """Standard output. A closed reader ends the command."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _silence(sys.stdout)
        raise OutputClosed

    def print(self, *objects: Any, **how: Any) -> None:
        with self._written():
            super().print(*objects, **how)

    def write(self, text: str, style: str = "") -> None:
        """Write text without adding a newline; unchanged if standard output is no terminal."""
        if self.is_terminal:
            self.draw(Text(text, style=style))
            return
        with self._written():
            self.file.write(text)
            self.file.flush()

    def draw(self, text: Text) -> None:
        """Write styled text without adding a newline."""
        self.print(text, end="", soft_wrap=True)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.on_broken_pipe()
        except OSError as error:
            self.quiet = True
            _silence(sys.stdout)
            raise OutputFailed(f"Standard output can't be written: {error.strerror or error}.") from error


class Remarks(Console):
    """Standard error. Failed writes are ignored: they must not stop the work."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _silence(sys.stderr)

    def print(self, *objects: Any, **how: Any) -> None:
        try:
            super().print(*objects, **how)
        except OSError:
            self.on_broken_pipe()


def stdout() -> Results:
    """Open standard output, for results."""
    console = Results(highlight=False, markup=False, emoji=False)
    _widen(console)
    return console


def stderr() -> Console:
    """Open standard error, for messages."""
    console = Remarks(highlight=False, markup=False, emoji=False, stderr=True)
    _widen(console)
    return console


def say(sentence: str, *, style: str = "") -> None:
    """Write a line to standard error."""
    stderr().print(Text(sentence, style=style), soft_wrap=True)


def can_ask() -> bool:
    """Whether a person can answer a question: standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str) -> bool:
    """Ask on standard error. Anything but y or yes is a no."""
    stderr().print(Text(f"{question} [y/N] "), end="", soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # Ctrl-D
        say("")
    return answer.strip().lower() in ("y", "yes")


def print_line(line: str | Text) -> None:
    """Write a line to standard output."""
    stdout().print(line, soft_wrap=True)


def print_json(value: object) -> None:
    """Write a value to standard output as one line of JSON, in ASCII: escaped characters can't affect a terminal."""
    print_line(json.dumps(value, ensure_ascii=True))


def clean(text: str, *, limit: int = 500) -> str:
    """Sanitise untrusted text for one line."""
    spaced = (" " if character.isspace() else character for character in text[: limit + 1])
    shown = "".join(character for character in spaced if unicodedata.category(character) not in UNSAFE)
    return f"{shown[:limit]}…" if len(text) > limit else shown


def formula_safe(text: str) -> str:
    """Sanitise untrusted text for a cell, and keep a spreadsheet from computing what begins like a formula."""
    text = clean(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def shows_as_written(text: str) -> bool:
    """Whether `clean` would not change the text."""
    return all(each == " " or (not each.isspace() and unicodedata.category(each) not in UNSAFE) for each in text)


def clean_lines(text: str) -> str:
    """Sanitise untrusted text of several lines; an overwritten line (\\r) keeps its last form."""
    return "\n".join(_clean_line(line) for line in text.split("\n"))


def coloured_lines(text: str, style: str = "") -> Text:
    """Sanitise untrusted text of several lines but for its colours, which end with each line. Ends with a newline."""
    lines = Text(style=style)
    for line in text.split("\n"):
        if "\x1b" not in line:
            lines.append(_clean_line(line))
        else:
            last = line.rstrip("\r").rpartition("\r")[2]
            parts = COLOURS.split(last)  # every second one is a colour
            safe = "".join(part if at % 2 else _clean_line(part) for at, part in enumerate(parts))
            lines.append_text(AnsiDecoder().decode_line(safe))
        lines.append("\n")
    return lines


def state_text(state: str) -> Text:
    """Show a state in its colour."""
    return Text(clean(state), style=STYLES.get(state, ""))


def say_duration(duration: timedelta) -> str:
    """Format a duration in its two biggest units: "12.3 s", "4 min 10 s", "2 h 5 min", "3 d 1 h"."""
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, smaller_size in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{seconds:.1f} s"


def say_age(moment: datetime, now: datetime) -> str:
    """Format the time since a moment, in its biggest unit."""
    duration = now - moment
    if duration < timedelta(seconds=1):
        return "just now"
    return f"{say_duration(timedelta(seconds=int(duration.total_seconds()))).replace('.0 s', ' s')} ago"


def say_number(value: float, digits: int = 4) -> str:
    """Format a value with so many significant digits, or more where it would read as an integer that it is not."""
    for most in range(digits, MOST_DIGITS):
        text = f"{value:.{most}g}"
        if not text.removeprefix("-").isdigit() or value == int(text):
            break
    return text


def say_count(count: float, one: str, several: str = "") -> str:
    """Format how many there are: "1 trial", "1,200 trials", "2.5 cpus". several: the plural, if it has no -s."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {several or f'{one}s'}"


def _clean_line(line: str) -> str:
    if line.isprintable():  # almost all are
        return line
    last = line.rstrip("\r").rpartition("\r")[2]
    return "".join(each for each in last if each == "\t" or unicodedata.category(each) not in UNSAFE)


def _silence(stream: TextIO) -> None:
    """Discard buffered output: flushing it at exit would fail again, with a traceback."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _widen(console: Console) -> None:
    if not console.is_terminal:
        console.width = WIDE
