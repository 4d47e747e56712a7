"""Tables of attempts, their members, and the cost of deleted members."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, Numeric, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.states import Reason
from db.tables.base import Base, enum_of, id_column, now_column, unread


class Attempt(Base):
    """One execution: its `number` is the fence between attempts. Current while `ended_at IS NULL`."""

    __tablename__ = "attempts"

    id: Mapped[int] = id_column()
    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)

    assigned_at: Mapped[datetime] = now_column()
    greeted_at: Mapped[datetime | None]  # the first hello of a member that had to wait for others
    started_at: Mapped[datetime | None]  # the hello of the last member
    ended_at: Mapped[datetime | None]
    reason: Mapped[Reason | None] = mapped_column(enum_of(Reason))
    reason_detail: Mapped[str | None]
    exit_code: Mapped[int | None] = mapped_column(Integer)
    signal: Mapped[int | None] = mapped_column(Integer)

    # The stop intent (not a state): its time, actor, reason and evidence.
    stop_wanted_at: Mapped[datetime | None]
    stop_wanted_by: Mapped[str | None]
    stop_reason: Mapped[Reason | None] = mapped_column(enum_of(Reason))
    stop_evidence: Mapped[dict[str, Any] | None]
    amended: Mapped[dict[str, Any] | None]  # changes of its order since its hello: transitions.update

    # Unread since migration 0008, which moved them to `members`; the next release drops them.
    machine_id: Mapped[int | None] = unread(ForeignKey("machines.id", ondelete="SET NULL"))
    machine_name: Mapped[str | None] = unread()
    host: Mapped[str | None] = unread()
    gpu_indices: Mapped[list[int]] = unread(server_default=text("'{}'::bigint[]"))
    price_per_hour: Mapped[Decimal | None] = unread()
    share: Mapped[Decimal | None] = unread(Numeric(9, 8))
    currency: Mapped[str | None] = unread(String(3))
    token_digest: Mapped[bytes | None] = unread(unique=True)
    nonce: Mapped[str | None] = unread()
    next_batch: Mapped[int] = unread(server_default=text("1"))
    launched_at: Mapped[datetime | None] = unread()
    heartbeat_at: Mapped[datetime] = unread(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("simulation_id", "number"),
        # Guarantees that at most one attempt of a simulation has its reports stored.
        Index("uq_attempts_current", "simulation_id", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("ix_attempts_machine_id", "machine_id"),
        # Counts of lost and open attempts, for /metrics and health checks.
        Index("ix_attempts_lost", "id", postgresql_where=text("reason = 'MACHINE_LOST'")),
        Index("ix_attempts_open", "machine_id", "id", postgresql_where=text("ended_at IS NULL")),
        {"postgresql_with": {"fillfactor": 70}},
    )


class Member(Base):
    """One process of an attempt, on one machine. `ended_at` is the fence: reports are stored only while it is NULL."""

    __tablename__ = "members"

    id: Mapped[int] = id_column()
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"))
    rank: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # 0 leads: its points are the curve
    machine_id: Mapped[int | None] = mapped_column(ForeignKey("machines.id", ondelete="SET NULL"))
    machine_name: Mapped[str]
    host: Mapped[str | None]

    # The grant: resources of the machine that it holds, even if the simulation's requirements change.
    cpus: Mapped[float]
    memory_gib: Mapped[float]
    gpus: Mapped[int] = mapped_column(Integer)
    gpu_indices: Mapped[list[int]] = mapped_column(server_default=text("'{}'::bigint[]"))

    # Snapshot of the price at assignment; it is billed by this.
    price_per_hour: Mapped[Decimal]
    share: Mapped[Decimal] = mapped_column(Numeric(9, 8))  # dominant share of the machine, 0..1
    currency: Mapped[str] = mapped_column(String(3))
    assigned_at: Mapped[datetime] = now_column()

    token_digest: Mapped[bytes | None] = mapped_column(unique=True)  # SHA-256, minted anew at each launch
    nonce: Mapped[str | None]  # of the supervisor that said hello first
    address: Mapped[str | None]  # at which the other members' hosts reach it, from its hello
    port: Mapped[int | None] = mapped_column(Integer)  # free there: rank 0's is the meeting point
    next_batch: Mapped[int] = mapped_column(server_default=text("1"))
    launched_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime] = now_column()
    saved_at: Mapped[datetime | None]  # when it last stored a part of its files
    exit_code: Mapped[int | None] = mapped_column(Integer)
    signal: Mapped[int | None] = mapped_column(Integer)
    checkpoint_at: Mapped[datetime | None]  # the newest file in its checkpoint directory
    ended_at: Mapped[datetime | None]  # its own end; at the latest the transaction that ends the attempt

    __table_args__ = (
        UniqueConstraint("attempt_id", "rank"),
        Index("ix_members_machine_id", "machine_id", postgresql_where=text("machine_id IS NOT NULL")),
        # Current members, by attempt and by machine, at a cost independent of the number of ended ones.
        Index("ix_members_current", "attempt_id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_members_held", "machine_id", postgresql_where=text("ended_at IS NULL")),
        # Spending in a period, and since a budget was last counted.
        Index("ix_members_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
        # A report updates the row in place: room on the page keeps it a heap-only update.
        {"postgresql_with": {"fillfactor": 70}},
    )


class DeletedMember(Base):
    """Cost of a member whose simulation was deleted, copied by the deletion: it stays in budgets and reports."""

    __tablename__ = "deleted_members"

    id: Mapped[int] = id_column()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    simulation_id: Mapped[int]
    simulation_name: Mapped[str]
    created_by: Mapped[str]
    tags: Mapped[list[str]]
    attempt: Mapped[int] = mapped_column(Integer)
    machine_name: Mapped[str]
    price_per_hour: Mapped[Decimal]
    share: Mapped[Decimal] = mapped_column(Numeric(9, 8))
    currency: Mapped[str] = mapped_column(String(3))
    assigned_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    is_wasted: Mapped[bool]
    saved: Mapped[Decimal]  # by the stop that ended it; of the member of rank 0

    __table_args__ = (
        Index("ix_deleted_members_ended_at", "ended_at"),
        Index("ix_deleted_members_project_id", "project_id"),
    )
