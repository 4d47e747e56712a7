"""Parsing of what a sweep searches: `-p lr=log:1e-4..1e-1 -p batch=64,128`, and names of samplers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from cli.arguments import parse_pairs, parse_value
from cli.errors import UsageError

MOST_WHOLE = 2**53  # samplers compute in doubles
EXPECTED = "expected LOW..HIGH, log:LOW..HIGH, LOW..HIGH:STEP, or choices like 64,128"
SAMPLERS = {
    "tpe": "TPE", "bayes": "TPE", "random": "RANDOM", "grid": "GRID", "quasi-random": "QUASI_RANDOM",
    "qmc": "QUASI_RANDOM", "sobol": "QUASI_RANDOM", "cma-es": "CMA_ES", "cmaes": "CMA_ES",
}  # fmt: skip
PRUNING = ("HALVING", "MEDIAN", "NONE")
_RANGE = re.compile(r"((?:(?:log|int|float):)*)([^:,]*?)\.\.([^:,]*)(?::(.*))?")
# Two words with two dots between them are meant as a range, even if no numbers. Paths and quoted texts are not.
_LIKE_RANGE = re.compile(r"""[^/\\"']*[^/\\"'.\s]\s*\.\.\s*[^/\\"'.\s][^/\\"']*""")
_WHOLE = re.compile(r"[-+]?\d+")


def parse_space(given: Sequence[str]) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Parse `-p` options: (searched parameters, parameters that are the same for all). Raises `UsageError`."""
    searched: list[dict[str, object]] = []
    fixed: dict[str, object] = {}
    for name, text in parse_pairs(given, "--parameter").items():
        found = parse_parameter(name, text)
        if "value" in found:
            fixed[name] = found["value"]
        else:
            searched.append({"name": name, **found})
    return searched, fixed


def parse_parameter(name: str, text: str) -> Mapping[str, object]:
    """Parse a range, choices, or a single value (`value`), which is JSON if it parses as JSON."""
    range_ = _RANGE.fullmatch(text.strip())
    if range_ is not None and (range_[1] or _is_number(range_[2])):  # a path like ../data is none
        return _range(name, text, range_)
    if text.partition(":")[0] in ("log", "int", "float"):
        raise UsageError(f"--parameter {name}: {EXPECTED}, got {text!r}")
    if text.lstrip().startswith(("[", "{")):
        value = parse_value(text, f"--parameter {name}")
        return {"choices": value} if isinstance(value, list) else {"value": value}
    words = [word.strip() for word in text.split(",")]
    if any(map(_LIKE_RANGE.fullmatch, words)):
        raise UsageError(f"--parameter {name}: {EXPECTED}, got {text!r}; a text with two dots is quoted: '\"a..b\"'")
    if len(words) == 1:
        return {"value": parse_value(words[0], f"--parameter {name}")}
    if not all(words):
        raise UsageError(f"--parameter {name}: a choice is empty in {text!r}")
    return {"choices": [parse_value(word, f"--parameter {name}") for word in words]}


def parse_sampler(text: str) -> str:
    """Return the API's name of a sampler."""
    found = SAMPLERS.get(text.strip().lower().replace("_", "-"))
    if found is None:
        known = "tpe, random, grid, quasi-random, cma-es"
        raise UsageError(f"--sampler: expected one of {known}, got {text!r}")
    return found


def say_sampler(sampler: str) -> str:
    """Return a sampler's name as `--sampler` takes it: `quasi-random` for QUASI_RANDOM."""
    return sampler.lower().replace("_", "-")


def parse_pruning(text: str) -> str:
    """Return the API's name of a rule that prunes trials."""
    found = text.strip().upper()
    if found not in PRUNING:
        raise UsageError(f"--pruning: expected one of {', '.join(PRUNING).lower()}, got {text!r}")
    return found


def _range(name: str, text: str, match: re.Match[str]) -> Mapping[str, object]:
    kinds = set(re.findall(r"\w+", match[1]))
    words = [word for word in (match[2], match[3], match[4]) if word is not None]
    numbers = [_number(name, text, word) for word in words]
    low, high, *step = numbers
    made: dict[str, object] = {"low": low, "high": high}
    if step:
        made["step"] = step[0]
    if "log" in kinds:
        made["log"] = True
    if "int" in kinds or ("float" not in kinds and all(map(_WHOLE.fullmatch, words))):
        made["integer"] = True
    return made


def _number(name: str, text: str, word: str) -> float:
    try:
        number = float(word.replace("_", ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--parameter {name}: {EXPECTED}, got {text!r}")
    if not _WHOLE.fullmatch(word):
        return number
    if abs(int(word)) > MOST_WHOLE:
        raise UsageError(
            f"--parameter {name}: whole numbers of a range end at 2^53, as samplers compute in doubles: give larger "
            "ones as choices"
        )
    return int(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
