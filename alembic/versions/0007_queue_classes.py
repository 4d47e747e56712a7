"""The queue in classes of equal requirements; a waiting reason belongs to a class, not to each of its simulations.

The old columns (`simulations.waiting`, `waiting_detail`) stay, unread, until the next release.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

QUEUE_CLASS = (
    "md5(project_id::text || ' ' || cpus::text || ' ' || memory_gib::text || ' ' || gpus::text || ' ' || "
    "quote_nullable(gpu_model) || ' ' || labels::text || ' ' || coalesce(machine_id::text, '') || ' ' || "
    "quote_nullable(machine_name) || ' ' || coalesce(max_price_per_hour::text, ''))::uuid"
)
QUEUED = sa.text("state = 'QUEUED'")


def upgrade() -> None:
    op.create_table(
        "queue_classes",
        sa.Column("queue_class", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("queue_class", name=op.f("pk_queue_classes")),
    )
    op.add_column(
        "simulations", sa.Column("queue_class", sa.Uuid(), sa.Computed(QUEUE_CLASS, persisted=True), nullable=False)
    )
    op.add_column(
        "simulations",
        sa.Column(
            "queued_xid",
            sa.BigInteger(),
            nullable=False,
            server_default=sa.text("((pg_current_xact_id())::text)::bigint"),
        ),
    )
    op.create_index(
        "ix_simulations_queue_class",
        "simulations",
        ["queue_class", "attended", sa.text("priority DESC"), "created_at", "id"],
        postgresql_where=QUEUED,
    )
    op.create_index("ix_simulations_queued_xid", "simulations", ["queued_xid"], postgresql_where=QUEUED)
    op.create_index("ix_simulations_queued_at", "simulations", ["queued_at"], postgresql_where=QUEUED)


def downgrade() -> None:
    op.drop_index("ix_simulations_queued_at", table_name="simulations")
    op.drop_index("ix_simulations_queued_xid", table_name="simulations")
    op.drop_index("ix_simulations_queue_class", table_name="simulations")
    op.drop_column("simulations", "queued_xid")
    op.drop_column("simulations", "queue_class")
    op.drop_table("queue_classes")
