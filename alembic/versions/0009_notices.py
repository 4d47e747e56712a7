"""Notices of output that was nearly points, and from which lines a simulation's points are read.

Downgrading loses both.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("example", sa.Text(), nullable=False),
        sa.Column("advice", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_notices_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "attempt", "kind", name=op.f("pk_notices")),
    )
    op.add_column(
        "simulations", sa.Column("metrics_from", sa.String(40), server_default=sa.text("'AUTO'"), nullable=False)
    )
    op.add_column(
        "simulations",
        sa.Column("metrics_patterns", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("simulations", "metrics_patterns")
    op.drop_column("simulations", "metrics_from")
    op.drop_table("notices")
