"""The outbox of alerts: events whose deliveries are still to be written, and deliveries that are still to be sent.

An event is marked in the transaction that records it, and the mark is taken off in the transaction that writes its
deliveries: exactly one delivery for each target, also if a process is killed in between. (A position in the events
would miss some: their ids don't commit in order.)

A delivery is claimed for the time of one attempt, by moving the time of the next one: a scheduler that dies while it
sends leaves a delivery that is sent again, with the same id, when the claim has run out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import events
from db.events import PLANNER, Actor
from db.models import AlertDelivery, AlertTarget, Event
from db.notifications import Channel, notify
from db.outage import Driver
from db.pages import Ordering, Page, page

_IS_OPEN = AlertDelivery.delivered_at.is_(None), AlertDelivery.given_up_at.is_(None)


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent to one target. payload: JSON; title and body: the same in words."""

    target_id: int
    type: str
    payload: str
    title: str
    body: str
    event_id: int | None = None
    simulation_id: int | None = None


@dataclass(frozen=True, slots=True)
class Sending:
    """A delivery that is claimed, with what is needed to send it."""

    id: int
    target_id: int
    target_name: str
    transport: str
    url: str
    secret: str | None
    message_id: UUID
    payload: str
    title: str
    body: str
    is_test: bool
    attempts: int  # this one included
    age: timedelta


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do: marked events, and the targets that have something to be sent now."""

    has_events: bool
    due_targets: Sequence[int]


# An index look-up for the events, and one for each target: a round with nothing to do is this statement.
LOOK = """
    SELECT EXISTS (SELECT FROM events WHERE alert_pending), ARRAY(
        SELECT t.id FROM alert_targets AS t
        WHERE EXISTS (
            SELECT FROM alert_deliveries AS d
            WHERE d.target_id = t.id AND d.delivered_at IS NULL AND d.given_up_at IS NULL AND d.next_at <= now()
        )
        ORDER BY t.id
    )
"""


async def look(driver: Driver) -> Work:
    """Find out what there is to do. Through the bare driver: it is asked in every tick."""
    row: Any = await driver.fetchrow(LOOK)
    return Work(row[0], row[1])


# --- events ----------------------------------------------------------------------------------------------------


async def pending_events(session: AsyncSession, limit: int) -> Sequence[Event]:
    """Lock the oldest marked events that are not locked by another scheduler."""
    marked = (
        select(Event)
        .where(Event.alert_pending)
        .order_by(Event.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(marked)).all()


async def settle_events(session: AsyncSession, event_ids: Collection[int], messages: Sequence[Message]) -> int:
    """Write the deliveries of these events and take off their marks; return how many deliveries are new."""
    written = await write(session, messages)
    await session.execute(
        update(Event)
        .where(Event.id.in_(event_ids))
        .values(alert_pending=False)
        .execution_options(synchronize_session=False)
    )
    return len(written)


async def last_words(session: AsyncSession, simulation_ids: Collection[int]) -> Mapping[int, Mapping[str, Any]]:
    """What the events of deletions keep of these simulations, by id."""
    found = await session.execute(
        select(Event.object_id, Event.detail).where(
            Event.object_type == "Simulation", Event.object_id.in_(simulation_ids), Event.kind == "DELETED"
        )
    )
    return {row.object_id: row.detail for row in found if row.object_id is not None}


# The longest waiting simulation of each class and choice of targets. A class is looked at again when its newest alert
# is as old as the wait itself. Skipping locked rows: the planner updates many of them, in an order of its own.
_LONG_WAITS = text("""
    WITH due AS (
        SELECT c.queue_class FROM queue_classes AS c
        WHERE (
            c.alerted_at IS NULL OR c.alerted_at < now() - CAST(:wait AS interval)
        ) AND EXISTS (
            SELECT FROM simulations AS s
            WHERE s.state = 'QUEUED' AND NOT s.held AND s.queue_class = c.queue_class AND NOT s.attended
              AND s.queued_at < now() - CAST(:wait AS interval)
        )
        FOR NO KEY UPDATE OF c SKIP LOCKED
    ), noted AS (
        UPDATE queue_classes AS c SET alerted_at = now() FROM due WHERE c.queue_class = due.queue_class
        RETURNING c.queue_class, c.reason, c.detail
    )
    SELECT DISTINCT ON (s.queue_class, s.alert_target_ids)
           s.id, s.project_id, extract(epoch FROM now() - s.queued_at)::float8 AS seconds, n.reason, n.detail,
           count(*) OVER (PARTITION BY s.queue_class, s.alert_target_ids) AS waiting
    FROM simulations AS s JOIN noted AS n ON n.queue_class = s.queue_class
    WHERE s.state = 'QUEUED' AND NOT s.held AND NOT s.attended AND s.queued_at < now() - CAST(:wait AS interval)
    ORDER BY s.queue_class, s.alert_target_ids, s.queued_at, s.id
