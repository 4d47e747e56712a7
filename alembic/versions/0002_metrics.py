"""A summary of each metric, updated as batches are stored, and the mode of each metric (MIN or MAX).

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "simulations",
        sa.Column(
            "metric_modes",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )
    op.create_table(
        "metrics",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("last_value", sa.Float(precision=53), nullable=False),
        sa.Column("min_step", sa.BigInteger(), nullable=True),
        sa.Column("min_value", sa.Float(precision=53), nullable=True),
        sa.Column("max_step", sa.BigInteger(), nullable=True),
        sa.Column("max_value", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_metrics_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "attempt", "metric", name=op.f("pk_metrics")),
        postgresql_with={"fillfactor": 70},
    )
    # What was stored before: the least (value, step) is the minimum where it was reached first, and so on.
    op.execute(
        """
        INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value,
                             min_step, min_value, max_step, max_value)
        SELECT simulation_id, attempt, metric, count(*), min(step), max(step), (max(ARRAY[step, value]))[2],
               (min(ARRAY[value, step]) FILTER (WHERE finite))[2], (min(value) FILTER (WHERE finite)),
               -(max(ARRAY[value, -step]) FILTER (WHERE finite))[2], (max(value) FILTER (WHERE finite))
        FROM (
            SELECT c.simulation_id, c.attempt, c.metric, CAST(p.step AS float8) AS step, p.value,
                   p.value NOT IN ('NaN', 'Infinity', '-Infinity') AS finite
            FROM convergence AS c CROSS JOIN LATERAL unnest(c.steps, c."values") AS p (step, value)
        ) AS points
        GROUP BY simulation_id, attempt, metric
        """
    )


def downgrade() -> None:
    op.drop_table("metrics")
    op.drop_column("simulations", "metric_modes")
