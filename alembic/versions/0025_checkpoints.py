"""Times of the newest checkpoints, by member; and which transaction asked for another plan.

Revision: 0025, after 0024
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("members", sa.Column("checkpoint_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("plans", sa.Column("asked_xid", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("plans", "asked_xid")
    op.drop_column("members", "checkpoint_at")
