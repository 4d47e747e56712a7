"""What lists of simulations sort and filter by: results, single parameters, final costs, and an index on their text.

`results` holds the summary of each metric of an ended simulation; `parameter_values` each number and word of its
parameters, kept by triggers, so that no writer of parameters can forget it. The text of a simulation is found by its
trigrams, made by functions of our own: the embedded PostgreSQL has no pg_trgm.

What exists is filled in. Downgrading drops all of it: it can be made again.

Revision: 0019, after 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

ACTIVE = "('QUEUED', 'STARTING', 'RUNNING')"
SIMULATION_TEXT = """
    CREATE FUNCTION simulation_text(name text, entrypoint text[]) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT lower(left(name || ' ' || array_to_string(entrypoint, ' '), 1000))
    $$
"""
TRIGRAMS = """
    CREATE FUNCTION trigrams(given text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT coalesce(array_agg(DISTINCT substr(given, place, 3)), '{}')
        FROM generate_series(1, length(given) - 2) AS place
    $$
"""
# Nested objects by paths, as `optimizer.lr`. Longer names, words and numbers than an index takes are left out.
FLAT_PARAMETERS = """
    CREATE FUNCTION flat_parameters(given jsonb) RETURNS TABLE (name text, number numeric, word text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        WITH RECURSIVE flat (path, value, depth) AS (
            SELECT e.key, e.value, 1 FROM jsonb_each(given) AS e
            UNION ALL
            SELECT f.path || '.' || e.key, e.value, f.depth + 1
            FROM flat AS f, LATERAL jsonb_each(
                CASE jsonb_typeof(f.value) WHEN 'object' THEN f.value ELSE '{}' END
            ) AS e
            WHERE f.depth < 5
        )
        SELECT DISTINCT ON (path) path,
               CASE jsonb_typeof(value) WHEN 'number' THEN value::numeric END,
               CASE jsonb_typeof(value) WHEN 'number' THEN NULL ELSE value #>> '{}' END
        FROM flat
        WHERE jsonb_typeof(value) IN ('number', 'string', 'boolean')
          AND length(path) <= 200 AND length(value #>> '{}') <= 400
        ORDER BY path, depth LIMIT 1000
    $$
"""
KEEP = """
    CREATE FUNCTION keep_parameter_values() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM parameter_values WHERE simulation_id = NEW.id;
        INSERT INTO parameter_values (simulation_id, name, number, word)
        SELECT NEW.id, f.name, f.number, f.word FROM flat_parameters(NEW.recorded_parameters || NEW.parameters) AS f;
        RETURN NULL;
    END $$
"""
TRIGGERS = (
    """
    CREATE TRIGGER parameter_values_of_new AFTER INSERT ON simulations FOR EACH ROW
    WHEN (NEW.parameters <> '{}' OR NEW.recorded_parameters <> '{}') EXECUTE FUNCTION keep_parameter_values()
    """,
    """
    CREATE TRIGGER parameter_values_of_changed AFTER UPDATE OF parameters, recorded_parameters ON simulations
    FOR EACH ROW WHEN ((NEW.parameters, NEW.recorded_parameters) IS DISTINCT FROM
                       (OLD.parameters, OLD.recorded_parameters)) EXECUTE FUNCTION keep_parameter_values()
    """,
)
# As `db.metrics` merges the attempts of a simulation.
FILL_RESULTS = """
    INSERT INTO results (simulation_id, metric, last_value, min_value, max_value)
    WITH pieces AS (
        SELECT m.*, (
            SELECT min(later.first_step) FROM metrics AS later
            WHERE later.simulation_id = m.simulation_id AND later.metric = m.metric AND later.attempt > m.attempt
        ) AS below
        FROM metrics AS m JOIN simulations AS s ON s.id = m.simulation_id
        WHERE s.state NOT IN ('QUEUED', 'STARTING', 'RUNNING')
    ), counted AS (
        SELECT simulation_id, attempt, metric, min(value) AS min_value, max(value) AS max_value
        FROM (
            SELECT w.simulation_id, w.attempt, w.metric, p.value
            FROM pieces AS w
            JOIN convergence AS c USING (simulation_id, attempt, metric)
            CROSS JOIN LATERAL unnest(c.steps, c."values") AS p (step, value)
            WHERE w.first_step < w.below AND w.last_step >= w.below AND p.step < w.below
              AND p.value NOT IN ('NaN', 'Infinity', '-Infinity')
        ) AS points
        GROUP BY simulation_id, attempt, metric
    )
    SELECT simulation_id, metric,
           (array_agg(CASE WHEN p.last_value IN ('NaN', 'Infinity', '-Infinity') THEN NULL ELSE p.last_value END
                      ORDER BY attempt DESC))[1],
           min(CASE WHEN p.last_step >= p.below THEN c.min_value ELSE p.min_value END),
           max(CASE WHEN p.last_step >= p.below THEN c.max_value ELSE p.max_value END)
    FROM pieces AS p LEFT JOIN counted AS c USING (simulation_id, attempt, metric)
    WHERE p.below IS NULL OR p.first_step < p.below
    GROUP BY simulation_id, metric
"""
FILL_COSTS = """
    UPDATE simulations AS s SET final_cost = coalesce((
        SELECT sum(round(m.price_per_hour * m.share * greatest(
                   extract(epoch FROM coalesce(m.ended_at, now()) - m.assigned_at), 0) / 3600, 6))
        FROM attempts AS a JOIN members AS m ON m.attempt_id = a.id WHERE a.simulation_id = s.id
    ), 0)
    WHERE s.state NOT IN ('QUEUED', 'STARTING', 'RUNNING')
"""


def upgrade() -> None:
    op.add_column("simulations", sa.Column("final_cost", sa.Numeric(18, 6), nullable=True))
    op.create_table(
        "results",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("last_value", sa.Float(53), nullable=True),
        sa.Column("min_value", sa.Float(53), nullable=True),
        sa.Column("max_value", sa.Float(53), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_results_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "metric", name=op.f("pk_results")),
    )
    op.create_table(
        "parameter_values",
        sa.Column("simulation_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.Numeric(), nullable=True),
        sa.Column("word", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.id"], name=op.f("fk_parameter_values_simulation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("simulation_id", "name", name=op.f("pk_parameter_values")),
    )
    for statement in (SIMULATION_TEXT, TRIGRAMS, FLAT_PARAMETERS, KEEP, FILL_RESULTS, FILL_COSTS):
        op.execute(statement)
    op.execute("""
        INSERT INTO parameter_values (simulation_id, name, number, word)
        SELECT s.id, f.name, f.number, f.word
        FROM simulations AS s, LATERAL flat_parameters(s.recorded_parameters || s.parameters) AS f
    """)
    for statement in TRIGGERS:
        op.execute(statement)
    for column in ("last_value", "min_value", "max_value"):
        op.create_index(
            f"ix_results_{column}",
            "results",
            ["metric", column, "simulation_id"],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    for column in ("number", "word"):
        op.create_index(
            f"ix_parameter_values_{column}",
            "parameter_values",
            ["name", column, "simulation_id"],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    for column in ("final_cost", "started_at", "finished_at"):
        op.create_index(
            f"ix_simulations_{column}_id",
            "simulations",
            [column, "id"],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    op.create_index("ix_simulations_created_at", "simulations", ["created_at"])
    op.create_index("ix_simulations_created_by_id", "simulations", ["created_by", "id"])
    op.create_index("ix_simulations_tags", "simulations", ["tags"], postgresql_using="gin")
    op.create_index(
        "ix_simulations_name_prefix", "simulations", ["name", "id"], postgresql_ops={"name": "text_pattern_ops"}
    )
    op.create_index(
        "ix_simulations_text",
        "simulations",
        [sa.text("trigrams(simulation_text(name, entrypoint))")],
        postgresql_using="gin",
    )
    op.create_index(
        "ix_simulations_begun", "simulations", ["id"], postgresql_where=sa.text(f"attempt > 0 AND state IN {ACTIVE}")
    )


def downgrade() -> None:
    for name in ("begun", "text", "name_prefix", "tags", "created_by_id", "created_at"):
        op.drop_index(f"ix_simulations_{name}", table_name="simulations")
    for column in ("final_cost", "started_at", "finished_at"):
        op.drop_index(f"ix_simulations_{column}_id", table_name="simulations")
    for name in ("parameter_values_of_new", "parameter_values_of_changed"):
        op.execute(f"DROP TRIGGER {name} ON simulations")
    op.drop_table("parameter_values")
    op.drop_table("results")
    for name in ("keep_parameter_values", "flat_parameters", "trigrams", "simulation_text"):
        op.execute(f"DROP FUNCTION {name}")
    op.drop_column("simulations", "final_cost")
