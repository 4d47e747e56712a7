"""Event log: the history of simulations and the audit of everything else. Append only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, any_, cast, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Event
from db.notifications import Channel, notify
from db.states import FINAL_STATES, Reason


@dataclass(frozen=True, slots=True)
class Actor:
    """Name of the token or process that acts, and its address if the request came from outside."""

    name: str
    origin: str | None = None


UNVERIFIED = " (unverified)"  # after the name of a Unix user that no token proves
# Kinds of events that may be alerts; `policy.alerts` judges each of them.
MAY_ALERT = frozenset({*FINAL_STATES, "WAITS_TOO_LONG", "BUDGET_WARNING"})
PLANNER = Actor("scheduler")
JUDGE = Actor("judge")
SUPERVISOR = Actor("supervisor")


def may_alert(kind: str, detail: Mapping[str, Any]) -> bool:
    """Whether an event is marked for the outbox. Events are written here, and with the state by `lifecycle.move`."""
    return kind in MAY_ALERT or detail.get("reason") == Reason.MACHINE_LOST


async def record(
    session: AsyncSession,
    kind: str,
    actor: Actor,
    object_type: str,
    object_id: int | None,
    *,
    project_id: int | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Append one event, in the caller's transaction: it is stored if and only if the change is.

    What may be an alert is marked for the outbox.
    """
    alerts = may_alert(kind, detail or {})
    await session.execute(
        insert(Event).values(
            kind=kind,
            actor=actor.name,
            origin=actor.origin,
            object_type=object_type,
            object_id=object_id,
            project_id=project_id,
            detail=detail or {},
            alert_pending=alerts,
        )
    )
    if alerts:
        await notify(session, Channel.ALERTS, "")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One of several objects of an event."""

    object_id: int
    project_id: int | None
    detail: dict[str, Any]


async def record_all(
    session: AsyncSession, kind: str, actor: Actor, object_type: str, objects: Sequence[Recorded]
) -> None:
    """Append an event for each of several objects, in the caller's transaction. Not for what may be an alert."""
    assert kind not in MAY_ALERT
    await session.execute(
        insert(Event),
        [
            {
                "kind": kind, "actor": actor.name, "origin": actor.origin, "object_type": object_type,
                "object_id": each.object_id, "project_id": each.project_id, "detail": each.detail,
            }
            for each in objects
        ],
    )  # fmt: skip


async def list_of(
    session: AsyncSession, object_type: str, object_id: int, *, after_id: int = 0, limit: int = 1000
) -> Sequence[Event]:
    """The events of one object, oldest first."""
    return (
        await session.scalars(
            select(Event)
            .where(Event.object_type == object_type, Event.object_id == object_id, Event.id > after_id)
            .order_by(Event.id)
            .limit(limit)
        )
    ).all()


async def find_deleted(session: AsyncSession, object_type: str, object_ids: Collection[int]) -> set[int]:
    """Which of these objects were deleted, and are not merely unknown here. Any number of ids."""
    wanted = Event.object_id == any_(cast(list(object_ids), ARRAY(BigInteger)))
    found = await session.scalars(
        select(Event.object_id).where(Event.object_type == object_type, wanted, Event.kind == "DELETED")
    )
    return {each for each in found if each is not None}
