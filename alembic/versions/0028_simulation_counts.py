"""Numbers of simulations that have not ended, by project: kept by triggers, so that no writer can forget them.

Each change is a row of its own, in the transaction that makes it: nothing waits for another transaction, and what is
rolled back was never counted. `db.overview` adds the rows up.

What exists is counted: creating a trigger waits for the transactions that write, and they for this one.

Revision: 0028, after 0027
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# One row for all that a statement creates, which may be a thousand.
COUNT_ADDED = """
    CREATE FUNCTION count_added_simulations() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO simulation_counts (project_id, queued, starting, running)
        SELECT project_id, count(*) FILTER (WHERE state = 'QUEUED'), count(*) FILTER (WHERE state = 'STARTING'),
               count(*) FILTER (WHERE state = 'RUNNING')
        FROM added WHERE state IN ('QUEUED', 'STARTING', 'RUNNING') GROUP BY project_id;
        RETURN NULL;
    END $$
"""
COUNT_CHANGED = """
    CREATE FUNCTION count_changed_simulation() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO simulation_counts (project_id, queued, starting, running)
        VALUES (OLD.project_id, -(OLD.state = 'QUEUED')::int, -(OLD.state = 'STARTING')::int,
                -(OLD.state = 'RUNNING')::int);
        IF TG_OP = 'UPDATE' AND NEW.state IN ('QUEUED', 'STARTING', 'RUNNING') THEN
            INSERT INTO simulation_counts (project_id, queued, starting, running)
            VALUES (NEW.project_id, (NEW.state = 'QUEUED')::int, (NEW.state = 'STARTING')::int,
                    (NEW.state = 'RUNNING')::int);
        END IF;
        RETURN NULL;
    END $$
"""
TRIGGERS = (
    """
    CREATE TRIGGER simulations_added AFTER INSERT ON simulations REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_added_simulations()
    """,
    """
    CREATE TRIGGER simulations_moved AFTER UPDATE OF state, project_id ON simulations FOR EACH ROW
    WHEN ((NEW.state, NEW.project_id) IS DISTINCT FROM (OLD.state, OLD.project_id))
    EXECUTE FUNCTION count_changed_simulation()
    """,
    """
    CREATE TRIGGER simulations_removed AFTER DELETE ON simulations FOR EACH ROW
    WHEN (OLD.state IN ('QUEUED', 'STARTING', 'RUNNING')) EXECUTE FUNCTION count_changed_simulation()
    """,
)
COUNT = """
    INSERT INTO simulation_counts (project_id, queued, starting, running)
    SELECT project_id, count(*) FILTER (WHERE state = 'QUEUED'), count(*) FILTER (WHERE state = 'STARTING'),
           count(*) FILTER (WHERE state = 'RUNNING')
    FROM simulations WHERE state IN ('QUEUED', 'STARTING', 'RUNNING') GROUP BY project_id
"""


def upgrade() -> None:
    op.create_table(
        "simulation_counts",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        *(sa.Column(state, sa.Integer(), nullable=False) for state in ("queued", "starting", "running")),
    )
    for statement in (COUNT_ADDED, COUNT_CHANGED, *TRIGGERS, COUNT):
        op.execute(statement)


def downgrade() -> None:
    for name in ("added", "moved", "removed"):
        op.execute(f"DROP TRIGGER simulations_{name} ON simulations")
    op.execute("DROP FUNCTION count_added_simulations")
    op.execute("DROP FUNCTION count_changed_simulation")
    op.drop_table("simulation_counts")