""")


async def note_long_waits(session: AsyncSession, wait: timedelta) -> int:
    """Record an event for each class of simulations that waits too long; return how many.

    One event for a class, of its longest waiting simulation, and not again before the same time has passed: a queue of
    a hundred thousand equal simulations is one alert.
    """
    found = (await session.execute(_LONG_WAITS, {"wait": wait})).all()
    for row in found:
        detail = {
            "reason": row.reason, "detail": row.detail, "waitedSeconds": round(row.seconds), "waiting": row.waiting,
        }  # fmt: skip
        await events.record(
            session, "WAITS_TOO_LONG", PLANNER, "Simulation", row.id, project_id=row.project_id, detail=detail
        )
    return len(found)


# --- sending ---------------------------------------------------------------------------------------------------


async def write(session: AsyncSession, messages: Sequence[Message]) -> Sequence[int]:
    """Write deliveries, and return the ids of those that were not there yet."""
    if not messages:
        return []
    values = [{name: getattr(each, name) for name in Message.__dataclass_fields__} for each in messages]
    made = insert(AlertDelivery).values(values).on_conflict_do_nothing(index_elements=["target_id", "event_id"])
    ids = (await session.scalars(made.returning(AlertDelivery.id))).all()
    await notify(session, Channel.ALERTS, "")
    return ids


async def write_test(session: AsyncSession, message: Message, actor: Actor) -> AlertDelivery:
    """Write the delivery of a test message, and record who asked for it."""
    [made] = await write(session, [message])
    await events.record(session, "TESTED", actor, "AlertTarget", message.target_id)
    return (await session.scalars(select(AlertDelivery).where(AlertDelivery.id == made))).one()


async def claim(session: AsyncSession, target_id: int, lease: timedelta) -> Sending | None:
    """Claim the delivery of this target that is due for longest; it is due again after `lease`."""
    due = (
        select(AlertDelivery.id)
        .where(AlertDelivery.target_id == target_id, *_IS_OPEN, AlertDelivery.next_at <= func.now())
        .order_by(AlertDelivery.next_at, AlertDelivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    claimed = (
        update(AlertDelivery)
        .where(AlertDelivery.id == due.scalar_subquery(), AlertTarget.id == AlertDelivery.target_id)
        .values(attempts=AlertDelivery.attempts + 1, next_at=func.now() + lease)
        .returning(
            AlertDelivery.id, AlertDelivery.target_id, AlertTarget.name, AlertTarget.transport, AlertTarget.url,
            AlertTarget.secret, AlertDelivery.message_id, AlertDelivery.payload, AlertDelivery.title,
            AlertDelivery.body, AlertDelivery.event_id.is_(None), AlertDelivery.attempts,
            func.now() - AlertDelivery.created_at,
        )
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    row = (await session.execute(claimed)).one_or_none()
    if row is None:
        return None
    columns: tuple[Any, ...] = tuple(row)
    return Sending(*columns)


async def note_delivered(session: AsyncSession, sending: Sending) -> None:
    """Note that a message was accepted."""
    await session.execute(
        update(AlertDelivery)
        .where(AlertDelivery.id == sending.id)
        .values(delivered_at=func.now(), error=None)
        .execution_options(synchronize_session=False)
    )
    await session.execute(
        update(AlertTarget)
        .where(AlertTarget.id == sending.target_id)
        .values(delivered_at=func.now(), last_error=None)
        .execution_options(synchronize_session=False)
    )


async def note_failed(session: AsyncSession, sending: Sending, error: str, retry_after: timedelta | None) -> None:
    """Note a failed attempt, and when the next one is due; None: it is given up."""
    values: dict[str, Any] = {"error": error}
    if retry_after is None:
        values["given_up_at"] = func.now()
    else:
        values["next_at"] = func.now() + retry_after
    await session.execute(
        update(AlertDelivery)
        .where(AlertDelivery.id == sending.id, *_IS_OPEN)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    await session.execute(
        update(AlertTarget)
        .where(AlertTarget.id == sending.target_id)
        .values(failed_at=func.now(), last_error=error)
        .execution_options(synchronize_session=False)
    )


async def hasten(session: AsyncSession, target_id: int) -> None:
    """Make everything that waits for its next attempt at a target due now."""
    await session.execute(
        update(AlertDelivery)
        .where(AlertDelivery.target_id == target_id, *_IS_OPEN, AlertDelivery.error.is_not(None))
        .values(next_at=func.now())
        .execution_options(synchronize_session=False)
    )
    await notify(session, Channel.ALERTS, "")


async def forget(session: AsyncSession, older_than: timedelta) -> None:
    """Delete deliveries that are this old and not open."""
    await session.execute(
        delete(AlertDelivery)
        .where(
            AlertDelivery.created_at < func.now() - older_than,
            AlertDelivery.delivered_at.is_not(None) | AlertDelivery.given_up_at.is_not(None),
        )
        .execution_options(synchronize_session=False)
    )


# --- reading ---------------------------------------------------------------------------------------------------


async def by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[AlertDelivery]:
    return (await session.scalars(select(AlertDelivery).where(AlertDelivery.id.in_(ids)))).all()


async def page_of_target(
    session: AsyncSession, target_id: int, *, first: int, after: str | None
) -> Page[AlertDelivery]:
    """One page of a target's deliveries, newest first."""
    statement = select(AlertDelivery).where(AlertDelivery.target_id == target_id)
    return await page(session, statement, Ordering((AlertDelivery.id,), descending=True), first=first, after=after)


async def of_simulation(session: AsyncSession, simulation_id: int) -> Sequence[AlertDelivery]:
    """The deliveries about a simulation, oldest first: at most 1,000."""
    statement = select(AlertDelivery).where(AlertDelivery.simulation_id == simulation_id)
    return (await session.scalars(statement.order_by(AlertDelivery.id).limit(1000))).all()


async def open_of_targets(session: AsyncSession, target_ids: Collection[int]) -> Mapping[int, int]:
    """How many deliveries of these targets are neither accepted nor given up."""
    found = await session.execute(
        select(AlertDelivery.target_id, func.count(AlertDelivery.id))
        .where(AlertDelivery.target_id.in_(target_ids), *_IS_OPEN)
        .group_by(AlertDelivery.target_id)
    )
    return {row[0]: row[1] for row in found}
