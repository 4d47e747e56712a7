"""Attended simulations, and the watch leases of graph processes.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("simulations", sa.Column("attended", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column(
        "simulations",
        sa.Column("attended_grace", sa.Interval(), server_default=sa.text("'00:01:00'::interval"), nullable=False),
    )
    op.create_table(
        "watchers",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("watcher", sa.Text(), nullable=False),
        sa.Column("watched_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_watchers_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "watcher", name=op.f("pk_watchers")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_simulations_attended",
        "simulations",
        ["id"],
        postgresql_where=sa.text("attended AND state IN ('STARTING', 'RUNNING')"),
    )


def downgrade() -> None:
    op.drop_index("ix_simulations_attended", table_name="simulations")
    op.drop_table("watchers")
    op.drop_column("simulations", "attended_grace")
    op.drop_column("simulations", "attended")
