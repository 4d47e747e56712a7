"""Beats of processes: watch leases of graph, coverage of roles."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base


class Watcher(Base):
    """Watch lease: a graph process has subscribers of an attended simulation until then, by Postgres' clock."""

    __tablename__ = "watchers"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    watcher: Mapped[str] = mapped_column(primary_key=True)  # a graph process, each start of it
    watched_until: Mapped[datetime]

    # Renewed every few seconds: room on the page keeps it a heap-only update.
    __table_args__ = ({"postgresql_with": {"fillfactor": 70}},)


class Coverage(Base):
    """Time since which a role beats without a gap, by Postgres' clock: a lease counts within it only."""

    __tablename__ = "coverage"

    role: Mapped[str] = mapped_column(String(20), primary_key=True)
    covered_since: Mapped[datetime]
    beat_at: Mapped[datetime]
