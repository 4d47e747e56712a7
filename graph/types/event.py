"""An entry of an object's history."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry
from strawberry.scalars import JSON

from db import models


@strawberry.type(description="An entry of an object's history.")
class Event:
    id: strawberry.ID
    at: datetime = strawberry.field(description="When it happened.")
    kind: str = strawberry.field(description="The kind of the event: a state that was entered, STOP_WANTED, UPDATED...")
    actor: str = strawberry.field(
        description="The user or process that caused it: the name of a token, `scheduler` or `supervisor`. Without a "
        "login: `NAME (unverified)`, where a Unix user of the service's host sent the request; else `anonymous`."
    )
    detail: JSON = strawberry.field(description="Details, which depend on the kind.")

    @classmethod
    def of(cls, row: models.Event) -> Self:
        return cls(id=strawberry.ID(str(row.id)), at=row.at, kind=row.kind, actor=row.actor, detail=JSON(row.detail))
