"""Options that sort and filter simulations, as the API's variables: sort keys, comparisons of parameters, times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cli.arguments import parse_duration, parse_states, parse_value
from cli.errors import CommandError, UsageError
from cli.terminal import clean

FIELDS = {
    "created": "CREATED_AT", "started": "STARTED_AT", "finished": "FINISHED_AT", "name": "NAME",
    "priority": "PRIORITY", "cost": "COST",
}  # fmt: skip
PARAMETER = "param:"
COMPARISONS = {"<": "LT", "<=": "LE", ">": "GT", ">=": "GE", "=": "EQ", "==": "EQ", "!=": "NE"}
WHERE = re.compile(r"\s*(?P<name>[^<>=!]+?)\s*(?P<sign><=|>=|!=|==|=|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)
# A comma between two comparisons: not one within quotes, nor one of a word (`note=a,b`).
BETWEEN = re.compile(r',(?=\s*[^<>=!,"]+[<>=!])(?=(?:[^"]*"[^"]*")*[^"]*$)')
# Behind a number, and without a comma: another comparison.
ANOTHER = re.compile(r"(?P<first>\S+?)\s+(?:(?:and|AND|&&|&)\s+)?(?P<other>[^<>=!\s\"]+\s*[<>=!].*)", re.DOTALL)
NOT_FINITE = frozenset({"inf", "infinity", "nan"})


@dataclass(frozen=True, slots=True)
class Sorting:
    """A sort order. metric, parameter: the one that is also shown."""

    field: str
    direction: str | None = None
    mode: str | None = None
    metric: str | None = None
    parameter: str | None = None

    def as_order(self) -> dict[str, object]:
        """Return the API's SimulationOrder."""
        named = {"name": self.metric or self.parameter, "mode": self.mode, "direction": self.direction}
        return {"field": self.field, **{name: value for name, value in named.items() if value is not None}}

    def as_typed(self, refusal: CommandError) -> CommandError:
        """Return the API's refusal of this order in the words of `--sort`; others as they are."""
        if "orderBy.mode" not in str(refusal) or self.metric is None:
            return refusal
        name = clean(self.metric)
        return UsageError(
            f"--sort: the name {name} does not imply whether lower or higher is better: write --sort '{name}:min', "
            f"'{name}:max' or '{name}:last'"
        )


@dataclass(frozen=True, slots=True)
class Filters:
    """Filters of simulations, as they were typed. None or empty: any."""

    states: Sequence[str] = ()
    project: str | None = None
    text: str | None = None
    name: str | None = None
    tags: Sequence[str] = ()
    any_tags: Sequence[str] = ()
    user: str | None = None
    since: str | None = None
    until: str | None = None
    where: Sequence[str] = ()
    sweep: str | None = None

    def as_states(self) -> list[str]:
        """Return the API's SimulationStates, none for any. Raises `UsageError`."""
        return parse_states(self.states)

    def as_filter(self, now: datetime) -> dict[str, object] | None:
        """Return the rest as the API's SimulationFilter, None for any. Raises `UsageError`."""
        wanted = {
            "text": self.text, "name": self.name, "tags": list(self.tags), "anyTags": list(self.any_tags),
            "createdBy": self.user, "createdFrom": parse_moment("--since", self.since, now),
            "createdTo": parse_moment("--until", self.until, now),
            "parameters": [parse_where(each) for given in self.where for each in BETWEEN.split(given)],
            "sweep": self.sweep,
        }  # fmt: skip
        return {name: value for name, value in wanted.items() if value not in (None, [])} or None


def parse_sort(given: str | None, *, reverse: bool) -> Sorting:
    """Parse `val/loss`, `acc:max`, `loss:last`, `param:lr`, `cost`. Raises `UsageError`."""
    if given is None:
        return Sorting("CREATED_AT", "ASC" if reverse else "DESC")
    name, separator, last = given.rpartition(":")
    if given.lower() in FIELDS:
        found = Sorting(FIELDS[given.lower()], "ASC" if given.lower() == "name" else "DESC")
    elif given.startswith(PARAMETER) and len(given) > len(PARAMETER):
        found = Sorting("PARAMETER", "ASC", parameter=given.removeprefix(PARAMETER))
    elif separator and name and last.lower() in ("min", "max"):
        found = Sorting("BEST", mode=last.upper(), metric=name)
    elif separator and name and last.lower() == "last":
        found = Sorting("LAST", metric=name)
    elif given and given != PARAMETER:
        found = Sorting("BEST", metric=given)
    else:
        raise UsageError("--sort: expected a metric, param:NAME, or one of " + ", ".join(FIELDS))
    if not reverse:
        return found
    usual = {"MIN": "ASC", "MAX": "DESC"}.get(found.mode or "") or found.direction
    if usual is None:
        raise UsageError(f"--reverse: name the better direction of the metric, as {clean(found.metric or '')}:min")
    return replace(found, direction="ASC" if usual == "DESC" else "DESC")


def parse_where(given: str) -> dict[str, object]:
    """Parse `lr<1e-3`, `optimizer=adam`, `layers!=2` into the API's ParameterCondition. Raises `UsageError`."""
    match = WHERE.fullmatch(given)
    if match is None or not match["value"]:
        raise UsageError(f"--where: expected NAME<VALUE (or <=, >, >=, =, !=), got {clean(given)!r}")
    if match["value"][0] in "<>=!":
        raise UsageError(
            f"--where: {clean(given)!r} has more than one operator: give one of <, <=, >, >=, =, !=, or quote a value "
            f"that begins like one: '{clean(match['name'])}{match['sign']}\"{clean(match['value'])}\"'"
        )
    value = _operand(match["name"], match["sign"], match["value"])
    if not isinstance(value, str | int | float):
        raise UsageError(f"--where: {clean(match['name'])} can be compared with a number, a word, true or false")
    return {"name": match["name"], "comparison": COMPARISONS[match["sign"]], "value": value}


def _operand(name: str, sign: str, written: str) -> object:
    """Parse what a parameter is compared with; text also in single quotes. Raises `UsageError`."""
    if len(written) > 1 and written[0] == written[-1] == "'":
        return written[1:-1]
    value = parse_value(written, f"--where {clean(name)}")
    if isinstance(value, str) and not written.startswith('"'):
        two = ANOTHER.fullmatch(written)
        if two is not None and isinstance(parse_value(two["first"], "--where"), int | float):
            raise UsageError(
                "--where: give several comparisons with commas between them: "
                f"'{clean(name)}{sign}{clean(two['first'])}, {clean(two['other'])}'"
            )
        if sign[0] in "<>" and written.lstrip("+-").lower() in NOT_FINITE:
            raise UsageError(f"--where: {clean(name)} can be compared with a finite number, got {clean(written)}")
    return value


def parse_moment(option: str, given: str | None, now: datetime) -> str | None:
    """Parse a date, a time (without an offset: local time), or a duration before now (`7d`). Raises `UsageError`."""
    if given is None:
        return None
    try:
        try:
            at = datetime.fromisoformat(given)
        except ValueError:
            return (now - parse_duration(given)).isoformat()
        return (at if at.tzinfo is not None else at.astimezone()).isoformat()
    except (UsageError, ValueError, OverflowError):
        raise UsageError(
            f"{option}: expected a duration like 7d or 12h, or a date like 2026-11-01, got {clean(given)!r}"
        ) from None
