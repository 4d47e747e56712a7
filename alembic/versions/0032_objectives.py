"""An index of given objectives: the direction of a metric whose name implies none, in lists that are sorted by it.

Revision: 0032, after 0031
"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_simulations_objective",
        "simulations",
        ["objective_metric", "id"],
        postgresql_where=sa.text("objective_mode IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_simulations_objective", table_name="simulations")
