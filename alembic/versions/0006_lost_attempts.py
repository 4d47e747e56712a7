"""An index of lost attempts: their count is read often.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempts_lost", "attempts", ["id"], postgresql_where=sa.text("reason = 'MACHINE_LOST'"))


def downgrade() -> None:
    op.drop_index("ix_attempts_lost", table_name="attempts")
