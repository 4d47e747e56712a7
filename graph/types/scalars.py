"""Scalars beyond GraphQL's own."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import NewType

import strawberry
from graphql import GraphQLError
from strawberry.schema.types.base_scalars import DecimalDefinition

from transitions.report import MAX_STEP

Step = NewType("Step", int)
PointColumns = NewType("PointColumns", object)


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
    parse_value=lambda value: (
        value
    ),  # checked by transitions.report, so that a mistake is an answer and not a broken request
)
