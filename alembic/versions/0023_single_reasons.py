"""Why each place in the queue is behind the one before it, reasons of single simulations, and what left the queue.

The index finds simulations that were paused or cancelled while they were queued; it has an entry for each that was
ever cancelled. Downgrading drops what the planner writes again.

Revision: 0023, after 0022
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("plans", sa.Column("rules", sa.Text(), server_default="", nullable=False))
    op.add_column("plans", sa.Column("own", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False))
    op.create_index(
        "ix_simulations_left_xid",
        "simulations",
        ["queued_xid"],
        postgresql_where=sa.text("state = 'CANCELLED' OR (state = 'QUEUED' AND held)"),
    )


def downgrade() -> None:
    op.drop_index("ix_simulations_left_xid", table_name="simulations")
    op.drop_column("plans", "own")
    op.drop_column("plans", "rules")
