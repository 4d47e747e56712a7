"""Stored checkpoints and outputs: lists of files, and their pieces.

Revision: 0027, after 0026
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("members", sa.Column("saved_at", _TIME, nullable=True))
    op.create_table(
        "stored_files",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("stored_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("entries", JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_stored_files_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "kind", "rank", name=op.f("pk_stored_files")),
    )
    op.create_table(
        "stored_pieces",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("simulation_id", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("stored_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_stored_pieces_project_id")),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_stored_pieces_simulation_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_pieces")),
        sa.UniqueConstraint("simulation_id", "digest", name=op.f("uq_stored_pieces_simulation_id_digest")),
    )
    op.create_index(
        "ix_stored_pieces_of_project",
        "stored_pieces",
        ["project_id"],
        postgresql_include=["size_bytes"],
        postgresql_where=sa.text("simulation_id IS NOT NULL"),
    )
    op.create_index(
        "ix_stored_pieces_unowned", "stored_pieces", ["id"], postgresql_where=sa.text("simulation_id IS NULL")
    )
    op.create_index(
        "ix_stored_pieces_unstored", "stored_pieces", ["created_at"], postgresql_where=sa.text("stored_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("stored_pieces")
    op.drop_table("stored_files")
    op.drop_column("members", "saved_at")
