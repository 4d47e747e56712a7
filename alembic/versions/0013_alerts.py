"""Alerts: targets, deliveries, and the mark of events whose deliveries are still to be written.

Events from before are not marked: nothing is sent for what happened under an older version.

Downgrading drops all targets and deliveries, also those that were not sent yet.

Revision: 0013, after 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UNSENT = "delivered_at IS NULL AND given_up_at IS NULL"


def upgrade() -> None:
    op.create_table(
        "alert_targets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("transport", sa.String(20), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("kinds", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("project_ids", sa.ARRAY(sa.BigInteger()), nullable=True),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_targets")),
        sa.UniqueConstraint("name", name=op.f("uq_alert_targets_name")),
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("target_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.Column("simulation_id", sa.BigInteger(), nullable=True),
        sa.Column("message_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"], ["alert_targets.id"], name=op.f("fk_alert_deliveries_target_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_deliveries")),
        sa.UniqueConstraint("target_id", "event_id", name=op.f("uq_alert_deliveries_target_id_event_id")),
    )
    op.create_index("ix_alert_deliveries_target_id_id", "alert_deliveries", ["target_id", "id"])
    op.create_index(
        "ix_alert_deliveries_simulation_id",
        "alert_deliveries",
        ["simulation_id"],
        postgresql_where=sa.text("simulation_id IS NOT NULL"),
    )
    op.create_index(
        "ix_alert_deliveries_due", "alert_deliveries", ["target_id", "next_at"], postgresql_where=sa.text(UNSENT)
    )
    op.create_index("ix_alert_deliveries_created_at", "alert_deliveries", ["created_at"])
    op.add_column("simulations", sa.Column("alert_target_ids", sa.ARRAY(sa.BigInteger()), nullable=True))
    op.add_column("queue_classes", sa.Column("alerted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("events", sa.Column("alert_pending", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index("ix_events_alert_pending", "events", ["id"], postgresql_where=sa.text("alert_pending"))


def downgrade() -> None:
    op.drop_index("ix_events_alert_pending", table_name="events")
    op.drop_column("events", "alert_pending")
    op.drop_column("queue_classes", "alerted_at")
    op.drop_column("simulations", "alert_target_ids")
    op.drop_table("alert_deliveries")
    op.drop_table("alert_targets")
