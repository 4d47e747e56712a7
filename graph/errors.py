"""The errors that clients see. What a client asked for and can't have is data (`userErrors`, in payloads of
mutations) or a `SafeError` (everywhere else); anything else is a defect: logged once with its traceback, and masked.

    GraphQLError
    └── SafeError            shown as it is, with `extensions.code`
        ├── BadInput         BAD_USER_INPUT
        ├── NotFound         NOT_FOUND
        ├── Unauthenticated  UNAUTHENTICATED
        └── Forbidden        FORBIDDEN
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import structlog
from graphql import GraphQLError
from sqlalchemy.exc import SQLAlchemyError

from db import errors

log = structlog.get_logger()


# What is raised while the database is away: SQLAlchemy wraps what a statement meets, not what a new connection does.
DATABASE_AWAY = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


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


@contextmanager
def refusals_told() -> Iterator[None]:
    """Tell a refusal of the memory as an error of the request: queries have no payload to put it into."""
    try:
        yield
    except errors.Refusal as refusal:
        raise BadInput(refusal.message) from None


def masked(error: GraphQLError) -> GraphQLError:
    """What a client is told of a defect: where in its operation, and nothing else."""
    return GraphQLError(
        "Something went wrong on the server.",
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
    )


def is_unexpected(error: GraphQLError) -> bool:
    """Whether an error is a defect: neither one of ours, nor GraphQL's judgement of what the client sent.

    GraphQL's own errors are the client's before the execution, and while arguments are read. From then on they are
    about what a resolver returned, and quote it.
    """
    cause = error.original_error
    if isinstance(error, SafeError) or isinstance(cause, SafeError):
        return False
    if cause is not None and not isinstance(cause, GraphQLError):
        return True
    return error.path is not None and not error.message.startswith("Argument '")
