"""The default name of a simulation, derived from its entrypoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

LONGEST = 100  # characters
# Each with the option behind which a program stands instead of the name of one.
INTERPRETERS = (
    (re.compile(r"(?:python|pypy|bash|dash|zsh|sh|uv|uvx)[\d.]*"), re.compile(r"-[a-z]*c")),
    (re.compile(r"(?:node|ruby|perl|julia|Rscript)[\d.]*"), re.compile(r"-e|--eval")),
)
VALUE_FOLLOWS = frozenset({"-W", "-X", "--with", "--python", "--project"})  # what stands behind these is no script


def name_of(entrypoint: Sequence[str]) -> str:
    """Name it after the script or module rather than the interpreter, without folders and options."""
    program = entrypoint[0]
    name = next((_run_by(entrypoint, code) for each, code in INTERPRETERS if each.fullmatch(_last_part(program))), None)
    readable = "".join(character for character in _last_part(name or program) if character.isprintable())
    return readable[:LONGEST].strip() or "simulation"


def _run_by(entrypoint: Sequence[str], code: re.Pattern[str]) -> str | None:
    for before, word in pairwise(entrypoint):
        if code.fullmatch(word):
            return None
        if not word.startswith("-") and before not in VALUE_FOLLOWS and word != "run":
            return word
    return None


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
