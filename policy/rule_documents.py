"""Stop rules as a JSON document, as a simulation's row keeps them: versioned, with what differs from the defaults only.

`encode` writes validated rules, `decode` completes them with what the row has beside them: the objective, for which
alone `check_finite` stops, and `max_steps`. Keys that a newer version may have added are ignored. Of a sweep's trial
the document also has the rule that prunes it, beside its own rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from policy.stopping import StopRules
from policy.sweep import Halving, Median, Pruning

VERSION = 1
MOST_RULES = 10  # of one simulation
SINCE = ("since_step", "since_attempt")  # fields of a rule that say from where on it decides

_PRUNING: Mapping[str, type[Halving | Median]] = {"halving": Halving, "median": Median}
_BESIDE = "max_steps"  # kept in the row, not in the document
_FIELDS = tuple(each for each in fields(StopRules) if each.name != _BESIDE)


@dataclass(frozen=True, slots=True)
class Declared:
    """Rules for one metric. A dry run records what they would have stopped, and stops nothing."""

    rules: StopRules
    dry_run: bool = False
    since_step: int | None = None  # points up to this step decide nothing: the rules were given after it
    since_attempt: int | None = None  # in this attempt, and in earlier ones; None: in any


def encode(declared: Sequence[Declared]) -> dict[str, Any]:
    """Write the rules of a simulation."""
    return {"version": VERSION, "rules": [_entry(each) for each in declared]}


def decode(document: Mapping[str, Any] | None, *, objective: str | None, max_steps: int | None) -> tuple[Declared, ...]:
    """Read the rules of a simulation, in the order in which they were given; none from no document."""
    entries = document["rules"] if document is not None else ()
    return tuple(_declared(each, objective, max_steps) for each in entries)


def with_pruning(document: Mapping[str, Any] | None, metric: str, pruning: Pruning) -> dict[str, Any]:
    """Add the rule that prunes a trial to the rules of its simulation."""
    name = next(name for name, kind in _PRUNING.items() if isinstance(pruning, kind))
    return {**(document or {"version": VERSION, "rules": []}), name: {"metric": metric, **asdict(pruning)}}


def counting_after(document: Mapping[str, Any], last_steps: Mapping[str, int], attempt: int) -> dict[str, Any]:
    """Return the rules of a simulation that is in this attempt, so that only points after these steps decide.

    last_steps: of each metric that was reported. Rules that are given or judged otherwise while it runs must not stop
    it for what was before.
    """
    rules = [{name: each for name, each in entry.items() if name not in SINCE} for entry in document["rules"]]
    for entry in rules:
        if entry["metric"] in last_steps:
            entry |= {"since_step": last_steps[entry["metric"]], "since_attempt": attempt}
    return {**document, "rules": rules}


def pruning_in(document: Mapping[str, Any] | None) -> tuple[str, Pruning] | None:
    """Read the rule that prunes a trial, and its metric; None without one."""
    for name, kind in _PRUNING.items():
        kept = document.get(name) if document is not None else None
        if kept is not None:
            return kept["metric"], kind(**{each.name: kept[each.name] for each in fields(kind) if each.name in kept})
    return None


def _entry(declared: Declared) -> dict[str, Any]:
    rules = declared.rules
    entry = {each.name: getattr(rules, each.name) for each in _FIELDS if getattr(rules, each.name) != each.default}
    entry["mode"] = rules.mode  # always: a default may change, a direction must not
    if declared.dry_run:
        entry["dry_run"] = True
    since = {name: getattr(declared, name) for name in SINCE}
    return entry | {name: each for name, each in since.items() if each is not None}


def _declared(entry: Mapping[str, Any], objective: str | None, max_steps: int | None) -> Declared:
    rules = StopRules(**{each.name: entry[each.name] for each in _FIELDS if each.name in entry}, max_steps=max_steps)
    if rules.metric != objective:
        rules = replace(rules, check_finite=False)
    return Declared(rules, bool(entry.get("dry_run")), *(entry.get(name) for name in SINCE))
