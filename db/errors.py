"""Expected errors of `db`, in two trees. Any other exception is a defect.

    Refusal                         the request can't be done as it stands; the message says why
    ├── NotFound                    no such object, or none that the caller may see
    ├── Taken                       a name or a key is in use
    ├── WrongState                  the object's state does not allow it
    └── InvalidCursor               a cursor that this list never gave out

    DatabaseError                   the database can't be used; the message is a sentence for the operator
    ├── DatabaseUrlError            not the URL of a PostgreSQL database
    ├── DatabaseRefused             a server answers, and refuses this login or this database
    ├── ServerTooOld                a server answers, and is older than `db.connection.MINIMUM_MAJOR`
    └── DatabaseUnavailable         for the time being: the same request may succeed later
        ├── DatabaseUnreachable     no server answers, it hangs, or the connection broke
        ├── DatabaseExhausted       out of connections, disk or memory
        └── DatabaseReadOnly        it takes no changes: a standby, or an administrator's setting

`graph` turns refusals into user errors, and unavailability into `extensions.code` UNAVAILABLE. What asyncpg and
SQLAlchemy raise while a database is away is listed here, in `unavailability` and `was_cut`, and nowhere else: every
engine that `db.connection` makes raises `DatabaseUnavailable` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import asyncpg
from sqlalchemy.exc import DBAPIError


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


class DatabaseError(Exception):
    """The database can't be used; the message is a sentence for the operator."""


class DatabaseUrlError(DatabaseError):
    """This is not the URL of a PostgreSQL database."""


class DatabaseRefused(DatabaseError):
    """A server answers, and refuses this user, password or database."""


class ServerTooOld(DatabaseError):
    """A server answers, and is older than `MINIMUM_MAJOR`."""


class DatabaseUnavailable(DatabaseError):
    """The database can't be used for the time being: the same request may succeed later."""

    sentence = "The database is unavailable"
    in_doubt = False  # it went away during a commit: whether that took effect is not known

    @classmethod
    def because(cls, reason: str) -> Self:
        """The error with its usual sentence."""
        return cls(f"{cls.sentence}: {reason}.")


class DatabaseUnreachable(DatabaseUnavailable):
    """No server answers at this address, or not in a way that can be trusted; or a connection to it broke."""

    sentence = "The database does not answer"


class DatabaseExhausted(DatabaseUnavailable):
    """The server, or this process, has no connections, disk or memory left."""

    sentence = "The database has no room"


class DatabaseReadOnly(DatabaseUnavailable):
    """The server takes no changes."""

    sentence = "The database takes no changes"


# By the class of the SQLSTATE, or all of it (PostgreSQL, appendix A). 57014, a cancelled statement, is not among them.
_BY_STATE: Mapping[str, type[DatabaseUnavailable]] = MappingProxyType({
    "08": DatabaseUnreachable,  # connection exceptions
    "25006": DatabaseReadOnly,
    "53": DatabaseExhausted,  # disk full, out of memory, too many connections
    "57P": DatabaseUnreachable,  # shutting down, crashed, starting up, database dropped
    "58": DatabaseExhausted,  # errors of its operating system: input and output
})  # fmt: skip

# What a bare connection raises when it breaks or can't be opened. A TimeoutError is an OSError; the internal error is
# what asyncpg raises when it is used at the moment at which the server hangs up.
CONNECTION_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def unavailability(error: BaseException, *, is_closed: bool, connecting: bool = False) -> DatabaseUnavailable | None:
    """The meaning of a driver's error, if the database is unavailable; None for a defect or a refused statement.

    is_closed: of the driver's connection, after the error. connecting: a connection could not be opened, for whatever
    reason; `db.connection.check_server` judges whether waiting helps.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig  # SQLAlchemy wraps an error of its own, which wraps asyncpg's
    if not isinstance(error, asyncpg.PostgresError | OSError) and error.__cause__ is not None:
        error = error.__cause__
    state = str(getattr(error, "sqlstate", None) or "")
    kind = next((kind for prefix, kind in _BY_STATE.items() if state.startswith(prefix)), None)
    if kind is None and (connecting or is_closed or isinstance(error, OSError)):
        kind = DatabaseUnreachable if isinstance(error, CONNECTION_FAILURES) else None
    if kind is None:
        return None
    found = kind.because(reason_of(error))
    found.__cause__ = error
    return found


def was_cut(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is that of a connection that was lost during an operation."""
    if error is None:
        return False
    if isinstance(error, DatabaseUnavailable | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return True
    return isinstance(unavailability(error, is_closed=False), DatabaseUnreachable) or was_cut(error.__cause__)


def reason_of(error: BaseException) -> str:
    """The first line of what a driver said, without its full stop."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error.args[0] if isinstance(error, asyncpg.PostgresError) and error.args else error)
    return text.strip().rstrip(".").partition("\n")[0] or type(error).__name__
