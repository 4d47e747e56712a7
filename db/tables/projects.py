"""Projects and budgets."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, ForeignKey, Integer, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base, id_column, now_column


class Project(Base):
    """A group of simulations. `default` always exists."""

    __tablename__ = "projects"

    id: Mapped[int] = id_column()
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = now_column()
    weight: Mapped[Decimal] = mapped_column(server_default=text("1"))  # of its fair share
    gpu_quota: Mapped[int | None] = mapped_column(Integer)  # GPUs at once; null: as many as there are

    __table_args__ = (
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint("gpu_quota >= 0", name="gpu_quota"),
    )


class Budget(Base):
    """Amount that a project (null: the whole installation) may spend in each period of one kind.

    The second half is the state of the newest period that the judge has seen. The row's lock, the last in the order,
    makes starts that come together see each other.
    """

    __tablename__ = "budgets"

    id: Mapped[int] = id_column()
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    period: Mapped[str] = mapped_column(String(10))  # policy.budget.Period
    amount: Mapped[Decimal]
    currency: Mapped[str] = mapped_column(String(3))
    created_at: Mapped[datetime] = now_column()
    created_by: Mapped[str]

    period_begin: Mapped[datetime | None]  # of the period that the following columns are about
    counted: Mapped[Decimal] = mapped_column(server_default=text("0"))  # cost of members that ended before `counted_to`
    counted_to: Mapped[datetime | None]
    warned_percent: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    closed_at: Mapped[datetime | None]  # attempts were stopped for it: nothing else starts in this period

    __table_args__ = (
        UniqueConstraint("project_id", "period", postgresql_nulls_not_distinct=True),
        CheckConstraint("amount >= 0", name="amount"),
    )
