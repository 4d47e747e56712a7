"""The first tables.

Revision: 0001, after nothing
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "coverage",
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("covered_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_coverage")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=True),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_object_type_object_id_id", "events", ["object_type", "object_id", "id"], unique=False)
    op.create_table(
        "hosts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("gpus", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
    )
    op.create_table(
        "machines",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("engine_key", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("declared", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("cpus", sa.Float(precision=53), nullable=False),
        sa.Column("memory_gib", sa.Float(precision=53), nullable=False),
        sa.Column("gpus", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("gpu_model", sa.Text(), nullable=True),
        sa.Column(
            "labels",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("price_per_hour", sa.Numeric(precision=18, scale=6), server_default=sa.text("0"), nullable=False),
        sa.Column("draining", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["host"], ["hosts.id"], name=op.f("fk_machines_host")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_machines")),
        sa.UniqueConstraint("engine", "engine_key", name=op.f("uq_machines_engine_engine_key")),
        sa.UniqueConstraint("name", name=op.f("uq_machines_name")),
    )
    op.create_index("ix_machines_host", "machines", ["host"], unique=False)
    op.create_table(
        "simulations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(40), server_default="QUEUED", nullable=False),
        sa.Column("reason", sa.String(40), nullable=True),
        sa.Column("reason_detail", sa.Text(), nullable=True),
        sa.Column("waiting", sa.String(length=40), nullable=True),
        sa.Column("waiting_detail", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("entrypoint", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "parameters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "environment",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("working_directory", sa.Text(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("cpus", sa.Float(precision=53), server_default=sa.text("1"), nullable=False),
        sa.Column("memory_gib", sa.Float(precision=53), server_default=sa.text("0"), nullable=False),
        sa.Column("gpus", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("gpu_model", sa.Text(), nullable=True),
        sa.Column(
            "labels",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("machine_id", sa.BigInteger(), nullable=True),
        sa.Column("machine_name", sa.Text(), nullable=True),
        sa.Column("max_price_per_hour", sa.Numeric(precision=18, scale=6), nullable=True),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_runtime", sa.Interval(), nullable=True),
        sa.Column("max_retries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_on", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("client_key", sa.Text(), nullable=True),
        sa.Column("client_digest", sa.LargeBinary(), nullable=True),
        sa.Column("group_id", sa.BigInteger(), nullable=True),
        sa.Column("retry_of", sa.BigInteger(), nullable=True),
        sa.Column("stop_wanted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_wanted_by", sa.Text(), nullable=True),
        sa.Column("stop_reason", sa.String(40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_simulations_attempt")),
        sa.CheckConstraint(
            "state IN ('QUEUED', 'STARTING', 'RUNNING', 'FINISHED', 'FAILED', 'CANCELLED')",
            name=op.f("ck_simulations_simulationstate"),
        ),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_simulations_machine_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_simulations_project_id")),
        sa.ForeignKeyConstraint(
            ["retry_of"], ["simulations.id"], name=op.f("fk_simulations_retry_of"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_simulations")),
        sa.UniqueConstraint("project_id", "client_key", name=op.f("uq_simulations_project_id_client_key")),
    )
    op.create_index(
        "ix_simulations_active",
        "simulations",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('QUEUED', 'STARTING', 'RUNNING')"),
    )
    op.create_index(
        "ix_simulations_machine_id",
        "simulations",
        ["machine_id"],
        unique=False,
        postgresql_where=sa.text("machine_id IS NOT NULL"),
    )
    op.create_index(
        "ix_simulations_retry_of",
        "simulations",
        ["retry_of"],
        unique=False,
        postgresql_where=sa.text("retry_of IS NOT NULL"),
    )
    op.create_index("ix_simulations_name_id", "simulations", ["name", "id"], unique=False)
    op.create_index("ix_simulations_project_id_id", "simulations", ["project_id", "id"], unique=False)
    op.create_index(
        "ix_simulations_queue",
        "simulations",
        [sa.literal_column("priority DESC"), "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'QUEUED'"),
    )
    op.create_index("ix_simulations_state_id", "simulations", ["state", "id"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("machine_id", sa.BigInteger(), nullable=True),
        sa.Column("machine_name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("gpu_indices", sa.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'::bigint[]"), nullable=False),
        sa.Column("price_per_hour", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("share", sa.Numeric(precision=9, scale=8), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("nonce", sa.Text(), nullable=True),
        sa.Column("next_batch", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("assigned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(40), nullable=True),
        sa.Column("reason_detail", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name=op.f("fk_attempts_machine_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_attempts_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("simulation_id", "number", name=op.f("uq_attempts_simulation_id_number")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_attempts_token_digest")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("ix_attempts_machine_id", "attempts", ["machine_id"], unique=False)
    op.create_index(
        "ix_attempts_open",
        "attempts",
        ["machine_id", "id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "uq_attempts_current",
        "attempts",
        ["simulation_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "convergence",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("steps", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("values", sa.ARRAY(sa.Float(precision=53)), nullable=False),
        sa.Column("elapsed", sa.ARRAY(sa.Float(precision=53)), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["simulation_id"],
            ["simulations.id"],
            name=op.f("fk_convergence_simulation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("simulation_id", "attempt", "batch", "metric", name=op.f("pk_convergence")),
    )
    op.create_table(
        "log_chunks",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("stream", sa.String(40), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["simulation_id"],
            ["simulations.id"],
            name=op.f("fk_log_chunks_simulation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("simulation_id", "attempt", "batch", "position", name=op.f("pk_log_chunks")),
    )
    op.execute(
        """
        CREATE VIEW convergence_points AS
        SELECT c.simulation_id, c.attempt, c.batch, c.metric, p.step, p.value, p.elapsed AS elapsed_seconds
        FROM convergence AS c, unnest(c.steps, c."values", c.elapsed) AS p (step, value, elapsed)
        """
    )
    op.execute("COMMENT ON VIEW convergence_points IS 'convergence, a row per point: for people with psql'")
    op.execute("INSERT INTO projects (name) VALUES ('default')")


def downgrade() -> None:
    op.execute("DROP VIEW convergence_points")
    op.drop_table("log_chunks")
    op.drop_table("convergence")
    op.drop_table("attempts")
    op.drop_table("simulations")
    op.drop_table("machines")
    op.drop_table("projects")
    op.drop_table("hosts")
    op.drop_table("events")
    op.drop_table("coverage")
