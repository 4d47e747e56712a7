"""Ended simulations with metrics, parameters and curves, made by one statement: a sweep takes hours, a row does not."""

from __future__ import annotations

from typing import Any

Service = Any

METRICS = (
    "train/cross_entropy_loss_per_token", "train/gradient_norm_before_clipping", "train/learning_rate_of_the_encoder",
    "train/samples_per_second_and_device", "val/cross_entropy_loss_per_token", "val/top1_accuracy_on_imagenet_v2",
    "val/top5_accuracy_on_imagenet_v2", "val/expected_calibration_error", "perf/dataloader_wait_milliseconds",
    "perf/memory_reserved_gibibytes", "perf/all_reduce_milliseconds_per_step", "epoch",
)  # fmt: skip
POINTS = 40
# $1: how many, $2: metrics. The value of a metric falls with the number of the simulation and along the steps.
FILL = """
WITH made AS (
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, reason, attempt, tags, parameters, notes,
                             created_at, started_at, finished_at, final_cost)
    SELECT p.id, 'vision-transformer-base-patch16-learning-rate-sweep-number-' || to_char(n, 'FM00000'),
           ARRAY['python', 'train.py', '--run', n::text], CASE WHEN n % 10 = 0 THEN 'ada' ELSE 'bob' END, 'FINISHED',
           'COMPLETED', 1, CASE WHEN n % 5 = 0 THEN ARRAY['lr-sweep', 'baseline'] ELSE ARRAY['lr-sweep'] END,
           jsonb_build_object('lr', n / 1000.0, 'optimizer', jsonb_build_object('name', 'adam', 'seed', 9007199254740993 + n)),
           CASE WHEN n % 20 = 0 THEN 'A *warm* start' END,
           now() - n * interval '1 min', now() - n * interval '1 min', now() - n * interval '30 s', n
    FROM projects AS p, generate_series(1, $1::int) AS n
    WHERE p.name = 'default' ORDER BY n DESC
    RETURNING id, started_at, finished_at
), numbered AS (
    SELECT id, row_number() OVER (ORDER BY id DESC) AS n, started_at, finished_at FROM made
), attempted AS (
    INSERT INTO attempts (simulation_id, number, assigned_at, started_at, ended_at, reason)
    SELECT id, 1, started_at, started_at, finished_at, 'COMPLETED' FROM numbered
), points AS (
    SELECT id, metric, s, (n % 100 + at + 1) / s::float8 AS v
    FROM numbered, unnest($2::text[]) WITH ORDINALITY AS m (metric, at), generate_series(1, $3::int) AS s
), curves AS (
    INSERT INTO convergence (simulation_id, attempt, batch, metric, steps, "values", elapsed)
    SELECT id, 1, 1, metric, array_agg(s ORDER BY s), array_agg(v ORDER BY s), array_agg(s::float8 ORDER BY s)
    FROM points GROUP BY id, metric
), summaries AS (
    INSERT INTO metrics (simulation_id, attempt, metric, count, first_step, last_step, last_value, min_step, min_value,
                         max_step, max_value)
    SELECT id, 1, metric, count(*), 1, max(s), min(v), max(s), min(v), 1, max(v) FROM points GROUP BY id, metric
)
INSERT INTO results (simulation_id, metric, last_value, min_value, max_value)
SELECT id, metric, min(v), min(v), max(v) FROM points GROUP BY id, metric
"""  # noqa: E501  # SQL


async def fill(service: Service, count: int, metrics: tuple[str, ...] = METRICS, points: int = POINTS) -> None:
    """Make so many, the newest of them number 1."""
    await service.fetch(FILL, count, list(metrics), points)
    await service.alter("ANALYZE simulations, metrics, results, parameter_values")


def name_of(number: int) -> str:
    return f"vision-transformer-base-patch16-learning-rate-sweep-number-{number:05}"
