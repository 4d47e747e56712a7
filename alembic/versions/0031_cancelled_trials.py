"""Cancelled trials of sweeps: an outcome of their own, once derived from simulations that may be deleted by now.

Revision: 0031, after 0030
"""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        UPDATE sweep_trials AS t SET outcome = 'CANCELLED'
        WHERE outcome = 'FAIL' AND EXISTS (
            SELECT FROM simulations WHERE sweep_id = t.sweep_id AND trial = t.number AND state = 'CANCELLED'
        ) AND NOT EXISTS (
            SELECT FROM simulations WHERE sweep_id = t.sweep_id AND trial = t.number AND state = 'FAILED'
        )
    """)


def downgrade() -> None:
    op.execute("UPDATE sweep_trials SET outcome = 'FAIL' WHERE outcome = 'CANCELLED'")
