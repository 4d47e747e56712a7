"""Packages of code, the simulations that start in them, and runtime environments of Ray.

A piece of a package has no simulation: it is owned by the package.

Revision: 0029, after 0028
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
OWNED = "simulation_id IS NOT NULL OR package_id IS NOT NULL"
UNOWNED = "simulation_id IS NULL AND package_id IS NULL"


def upgrade() -> None:
    op.create_table(
        "packages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("stored_at", _TIME, nullable=True),
        sa.Column("used_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_packages_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packages")),
    )
    op.create_index(
        "uq_packages_stored",
        "packages",
        ["project_id", "digest"],
        unique=True,
        postgresql_where=sa.text("stored_at IS NOT NULL"),
    )
    op.create_index("ix_packages_unstored", "packages", ["project_id"], postgresql_where=sa.text("stored_at IS NULL"))
    op.add_column("stored_pieces", sa.Column("package_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_stored_pieces_package_id"), "stored_pieces", "packages", ["package_id"], ["id"], ondelete="SET NULL"
    )
    op.create_index(
        "ix_stored_pieces_of_package",
        "stored_pieces",
        ["package_id", "id"],
        postgresql_where=sa.text("package_id IS NOT NULL"),
    )
    _index_pieces(OWNED, UNOWNED)
    op.add_column("simulations", sa.Column("package_id", sa.BigInteger(), nullable=True))
    op.add_column("simulations", sa.Column("package_source", JSONB(), nullable=True))
    op.add_column("simulations", sa.Column("runtime_env", JSONB(), nullable=True))
    op.create_foreign_key(op.f("fk_simulations_package_id"), "simulations", "packages", ["package_id"], ["id"])
    op.create_index(
        "ix_simulations_package_id", "simulations", ["package_id"], postgresql_where=sa.text("package_id IS NOT NULL")
    )
    op.add_column("sweeps", sa.Column("package_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_sweeps_package_id"), "sweeps", "packages", ["package_id"], ["id"], ondelete="SET NULL"
    )
    op.create_index(
        "ix_sweeps_package_id", "sweeps", ["package_id"], postgresql_where=sa.text("package_id IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_column("sweeps", "package_id")
    op.drop_column("simulations", "runtime_env")
    op.drop_column("simulations", "package_source")
    op.drop_column("simulations", "package_id")
    _index_pieces("simulation_id IS NOT NULL", "simulation_id IS NULL")
    op.drop_column("stored_pieces", "package_id")  # then the collector of the version before removes those of packages
    op.drop_table("packages")


def _index_pieces(owned: str, unowned: str) -> None:
    op.drop_index("ix_stored_pieces_of_project", "stored_pieces")
    op.drop_index("ix_stored_pieces_unowned", "stored_pieces")
    op.create_index(
        "ix_stored_pieces_of_project",
        "stored_pieces",
        ["project_id"],
        postgresql_include=["size_bytes"],
        postgresql_where=sa.text(owned),
    )
    op.create_index("ix_stored_pieces_unowned", "stored_pieces", ["id"], postgresql_where=sa.text(unowned))
