"""Machines, and the hosts whose schedulers launch work on them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base, id_column, now_column


class Host(Base):
    """A host whose scheduler process launches local work; its id is kept in that host's data directory."""

    __tablename__ = "hosts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    gpus: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    heartbeat_at: Mapped[datetime] = now_column()
    created_at: Mapped[datetime] = now_column()


class Machine(Base):
    """Something that runs attempts, with the resources and the price its owner or its engine declared."""

    __tablename__ = "machines"

    id: Mapped[int] = id_column()
    name: Mapped[str] = mapped_column(unique=True)
    engine: Mapped[str]
    engine_key: Mapped[str]  # the engine's own id of it
    host: Mapped[str | None] = mapped_column(ForeignKey("hosts.id"))
    declared: Mapped[bool] = mapped_column(server_default=text("false"))  # made by createMachine
    cpus: Mapped[float]
    memory_gib: Mapped[float]
    gpus: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    gpu_model: Mapped[str | None]
    labels: Mapped[dict[str, str]] = mapped_column(server_default=text("'{}'::jsonb"))
    price_per_hour: Mapped[Decimal] = mapped_column(server_default=text("0"))
    draining: Mapped[bool] = mapped_column(server_default=text("false"))
    drain_deadline: Mapped[datetime | None]  # when what still runs there is stopped; null: never
    heartbeat_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = now_column()

    __table_args__ = (
        UniqueConstraint("engine", "engine_key"),
        Index("ix_machines_host", "host"),
    )
