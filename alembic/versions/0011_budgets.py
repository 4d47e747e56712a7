"""Budgets per project and for the installation; the cost of deleted simulations; members by their end.

The cost of simulations that were deleted before is not known.

Downgrading drops all budgets, and the cost of deleted simulations.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("period", sa.String(10), nullable=False),
        sa.Column("amount", sa.Numeric(18, 6), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("period_begin", sa.DateTime(timezone=True), nullable=True),
        sa.Column("counted", sa.Numeric(18, 6), server_default=sa.text("0"), nullable=False),
        sa.Column("counted_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("warned_percent", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_budgets_amount")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_budgets_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sa.UniqueConstraint(
            "project_id", "period", name=op.f("uq_budgets_project_id_period"), postgresql_nulls_not_distinct=True
        ),
    )
    op.create_table(
        "deleted_members",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("simulation_name", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("machine_name", sa.Text(), nullable=False),
        sa.Column("price_per_hour", sa.Numeric(18, 6), nullable=False),
        sa.Column("share", sa.Numeric(9, 8), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_wasted", sa.Boolean(), nullable=False),
        sa.Column("saved", sa.Numeric(18, 6), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_deleted_members_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_members")),
    )
    op.create_index("ix_deleted_members_ended_at", "deleted_members", ["ended_at"])
    op.create_index("ix_deleted_members_project_id", "deleted_members", ["project_id"])
    op.create_index("ix_members_ended_at", "members", ["ended_at"], postgresql_where=sa.text("ended_at IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_members_ended_at", table_name="members")
    op.drop_table("deleted_members")
    op.drop_table("budgets")
