"""Weight and GPU quota of a project.

What exists gets the weight 1 and no quota. Downgrading loses both.

Revision: 0016, after 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("weight", sa.Numeric(18, 6), server_default=sa.text("1"), nullable=False))
    op.add_column("projects", sa.Column("gpu_quota", sa.Integer(), nullable=True))
    op.create_check_constraint(op.f("ck_projects_weight"), "projects", "weight > 0")
    op.create_check_constraint(op.f("ck_projects_gpu_quota"), "projects", "gpu_quota >= 0")


def downgrade() -> None:
    op.drop_column("projects", "gpu_quota")
    op.drop_column("projects", "weight")
