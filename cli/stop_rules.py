"""Parsing of `--stop` and `--objective`: a stop rule as words with commas, an objective as METRIC[:MODE].

    plateau,metric=val/loss                 the default rule
    patience=10,min-delta=0.001,metric=acc,mode=max
    target=0.95,metric=acc,no-plateau,no-rising,dry-run

The words are the options of the API's StopRuleInput. A word alone switches an option on, with `no-` off. What a rule
must fulfil is judged by the server. Raises `UsageError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from pydantic.alias_generators import to_camel

from cli.arguments import Mode, parse_words
from cli.errors import UsageError

SWITCHES = ("plateau", "rising", "check-finite", "aggressive", "dry-run")
OTHER_WORDS = {"target": "stopping-threshold", "threshold": "stopping-threshold", "diverge": "divergence-threshold"}


def _whole(text: str) -> int:
    return int(text.replace("_", ""))


def _mode(text: str) -> str:
    return parse_words("--stop mode", [text], get_args(Mode))[0]


OPTIONS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "metric": (str, "a metric's name"),
    "mode": (_mode, "min or max"),
    "min-delta": (float, "a number"),
    "patience": (_whole, "a whole number of evaluations"),
    "grace-period": (_whole, "a step"),
    "stopping-threshold": (float, "a number"),
    "divergence-threshold": (float, "a number"),
    "smoothing": (float, "a number from 0 to below 1"),
}


def parse_rules(given: Sequence[str]) -> list[dict[str, object]]:
    """Parse each `--stop` into a StopRuleInput."""
    return [_rule(text) for text in given]


def parse_objective(text: str | None) -> dict[str, object] | None:
    """Parse METRIC, METRIC:min or METRIC:max into an ObjectiveInput."""
    if text is None:
        return None
    metric, separator, mode = text.rpartition(":")
    if separator and mode.upper() in get_args(Mode):
        return {"metric": metric, "mode": mode.upper()}
    return {"metric": text}


def _rule(text: str) -> dict[str, object]:
    rule: dict[str, object] = {}
    for word in (each.strip() for each in text.split(",")):
        name, separator, value = word.partition("=")
        name = OTHER_WORDS.get(name.strip().replace("_", "-"), name.strip().replace("_", "-"))
        if separator:
            field, parsed = name, _value(name, value.strip())
        else:
            field = name.removeprefix("no-")
            parsed = field == name
            if field not in SWITCHES:
                raise UsageError(f"--stop: {_unknown(name)}")
        if to_camel(field.replace("-", "_")) in rule:
            raise UsageError(f"--stop: {field} is given twice in {text!r}")
        rule[to_camel(field.replace("-", "_"))] = parsed
    return rule


def _value(name: str, value: str) -> object:
    if name not in OPTIONS:
        raise UsageError(f"--stop: {_unknown(name)}")
    parse, expected = OPTIONS[name]
    try:
        return parse(value)
    except ValueError:
        raise UsageError(f"--stop: {name}: expected {expected}, got {value!r}") from None


def _unknown(name: str) -> str:
    known = [*OPTIONS, *SWITCHES]
    near = difflib.get_close_matches(name, known, n=1)
    if name in OPTIONS:
        return f"{name} needs a value: {name}={OPTIONS[name][1]}"
    if name in SWITCHES:
        return f"{name} has no value: {name} or no-{name}"
    meant = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
    return f"{name!r} is no part of a stop rule{meant}"
