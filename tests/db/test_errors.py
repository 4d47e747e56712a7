"""What the errors of a driver mean: the database is unavailable, a connection was lost, or neither."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy.exc import ProgrammingError

from db.errors import (
    DatabaseExhausted,
    DatabaseReadOnly,
    DatabaseUnavailable,
    DatabaseUnreachable,
    unavailability,
    was_cut,
)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", DatabaseUnreachable),
        ("25006", DatabaseReadOnly),
        ("53100", DatabaseExhausted),
        ("53200", DatabaseExhausted),
        ("53300", DatabaseExhausted),
        ("57P01", DatabaseUnreachable),
        ("57P02", DatabaseUnreachable),
        ("57P03", DatabaseUnreachable),
        ("58030", DatabaseExhausted),
        ("57014", None),  # a statement that took too long
        ("40001", None),
        ("40P01", None),
        ("23505", None),
        ("42P01", None),
    ],
)
def test_a_sqlstate_decides_what_an_error_means(state: str, kind: type[DatabaseUnavailable] | None) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "a message."})
    found = unavailability(error, is_closed=False)
    assert type(found) is (kind or type(None))
    if kind is not None:
        assert str(found) == f"{kind.sentence}: a message."


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        DatabaseUnreachable("The database does not answer: it hangs."),
    ],
)
def test_a_lost_connection_is_known_by_its_error_and_by_what_that_caused(error: Exception) -> None:
    assert was_cut(error)
    later = RuntimeError("The migration failed.")
    later.__cause__ = error
    assert was_cut(later)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ProgrammingError("ALTER TABLE", {}, Exception("no such table")),
        asyncpg.UndefinedTableError("no such table"),
        asyncpg.DiskFullError("no space left on device"),
    ],
)
def test_a_refused_statement_is_no_lost_connection(error: Exception | None) -> None:
    assert not was_cut(error)
