"""Forks from checkpoints, commands before their parameters were filled in, and averages for the median rule.

A simulation that was created before has no template: its command is as it was typed.

Revision: 0026, after 0025
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("simulations", sa.Column("entrypoint_template", sa.ARRAY(sa.Text()), nullable=True))
    op.add_column(
        "simulations", sa.Column("from_checkpoint", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("sweep_rungs", sa.Column("average", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("sweep_rungs", "average")
    op.drop_column("simulations", "from_checkpoint")
    op.drop_column("simulations", "entrypoint_template")
