"""What the planner writes of the queue: waiting reasons by class, and the newest plan."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Integer, String, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base, now_column


class QueueClass(Base):
    """Waiting reason of one class of equal requirements. Written by the planner, for classes in its memory."""

    __tablename__ = "queue_classes"

    queue_class: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    reason: Mapped[str] = mapped_column(String(40))  # policy.waiting.WaitingReason
    detail: Mapped[str]
    alerted_at: Mapped[datetime | None]  # of the newest alert that something of this class waits too long


class Plan(Base):
    """The newest plan, one row: the order of the queue, what is reserved, and sentences. All by `db.newest_plan`.

    One row instead of a column of each simulation: a change of the order would otherwise write the whole queue.
    """

    __tablename__ = "plans"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # 1
    at: Mapped[datetime] = now_column()
    queue: Mapped[list[int]] = mapped_column(server_default=text("'{}'::bigint[]"))  # simulations, the first first
    rules: Mapped[str] = mapped_column(Text, server_default="")  # a letter for each place: why it is not the one before
    reservations: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    # Waiting reasons of single simulations, by id: those that wait for something else than their class does.
    own: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # The newest transaction that changed what a plan depends on beside the queue and the machines.
    asked_xid: Mapped[int | None]

    __table_args__ = (CheckConstraint("id = 1", name="one"),)
