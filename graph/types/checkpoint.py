"""Checkpoint of a simulation: when the newest one was written, and where it is."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from db import checkpoints


@strawberry.type(description="The newest file in a simulation's checkpoint directory.")
class Checkpoint:
    at: datetime = strawberry.field(description="When it was written, to within seconds.")
    machine_name: str = strawberry.field(
        description="The machine on whose host it is: on another host an attempt begins from zero."
    )

    @classmethod
    def of(cls, row: checkpoints.Checkpoint) -> Self:
        return cls(at=row.at, machine_name=row.machine_name)
