"""The expected errors of the memory, as a tree. `graph` turns each into a user error; anything else is a defect.

Refusal                     the request can't be done as it stands; the message says why
├── NotFound                no such object, or none that the caller may see
├── Taken                   a name or a key is in use
├── WrongState              the object's state does not allow it
└── InvalidCursor           a cursor that this list never gave out
"""

from __future__ import annotations


class Refusal(Exception):
    """Something was asked for that can't be done. `field` names the argument it is about, where there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class NotFound(Refusal):
    """There is no such object."""


class Taken(Refusal):
    """A name or a key is in use by another object."""


class WrongState(Refusal):
    """The object is not in a state that allows this."""


class InvalidCursor(Refusal):
    """A cursor that this list never gave out."""
