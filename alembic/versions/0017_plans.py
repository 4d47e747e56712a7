"""Preemptible simulations, what a preempted one has behind it, what runs have in common, and the newest plan.

`learning_class` is generated, so the upgrade writes the table anew: some seconds per million simulations, during which
it is locked. Downgrading loses which simulations are preemptible.

Revision: 0017, after 0016
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

LEARNING_CLASS = "hash_array_extended(array_append(entrypoint, name), project_id)"


def upgrade() -> None:
    op.add_column(
        "simulations", sa.Column("preemptible", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column(
        "simulations",
        sa.Column("attained", sa.Interval(), server_default=sa.text("'00:00:00'::interval"), nullable=False),
    )
    op.add_column("simulations", sa.Column("steps_done", sa.BigInteger(), nullable=True))
    op.add_column("simulations", sa.Column("step_rate", sa.Float(53), nullable=True))
    op.add_column(
        "simulations",
        sa.Column("learning_class", sa.BigInteger(), sa.Computed(LEARNING_CLASS, persisted=True), nullable=False),
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queue", postgresql.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'::bigint[]"), nullable=False),
        sa.Column("reservations", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.CheckConstraint("id = 1", name=op.f("ck_plans_one")),
    )


def downgrade() -> None:
    op.drop_table("plans")
    for name in ("learning_class", "step_rate", "steps_done", "attained", "preemptible"):
        op.drop_column("simulations", name)
