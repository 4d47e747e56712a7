"""The newest plan: the places of the queue and the reservations, in one row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from db import newest_plan
from db.newest_plan import Reservation

Rows = Any  # the fixture of conftest.py
AT = datetime(2031, 5, 17, 9, 30, tzinfo=UTC)


async def test_a_place_is_that_of_the_newest_order_and_what_is_not_in_it_has_none(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        assert await newest_plan.places_of(session, [7]) == {}, "before the first plan"
        await newest_plan.write(session, [9, 7, 8], ())
        assert await newest_plan.places_of(session, [7, 8, 1]) == {7: 2, 8: 3}
        assert (await newest_plan.summary(session)).queued == 3
        await newest_plan.write(session, [8], ())
        assert await newest_plan.places_of(session, [7, 8]) == {8: 1}


async def test_reservations_are_read_as_written_and_leave_the_order_alone(rows: Rows) -> None:
    kept = [Reservation(7, (1, 2), AT), Reservation(9, (3,), AT)]
    async with rows.sessions.begin() as session:
        assert await newest_plan.reservations(session) == []
        await newest_plan.write(session, [9, 7], kept[:1])
        await newest_plan.write_reservations(session, kept)
        assert await newest_plan.reservations(session) == kept
        assert await newest_plan.places_of(session, [7]) == {7: 2}
    version = "SELECT xmin::text FROM plans"
    before = await rows.value(version)
    async with rows.sessions.begin() as session:
        await newest_plan.write_reservations(session, kept)
    assert await rows.value(version) == before, "the same again writes nothing"


async def test_an_empty_queue_has_an_empty_plan(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        await newest_plan.clear(session)
        await newest_plan.write(session, [7], [Reservation(7, (1,), AT)])
        await newest_plan.clear(session)
        assert await newest_plan.reservations(session) == []
        assert (await newest_plan.summary(session)).queued == 0
