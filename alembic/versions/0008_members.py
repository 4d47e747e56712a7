"""Members of an attempt, and the stop intent on the attempt: what preemption and work on several machines need.

Every attempt gets its member of rank 0 with what it holds, is billed by and reports with; the intent of a simulation
moves to its newest attempt. The old columns stay, unread, until the next release. The tokens leave them: a process of
the version before that still runs can't acknowledge a report that nothing would read.

Downgrading copies back what members and attempts say now. Stop evidence is lost, and so are members of higher ranks.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BILLED = ("machine_name", "price_per_hour", "share", "currency")  # older versions always wrote them


def upgrade() -> None:
    op.create_table(
        "members",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("attempt_id", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("machine_id", sa.BigInteger(), nullable=True),
        sa.Column("machine_name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("cpus", sa.Float(53), nullable=False),
        sa.Column("memory_gib", sa.Float(53), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("gpu_indices", sa.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'::bigint[]"), nullable=False),
        sa.Column("price_per_hour", sa.Numeric(18, 6), nullable=False),
        sa.Column("share", sa.Numeric(9, 8), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("assigned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("nonce", sa.Text(), nullable=True),
        sa.Column("next_batch", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_members_attempt_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_members_machine_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint("attempt_id", "rank", name=op.f("uq_members_attempt_id_rank")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_members_token_digest")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_members_machine_id", "members", ["machine_id"], postgresql_where=sa.text("machine_id IS NOT NULL")
    )
    op.create_index("ix_members_current", "members", ["attempt_id"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_index("ix_members_held", "members", ["machine_id"], postgresql_where=sa.text("ended_at IS NULL"))
    op.add_column("attempts", sa.Column("stop_wanted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("stop_wanted_by", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("stop_reason", sa.String(40), nullable=True))
    op.add_column("attempts", sa.Column("stop_evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    for name in BILLED:
        op.alter_column("attempts", name, nullable=True)
    op.execute("""
        INSERT INTO members (
            attempt_id, machine_id, machine_name, host, cpus, memory_gib, gpus, gpu_indices, price_per_hour, share,
            currency, assigned_at, token_digest, nonce, next_batch, launched_at, heartbeat_at, exit_code, signal,
            ended_at
        )
        SELECT a.id, a.machine_id, a.machine_name, a.host, s.cpus, s.memory_gib, s.gpus, a.gpu_indices,
               a.price_per_hour, a.share, a.currency, a.assigned_at, a.token_digest, a.nonce, a.next_batch,
               a.launched_at, a.heartbeat_at, a.exit_code, a.signal, a.ended_at
        FROM attempts AS a JOIN simulations AS s ON s.id = a.simulation_id
        ORDER BY a.id
    """)
    op.execute("""
        UPDATE attempts AS a SET
            token_digest = NULL,
            stop_wanted_at = s.stop_wanted_at, stop_wanted_by = s.stop_wanted_by, stop_reason = s.stop_reason
        FROM simulations AS s
        WHERE s.id = a.simulation_id AND a.number = s.attempt
          AND (a.token_digest IS NOT NULL OR s.stop_wanted_at IS NOT NULL)
    """)


def downgrade() -> None:
    op.execute("""
        UPDATE attempts AS a SET
            machine_id = m.machine_id, machine_name = m.machine_name, host = m.host, gpu_indices = m.gpu_indices,
            price_per_hour = m.price_per_hour, share = m.share, currency = m.currency, token_digest = m.token_digest,
            nonce = m.nonce, next_batch = m.next_batch, launched_at = m.launched_at, heartbeat_at = m.heartbeat_at
        FROM members AS m WHERE m.attempt_id = a.id AND m.rank = 0
    """)
    # The version before knows no preemption: it would end such a simulation for it.
    op.execute("""
        UPDATE simulations AS s SET
            stop_wanted_at = a.stop_wanted_at, stop_wanted_by = a.stop_wanted_by, stop_reason = a.stop_reason
        FROM attempts AS a
        WHERE a.simulation_id = s.id AND a.number = s.attempt AND s.state <> 'QUEUED'
          AND a.stop_reason IS DISTINCT FROM 'PREEMPTED'
    """)
    op.execute("UPDATE attempts SET reason = 'MACHINE_LOST' WHERE reason = 'PREEMPTED'")
    for name in BILLED:
        op.alter_column("attempts", name, nullable=False)
    for name in ("stop_evidence", "stop_reason", "stop_wanted_by", "stop_wanted_at"):
        op.drop_column("attempts", name)
    op.drop_table("members")
