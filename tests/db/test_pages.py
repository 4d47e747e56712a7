"""Keyset pages: stable while rows come and go, in both directions, and cursors of strangers refused."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.errors import InvalidCursor
from db.models import Machine, Project, Simulation
from db.pages import Ordering, Page, _decode, page

Rows = Any  # the fixture of conftest.py
Sessions = async_sessionmaker[AsyncSession]

BY_NAME = Ordering((Project.name, Project.id))
BY_NAME_DOWN = Ordering((Project.name, Project.id), descending=True)
BY_PRIORITY = Ordering((Simulation.priority, Simulation.id), descending=True)
BY_ID = Ordering((Simulation.id,))
NAMES = ["Zebra", "a", "b", "b ", "default", "ä", "日本"]


def cursor_of(*key: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


async def fill(rows: Rows) -> None:
    await rows.query("INSERT INTO projects (name) SELECT unnest(CAST(:names AS text[]))", names=NAMES[:4] + NAMES[5:])


async def get(sessions: Sessions, order: Ordering, *, first: int = 2, after: str | None = None) -> Page[Any]:
    async with sessions() as session:
        model = order.columns[0].class_
        return await page(session, select(model), order, first=first, after=after)


async def walk(sessions: Sessions, order: Ordering, first: int) -> list[Any]:
    """Everything, page by page."""
    found: list[Any] = []
    after = None
    while True:
        shown = await get(sessions, order, first=first, after=after)
        assert len(shown.rows) == len(shown.cursors) <= first
        found += shown.rows
        if not shown.has_next:
            return found
        assert len(shown.rows) == first
        after = shown.cursors[-1]


@pytest.mark.parametrize("first", [1, 2, 3, 7, 8, 500])
@pytest.mark.parametrize("order", [BY_NAME, BY_NAME_DOWN], ids=["up", "down"])
async def test_pages_of_any_size_bring_every_row_once_and_in_order(
    order: Ordering, first: int, rows: Rows, sessions: Sessions
) -> None:
    await fill(rows)
    expected = await rows.query(f"SELECT name FROM projects ORDER BY name {'DESC' if order.descending else 'ASC'}, id")
    assert [each.name for each in await walk(sessions, order, first)] == [each["name"] for each in expected]


async def test_rows_that_tie_are_told_apart_by_their_ids(rows: Rows, sessions: Sessions) -> None:
    ids = [await rows.simulation(priority=priority) for priority in (0, 5, 5, 5, 0, -(2**31))]
    found = [each.id for each in await walk(sessions, BY_PRIORITY, 2)]
    assert found == [ids[3], ids[2], ids[1], ids[4], ids[0], ids[5]]


async def test_rows_that_come_and_go_meanwhile_shift_nothing(rows: Rows, sessions: Sessions) -> None:
    ids = [await rows.simulation() for _ in range(4)]
    shown = await get(sessions, BY_ID, first=2)
    await rows.query("DELETE FROM simulations WHERE id = :id", id=ids[1])  # the very row that the cursor stands on
    added = await rows.simulation()
    rest = await get(sessions, BY_ID, first=10, after=shown.cursors[-1])
    assert [each.id for each in rest.rows] == [ids[2], ids[3], added]


async def test_the_last_page_says_that_nothing_comes_behind_it(rows: Rows, sessions: Sessions) -> None:
    [await rows.simulation() for _ in range(2)]
    assert (await get(sessions, BY_ID, first=1)).has_next
    last = await get(sessions, BY_ID, first=2)
    assert not last.has_next
    beyond = await get(sessions, BY_ID, first=2, after=last.cursors[-1])
    assert (list(beyond.rows), list(beyond.cursors), beyond.has_next) == ([], [], False)


async def test_a_cursor_can_be_read_by_no_accident(rows: Rows, sessions: Sessions) -> None:
    await rows.simulation()
    [cursor] = (await get(sessions, BY_ID)).cursors
    assert cursor.replace("-", "").replace("_", "").isalnum()  # fits into a URL as it is


@pytest.mark.parametrize(
    ("order", "cursor"),
    [
        (BY_ID, ""),
        (BY_ID, "garbage"),
        (BY_ID, "é"),
        (BY_ID, "A"),
        (BY_ID, "\0"),
        (BY_ID, cursor_of()),
        (BY_ID, cursor_of("1")),
        (BY_ID, cursor_of(1.0)),
        (BY_ID, cursor_of(True)),
        (BY_ID, cursor_of(None)),
        (BY_ID, cursor_of([1])),
        (BY_ID, cursor_of(1, 2)),
        (BY_ID, cursor_of(2**63)),
        (BY_ID, cursor_of(2**64 - 1)),
        (BY_ID, base64.urlsafe_b64encode(b'{"id": 1}').decode()),
        (BY_ID, base64.urlsafe_b64encode(b"[99999999999999999999999]").decode()),
        (BY_NAME, cursor_of(1, "name")),
        (BY_NAME, cursor_of("name")),
        (BY_NAME, cursor_of("na\0me", 1)),
        (BY_NAME, base64.urlsafe_b64encode(b'["\\ud800", 1]').decode()),
        (BY_PRIORITY, cursor_of(0, 2**63)),
    ],
)
async def test_a_cursor_that_this_list_never_gave_out_is_refused(
    order: Ordering, cursor: str, sessions: Sessions
) -> None:
    with pytest.raises(InvalidCursor, match="endCursor"):
        await get(sessions, order, after=cursor)


@pytest.mark.parametrize("priority", [2**31 - 1, 2**31, 2**63 - 1])
async def test_a_cursor_may_lie_beyond_every_row(priority: int, rows: Rows, sessions: Sessions) -> None:
    await rows.simulation(priority=2**31 - 1)
    assert len((await get(sessions, BY_PRIORITY, after=cursor_of(priority, 2**63 - 1))).rows) == 1
    assert len((await get(sessions, BY_PRIORITY, after=cursor_of(-priority, 1))).rows) == 0


@given(st.one_of(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(repr)))
@settings(deadline=None)
def test_no_text_does_worse_than_being_refused(cursor: str) -> None:
    for order in (BY_ID, BY_NAME, BY_PRIORITY, Ordering((Machine.name, Machine.id))):
        try:
            key = _decode(cursor, order)
        except InvalidCursor:
            continue
        assert len(key) == len(order.columns)
