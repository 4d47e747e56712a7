"""API tokens and browser logins."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.states import Role
from db.tables.base import Base, enum_of, id_column, now_column


class Token(Base):
    """An API token. Its text was shown once and is stored nowhere: the token is found by its digest."""

    __tablename__ = "tokens"

    id: Mapped[int] = id_column()
    name: Mapped[str]  # whom events name
    digest: Mapped[bytes] = mapped_column(unique=True)  # SHA-256 of 256 random bits: nothing to guess, so nothing slow
    role: Mapped[Role] = mapped_column(enum_of(Role, checked=True))
    # Of which projects; null: of all. An array, so that finding a token reads one row; a project's id is never reused.
    project_ids: Mapped[list[int] | None]
    created_at: Mapped[datetime] = now_column()
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the minute

    __table_args__ = (
        # Events name who did it: one name is one token, until it is revoked.
        Index("uq_tokens_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )


class Login(Base):
    """A browser login. Its cookie's value is stored nowhere: the login is found by its digest."""

    __tablename__ = "logins"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    token_id: Mapped[int] = mapped_column(ForeignKey("tokens.id"))  # what it stands for: it ends with it
    created_at: Mapped[datetime] = now_column()
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_logins_token_id_created_at", "token_id", "created_at"),
        Index("ix_logins_expires_at", "expires_at"),
    )
