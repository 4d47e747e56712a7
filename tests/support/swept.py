"""A sweep with trials, simulations and curves, made by SQL: one that runs takes hours, rows do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ended import METRICS

from benchmarks.stored import STORED

Service = Any

OBJECTIVE = "val/cross_entropy_loss_per_token"
SPACE = (
    '[{"name": "learning_rate", "low": 1e-5, "high": 0.1, "log": true},'
    ' {"name": "optimizer.weight_decay", "low": 0.0, "high": 0.3},'
    ' {"name": "batch_size", "choices": [64, 128, 256]},'
    ' {"name": "optimizer.name", "choices": ["adam", "sgd"]}]'
)
# $1: trials, $2: seeds of each, $3: metrics, $4: points of each curve, $5: the objective, $6: what is searched.
# A trial is the better the nearer its learning rate is to 10^-2.5, and the larger its batch. Every 9th was pruned after
# a third of its steps, every 13th failed, every 25th (and its curves) diverged.
FILL = (
    """
WITH made AS (
    INSERT INTO sweeps (project_id, name, template, space, sampler, seed, objective_metric, objective_mode, trials,
                        parallel, seeds, max_cost, grace_period, reduction_factor, created_by, created_at, reason, ended_at)
    SELECT id, 'vision-transformer-base-patch16 <b>learning rate</b> and batch size',
           jsonb_build_object(
               'project_id', id, 'name', 'vit', 'entrypoint', '["python", "train.py", "--lr={learning_rate}"]'::jsonb,
               'parameters', '{}'::jsonb, 'environment', '{}'::jsonb, 'working_directory', NULL, 'tags', '[]'::jsonb,
               'cpus', 1, 'memory_gib', 0, 'gpus', 0, 'gpu_model', NULL, 'labels', '{}'::jsonb, 'machine_id', NULL,
               'machine_name', NULL, 'max_price_per_hour', NULL, 'priority', 0, 'max_runtime', NULL, 'max_retries', 0,
               'retry_on', '[]'::jsonb, 'max_steps', 10000
           ), $6::text::jsonb, 'TPE', 7, $5::text, 'MIN', $1::int, 4, $2::int, 500, 1000, 3, 'ada',
           now() - interval '5 h', 'COMPLETED', now() - interval '20 min'
    FROM projects WHERE name = 'default' RETURNING id, project_id
), chosen AS (
    SELECT n, power(10, -5 + 4 * (n * 37 % 101) / 100.0) AS lr, round((n * 53 % 97) / 97.0 * 0.3, 4) AS wd,
           (ARRAY[64, 128, 256])[1 + n * 7 % 3] AS batch, (ARRAY['adam', 'sgd'])[1 + n * 11 % 2] AS optimizer,
           CASE WHEN n % 13 = 12 THEN 'FAIL' WHEN n % 9 = 8 THEN 'PRUNED' ELSE 'COMPLETE' END AS outcome
    FROM generate_series(0, $1::int - 1) AS n
), judged AS (
    SELECT c.*, 0.21 + 0.35 * power(log(lr::numeric) + 2.5, 2)::float8 + 12.0 / batch
                + CASE optimizer WHEN 'sgd' THEN 0.12 ELSE 0 END + 0.2 * wd AS floor
    FROM chosen AS c
), trials AS (
    INSERT INTO sweep_trials (sweep_id, number, parameters, begun_at, ended_at, outcome, value, spread, step, cost)
    SELECT m.id, n, jsonb_build_object('learning_rate', lr, 'optimizer.weight_decay', wd, 'batch_size', batch,
                                       'optimizer.name', optimizer),
           now() - interval '5 h' + n * interval '3 min', now() - interval '5 h' + (n + 2) * interval '3 min', outcome,
           CASE outcome WHEN 'FAIL' THEN NULL ELSE floor + CASE outcome WHEN 'PRUNED' THEN 0.3 ELSE 0 END END,
           CASE WHEN $2::int > 1 AND outcome <> 'FAIL' THEN 0.01 + n % 5 * 0.004 END,
           CASE outcome WHEN 'PRUNED' THEN 3000 END, 1.25 + n % 7 * 0.4
    FROM judged, made AS m
), runs AS (
    INSERT INTO simulations (project_id, name, entrypoint, created_by, state, reason, attempt, parameters, sweep_id, trial,
                             objective_metric, objective_mode, max_steps, tags, created_at, started_at, finished_at, final_cost)
    SELECT m.project_id, 'vision-transformer-base-patch16-learning-rate-and-batch-' || n || '-seed-' || seed,
           ARRAY['python', 'train.py'], 'ada', CASE outcome WHEN 'FAIL' THEN 'FAILED' ELSE 'FINISHED' END,
           CASE outcome WHEN 'FAIL' THEN 'EXIT_CODE' WHEN 'PRUNED' THEN 'PRUNED' ELSE 'COMPLETED' END, 1,
           jsonb_build_object('learning_rate', lr, 'optimizer', jsonb_build_object('name', optimizer, 'weight_decay', wd),
                              'batch_size', batch, 'dataset', 'imagenet-21k', 'run', 9007199254740993 + n)
           || CASE WHEN $2::int > 1 THEN jsonb_build_object('seed', seed) ELSE '{}'::jsonb END,
           m.id, n, $5::text, 'MIN', 10000, ARRAY['swept'], now() - interval '5 h' + n * interval '3 min',
           now() - interval '5 h' + n * interval '3 min', now() - interval '5 h' + (n + 2) * interval '3 min',
           1.25 + n % 7 * 0.4
    FROM judged, made AS m, generate_series(0, $2::int - 1) AS seed ORDER BY n, seed
    RETURNING id, trial, started_at, finished_at
), points AS (
    SELECT r.id, metric, s, s::bigint * 10000 / $4::int AS step, 1 AS batch,
           s * 600.0 / $4::int * (1 + r.trial % 5 * 0.1) AS elapsed,
           CASE WHEN metric LIKE '%learning_rate%' THEN lr * exp(-3.0 * s / $4::int)
                WHEN metric = 'epoch' THEN s / 10
                WHEN metric LIKE '%accuracy%' THEN 0.92 - 0.5 * (floor - 0.2) - 0.8 * exp(-5.0 * s / $4::int)
                ELSE (1 + at % 5 * 20) * (floor + 2.2 * exp(-6.0 * s / $4::int))
                     * (1 + 0.02 * sin(s * 12.9898 + r.id * 78.233 + at) + 0.015 * sin(s * 3.7 + r.id))
           END + CASE WHEN r.trial % 25 = 24 THEN exp(24.0 * s / $4::int) - 1 ELSE 0 END AS v
    FROM runs AS r JOIN judged AS j ON j.n = r.trial,
         unnest($3::text[]) WITH ORDINALITY AS m (metric, at), generate_series(1, $4::int) AS s
    WHERE j.outcome <> 'PRUNED' OR s <= $4::int / 3
), """  # noqa: E501  # SQL
    + STORED
    + "SELECT id FROM made"
)  # a constant; SQL


async def fill_sweep(
    service: Service, trials: int, *, seeds: int = 1, metrics: Sequence[str] = METRICS, points: int = 60
) -> int:
    """Make a sweep that has ended, with so many trials; its number."""
    [[number]] = await service.fetch(FILL, trials, seeds, list(metrics), points, OBJECTIVE, SPACE)
    await service.alter("ANALYZE simulations, metrics, results, sweeps, sweep_trials")
    return int(number)
