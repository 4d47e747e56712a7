"""Scalars beyond GraphQL's own, and the bulk check of a report's columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from operator import ge
from typing import NewType

import strawberry
from graphql import GraphQLError
from strawberry.schema.types.base_scalars import DecimalDefinition

from db.convergence import Column

MAX_STEP = 2**53  # the largest integer that every JSON reader keeps exact
MAX_POINTS = 10_000
MAX_METRICS = 1_000
MAX_METRIC_NAME = 256
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Step = NewType("Step", int)
PointColumns = NewType("PointColumns", object)


class BadColumns(ValueError):
    """Columns that break the rules; the message says which one."""


def _parse_step(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_STEP:
        raise GraphQLError(f"A step is a whole number from 0 to 2^53, got {str(value)[:40]}.")
    return value


STEP = strawberry.scalar(
    name="Step",
    description="A step: a whole number from 0 to 2^53, as a JSON number.",
    serialize=lambda value: value,
    parse_value=_parse_step,
)


def _plain_decimal(value: Decimal) -> str:
    """One text for one amount, whether it was just given or read back from a column with six places."""
    return format(value.normalize(), "f")


DECIMAL = replace(DecimalDefinition, description='An exact number, as a string: "2.5".', serialize=_plain_decimal)
POINT_COLUMNS = strawberry.scalar(
    name="PointColumns",
    description=(
        "Points as columns: an object from metric to {steps, values, elapsed}, three lists of equal length. "
        'Steps rise; values are numbers, or the strings "NaN", "Infinity", "-Infinity"; elapsed is in seconds.'
    ),
    serialize=lambda value: value,
    parse_value=lambda value: value,  # checked by columns(), so that a mistake is an answer and not a broken request
)


def columns(raw: object) -> Mapping[str, Column]:
    """Check a report's columns in bulk. Raises `BadColumns`."""
    if not isinstance(raw, dict):
        raise BadColumns("points must be an object from metric to columns")
    if len(raw) > MAX_METRICS:
        raise BadColumns(f"{len(raw)} metrics in a report: at most {MAX_METRICS}")
    checked = {name: _column(name, column) for name, column in raw.items()}
    points = sum(len(column.steps) for column in checked.values())
    if points > MAX_POINTS:
        raise BadColumns(f"{points} points in a report: at most {MAX_POINTS}")
    return checked


def _column(name: str, raw: object) -> Column:
    # Whole lists are judged by the set of their types and by map(): a loop over points costs thirty times as much.
    if not 0 < len(name) <= MAX_METRIC_NAME or "\0" in name:
        raise BadColumns(f"a metric's name has 1 to {MAX_METRIC_NAME} characters, none of them NUL")
    if not isinstance(raw, dict) or raw.keys() != {"steps", "values", "elapsed"}:
        raise BadColumns(f"{name[:40]}: expected exactly steps, values and elapsed")
    steps, values, elapsed = raw["steps"], raw["values"], raw["elapsed"]
    if not (isinstance(steps, list) and isinstance(values, list) and isinstance(elapsed, list)):
        raise BadColumns(f"{name[:40]}: steps, values and elapsed must be lists")
    if not len(steps) == len(values) == len(elapsed):
        raise BadColumns(f"{name[:40]}: {len(steps)} steps, {len(values)} values, {len(elapsed)} elapsed")
    if not steps:
        raise BadColumns(f"{name[:40]}: no points")
    if set(map(type, steps)) != {int} or steps[0] < 0 or steps[-1] > MAX_STEP or any(map(ge, steps, steps[1:])):
        raise BadColumns(f"{name[:40]}: steps must be whole numbers from 0 to 2^53 that rise")
    try:
        numbers = _floats(values) or [_value(name, value) for value in values]
        seconds = _floats(elapsed)
    except OverflowError:
        raise BadColumns(f"{name[:40]}: a value is too large for a double") from None
    # A sum is the cheapest look at all of them; one that overflows only costs the look at each.
    if seconds is None or (not math.isfinite(sum(seconds)) and not all(map(math.isfinite, seconds))):
        raise BadColumns(f"{name[:40]}: elapsed must be numbers of seconds")
    return Column(steps, numbers, seconds)


def _floats(numbers: list[object]) -> list[float] | None:
    """The same list if it holds nothing else, as almost every one does; None if these are not all numbers."""
    kinds = set(map(type, numbers))
    if kinds == {float}:
        return numbers  # type: ignore[return-value]  # the line above
    return list(map(float, numbers)) if kinds <= {float, int} else None  # type: ignore[arg-type]  # the same


def _value(name: str, value: object) -> float:
    if type(value) in (float, int):
        return float(value)  # type: ignore[arg-type]  # the line above
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    raise BadColumns(f"{name[:40]}: {str(value)[:40]!r} is not a number")
