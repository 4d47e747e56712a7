"""Objective, stop rules and limits of cost and steps, per simulation; changed limits of a running attempt.

All new columns are null, or zero, for what exists: an older simulation has no objective and no rules.

Downgrading drops them; what runs goes on without its rules.

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("simulations", sa.Column("objective_metric", sa.Text(), nullable=True))
    op.add_column("simulations", sa.Column("objective_mode", sa.Text(), nullable=True))
    op.add_column("simulations", sa.Column("stopping", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column(
        "simulations", sa.Column("stopping_revision", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("simulations", sa.Column("would_stop", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("simulations", sa.Column("max_cost", sa.Numeric(18, 6), nullable=True))
    op.add_column("simulations", sa.Column("max_steps", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("amended", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.create_index(
        "ix_simulations_judged",
        "simulations",
        ["id"],
        postgresql_where=sa.text("stopping IS NOT NULL AND state = 'RUNNING'"),
    )
    op.create_index(
        "ix_simulations_max_cost",
        "simulations",
        ["id"],
        postgresql_where=sa.text("max_cost IS NOT NULL AND state IN ('STARTING', 'RUNNING')"),
    )


def downgrade() -> None:
    op.drop_index("ix_simulations_max_cost", table_name="simulations")
    op.drop_index("ix_simulations_judged", table_name="simulations")
    op.drop_column("attempts", "amended")
    for name in (
        "max_steps", "max_cost", "would_stop", "stopping_revision", "stopping", "objective_mode", "objective_metric",
    ):  # fmt: skip
        op.drop_column("simulations", name)
