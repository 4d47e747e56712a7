"""No stop rules are NULL, which was stored as the JSON value null: the judge looked at every running simulation.

Simulations that have ended keep it: nothing looks for rules there. Downgrading leaves NULL, which means the same.

Revision: 0018, after 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE simulations SET stopping = NULL "
        "WHERE state IN ('QUEUED', 'STARTING', 'RUNNING') AND stopping = 'null'::jsonb"
    )


def downgrade() -> None:
    pass
