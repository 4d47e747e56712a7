"""The text that simulations are searched by includes their notes.

`simulation_text(name, entrypoint)` stays until the next release: processes of the version before call it. They search
without an index from here on.

Revision: 0024, after 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

SIMULATION_TEXT = """
    CREATE FUNCTION simulation_text(name text, entrypoint text[], notes text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT lower(
            left(name || ' ' || array_to_string(entrypoint, ' '), 1000) || ' ' || left(coalesce(notes, ''), 2000)
        )
    $$
"""


def _index(arguments: str) -> None:
    op.create_index(
        "ix_simulations_text",
        "simulations",
        [sa.text(f"trigrams(simulation_text({arguments}))")],
        postgresql_using="gin",
    )


def upgrade() -> None:
    op.execute(SIMULATION_TEXT)
    op.drop_index("ix_simulations_text", table_name="simulations")
    _index("name, entrypoint, notes")


def downgrade() -> None:
    op.drop_index("ix_simulations_text", table_name="simulations")
    _index("name, entrypoint")
    op.execute("DROP FUNCTION simulation_text(text, text[], text)")
