"""User errors: why a mutation did nothing, as data in its payload. Other expected errors are in graph/errors.py."""

from __future__ import annotations

from enum import StrEnum

import strawberry

from db import errors
from graph.types.enums import described


@described(
    "What kind of mistake a user error is.",
    INVALID="The value breaks a rule; the message says which one.",
    NOT_FOUND="There is no such object.",
    TAKEN="A name or a key is in use.",
    WRONG_STATE="The object's state does not allow it.",
    BATCH_REFUSED="Nothing of the report is stored; its number stays free.",
    RATE_LIMITED="Too many of them lately; the message says when to try again.",
)
class UserErrorCode(StrEnum):
    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    TAKEN = "TAKEN"
    WRONG_STATE = "WRONG_STATE"
    BATCH_REFUSED = "BATCH_REFUSED"
    RATE_LIMITED = "RATE_LIMITED"


@strawberry.type(description="Why a mutation did nothing, in words for the person who asked for it.")
class UserError:
    code: UserErrorCode = strawberry.field(description="For programs.")
    message: str = strawberry.field(description="For people: a sentence.")
    field: list[str] | None = strawberry.field(
        default=None, description="The way to the argument it is about, from the input's root."
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
