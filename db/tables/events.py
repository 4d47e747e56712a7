"""Events, alert targets, and the deliveries of alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Integer, String, UniqueConstraint, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base, id_column, now_column


class Event(Base):
    """One event: kind, object, time, actor and origin. No foreign key: the record outlives its object."""

    __tablename__ = "events"

    id: Mapped[int] = id_column()
    at: Mapped[datetime] = now_column()
    kind: Mapped[str]
    actor: Mapped[str]
    origin: Mapped[str | None]
    object_type: Mapped[str]
    object_id: Mapped[int | None]
    project_id: Mapped[int | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    # The outbox of alerts: until its deliveries are written. A mark, not a position: ids don't commit in their order.
    alert_pending: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        Index("ix_events_object_type_object_id_id", "object_type", "object_id", "id"),
        Index("ix_events_alert_pending", "id", postgresql_where=text("alert_pending")),
    )


class AlertTarget(Base):
    """A receiver of alerts. The URL and the signing secret are readable here: they are needed for each delivery."""

    __tablename__ = "alert_targets"

    id: Mapped[int] = id_column()
    name: Mapped[str] = mapped_column(unique=True)
    transport: Mapped[str] = mapped_column(String(20))  # db.alert_targets.Transport
    url: Mapped[str]
    secret: Mapped[str | None]  # of a webhook: whsec_...
    kinds: Mapped[list[str]]  # policy.alerts.AlertKind
    project_ids: Mapped[list[int] | None]  # that may use it; null: all
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))  # of those projects' simulations and budgets
    created_at: Mapped[datetime] = now_column()
    created_by: Mapped[str]
    delivered_at: Mapped[datetime | None]  # the newest
    failed_at: Mapped[datetime | None]  # likewise
    last_error: Mapped[str | None]  # of that failure; null after a delivery


class AlertDelivery(Base):
    """One message to one target: sent until it is accepted or given up, always with the same id and content."""

    __tablename__ = "alert_deliveries"

    id: Mapped[int] = id_column()
    target_id: Mapped[int] = mapped_column(ForeignKey("alert_targets.id", ondelete="CASCADE"))
    event_id: Mapped[int | None]  # null: a test
    simulation_id: Mapped[int | None]  # no foreign key: it may be deleted before the message has arrived
    message_id: Mapped[UUID] = mapped_column(Uuid, server_default=text("gen_random_uuid()"))
    type: Mapped[str]
    payload: Mapped[str]  # JSON, as it is signed and sent
    title: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = now_column()
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_at: Mapped[datetime] = now_column()  # not to be sent before; during an attempt, its lease
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]
    error: Mapped[str | None]  # of the newest attempt

    __table_args__ = (
        UniqueConstraint("target_id", "event_id"),
        Index("ix_alert_deliveries_target_id_id", "target_id", "id"),
        Index("ix_alert_deliveries_simulation_id", "simulation_id", postgresql_where=text("simulation_id IS NOT NULL")),
        Index(
            "ix_alert_deliveries_due",
            "target_id",
            "next_at",
            postgresql_where=text("delivered_at IS NULL AND given_up_at IS NULL"),
        ),
        Index("ix_alert_deliveries_created_at", "created_at"),
    )
