"""User errors: why a mutation changed nothing, as data in its payload. Other expected errors are in graph/errors.py."""

from __future__ import annotations

from enum import StrEnum

import strawberry

from db import errors
from graph.types.enums import described


@described(
    "The kind of a user error.",
    INVALID="The value breaks a rule; the message says which one.",
    NOT_FOUND="There is no such object.",
    TAKEN="A name or a key is in use.",
    WRONG_STATE="The object's state does not allow it.",
    BATCH_REFUSED="Nothing of the report is stored; its number stays free.",
    RATE_LIMITED="Too many requests; the message says when to retry.",
)
class UserErrorCode(StrEnum):
    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    TAKEN = "TAKEN"
    WRONG_STATE = "WRONG_STATE"
    BATCH_REFUSED = "BATCH_REFUSED"
    RATE_LIMITED = "RATE_LIMITED"


@strawberry.type(description="Why a mutation changed nothing, as data.")
class UserError:
    code: UserErrorCode = strawberry.field(description="A code for programs.")
    message: str = strawberry.field(description="A sentence for the user.")
    field: list[str] | None = strawberry.field(
        default=None, description="The path of the invalid argument, from the input's root."
    )


_CODES: dict[type[errors.Refusal], UserErrorCode] = {
    errors.NotFound: UserErrorCode.NOT_FOUND,
    errors.Taken: UserErrorCode.TAKEN,
    errors.WrongState: UserErrorCode.WRONG_STATE,
}


def user_error(refusal: errors.Refusal) -> UserError:
    """Put a refusal of the memory into a payload."""
    return UserError(
        code=_CODES.get(type(refusal), UserErrorCode.INVALID),
        message=refusal.message,
        field=refusal.field.split(".") if refusal.field else None,
    )
