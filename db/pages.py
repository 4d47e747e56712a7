"""Keyset pagination: stable while rows are added, and each page costs one index seek however deep it is.

A cursor is the sort key of a row, opaque to clients; one that this list never gave out raises `InvalidCursor`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
from sqlalchemy import Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from db.errors import InvalidCursor

Row = TypeVar("Row")

MAX_PAGE = 500
FOREIGN_CURSOR = "This cursor does not belong to this list: pass an `endCursor` that it gave out."


@dataclass(frozen=True, slots=True)
class Ordering:
    """Sort columns of a list; the last one is unique. All in one direction, so that a tuple compares."""

    columns: tuple[InstrumentedAttribute[Any], ...]
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows with their cursors, in order."""

    rows: Sequence[Row]
    cursors: Sequence[str]
    has_next: bool


async def page(
    session: AsyncSession, statement: Select[Any], order: Ordering, *, first: int, after: str | None
) -> Page[Any]:
    """Read at most `first` rows of the statement behind the cursor `after`."""
    if after is not None:
        key = tuple_(*order.columns)
        values = tuple_(*_decode(after, order))
        statement = statement.where(key < values if order.descending else key > values)
    statement = statement.order_by(*(column.desc() if order.descending else column.asc() for column in order.columns))
    rows = (await session.scalars(statement.limit(first + 1))).all()
    shown = rows[:first]
    return Page(shown, [_encode(row, order) for row in shown], len(rows) > first)


def pack(key: Sequence[object]) -> str:
    """Make a cursor of the values of a key."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def unpack(cursor: str) -> list[Any]:
    """Return the values of a cursor's key. Their types are the client's: check them. Raises `InvalidCursor`."""
    try:
        key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, orjson.JSONDecodeError, ValueError):
        raise InvalidCursor(FOREIGN_CURSOR) from None
    if not isinstance(key, list):
        raise InvalidCursor(FOREIGN_CURSOR)
    return key


def _encode(row: object, order: Ordering) -> str:
    return pack([getattr(row, column.key) for column in order.columns])


def _decode(cursor: str, order: Ordering) -> list[Any]:
    key, problem = unpack(cursor), InvalidCursor(FOREIGN_CURSOR)
    if len(key) != len(order.columns):
        raise problem
    for value, column in zip(key, order.columns, strict=True):
        expected = column.type.python_type
        if type(value) is not expected or (expected is int and abs(value) >= 2**63):
            raise problem
        if isinstance(value, str) and "\0" in value:
            raise problem
    return key
