"""Notices of a simulation's output: what was nearly points, or was dropped."""

from __future__ import annotations

from typing import Self

import strawberry

from db import notices
from graph.types.scalars import Step


@strawberry.type(description="Output of one kind that was nearly points, or was dropped.")
class Notice:
    kind: str = strawberry.field(
        description="A code for programs, as NOT_RISING, NEARLY_JSON, LOOKS_LIKE_METRICS; there may be new ones."
    )
    count: Step = strawberry.field(description="How many times: lines, values or dropped bytes, by its kind.")
    example: str = strawberry.field(description="The first such line, cut to one printable line.")
    advice: str = strawberry.field(description="What it means and what to change, as a sentence.")

    @classmethod
    def of(cls, row: notices.Notice) -> Self:
        return cls(kind=row.kind, count=Step(row.count), example=row.example, advice=row.advice)
