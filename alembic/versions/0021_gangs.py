"""Simulations on several machines at once: how many, the meeting of their members, and logs and notices by rank.

The keys of `log_chunks` and `notices` gain the rank, 0 for what is there. The class of equal requirements gains the
number of machines; that of a simulation on one machine stays as it was. Downgrading loses the output of higher ranks.

Revision: 0021, after 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_BEFORE = (
    "md5(project_id::text || ' ' || cpus::text || ' ' || memory_gib::text || ' ' || gpus::text || ' ' || "
    "quote_nullable(gpu_model) || ' ' || labels::text || ' ' || coalesce(machine_id::text, '') || ' ' || "
    "quote_nullable(machine_name) || ' ' || coalesce(max_price_per_hour::text, ''))::uuid"
)
_CLASS = _BEFORE.removesuffix(")::uuid") + (
    " || CASE WHEN machines > 1 THEN ' machines ' || machines::text ELSE '' END)::uuid"
)
_KEYS = {  # before, and now
    "log_chunks": (
        ["simulation_id", "attempt", "batch", "position"],
        ["simulation_id", "rank", "attempt", "batch", "position"],
    ),
    "notices": (["simulation_id", "attempt", "kind"], ["simulation_id", "attempt", "rank", "kind"]),
}


def upgrade() -> None:
    op.add_column("simulations", sa.Column("machines", sa.Integer(), server_default=sa.text("1"), nullable=False))
    _set_class(_CLASS)
    op.add_column("attempts", sa.Column("greeted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("members", sa.Column("address", sa.Text(), nullable=True))
    op.add_column("members", sa.Column("port", sa.Integer(), nullable=True))
    for table, (_, key) in _KEYS.items():
        op.add_column(table, sa.Column("rank", sa.Integer(), server_default=sa.text("0"), nullable=False))
        _set_key(table, key)


def downgrade() -> None:
    for table, (key, _) in _KEYS.items():
        op.execute(f"DELETE FROM {table} WHERE rank > 0")  # noqa: S608  # a constant
        _set_key(table, key)
        op.drop_column(table, "rank")
    op.drop_column("members", "port")
    op.drop_column("members", "address")
    op.drop_column("attempts", "greeted_at")
    _set_class(_BEFORE)
    op.drop_column("simulations", "machines")


def _set_class(expression: str) -> None:
    """Replace the generated column: before PostgreSQL 17 its expression can't be changed."""
    op.drop_index("ix_simulations_queue_class", table_name="simulations")
    op.drop_column("simulations", "queue_class")
    op.add_column(
        "simulations", sa.Column("queue_class", sa.Uuid(), sa.Computed(expression, persisted=True), nullable=False)
    )
    op.create_index(
        "ix_simulations_queue_class",
        "simulations",
        ["queue_class", "attended", sa.text("priority DESC"), "created_at", "id"],
        postgresql_where=sa.text("state = 'QUEUED' AND NOT held"),
    )


def _set_key(table: str, columns: list[str]) -> None:
    op.drop_constraint(op.f(f"pk_{table}"), table, type_="primary")
    op.create_primary_key(op.f(f"pk_{table}"), table, columns)
