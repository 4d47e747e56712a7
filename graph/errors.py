"""The errors that clients see. A request that can't be fulfilled is data (`userErrors`, in payloads of
mutations) or a `SafeError` (everywhere else); anything else is a defect: logged once with its traceback, and masked.

    GraphQLError
    └── SafeError            shown as it is, with `extensions.code`
        ├── BadInput         BAD_USER_INPUT
        ├── NotFound         NOT_FOUND
        ├── Unauthenticated  UNAUTHENTICATED
        ├── Forbidden        FORBIDDEN
        └── Unavailable      UNAVAILABLE: the database is away; the outage is logged once (db/outage.py), not each error
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog
from graphql import GraphQLError

from db import errors
from db.errors import DatabaseReadOnly, DatabaseUnavailable, DatabaseUnreachable

log = structlog.get_logger()


RETRY_AFTER_SECONDS = 2  # Retry-After, while the database is away


class SafeError(GraphQLError):
    """An error whose message was written for clients."""

    code = "SAFE"

    def __init__(self, message: str) -> None:
        super().__init__(message, extensions={"code": self.code})


class BadInput(SafeError):
    code = "BAD_USER_INPUT"


class NotFound(SafeError):
    code = "NOT_FOUND"


class Unauthenticated(SafeError):
    code = "UNAUTHENTICATED"


class TooLarge(SafeError):
    code = "LIMIT_EXCEEDED"


class TooCostly(SafeError):
    code = "COST_EXCEEDED"

    def __init__(self, requested: int, maximum: int) -> None:
        super().__init__(
            f"An operation costs at most {maximum:,}, and this one would cost {requested:,}: ask for fewer rows "
            "(`first`), fewer points (`maxPoints`), or fewer lists within lists."
        )
        assert self.extensions is not None
        self.extensions["cost"] = {"requested": requested, "maximum": maximum}


class Hidden(SafeError):
    code = "INTROSPECTION_REFUSED"


class Forbidden(SafeError):
    code = "FORBIDDEN"


class Unavailable(SafeError):
    """The database is away. `in_doubt`: during a commit, so that what was asked for may have been done."""

    code = "UNAVAILABLE"

    def __init__(self, cause: DatabaseUnavailable, *, in_doubt: bool = False) -> None:
        sentence = "The database can't take this now"
        if isinstance(cause, DatabaseUnreachable):
            sentence = "The database does not answer"
        elif isinstance(cause, DatabaseReadOnly):
            sentence = "The database takes no changes now"
        self.in_doubt = cause.in_doubt or in_doubt
        if self.in_doubt:
            super().__init__(f"{sentence}, and this may have been stored: look before you try again.")
        else:
            super().__init__(f"{sentence}: try again in a moment.")


@contextmanager
def refusals_told() -> Iterator[None]:
    """Tell a refusal of the memory as an error of the request: queries have no payload to put it into."""
    try:
        yield
    except errors.Refusal as refusal:
        raise BadInput(refusal.message) from None


def masked(error: GraphQLError) -> GraphQLError:
    """The error that a client gets for a defect: its place in the operation, and nothing else."""
    return _at(error, "Something went wrong on the server.")


def unavailable(error: GraphQLError, *, in_doubt: bool = False) -> GraphQLError | None:
    """The error that a client gets while the database is away; None for any other error.

    in_doubt: other fields of the same mutation may have been done.
    """
    if not isinstance(error.original_error, DatabaseUnavailable):
        return None
    told = Unavailable(error.original_error, in_doubt=in_doubt)
    return _at(error, told.message, told)


def nothing_was_done(data: Mapping[str, object] | None, errors: Sequence[GraphQLError] | None) -> bool:
    """True if the database was away for all of an operation, which is then safe to retry."""
    if not errors or any(value is not None for value in (data or {}).values()):
        return False
    causes = [error.original_error for error in errors]
    return all(isinstance(cause, Unavailable) and not cause.in_doubt for cause in causes)


def _at(error: GraphQLError, message: str, cause: SafeError | None = None) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        original_error=cause,
    )


def is_unexpected(error: GraphQLError) -> bool:
    """True for a defect: neither a `SafeError`, nor a GraphQL error about the client's document.

    GraphQL's own errors are the client's before the execution, and while arguments are read. From then on they are
    about what a resolver returned, and quote it.
    """
    cause = error.original_error
    if isinstance(error, SafeError) or isinstance(cause, SafeError):
        return False
    if cause is not None and not isinstance(cause, GraphQLError):
        return True
    return error.path is not None and not error.message.startswith("Argument '")
