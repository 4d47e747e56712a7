"""Declarative base of the tables: naming of constraints, column types, and columns that most tables have."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Enum,
    Float,
    Identity,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.states import FileKind, LogStream, MetricsFrom, Reason, Role, SimulationState

Money = Numeric(18, 6)
Timestamp = DateTime(timezone=True)


def enum_of(
    kind: type[SimulationState] | type[Reason] | type[LogStream] | type[Role] | type[MetricsFrom] | type[FileKind],
    *,
    checked: bool = False,
) -> Enum:
    """Text with Python's enum on this side. Only closed sets, as states and roles, have a CHECK: reasons grow."""
    return Enum(kind, native_enum=False, length=40, create_constraint=checked, name=kind.__name__.lower())


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {
        int: BigInteger,
        str: Text,
        bytes: LargeBinary,
        float: Float(53),
        Decimal: Money,
        datetime: Timestamp,
        timedelta: Interval,
        dict[str, Any]: JSONB(none_as_null=True),  # else None would be stored as the JSON value null
        dict[str, str]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(BigInteger),
        list[float]: ARRAY(Float(53)),
    }


def id_column() -> Mapped[int]:
    return mapped_column(BigInteger, Identity(always=True), primary_key=True)


def unread(*kind: Any, **given: Any) -> Mapped[Any]:
    """A column that an older version of the service reads; here reading it raises."""
    return mapped_column(*kind, deferred=True, deferred_raiseload=True, **given)


def now_column() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


THIS_TRANSACTION = text("((pg_current_xact_id())::text)::bigint")
