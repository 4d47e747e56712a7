"""Sweeps: the search, its trials and the results at rungs; simulations name their sweep and trial.

Downgrading deletes sweeps. Simulations of their trials stay.

Revision: 0022, after 0021
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_MONEY = sa.Numeric(18, 6)
_TIME = sa.DateTime(timezone=True)
_ID = sa.Identity(always=True)


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.BigInteger(), _ID, nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("template", JSONB(), nullable=False),
        sa.Column("space", JSONB(), nullable=False),
        sa.Column("sampler", sa.String(20), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("objective_metric", sa.Text(), nullable=False),
        sa.Column("objective_mode", sa.Text(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=False),
        sa.Column("seeds", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("max_cost", _MONEY, nullable=True),
        sa.Column("patience", sa.Integer(), nullable=True),
        sa.Column("target", sa.Float(53), nullable=True),
        sa.Column("grace_period", sa.BigInteger(), nullable=True),
        sa.Column("reduction_factor", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("client_key", sa.Text(), nullable=True),
        sa.Column("client_digest", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.String(40), nullable=True),
        sa.Column("reason_detail", sa.Text(), nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.CheckConstraint("trials > 0 AND parallel > 0 AND seeds > 0", name=op.f("ck_sweeps_counts")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_sweeps_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
        sa.UniqueConstraint("project_id", "client_key", name=op.f("uq_sweeps_project_id_client_key")),
    )
    op.create_index("ix_sweeps_active", "sweeps", ["id"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_index("ix_sweeps_project_id_id", "sweeps", ["project_id", "id"])
    op.create_index("ix_sweeps_name_id", "sweeps", ["name", "id"])
    op.create_table(
        "sweep_trials",
        sa.Column("sweep_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("parameters", JSONB(), nullable=False),
        sa.Column("notes", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("begun_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("outcome", sa.String(20), nullable=True),
        sa.Column("value", sa.Float(53), nullable=True),
        sa.Column("spread", sa.Float(53), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("cost", _MONEY, nullable=True),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_sweep_trials_sweep_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", "number", name=op.f("pk_sweep_trials")),
    )
    op.create_index(
        "ix_sweep_trials_open", "sweep_trials", ["sweep_id", "number"], postgresql_where=sa.text("outcome IS NULL")
    )
    op.create_table(
        "sweep_rungs",
        sa.Column("id", sa.BigInteger(), _ID, nullable=False),
        sa.Column("sweep_id", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_sweep_rungs_sweep_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep_rungs")),
        sa.UniqueConstraint(
            "sweep_id", "step", "simulation_id", name=op.f("uq_sweep_rungs_sweep_id_step_simulation_id")
        ),
    )
    op.add_column("simulations", sa.Column("sweep_id", sa.BigInteger(), nullable=True))
    op.add_column("simulations", sa.Column("trial", sa.Integer(), nullable=True))
    op.create_foreign_key(op.f("fk_simulations_sweep_id"), "simulations", "sweeps", ["sweep_id"], ["id"])
    op.create_index(
        "ix_simulations_sweep_id",
        "simulations",
        ["sweep_id", "trial", "id"],
        postgresql_where=sa.text("sweep_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_simulations_sweep_id", table_name="simulations")
    op.drop_column("simulations", "trial")
    op.drop_column("simulations", "sweep_id")
    op.drop_table("sweep_rungs")
    op.drop_table("sweep_trials")
    op.drop_table("sweeps")
