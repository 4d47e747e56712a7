"""The git commit, command, host, Python and packages of each attempt. Downgrading loses them.

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attempt_sources",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("source", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_attempt_sources_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "attempt", name=op.f("pk_attempt_sources")),
    )


def downgrade() -> None:
    op.drop_table("attempt_sources")
