"""The newest plan: the places of the queue and the reservations, in one row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from db import newest_plan, queue, simulations
from db.newest_plan import Place, QueueOrder, Reservation

Rows = Any  # the fixture of conftest.py
AT = datetime(2031, 5, 17, 9, 30, tzinfo=UTC)


async def test_a_place_is_that_of_the_newest_order_and_what_is_not_in_it_has_none(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        assert await newest_plan.places_of(session, [7]) == {}, "before the first plan"
        await newest_plan.write(session, QueueOrder([9, 7, 8], " PL"))
        assert await newest_plan.places_of(session, [7, 8, 9, 1]) == {
            7: Place(2, 9, "P"), 8: Place(3, 7, "L"), 9: Place(1, None, " "),
        }  # fmt: skip
        assert (await newest_plan.summary(session)).queued == 3
        await newest_plan.write(session, QueueOrder([8], " "))
        assert await newest_plan.places_of(session, [7, 8]) == {8: Place(1, None, " ")}


async def test_reservations_are_read_as_written_and_leave_the_order_alone(rows: Rows) -> None:
    kept = [Reservation(7, (1, 2), AT), Reservation(9, (3,), AT)]
    async with rows.sessions.begin() as session:
        assert await newest_plan.reservations(session) == []
        await newest_plan.write(session, QueueOrder([9, 7], " E"))
        await newest_plan.write_single(session, kept[:1], {})
        await newest_plan.write_single(session, kept, {7: ("MACHINES_BUSY", "a sentence")})
        assert await newest_plan.reservations(session) == kept
        assert await newest_plan.places_of(session, [7]) == {7: Place(2, 9, "E")}
    version = "SELECT xmin::text FROM plans"
    before = await rows.value(version)
    async with rows.sessions.begin() as session:
        await newest_plan.write_single(session, kept, {7: ("MACHINES_BUSY", "a sentence")})
    assert await rows.value(version) == before, "the same again writes nothing"


async def test_an_empty_queue_has_an_empty_plan(rows: Rows) -> None:
    async with rows.sessions.begin() as session:
        await newest_plan.clear(session)
        await newest_plan.write(session, QueueOrder([7], " "))
        await newest_plan.write_single(session, [Reservation(7, (1,), AT)], {})
        await newest_plan.clear(session)
        assert await newest_plan.reservations(session) == []
        assert (await newest_plan.summary(session)).queued == 0


async def test_a_reason_of_its_own_stands_before_that_of_its_class(rows: Rows) -> None:
    own, other = await rows.simulation(), await rows.simulation()
    async with rows.sessions.begin() as session:
        queue_class = (await simulations.get(session, own)).queue_class
        await queue.note_reasons(session, [(queue_class, "MACHINES_BUSY", "of all")])
        await newest_plan.write_single(session, (), {own: ("HELD_BACK", "its own")})
        found = await queue.waiting_of(session, [own, other])
    told = {each: (found[each].class_reason, found[each].class_detail) for each in (own, other)}
    assert told == {own: ("HELD_BACK", "its own"), other: ("MACHINES_BUSY", "of all")}
