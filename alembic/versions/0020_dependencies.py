"""Dependencies, pauses and notes of simulations; deadlines of drains.

What exists waits for nothing and is not paused. The indexes of the queue are made anew, without what is held.

Downgrading loses all of it: what was held is planned at once.

Revision: 0020, after 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

QUEUE = {
    "ix_simulations_queue": [sa.text("priority DESC"), "created_at", "id"],
    "ix_simulations_queue_class": ["queue_class", "attended", sa.text("priority DESC"), "created_at", "id"],
    "ix_simulations_queued_xid": ["queued_xid"],
    "ix_simulations_queued_at": ["queued_at"],
}


def upgrade() -> None:
    op.add_column("simulations", sa.Column("notes", sa.Text(), nullable=True))
    op.add_column("simulations", sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column(
        "simulations", sa.Column("dependencies_left", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.create_check_constraint(op.f("ck_simulations_dependencies_left"), "simulations", "dependencies_left >= 0")
    op.add_column(
        "simulations",
        sa.Column("held", sa.Boolean(), sa.Computed("paused OR dependencies_left > 0", persisted=True), nullable=False),
    )
    op.add_column("machines", sa.Column("drain_deadline", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "dependencies",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("after_id", sa.BigInteger(), nullable=False),
        sa.Column("condition", sa.String(10), nullable=False),
        sa.CheckConstraint("after_id < simulation_id", name=op.f("ck_dependencies_order")),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_dependencies_simulation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["after_id"], ["simulations.id"], name=op.f("fk_dependencies_after_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "after_id", name=op.f("pk_dependencies")),
    )
    op.create_index("ix_dependencies_after_id", "dependencies", ["after_id", "simulation_id"])
    _index_queue("state = 'QUEUED' AND NOT held")


def downgrade() -> None:
    _index_queue("state = 'QUEUED'")
    op.drop_table("dependencies")
    op.drop_column("machines", "drain_deadline")
    for name in ("held", "dependencies_left", "paused", "notes"):
        op.drop_column("simulations", name)


def _index_queue(condition: str) -> None:
    for name, columns in QUEUE.items():
        op.drop_index(name, table_name="simulations")
        op.create_index(name, "simulations", columns, postgresql_where=sa.text(condition))
