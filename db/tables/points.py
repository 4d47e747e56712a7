"""Batches of points, curves thinned, summaries of metrics, and parameters as lists are sorted and filtered by them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import DDL, ForeignKey, Index, Integer, Numeric, event, text
from sqlalchemy.orm import Mapped, mapped_column

from db.tables.base import Base, now_column


class Convergence(Base):
    """One metric of one batch, as columns. `convergence_points` is the view that unnests it for psql."""

    __tablename__ = "convergence"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch: Mapped[int] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    steps: Mapped[list[int]]
    values: Mapped[list[float]]
    elapsed: Mapped[list[float]]
    received_at: Mapped[datetime] = now_column()


class Metric(Base):
    """Summary of one attempt's points of one metric. The extremes are of finite values; null where there is none."""

    __tablename__ = "metrics"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
    first_step: Mapped[int]
    last_step: Mapped[int]
    last_value: Mapped[float]  # may be NaN or infinite
    min_step: Mapped[int | None]
    min_value: Mapped[float | None]
    max_step: Mapped[int | None]
    max_value: Mapped[float | None]

    # Each batch updates the row in place: room on the page keeps it a heap-only update.
    __table_args__ = ({"postgresql_with": {"fillfactor": 70}},)


class CurveLevel(Base):
    """A long curve of an ended simulation, thinned (`db.curve_levels`). Columns are bytes of arrays, little-endian."""

    __tablename__ = "curve_levels"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    points: Mapped[int]  # that the curve had when it was thinned, superseded ones included
    attempt: Mapped[int] = mapped_column(Integer)  # with `batch`: the cursor behind the curve
    batch: Mapped[int]
    steps: Mapped[bytes]  # int64
    values: Mapped[bytes]  # float64
    elapsed: Mapped[bytes | None]  # float64; null: not asked for yet
    attempts: Mapped[bytes]  # int32


for _column in ("steps", "values", "elapsed", "attempts"):  # uncompressed: compressing takes longer than storing
    _uncompressed = f'ALTER TABLE curve_levels ALTER COLUMN "{_column}" SET STORAGE EXTERNAL'
    event.listen(CurveLevel.__table__, "after_create", DDL(_uncompressed))  # type: ignore[no-untyped-call]  # as SQLAlchemy has it


class Result(Base):
    """Summary of a metric of an ended simulation over all its attempts, to sort lists by; null: not finite.

    Written by the move to a final state. `metrics` has no index on values: each batch would have to write it.
    """

    __tablename__ = "results"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    last_value: Mapped[float | None]
    min_value: Mapped[float | None]
    max_value: Mapped[float | None]

    __table_args__ = tuple(
        Index(f"ix_results_{column}", "metric", column, "simulation_id", postgresql_where=text(f"{column} IS NOT NULL"))
        for column in ("last_value", "min_value", "max_value")
    )


class ParameterValue(Base):
    """A number or a word among a simulation's parameters, by its path (`optimizer.lr`). Written by triggers (0019)."""

    __tablename__ = "parameter_values"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[Decimal | None] = mapped_column(Numeric)
    word: Mapped[str | None]  # of a string or a boolean

    __table_args__ = tuple(
        Index(
            f"ix_parameter_values_{column}",
            "name",
            column,
            "simulation_id",
            postgresql_where=text(f"{column} IS NOT NULL"),
        )
        for column in ("number", "word")
    )
