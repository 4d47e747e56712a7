"""What is written to the terminal: text from others made harmless, times in words, and the two places to write to.

Names, logs and messages come from other people. `clean` takes out what could move the cursor, colour, or reorder
text; and they are shown as `Text`, never as Rich's markup.
"""

from __future__ import annotations

import json
import unicodedata
from datetime import datetime, timedelta

from rich.console import Console
from rich.text import Text

# Control, format (bidirectional overrides, zero width), surrogate, private use, line and paragraph separators.
UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
WIDE = 10_000  # columns of an output that is no terminal: whoever reads it there cuts lines himself

STYLES = {
    "QUEUED": "yellow", "STARTING": "cyan", "RUNNING": "bold cyan",
    "FINISHED": "green", "FAILED": "bold red", "CANCELLED": "magenta",
}  # fmt: skip


def stdout() -> Console:
    """Open standard output, for results."""
    return _as_wide_as_needed(Console(highlight=False, markup=False, emoji=False))


def stderr() -> Console:
    """Open standard error, for everything that is said about the work."""
    return _as_wide_as_needed(Console(highlight=False, markup=False, emoji=False, stderr=True))


def say(sentence: str, *, style: str = "") -> None:
    """Write a line to standard error."""
    stderr().print(Text(sentence, style=style), soft_wrap=True)


def print_line(line: str | Text) -> None:
    """Write a line to standard output."""
    stdout().print(line, soft_wrap=True)


def print_json(value: object) -> None:
    """Write a value to standard output as one line of JSON, in ASCII: what is escaped can do nothing to a terminal."""
    print_line(json.dumps(value, ensure_ascii=True))


def clean(text: str, *, limit: int = 500) -> str:
    """Make somebody else's text safe to show on one line."""
    spaced = (" " if character.isspace() else character for character in text[: limit + 1])
    shown = "".join(character for character in spaced if unicodedata.category(character) not in UNSAFE)
    return f"{shown[:limit]}…" if len(text) > limit else shown


def state_text(state: str) -> Text:
    """Show a state in its colour."""
    return Text(clean(state), style=STYLES.get(state, ""))


def say_duration(duration: timedelta) -> str:
    """Say a duration in its two biggest units: "12.3 s", "4 min 10 s", "2 h 5 min", "3 d 1 h"."""
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
    """Say how long ago something was, in its biggest unit."""
    duration = now - moment
    if duration < timedelta(seconds=1):
        return "just now"
    return f"{say_duration(timedelta(seconds=int(duration.total_seconds()))).replace('.0 s', ' s')} ago"


def say_number(value: float) -> str:
    """Write a value in four digits, the way people write it."""
    return f"{value:.4g}"


def _as_wide_as_needed(console: Console) -> Console:
    if not console.is_terminal:
        console.width = WIDE
    return console
