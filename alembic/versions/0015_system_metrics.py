"""The interval of a simulation's system metrics. Downgrading loses it.

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("simulations", sa.Column("system_metrics_seconds", sa.Float(53), nullable=True))


def downgrade() -> None:
    op.drop_column("simulations", "system_metrics_seconds")
