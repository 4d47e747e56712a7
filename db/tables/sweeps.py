"""Sweeps, their trials, and results at the rungs of successive halving."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base, id_column, now_column


class Sweep(Base):
    """A search for the best parameters: trials are simulations made of `template`, at most `parallel` at once.

    Active until `ended_at`: `reason` is set once no more trials begin, `ended_at` once all of them have ended.
    """

    __tablename__ = "sweeps"

    id: Mapped[int] = id_column()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    template: Mapped[dict[str, Any]]  # db.simulations.Wanted, as JSON values
    # That of its template; null again once it was deleted, after the sweep's end and its last simulation.
    package_id: Mapped[int | None] = mapped_column(ForeignKey("packages.id", ondelete="SET NULL"))
    space: Mapped[list[Any]] = mapped_column(JSONB)  # policy.search_space
    sampler: Mapped[str] = mapped_column(String(20))  # policy.search_space.Sampler
    seed: Mapped[int]
    objective_metric: Mapped[str]
    objective_mode: Mapped[str]  # MetricMode
    trials: Mapped[int] = mapped_column(Integer)  # how many there are to be
    parallel: Mapped[int] = mapped_column(Integer)
    seeds: Mapped[int] = mapped_column(Integer, server_default=text("1"))  # simulations of each trial
    max_cost: Mapped[Decimal | None]  # of all its trials together
    patience: Mapped[int | None] = mapped_column(Integer)
    target: Mapped[float | None]
    grace_period: Mapped[int | None]  # policy.sweep; null: no pruning. With reduction_factor halving, else the median
    reduction_factor: Mapped[int | None] = mapped_column(Integer)
    created_by: Mapped[str]
    client_key: Mapped[str | None]
    client_digest: Mapped[bytes | None]  # of what was asked for under that key
    created_at: Mapped[datetime] = now_column()
    reason: Mapped[str | None] = mapped_column(String(40))  # policy.sweep_progress.SweepReason
    reason_detail: Mapped[str | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("project_id", "client_key"),
        Index("ix_sweeps_active", "id", postgresql_where=text("ended_at IS NULL")),  # what the scheduler looks through
        Index("ix_sweeps_project_id_id", "project_id", "id"),
        Index("ix_sweeps_name_id", "name", "id"),
        Index("ix_sweeps_package_id", "package_id", postgresql_where=text("package_id IS NOT NULL")),
        CheckConstraint("trials > 0 AND parallel > 0 AND seeds > 0", name="counts"),
    )


class Trial(Base):
    """A trial of a sweep: the parameters that its sampler chose, and how it ended. It outlives its simulations."""

    __tablename__ = "sweep_trials"

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # from 0
    parameters: Mapped[dict[str, Any]]
    notes: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  # of the sampler
    begun_at: Mapped[datetime] = now_column()
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(20))  # policy.sampling.Outcome
    value: Mapped[float | None]  # the mean of its simulations' best values
    spread: Mapped[float | None]  # their standard deviation
    step: Mapped[int | None]  # that a pruned one came to
    cost: Mapped[Decimal | None]

    __table_args__ = (Index("ix_sweep_trials_open", "sweep_id", "number", postgresql_where=text("outcome IS NULL")),)


class RungResult(Base):
    """The best value of a simulation of a sweep when it came to a rung. Rows with lower ids were there before it."""

    __tablename__ = "sweep_rungs"

    id: Mapped[int] = id_column()
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    step: Mapped[int]
    simulation_id: Mapped[int]  # it may be deleted: its result stays
    value: Mapped[float]  # infinite without a finite value
    average: Mapped[float | None]  # of its values until then, for the median rule

    __table_args__ = (UniqueConstraint("sweep_id", "step", "simulation_id"),)
