"""Stored files: lists of them, packages of code, and the pieces of both."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.states import FileKind
from db.tables.base import Base, enum_of, id_column, now_column


class StoredFiles(Base):
    """The newest list of a directory's files, of one rank: all of their pieces are stored."""

    __tablename__ = "stored_files"

    simulation_id: Mapped[int] = mapped_column(ForeignKey("simulations.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[FileKind] = mapped_column(enum_of(FileKind), primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    stored_at: Mapped[datetime] = now_column()
    size_bytes: Mapped[int]
    entries: Mapped[list[Any]] = mapped_column(JSONB)  # db.files.Entry


class Package(Base):
    """A directory of code that a user has packed: an archive in pieces, named by the SHA-256 of its bytes."""

    __tablename__ = "packages"

    id: Mapped[int] = id_column()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    digest: Mapped[bytes]  # SHA-256
    size_bytes: Mapped[int]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = now_column()
    stored_at: Mapped[datetime | None]  # null: it is being uploaded
    used_at: Mapped[datetime] = now_column()  # to the hour: the newest submission with it, or question for it

    __table_args__ = (
        Index(
            "uq_packages_stored", "project_id", "digest", unique=True, postgresql_where=text("stored_at IS NOT NULL")
        ),
        Index("ix_packages_unstored", "project_id", postgresql_where=text("stored_at IS NULL")),
    )


class StoredPiece(Base):
    """A part of a simulation's files or of a package, under its id in the store. Without either it is removed there."""

    __tablename__ = "stored_pieces"

    id: Mapped[int] = id_column()
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    simulation_id: Mapped[int | None] = mapped_column(ForeignKey("simulations.id", ondelete="SET NULL"))
    package_id: Mapped[int | None] = mapped_column(ForeignKey("packages.id", ondelete="SET NULL"))
    digest: Mapped[bytes]  # SHA-256
    size_bytes: Mapped[int]
    created_at: Mapped[datetime] = now_column()
    stored_at: Mapped[datetime | None]  # null: reserved, not there yet

    __table_args__ = (
        UniqueConstraint("simulation_id", "digest"),
        # What a project has stored, for its quota; what is to be removed, and what was never uploaded.
        Index("ix_stored_pieces_of_project", "project_id", postgresql_include=["size_bytes"],
              postgresql_where=text("simulation_id IS NOT NULL OR package_id IS NOT NULL")),
        Index("ix_stored_pieces_unowned", "id", postgresql_where=text("simulation_id IS NULL AND package_id IS NULL")),
        Index("ix_stored_pieces_of_package", "package_id", "id", postgresql_where=text("package_id IS NOT NULL")),
        Index("ix_stored_pieces_unstored", "created_at", postgresql_where=text("stored_at IS NULL")),
    )  # fmt: skip
