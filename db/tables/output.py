"""What attempts leave beside points: logs, notices and sources."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.states import LogStream
from db.tables.base import Base, enum_of, now_column


class LogChunk(Base):
    """A stretch of one stream's log, for each rank in the order of (attempt, batch, position)."""

    __tablename__ = "log_chunks"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True, server_default=text("0"))
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    stream: Mapped[LogStream] = mapped_column(enum_of(LogStream))
    text: Mapped[str]
    received_at: Mapped[datetime] = now_column()


class Notice(Base):
    """Output of one kind that was nearly points, or was dropped: how many times in a member, with an example."""

    __tablename__ = "notices"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True, server_default=text("0"))
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)  # an open set: the supervisor's
    count: Mapped[int]
    example: Mapped[str]
    advice: Mapped[str]


class AttemptSource(Base):
    """What an attempt ran: git commit, command, host, Python and packages, recorded by its supervisor."""

    __tablename__ = "attempt_sources"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    source: Mapped[dict[str, Any]]  # at most 64 KiB; see `sources`
